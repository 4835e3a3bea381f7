use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn draft() -> Draft {
    Draft {
        conference: Conference::from_names("room", None, "meet.example.com").unwrap(),
        title: Some("Weekly".into()),
        owner: Some("alice@example.com".into()),
        start: at("2026-12-01T13:00:00.789Z"),
        time_zone: None,
        end: Some(at("2026-12-01T14:00:00.123Z")),
        options: Options::default(),
        start_policy: None,
        auto_live: None,
    }
}

fn error(change: impl FnOnce(&mut Draft)) -> DraftError {
    let mut draft = draft();
    change(&mut draft);
    draft
        .checked(StartPolicy::Anyone, at("2026-12-01T12:00:00Z"))
        .unwrap_err()
}

#[test]
fn a_valid_draft_is_truncated_to_whole_seconds() {
    let checked = draft()
        .checked(StartPolicy::Owner, at("2026-12-01T12:00:00Z"))
        .unwrap();
    assert_eq!(checked.start, at("2026-12-01T13:00:00Z"));
    assert_eq!(checked.end, Some(at("2026-12-01T14:00:00Z")));
}

#[test]
fn a_window_must_end_after_its_start_and_in_the_future() {
    assert_eq!(error(|d| d.end = Some(d.start)), DraftError::EndBeforeStart);
    let past = |d: &mut Draft| {
        d.start = at("2026-11-01T13:00:00Z");
        d.end = Some(at("2026-11-01T14:00:00Z"));
    };
    assert_eq!(error(past), DraftError::EndInThePast);
}

#[test]
fn a_window_of_more_than_a_hundred_years_is_rejected() {
    let century = |d: &mut Draft| d.end = Some(d.start + WINDOW_MAX);
    let longer = |d: &mut Draft| d.end = Some(d.start + WINDOW_MAX + TimeDelta::seconds(1));
    assert_eq!(error(longer), DraftError::EndTooLate);
    let mut draft = draft();
    century(&mut draft);
    let checked = draft.checked(StartPolicy::Anyone, at("2026-12-01T12:00:00Z"));
    assert!(
        (checked.unwrap().end.unwrap() - at("2026-12-01T13:00:00Z")).num_seconds() < 10_i64.pow(10)
    );
}

#[test]
fn blank_long_and_control_texts_are_rejected() {
    assert_eq!(
        error(|d| d.title = Some(" ".into())),
        DraftError::NotPlain("title")
    );
    assert_eq!(
        error(|d| d.owner = Some("a\nb".into())),
        DraftError::NotPlain("owner")
    );
    let long = |d: &mut Draft| d.options.password = Some(Secret::new("é".repeat(PASSWORD_MAX + 1)));
    assert_eq!(
        error(long),
        DraftError::TooLong {
            field: "password",
            max: PASSWORD_MAX
        }
    );
}

#[test]
fn zero_and_too_many_occupants_are_rejected() {
    for n in [0, OCCUPANTS_MAX + 1] {
        assert_eq!(
            error(|d| d.options.max_occupants = Some(n)),
            DraftError::Occupants
        );
    }
}

#[test]
fn auto_live_requires_a_queue_and_has_a_limit() {
    assert_eq!(error(|d| d.auto_live = Some(0)), DraftError::AutoLive);
    let late = |d: &mut Draft| {
        d.options.waiting_queue = true;
        d.auto_live = Some(AUTO_LIVE_MAX + 1);
    };
    assert_eq!(error(late), DraftError::AutoLive);
}

#[test]
fn start_policy_owner_requires_an_owner() {
    let orphan = |d: &mut Draft| {
        d.owner = None;
        d.start_policy = Some(StartPolicy::Owner);
    };
    assert_eq!(error(orphan), DraftError::OwnerMissing);
}

#[test]
fn a_password_is_not_printed() {
    let mut draft = draft();
    draft.options.password = Some(Secret::new("hunter2".into()));
    assert!(!format!("{draft:?}").contains("hunter2"));
}

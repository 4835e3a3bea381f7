use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn fuzzer() -> (TempDir, Fuzzer) {
    let dir = TempDir::new().unwrap();
    let url = format!("sqlite:{}", dir.path().join("usher.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    (dir, runtime.block_on(Fuzzer::open(&url)))
}

/// The step that sends template `number`, with a value.
fn template(number: u8, value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    [&[number << 3 | 6, length], value.as_bytes()].concat()
}

#[test]
fn script_reaches_each_state_of_a_session() {
    let (_dir, fuzzer) = fuzzer();
    let script = [
        &[3][..],
        &template(2, "1.1,1.2"),
        &template(3, "first"),
        &template(4, "second"),
        &[4, 0],
        &[3, 1],
        &[3, 1],
        &template(7, "second"),
        &template(11, "bye"),
    ]
    .concat();
    let received = fuzzer.run(&script).received;
    let commands: Vec<_> = received
        .iter()
        .map(|frame| {
            let rest = frame.trim_start_matches("Frame { command: ");
            rest.split([',', ':']).next().unwrap()
        })
        .collect();
    assert_eq!(
        commands,
        [
            "Connected",
            "Receipt",
            "Message",
            "Message",
            "Receipt",
            "Receipt",
            "over"
        ],
        "{received:#?}"
    );
}

#[test]
fn any_script_keeps_the_rules() {
    let (_dir, fuzzer) = fuzzer();
    let step = prop_oneof![
        (0_u8..32, "[ -~]{0,12}").prop_map(|(number, value)| template(number, &value)),
        (0_u8..5, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| {
            let length = u8::try_from(bytes.len()).unwrap();
            [&[kind, length], &bytes[..]].concat()
        }),
    ];
    let scripts = (any::<u8>(), prop::collection::vec(step, 0..12));
    proptest!(ProptestConfig::with_cases(512), |((size, steps) in scripts)| {
        // Most scripts begin with CONNECT: else they end at once.
        let start = if size % 4 == 0 { Vec::new() } else { template(2, "1.0,1.1,1.2") };
        fuzzer.run(&[&[size][..], &start, &steps.concat()].concat());
    });
}

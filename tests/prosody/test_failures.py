"""Failures and restarts of usher and Prosody."""

import signal
import time

import pytest

from services import MUC, USES_OLD_SHIM, Prosody, until
from xmpp import Focus, Participant, StanzaError

new_shim = pytest.mark.skipif(USES_OLD_SHIM, reason="of the protocol of the present modules")


def empty_room(participant, nick, focus, console, room):
    participant.leave(room, nick)
    focus.leave_room(room)
    console.wait_until(lambda: not console.room_exists(room))


def test_requests_are_refused_while_usher_is_down_with_one_warning(usher, prosody, focus, new_participant, room):
    usher.book("room1")
    usher.stop()
    for _ in range(3):
        with pytest.raises(StanzaError) as refused:
            new_participant().request(room)
        assert (refused.value.condition, refused.value.code) == ("service-unavailable", "503")
        assert "try again" in refused.value.text
    with pytest.raises(StanzaError):
        focus.create(room)
    assert len(prosody.log_lines("warn")) == 1


def test_requests_succeed_at_once_when_usher_is_back_with_one_log_line(usher, prosody, focus, new_participant, room):
    usher.book("room1")
    usher.stop()
    alice = new_participant()
    with pytest.raises(StanzaError):
        alice.request(room)
    usher.start()
    alice.start(room)
    assert len(prosody.log_lines("warn")) == 1
    assert len(prosody.log_lines("info", "answers again")) == 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_requests_are_allowed_while_usher_is_down_with_on_failure_allow(usher, prosody, focus, new_participant, console, room):
    usher.stop()
    new_participant().start(room)
    focus.create(f"room2@{MUC}")
    assert console.room_exists(f"room2@{MUC}")
    assert len(prosody.log_lines("warn")) == 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_room_allowed_without_usher_gets_its_allocation_when_usher_is_back(usher, focus, new_participant, room):
    _, end = usher.book("room1", 6)
    usher.stop()
    alice = new_participant().start(room)
    usher.start()
    usher.wait_allocation()
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_room_allowed_without_usher_is_destroyed_when_usher_is_back_and_refuses(usher, focus, new_participant, room):
    usher.stop()
    alice = new_participant().start(room)
    usher.start()
    _, reason = alice.wait_end(room)
    assert "not booked" in reason


@new_shim
@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_rooms_that_changed_without_usher_are_known_two_seconds_after_it_is_back(on_failure, request, tmp_path, loop, usher, recorder):
    prosody = Prosody(tmp_path, recorder.url, {"usher_on_failure": on_failure})
    prosody.start()
    for room in ("gone", "stays", "new"):
        usher.book(room)
    focus, people = Focus(loop, prosody), [Participant(loop, prosody) for _ in range(3)]
    alice, bob, carol = people
    alice.start(f"gone@{MUC}", "alice")
    bob.start(f"stays@{MUC}", "bob")
    until(lambda: (usher.running("stays") or {}).get("occupants") == 1)
    usher.stop()
    if on_failure == "allow":
        carol.start(f"new@{MUC}", "carol")
    else:
        with pytest.raises(StanzaError):
            carol.request(f"new@{MUC}")
    alice.leave(f"gone@{MUC}", "alice")
    focus.leave_room(f"gone@{MUC}")
    carol.join(f"stays@{MUC}", "carol")
    time.sleep(3)
    usher.start()
    start = time.monotonic()

    def is_known():
        new = usher.running("new")
        stays = usher.running("stays")
        return (
            usher.allocation("gone") is None
            and stays and stays.get("occupants") == 2
            and bool(new and new["reported"]) == (on_failure == "allow")
        )  # fmt: skip

    until(is_known, 10)
    assert time.monotonic() - start < 2
    for entity in [focus, *people]:
        entity.disconnect()
    prosody.kill()


@pytest.mark.prosody(usher_timeout=1)
def test_request_to_a_slow_usher_fails_at_the_timeout(usher, prosody, focus, new_participant, room):
    usher.book("room1")
    alice = new_participant()
    usher.signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(StanzaError) as refused:
        alice.request(room)
    assert 1 <= time.monotonic() - start < 2
    assert refused.value.code == "503"
    usher.signal(signal.SIGCONT)
    alice.start(room)
    assert len(prosody.log_lines("warn", "no answer within 1 seconds")) == 1


def test_wrong_service_token_is_reported_as_a_failure_not_as_a_refusal(usher, prosody, focus, new_participant, room, console):
    usher.book("room1")
    usher.config.write_text(usher.config.read_text().replace("a-service-token", "another-service-token"))
    usher.stop()
    usher.start()
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert refused.value.code == "503"
    assert len(prosody.log_lines("warn")) == 1


def test_end_of_a_conference_reaches_usher_when_it_is_back(usher, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    allocation = usher.wait_allocation()
    usher.stop()
    empty_room(alice, "alice", focus, console, room)
    usher.start()
    usher.wait_ended(allocation)


def test_reopened_room_gets_a_new_allocation_after_a_lost_report(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    first = usher.wait_allocation()
    recorder.disconnect_on = lambda exchange: not exchange.form.get("requests") and exchange.method != "GET"
    empty_room(alice, "alice", focus, console, room)
    time.sleep(0.3)
    recorder.disconnect_on = lambda exchange: False
    alice.start(room, "alice")
    second = usher.wait_allocation(other_than=first)
    time.sleep(1.5)
    assert usher.has_ended(first) and not usher.has_ended(second)


def test_running_room_ends_on_time_while_usher_is_down(usher, focus, new_participant, room):
    _, end = usher.book("room1", 5)
    alice = new_participant().start(room)
    usher.wait_allocation()
    usher.stop()
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


def test_room_with_an_unknown_allocation_ends_if_refused(usher, focus, new_participant, room):
    usher.book("room1")
    alice = new_participant().start(room)
    usher.wait_allocation()
    usher.delete_database()
    _, reason = alice.wait_end(room)
    assert "not booked" in reason


@pytest.mark.usher(policy="open")
def test_room_with_an_unknown_allocation_gets_a_new_one_if_allowed(usher, focus, new_participant, console, room):
    alice = new_participant().start(room)
    usher.wait_allocation()
    usher.delete_database()
    usher.wait_allocation()
    assert console.room_exists(room)
    assert not alice.was_removed_from(room)


def test_participants_can_rejoin_after_prosody_was_killed(usher, prosody, loop, focus, new_participant, room):
    usher.book("room1", owner="alice@example.com", starters="owner", password="sesame")
    owner = {"user": {"email": "alice@example.com"}}
    new_participant(**owner).start(room, "alice", "sesame")
    new_participant().start(room, "bob", "sesame")
    allocation = usher.wait_allocation()
    prosody.kill()
    prosody.start()
    again = Focus(loop, prosody)
    back = [Participant(loop, prosody) for _ in range(2)] + [Participant(loop, prosody, **owner)]
    for number, participant in enumerate(back):
        assert participant.request(room)
        with pytest.raises(StanzaError):
            participant.join(room, f"p{number}")
        participant.join(room, f"p{number}", "sesame")
    assert usher.allocation() == allocation
    assert not usher.has_ended(allocation)
    for entity in [again, *back]:
        entity.disconnect()


# A long poll whose connection is closed still counts as open until it is answered, after 25 s.
POLL = 30


@new_shim
@pytest.mark.timeout(90)
@pytest.mark.protocol(absent_after="2s")
def test_conference_of_a_prosody_that_was_killed_ends(usher, prosody, focus, new_participant, room):
    usher.book("room1")
    new_participant().start(room, "alice")
    allocation = usher.wait_allocation()
    until(lambda: usher.running()["reported"])
    prosody.kill()
    usher.wait_ended(allocation, POLL + 15)
    prosody.start()


@new_shim
@pytest.mark.timeout(90)
@pytest.mark.protocol(absent_after="2s")
def test_room_of_one_prosody_is_kept_when_another_is_killed(usher, recorder, prosody, loop, tmp_path, focus, new_participant, room):
    usher.book("room1")
    usher.book("room2")
    new_participant().start(room, "alice")
    (tmp_path / "second").mkdir()
    second = Prosody(tmp_path / "second", recorder.url, {})
    second.start()
    other_focus, bob = Focus(loop, second), Participant(loop, second)
    bob.start(f"room2@{MUC}", "bob")
    first, other = usher.wait_allocation(), usher.wait_allocation("room2")
    until(lambda: usher.running("room2")["reported"])
    second.kill()
    usher.wait_ended(other, POLL + 15)
    assert not usher.has_ended(first)
    for entity in (other_focus, bob):
        entity.disconnect()

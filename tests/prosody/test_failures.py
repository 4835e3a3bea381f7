"""Failures and restarts of usher and Prosody."""

import json
import signal
import time

import pytest

from services import MUC
from xmpp import Focus, Participant, StanzaError


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
def test_room_allowed_without_usher_gets_its_allocation_when_usher_is_back(usher, recorder, focus, new_participant, room):
    _, end = usher.book("room1", 6)
    usher.stop()
    alice = new_participant().start(room)
    usher.start()
    recorder.wait("POST", 201)
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_room_allowed_without_usher_is_destroyed_when_usher_is_back_and_refuses(usher, recorder, focus, new_participant, room):
    usher.stop()
    alice = new_participant().start(room)
    usher.start()
    _, reason = alice.wait_end(room)
    assert reason == recorder.wait("POST", 403).response["message"]


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


def test_conflict_with_an_ended_conference_is_retried(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    last = recorder.wait("POST", 201).response["id"]
    empty_room(alice, "alice", focus, console, room)
    recorder.wait("DELETE")
    conflict = [(409, json.dumps({"conflict_id": last}))]
    recorder.override_response = lambda exchange: conflict.pop() if conflict and exchange.method == "POST" else None
    alice.start(room, "alice")
    assert [e.status for e in recorder.seen("POST")] == [201, 409, 201]


def test_repeated_conflict_with_an_unknown_conference_fails_after_one_retry(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    recorder.override_response = lambda exchange: (409, '{"conflict_id": 7}') if exchange.method == "POST" else None
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert refused.value.code == "503"
    assert [e.status for e in recorder.exchanges] == [409, 404, 409, 404]


def test_running_room_survives_a_proxy_that_refuses_status_requests(usher, recorder, prosody, focus, new_participant, console, room):
    booking, _ = usher.book("room1")
    alice = new_participant().start(room)
    recorder.override_response = lambda exchange: (403, "<html>Forbidden</html>") if exchange.method == "GET" else None
    recorder.wait("GET", 403, 3)
    assert console.room_exists(room)
    assert not alice.was_removed_from(room)
    assert len(prosody.log_lines("warn", "403")) == 1
    recorder.override_response = lambda exchange: None
    usher.cancel(booking)
    alice.wait_end(room)


def test_wrong_service_token_is_reported_as_a_failure_not_as_a_refusal(usher, prosody, focus, new_participant, room, console):
    usher.book("room1")
    usher.config.write_text(usher.config.read_text().replace("a-service-token", "another-service-token"))
    usher.stop()
    usher.start()
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert refused.value.code == "503"
    assert len(prosody.log_lines("warn", "401")) == 1


def test_deletion_of_an_allocation_is_retried_until_usher_accepts_it(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    allocation = recorder.wait("POST", 201).response["id"]
    usher.stop()
    alice.leave(room, "alice")
    focus.leave_room(room)
    recorder.wait("DELETE", None)
    usher.start()
    assert not usher.has_ended(allocation)
    deletion = next(e for e in recorder.wait_for_status("DELETE", (200, 204)))
    assert deletion.path == f"/conference/{allocation}"
    assert usher.has_ended(allocation)


def test_reopened_room_gets_a_new_allocation_after_a_lost_deletion(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    first = recorder.wait("POST", 201).response["id"]
    recorder.disconnect_on = lambda exchange: exchange.method == "DELETE"
    alice.leave(room, "alice")
    focus.leave_room(room)
    recorder.wait("DELETE")
    recorder.disconnect_on = lambda exchange: False
    alice.start(room, "alice")
    second = recorder.wait("POST", 201, 2).response["id"]
    assert second != first
    assert usher.has_ended(first) and not usher.has_ended(second)


def test_running_room_ends_on_time_while_usher_is_down(usher, focus, new_participant, room):
    _, end = usher.book("room1", 5)
    alice = new_participant().start(room)
    usher.stop()
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


def test_room_with_an_unknown_allocation_requests_a_new_one_and_ends_if_refused(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room)
    usher.delete_database()
    _, reason = alice.wait_end(room)
    assert reason == recorder.wait("POST", 403).response["message"]


@pytest.mark.usher(policy="open")
def test_room_with_an_unknown_allocation_gets_a_new_one_if_allowed(usher, recorder, focus, new_participant, console, room):
    alice = new_participant().start(room)
    usher.delete_database()
    again = recorder.wait("POST", 201, 2)
    assert again.form["mail_owner"] == alice.jid
    assert console.room_exists(room)
    assert not alice.was_removed_from(room)


def test_participants_can_rejoin_after_prosody_was_killed(usher, recorder, prosody, loop, focus, new_participant, room):
    usher.book("room1", owner="alice@example.com", starters="owner", password="sesame")
    owner = {"user": {"email": "alice@example.com"}}
    new_participant(**owner).start(room, "alice", "sesame")
    new_participant().start(room, "bob", "sesame")
    allocation = recorder.wait("POST", 201).response["id"]
    prosody.kill()
    prosody.start()
    again = Focus(loop, prosody)
    back = [Participant(loop, prosody) for _ in range(2)] + [Participant(loop, prosody, **owner)]
    for number, participant in enumerate(back):
        assert participant.request(room)
        with pytest.raises(StanzaError):
            participant.join(room, f"p{number}")
        participant.join(room, f"p{number}", "sesame")
    assert recorder.wait("POST", 409).response["conflict_id"] == allocation
    assert not usher.has_ended(allocation)
    assert len(recorder.seen("POST", 201)) == 1
    for entity in [again, *back]:
        entity.disconnect()

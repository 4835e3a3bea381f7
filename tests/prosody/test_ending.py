"""The end of a conference: at its time, by a change of its booking, or because the room is empty."""

import time

import pytest

from services import USES_OLD_SHIM, until
from xmpp import StanzaError

new_shim = pytest.mark.skipif(USES_OLD_SHIM, reason="the modules of usher 0.1 do not do this")


def endings(participant):
    return [h.json_message for h in participant.stanzas if h.json_message and h.json_message["type"] == "usher-ending"]


def timers(participant):
    return [h.json_message for h in participant.stanzas if h.json_message and h.json_message["type"] == "time_restricted"]


def is_ending(stanza):
    return stanza.json_message and stanza.json_message["type"] == "usher-ending"


def test_room_ends_on_time_with_a_reason(usher, focus, new_participant, room):
    _, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    allocation = usher.wait_allocation()
    at, reason = alice.wait_end(room)
    assert end <= at < end + 1
    assert reason == "The time of this conference is over."
    usher.wait_ended(allocation)


@pytest.mark.prosody(usher_warn_before=3)
def test_room_receives_a_warning_before_its_end(usher, focus, new_participant, room):
    _, end = usher.book("room1", 6)
    alice = new_participant().start(room)
    warning = alice.wait(lambda h: h.body and h.body.startswith("This conference ends in"))
    assert (warning.type, warning.sender) == ("groupchat", room)
    texts = [time.strftime(f"This conference ends in 3 seconds, at {clock} UTC.", time.gmtime(end)) for clock in ("%H:%M", "%H:%M:%S")]
    assert warning.body in texts
    assert end - 3 <= warning.at < end - 2
    message = alice.wait(is_ending).json_message
    assert message == {
        "type": "usher-ending",
        "conference": room,
        "ends_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)),
        "seconds": 3,
    }
    assert not any(h.json_message for h in focus.stanzas)
    alice.wait_end(room)


@pytest.mark.prosody(usher_warn_before=0)
def test_room_receives_no_warning_if_none_is_configured(usher, focus, new_participant, room):
    usher.book("room1", 4)
    alice = new_participant().start(room)
    alice.wait_end(room)
    assert endings(alice) == [] and not any(h.body for h in alice.stanzas)


@pytest.mark.usher(time_zone="Asia/Kathmandu")
@pytest.mark.prosody(usher_warn_before=3)
def test_warning_contains_the_end_in_the_configured_time_zone(usher, focus, new_participant, room):
    _, end = usher.book("room1", 5)
    alice = new_participant().start(room)
    warning = alice.wait(lambda h: h.body and h.body.startswith("This conference ends in")).body
    local = time.gmtime(end + 5 * 3600 + 45 * 60)
    assert warning.split(", at ")[1].startswith((time.strftime("%H:%M:%S +0545", local), time.strftime("%H:%M +0545", local)))


@pytest.mark.prosody(usher_warn_before=60)
def test_participant_who_joins_after_the_warning_receives_it(usher, focus, new_participant, room):
    usher.book("room1", 20)
    new_participant().start(room, "alice").wait(is_ending)
    bob = new_participant()
    bob.join(room, "bob")
    assert bob.wait(is_ending).json_message["seconds"] <= 21


@pytest.mark.prosody(usher_warn_before=3)
def test_extended_booking_moves_the_end_and_warns_again(usher, focus, new_participant, room):
    booking, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    alice.wait(is_ending)
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end + 4)))
    at, _ = alice.wait_end(room)
    assert end + 4 <= at < end + 5
    assert len(endings(alice)) == 2, endings(alice)


@new_shim
def test_meeting_timer_is_sent_to_each_participant_and_again_when_the_end_changes(usher, focus, new_participant, room):
    booking, end = usher.book("room1", 600)
    alice = new_participant().start(room, "alice")
    alice.wait(lambda h: timers(alice))
    [timer] = timers(alice)
    assert 599 <= timer["durationSeconds"] - timer["elapsedSeconds"] <= 601
    bob = new_participant()
    bob.join(room, "bob")
    bob.wait(lambda h: timers(bob))
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end + 900)))
    for participant in (alice, bob):
        participant.wait(lambda h, p=participant: len(timers(p)) == 2)
        first, second = timers(participant)
        assert abs(second["durationSeconds"] - first["durationSeconds"] - 900) <= 2


@new_shim
@pytest.mark.prosody(usher_timer=False)
def test_meeting_timer_can_be_turned_off(usher, focus, new_participant, room):
    usher.book("room1", 4)
    alice = new_participant().start(room)
    alice.wait_end(room)
    assert timers(alice) == []


def test_shortened_booking_ends_the_room_earlier(usher, focus, new_participant, room):
    booking, end = usher.book("room1", 600)
    alice = new_participant().start(room)
    end = int(time.time()) + 4
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)))
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


def test_cancelled_booking_ends_the_room_with_ushers_message(usher, focus, new_participant, room):
    booking, _ = usher.book("room1", 600)
    alice = new_participant().start(room)
    start = time.time()
    usher.cancel(booking)
    at, reason = alice.wait_end(room)
    assert "cancelled" in reason
    assert at - start < 2


@new_shim
def test_conference_ended_by_an_operator_closes_its_room(usher, focus, new_participant, room):
    usher.book("room1", 600)
    alice = new_participant().start(room)
    allocation = usher.wait_allocation()
    until(lambda: usher.running()["reported"])
    status, answer = usher.request("DELETE", f"/api/v1/conferences/{allocation}")
    assert status == 204, answer
    alice.wait_end(room)
    usher.wait_ended(allocation)


def test_empty_room_ends_its_allocation_and_can_be_opened_again(usher, focus, new_participant, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    first = usher.wait_allocation()
    alice.leave(room, "alice")
    focus.leave_room(room)
    usher.wait_ended(first)
    new_participant().start(room, "bob")
    assert usher.wait_allocation(other_than=first)


def test_approval_ends_with_its_room(usher, focus, new_participant, console, room):
    booking, _ = usher.book("room1")
    alice = new_participant().start(room, "alice")
    allocation = usher.wait_allocation()
    alice.leave(room, "alice")
    focus.leave_room(room)
    usher.wait_ended(allocation)
    usher.cancel(booking)
    with pytest.raises(StanzaError):
        focus.create(room)
    assert not console.room_exists(room)


def test_room_with_a_distant_end_keeps_running(usher, focus, new_participant, room):
    usher.book("room1", 300 * 24 * 3600)
    alice = new_participant().start(room)
    time.sleep(2)
    assert not alice.was_removed_from(room)

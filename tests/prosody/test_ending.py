"""The end of a conference: at its time, by a change of its booking, or because the room is empty."""

import time

import pytest

from xmpp import StanzaError


def test_room_ends_on_time_with_a_reason(usher, recorder, focus, new_participant, room):
    _, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    at, reason = alice.wait_end(room)
    assert end <= at < end + 1
    assert reason == "The time of this conference is over."
    assert recorder.wait("DELETE").status in (200, 204, 404)


@pytest.mark.prosody(usher_refresh=600)
def test_room_ends_on_time_without_further_requests(usher, recorder, focus, new_participant, room):
    _, end = usher.book("room1", 3)
    at, _ = new_participant().start(room).wait_end(room)
    assert end <= at < end + 1
    assert recorder.seen("GET") == []


@pytest.mark.prosody(usher_warn_before=3)
def test_room_receives_a_warning_before_its_end(usher, focus, new_participant, room):
    _, end = usher.book("room1", 6)
    alice = new_participant().start(room)
    warning = alice.wait(lambda h: h.body and h.body.startswith("This conference ends in"))
    assert (warning.type, warning.sender) == ("groupchat", room)
    assert warning.body == time.strftime("This conference ends in 3 seconds, at %H:%M UTC.", time.gmtime(end))
    assert end - 3 <= warning.at < end - 2
    message = alice.wait(lambda h: h.json_message).json_message
    assert message == {
        "type": "usher-ending",
        "conference": room,
        "ends_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)),
        "seconds": 3,
    }
    assert not any(h.json_message for h in focus.stanzas)
    alice.wait_end(room)


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
    new_participant().start(room, "alice").wait(lambda h: h.json_message)
    bob = new_participant()
    bob.join(room, "bob")
    assert bob.wait(lambda h: h.json_message).json_message["seconds"] <= 21


@pytest.mark.prosody(usher_warn_before=3)
def test_extended_booking_moves_the_end_and_warns_again(usher, focus, new_participant, room):
    booking, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    alice.wait(lambda h: h.json_message)
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end + 4)))
    at, _ = alice.wait_end(room)
    assert end + 4 <= at < end + 5
    seconds = [h.json_message["seconds"] for h in alice.stanzas if h.json_message]
    assert len(seconds) == 2, seconds


def test_shortened_booking_ends_the_room_earlier(usher, focus, new_participant, room):
    booking, end = usher.book("room1", 600)
    alice = new_participant().start(room)
    end = int(time.time()) + 4
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)))
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


def test_cancelled_booking_ends_the_room_with_ushers_message(usher, recorder, focus, new_participant, room):
    booking, _ = usher.book("room1", 600)
    alice = new_participant().start(room)
    usher.cancel(booking)
    _, reason = alice.wait_end(room)
    assert reason == recorder.wait("GET", 404).response["message"]


def test_empty_room_ends_its_allocation_and_can_be_opened_again(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    first = recorder.wait("POST", 201).response["id"]
    alice.leave(room, "alice")
    focus.leave_room(room)
    assert recorder.wait("DELETE").path == f"/conference/{first}"
    assert usher.has_ended(first)
    new_participant().start(room, "bob")
    assert recorder.wait("POST", 201, 2).response["id"] != first


def test_approval_ends_with_its_room(usher, recorder, focus, new_participant, console, room):
    booking, _ = usher.book("room1")
    alice = new_participant().start(room, "alice")
    alice.leave(room, "alice")
    focus.leave_room(room)
    recorder.wait("DELETE")
    usher.cancel(booking)
    with pytest.raises(StanzaError):
        focus.create(room)
    assert not console.room_exists(room)


def test_room_with_a_distant_end_keeps_running(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", 300 * 24 * 3600)
    alice = new_participant().start(room)
    recorder.wait("GET", 200, 3)
    assert not alice.was_removed_from(room)

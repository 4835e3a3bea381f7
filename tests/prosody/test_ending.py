"""A conference ends: on time, early, late, by its booking, or because everybody left."""

import time

import pytest

from xmpp import Refused


def test_a_room_ends_at_the_right_second_and_says_why(usher, wire, focus, people, room):
    _, end = usher.book("room1", 4)
    alice = people().start(room)
    at, reason = alice.wait_end(room)
    assert end <= at < end + 1
    assert reason == "The time of this conference is over."
    assert wire.wait("DELETE").status in (200, 204, 404)


@pytest.mark.prosody(usher_refresh=600)
def test_a_room_ends_on_time_without_asking_usher_again(usher, wire, focus, people, room):
    _, end = usher.book("room1", 3)
    at, _ = people().start(room).wait_end(room)
    assert end <= at < end + 1
    assert wire.seen("GET") == []


@pytest.mark.prosody(usher_warn_before=3)
def test_the_room_is_warned_before_its_end(usher, focus, people, room):
    _, end = usher.book("room1", 6)
    alice = people().start(room)
    said = alice.wait(lambda h: h.body and h.body.startswith("This conference ends in"))
    assert (said.type, said.sender) == ("groupchat", room)
    assert said.body == time.strftime("This conference ends in 3 seconds, at %H:%M UTC.", time.gmtime(end))
    assert end - 3 <= said.at < end - 2
    message = alice.wait(lambda h: h.json_message).json_message
    assert message == {
        "type": "usher-ending",
        "conference": room,
        "ends_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)),
        "seconds": 3,
    }
    assert not any(h.json_message for h in focus.heard)
    alice.wait_end(room)


@pytest.mark.usher(time_zone="Asia/Kathmandu")
@pytest.mark.prosody(usher_warn_before=3)
def test_the_warning_names_the_end_in_ushers_time_zone(usher, focus, people, room):
    _, end = usher.book("room1", 5)
    alice = people().start(room)
    said = alice.wait(lambda h: h.body and h.body.startswith("This conference ends in")).body
    there = time.gmtime(end + 5 * 3600 + 45 * 60)
    assert said.split(", at ")[1].startswith((time.strftime("%H:%M:%S +0545", there), time.strftime("%H:%M +0545", there)))


@pytest.mark.prosody(usher_warn_before=60)
def test_who_joins_after_the_warning_is_told_too(usher, focus, people, room):
    usher.book("room1", 20)
    people().start(room, "alice").wait(lambda h: h.json_message)
    bob = people()
    bob.join(room, "bob")
    assert bob.wait(lambda h: h.json_message).json_message["seconds"] <= 21


@pytest.mark.prosody(usher_warn_before=3)
def test_a_lengthened_booking_moves_the_end_and_warns_anew(usher, focus, people, room):
    booking, end = usher.book("room1", 4)
    alice = people().start(room)
    alice.wait(lambda h: h.json_message)
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end + 4)))
    at, _ = alice.wait_end(room)
    assert end + 4 <= at < end + 5
    seconds = [h.json_message["seconds"] for h in alice.heard if h.json_message]
    assert len(seconds) == 2, seconds


def test_a_shortened_booking_ends_the_room_earlier(usher, focus, people, room):
    booking, end = usher.book("room1", 600)
    alice = people().start(room)
    end = int(time.time()) + 4
    usher.change(booking, end=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)))
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


def test_a_cancelled_booking_ends_the_room_with_ushers_sentence(usher, wire, focus, people, room):
    booking, _ = usher.book("room1", 600)
    alice = people().start(room)
    usher.cancel(booking)
    _, reason = alice.wait_end(room)
    assert reason == wire.wait("GET", 404).answer["message"]


def test_an_emptied_room_ends_its_allocation_and_can_be_opened_again(usher, wire, focus, people, console, room):
    usher.book("room1")
    alice = people().start(room, "alice")
    first = wire.wait("POST", 201).answer["id"]
    alice.leave(room, "alice")
    focus.go(room)
    assert wire.wait("DELETE").path == f"/conference/{first}"
    assert usher.ended(first)
    people().start(room, "bob")
    assert wire.wait("POST", 201, 2).answer["id"] != first


def test_an_approval_does_not_outlive_its_room(usher, wire, focus, people, console, room):
    booking, _ = usher.book("room1")
    alice = people().start(room, "alice")
    alice.leave(room, "alice")
    focus.go(room)
    wire.wait("DELETE")
    usher.cancel(booking)
    with pytest.raises(Refused):
        focus.create(room)
    assert not console.room_exists(room)


def test_a_room_without_an_end_in_sight_runs_on(usher, wire, focus, people, console, room):
    usher.book("room1", 300 * 24 * 3600)
    alice = people().start(room)
    wire.wait("GET", 200, 3)
    assert not alice.has_been_thrown_out_of(room)

"""The module is reloaded or unloaded in a running Prosody."""

import signal
import threading
import time

import pytest

from xmpp import Refused


@pytest.mark.prosody(usher_refresh=600)
def test_a_reload_keeps_a_running_rooms_end(usher, wire, focus, people, console, room):
    _, end = usher.book("room1", 4)
    alice = people().start(room)
    console.shim("reload")
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1
    wire.wait("DELETE")
    assert len(wire.seen("POST")) == 1


@pytest.mark.prosody(usher_warn_before=60)
def test_a_reload_does_not_warn_again(usher, wire, focus, people, console, room):
    usher.book("room1", 30)
    alice = people().start(room)
    alice.wait(lambda h: h.json_message)
    console.shim("reload")
    wire.wait("GET", 200, len(wire.seen("GET")) + 2)
    assert len([h for h in alice.heard if h.json_message]) == 1


def test_a_reload_keeps_following_the_booking(usher, focus, people, console, room):
    booking, _ = usher.book("room1", 600)
    alice = people().start(room)
    console.shim("reload")
    console.shim("reload")
    usher.cancel(booking)
    alice.wait_end(room)


def test_a_reload_leaves_a_moderators_password_alone(usher, wire, focus, people, console, room):
    usher.book("room1", password="sesame")
    people().start(room, "alice", "sesame")
    console.lua(f"prosody.hosts['conference.meet.localhost'].modules.muc.get_room_from_jid('{room}'):set_password('theirs')")
    console.shim("reload")
    wire.wait("GET", 200, len(wire.seen("GET")) + 2)
    people().join(room, "bob", "theirs")


def test_a_reload_keeps_what_usher_has_not_heard(usher, wire, focus, people, console, room):
    usher.book("room1")
    alice = people().start(room, "alice")
    wire.hang_up_on = lambda exchange: exchange.method == "DELETE"
    alice.leave(room, "alice")
    focus.go(room)
    wire.wait("DELETE")
    console.shim("reload")
    wire.hang_up_on = lambda exchange: False
    wire.wait_for_status("DELETE", (200, 204))


def test_a_request_held_during_a_reload_is_answered(usher, wire, focus, people, console, room):
    usher.book("room1")
    alice = people()
    answers = []
    usher.signal(signal.SIGSTOP)
    asking = threading.Thread(target=lambda: answers.append(alice.request(room)))
    asking.start()
    console.wait_until(lambda: console.pending() == 1)
    console.shim("reload")
    usher.signal(signal.SIGCONT)
    asking.join(15)
    assert answers == [True]


def test_after_unload_nothing_acts_any_more(usher, wire, focus, people, console, room):
    _, end = usher.book("room1", 4)
    alice = people().start(room)
    hooks = console.hooks()
    assert hooks > 0
    console.shim("unload")
    asked = len(wire.exchanges)
    assert console.hooks() == 0
    assert people().request("room2@conference.meet.localhost"), "the gate is gone"
    # The end has no event to wait for any more: a moment after it is the proof.
    time.sleep(max(0, end + 0.5 - time.time()))
    assert console.room_exists(room)
    assert not alice.has_been_thrown_out_of(room)
    assert len(wire.exchanges) == asked


def test_a_request_held_at_unload_is_answered(usher, focus, people, console, room):
    usher.book("room1")
    alice = people()
    refused = []

    def ask():
        try:
            alice.request(room)
        except Refused as error:
            refused.append(error)

    usher.signal(signal.SIGSTOP)
    asking = threading.Thread(target=ask)
    asking.start()
    console.wait_until(lambda: console.pending() == 1)
    console.shim("unload")
    asking.join(15)
    assert [error.code for error in refused] == ["503"]

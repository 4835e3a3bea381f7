"""Reloading and unloading the module in a running Prosody."""

import signal
import threading
import time

import pytest

from xmpp import StanzaError


@pytest.mark.prosody(usher_refresh=600)
def test_reload_keeps_the_end_of_a_running_room(usher, recorder, focus, new_participant, console, room):
    _, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    console.shim("reload")
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1
    recorder.wait("DELETE")
    assert len(recorder.seen("POST")) == 1


@pytest.mark.prosody(usher_warn_before=60)
def test_reload_does_not_repeat_the_warning(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", 30)
    alice = new_participant().start(room)
    alice.wait(lambda h: h.json_message)
    console.shim("reload")
    recorder.wait("GET", 200, len(recorder.seen("GET")) + 2)
    assert len([h for h in alice.stanzas if h.json_message]) == 1


def test_reload_keeps_polling_the_booking(usher, focus, new_participant, console, room):
    booking, _ = usher.book("room1", 600)
    alice = new_participant().start(room)
    console.shim("reload")
    console.shim("reload")
    usher.cancel(booking)
    alice.wait_end(room)


def test_reload_keeps_a_password_set_by_a_moderator(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", password="sesame")
    new_participant().start(room, "alice", "sesame")
    console.lua(f"prosody.hosts['conference.meet.localhost'].modules.muc.get_room_from_jid('{room}'):set_password('changed')")
    console.shim("reload")
    recorder.wait("GET", 200, len(recorder.seen("GET")) + 2)
    new_participant().join(room, "bob", "changed")


def test_reload_keeps_undelivered_requests(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    recorder.disconnect_on = lambda exchange: exchange.method == "DELETE"
    alice.leave(room, "alice")
    focus.leave_room(room)
    recorder.wait("DELETE")
    console.shim("reload")
    recorder.disconnect_on = lambda exchange: False
    recorder.wait_for_status("DELETE", (200, 204))


def test_request_pending_during_a_reload_is_answered(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant()
    answers = []
    usher.signal(signal.SIGSTOP)
    request = threading.Thread(target=lambda: answers.append(alice.request(room)))
    request.start()
    console.wait_until(lambda: console.pending() == 1)
    console.shim("reload")
    usher.signal(signal.SIGCONT)
    request.join(15)
    assert answers == [True]


def test_unloaded_module_does_nothing(usher, recorder, focus, new_participant, console, room):
    _, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    hooks = console.hooks()
    assert hooks > 0
    console.shim("unload")
    requests = len(recorder.exchanges)
    assert console.hooks() == 0
    assert new_participant().request("room2@conference.meet.localhost"), "the unloaded module still blocks requests"
    # No event announces that the room is kept, so the test waits until after its end.
    time.sleep(max(0, end + 0.5 - time.time()))
    assert console.room_exists(room)
    assert not alice.was_removed_from(room)
    assert len(recorder.exchanges) == requests


def test_request_pending_at_unload_is_answered(usher, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant()
    refused = []

    def send_request():
        try:
            alice.request(room)
        except StanzaError as error:
            refused.append(error)

    usher.signal(signal.SIGSTOP)
    request = threading.Thread(target=send_request)
    request.start()
    console.wait_until(lambda: console.pending() == 1)
    console.shim("unload")
    request.join(15)
    assert [error.code for error in refused] == ["503"]

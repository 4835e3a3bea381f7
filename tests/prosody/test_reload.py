"""Reloading and unloading the modules in a running Prosody."""

import signal
import threading
import time

import pytest

from services import MUC, USES_OLD_SHIM, until
from xmpp import StanzaError

# Each module alone; a reload of usher_client reloads those that depend on it.
MODULES = ["usher_reservations"] if USES_OLD_SHIM else ["usher_reservations", "usher_client"]
every_module = pytest.mark.parametrize("module", MODULES)
WHOLE = MODULES[-1]


@every_module
def test_reload_keeps_the_end_of_a_running_room(module, usher, focus, new_participant, console, room):
    _, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    allocation = usher.wait_allocation()
    console.shim("reload", module)
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1
    usher.wait_ended(allocation)


@every_module
@pytest.mark.prosody(usher_warn_before=60)
def test_reload_repeats_no_message(module, usher, focus, new_participant, console, room):
    usher.book("room1", 30)
    alice = new_participant().start(room)
    alice.wait(lambda h: h.json_message and h.json_message["type"] == "usher-ending")
    before = len([h for h in alice.stanzas if h.json_message])
    console.shim("reload", module)
    time.sleep(2)
    assert len([h for h in alice.stanzas if h.json_message]) == before


@every_module
def test_reload_keeps_following_the_booking(module, usher, focus, new_participant, console, room):
    booking, _ = usher.book("room1", 600)
    alice = new_participant().start(room)
    allocation = usher.wait_allocation()
    console.shim("reload", module)
    console.shim("reload", module)
    time.sleep(0.5)
    assert usher.allocation() == allocation
    usher.cancel(booking)
    alice.wait_end(room)


@every_module
def test_reload_keeps_a_password_set_by_a_moderator(module, usher, focus, new_participant, console, room):
    usher.book("room1", password="sesame")
    new_participant().start(room, "alice", "sesame")
    console.lua(f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}'):set_password('changed')")
    console.shim("reload", module)
    time.sleep(1)
    new_participant().join(room, "bob", "changed")


@every_module
def test_reload_keeps_unanswered_reports(module, usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant().start(room, "alice")
    allocation = usher.wait_allocation()
    until(lambda: usher.running()["reported"] or USES_OLD_SHIM)
    recorder.disconnect_on = lambda exchange: exchange.method in ("DELETE", "POST")
    alice.leave(room, "alice")
    focus.leave_room(room)
    console.wait_until(lambda: not console.room_exists(room))
    console.shim("reload", module)
    recorder.disconnect_on = lambda exchange: False
    usher.wait_ended(allocation)


@every_module
def test_request_pending_during_a_reload_is_answered(module, usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    alice = new_participant()
    answers = []
    usher.signal(signal.SIGSTOP)
    before = console.pending()
    request = threading.Thread(target=lambda: answers.append(alice.request(room)))
    request.start()
    console.wait_until(lambda: console.pending() > before)
    console.shim("reload", module)
    usher.signal(signal.SIGCONT)
    request.join(15)
    assert answers == [True]


def test_unloaded_modules_do_nothing(usher, recorder, focus, new_participant, console, room):
    _, end = usher.book("room1", 4)
    alice = new_participant().start(room)
    assert console.hooks() > 0
    console.shim("unload", WHOLE)
    assert console.hooks() == 0
    until(lambda: console.pending() <= 1)
    requests = len(recorder.exchanges)
    assert new_participant().request(f"room2@{MUC}"), "the unloaded module still blocks requests"
    # No event announces that the room is kept, so the test waits until after its end.
    time.sleep(max(0, end + 0.5 - time.time()))
    assert console.room_exists(room) or USES_OLD_SHIM
    assert not alice.was_removed_from(room)
    # The long poll that was open may be answered.
    assert len(recorder.exchanges) <= requests + 1


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
    before = console.pending()
    request = threading.Thread(target=send_request)
    request.start()
    console.wait_until(lambda: console.pending() > before)
    console.shim("unload")
    request.join(15)
    assert [error.code for error in refused] == ["503"]

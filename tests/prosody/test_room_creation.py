"""Rooms that are created without a conference request over XMPP: by the focus, a user or a module."""

import time

import pytest

from services import MUC, USES_OLD_SHIM
from xmpp import Focus, Participant, StanzaError


def test_refused_room_is_not_created(usher, recorder, focus, new_participant, console, room):
    with pytest.raises(StanzaError) as refused:
        focus.create(room)
    assert refused.value.condition == "not-allowed"
    assert refused.value.text == recorder.wait_decision("refuse").text
    assert not console.room_exists(room)


def test_allowed_room_is_created_with_an_allocation(usher, recorder, focus, new_participant, console, room):
    usher.book("room1")
    focus.create(room)
    assert recorder.wait_decision("allow").sender == ""
    allocation = usher.wait_allocation()
    assert console.room_exists(room)
    new_participant().join(room, "alice")
    assert not usher.has_ended(allocation)


def test_room_creation_after_a_request_causes_no_second_request(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    new_participant().start(room)
    assert len(recorder.decisions) == 1


def test_room_creation_by_a_user_is_decided_by_their_identity(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    with pytest.raises(StanzaError):
        new_participant(user={"email": "bob@example.com"}).join(room, "bob")
    assert not console.room_exists(room)
    new_participant(user={"email": "alice@example.com"}).join(room, "alice")
    assert console.room_exists(room)


# The module whose unload takes the others with it.
WHOLE = "usher_reservations" if USES_OLD_SHIM else "usher_client"
OWNERS = {"owner": "alice@example.com", "starters": "owner"}
ALICE = {"user": {"email": "alice@example.com"}}


def test_room_of_an_owner_refuses_others_until_the_owner_joins(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", **OWNERS)
    focus.create(room)
    recorder.wait_decision()
    bob = new_participant(user={"email": "bob@example.com"})
    with pytest.raises(StanzaError) as refused:
        bob.join(room, "bob")
    last = recorder.wait_decision(count=2)
    assert (last.action, last.text) == ("refuse", refused.value.text)
    assert last.user["email"] == "bob@example.com"
    alice = new_participant(**ALICE)
    alice.join(room, "alice")
    allocation = usher.wait_allocation()
    bob.join(room, "bob")
    assert len(recorder.decisions) == 3
    bob.leave(room, "bob")
    alice.leave(room, "alice")
    focus.leave_room(room)
    usher.wait_ended(allocation)


def test_room_that_waits_for_its_owner_applies_the_booking_options(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", password="sesame", lobby=True, max_occupants=1, **OWNERS)
    focus.create(room)
    alice = new_participant(**ALICE)
    with pytest.raises(StanzaError) as refused:
        alice.join(room, "alice", "guess")
    assert refused.value.condition == "not-authorized"
    alice.join(room, "alice", "sesame")
    lobbies = "prosody.hosts['meet.localhost'].modules.test_lobby.module:shared('/*/test_lobby/lobbies')"
    assert console.lua(f"return {lobbies}") == [{"room": room, "existed": True}]
    with pytest.raises(StanzaError):
        new_participant().join(room, "bob", "sesame")


@pytest.mark.prosody(usher_create_timeout=1)
def test_room_whose_owner_does_not_join_is_destroyed(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", **OWNERS)
    focus.create(room)
    _, reason = focus.wait_end(room)
    assert reason == recorder.wait_decision().text or USES_OLD_SHIM
    assert not console.room_exists(room)
    focus.create(room)
    recorder.wait_decision(count=2)


def test_room_waits_for_its_owner_across_a_reload(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", **OWNERS)
    focus.create(room)
    console.shim("reload")
    assert console.room_exists(room)
    with pytest.raises(StanzaError):
        new_participant().join(room, "bob")
    new_participant(**ALICE).join(room, "alice")


def test_user_who_creates_the_room_needs_its_password(usher, focus, new_participant, console, room):
    usher.book("room1", password="sesame")
    with pytest.raises(StanzaError) as refused:
        new_participant().join(room, "mallory", "guess")
    assert refused.value.condition == "not-authorized"
    assert not console.room_exists(room)
    new_participant().join(room, "alice", "sesame")


def test_room_created_by_a_module_is_destroyed_if_refused(usher, prosody, console, room):
    console.lua(f"prosody.hosts['{MUC}'].modules.muc.create_room('{room}')")
    console.wait_until(lambda: not console.room_exists(room))


def test_room_created_by_a_module_gets_an_allocation(usher, recorder, prosody, console, new_participant, room):
    usher.book("room1", password="sesame")
    console.lua(f"prosody.hosts['{MUC}'].modules.muc.create_room('{room}')")
    usher.wait_allocation()
    console.wait_until(lambda: console.lua(f"return prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}'):get_password()"))
    with pytest.raises(StanzaError):
        new_participant().join(room, "alice")
    new_participant().join(room, "alice", "sesame")


def test_rooms_older_than_the_module_are_requested_from_usher(usher, recorder, focus, console, new_participant, room):
    usher.book("room1")
    console.shim("unload", WHOLE)
    focus.create(room)
    focus.create(f"room2@{MUC}")
    assert recorder.decisions == []
    console.shim("load")
    usher.wait_allocation()
    console.wait_until(lambda: not console.room_exists(f"room2@{MUC}"))
    assert console.room_exists(room)


def test_users_cannot_join_a_health_check_room(usher, recorder, focus, new_participant, console):
    room = f"__jicofo-health-check-1@{MUC}"
    assert new_participant().request(room)
    with pytest.raises(StanzaError) as refused:
        new_participant().join(room, "alice")
    assert refused.value.condition == "not-allowed"
    assert recorder.decisions == []


def test_users_cannot_join_the_muc_host_itself(usher, recorder, focus, new_participant, console):
    with pytest.raises(StanzaError) as refused:
        new_participant().join(MUC, "alice")
    assert refused.value.condition == "not-allowed"
    assert not console.room_exists(MUC)


def test_visitor_cannot_create_the_room(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", owner="alice@example.com", starters="owner", waiting_queue=True)
    with pytest.raises(StanzaError) as refused:
        new_participant(user={"id": "v", "role": "visitor"}).join(room, "visitor")
    assert refused.value.text == recorder.wait_decision().text
    assert not console.room_exists(room)


@pytest.mark.prosody(usher_create_timeout=1)
def test_room_left_by_a_refused_join_ends_on_time(usher, recorder, focus, new_participant, console, room):
    _, end = usher.book("room1", 6)
    refuse = "'muc-occupant-pre-join', prosody.test_refusal"
    events = f"prosody.hosts['{MUC}'].events"
    console.lua(f"prosody.test_refusal = function () return true; end; {events}.add_handler({refuse}, 50)")
    focus.send_join(room)
    usher.wait_allocation()
    time.sleep(1.5)
    assert console.room_exists(room)
    console.lua(f"{events}.remove_handler({refuse})")
    at, _ = new_participant().start(room).wait_end(room)
    assert end <= at < end + 1


@pytest.mark.prosody(storage="internal")
def test_restored_room_is_requested_from_usher(usher, recorder, prosody, loop, focus, new_participant, room):
    _, end = usher.book("room1", 8)
    alice = new_participant().start(room)
    allocation = usher.wait_allocation()
    alice.disconnect()
    prosody.stop()
    assert not usher.has_ended(allocation)
    prosody.start()
    again, bob = Focus(loop, prosody), Participant(loop, prosody)
    bob.start(room, "bob")
    assert usher.allocation() == allocation
    at, _ = bob.wait_end(room)
    assert end <= at < end + 1
    for entity in (again, bob):
        entity.disconnect()

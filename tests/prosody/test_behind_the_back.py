"""A room appears without a conference request over XMPP: over HTTP to the focus, or made by somebody else."""

import pytest

from services import MUC
from xmpp import Focus, Participant, Refused


def test_a_refused_room_never_comes_to_exist(usher, wire, focus, people, console, room):
    with pytest.raises(Refused) as refused:
        focus.create(room)
    assert refused.value.condition == "not-allowed"
    assert refused.value.text == wire.wait("POST", 403).answer["message"]
    assert not console.room_exists(room)


def test_an_allowed_room_lives_and_has_its_allocation(usher, wire, focus, people, console, room):
    usher.book("room1")
    focus.create(room)
    allocation = wire.wait("POST", 201)
    assert allocation.form["mail_owner"] == ""
    assert console.room_exists(room)
    people().join(room, "alice")
    assert not usher.ended(allocation.answer["id"])


def test_the_focus_creating_the_room_of_a_request_is_not_asked_about_again(usher, wire, focus, people, room):
    usher.book("room1")
    people().start(room)
    assert len(wire.seen("POST")) == 1


def test_a_user_who_creates_the_room_is_asked_for_by_name(usher, wire, focus, people, console, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    with pytest.raises(Refused):
        people(user={"email": "bob@example.com"}).join(room, "bob")
    assert not console.room_exists(room)
    people(user={"email": "alice@example.com"}).join(room, "alice")
    assert console.room_exists(room)


OWNERS = {"owner": "alice@example.com", "starters": "owner"}
ALICE = {"user": {"email": "alice@example.com"}}


def test_a_room_that_only_its_owner_may_open_waits_for_them(usher, wire, focus, people, console, room):
    usher.book("room1", **OWNERS)
    focus.create(room)
    wire.wait("POST", 403)
    bob = people(user={"email": "bob@example.com"})
    with pytest.raises(Refused) as refused:
        bob.join(room, "bob")
    assert refused.value.text == wire.wait("POST", 403, 2).answer["message"]
    assert wire.seen("POST")[-1].form["user_email"] == "bob@example.com"
    alice = people(**ALICE)
    alice.join(room, "alice")
    allocation = wire.wait("POST", 201).answer["id"]
    bob.join(room, "bob")
    assert len(wire.seen("POST")) == 3
    bob.leave(room, "bob")
    alice.leave(room, "alice")
    focus.go(room)
    wire.wait("DELETE")
    assert usher.ended(allocation)


def test_a_room_that_waits_for_its_owner_gets_what_was_booked(usher, wire, focus, people, console, room):
    usher.book("room1", password="sesame", lobby=True, max_occupants=1, **OWNERS)
    focus.create(room)
    alice = people(**ALICE)
    with pytest.raises(Refused) as refused:
        alice.join(room, "alice", "guess")
    assert refused.value.condition == "not-authorized"
    alice.join(room, "alice", "sesame")
    lobbies = "prosody.hosts['meet.localhost'].modules.test_lobby.module:shared('/*/test_lobby/lobbies')"
    assert console.lua(f"return {lobbies}") == [{"room": room, "existed": True}]
    with pytest.raises(Refused):
        people().join(room, "bob", "sesame")


@pytest.mark.prosody(usher_create_timeout=1)
def test_a_room_whose_owner_does_not_come_is_destroyed(usher, wire, focus, people, console, room):
    usher.book("room1", **OWNERS)
    focus.create(room)
    _, reason = focus.wait_end(room)
    assert reason == wire.wait("POST", 403).answer["message"]
    assert not console.room_exists(room)
    focus.create(room)
    wire.wait("POST", 403, 2)


def test_a_room_waits_for_its_owner_over_a_reload(usher, wire, focus, people, console, room):
    usher.book("room1", **OWNERS)
    focus.create(room)
    console.shim("reload")
    assert console.room_exists(room)
    with pytest.raises(Refused):
        people().join(room, "bob")
    people(**ALICE).join(room, "alice")


def test_who_creates_the_room_needs_its_password(usher, focus, people, console, room):
    usher.book("room1", password="sesame")
    with pytest.raises(Refused) as refused:
        people().join(room, "mallory", "guess")
    assert refused.value.condition == "not-authorized"
    assert not console.room_exists(room)
    people().join(room, "alice", "sesame")


def test_a_room_made_by_a_module_is_destroyed_when_refused(usher, wire, prosody, console, room):
    console.lua(f"prosody.hosts['{MUC}'].modules.muc.create_room('{room}')")
    wire.wait("POST", 403)
    console.wait_until(lambda: not console.room_exists(room))


def test_a_room_made_by_a_module_gets_its_allocation(usher, wire, prosody, console, people, room):
    usher.book("room1", password="sesame")
    console.lua(f"prosody.hosts['{MUC}'].modules.muc.create_room('{room}')")
    wire.wait("POST", 201)
    with pytest.raises(Refused):
        people().join(room, "alice")
    people().join(room, "alice", "sesame")


def test_rooms_older_than_the_module_are_asked_about(usher, wire, focus, console, people, room):
    usher.book("room1")
    console.shim("unload")
    focus.create(room)
    focus.create(f"room2@{MUC}")
    assert wire.exchanges == []
    console.shim("load")
    wire.wait("POST", 201)
    wire.wait("POST", 403)
    console.wait_until(lambda: not console.room_exists(f"room2@{MUC}"))
    assert console.room_exists(room)


def test_a_health_check_room_is_no_way_in(usher, wire, focus, people, console):
    room = f"__jicofo-health-check-1@{MUC}"
    assert people().request(room)
    with pytest.raises(Refused) as refused:
        people().join(room, "alice")
    assert refused.value.condition == "not-allowed"
    assert wire.exchanges == []


def test_the_muc_itself_is_no_way_in(usher, wire, focus, people, console):
    with pytest.raises(Refused) as refused:
        people().join(MUC, "alice")
    assert refused.value.condition == "not-allowed"
    assert not console.room_exists(MUC)


def test_a_waiting_visitor_does_not_make_the_room(usher, wire, focus, people, console, room):
    usher.book("room1", owner="alice@example.com", starters="owner", waiting_queue=True)
    with pytest.raises(Refused) as refused:
        people(user={"id": "v", "role": "visitor"}).join(room, "visitor")
    assert refused.value.text == wire.wait("POST", 202).answer["message"]
    assert not console.room_exists(room)


@pytest.mark.prosody(usher_create_timeout=1)
def test_a_room_left_over_from_a_refused_join_is_asked_about(usher, wire, focus, people, console, room):
    _, end = usher.book("room1", 6)
    refuse = "'muc-occupant-pre-join', prosody.test_refusal"
    events = f"prosody.hosts['{MUC}'].events"
    console.lua(f"prosody.test_refusal = function () return true; end; {events}.add_handler({refuse}, 50)")
    focus.enter(room)
    wire.wait("DELETE")
    assert console.room_exists(room)
    console.lua(f"{events}.remove_handler({refuse})")
    at, _ = people().start(room).wait_end(room)
    assert end <= at < end + 1
    wire.wait("POST", 201, 2)


@pytest.mark.prosody(storage="internal")
def test_a_room_that_prosody_restores_is_asked_about(usher, wire, prosody, loop, focus, people, room):
    _, end = usher.book("room1", 8)
    alice = people().start(room)
    allocation = wire.wait("POST", 201).answer["id"]
    alice.disconnect()
    prosody.stop()
    assert not usher.ended(allocation)
    prosody.start()
    again, bob = Focus(loop, prosody), Participant(loop, prosody)
    bob.start(room, "bob")
    wire.wait("POST", 409)
    at, _ = bob.wait_end(room)
    assert end <= at < end + 1
    for entity in (again, bob):
        entity.disconnect()

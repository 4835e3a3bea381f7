"""What a booking asks of its room, enforced by Prosody."""

import pytest

from services import MUC
from xmpp import Refused


def test_password_is_enforced(usher, focus, people, room):
    usher.book("room1", password="open sesame")
    alice = people()
    assert alice.request(room)
    for wrong in (None, "", "open"):
        with pytest.raises(Refused) as refused:
            alice.join(room, "alice", wrong)
        assert refused.value.condition == "not-authorized"
    alice.join(room, "alice", "open sesame")


def test_a_changed_password_holds_while_the_room_runs(usher, wire, focus, people, room):
    booking, _ = usher.book("room1", password="one")
    people().start(room, "alice", "one")
    usher.change(booking, password="two")
    seen = len(wire.seen("GET"))
    wire.wait("GET", 200, seen + 2)
    with pytest.raises(Refused):
        people().join(room, "bob", "one")
    people().join(room, "bob", "two")


def test_a_password_set_by_moderators_is_left_alone(usher, wire, focus, people, console, room):
    usher.book("room1")
    people().start(room, "alice")
    console.lua(f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}'):set_password('theirs')")
    wire.wait("GET", 200, len(wire.seen("GET")) + 2)
    with pytest.raises(Refused):
        people().join(room, "bob")
    people().join(room, "bob", "theirs")


def test_max_occupants_is_enforced_and_the_focus_does_not_count(usher, focus, people, room):
    usher.book("room1", max_occupants=2)
    people().start(room, "alice")
    bob, carol = people(), people()
    bob.join(room, "bob")
    with pytest.raises(Refused) as refused:
        carol.join(room, "carol")
    assert refused.value.condition == "service-unavailable"
    bob.leave(room, "bob")
    bob.wait(lambda h: h.name == "presence" and h.type == "unavailable" and "110" in h.statuses())
    carol.join(room, "carol")


def test_max_occupants_is_where_jitsis_own_module_looks(usher, focus, people, console, room):
    usher.book("room1", max_occupants=7)
    people().start(room)
    found = console.lua(f"return prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')._data.max_occupants")
    assert found == 7


def test_a_changed_max_occupants_holds_while_the_room_runs(usher, wire, focus, people, room):
    booking, _ = usher.book("room1", max_occupants=1)
    people().start(room, "alice")
    with pytest.raises(Refused):
        people().join(room, "bob")
    usher.change(booking, max_occupants=2)
    wire.wait("GET", 200, len(wire.seen("GET")) + 2)
    people().join(room, "bob")


def lobbies(console):
    return console.lua("return prosody.hosts['meet.localhost'].modules.test_lobby.module:shared('/*/test_lobby/lobbies')")


def test_a_lobby_is_asked_for_while_the_room_is_being_created(usher, focus, people, console, room):
    usher.book("room1", lobby=True)
    people().start(room)
    assert lobbies(console) == [{"room": room, "existed": False}]


def test_no_lobby_is_asked_for_without_one_in_the_booking(usher, focus, people, console, room):
    usher.book("room1")
    people().start(room)
    assert not lobbies(console)

"""Options of a booking that Prosody enforces."""

import pytest

from services import MUC, USES_OLD_SHIM, until
from xmpp import StanzaError

ROOM = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('%s')"


@pytest.fixture
def data(console, room):
    return lambda name: console.lua(f"return ({ROOM % room})._data.{name}")


def test_password_is_enforced(usher, focus, new_participant, room):
    usher.book("room1", password="open sesame")
    alice = new_participant()
    assert alice.request(room)
    for wrong in (None, "", "open"):
        with pytest.raises(StanzaError) as refused:
            alice.join(room, "alice", wrong)
        assert refused.value.condition == "not-authorized"
    alice.join(room, "alice", "open sesame")


def test_changed_password_applies_to_a_running_room(usher, focus, new_participant, console, room):
    booking, _ = usher.book("room1", password="one")
    new_participant().start(room, "alice", "one")
    usher.change(booking, password="two")
    until(lambda: console.lua(f"return ({ROOM % room}):get_password()") == "two", 5)
    with pytest.raises(StanzaError):
        new_participant().join(room, "bob", "one")
    new_participant().join(room, "bob", "two")


def test_password_set_by_a_moderator_is_kept(usher, focus, new_participant, console, data, room):
    booking, _ = usher.book("room1")
    new_participant().start(room, "alice")
    console.lua(f"({ROOM % room}):set_password('changed')")
    usher.change(booking, max_occupants=5)
    until(lambda: data("max_occupants") == 5, 5)
    with pytest.raises(StanzaError):
        new_participant().join(room, "bob")
    new_participant().join(room, "bob", "changed")


def test_max_occupants_is_enforced_without_counting_the_focus(usher, focus, new_participant, room):
    usher.book("room1", max_occupants=2)
    new_participant().start(room, "alice")
    bob, carol = new_participant(), new_participant()
    bob.join(room, "bob")
    with pytest.raises(StanzaError) as refused:
        carol.join(room, "carol")
    assert refused.value.condition == "service-unavailable"
    bob.leave(room, "bob")
    bob.wait(lambda h: h.name == "presence" and h.type == "unavailable" and "110" in h.statuses())
    carol.join(room, "carol")


def test_max_occupants_is_stored_where_jitsis_module_reads_it(usher, focus, new_participant, data, room):
    usher.book("room1", max_occupants=7)
    new_participant().start(room)
    assert data("max_occupants") == 7


def test_changed_max_occupants_applies_to_a_running_room(usher, focus, new_participant, data, room):
    booking, _ = usher.book("room1", max_occupants=1)
    new_participant().start(room, "alice")
    with pytest.raises(StanzaError):
        new_participant().join(room, "bob")
    usher.change(booking, max_occupants=2)
    until(lambda: data("max_occupants") == 2, 5)
    new_participant().join(room, "bob")


def lobbies(console):
    return console.lua("return prosody.hosts['meet.localhost'].modules.test_lobby.module:shared('/*/test_lobby/lobbies')")


def test_booked_lobby_is_created_with_the_room(usher, focus, new_participant, console, room):
    usher.book("room1", lobby=True)
    new_participant().start(room)
    assert lobbies(console) == [{"room": room, "existed": False}]


def test_room_without_a_booked_lobby_gets_none(usher, focus, new_participant, console, room):
    usher.book("room1")
    new_participant().start(room)
    assert not lobbies(console)


@pytest.mark.skipif(USES_OLD_SHIM, reason="the modules of usher 0.1 do not know what Jitsi has loaded")
@pytest.mark.prosody(persistent_lobby=False)
class TestWithoutLobbies:
    def test_room_with_a_lobby_is_opened_and_usher_logs_the_missing_module(self, usher, focus, new_participant, room):
        usher.book("room1", lobby=True)
        new_participant().start(room)
        until(lambda: "persistent_lobby" in usher.log.read_text())

    @pytest.mark.protocol(without_lobby="refuse")
    def test_room_with_a_lobby_is_refused_if_configured(self, usher, focus, new_participant, room):
        usher.book("room1", lobby=True)
        with pytest.raises(StanzaError) as refused:
            new_participant().request(room)
        assert "lobby" in refused.value.text

"""Jitsi's own room_metadata_component, and an occupant that listens as jicofo does.

USHER_JITSI_PLUGINS names a directory with Jitsi's `mod_room_metadata_component.lua` and `util.lib.lua`
(resources/prosody-plugins of jitsi-meet), which are not part of this project."""

import os
import pathlib
import time

import pytest

from services import DOMAIN, MUC, until

PLUGINS = os.environ.get("USHER_JITSI_PLUGINS")
pytestmark = [
    pytest.mark.skipif(not PLUGINS, reason="USHER_JITSI_PLUGINS names no directory with Jitsi's plugins"),
    pytest.mark.usher(policy="open"),
    pytest.mark.prosody(modules=["usher_reservations", "usher_queue"], jitsi_plugins=PLUGINS),
]


@pytest.fixture
def heard(focus, room):
    """What the focus received: visitors.live of each metadata message; only true is live for jicofo."""

    def values():
        messages = [h for h in focus.stanzas if h.name == "message" and h.sender == f"metadata.{DOMAIN}" and h.json_message]
        return [h.json_message["metadata"].get("visitors", {}).get("live") is True for h in messages]

    return values


def go_live(participant, room, live=True):
    """As the button of a moderator's client."""
    data = f'{{"key": "visitors", "data": {{"live": {str(live).lower()}}}}}'
    participant.send(
        f"<message to='metadata.{DOMAIN}'><room_metadata xmlns='http://jitsi.org/jitmeet' room='{room}'>{data}</room_metadata></message>"
    )


def join_as_moderator(participant, console, room):
    participant.start(room, "alice")
    room_object = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')"
    console.lua(f"assert(({room_object}):set_affiliation(true, '{participant.jid}', 'owner'))")
    # Jitsi's mod_jitsi_session reads it from the URL of the WebSocket.
    console.lua(f"for _, s in pairs(prosody.full_sessions) do s.jitsi_web_query_room = '{room.split('@')[0]}' end")


def test_focus_receives_that_a_room_without_a_queue_is_live(usher, focus, heard, new_participant, room):
    new_participant().start(room, "alice")
    until(lambda: heard() and heard()[-1] is True)
    usher.wait_live(room)


def test_focus_receives_that_a_held_room_goes_live_by_a_moderator(usher, focus, heard, new_participant, console, room):
    usher.book("room1", waiting_queue=True)
    alice = new_participant()
    join_as_moderator(alice, console, room)
    until(lambda: heard() and heard()[-1] is False)
    assert not any(heard())
    go_live(alice, room)
    until(lambda: heard()[-1] is True)
    usher.wait_live(room)
    go_live(alice, room, False)
    until(lambda: heard()[-1] is False)
    usher.wait_live(room, False)


def test_focus_receives_that_usher_goes_live(usher, focus, heard, new_participant, console, room):
    usher.book("room1", waiting_queue=True)
    join_as_moderator(new_participant(), console, room)
    until(lambda: heard() and heard()[-1] is False)
    usher.golive(room)
    until(lambda: heard()[-1] is True, 2)


def test_focus_that_joins_later_receives_the_state(usher, focus, heard, new_participant, console, room):
    usher.book("room1", waiting_queue=True)
    join_as_moderator(new_participant(), console, room)
    focus.leave_room(room)
    time.sleep(0.3)
    before = len(heard())
    focus.send_join(room)
    until(lambda: len(heard()) > before)
    assert heard()[-1] is False


def test_plugins_are_jitsis_own():
    assert "jitsi-metadata-updated" in (pathlib.Path(PLUGINS) / "mod_room_metadata_component.lua").read_text()

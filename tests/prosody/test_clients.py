"""What Jitsi's own client code (tests/clients/timer.mjs) makes of the messages that clients receive in a room."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from services import iso

TIMER = Path(__file__).parent.parent / "clients" / "timer.mjs"


def timers(platform, stanzas):
    """The state of the meeting timer after each message of the room."""
    lines = "".join(f"{json.dumps(stanza.json_message)}\n" for stanza in stanzas)
    process = subprocess.run(["node", TIMER, platform], input=lines, capture_output=True, text=True, timeout=30)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def timer_messages(participant, room, count):
    """The first messages for the timer. Clients require the bare address of the room."""

    def found():
        return [stanza for stanza in participant.stanzas if (stanza.json_message or {}).get("type") == "time_restricted"]

    participant.wait(lambda _: len(found()) >= count, description=f"message {count} for the timer")
    assert {stanza.sender for stanza in found()} == {room}
    return found()[:count]


@pytest.mark.parametrize("platform", ["web", "native"])
def test_timer_of_a_client_ends_with_the_booking_and_follows_it(platform, usher, prosody, focus, new_participant, room):
    booking, end = usher.book("room1", 3600)
    participant = new_participant().start(room)
    first = timer_messages(participant, room, 1)
    usher.change(booking, end=iso(end + 1800))
    both = timer_messages(participant, room, 2)
    assert both[0].xml is first[0].xml
    for state, stanza, expected in zip(timers(platform, both), both, [end, end + 1800], strict=True):
        assert state["running"] and not state["expired"]
        remaining = state["remainingSeconds"] - (expected - stanza.at)
        assert abs(remaining) <= 2, (state, expected - stanza.at)


def test_timer_of_a_late_joiner_ends_at_the_same_moment(usher, prosody, focus, new_participant, room):
    _, end = usher.book("room1", 3600)
    new_participant().start(room)
    time.sleep(2)
    late = new_participant().start(room, "late")
    [stanza] = timer_messages(late, room, 1)
    [state] = timers("web", [stanza])
    assert abs(state["remainingSeconds"] - (end - stanza.at)) <= 2, state

"""Visitors wait until a conference goes live: Prosody tells usher when, and holds the rooms whose booking says so."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from services import DOMAIN, MUC, iso, until
from waiting import Waiting
from xmpp import Focus, Participant

HELD = {"modules": ["usher_reservations", "usher_queue"], "metadata": True}
pytestmark = [
    pytest.mark.usher(policy="open"),
    pytest.mark.queue(state_interval="1s"),
    pytest.mark.prosody(usher_reconcile=600, **HELD),
]
ROOM = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('%s')"
COMPONENT = f"prosody.hosts['metadata.{DOMAIN}'].modules.room_metadata_component.module"


@pytest.fixture
def queue(usher):
    """Who waits, and who watches: queue.visitor(conference) or queue.moderator(conference)."""
    made = []

    class Queue:
        @staticmethod
        def subscribe(conference, topic, *arguments):
            token = usher.token("--room", conference.split("@")[0], *arguments)
            made.append(Waiting(usher, conference, topic, token))
            return made[-1]

        @classmethod
        def visitor(cls, conference, *arguments):
            return cls.subscribe(conference, "visitor", "--visitor", *arguments)

        @classmethod
        def moderator(cls, conference, *arguments):
            return cls.subscribe(conference, "state", "--moderator", *arguments)

    yield Queue
    for waiting in made:
        waiting.close()


@pytest.fixture
def stage(console):
    """What moderators and modules do to a room's metadata, and what of it went out."""

    class Stage:
        @staticmethod
        def says(room):
            return console.lua(f"local v = ({ROOM % room}).jitsiMetadata; return v and v.visitors and v.visitors.live")

        @staticmethod
        def sent(room):
            return [note["metadata"] for note in json.loads(console.lua(f"return require 'util.json'.encode({COMPONENT}:shared('sent'))")) if note["room"] == room]

        @staticmethod
        def press(room, live):
            """As a moderator's button does, by way of Jitsi's component."""
            event = "{ room = room; key = 'visitors' }"
            console.lua(
                f"local room = {ROOM % room}; room.jitsiMetadata.visitors = {{ live = {str(live).lower()} }};"
                f"prosody.hosts['{MUC}'].events.fire_event('jitsi-metadata-updated', {event})"
            )

    return Stage


class StompJs:
    """The client that Jitsi Meet uses, in a process of its own: what it hears, a line each."""

    script = Path(__file__).parent.parent / "clients" / "demo.mjs"

    def __init__(self, usher, role, conference):
        token = usher.token("--room", conference.split("@")[0], f"--{role}")
        url = f"ws://127.0.0.1:{usher.port}/waiting-queue"
        command = ["node", str(self.script), role, conference, token, url]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        self.hears("connected")

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def has_heard(self, text):
        return any(text in line for _, line in self.lines)

    def hears(self, text):
        """Until it does; when that was."""
        until(lambda: self.has_heard(text), what=f"{text} in {self.lines}")
        return next(at for at, line in self.lines if text in line)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


@pytest.fixture
def stompjs(usher):
    if not (StompJs.script.parent / "node_modules").is_dir():
        missing = "tests/run installs the npm packages that this needs"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    made = []

    def make(role, conference):
        made.append(StompJs(usher, role, conference))
        return made[-1]

    yield make
    for client in made:
        client.close()


def looks(wire):
    """How often all conferences were compared."""
    return len([e for e in wire.exchanges if e.path.endswith("/conferences") and e.status == 200])


def asked_about(wire, room):
    return [e for e in wire.exchanges if e.path.endswith("?conference=" + quote(room))]


def empty(room, focus, *participants):
    for participant, nick in participants:
        participant.leave(room, nick)
    focus.go(room)


def test_visitors_wait_until_the_first_occupant_is_in(usher, wire, queue, focus, people, room):
    early, moderator = queue.visitor(room), queue.moderator(room)
    moderator.sees(1)
    alice = people()
    assert alice.request(room)
    assert not early.has_been_told(), "the focus is no occupant"
    alice.join(room, "alice")
    early.is_told(1)
    queue.visitor(room).is_told(1)
    empty(room, focus, (alice, "alice"))
    wire.wait_told("endlive", room)
    next_one = queue.visitor(room)
    assert not next_one.has_been_told()
    assert [len(wire.told(what)) for what in ("golive", "endlive")] == [1, 1]


@pytest.mark.parametrize("held", [False, True], ids=["by_its_first_occupant", "by_a_moderator"])
def test_the_client_that_jitsi_meet_uses_waits_until_the_conference_goes_live(held, usher, wire, stompjs, focus, people, stage, room):
    if held:
        usher.book("room1", waiting_queue=True)
    visitor, moderator = stompjs("visitor", room), stompjs("moderator", room)
    moderator.hears('"visitorsWaiting":1')
    alice = people()
    assert alice.request(room)
    if held:
        alice.join(room, "alice")
        until(lambda: len(stage.sent(room)) >= 2)
        assert stage.says(room) is False
    assert not visitor.has_heard("live")
    began = time.monotonic()
    if held:
        stage.press(room, True)
    else:
        alice.join(room, "alice")
    # A busy machine takes its time, but nothing here may wait for a reconnection (5 s) or a comparison.
    took = visitor.hears('"status":"live"') - began
    assert took < 3, f"told {took:.3f} s after the conference went live"
    late = stompjs("visitor", room)
    took = late.hears('"status":"live"') - late.hears("connected")
    assert took < 3, f"told {took:.3f} s after it came to a conference that is live"
    empty(room, focus, (alice, "alice"))
    wire.wait_told("endlive", room)
    next_one = stompjs("visitor", room)
    until(lambda: usher.conference(room)["visitorsWaiting"] == 1)
    time.sleep(0.5)
    assert not next_one.has_heard("live")


def test_a_booking_with_a_waiting_queue_holds_its_visitors_until_a_moderator_goes_live(usher, wire, queue, focus, people, stage, room):
    usher.book("room1", waiting_queue=True)
    visitor = queue.visitor(room)
    alice = people().start(room, "alice")
    until(lambda: len(stage.sent(room)) >= 2)
    assert [metadata["visitors"]["live"] for metadata in stage.sent(room)] == [False] * len(stage.sent(room))
    assert not visitor.has_been_told()
    stage.press(room, True)
    visitor.is_told(1)
    queue.visitor(room).is_told(1)
    empty(room, focus, (alice, "alice"))
    wire.wait_told("endlive", room)
    assert not queue.visitor(room).has_been_told()


def test_the_focus_is_told_when_it_comes_later(usher, wire, focus, people, stage, room):
    usher.book("room1", waiting_queue=True)
    people().start(room, "alice")
    until(lambda: len(stage.sent(room)) >= 2)
    before = len(stage.sent(room))
    focus.go(room)
    focus.enter(room)
    until(lambda: len(stage.sent(room)) > before)


def test_other_metadata_is_left_alone(usher, wire, focus, people, console, stage, room):
    usher.book("room1", waiting_queue=True)
    console.lua(
        f"prosody.hosts['{MUC}'].events.add_handler('muc-room-pre-create', function (event)"
        "event.room.jitsiMetadata = { recording = 'on', visitors = { promoted = 3 } } end)"
    )
    people().start(room, "alice")
    until(lambda: stage.sent(room))
    assert stage.sent(room)[-1] == {"recording": "on", "visitors": {"promoted": 3, "live": False}}


def test_metadata_of_any_shape_does_no_harm(usher, wire, queue, focus, people, console, stage, room):
    usher.book("room1", waiting_queue=True)
    people().start(room, "alice")
    for value in ("'nonsense'", "7", "true", "{ live = 'maybe' }"):
        console.lua(
            f"local room = {ROOM % room}; room.jitsiMetadata.visitors = {value};"
            f"prosody.hosts['{MUC}'].events.fire_event('jitsi-metadata-updated', {{ room = room; key = 'visitors' }})"
        )
    wire.wait_told("golive", room)


def test_a_room_set_back_to_not_live_makes_visitors_wait_again(usher, wire, queue, focus, people, stage, console, room):
    people().start(room, "alice")
    wire.wait_told("golive", room)
    console.lua(f"({ROOM % room}).jitsiMetadata.visitors = {{}}")
    stage.press(room, False)
    wire.wait_told("endlive", room)
    visitor = queue.visitor(room)
    assert not visitor.has_been_told()
    stage.press(room, True)
    visitor.is_told(1)


def test_a_conference_that_usher_goes_live_with_is_live_in_prosody(usher, wire, prosody, focus, people, console, stage, room):
    usher.book("room1", waiting_queue=True)
    people().start(room, "alice")
    usher.golive(room)
    until(lambda: stage.sent(room)[-1]["visitors"]["live"] is True)
    wire.wait_told("golive", room)


def test_a_booking_that_goes_live_by_itself_is_live_in_prosody(usher, wire, queue, focus, people, stage, room):
    start = int(time.time()) + 3
    usher.book("room1", 600, start=iso(start), waiting_queue=True, auto_live=0)
    people().start(room, "alice")
    assert stage.says(room) is False
    queue.visitor(room).is_told()
    until(lambda: stage.says(room) is True)


def test_a_room_that_comes_after_its_conference_went_live_is_never_held(usher, wire, focus, people, stage, room):
    usher.book("room1", waiting_queue=True)
    usher.golive(room)
    people().start(room, "alice")
    wire.wait_told("golive", room)
    assert stage.says(room) is None
    assert all("visitors" not in metadata for metadata in stage.sent(room))


def test_a_room_that_waits_for_its_owner_is_held_meanwhile(usher, wire, focus, people, stage, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    focus.create(room)
    assert stage.says(room) is False
    people(user={"email": "alice@example.com"}).join(room, "alice")
    wire.wait_told("golive", room)
    assert stage.says(room) is True
    assert wire.told("endlive") == []


def test_a_room_that_nobody_has_to_hold_is_not_asked_about(usher, wire, focus, people, stage, room):
    people().start(room, "alice")
    usher.book("room2", waiting_queue=True)
    people().start(f"room2@{MUC}", "bob")
    until(lambda: len(asked_about(wire, f"room2@{MUC}")) >= 3)
    stage.press(f"room2@{MUC}", True)
    wire.wait_told("golive", f"room2@{MUC}")
    assert asked_about(wire, room) == []


@pytest.mark.prosody(modules=["usher_queue"])
class TestWithoutOurReservations:
    def test_the_queue_of_a_booking_is_asked_for(self, usher, wire, queue, focus, people, stage, room):
        usher.book("room1", waiting_queue=True)
        visitor = queue.visitor(room)
        people().start(room, "alice")
        until(lambda: stage.says(room) is False)
        assert stage.sent(room)[-1]["visitors"]["live"] is False
        assert not visitor.has_been_told()
        stage.press(room, True)
        visitor.is_told(1)

    def test_a_room_without_a_booking_goes_live_by_its_first_occupant(self, usher, wire, queue, focus, people, stage, room):
        visitor = queue.visitor(room)
        people().start(room, "alice")
        visitor.is_told(1)
        assert stage.says(room) is True

    def test_a_room_is_held_from_the_first_moment(self, usher, wire, focus, people, stage, room):
        usher.book("room1", waiting_queue=True)
        people().start(room, "alice")
        until(lambda: len(stage.sent(room)) >= 2)
        assert {metadata["visitors"]["live"] for metadata in stage.sent(room)} == {False}

    def test_a_room_is_held_while_usher_is_down_and_can_be_let_go(self, usher, wire, focus, people, stage, room):
        usher.stop()
        people().start(room, "alice")
        until(lambda: any("/conferences?" in e.path for e in wire.exchanges))
        assert stage.says(room) is False
        stage.press(room, True)
        usher.start()
        wire.wait_told("golive", room, timeout=20)
        assert stage.says(room) is True

    @pytest.mark.prosody(usher_on_failure="allow")
    def test_a_room_is_let_go_while_usher_is_down_where_so_configured(self, usher, wire, focus, people, stage, room):
        usher.stop()
        people().start(room, "alice")
        until(lambda: stage.says(room) is True)
        until(lambda: stage.sent(room)[-1]["visitors"]["live"] is True)

    def test_nobody_is_told_before_it_is_known_whether_there_is_a_queue(self, usher, wire, focus, people, console, stage, room):
        usher.book("room1", waiting_queue=True)
        usher.stop()
        people().start(room, "alice")
        until(lambda: any("/conferences?" in e.path for e in wire.exchanges))
        usher.start()
        until(lambda: stage.says(room) is False, 20)
        assert wire.told("golive") == []

    def test_an_answer_does_not_undo_what_somebody_set_meanwhile(self, usher, wire, focus, people, console, stage, room):
        usher.book("room1", waiting_queue=True)
        wire.hang_up_on = lambda exchange: "/conferences" in exchange.path
        people().start(room, "alice")
        stage.press(room, True)
        wire.wait_told("golive", room)
        wire.hang_up_on = lambda exchange: False
        console.shim("reload", "usher_queue")
        until(lambda: any(e.status == 200 and "/conferences?" in e.path for e in wire.exchanges), 20)
        assert stage.says(room) is True
        assert wire.told("endlive") == []


@pytest.mark.prosody(metadata=False)
class TestWithoutJitsisMetadata:
    def test_a_room_goes_live_by_its_first_occupant(self, usher, queue, focus, people, room):
        visitor = queue.visitor(room)
        alice = people()
        alice.request(room)
        assert not visitor.has_been_told()
        alice.join(room, "alice")
        visitor.is_told(1)

    def test_a_waiting_queue_holds_until_a_moderator_is_in(self, usher, wire, queue, focus, people, console, stage, room):
        usher.book("room1", waiting_queue=True)
        visitor = queue.visitor(room)
        alice = people().start(room, "alice")
        assert stage.says(room) is None
        assert not visitor.has_been_told()
        console.lua(f"assert(({ROOM % room}):set_affiliation(true, '{alice.jid}', 'owner'))")
        visitor.is_told(1)
        console.lua(f"assert(({ROOM % room}):set_affiliation(true, '{alice.jid}', 'member'))")
        assert wire.told("endlive") == []

    def test_a_moderator_who_makes_the_room_is_in(self, usher, queue, prosody, people, room):
        usher.book("room1", waiting_queue=True)
        visitor = queue.visitor(room)
        people().join(room, "alice")
        visitor.is_told(1)


def test_a_tenants_conference_has_its_virtual_address(usher, wire, queue, focus, people):
    conference = f"room1@conference.acme.{DOMAIN}"
    visitor = queue.visitor(conference, "--tenant", "acme")
    alice = people()
    assert alice.request(conference)
    alice.join(f"[acme]room1@{MUC}", "alice")
    visitor.is_told(1)
    empty(f"[acme]room1@{MUC}", focus, (alice, "alice"))
    wire.wait_told("endlive", conference)


def test_a_tenants_booking_holds_its_own_room_only(usher, wire, focus, people, stage):
    usher.book("room1", tenant="acme", waiting_queue=True)
    people().start(f"room1@{MUC}", "alice")
    wire.wait_told("golive", f"room1@{MUC}")
    alice = people()
    alice.request(f"room1@conference.acme.{DOMAIN}")
    alice.join(f"[acme]room1@{MUC}", "alice")
    assert stage.says(f"[acme]room1@{MUC}") is False
    assert len(wire.told("golive")) == 1


def test_health_checks_and_breakout_rooms_are_not_told(usher, wire, focus, people, console):
    health = f"__jicofo-health-check-1@{MUC}"
    focus.create(health)
    focus.create(f"room1@breakout.{DOMAIN}")
    people().join(f"room1@breakout.{DOMAIN}", "alice")
    focus.go(health)
    console.wait_until(lambda: not console.room_exists(health))
    people().start(f"room2@{MUC}")
    wire.wait_told("golive", f"room2@{MUC}")
    assert len(wire.told("golive")) == 1
    assert wire.told("endlive") == []


def test_usher_that_was_down_is_told_when_it_is_back(usher, wire, queue, focus, people, room):
    alice = people()
    alice.request(room)
    usher.stop()
    alice.join(room, "alice")
    until(lambda: any(e.path.endswith("/golive") for e in wire.exchanges))
    usher.start()
    wire.wait_told("golive", room, timeout=20)
    queue.visitor(room).is_told(1)


def test_only_the_newest_is_told_to_usher_that_was_down(usher, wire, focus, people, console, room):
    alice = people()
    alice.request(room)
    usher.stop()
    alice.join(room, "alice")
    until(lambda: any(e.path.endswith("/golive") for e in wire.exchanges))
    empty(room, focus, (alice, "alice"))
    console.wait_until(lambda: not console.room_exists(room))
    usher.start()
    wire.wait_told("endlive", room, timeout=20)
    assert wire.told("golive") == []
    assert not usher.is_live(room)


def test_usher_killed_while_live_is_live_again(usher, wire, queue, focus, people, room):
    people().start(room, "alice")
    wire.wait_told("golive", room)
    usher.kill()
    usher.start()
    queue.visitor(room).is_told(1)


@pytest.mark.prosody(usher_reconcile=1)
class TestRepair:
    def test_a_conference_that_usher_forgot_goes_live_again(self, usher, wire, queue, focus, people, room):
        people().start(room, "alice")
        wire.wait_told("golive", room)
        usher.forget_everything()
        visitor = queue.visitor(room)
        visitor.is_told(15)

    def test_a_conference_that_died_with_prosody_ends(self, usher, wire, prosody, queue, focus, people, room):
        people().start(room, "alice")
        wire.wait_told("golive", room)
        prosody.kill()
        prosody.start()
        wire.wait_told("endlive", room)
        assert not queue.visitor(room).has_been_told()

    @pytest.mark.prosody(usher_only_prosody=False)
    def test_another_prosodys_conference_is_left_alone(self, usher, wire, prosody, focus, people, room):
        people().start(room, "alice")
        wire.wait_told("golive", room)
        prosody.kill()
        prosody.start()
        asked = looks(wire)
        until(lambda: looks(wire) >= asked + 4)
        assert usher.is_live(room)

    @pytest.mark.prosody(usher_reconcile=600)
    def test_a_conference_that_comes_back_with_prosody_stays_live(self, usher, wire, prosody, loop, focus, people, console, stage, room):
        usher.book("room1", waiting_queue=True)
        people().start(room, "alice")
        stage.press(room, True)
        wire.wait_told("golive", room)
        prosody.kill()
        prosody.start()
        again, alice = Focus(loop, prosody), Participant(loop, prosody)
        alice.start(room, "alice")
        wire.wait_told("golive", room, 2)
        assert wire.told("endlive") == []
        for entity in (again, alice):
            entity.disconnect()

    def test_what_usher_goes_live_with_before_its_room_is_there_is_left_alone(self, usher, wire, prosody, focus, people, stage, room):
        until(lambda: looks(wire))
        usher.book("room1", waiting_queue=True)
        usher.golive(room)
        asked = looks(wire)
        until(lambda: looks(wire) >= asked + 4)
        assert usher.is_live(room)
        people().start(room, "alice")
        wire.wait_told("golive", room)
        assert stage.says(room) is not False

    def test_an_end_that_usher_lost_is_told_again(self, usher, wire, prosody, focus, people, room):
        alice = people().start(room, "alice")
        wire.wait_told("golive", room)
        empty(room, focus, (alice, "alice"))
        wire.wait_told("endlive", room)
        usher.golive(room)
        wire.wait_told("endlive", room, 2)

    def test_what_somebody_set_back_stays_so(self, usher, wire, prosody, focus, people, console, stage, room):
        people().start(room, "alice")
        wire.wait_told("golive", room)
        stage.press(room, False)
        wire.wait_told("endlive", room)
        usher.golive(room)
        wire.wait_told("endlive", room, 2)
        assert stage.says(room) is False

    def test_usher_that_is_silent_about_it_is_complained_of_once(self, usher, wire, prosody, focus, people, console):
        console.shim("unload", "usher_queue")
        console.lua(f"require 'core.configmanager'.set('{DOMAIN}', 'usher_queue_path', '/nowhere')")
        console.shim("load", "usher_queue")
        until(lambda: len([e for e in wire.exchanges if e.path == "/nowhere/conferences"]) >= 3)
        assert len(prosody.logged("warn", "usher_queue_path")) == 1

def test_a_reload_tells_nothing_twice_and_forgets_nothing(usher, wire, focus, people, console, stage, room):
    usher.book("room1", waiting_queue=True)
    alice = people().start(room, "alice")
    stage.press(room, True)
    wire.wait_told("golive", room)
    # The first reload may come before Prosody has read the answer; what was told by the second is told for good.
    for _ in range(2):
        told, asked = len(wire.told("golive")), looks(wire)
        console.shim("reload", "usher_queue")
        until(lambda: looks(wire) > asked)
    assert len(wire.told("golive")) == told
    empty(room, focus, (alice, "alice"))
    wire.wait_told("endlive", room)


def test_a_reload_keeps_what_usher_has_not_heard(usher, wire, focus, people, console, room):
    wire.hang_up_on = lambda exchange: exchange.path.endswith("/golive")
    people().start(room, "alice")
    until(lambda: any(e.path.endswith("/golive") for e in wire.exchanges))
    console.shim("reload", "usher_queue")
    wire.hang_up_on = lambda exchange: False
    wire.wait_told("golive", room)


def test_a_room_that_is_older_than_the_module_is_live_with_its_occupants(usher, wire, focus, people, console, stage, room):
    console.shim("unload", "usher_queue")
    usher.book("room1", waiting_queue=True)
    people().start(room, "alice")
    focus.create(f"room2@{MUC}")
    usher.book("room2", waiting_queue=True)
    console.shim("load", "usher_queue")
    wire.wait_told("golive", room)
    assert stage.says(room) is None


def test_a_reload_of_the_reservations_changes_nothing(usher, wire, focus, people, console, stage, room):
    usher.book("room1", waiting_queue=True)
    people().start(room, "alice")
    console.shim("reload")
    assert stage.says(room) is False
    stage.press(room, True)
    wire.wait_told("golive", room)
    console.shim("reload")
    assert stage.says(room) is True
    assert wire.told("endlive") == []


def test_after_unload_nothing_acts_any_more(usher, wire, focus, people, console, stage, room):
    alice = people().start(room, "alice")
    wire.wait_told("golive", room)
    console.shim("unload")
    assert console.hooks() > 0
    console.shim("unload", "usher_queue")
    assert console.hooks() == 0
    asked = len(wire.exchanges)
    empty(room, focus, (alice, "alice"))
    console.wait_until(lambda: not console.room_exists(room))
    people().start(f"room2@{MUC}")
    time.sleep(1.5)
    assert len(wire.exchanges) == asked

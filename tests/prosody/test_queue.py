"""The waiting queue with Prosody: visitors wait until a conference goes live, by its occupants or by a moderator."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from services import DOMAIN, MUC, USES_OLD_SHIM, iso, until
from queue_client import QueueClient
from xmpp import Focus, Participant

new_shim = pytest.mark.skipif(USES_OLD_SHIM, reason="the modules of usher 0.1 do not do this")
QUEUE_MODULES = {"modules": ["usher_reservations", "usher_queue"], "metadata": True}
pytestmark = [
    pytest.mark.usher(policy="open"),
    pytest.mark.queue(state_interval="1s"),
    pytest.mark.prosody(**QUEUE_MODULES),
]
ROOM = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('%s')"
COMPONENT = f"prosody.hosts['metadata.{DOMAIN}'].modules.room_metadata_component.module"


@pytest.fixture
def clients(usher):
    """Clients of the queue: clients.visitor(conference) and clients.moderator(conference)."""
    connected = []

    class QueueClients:
        @staticmethod
        def subscribe(conference, topic, *arguments):
            token = usher.token("--room", conference.split("@")[0], *arguments)
            connected.append(QueueClient(usher, conference, topic, token))
            return connected[-1]

        @classmethod
        def visitor(cls, conference, *arguments):
            return cls.subscribe(conference, "visitor", "--visitor", *arguments)

        @classmethod
        def moderator(cls, conference, *arguments):
            return cls.subscribe(conference, "state", "--moderator", *arguments)

    yield QueueClients
    for client in connected:
        client.close()


@pytest.fixture
def metadata(console):
    """Reads and changes the metadata of a room, and returns what the component sent."""

    class Metadata:
        @staticmethod
        def live(room):
            return console.lua(f"local v = ({ROOM % room}).jitsiMetadata; return v and v.visitors and v.visitors.live")

        @staticmethod
        def sent(room):
            return [note["metadata"] for note in json.loads(console.lua(f"return require 'util.json'.encode({COMPONENT}:shared('sent'))")) if note["room"] == room]

        @staticmethod
        def set_live(room, live):
            """As the button of a moderator does through Jitsi's component."""
            event = "{ room = room; key = 'visitors' }"
            console.lua(
                f"local room = {ROOM % room}; room.jitsiMetadata.visitors = {{ live = {str(live).lower()} }};"
                f"prosody.hosts['{MUC}'].events.fire_event('jitsi-metadata-updated', {event})"
            )

    return Metadata


class StompJs:
    """Jitsi Meet's STOMP client in its own process, which prints a line per message."""

    script = Path(__file__).parent.parent / "clients" / "demo.mjs"

    def __init__(self, usher, role, conference):
        token = usher.token("--room", conference.split("@")[0], f"--{role}")
        url = f"ws://127.0.0.1:{usher.port}/waiting-queue"
        command = ["node", str(self.script), role, conference, token, url]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        self.wait_for("connected")

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def has_printed(self, text):
        return any(text in line for _, line in self.lines)

    def wait_for(self, text):
        """Waits for a line with this text and returns its time."""
        until(lambda: self.has_printed(text), description=f"{text} in {self.lines}")
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
    connected = []

    def make(role, conference):
        connected.append(StompJs(usher, role, conference))
        return connected[-1]

    yield make
    for client in connected:
        client.close()


def empty_room(room, focus, *participants):
    for participant, nick in participants:
        participant.leave(room, nick)
    focus.leave_room(room)


def test_visitors_wait_until_the_first_occupant_joins(usher, recorder, clients, focus, new_participant, room):
    visitor, moderator = clients.visitor(room), clients.moderator(room)
    moderator.wait_count(1)
    alice = new_participant()
    assert alice.request(room)
    assert not visitor.receives_live(), "the focus must not count as an occupant"
    alice.join(room, "alice")
    visitor.wait_live(1)
    clients.visitor(room).wait_live(1)
    empty_room(room, focus, (alice, "alice"))
    usher.wait_live(room, False)
    next_one = clients.visitor(room)
    assert not next_one.receives_live()


@pytest.mark.parametrize("booked", [False, True], ids=["by_its_first_occupant", "by_a_moderator"])
def test_jitsi_meets_client_waits_until_the_conference_goes_live(booked, usher, recorder, stompjs, focus, new_participant, metadata, room):
    if booked:
        usher.book("room1", waiting_queue=True)
    visitor, moderator = stompjs("visitor", room), stompjs("moderator", room)
    moderator.wait_for('"visitorsWaiting":1')
    alice = new_participant()
    assert alice.request(room)
    if booked:
        alice.join(room, "alice")
        until(lambda: len(metadata.sent(room)) >= 2)
        assert metadata.live(room) is False
    assert not visitor.has_printed("live")
    start = time.monotonic()
    if booked:
        metadata.set_live(room, True)
    else:
        alice.join(room, "alice")
    # The limit allows for a busy machine, but not for a reconnection (5 s) or a reconciliation.
    elapsed = visitor.wait_for('"status":"live"') - start
    assert elapsed < 3, f"{elapsed:.3f} s from go-live to delivery"
    late = stompjs("visitor", room)
    elapsed = late.wait_for('"status":"live"') - late.wait_for("connected")
    assert elapsed < 3, f"{elapsed:.3f} s from connection to delivery"
    empty_room(room, focus, (alice, "alice"))
    usher.wait_live(room, False)
    next_one = stompjs("visitor", room)
    until(lambda: usher.conference(room)["visitorsWaiting"] == 1)
    time.sleep(0.5)
    assert not next_one.has_printed("live")


def test_booking_with_a_waiting_queue_keeps_visitors_waiting_until_a_moderator_goes_live(usher, recorder, clients, focus, new_participant, metadata, room):
    usher.book("room1", waiting_queue=True)
    visitor = clients.visitor(room)
    alice = new_participant().start(room, "alice")
    until(lambda: len(metadata.sent(room)) >= 2)
    assert [sent["visitors"]["live"] for sent in metadata.sent(room)] == [False] * len(metadata.sent(room))
    assert not visitor.receives_live()
    metadata.set_live(room, True)
    visitor.wait_live(1)
    clients.visitor(room).wait_live(1)
    empty_room(room, focus, (alice, "alice"))
    usher.wait_live(room, False)
    assert not clients.visitor(room).receives_live()


def test_metadata_is_sent_again_when_the_focus_joins(usher, recorder, focus, new_participant, metadata, room):
    usher.book("room1", waiting_queue=True)
    new_participant().start(room, "alice")
    until(lambda: len(metadata.sent(room)) >= 2)
    before = len(metadata.sent(room))
    focus.leave_room(room)
    focus.send_join(room)
    until(lambda: len(metadata.sent(room)) > before)


def test_other_metadata_is_kept(usher, recorder, focus, new_participant, console, metadata, room):
    usher.book("room1", waiting_queue=True)
    console.lua(
        f"prosody.hosts['{MUC}'].events.add_handler('muc-room-pre-create', function (event)"
        "event.room.jitsiMetadata = { recording = 'on', visitors = { promoted = 3 } } end)"
    )
    new_participant().start(room, "alice")
    until(lambda: metadata.sent(room))
    assert metadata.sent(room)[-1] == {"recording": "on", "visitors": {"promoted": 3, "live": False}}


def test_malformed_metadata_is_ignored(usher, recorder, clients, focus, new_participant, console, metadata, room):
    usher.book("room1", waiting_queue=True)
    new_participant().start(room, "alice")
    for value in ("'nonsense'", "7", "true", "{ live = 'maybe' }"):
        console.lua(
            f"local room = {ROOM % room}; room.jitsiMetadata.visitors = {value};"
            f"prosody.hosts['{MUC}'].events.fire_event('jitsi-metadata-updated', {{ room = room; key = 'visitors' }})"
        )
    usher.wait_live(room)


def test_visitors_wait_again_when_a_moderator_sets_the_room_to_not_live(usher, recorder, clients, focus, new_participant, metadata, console, room):
    new_participant().start(room, "alice")
    usher.wait_live(room)
    console.lua(f"({ROOM % room}).jitsiMetadata.visitors = {{}}")
    metadata.set_live(room, False)
    usher.wait_live(room, False)
    visitor = clients.visitor(room)
    assert not visitor.receives_live()
    metadata.set_live(room, True)
    visitor.wait_live(1)


def test_conference_that_goes_live_in_usher_goes_live_in_prosody(usher, focus, new_participant, metadata, room):
    usher.book("room1", waiting_queue=True)
    new_participant().start(room, "alice")
    time.sleep(1)
    start = time.monotonic()
    usher.golive(room)
    until(lambda: metadata.sent(room)[-1]["visitors"]["live"] is True)
    assert time.monotonic() - start < (5 if USES_OLD_SHIM else 2)
    assert usher.is_live(room)


def test_booking_with_auto_live_goes_live_in_prosody(usher, clients, focus, new_participant, metadata, room):
    start = int(time.time()) + 3
    usher.book("room1", 600, start=iso(start), waiting_queue=True, auto_live=0)
    new_participant().start(room, "alice")
    assert metadata.live(room) is False
    clients.visitor(room).wait_live()
    until(lambda: metadata.live(room) is True)
    if not USES_OLD_SHIM:
        assert time.time() < start + 2


def test_room_created_after_go_live_is_live(usher, focus, new_participant, metadata, room):
    usher.book("room1", waiting_queue=True)
    usher.golive(room)
    new_participant().start(room, "alice")
    time.sleep(0.5)
    assert usher.is_live(room)
    assert metadata.live(room) is not False
    assert all(sent.get("visitors", {}).get("live") is not False for sent in metadata.sent(room))


def test_room_is_not_live_while_it_waits_for_its_owner(usher, focus, new_participant, metadata, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    focus.create(room)
    assert metadata.live(room) is False
    new_participant(user={"email": "alice@example.com"}).join(room, "alice")
    usher.wait_live(room)
    until(lambda: metadata.live(room) is True)


@new_shim
def test_room_without_a_queue_is_live_in_its_metadata(usher, focus, new_participant, metadata, room):
    """jicofo takes a missing flag as not live and sends visitors of the room to the queue, which sends them back."""
    new_participant().start(room, "alice")
    until(lambda: metadata.sent(room) and metadata.sent(room)[-1]["visitors"]["live"] is True)
    usher.wait_live(room)


@new_shim
class TestHeldBack:
    """Who may press "Go live" of a booking, and from when."""

    @staticmethod
    def allows(console, room, email):
        return console.lua(
            f"local room = {ROOM % room}; return prosody.hosts['{DOMAIN}'].events.fire_event('jitsi-metadata-allow-moderation',"
            "{ room = room; key = 'visitors'; data = { live = true }; actor = { bare_jid = 'x@y' };"
            f"session = {{ jitsi_meet_context_user = {{ email = '{email}' }} }} }}) ~= false"
        )

    def test_only_the_owner_goes_live(self, usher, focus, new_participant, console, room):
        usher.book("room1", waiting_queue=True, owner="alice@example.com", live_starters="owner")
        new_participant(user={"email": "alice@example.com"}).start(room, "alice")
        assert not self.allows(console, room, "bob@example.com")
        assert self.allows(console, room, "alice@example.com")

    def test_no_user_goes_live_before_the_start(self, usher, focus, new_participant, console, room):
        start = int(time.time()) + 4
        usher.book("room1", 600, start=iso(start), waiting_queue=True, live_from_start=True)
        new_participant().start(room, "alice")
        assert not self.allows(console, room, "alice@example.com")
        until(lambda: self.allows(console, room, "alice@example.com"), 8)
        assert time.time() >= start

    def test_owner_by_display_name_goes_live(self, usher, focus, new_participant, console, room):
        usher.book("room1", waiting_queue=True, owner="name:Alice", live_starters="owner")
        new_participant(user={"name": "Alice"}).start(room, "alice")
        assert not self.allows(console, room, "Alice")
        session = "{ jitsi_meet_context_user = { name = 'Alice' } }"
        assert console.lua(
            f"local room = {ROOM % room}; return prosody.hosts['{DOMAIN}'].events.fire_event('jitsi-metadata-allow-moderation',"
            f"{{ room = room; key = 'visitors'; data = {{ live = true }}; session = {session} }}) ~= false"
        )


@new_shim
def test_limits_of_a_booking_are_where_jicofo_reads_them(usher, focus, new_participant, console, metadata, room):
    usher.book("room1", soft_limit=20, moderators=["u-1"])
    new_participant().start(room, "alice")
    until(lambda: metadata.sent(room) and metadata.sent(room)[-1].get("participantsSoftLimit") == 20)
    assert console.lua(f"return ({ROOM % room})._data.moderators") == ["u-1"]


@pytest.mark.prosody(modules=["usher_queue"])
class TestWithoutUsherReservations:
    def test_waiting_queue_of_a_booking_is_requested_from_usher(self, usher, clients, focus, new_participant, metadata, room):
        usher.book("room1", waiting_queue=True)
        visitor = clients.visitor(room)
        new_participant().start(room, "alice")
        until(lambda: metadata.live(room) is False)
        assert metadata.sent(room)[-1]["visitors"]["live"] is False
        assert not visitor.receives_live()
        metadata.set_live(room, True)
        visitor.wait_live(1)

    def test_room_without_a_booking_goes_live_with_its_first_occupant(self, usher, clients, focus, new_participant, metadata, room):
        visitor = clients.visitor(room)
        new_participant().start(room, "alice")
        visitor.wait_live(1)
        until(lambda: metadata.live(room) is True)
        assert usher.allocation() is None, "no module reserves"

    def test_room_is_not_live_from_its_creation(self, usher, focus, new_participant, metadata, room):
        usher.book("room1", waiting_queue=True)
        new_participant().start(room, "alice")
        until(lambda: len(metadata.sent(room)) >= 2)
        assert {sent["visitors"]["live"] for sent in metadata.sent(room)} == {False}

    def test_room_is_not_live_while_usher_is_down_until_a_moderator_sets_it_live(self, usher, focus, new_participant, metadata, room):
        usher.stop()
        new_participant().start(room, "alice")
        time.sleep(0.5)
        assert metadata.live(room) is False
        metadata.set_live(room, True)
        usher.start()
        usher.wait_live(room)
        assert metadata.live(room) is True

    @pytest.mark.prosody(usher_on_failure="allow")
    def test_room_is_live_while_usher_is_down_with_on_failure_allow(self, usher, focus, new_participant, metadata, room):
        usher.stop()
        new_participant().start(room, "alice")
        until(lambda: metadata.live(room) is True)
        until(lambda: metadata.sent(room)[-1]["visitors"]["live"] is True)

    def test_conference_does_not_go_live_before_the_booking_is_known(self, usher, focus, new_participant, metadata, room):
        usher.book("room1", waiting_queue=True)
        usher.stop()
        new_participant().start(room, "alice")
        time.sleep(0.5)
        usher.start()
        time.sleep(2)
        assert metadata.live(room) is False
        assert not usher.is_live(room)

    @new_shim
    def test_late_directive_does_not_override_a_moderators_change(self, usher, recorder, focus, new_participant, console, metadata, room):
        usher.book("room1", waiting_queue=True)
        usher.stop()
        new_participant().start(room, "alice")
        metadata.set_live(room, True)
        usher.start()
        usher.wait_live(room)
        console.shim("reload", "usher_client")
        time.sleep(1)
        assert metadata.live(room) is True
        assert usher.is_live(room)


@pytest.mark.prosody(metadata=False)
class TestWithoutJitsisMetadata:
    def test_room_goes_live_with_its_first_occupant(self, usher, clients, focus, new_participant, room):
        visitor = clients.visitor(room)
        alice = new_participant()
        alice.request(room)
        assert not visitor.receives_live()
        alice.join(room, "alice")
        visitor.wait_live(1)

    def test_room_with_a_waiting_queue_goes_live_with_its_first_moderator(self, usher, clients, focus, new_participant, console, metadata, room):
        usher.book("room1", waiting_queue=True)
        visitor = clients.visitor(room)
        alice = new_participant().start(room, "alice")
        assert metadata.live(room) is None
        assert not visitor.receives_live()
        console.lua(f"assert(({ROOM % room}):set_affiliation(true, '{alice.jid}', 'owner'))")
        visitor.wait_live(1)
        console.lua(f"assert(({ROOM % room}):set_affiliation(true, '{alice.jid}', 'member'))")
        time.sleep(0.5)
        assert usher.is_live(room)

    def test_moderator_who_creates_the_room_makes_it_live(self, usher, clients, prosody, new_participant, room):
        usher.book("room1", waiting_queue=True)
        visitor = clients.visitor(room)
        new_participant().join(room, "alice")
        visitor.wait_live(1)


def test_tenant_conference_is_reported(usher, clients, focus, new_participant):
    conference = f"room1@conference.acme.{DOMAIN}"
    visitor = clients.visitor(conference, "--tenant", "acme")
    alice = new_participant()
    assert alice.request(conference)
    alice.join(f"[acme]room1@{MUC}", "alice")
    visitor.wait_live(1)
    empty_room(f"[acme]room1@{MUC}", focus, (alice, "alice"))
    usher.wait_live(conference, False)


def test_tenant_booking_applies_to_the_tenant_room_only(usher, focus, new_participant, metadata):
    usher.book("room1", tenant="acme", waiting_queue=True)
    new_participant().start(f"room1@{MUC}", "alice")
    usher.wait_live(f"room1@{MUC}")
    alice = new_participant()
    alice.request(f"room1@conference.acme.{DOMAIN}")
    alice.join(f"[acme]room1@{MUC}", "alice")
    assert metadata.live(f"[acme]room1@{MUC}") is False
    assert not usher.is_live(f"room1@conference.acme.{DOMAIN}")


def test_health_checks_and_breakout_rooms_are_not_reported(usher, recorder, focus, new_participant, console):
    health = f"__jicofo-health-check-1@{MUC}"
    focus.create(health)
    focus.create(f"room1@breakout.{DOMAIN}")
    new_participant().join(f"room1@breakout.{DOMAIN}", "alice")
    focus.leave_room(health)
    console.wait_until(lambda: not console.room_exists(health))
    new_participant().start(f"room2@{MUC}")
    usher.wait_live(f"room2@{MUC}")
    assert not any("health-check" in str(e.form) or "breakout" in str(e.form) for e in recorder.exchanges)


def test_conference_is_live_when_usher_is_back(usher, clients, focus, new_participant, room):
    alice = new_participant()
    alice.request(room)
    usher.stop()
    alice.join(room, "alice")
    time.sleep(0.5)
    usher.start()
    usher.wait_live(room)
    clients.visitor(room).wait_live(1)


def test_conference_that_ended_while_usher_was_down_is_not_live(usher, focus, new_participant, console, room):
    alice = new_participant()
    alice.request(room)
    usher.stop()
    alice.join(room, "alice")
    empty_room(room, focus, (alice, "alice"))
    console.wait_until(lambda: not console.room_exists(room))
    usher.start()
    time.sleep(3)
    assert not usher.is_live(room)


def test_conference_is_live_after_usher_was_killed(usher, clients, focus, new_participant, room):
    new_participant().start(room, "alice")
    usher.wait_live(room)
    usher.kill()
    usher.start()
    clients.visitor(room).wait_live(1)


class TestAfterRestarts:
    def test_conference_missing_in_usher_goes_live_again(self, usher, clients, focus, new_participant, room):
        new_participant().start(room, "alice")
        usher.wait_live(room)
        usher.delete_database()
        visitor = clients.visitor(room)
        visitor.wait_live(15)

    @pytest.mark.timeout(90)
    @pytest.mark.protocol(absent_after="2s")
    def test_conference_ends_when_prosody_was_killed(self, usher, prosody, clients, focus, new_participant, room):
        new_participant().start(room, "alice")
        usher.wait_live(room)
        prosody.kill()
        prosody.start()
        # The long poll of the killed Prosody counts as open until it is answered, after 25 s.
        usher.wait_live(room, False, 45)
        assert not clients.visitor(room).receives_live()

    @pytest.mark.protocol(absent_after="5s")
    def test_conference_recreated_after_a_restart_of_prosody_stays_live(self, usher, prosody, loop, focus, new_participant, metadata, room):
        usher.book("room1", waiting_queue=True)
        new_participant().start(room, "alice")
        metadata.set_live(room, True)
        usher.wait_live(room)
        since = usher.conference(room)["liveSince"]
        prosody.kill()
        prosody.start()
        new_focus, alice = Focus(loop, prosody), Participant(loop, prosody)
        alice.start(room, "alice")
        time.sleep(6)
        assert usher.conference(room)["liveSince"] == since
        for entity in (new_focus, alice):
            entity.disconnect()

    def test_conference_that_is_live_before_its_room_exists_is_kept(self, usher, prosody, focus, new_participant, metadata, room):
        usher.book("room1", waiting_queue=True)
        if USES_OLD_SHIM:
            # It ends what is live when it asks first.
            time.sleep(2)
        usher.golive(room)
        time.sleep(3)
        assert usher.is_live(room)
        new_participant().start(room, "alice")
        time.sleep(0.5)
        assert metadata.live(room) is not False
        assert usher.is_live(room)

    def test_not_live_state_set_by_a_moderator_is_kept(self, usher, prosody, focus, new_participant, metadata, room):
        new_participant().start(room, "alice")
        usher.wait_live(room)
        metadata.set_live(room, False)
        usher.wait_live(room, False)
        time.sleep(2)
        assert metadata.live(room) is False


@new_shim
@pytest.mark.parametrize("module", ["usher_queue", "usher_reservations", "usher_client"])
def test_reload_keeps_the_live_state(module, usher, focus, new_participant, console, metadata, room):
    usher.book("room1", waiting_queue=True)
    alice = new_participant().start(room, "alice")
    console.shim("reload", module)
    time.sleep(0.5)
    assert metadata.live(room) is False
    metadata.set_live(room, True)
    usher.wait_live(room)
    since = usher.conference(room)["liveSince"]
    console.shim("reload", module)
    time.sleep(0.5)
    assert metadata.live(room) is True
    assert usher.conference(room)["liveSince"] == since
    empty_room(room, focus, (alice, "alice"))
    usher.wait_live(room, False)


def test_room_older_than_the_module_is_live_with_its_occupants(usher, focus, new_participant, console, metadata, room):
    console.shim("unload", "usher_queue")
    usher.book("room1", waiting_queue=True)
    new_participant().start(room, "alice")
    focus.create(f"room2@{MUC}")
    usher.book("room2", waiting_queue=True)
    console.shim("load", "usher_queue")
    usher.wait_live(room)
    assert metadata.live(room) is not False
    assert not usher.is_live(f"room2@{MUC}")

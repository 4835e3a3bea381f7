"""The modules alone, with a scripted usher: what they report and how they apply what usher answers."""

import json
import time

import pytest

from scripted import ScriptedUsher
from services import DOMAIN, MUC, USES_OLD_SHIM, Prosody, prosody_version
from xmpp import Participant, StanzaError

MODULES = {"modules": ["usher_reservations", "usher_queue"], "metadata": True}
pytestmark = [
    pytest.mark.skipif(USES_OLD_SHIM, reason="of the protocol of the present modules"),
    pytest.mark.prosody(**MODULES),
]


@pytest.fixture
def usher():
    usher = ScriptedUsher()
    yield usher
    usher.close()


@pytest.fixture
def recorder(usher):
    """The scripted usher records by itself."""
    return usher


def timers(participant):
    return [h.json_message for h in participant.stanzas if h.json_message and h.json_message["type"] == "time_restricted"]


def test_list_of_all_rooms_is_sent_first(usher, prosody):
    usher.wait(lambda u: u.polls)
    assert usher.posts[0]["all"] is True
    assert usher.posts[0]["protocol"] == 1
    assert {"reservations", "queue", "metadata", "lobby"} <= set(usher.posts[0]["features"])


def test_conference_is_requested_and_reported(usher, focus, new_participant, room):
    alice = new_participant(user={"id": 1001, "email": "alice@example.com", "moderator": True}, group="staff")
    alice.start(room, "alice")
    [request] = usher.requests()
    assert (request["kind"], request["room"], request["from"]) == ("iq", room, alice.jid)
    assert request["user"] == {"id": "1001", "email": "alice@example.com", "moderator": True, "group": "staff"}
    report = usher.wait_report(room, occupied=True, occupants=1)
    assert report["live"] is True and report["live_is_ours"] is True
    alice.leave(room, "alice")
    usher.wait_report(room, occupied=True, occupants=0)
    focus.leave_room(room)
    usher.wait_gone(room)


def test_values_of_a_token_that_are_no_scalars_are_absent(usher, focus, new_participant, room):
    new_participant(user={"id": 1.5, "name": {"a": 1}, "email": None, "role": ""}, group=[1]).request(room)
    assert usher.requests()[0].get("user") in ({}, [], None)


def test_changes_within_20_ms_are_one_request(usher, focus, new_participant, console):
    new_participant().start(f"room0@{MUC}")
    usher.wait_report(f"room0@{MUC}", occupied=True)
    before = len(usher.posts)
    rooms = " ".join(f"prosody.hosts['{MUC}'].modules.muc.create_room('r{number}@{MUC}');" for number in range(50))
    console.lua(rooms)
    usher.wait(lambda u: len([room for room in u.rooms if room.startswith("r")]) == 51)
    assert len([post for post in usher.posts[before:] if post.get("rooms")]) <= 2


def test_counts_are_reported_once_a_second_but_none_and_some_at_once(usher, focus, new_participant, room):
    participants = [new_participant() for _ in range(6)]
    participants[0].start(room, "p0")
    usher.wait_report(room, occupants=1)
    for number, participant in enumerate(participants[1:], 1):
        participant.join(room, f"p{number}")
    usher.wait_report(room, occupants=6)
    times = [at for at, report in usher.reports(room) if report["occupants"] > 0]
    assert len(times) <= 3
    assert all(later - earlier > 0.9 for earlier, later in zip(times, times[1:]))
    time.sleep(1.1)
    start = time.time()
    for number, participant in enumerate(participants):
        participant.leave(room, f"p{number}")
    usher.wait_report(room, occupants=0)
    assert time.time() - start < 0.9


def test_refusal_has_the_sentence_and_the_code(usher, focus, new_participant, room):
    usher.decide = lambda request: {"action": "refuse", "code": 403, "text": "Book first."}
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert (refused.value.text, refused.value.code) == ("Book first.", "403")
    assert focus.requests == []


def test_late_decision_arrives_in_the_long_poll_and_holds_up_no_other_room(usher, loop, focus, new_participant, room):
    usher.decide = lambda request: None if request["room"] == room else {"action": "allow"}
    alice, bob = new_participant(), new_participant()
    alice.send(
        f"<iq type='set' id='late' to='focus.{DOMAIN}'><conference xmlns='http://jitsi.org/protocol/focus' room='{room}'/></iq>"
    )
    usher.wait(lambda u: u.requests())
    assert bob.request(f"room2@{MUC}", timeout=2)
    usher.decide_late(usher.requests()[0]["id"], action="allow")
    answer = alice.wait(lambda h: h.id == "late")
    assert answer.type == "result"


def test_directive_applies_at_once(usher, focus, new_participant, console, room):
    new_participant().start(room, "alice")
    usher.wait_report(room, occupied=True)
    usher.directive(room, password="sesame", max_occupants=7)
    data = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')"
    console.wait_until(lambda: console.lua(f"return {data}._data.max_occupants") == 7, 2)
    assert console.lua(f"return {data}:get_password()") == "sesame"
    with pytest.raises(StanzaError):
        new_participant().join(room, "bob")


def test_directive_for_a_room_that_is_gone_is_ignored(usher, prosody, focus, new_participant, console, room):
    alice = new_participant().start(room, "alice")
    alice.leave(room, "alice")
    focus.leave_room(room)
    usher.wait_gone(room)
    usher.directive(room, password="sesame", schedule=[{"at": 1, "close": "over"}])
    usher.directive(f"never@{MUC}", schedule=[{"at": 1, "close": "over"}])
    usher.decide = lambda request: {"action": "refuse", "code": 403, "text": "no"}
    time.sleep(0.3)
    with pytest.raises(StanzaError):
        alice.request(room)
    assert not console.room_exists(room)


def test_outdated_directive_is_ignored(usher, focus, new_participant, console, room):
    new_participant().start(room, "alice")
    usher.directive(room, max_occupants=7)
    data = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')._data.max_occupants"
    console.wait_until(lambda: console.lua(f"return {data}") == 7)
    usher.directive(room, max_occupants=3, revision=5)
    time.sleep(0.3)
    assert console.lua(f"return {data}") == 7


class TestSchedule:
    def entries(self, end, **timer):
        started = int(time.time()) - 600
        times = {"started_at": started, "ends_at": end}
        return [
            {"at": started, "timer": True, **times},
            {"at": end - 2, "say": "This conference ends soon.", **times},
            {"at": end, "close": "The time of this conference is over."},
        ]

    def test_timer_warning_and_end_come_on_time(self, usher, focus, new_participant, room):
        end = int(time.time()) + 5
        usher.directive(room, schedule=self.entries(end))
        alice = new_participant().start(room, "alice")
        alice.wait(lambda h: h.json_message)
        [timer] = timers(alice)
        assert abs(timer["elapsedSeconds"] - 600) <= 2
        assert timer["durationSeconds"] == 600 + end - int(time.time()) or abs(timer["durationSeconds"] - 605) <= 2
        warning = alice.wait(lambda h: h.body == "This conference ends soon.")
        assert end - 2 <= warning.at < end - 1
        at, reason = alice.wait_end(room)
        assert end <= at < end + 1
        assert reason == "The time of this conference is over."
        assert not any(h.json_message for h in focus.stanzas)

    def test_end_comes_on_time_while_usher_is_away(self, usher, focus, new_participant, room):
        end = int(time.time()) + 4
        usher.directive(room, schedule=self.entries(end))
        alice = new_participant().start(room, "alice")
        usher.is_away = True
        alice.wait(lambda h: h.body)
        at, _ = alice.wait_end(room)
        assert end <= at < end + 1

    def test_timer_is_sent_to_each_joiner_and_again_when_the_end_changes(self, usher, focus, new_participant, room):
        end = int(time.time()) + 300
        usher.directive(room, schedule=self.entries(end))
        alice = new_participant().start(room, "alice")
        alice.wait(lambda h: h.json_message)
        bob = new_participant()
        bob.join(room, "bob")
        bob.wait(lambda h: h.json_message)
        assert len(timers(alice)) == 1 and len(timers(bob)) == 1
        usher.directive(room, schedule=self.entries(end))
        usher.directive(room, schedule=self.entries(end + 900))
        alice.wait(lambda h: len(timers(alice)) == 2)
        first, second = timers(alice)
        assert abs(second["durationSeconds"] - first["durationSeconds"] - 900) <= 2

    def test_reload_repeats_nothing(self, usher, focus, new_participant, console, room):
        end = int(time.time()) + 5
        usher.directive(room, schedule=[entry | {"at": min(entry["at"], end - 4)} if "say" in entry else entry for entry in self.entries(end)])
        alice = new_participant().start(room, "alice")
        alice.wait(lambda h: h.body)
        console.shim("reload", "usher_client")
        at, _ = alice.wait_end(room)
        assert end <= at < end + 1
        assert len([h for h in alice.stanzas if h.body]) == 1
        assert len(timers(alice)) == 1

    def test_vetoed_end_is_tried_again(self, usher, focus, new_participant, console, room):
        console.lua(
            f"prosody.vetoes = 0; prosody.hosts['{MUC}'].events.add_handler('muc-pre-room-destroy', function (event)"
            "prosody.vetoes = prosody.vetoes + 1; if prosody.vetoes < 3 then event.allowed = false; end end)"
        )
        usher.directive(room, schedule=[{"at": 1, "close": "over"}])
        alice = new_participant()
        alice.request(room)
        focus.wait_end(room)
        if console.lua("return prosody.vetoes") == 1:
            pytest.skip("this Prosody does not ask")

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_clock_an_hour_apart_does_no_harm(self, hours, usher, focus, new_participant, room):
        usher.clock = lambda: time.time() + hours * 3600
        end = int(time.time()) + 5
        shifted = [
            {name: value + hours * 3600 if name in ("at", "started_at", "ends_at") else value for name, value in entry.items()}
            for entry in self.entries(end)
        ]
        usher.directive(room, schedule=shifted)
        alice = new_participant().start(room, "alice")
        alice.wait(lambda h: h.json_message)
        assert abs(timers(alice)[0]["elapsedSeconds"] - 600) <= 2
        at, _ = alice.wait_end(room)
        assert end <= at < end + 1


def test_prosody_is_the_configured_one(usher, focus, new_participant):
    version = new_participant().lua("return prosody.version")
    assert version.startswith("13." if prosody_version() == 13 else "0.12"), version


class TestLive:
    @pytest.fixture(autouse=True)
    def inside(self, console, room):
        path = f"prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')"
        self.metadata = lambda: console.lua(f"return ({path}).jitsiMetadata")
        self.set = lambda lua: console.lua(
            f"local room = {path}; room.jitsiMetadata.visitors = {lua};"
            f"prosody.hosts['{MUC}'].events.fire_event('jitsi-metadata-updated', {{ room = room; key = 'visitors' }})"
        )
        component = f"prosody.hosts['metadata.{DOMAIN}'].modules.room_metadata_component.module:shared('sent')"
        self.sent = lambda: [n["metadata"] for n in json.loads(console.lua(f"return require 'util.json'.encode({component})")) if n["room"] == room]

    def test_room_that_is_not_held_is_live_and_broadcast(self, usher, focus, new_participant, console, room):
        new_participant().start(room, "alice")
        console.wait_until(lambda: self.sent() and self.sent()[-1]["visitors"]["live"] is True)

    def test_moderators_decision_is_kept(self, usher, focus, new_participant, console, room):
        usher.directive(room, live=False)
        new_participant().start(room, "alice")
        usher.wait_report(room, occupied=True, live=False, live_is_ours=True)
        self.set("{ live = true }")
        usher.wait_report(room, live=True, live_is_ours=False)
        usher.directive(room, live=False, max_occupants=3)
        console.wait_until(lambda: console.lua(f"return prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')._data.max_occupants") == 3)
        assert self.metadata()["visitors"]["live"] is True

    def test_go_live_of_usher_reaches_the_room_at_once(self, usher, focus, new_participant, console, room):
        usher.directive(room, live=False)
        new_participant().start(room, "alice")
        usher.wait_report(room, occupied=True, live=False)
        time.sleep(1.5)
        start = time.monotonic()
        usher.directive(room, live=True)
        console.wait_until(lambda: self.sent()[-1]["visitors"]["live"] is True, 2)
        assert time.monotonic() - start < 2
        usher.wait_report(room, live=True, live_is_ours=True)

    def test_go_live_is_held_back_until_its_time_and_for_its_owner(self, usher, focus, new_participant, console, room):
        allowed = (
            f"local room = prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}');"
            f"return prosody.hosts['{DOMAIN}'].events.fire_event('jitsi-metadata-allow-moderation', {{ room = room; key = '%s';"
            "data = { live = true }; actor = { bare_jid = 'x@y' }; session = { jitsi_meet_context_user = { email = '%s' } } }) ~= false"
        )
        usher.directive(room, live=False, go_live={"from": int(time.time()) + 600})
        new_participant().start(room, "alice")
        usher.wait_report(room, occupied=True)
        assert console.lua(allowed % ("visitors", "alice@example.com")) is False
        assert console.lua(allowed % ("recording", "alice@example.com")) is True
        usher.directive(room, live=False, go_live={"from": 1, "owner": "Alice@example.com"})
        console.wait_until(lambda: console.lua(allowed % ("visitors", "alice@example.com")), 2)
        assert console.lua(allowed % ("visitors", "bob@example.com")) is False

    def test_limits_that_jicofo_reads_are_in_the_metadata(self, usher, focus, new_participant, console, room):
        usher.directive(room, metadata={"lobbyEnabled": True, "participantsSoftLimit": 20}, moderators=["u-1", "u-2"])
        new_participant().start(room, "alice")
        console.wait_until(lambda: self.sent() and self.sent()[-1].get("participantsSoftLimit") == 20)
        assert self.metadata()["lobbyEnabled"] is True
        assert console.lua(f"return prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{room}')._data.moderators") == ["u-1", "u-2"]
        usher.directive(room, metadata={"participantsSoftLimit": 30})
        console.wait_until(lambda: self.sent()[-1].get("participantsSoftLimit") == 30, 2)
        assert "lobbyEnabled" not in self.sent()[-1]

    def test_number_of_visitors_is_read_from_the_focus(self, usher, focus, new_participant, room):
        new_participant().start(room, "alice")
        focus.send(
            f"<presence from='{focus.jid}' to='{room}/focus'><conference-properties xmlns='http://jitsi.org/protocol/focus'>"
            "<property key='visitor-count' value='12'/></conference-properties></presence>"
        )
        usher.wait_report(room, visitors=12)


class TestFailures:
    @pytest.mark.prosody(usher_on_failure="allow")
    def test_rooms_allowed_without_usher_are_listed_when_it_is_back(self, usher, focus, new_participant, room):
        self.change_rooms_while_usher_is_away(usher, focus, new_participant, room)

    def test_rooms_that_changed_without_usher_are_listed_when_it_is_back(self, usher, focus, new_participant, room):
        self.change_rooms_while_usher_is_away(usher, focus, new_participant, room, allows=False)

    def change_rooms_while_usher_is_away(self, usher, focus, new_participant, room, allows=True):
        alice, bob = new_participant().start(room, "alice"), new_participant().start(f"stays@{MUC}", "bob")
        usher.wait_report(f"stays@{MUC}", occupied=True)
        usher.wait(lambda u: u.polls)
        usher.is_away = True
        usher.forget_instances()
        carol = new_participant()
        if allows:
            carol.start(f"new@{MUC}", "carol")
        else:
            with pytest.raises(StanzaError) as refused:
                carol.request(f"new@{MUC}")
            assert refused.value.code == "503"
        alice.leave(room, "alice")
        focus.leave_room(room)
        carol.join(f"stays@{MUC}", "carol")
        # Longer than some attempts.
        time.sleep(3)
        usher.is_away = False
        start = time.monotonic()
        expected = {f"stays@{MUC}", f"new@{MUC}"} if allows else {f"stays@{MUC}"}
        usher.wait(lambda u: set(u.rooms) == expected and u.rooms[f"stays@{MUC}"]["occupants"] == 2, 5, "the list of all rooms")
        assert time.monotonic() - start < 2

    def test_restart_of_usher_in_a_long_poll_makes_prosody_list_its_rooms(self, usher, focus, new_participant, room):
        new_participant().start(room, "alice")
        usher.wait(lambda u: u.polls)
        before = len(usher.posts)
        usher.forget_instances()
        usher.wait(lambda u: any(post.get("all") for post in u.posts[before:]), 3, "the list")
        assert set(usher.rooms) == {room}

    def test_request_that_waits_during_a_restart_of_usher_is_sent_again(self, usher, focus, new_participant, room):
        usher.decide = lambda request: None
        alice = new_participant()
        alice.send(
            f"<iq type='set' id='late' to='focus.{DOMAIN}'><conference xmlns='http://jitsi.org/protocol/focus' room='{room}'/></iq>"
        )
        usher.wait(lambda u: u.requests())
        usher.decide = lambda request: {"action": "allow"}
        usher.forget_instances()
        assert alice.wait(lambda h: h.id == "late").type == "result"
        assert len({request["id"] for request in usher.requests()}) == 1

    def test_instance_lists_its_rooms_after_a_reload(self, usher, focus, new_participant, console, room):
        new_participant().start(room, "alice")
        usher.wait_report(room, occupied=True)
        before = len(usher.posts)
        console.shim("reload", "usher_client")
        usher.wait(lambda u: any(post.get("all") for post in u.posts[before:]))
        assert set(usher.rooms) == {room} and usher.rooms[room]["occupied"]
        assert len(usher.instances) == 1
        assert [post["seq"] for post in usher.posts] == sorted({post["seq"] for post in usher.posts})


class TestTwoUrls:
    @pytest.fixture
    def prosody(self, tmp_path, usher):
        prosody = Prosody(tmp_path, ["http://127.0.0.1:9", usher.url + "/"], {**MODULES})
        prosody.start()
        yield prosody
        prosody.kill()

    def test_next_url_is_tried_at_once(self, usher, prosody, focus, new_participant, room):
        start = time.monotonic()
        new_participant().start(room, "alice")
        usher.wait_report(room, occupied=True)
        assert time.monotonic() - start < 3
        assert prosody.log_lines("warn") == []


@pytest.mark.prosody(guests=True)
class TestGuestDomain:
    def test_one_host_reports_and_guests_are_gated(self, usher, prosody, loop, focus, new_participant, room):
        usher.decide = lambda request: {"action": "refuse", "code": 403, "text": f"no {request['kind']}"}
        guest = Participant(loop, prosody, domain=f"guest.{DOMAIN}")
        with pytest.raises(StanzaError) as refused:
            guest.request(room)
        assert (refused.value.text, refused.value.code) == ("no iq", "403")
        usher.decide = lambda request: {"action": "allow"}
        end = int(time.time()) + 6
        times = {"started_at": end - 600, "ends_at": end}
        usher.directive(room, schedule=[{"at": end - 3, "say": "soon", **times}, {"at": end, "close": "over"}])
        assert guest.request(room)
        guest.join(room, "guest")
        usher.wait_report(room, occupants=1)
        guest.wait(lambda h: h.body == "soon")
        guest.wait_end(room)
        assert len([h for h in guest.stanzas if h.body]) == 1
        assert len(usher.instances) == 1
        guest.disconnect()


@pytest.mark.prosody(persistent_lobby=False)
def test_missing_lobby_module_is_reported(usher, prosody):
    usher.wait(lambda u: u.polls)
    assert "lobby" not in usher.posts[0]["features"]


@pytest.mark.prosody(usher_refresh=30, usher_reconcile=60, usher_only_prosody=False)
def test_options_of_earlier_modules_are_accepted_with_one_line(usher, prosody, focus, new_participant, room):
    new_participant().start(room)
    assert len(prosody.log_lines("info", "no effect")) == 3
    assert prosody.log_lines("warn") == []


def test_tenant_with_an_underscore(usher, focus, new_participant, console):
    alice = new_participant()
    assert alice.request(f"room1@conference.my_tenant.{DOMAIN}") is not None
    assert usher.requests()[0]["room"] == f"[my_tenant]room1@{MUC}"


@pytest.mark.prosody(muc="component_admins_as_room_owners = true; restrict_room_creation = true;")
class TestRestrictedCreation:
    def test_conference_starts_with_the_focus_and_no_user_creates_it(self, usher, focus, new_participant, console, room):
        new_participant().start(room, "alice")
        usher.wait_report(room, occupied=True)
        with pytest.raises(StanzaError):
            new_participant().join(f"room2@{MUC}", "bob")
        assert [r["kind"] for r in usher.requests()] == ["iq"]


@pytest.mark.prosody(muc="component_admins_as_room_owners = false; restrict_room_creation = true;")
def test_focus_that_is_no_owner_opens_a_room_with_a_password(usher, focus, new_participant, room):
    usher.directive(room, password="sesame")
    alice = new_participant()
    alice.request(room)
    with pytest.raises(StanzaError):
        alice.join(room, "alice", "guess")
    alice.join(room, "alice", "sesame")

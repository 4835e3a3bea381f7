"""usher or Prosody fails, and comes back."""

import json
import signal
import time

import pytest

from services import MUC
from xmpp import Focus, Participant, Refused


def empty(participant, nick, focus, console, room):
    participant.leave(room, nick)
    focus.go(room)
    console.wait_until(lambda: not console.room_exists(room))


def test_usher_down_refuses_and_says_so_once(usher, prosody, focus, people, room):
    usher.book("room1")
    usher.stop()
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            people().request(room)
        assert (refused.value.condition, refused.value.code) == ("service-unavailable", "503")
        assert "try again" in refused.value.text
    with pytest.raises(Refused):
        focus.create(room)
    assert len(prosody.logged("warn")) == 1


def test_usher_back_again_works_at_once_and_is_logged_once(usher, prosody, focus, people, room):
    usher.book("room1")
    usher.stop()
    alice = people()
    with pytest.raises(Refused):
        alice.request(room)
    usher.start()
    alice.start(room)
    assert len(prosody.logged("warn")) == 1
    assert len(prosody.logged("info", "answers again")) == 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_usher_down_lets_in_where_so_configured(usher, prosody, focus, people, console, room):
    usher.stop()
    people().start(room)
    focus.create(f"room2@{MUC}")
    assert console.room_exists(f"room2@{MUC}")
    assert len(prosody.logged("warn")) == 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_a_room_let_in_gets_its_allocation_when_usher_is_back(usher, wire, focus, people, room):
    _, end = usher.book("room1", 6)
    usher.stop()
    alice = people().start(room)
    usher.start()
    wire.wait("POST", 201)
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


@pytest.mark.prosody(usher_on_failure="allow")
def test_a_room_let_in_ends_when_usher_is_back_and_refuses(usher, wire, focus, people, room):
    usher.stop()
    alice = people().start(room)
    usher.start()
    _, reason = alice.wait_end(room)
    assert reason == wire.wait("POST", 403).answer["message"]


@pytest.mark.prosody(usher_timeout=1)
def test_a_slow_usher_is_waited_for_until_the_deadline(usher, prosody, focus, people, room):
    usher.book("room1")
    alice = people()
    usher.signal(signal.SIGSTOP)
    asked = time.monotonic()
    with pytest.raises(Refused) as refused:
        alice.request(room)
    assert 1 <= time.monotonic() - asked < 2
    assert refused.value.code == "503"
    usher.signal(signal.SIGCONT)
    alice.start(room)
    assert len(prosody.logged("warn", "no answer within 1 seconds")) == 1


def test_a_conference_that_ends_while_it_is_in_the_way_is_no_failure(usher, wire, focus, people, console, room):
    usher.book("room1")
    alice = people().start(room, "alice")
    last = wire.wait("POST", 201).answer["id"]
    empty(alice, "alice", focus, console, room)
    wire.wait("DELETE")
    conflict = [(409, json.dumps({"conflict_id": last}))]
    wire.answer_instead = lambda exchange: conflict.pop() if conflict and exchange.method == "POST" else None
    alice.start(room, "alice")
    assert [e.status for e in wire.seen("POST")] == [201, 409, 201]


def test_a_conference_that_is_in_the_way_and_over_time_and_again_is_asked_for_twice(usher, wire, focus, people, console, room):
    usher.book("room1")
    wire.answer_instead = lambda exchange: (409, '{"conflict_id": 7}') if exchange.method == "POST" else None
    with pytest.raises(Refused) as refused:
        people().request(room)
    assert refused.value.code == "503"
    assert [e.status for e in wire.exchanges] == [409, 404, 409, 404]


def test_a_running_room_outlives_a_proxy_that_refuses_its_questions(usher, wire, prosody, focus, people, console, room):
    booking, _ = usher.book("room1")
    alice = people().start(room)
    wire.answer_instead = lambda exchange: (403, "<html>Forbidden</html>") if exchange.method == "GET" else None
    wire.wait("GET", 403, 3)
    assert console.room_exists(room)
    assert not alice.has_been_thrown_out_of(room)
    assert len(prosody.logged("warn", "403")) == 1
    wire.answer_instead = lambda exchange: None
    usher.cancel(booking)
    alice.wait_end(room)


def test_a_wrong_service_token_is_no_refusal(usher, prosody, focus, people, room, console):
    usher.book("room1")
    usher.config.write_text(usher.config.read_text().replace("a-service-token", "another-service-token"))
    usher.stop()
    usher.start()
    with pytest.raises(Refused) as refused:
        people().request(room)
    assert refused.value.code == "503"
    assert len(prosody.logged("warn", "401")) == 1


def test_an_ended_allocation_is_told_until_usher_hears_it(usher, wire, focus, people, room):
    usher.book("room1")
    alice = people().start(room, "alice")
    allocation = wire.wait("POST", 201).answer["id"]
    usher.stop()
    alice.leave(room, "alice")
    focus.go(room)
    wire.wait("DELETE", None)
    usher.start()
    assert not usher.ended(allocation)
    told = next(e for e in wire.wait_for_status("DELETE", (200, 204)))
    assert told.path == f"/conference/{allocation}"
    assert usher.ended(allocation)


def test_a_reopened_room_gets_a_new_allocation_though_the_end_of_the_last_was_not_heard(usher, wire, focus, people, room):
    usher.book("room1")
    alice = people().start(room, "alice")
    first = wire.wait("POST", 201).answer["id"]
    wire.hang_up_on = lambda exchange: exchange.method == "DELETE"
    alice.leave(room, "alice")
    focus.go(room)
    wire.wait("DELETE")
    wire.hang_up_on = lambda exchange: False
    alice.start(room, "alice")
    second = wire.wait("POST", 201, 2).answer["id"]
    assert second != first
    assert usher.ended(first) and not usher.ended(second)


def test_a_running_room_keeps_its_end_while_usher_is_down(usher, focus, people, room):
    _, end = usher.book("room1", 5)
    alice = people().start(room)
    usher.stop()
    at, _ = alice.wait_end(room)
    assert end <= at < end + 1


def test_an_allocation_usher_does_not_know_is_asked_for_anew(usher, wire, focus, people, console, room):
    usher.book("room1")
    alice = people().start(room)
    usher.stop()
    for file in usher.directory.glob("usher.db*"):
        file.unlink()
    usher.start()
    _, reason = alice.wait_end(room)
    assert reason == wire.wait("POST", 403).answer["message"]


@pytest.mark.usher(policy="open")
def test_an_allocation_usher_does_not_know_is_made_anew_where_it_may_be(usher, wire, focus, people, console, room):
    alice = people().start(room)
    usher.forget_everything()
    again = wire.wait("POST", 201, 2)
    assert again.form["mail_owner"] == alice.jid
    assert console.room_exists(room)
    assert not alice.has_been_thrown_out_of(room)


def test_everyone_is_back_in_after_prosody_was_killed(usher, wire, prosody, loop, focus, people, room):
    usher.book("room1", owner="alice@example.com", starters="owner", password="sesame")
    owner = {"user": {"email": "alice@example.com"}}
    people(**owner).start(room, "alice", "sesame")
    people().start(room, "bob", "sesame")
    allocation = wire.wait("POST", 201).answer["id"]
    prosody.kill()
    prosody.start()
    again = Focus(loop, prosody)
    back = [Participant(loop, prosody) for _ in range(2)] + [Participant(loop, prosody, **owner)]
    for number, participant in enumerate(back):
        assert participant.request(room)
        with pytest.raises(Refused):
            participant.join(room, f"p{number}")
        participant.join(room, f"p{number}", "sesame")
    assert wire.wait("POST", 409).answer["conflict_id"] == allocation
    assert not usher.ended(allocation)
    assert len(wire.seen("POST", 201)) == 1
    for entity in [again, *back]:
        entity.disconnect()

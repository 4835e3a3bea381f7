"""A conference is asked for over XMPP, as Jitsi Meet's clients do."""

import threading

import pytest

from services import DOMAIN, MUC, TOKEN
from xmpp import Refused


def test_a_booked_room_opens_through_prosody(usher, wire, focus, people, room):
    usher.book("room1")
    alice = people()
    alice.start(room)
    asked = wire.wait("POST", 201)
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.form["name"] == "room1"
    assert asked.form["mail_owner"] == alice.jid
    assert asked.form["start_time"].endswith(".000Z")
    assert len(wire.seen("POST")) == 1


def test_a_refusal_shows_its_sentence_to_the_client(usher, wire, focus, people, room):
    with pytest.raises(Refused) as refused:
        people().request(room)
    error = refused.value
    assert (error.type, error.condition, error.code) == ("cancel", "service-unavailable", "403")
    assert error.text == wire.wait("POST", 403).answer["message"]
    assert focus.requests == []


def test_guest_is_refused_and_the_owner_let_in_at_once(usher, focus, people, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    guest, owner = people(user={"email": "bob@example.com"}), people(user={"email": "alice@example.com"})
    with pytest.raises(Refused):
        guest.request(room)
    assert owner.request(room)
    assert guest.request(room)


def test_owner_and_guest_at_the_same_moment_are_decided_each_on_their_own(usher, wire, prosody, people, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    # No focus is connected yet, so that neither request makes the room exist before the other is decided.
    guest, owner = people(user={"email": "bob@example.com"}), people(user={"email": "alice@example.com"})
    with pytest.raises(Refused) as first:
        guest.request(room)
    assert first.value.code == "403"
    for participant, status in ((owner, 201), (guest, 409)):
        with pytest.raises(Refused) as passed_on:
            participant.request(room)
        assert passed_on.value.condition == "remote-server-timeout", "came from the focus, not from the shim"
        wire.wait("POST", status)


def test_many_requests_at_once_for_one_room_are_all_let_in(usher, wire, focus, people, room):
    usher.book("room1")
    everyone = [people() for _ in range(8)]
    ready = []
    threads = [threading.Thread(target=lambda p=p: ready.append(p.request(room))) for p in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert ready == [True] * 8
    assert len(wire.seen("POST", 201)) == 1


def test_identity_of_the_token_reaches_usher(usher, wire, focus, people, room):
    user = {"id": "u-17", "email": "alice@example.com", "name": "Alice Ä", "moderator": True, "role": "visitor"}
    usher.book("room1")
    people(user=user, group="staff").request(room)
    form = wire.wait("POST").form
    assert form["user_id"] == "u-17"
    assert form["user_email"] == "alice@example.com"
    assert form["user_name"] == "Alice Ä"
    assert form["user_group"] == "staff"
    assert form["moderator"] == "true"
    assert form["role"] == "visitor"


def test_without_a_token_nothing_is_made_up(usher, wire, focus, people, room):
    usher.book("room1")
    people().request(room)
    assert set(wire.wait("POST").form) == {"name", "mail_owner", "start_time"}


def test_a_request_for_a_room_that_is_there_is_not_asked_about(usher, wire, focus, people, room):
    usher.book("room1")
    people().start(room)
    assert people().request(room)
    assert len(wire.seen("POST")) == 1


def test_a_tenants_room_is_asked_for_by_its_real_name(usher, wire, focus, people):
    usher.book("room1", tenant="acme")
    alice = people()
    assert alice.request(f"Room1@conference.acme.{DOMAIN}")
    alice.join(f"[acme]room1@{MUC}", "alice")
    form = wire.wait("POST", 201).form
    assert (form["name"], form["tenant"]) == ("[acme]room1", "acme")


def test_another_tenants_room_of_the_same_name_is_another_room(usher, focus, people):
    usher.book("room1", tenant="acme")
    with pytest.raises(Refused):
        people().request(f"room1@conference.umbrella.{DOMAIN}")


def test_a_room_name_with_escapes_keeps_them(usher, wire, focus, people):
    usher.book("Café")
    assert people().request(f"caf%c3%a9@{MUC}")
    assert wire.wait("POST", 201).form["name"] == "caf%c3%a9"


def test_health_checks_and_breakout_rooms_are_not_asked_about(usher, wire, focus, people, console):
    focus.create(f"__jicofo-health-check-1@{MUC}")
    focus.create(f"room1@breakout.{DOMAIN}")
    assert people().request(f"room2@breakout.{DOMAIN}") is not None
    assert console.room_exists(f"__jicofo-health-check-1@{MUC}")
    assert wire.exchanges == []


def test_a_visitors_request_goes_on_to_the_focus_when_the_booking_has_a_queue(usher, wire, focus, people, room):
    usher.book("room1", owner="alice@example.com", starters="owner", waiting_queue=True)
    focus.parked = (room,)
    visitor = people(user={"id": "v", "role": "visitor"})
    assert visitor.request(room) is False, "the focus sends them to the queue"
    assert wire.wait("POST").status == 202
    assert focus.requests == [room]


def test_a_visitor_let_through_to_the_focus_opens_nothing(usher, wire, focus, people, console, room):
    usher.book("room1", owner="alice@example.com", starters="owner", waiting_queue=True)
    visitor = people(user={"id": "v", "role": "visitor"})
    assert visitor.request(room) is False
    assert not console.room_exists(room)


@pytest.mark.prosody(usher_create_timeout=1)
def test_an_approval_that_is_not_used_is_given_back(usher, wire, focus, people, room):
    usher.book("room1")
    focus.parked = (room,)
    assert people().request(room) is False
    allocation = wire.wait("POST", 201).answer["id"]
    assert wire.wait("DELETE").path == f"/conference/{allocation}"
    assert usher.ended(allocation)

"""Conference requests over XMPP, as Jitsi Meet's clients send them."""

import threading

import pytest

from services import DOMAIN, MUC, TOKEN, USES_OLD_SHIM
from xmpp import StanzaError


def test_booked_room_opens(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    alice = new_participant()
    alice.start(room)
    decision = recorder.wait_decision("allow")
    assert (decision.room, decision.sender) == ("room1", alice.jid)
    assert {exchange.headers["Authorization"] for exchange in recorder.exchanges} == {f"Bearer {TOKEN}"}
    assert len(recorder.decisions) == 1
    assert usher.allocation()


def test_client_receives_the_message_of_a_refusal(usher, recorder, focus, new_participant, room):
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    error = refused.value
    assert (error.type, error.condition, error.code) == ("cancel", "service-unavailable", "403")
    assert error.text == recorder.wait_decision("refuse").text
    assert focus.requests == []


def test_guest_is_refused_until_the_owner_opens_the_room(usher, focus, new_participant, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    guest, owner = new_participant(user={"email": "bob@example.com"}), new_participant(user={"email": "alice@example.com"})
    with pytest.raises(StanzaError):
        guest.request(room)
    assert owner.request(room)
    assert guest.request(room)


def test_owner_and_guest_are_decided_separately(usher, recorder, prosody, new_participant, room):
    usher.book("room1", owner="alice@example.com", starters="owner")
    # Without a connected focus no request creates the room before the other one is decided.
    guest, owner = new_participant(user={"email": "bob@example.com"}), new_participant(user={"email": "alice@example.com"})
    with pytest.raises(StanzaError) as first:
        guest.request(room)
    assert first.value.code == "403"
    for count, participant in enumerate((owner, guest), 1):
        with pytest.raises(StanzaError) as forwarded:
            participant.request(room)
        assert forwarded.value.condition == "remote-server-timeout", "the error is not from the focus"
        recorder.wait_decision("allow", count)


def test_simultaneous_requests_for_one_room_all_succeed_with_one_allocation(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    participants = [new_participant() for _ in range(8)]
    ready = []
    threads = [threading.Thread(target=lambda p=p: ready.append(p.request(room))) for p in participants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert ready == [True] * 8
    assert usher.allocations_of("room1") == 1


def test_request_contains_the_identity_from_the_token(usher, recorder, focus, new_participant, room):
    user = {"id": "u-17", "email": "alice@example.com", "name": "Alice Ä", "moderator": True, "role": "visitor"}
    usher.book("room1")
    new_participant(user=user, group="staff").request(room)
    assert recorder.wait_decision().user == {
        "id": "u-17", "email": "alice@example.com", "name": "Alice Ä", "group": "staff", "moderator": "true", "role": "visitor",
    }  # fmt: skip


@pytest.mark.skipif(USES_OLD_SHIM, reason="the modules of usher 0.1 write 1001.0")
def test_owner_whose_id_is_a_whole_number_may_open_the_room(usher, recorder, focus, new_participant, room):
    usher.book("room1", owner="1001", starters="owner")
    with pytest.raises(StanzaError):
        new_participant(user={"id": 1002}).request(room)
    new_participant(user={"id": 1001}).start(room)


def test_request_without_a_token_contains_no_identity(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    new_participant().request(room)
    decision = recorder.wait_decision()
    assert not decision.user and not decision.tenant


def test_request_for_an_existing_room_is_not_sent_to_usher(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    new_participant().start(room)
    assert new_participant().request(room)
    assert len(recorder.decisions) == 1


def test_request_for_a_tenant_room_contains_room_and_tenant(usher, recorder, focus, new_participant):
    usher.book("room1", tenant="acme")
    alice = new_participant()
    assert alice.request(f"Room1@conference.acme.{DOMAIN}")
    alice.join(f"[acme]room1@{MUC}", "alice")
    assert recorder.wait_decision("allow").room == "[acme]room1"
    assert usher.allocation(tenant="acme")


def test_tenant_with_an_underscore_can_be_booked_and_opened(usher, recorder, focus, new_participant):
    usher.book("room1", tenant="my_tenant")
    alice = new_participant()
    assert alice.request(f"room1@conference.my_tenant.{DOMAIN}")
    alice.join(f"[my_tenant]room1@{MUC}", "alice")
    assert usher.allocation(tenant="my_tenant")


def test_booking_does_not_apply_to_the_same_room_name_of_another_tenant(usher, focus, new_participant):
    usher.book("room1", tenant="acme")
    with pytest.raises(StanzaError):
        new_participant().request(f"room1@conference.umbrella.{DOMAIN}")


def test_percent_encoded_room_name_is_sent_unchanged(usher, recorder, focus, new_participant):
    usher.book("Café")
    assert new_participant().request(f"caf%c3%a9@{MUC}")
    assert recorder.wait_decision("allow").room == "caf%c3%a9"


def test_health_checks_and_breakout_rooms_are_not_sent_to_usher(usher, recorder, focus, new_participant, console):
    focus.create(f"__jicofo-health-check-1@{MUC}")
    focus.create(f"room1@breakout.{DOMAIN}")
    assert new_participant().request(f"room2@breakout.{DOMAIN}") is not None
    assert console.room_exists(f"__jicofo-health-check-1@{MUC}")
    assert recorder.decisions == []
    assert recorder.reports(f"__jicofo-health-check-1@{MUC}") == []


def test_visitor_request_is_forwarded_to_the_focus_if_the_booking_has_a_waiting_queue(usher, recorder, focus, new_participant, room):
    usher.book("room1", owner="alice@example.com", starters="owner", waiting_queue=True)
    focus.redirected = (room,)
    visitor = new_participant(user={"id": "v", "role": "visitor"})
    assert visitor.request(room) is False, "the focus did not redirect the visitor to the queue"
    recorder.wait_decision("queue")
    assert focus.requests == [room]


def test_forwarded_visitor_request_does_not_create_the_room(usher, recorder, focus, new_participant, console, room):
    usher.book("room1", owner="alice@example.com", starters="owner", waiting_queue=True)
    visitor = new_participant(user={"id": "v", "role": "visitor"})
    assert visitor.request(room) is False
    assert not console.room_exists(room)


@pytest.mark.prosody(usher_create_timeout=1)
def test_unused_allocation_is_deleted(usher, recorder, focus, new_participant, room):
    usher.book("room1")
    focus.redirected = (room,)
    assert new_participant().request(room) is False
    usher.wait_ended(usher.wait_allocation())

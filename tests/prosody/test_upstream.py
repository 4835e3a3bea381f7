"""usher as a gateway between Prosody and another reservation system."""

import threading
import time

import pytest

from conftest import settings_of
from services import DOMAIN, MUC, TOKEN, USES_OLD_SHIM, Usher, until
from upstream import Upstream, conference
from xmpp import StanzaError

STOCK = {"User-Agent": "Prosody (0.12.3; posix)", "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def usher(request, tmp_path, upstream):
    settings = settings_of(request, "upstream", url=upstream.url, retry_delay="10ms", timeout="1s")
    usher = Usher(tmp_path, {"backend": "upstream", **{f"upstream.{key}": value for key, value in settings.items()}})
    usher.start()
    yield usher
    usher.stop()


def post(usher, name="room1"):
    """As Prosody's mod_reservations sends it."""
    body = f"start_time=2026-11-21T22%3a21%3a26.000Z&name={name}&mail_owner=abc%40meet.localhost"
    return usher.request("POST", "/conference", body, "application/x-www-form-urlencoded", STOCK)


def test_conference_is_created_and_deleted_upstream(upstream, usher, recorder, focus, new_participant, room):
    running = conference(7, "room1")
    upstream.handler = lambda method, path, form: (204, "") if method == "DELETE" else (201, running)
    alice = new_participant().start(room, "alice")
    assert upstream.seen("POST")[0][2]["name"] == "room1"
    assert str(usher.wait_allocation()) == "7"
    alice.leave(room, "alice")
    focus.leave_room(room)
    upstream.wait("DELETE", "/conference/7")


def test_text_id_works_with_the_shim(upstream, usher, recorder, focus, new_participant, room):
    running = conference("a1-b2", "room1")
    upstream.handler = lambda method, path, form: ({"POST": 201, "GET": 200, "DELETE": 204}[method], running)
    alice = new_participant().start(room, "alice")
    alice.leave(room, "alice")
    focus.leave_room(room)
    upstream.wait("DELETE", "/conference/a1-b2")


def test_upstream_conflict_is_resolved(upstream, usher, recorder, focus, new_participant, room):
    running = conference(7, "room1")
    upstream.handler = lambda method, path, form: (409, {"conflict_id": 7}) if method == "POST" else (200, running)
    new_participant().start(room)
    assert str(usher.wait_allocation()) == "7"


def test_user_receives_the_message_of_an_upstream_refusal(upstream, usher, focus, new_participant, room):
    upstream.handler = lambda method, path, form: (403, {"message": "Ask Bob for a reservation."})
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert (refused.value.code, refused.value.text) == ("403", "Ask Bob for a reservation.")


FAULTS = {
    "fails": lambda *_: (500, {"message": None}),
    "does not respond": lambda *_: None,
    "responds with HTML": lambda *_: (201, "<html>"),
    "is not running": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_upstream_is_reported(fault, upstream, usher, recorder, focus, new_participant, room):
    upstream.handler = FAULTS[fault]
    if upstream.handler is None:
        upstream.close()
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert refused.value.code == "503"
    assert isinstance(recorder.wait_decision("fail").text, str)
    if fault == "fails":
        assert len(upstream.seen("POST")) == 4
    elif fault != "is not running":
        assert len(upstream.seen("POST")) == 1


@pytest.mark.upstream(on_failure="allow")
def test_conferences_run_without_the_upstream_with_on_failure_allow(upstream, usher, recorder, focus, new_participant, room):
    upstream.close()
    alice = new_participant().start(room, "alice")
    assert usher.wait_allocation()
    alice.leave(room, "alice")
    focus.leave_room(room)
    until(lambda: usher.allocation() is None)


@pytest.mark.skipif(USES_OLD_SHIM, reason="the modules of usher 0.1 send one request at a time")
@pytest.mark.upstream(timeout="18s")
def test_request_that_hangs_holds_up_no_other_room(upstream, usher, recorder, focus, new_participant, room):
    release = threading.Event()

    def handler(method, path, form):
        if method == "POST" and form["name"] == "room1":
            release.wait(20)
        return (204, "") if method == "DELETE" else (201, conference(7 if form.get("name") == "room1" else 8, form.get("name", "room1")))

    # Not inside the lock of the recorded requests.
    upstream.slow = handler
    alice, bob = new_participant(), new_participant()
    alice.send(
        f"<iq type='set' id='slow' to='focus.{DOMAIN}'><conference xmlns='http://jitsi.org/protocol/focus' room='{room}'/></iq>"
    )
    time.sleep(0.2)
    start = time.monotonic()
    assert bob.request(f"room2@{MUC}")
    assert time.monotonic() - start < 1
    # Later than usher_timeout: the decision arrives in a long poll.
    time.sleep(6)
    release.set()
    assert alice.wait(lambda h: h.id == "slow").type == "result"


def test_conference_shortened_upstream_ends(upstream, usher, recorder, focus, new_participant, room):
    running = conference(7, "room1")
    upstream.handler = lambda method, path, form: (201 if method == "POST" else 200, running)
    alice = new_participant().start(room)
    running["duration"] = 4
    alice.wait_end(room)


def test_float_ids_from_lua_are_sent_upstream_as_integers(upstream, usher):
    """The system does not know /conference/7.0, which mod_reservations alone would request."""
    running = conference(7, "room1")

    def handler(method, path, form):
        if method == "POST":
            return 201, running
        if path != "/conference/7":
            return 404, {}
        return (200, running) if method == "GET" else (204, "")

    upstream.handler = handler
    assert post(usher)[0] == 201
    assert usher.request("GET", "/conference/7.0", headers=STOCK)[0] == 200
    assert usher.request("DELETE", "/conference/7.0", headers=STOCK)[0] == 204
    upstream.wait("DELETE", "/conference/7")
    assert [request[1] for request in upstream.requests] == ["/conference", "/conference/7", "/conference/7"]


def test_deletion_survives_a_kill(upstream, usher):
    upstream.handler = lambda method, path, form: (503, {}) if method == "DELETE" else (201, conference(7, "room1"))
    assert post(usher)[0] == 201
    assert usher.request("DELETE", "/conference/7.0", headers=STOCK)[0] == 204
    usher.kill()
    upstream.handler = lambda method, path, form: (204, "")
    before = len(upstream.seen("DELETE"))
    usher.start()
    upstream.wait("DELETE", "/conference/7", before + 1)
    until(lambda: usher.request("GET", "/api/v1/outbox")[1]["pending"] == 0)

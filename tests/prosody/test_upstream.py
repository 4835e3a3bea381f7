"""usher as a gateway between Prosody and another reservation system."""

import pytest

from conftest import settings_of
from services import TOKEN, Usher, until
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
    assert recorder.wait("POST", 201).response["id"] == 7
    alice.leave(room, "alice")
    focus.leave_room(room)
    upstream.wait("DELETE", "/conference/7")


def test_text_id_works_with_the_shim(upstream, usher, recorder, focus, new_participant, room):
    running = conference("a1-b2", "room1")
    upstream.handler = lambda method, path, form: ({"POST": 201, "GET": 200, "DELETE": 204}[method], running)
    alice = new_participant().start(room, "alice")
    upstream.wait("GET", "/conference/a1-b2")
    alice.leave(room, "alice")
    focus.leave_room(room)
    upstream.wait("DELETE", "/conference/a1-b2")


def test_upstream_conflict_is_resolved(upstream, usher, recorder, focus, new_participant, room):
    running = conference(7, "room1")
    upstream.handler = lambda method, path, form: (409, {"conflict_id": 7}) if method == "POST" else (200, running)
    new_participant().start(room)
    assert recorder.wait("POST", 200).response["id"] == 7


def test_user_receives_the_message_of_an_upstream_refusal(upstream, usher, focus, new_participant, room):
    upstream.handler = lambda method, path, form: (403, {"message": "Ask Bob for a reservation."})
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert (refused.value.code, refused.value.text) == ("403", "Ask Bob for a reservation.")


FAULTS = {
    "fails": (lambda *_: (500, {"message": None}), 502),
    "does not respond": (lambda *_: None, 504),
    "responds with HTML": (lambda *_: (201, "<html>"), 502),
    "is not running": (None, 502),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_upstream_is_reported(fault, upstream, usher, recorder, focus, new_participant, room):
    upstream.handler, status = FAULTS[fault]
    if upstream.handler is None:
        upstream.close()
    with pytest.raises(StanzaError) as refused:
        new_participant().request(room)
    assert refused.value.code == "503"
    assert isinstance(recorder.wait("POST", status).response["message"], str)
    if fault == "fails":
        assert len(upstream.seen("POST")) == 4
    elif fault != "is not running":
        assert len(upstream.seen("POST")) == 1


@pytest.mark.upstream(on_failure="allow")
def test_conferences_run_without_the_upstream_with_on_failure_allow(upstream, usher, recorder, focus, new_participant, room):
    upstream.close()
    alice = new_participant().start(room, "alice")
    own = recorder.wait("POST", 201).response["id"]
    alice.leave(room, "alice")
    focus.leave_room(room)
    assert recorder.wait("DELETE", 204).path == f"/conference/{own}"


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

"""Prosody → usher → another reservation system → and back."""

import pytest

from conftest import settings_of
from services import TOKEN, Usher, until
from upstream import Upstream, conference
from xmpp import Refused

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
    """As the stock module does."""
    body = f"start_time=2026-11-21T22%3a21%3a26.000Z&name={name}&mail_owner=abc%40meet.localhost"
    return usher.call("POST", "/conference", body, "application/x-www-form-urlencoded", STOCK)


def test_a_conference_of_the_upstream_opens_and_ends_there(upstream, usher, wire, focus, people, room):
    running = conference(7, "room1")
    upstream.says = lambda method, path, form: (204, "") if method == "DELETE" else (201, running)
    alice = people().start(room, "alice")
    assert upstream.seen("POST")[0][2]["name"] == "room1"
    assert wire.wait("POST", 201).answer["id"] == 7
    alice.leave(room, "alice")
    focus.go(room)
    upstream.wait("DELETE", "/conference/7")


def test_an_id_that_is_a_text_works_with_the_shim(upstream, usher, wire, focus, people, room):
    running = conference("a1-b2", "room1")
    upstream.says = lambda method, path, form: ({"POST": 201, "GET": 200, "DELETE": 204}[method], running)
    alice = people().start(room, "alice")
    upstream.wait("GET", "/conference/a1-b2")
    alice.leave(room, "alice")
    focus.go(room)
    upstream.wait("DELETE", "/conference/a1-b2")


def test_a_conflict_of_the_upstream_is_resolved(upstream, usher, wire, focus, people, room):
    running = conference(7, "room1")
    upstream.says = lambda method, path, form: (409, {"conflict_id": 7}) if method == "POST" else (200, running)
    people().start(room)
    assert wire.wait("POST", 200).answer["id"] == 7


def test_a_refusal_of_the_upstream_is_shown_to_the_user(upstream, usher, focus, people, room):
    upstream.says = lambda method, path, form: (403, {"message": "Ask Bob for a reservation."})
    with pytest.raises(Refused) as refused:
        people().request(room)
    assert (refused.value.code, refused.value.text) == ("403", "Ask Bob for a reservation.")


FAULTS = {
    "fails": (lambda *_: (500, {"message": None}), 502),
    "says nothing": (lambda *_: None, 504),
    "talks rubbish": (lambda *_: (201, "<html>"), 502),
    "is not there": (None, 502),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_upstream_that(fault, upstream, usher, wire, focus, people, room):
    upstream.says, status = FAULTS[fault]
    if upstream.says is None:
        upstream.close()
    with pytest.raises(Refused) as refused:
        people().request(room)
    assert refused.value.code == "503"
    assert isinstance(wire.wait("POST", status).answer["message"], str)
    if fault == "fails":
        assert len(upstream.seen("POST")) == 4
    elif fault != "is not there":
        assert len(upstream.seen("POST")) == 1


@pytest.mark.upstream(on_failure="allow")
def test_conferences_run_while_it_is_away_where_so_configured(upstream, usher, wire, focus, people, room):
    upstream.close()
    alice = people().start(room, "alice")
    own = wire.wait("POST", 201).answer["id"]
    alice.leave(room, "alice")
    focus.go(room)
    assert wire.wait("DELETE", 204).path == f"/conference/{own}"


def test_a_conference_that_the_upstream_shortens_ends(upstream, usher, wire, focus, people, room):
    running = conference(7, "room1")
    upstream.says = lambda method, path, form: (201 if method == "POST" else 200, running)
    alice = people().start(room)
    running["duration"] = 4
    alice.wait_end(room)


def test_ids_that_lua_makes_floats_of_arrive_as_they_were(upstream, usher):
    """The system has no /conference/7.0, which is what breaks it behind the stock module alone."""
    running = conference(7, "room1")

    def says(method, path, form):
        if method == "POST":
            return 201, running
        if path != "/conference/7":
            return 404, {}
        return (200, running) if method == "GET" else (204, "")

    upstream.says = says
    assert post(usher)[0] == 201
    assert usher.call("GET", "/conference/7.0", headers=STOCK)[0] == 200
    assert usher.call("DELETE", "/conference/7.0", headers=STOCK)[0] == 204
    upstream.wait("DELETE", "/conference/7")
    assert [asked[1] for asked in upstream.asked] == ["/conference", "/conference/7", "/conference/7"]


def test_a_deletion_outlives_a_kill(upstream, usher):
    upstream.says = lambda method, path, form: (503, {}) if method == "DELETE" else (201, conference(7, "room1"))
    assert post(usher)[0] == 201
    assert usher.call("DELETE", "/conference/7.0", headers=STOCK)[0] == 204
    usher.kill()
    upstream.says = lambda method, path, form: (204, "")
    before = len(upstream.seen("DELETE"))
    usher.start()
    upstream.wait("DELETE", "/conference/7", before + 1)
    until(lambda: usher.call("GET", "/api/v1/outbox")[1]["pending"] == 0)

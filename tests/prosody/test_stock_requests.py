"""Requests byte by byte as Prosody's mod_reservations sends them, without Prosody."""

import pytest

from services import TOKEN, Usher

STOCK = {"User-Agent": "Prosody (0.12.3; posix)", "Authorization": f"Bearer {TOKEN}"}
FORM = "application/x-www-form-urlencoded"


class Stock:
    """The client side of mod_reservations. Under Lua 5.4 it decodes ids as floats and writes them so into URLs."""

    def __init__(self, usher):
        self.usher = usher

    def post(self, name="room1", path="/conference"):
        body = f"start_time=2026-11-21T22%3a21%3a26.000Z&name={name}&mail_owner=abc%40meet.localhost"
        return self.usher.request("POST", path, body, FORM, STOCK)

    def get(self, number):
        return self.usher.request("GET", f"/conference/{float(number)}", headers=STOCK)

    def delete(self, number):
        return self.usher.request("DELETE", f"/conference/{float(number)}", headers=STOCK)


@pytest.fixture
def stock(usher):
    return Stock(usher)


def assert_stock_accepts(conference, node):
    """The checks of mod_reservations before it opens a room."""
    assert conference["name"].lower() == node
    assert isinstance(conference["mail_owner"], str)
    assert conference["start_time"][10] == "T"
    assert isinstance(conference["duration"], (int, float))
    assert isinstance(conference["id"], int)
    assert conference.get("max_occupants", 1) >= 1
    assert isinstance(conference.get("password", ""), str)
    assert None not in conference.values()


def test_booked_room_is_allocated(usher, stock):
    usher.book("room1", max_occupants=3, password="sesame", lobby=True)
    status, conference = stock.post()
    assert status == 201
    assert_stock_accepts(conference, "room1")
    assert (conference["max_occupants"], conference["password"], conference["lobby"]) == (3, "sesame", True)


def test_unset_options_are_omitted(usher, stock):
    usher.book("room1")
    _, conference = stock.post()
    assert not {"max_occupants", "password"} & set(conference)
    assert_stock_accepts(conference, "room1")


def test_refusal_has_a_message(stock):
    status, answer = stock.post()
    assert status == 403
    assert isinstance(answer["message"], str) and answer["message"]


def test_running_conference_is_found_by_a_float_conflict_id(usher, stock):
    usher.book("room1")
    _, first = stock.post()
    status, conflict = stock.post()
    assert status == 409
    assert conflict["conflict_id"] == first["id"]
    status, again = stock.get(conflict["conflict_id"])
    assert status == 200
    assert again == first


def test_empty_room_is_deleted_by_a_float_id_and_opens_again(usher, stock):
    usher.book("room1")
    _, first = stock.post()
    for _ in range(2):
        status, _ = stock.delete(first["id"])
        assert status in (200, 204)
    assert stock.get(first["id"])[0] == 404
    status, second = stock.post()
    assert status == 201
    assert second["id"] != first["id"]


@pytest.mark.parametrize("number", ["7.5", "abc", "-1", "9" * 400, ""])
def test_invalid_ids_are_refused(usher, number):
    status, answer = usher.request("GET", f"/conference/{number}", headers=STOCK)
    assert status in (404, 405)
    assert isinstance(answer["message"], str)


def test_prefix_with_a_trailing_slash_works(usher, stock):
    usher.book("room1")
    assert stock.post(path="//conference")[0] == 201


def test_tenant_room_name_is_returned_unchanged(usher, stock):
    usher.book("room1", tenant="acme")
    status, conference = stock.post(name="%5bacme%5droom1")
    assert status == 201
    assert_stock_accepts(conference, "[acme]room1")


def test_canonicalised_room_name_is_returned_unchanged(usher, stock):
    usher.book("Été 2026")
    status, conference = stock.post(name="%25c3%25a9t%25c3%25a9%25202026")
    assert status == 201
    assert_stock_accepts(conference, "%c3%a9t%c3%a9%202026")


@pytest.mark.usher(policy="open")
def test_allocation_survives_a_kill_of_usher(usher: Usher, stock):
    _, first = stock.post()
    usher.kill()
    usher.start()
    status, conflict = stock.post()
    assert (status, conflict["conflict_id"]) == (409, first["id"])

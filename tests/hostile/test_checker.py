"""The checker finds each kind of violation, and none in a log without one."""

import pathlib
import random
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from attacks import ATTACKS, SHORT, Mutated  # noqa: E402
from checker import CHECKS, check  # noqa: E402

BOUNDS = {"rate": 10, "post_median": 0.5, "post_max": 2.5, "post_crowded": 5, "watchdog_gap": 5, "memory_growth": 1 << 20, "expect": {}}


def act(**bounds):
    return {"e": "act", "t": 0, **BOUNDS, **bounds}


def http(t0, op, status, key="room:a", id=1, t=None, **more):
    return {"e": "http", "t0": t0, "t": t or t0 + 0.01, "op": op, "key": key, "status": status, "id": id, **more}


def live(t0, room="hall"):
    return http(t0, "other", 200, f"golive:{room}", None)


def over(t0, room="hall"):
    return http(t0, "other", 200, f"endlive:{room}", None)


def joined(t, who, room="hall"):
    return {"e": "joined", "t0": t - 0.01, "t": t, "who": who, "conference": room}


def released(t, who, room="hall"):
    return {"e": "released", "t": t, "who": who, "conference": room, "delay": 0}


def event(e, t, **more):
    return {"e": e, "t": t, **more}


def attack(start, end, connections=64, **more):
    return [event("attack", start, name="ping", sockets=64, **more), event("calm", end, connections=connections)]


def kinds(*events, **bounds):
    return [violation.kind for violation in check([act(**bounds), *events])]


def crowd(count, joined_at, released_at):
    for n in range(count):
        yield joined(joined_at(n), f"v{n}")
        yield released(released_at(n), f"v{n}")


def test_a_log_without_violations_has_none():
    log = [
        http(1, "create", 201), http(1.1, "read", 200), http(1.2, "again", 409, conflict=1), http(2, "delete", 204),
        http(2.1, "read", 404), http(2.2, "create", 201, id=2),
        http(3, "create", 201, "booking:b", 7), http(3.1, "delete", 204, "booking:b", 7),
        http(3.1, "delete", 404, "booking:b", 7), http(3.2, "read", 404, "booking:b", 7),
        *crowd(30, lambda n: 4 + n / 50, lambda n: 5 + n // 10), live(4.95),
        *attack(1, 4), event("memory", 1, when="before", bytes=10 << 20),
        event("memory", 9, when="after", bytes=10 << 20), *(event("watchdog", t) for t in range(10)),
    ]
    assert kinds(*log, expect={"create": 3, "released": 30}) == []


@pytest.mark.parametrize(
    "log",
    [
        [http(1, "create", 201), http(2, "read", 404)],
        # A DELETE that was refused is not carried out.
        [http(1, "create", 201), http(2, "delete", 503), http(3, "read", 404), event("full", 1.5), event("free", 2.5)],
        # A DELETE that comes later is no cause.
        [http(1, "create", 201), http(2, "read", 404), http(3, "delete", 204)],
        # 404 from what another DELETE did not commit.
        [
            event("full", 1.5), event("free", 5), http(1, "create", 201), http(2, "delete", 503), http(2, "delete", 404),
        ],
    ],
)
def test_a_resource_that_is_gone_without_a_delete_is_lost(log):
    assert kinds(*log) == ["lost"]


def test_a_resource_that_was_gone_does_not_come_back():
    log = [http(1, "create", 201), http(2, "delete", 204), http(3, "read", 404), http(4, "read", 200)]
    assert kinds(*log) == ["came back"]
    log = [http(1, "create", 201), http(2, "delete", None, error="reset"), event("down", 1.9, kind="kill"), event("up", 2)]
    assert kinds(*log, http(3, "read", 404), http(4, "read", 404)) == []
    assert kinds(*log, http(3, "read", 404), http(4, "read", 200)) == ["came back"]


def test_a_read_at_the_same_time_as_a_delete_may_see_either_state():
    log = [http(1, "create", 201), http(2, "delete", 204, t=3), http(2, "read", 200, t=3), http(2.1, "read", 404, t=2.9)]
    assert kinds(*log) == []


def test_a_room_is_given_out_once():
    assert kinds(http(1, "create", 201), http(1, "create", 201, id=2)) == ["twice"]
    assert kinds(http(1, "create", 201), http(2, "delete", 204), http(3, "create", 201, id=2)) == []


def test_one_of_two_posts_at_once_gets_a_conflict():
    first = http(1, "create", 201, race=True)
    assert kinds(first, http(1, "create", 409, id=None, conflict=1, race=True)) == []
    assert kinds(first, http(1, "create", 409, id=None, conflict=2, race=True)) == ["conflict"]
    assert kinds(first, http(1, "create", 409, id=None, conflict=1)) == ["answer"]


def test_a_conflict_names_an_allocation_of_the_room():
    assert kinds(http(1, "create", 201), http(2, "again", 409, conflict=1)) == []
    assert kinds(http(1, "create", 201), http(2, "again", 409, conflict=2)) == ["conflict"]


@pytest.mark.parametrize("op, status", [("create", 500), ("create", 503), ("read", 503), ("delete", 200), ("again", 201)])
def test_an_impossible_answer_is_a_violation(op, status):
    assert "answer" in kinds(http(1, op, status))


def test_a_full_disk_allows_a_503_of_writes_only():
    disk = [event("full", 1), event("free", 2)]
    assert kinds(*disk, http(1.5, "create", 503)) == []
    assert kinds(*disk, http(1.5, "read", 503)) == ["answer"]
    assert kinds(*disk, http(1.5, "create", 500)) == ["answer"]
    assert kinds(*disk, http(4, "create", 503)) == ["answer"]


def test_a_request_without_an_answer_is_a_violation_unless_the_process_was_down():
    lost = http(5, "create", None, error="reset")
    assert kinds(lost) == ["unanswered"]
    assert kinds(lost, event("down", 4, kind="kill"), event("up", 4.5)) == []
    assert kinds(lost, event("down", 1, kind="kill"), event("up", 2)) == ["unanswered"]
    assert kinds(lost, event("paused", 4), event("continued", 4.5)) == []


def test_slow_posts_are_found_per_attack():
    assert kinds(*attack(1, 9), *(http(n, "create", 201, f"room:{n}", n, t=n + 0.6) for n in range(2, 9))) == ["slow"]
    crowding = attack(1, 9, crowds=True)
    assert kinds(*crowding, *(http(n, "create", 201, f"room:{n}", n, t=n + 0.6) for n in range(2, 9))) == []
    assert kinds(*crowding, *(http(n, "create", 201, f"room:{n}", n, t=n + 5.1) for n in range(2, 4))) == ["slow"]
    # The machine was busy before.
    busy = http(0.5, "create", 201, "room:before", 99, t=0.6)
    assert kinds(*attack(1, 9), busy, *(http(n, "create", 201, f"room:{n}", n, t=n + 1.4) for n in range(2, 9))) == []
    assert kinds(*attack(1, 9), busy, *(http(n, "create", 201, f"room:{n}", n, t=n + 1.6) for n in range(2, 9))) == ["slow"]
    times = [0.01, 0.01, 3]
    assert kinds(*attack(1, 9), *(http(2, "create", 201, f"room:{n}", n, t=2 + s) for n, s in enumerate(times))) == ["slow"]
    assert kinds(*attack(1, 9), *(http(2, "create", 201, f"room:{n}", n, t=2.4) for n in range(3))) == []


def test_release_needs_a_live_conference():
    assert kinds(joined(1, "v"), released(2, "v")) == ["early"]
    assert kinds(joined(1, "v"), released(2, "v"), live(3)) == ["early"]
    assert kinds(joined(1, "v"), released(2, "v"), live(1.5)) == []


def test_a_visitor_is_released_once_per_live_period():
    assert kinds(live(1), released(2, "v"), released(3, "v")) == ["released twice"]
    assert kinds(live(1), released(2, "v"), over(3), live(4), released(5, "v")) == []


def test_more_releases_than_the_rate_are_found():
    def at(released_at, *more):
        return kinds(live(0.5), *more, *crowd(40, lambda n: 0.6 + n / 1000, released_at))

    assert at(lambda n: 1 + n // 10) == []
    # All in one moment, and twice the rate over some seconds.
    assert at(lambda n: 1 + n / 1000) == ["pace"]
    assert at(lambda n: 1 + n / 20, event("lag", 2, seconds=0.1)) == ["pace"]
    # Our own loop was late.
    assert at(lambda n: 1 + n / 1000, event("lag", 1, seconds=4)) == []


def test_overtaking_is_found():
    early, late = [joined(1, "first"), joined(2, "second")], live(3)
    assert kinds(*early, late, released(5, "first"), released(4, "second")) == ["order"]
    assert kinds(*early, late, released(5, "first"), released(4.9, "second")) == []
    assert kinds(*early, late, released(4, "first"), released(5, "second")) == []


def test_a_restart_keeps_the_order_of_visitors_that_return_in_time():
    stop = [event("down", 3, kind="stop"), event("up", 4)]
    early = [joined(1, "first"), joined(2, "second"), *stop, joined(4.5, "second"), live(4.6)]
    quickest_first = [released(4.7, "second"), joined(5, "first"), released(6, "first")]
    assert kinds(*early, *quickest_first) == ["order"]
    # It came back after more than ten seconds.
    assert kinds(*early, released(14.1, "second"), joined(15, "first"), released(16, "first")) == []
    kill = [{**each, "kind": "kill"} if each["e"] == "down" else each for each in early]
    assert kinds(*kill, *quickest_first) == []


def test_a_visitor_that_is_never_released_is_found():
    assert kinds(event("given_up", 20, who="v", conference="hall", waited=15)) == ["never released"]


def test_a_closed_connection_is_a_violation_unless_usher_was_down():
    closed = event("closed", 5, who="v", code=1008)
    assert kinds(closed) == ["closed"]
    assert kinds(closed, event("paused", 1), event("continued", 4.9)) == ["closed"]
    assert kinds(closed, event("down", 4.9, kind="stop"), event("up", 5)) == []


def test_an_exit_and_a_panic_are_violations():
    assert kinds(event("exited", 5, code=-25)) == ["exited"]
    assert kinds(event("logged", 5, text="thread 'main' panicked")) == ["logged"]


def test_a_gap_of_the_watchdog_is_found():
    assert kinds(event("watchdog", 1), event("watchdog", 7)) == ["watchdog"]
    assert kinds(event("watchdog", 1), event("watchdog", 7), event("paused", 2), event("continued", 6.5)) == []


def test_memory_that_does_not_return_is_found():
    before = event("memory", 1, when="before", bytes=10 << 20)
    assert kinds(before, event("memory", 9, when="after", bytes=12 << 20)) == ["memory"]
    assert kinds(before, event("memory", 5, when="during ping", bytes=99 << 20), {**before, "t": 9, "when": "after"}) == []


def test_a_log_without_evidence_proves_nothing():
    assert kinds(expect={"create": 1}) == ["no evidence"]
    assert kinds(*attack(1, 9, connections=0)) == ["no evidence"]
    assert kinds(http(1, "create", None, error="reset"), expect={"create": 1}) == ["unanswered", "no evidence"]


def test_each_check_finds_something_in_these_tests():
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    names = ["lost", "came back", "twice", "conflict", "answer", "unanswered", "slow", "early", "released twice", "pace",
             "order", "never released", "closed", "exited", "logged", "watchdog", "memory", "no evidence"]
    checker = pathlib.Path(__file__).with_name("checker.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in source for name in names)
    assert checker.count("yield Violation(") == len(names) + 1 and len(CHECKS) == 14


def test_mutations_repeat_with_their_seed():
    mutants = [attack for attack in ATTACKS.values() if isinstance(attack, Mutated)]
    assert len(mutants) == 2 and SHORT <= set(ATTACKS)
    for attack in mutants:
        first, second, third = (attack.opening(1, random.Random(seed)) for seed in (1, 1, 2))
        assert first == second != third

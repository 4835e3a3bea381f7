"""Verifies the log of an act (pure): events in, violations out.

An event is a dictionary with `e`, its kind, and `t`, the moment on the monotonic clock of the machine. Requests and
subscriptions also have `t0`, when they were sent; `t` is then when they were answered. The kinds:

act        the bounds of this act (`rate`, `post_median`, `post_max`, `post_crowded`, `watchdog_gap`, `memory_growth`, `expect`)
http       a request: `op`, `key` (the resource), `status` (None without an answer), `id`, `race` (sent twice at once)
joined     a visitor's subscription is acknowledged: `who`, `conference`
released   a visitor received "live": `who`, `conference`, `delay` (randomDelayMs)
left       a visitor disconnects of its own accord
closed     the server closed a well-behaved client's connection: `who`, `code`
given_up   a visitor was not released in time: `who`, `conference`, `waited`
down, up   the process was ended (`kind` "kill" or "stop"), and answers again
paused, continued, full, free     SIGSTOP and SIGCONT; the disk is full, and has space again
attack, calm     an attack begins (`name`, `sockets`, `crowds` if it occupies connections) and ends (`connections`, which it
           opened)
watchdog, memory, lag, exited, logged     the process: its beats, its resident bytes (`when`), the delay of our own
           event loop, an exit that no act requested, a line in its log that must not be there
"""

from collections import defaultdict
from statistics import median
from typing import NamedTuple

# How long after a start or a pause answers may still be missing.
SETTLING = 1.5
# Messages that are sent together are read by different sockets at different times.
READ_JITTER = 0.6
# How long releases wait after a restart for visitors that have a place.
RETURN_TIME = 10
# How many times the median of POST before the attacks is added to the bounds.
BUSY = 10


class Violation(NamedTuple):
    kind: str
    text: str


def check(events):
    """All violations in the log of one act."""
    events = sorted(events, key=lambda event: event["t"])
    act = next(event for event in events if event["e"] == "act")
    return [violation for judge in CHECKS for violation in judge(events, act)]


def of(events, *kinds):
    return [event for event in events if event["e"] in kinds]


def windows(events, begin, end, margin=0.0):
    """The intervals between two kinds of events."""
    found, start = [], None
    for event in of(events, begin, end):
        if event["e"] == begin and start is None:
            start = event["t"]
        elif event["e"] == end and start is not None:
            found.append((start, event["t"] + margin))
            start = None
    if start is not None:
        found.append((start, float("inf")))
    return found


def overlaps(intervals, start, end):
    return any(start <= until and end >= since for since, until in intervals)


def excused(events):
    """When a request may stay without an answer: the process is down or paused."""
    return windows(events, "down", "up", SETTLING) + windows(events, "paused", "continued", SETTLING)


# Resources: answers about one id.

ANSWERS = {
    "create": {201}, "read": {200, 404}, "delete": {204, 404}, "again": {409}, "other": {200},
}
# Answers that are possible on a full disk only.
FULL_ANSWERS = {"create": {503}, "delete": {503}, "again": {503}, "read": set(), "other": {503}}


def answers_are_possible(events, act):
    full = windows(events, "full", "free", SETTLING)
    absent = excused(events)
    for event in of(events, "http"):
        status, during = event["status"], (event["t0"], event["t"])
        possible = ANSWERS[event["op"]] | ({409} if event.get("race") else set())
        if overlaps(full, *during):
            possible = possible | FULL_ANSWERS[event["op"]]
        # During a start and a stop, a request may be refused.
        if status == 503 and overlaps(absent, *during):
            continue
        if status is None:
            if not overlaps(absent, *during):
                yield Violation("unanswered", f"{describe(event)} has no answer: {event.get('error')}")
        elif status not in possible:
            yield Violation("answer", f"{describe(event)} is answered with {status}: {event.get('body')}")


def nothing_answered_is_contradicted(events, act):
    """A resource is created once and deleted once. So its state is known from each answer on."""
    resources = defaultdict(list)
    for event in of(events, "http"):
        if event.get("id") is not None and event["op"] in ("create", "read", "delete"):
            resources[event["key"].split(":")[0], event["id"]].append(event)
    for name, found in resources.items():
        yield from one_resource(name, found)


def one_resource(name, events):
    deletes = [event for event in events if event["op"] == "delete"]
    present = [e for e in events if (e["op"], e["status"]) in (("create", 201), ("read", 200))]
    absent = [e for e in events if e["op"] in ("read", "delete") and e["status"] in (204, 404)]
    for event in absent:
        # An unanswered or unfinished DELETE may be carried out; one that was refused is not.
        cause = [d for d in deletes if d["t0"] < event["t"] and d["status"] in (None, 204)]
        if not cause:
            yield Violation("lost", f"{name} is gone without a DELETE that succeeded: {describe(event)}")
    if absent:
        first = min(absent, key=lambda event: event["t"])
        later = next((event for event in present if event["t0"] > first["t"]), None)
        if later:
            yield Violation("came back", f"{name}: {describe(later)} contradicts {describe(first)}")


def a_room_has_one_allocation(events, act):
    """While an allocation exists, another POST for its room gets 409 with its id."""
    rooms = defaultdict(list)
    for event in of(events, "http"):
        if event["key"].startswith("room:"):
            rooms[event["key"]].append(event)
    for room, found in rooms.items():
        made = [event for event in found if event["op"] in ("create", "again") and event["status"] == 201]
        for first, second in pairs(made):
            ended = any(
                event["op"] == "delete" and event["id"] == first["id"] and event["t0"] < second["t"]
                for event in found
            )
            if not ended:
                yield Violation("twice", f"{room} was given to {first['id']} and to {second['id']}")
        ids = {event["id"] for event in found if event["op"] == "create" and event["status"] == 201}
        unknown = any(event["op"] == "create" and event["status"] is None for event in found)
        for event in found:
            conflict = event.get("conflict")
            if conflict is not None and conflict not in ids and not unknown:
                yield Violation("conflict", f"{room}: {describe(event)} names {conflict}, which no POST made")


def pairs(items):
    items = sorted(items, key=lambda event: event["t"])
    return zip(items, items[1:])


def describe(event):
    return f"{event['op']} {event['key']} (id {event.get('id')}, status {event['status']}, at {event['t0']:.3f})"


# The speed of requests.


def posts_are_fast(events, act):
    """The median and the maximum of POST /conference while one attack goes on. Where an attack occupies all connections,
    new ones wait for room: only the maximum counts, and it is another one. A busy machine is slow before the attacks,
    too, and has longer."""
    absent = excused(events) + windows(events, "full", "free", SETTLING)

    def times(start, end):
        return [
            event["t"] - event["t0"]
            for event in of(events, "http")
            if event["op"] == "create" and event["key"].startswith("room:") and event["status"] is not None
            and start <= event["t0"] < end and not overlaps(absent, event["t0"], event["t"])
        ]

    all_attacks = list(attacks(events))
    before = times(0, all_attacks[0][1]) if all_attacks else []
    allowance = BUSY * median(before) if before else 0
    for attack, start, end in all_attacks:
        name, found, crowds = attack["name"], times(start, end), attack.get("crowds")
        if not found:
            continue
        if median(found) > act["post_median"] + allowance and not crowds:
            yield Violation("slow", f"{name}: the median of POST is {median(found) * 1000:.0f} ms")
        if max(found) > act["post_crowded" if crowds else "post_max"] + allowance:
            yield Violation("slow", f"{name}: the slowest POST took {max(found) * 1000:.0f} ms")


def attacks(events):
    """Each attack with its begin and its end."""
    attack = None
    for event in of(events, "attack", "calm"):
        if attack is not None:
            yield attack, attack["t"], event["t"]
        attack = event if event["e"] == "attack" else None
    if attack is not None:
        yield attack, attack["t"], float("inf")


# The queue.


def live_periods(events):
    """Conference → (earliest begin, latest end) of each live period. Requests for one conference follow each other."""
    periods = defaultdict(list)
    for event in of(events, "http"):
        kind, _, conference = event["key"].partition(":")
        if kind == "golive" and (not periods[conference] or periods[conference][-1][1] is not None):
            periods[conference].append([event["t0"], None])
        elif kind == "endlive" and periods[conference] and periods[conference][-1][1] is None:
            if event["status"] is not None:
                periods[conference][-1][1] = event["t"]
    return {
        conference: [(start, float("inf") if end is None else end) for start, end in found]
        for conference, found in periods.items()
    }


def releases_follow_golive(events, act):
    periods = live_periods(events)
    for event in of(events, "released"):
        if not any(start <= event["t"] for start, _ in periods.get(event["conference"], [])):
            yield Violation("early", f"{event['who']} was released before {event['conference']} went live")


def nobody_is_released_twice(events, act):
    """In one live period. A visitor that received its message does not come back in these tests."""
    periods = live_periods(events)
    seen = defaultdict(list)
    for event in of(events, "released"):
        found = periods.get(event["conference"], [])
        index = max((n for n, (start, _) in enumerate(found) if start <= event["t"]), default=None)
        seen[event["who"], event["conference"], index].append(event["t"])
    for (who, conference, _), times in seen.items():
        if len(times) > 1:
            yield Violation("released twice", f"{who} in {conference}, at {times}")


def pace_is_kept(events, act):
    """At most `rate` releases in a second, over every number of seconds. Only messages without a delay of their own
    count at the moment of their arrival. Both ends of a window are read late by at most the lag of our own loop."""
    rate = act.get("rate")
    if not rate:
        return
    pauses = excused(events)
    lags = [(event["t"], event["seconds"]) for event in of(events, "lag")]
    conferences = defaultdict(list)
    for event in of(events, "released"):
        conferences[event["conference"]].append(event["t"])
    for conference, times in conferences.items():
        for violation in too_many(conference, sorted(times), rate, pauses, lags):
            yield violation
            break


def too_many(conference, times, rate, pauses, lags):
    for last in range(len(times)):
        for first in range(max(0, last - 8 * rate), last):
            count, span = last - first + 1, times[last] - times[first]
            # A whole batch at each end, and the jitter of reading.
            if count <= rate * (int(span) + 2) or overlaps(pauses, times[first], times[last]):
                continue
            lag = max((seconds for t, seconds in lags if times[first] - 1 <= t <= times[last] + 1), default=0)
            if count > rate * (int(span + lag) + 2):
                yield Violation("pace", f"{conference}: {count} visitors released in {span:.2f} s at {rate}/s")


def order_is_kept(events, act):
    """A visitor whose subscription was acknowledged before another one was sent is released before it, or with it."""
    arrivals, ups = arrival_times(events), [event["t"] for event in of(events, "up")]
    released = {}
    for event in of(events, "released"):
        released.setdefault((event["who"], event["conference"]), event["t"])
    conferences = defaultdict(list)
    for (who, conference), (sent, acknowledged, present) in arrivals.items():
        if (who, conference) in released:
            conferences[conference].append((sent, acknowledged, present, released[who, conference], who))
    for conference, visitors in conferences.items():
        overtaken = [
            (first, second)
            for first in visitors
            for second in visitors
            if first[1] < second[0] and second[3] + READ_JITTER < first[3]
            and not is_late(first[2], second[3], ups)
        ]
        if overtaken:
            first, second = overtaken[0]
            text = f"{conference}: {len(overtaken)} places overtaken; {second[4]} before {first[4]}"
            yield Violation("order", f"{text}, {first[3] - second[3]:.2f} s earlier")


def is_late(present, other_released, ups):
    """Whether a visitor was away when another one was released, and for longer than releases wait after a restart."""
    restart = max((up for up in ups if up < other_released), default=float("-inf"))
    return present > other_released and present > restart + RETURN_TIME


def arrival_times(events):
    """(who, conference) → when the visitor's first subscription was sent and acknowledged, and since when it is there.
    A kill forgets all places: the next subscription counts."""
    arrivals = {}
    ended = [event["t"] for event in of(events, "down") if event["kind"] == "kill"]
    for event in of(events, "joined"):
        key = event["who"], event["conference"]
        first = arrivals.get(key)
        if first is None or any(first[1] < t < event["t"] for t in ended):
            arrivals[key] = (event["t0"], event["t"], event["t"])
        else:
            arrivals[key] = (first[0], first[1], event["t"])
    return arrivals


def waiting_visitors_are_released(events, act):
    for event in of(events, "given_up"):
        text = f"{event['who']} in {event['conference']} was not released in {event['waited']:.1f} s"
        yield Violation("never released", text)


def connections_are_kept(events, act):
    down = windows(events, "down", "up", SETTLING)
    for event in of(events, "closed"):
        # An exit that nothing requested is recorded a moment after the connections broke.
        if not overlaps(down, event["t"], event["t"] + SETTLING):
            yield Violation("closed", f"{event['who']} was closed with {event['code']}: {event.get('text')}")


# The process.


def process_is_well(events, act):
    for event in of(events, "exited", "logged"):
        yield Violation(event["e"], str(event.get("text", event.get("code"))))


def watchdog_beats(events, act):
    """The gap between two notifications of the watchdog, without restarts and pauses."""
    absent = excused(events)
    beats = [event["t"] for event in of(events, "watchdog")]
    for before, after in zip(beats, beats[1:]):
        if after - before > act["watchdog_gap"] and not overlaps(absent, before, after):
            yield Violation("watchdog", f"no notification for {after - before:.1f} s")


def memory_returns(events, act):
    sizes = {event["when"]: event["bytes"] for event in of(events, "memory")}
    if "before" in sizes and "after" in sizes:
        growth = sizes["after"] - sizes["before"]
        if growth > act["memory_growth"]:
            text = f"{sizes['before'] >> 20} MiB before the attacks, {sizes['after'] >> 20} MiB after them"
            yield Violation("memory", text)


def evidence_is_there(events, act):
    """A check without events proves nothing."""
    counts = defaultdict(int)
    for event in events:
        counts[event["e"]] += 1
        if event["e"] == "http" and event["status"] is not None:
            counts[event["op"]] += 1
        if event["e"] == "attack":
            attack = event
        elif event["e"] == "calm" and event["connections"] < attack["sockets"] / 2:
            yield Violation("no evidence", f"{attack['name']} opened {event['connections']} connections only")
    for name, least in act["expect"].items():
        if counts[name] < least:
            yield Violation("no evidence", f"{counts[name]} of at least {least} events {name!r}")


CHECKS = [
    answers_are_possible, nothing_answered_is_contradicted, a_room_has_one_allocation, posts_are_fast,
    releases_follow_golive, nobody_is_released_twice, pace_is_kept, order_is_kept, waiting_visitors_are_released,
    connections_are_kept, process_is_well, watchdog_beats, memory_returns, evidence_is_there,
]

"""The hostile suite: well-behaved clients at work while floods, kills, pauses and a full disk happen to usher.

    python tests/hostile [--seconds 110] [--seed N] [--only ACT] [--log DIRECTORY]
    python tests/hostile --check FILE        verifies a log again

Everything is recorded; `checker.py` verifies the record, and `test_checker.py` shows that it finds each violation.
The exit status is 1 if there is a violation. With a violation, the log is kept in the directory for temporary files.
"""

import argparse
import asyncio
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from statistics import median

from acts import ACTS
from checker import attacks, check
from record import Record


# For documentation (RFC 5737): nothing else has them.
ADDRESSES = " ".join(f"203.0.113.{n}" for n in range(1, 5))
NETWORK = 'ip link set lo up && for a in $USHER_HOSTILE_ADDRESSES; do ip addr add $a/32 dev lo; done && exec "$@"'


def enter_network():
    """Starts this program again in a network of its own, where hostile clients have addresses. Only root can."""
    is_possible = os.getuid() == 0 and shutil.which("unshare") and shutil.which("ip")
    if "USHER_HOSTILE_ADDRESSES" in os.environ or not is_possible:
        return
    if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode:
        return
    os.environ["USHER_HOSTILE_ADDRESSES"] = ADDRESSES
    command = ["unshare", "--net", "sh", "-c", NETWORK, "sh", sys.executable, str(pathlib.Path(__file__).parent)]
    os.execvp("unshare", command + sys.argv[1:])


def main():
    parser = argparse.ArgumentParser(prog="tests/hostile")
    parser.add_argument("--seconds", type=float, default=110, help="the time of all acts (default: 110)")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run")
    parser.add_argument("--only", choices=list(ACTS), help="only this act, with its share of the time")
    parser.add_argument("--log", type=pathlib.Path, help="keep all logs in this directory")
    parser.add_argument("--check", type=pathlib.Path, help="only verify this log")
    options = parser.parse_args()
    if options.check:
        sys.exit(1 if report("log", Record.load(options.check), 0) else 0)
    enter_network()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if "USHER_HOSTILE_ADDRESSES" not in os.environ:
        print("note: only root can make a network; all clients have the loopback address")
    print(f"seed {seed}", flush=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    failed = []
    for name, (act, share) in ACTS.items():
        if options.only in (None, name):
            start = time.monotonic()
            done = asyncio.run(act(seed, options.seconds * share))
            found = report(name, done.record.events, time.monotonic() - start)
            failed += [name] if found else []
            if found or options.log:
                directory = options.log or pathlib.Path(tempfile.gettempdir())
                path = directory / f"usher-hostile-{name.replace(' ', '-')}.jsonl"
                done.record.save(path)
                print(f"  log: {path}", flush=True)
    if failed:
        print(f"violations in: {', '.join(failed)} (seed {seed})")
    sys.exit(1 if failed else 0)


def report(name, events, seconds):
    """Prints the summary of an act and its violations; returns the violations."""
    counts = Counter(event["e"] for event in events)
    answered = sum(1 for event in events if event["e"] == "http" and event["status"] is not None)
    print(f"{name}: {seconds:.0f} s, {answered} answers, {counts['joined']} subscriptions, {counts['released']} releases")
    slowest = sorted(post_times(events), key=lambda row: -row[2])[:4]
    for attack, middle, most, count in slowest:
        print(f"  POST during {attack!r}: median {middle * 1000:.0f} ms, most {most * 1000:.0f} ms, {count} answers")
    sizes = {event["when"]: event["bytes"] >> 20 for event in events if event["e"] == "memory"}
    if sizes:
        print(f"  memory: {sizes.get('before')} MiB before, {max(sizes.values())} at most, {sizes.get('after')} after")
    violations = check(events)
    for kind, number in Counter(violation.kind for violation in violations).items():
        first = next(violation for violation in violations if violation.kind == kind)
        print(f"  VIOLATION {kind}: {number}, the first: {first.text}")
    sys.stdout.flush()
    return violations


def post_times(events):
    posts = [
        event for event in events
        if event["e"] == "http" and event["op"] == "create" and event["key"].startswith("room:") and event["status"]
    ]
    for attack, start, end in attacks(events):
        times = [event["t"] - event["t0"] for event in posts if start <= event["t0"] < end]
        if times:
            yield attack["name"], median(times), max(times), len(times)


if __name__ == "__main__":
    main()

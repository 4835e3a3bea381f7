"""The acts: well-behaved clients at work while something hostile happens to their usher."""

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from attacks import ATTACKS
from clients import Clients
from record import Record
from usher import Usher, measure_lag

RATE = 20
# The figures of docs/performance.md are 100 ms and 500 ms: a busy machine may need five times as long.
POST_MEDIAN, POST_MAX = 0.5, 2.5
# Then Prosody gives up (usher_timeout).
POST_CROWDED = 5
# usher notifies the watchdog once a second here.
WATCHDOG_GAP = 5
MEMORY_GROWTH = 24 << 20
BASE = f"""
queue.release_per_second = {RATE}
queue.heart_beat = "1s"
log.level = "warn"
"""
# Sockets of an attack.
FLOODING = 64
# These cost the server memory or connections instead of time.
SOCKETS = {"silent": 2000, "slow heads": 900, "slow bodies": 200, "large heads": 900, "unfinished frames": 500}
# A request needs milliseconds in a debug build.
SOCKETS |= {"requests": 8, "requests without a token": 8, "posts without a token": 8, "never reads answers": 8}
# These occupy all connections that are no WebSockets.
CROWDING = {"silent", "slow heads"}


class Act:
    """One usher, its clients and its log."""

    def __init__(self, name, seed, settings="", database=None, **bounds):
        self.name, self.seed, self.settings, self.database = name, seed, settings, database
        self.record = Record()
        self.bounds = {
            "rate": RATE, "post_median": POST_MEDIAN, "post_max": POST_MAX, "post_crowded": POST_CROWDED,
            "watchdog_gap": WATCHDOG_GAP, "memory_growth": MEMORY_GROWTH, **bounds,
        }

    async def __aenter__(self):
        self.record.add("act", name=self.name, seed=self.seed, **self.bounds)
        self.scratch = tempfile.TemporaryDirectory(prefix="usher-hostile-")
        directory = pathlib.Path(self.scratch.name)
        self.usher = Usher(directory, self.record, self.database, BASE + self.settings)
        await self.usher.start()
        self.clients = Clients(self.usher, self.record, self.seed)
        self.helpers = [asyncio.create_task(self.usher.watch()), asyncio.create_task(measure_lag(self.record))]
        self.work = []
        return self

    def start(self, *work):
        self.work += [asyncio.create_task(each) for each in work]

    async def __aexit__(self, *error):
        self.clients.is_over = True
        if self.work:
            _, pending = await asyncio.wait(self.work, timeout=20)
            for task in pending:
                task.cancel()
        for task in self.helpers:
            task.cancel()
        results = await asyncio.gather(*self.work, *self.helpers, return_exceptions=True)
        self.usher.close()
        self.scratch.cleanup()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def attack(self, name, seconds, sockets=64):
        """Runs one attack; returns the number of connections that it opened."""
        here = pathlib.Path(__file__).parent
        arguments = [name, self.usher.port, sockets, seconds, self.seed]
        self.record.add("attack", name=name, sockets=sockets, crowds=name in CROWDING)
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(here / "attacks.py"), *map(str, arguments), stdout=subprocess.PIPE
        )
        try:
            output, _ = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        self.record.add("calm", connections=int(output or 0))
        if process.returncode:
            raise RuntimeError(f"the attack {name!r} failed")


async def floods(seed, seconds):
    """Each attack in turn. Then the memory is back."""
    names = list(ATTACKS)
    each = seconds / (len(names) + 3)
    expect = {"create": 20 * len(names) * each / 4, "released": 30, "watchdog": seconds / 2, "attack": len(names)}
    async with Act("floods", seed, expect=expect, settings="server.max_connections = 8000\n") as act:
        clients = act.clients
        act.start(clients.rooms(), clients.prosody(), clients.portal())
        act.start(clients.crowd(60, RATE, flaps=4), clients.crowd(20, RATE, flaps=0))
        await asyncio.sleep(each)
        act.usher.memory("before")
        for name in names:
            await act.attack(name, each, SOCKETS.get(name, FLOODING))
            act.usher.memory(f"during {name}")
        # Close handshakes, and time-outs of connections that sent nothing.
        await asyncio.sleep(max(3, each * 2))
        act.usher.memory("after")
    return act


async def kills(seed, seconds):
    """SIGKILL and a restart, again and again, under load."""
    expect = {"create": seconds, "released": 20, "down": 3}
    async with Act("kills", seed, expect=expect) as act:
        clients = act.clients
        act.start(*(clients.prosody() for _ in range(4)), clients.portal(), clients.crowd(30, RATE, flaps=1))
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(0.5 + clients.random.random() * 2.5)
            await act.usher.end(signal.SIGKILL)
            await asyncio.sleep(clients.random.random() * 0.3)
            await act.usher.start()
        await asyncio.sleep(1)
    return act


async def restarts(seed, seconds):
    """A stop and a start while a crowd waits: all return, and the order of arrival is kept."""
    expect = {"released": 100, "down": 1}
    async with Act("restarts", seed, expect=expect) as act:
        clients = act.clients

        async def restart():
            # All subscriptions are acknowledged; the last ones came just now.
            await act.usher.end(signal.SIGTERM)
            await act.usher.start()

        act.start(clients.prosody())
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await clients.cycle(120, RATE, before_live=restart)
    return act


async def pauses(seed, seconds):
    """SIGSTOP for longer than a silent client is tolerated, then SIGCONT: no client did anything wrong."""
    expect = {"create": 10, "released": 20, "paused": 1}
    async with Act("pauses", seed, expect=expect) as act:
        clients = act.clients

        async def pause():
            act.record.add("paused")
            act.usher.signal(signal.SIGSTOP)
            await asyncio.sleep(3 + clients.random.random() * 2)
            act.usher.signal(signal.SIGCONT)
            act.record.add("continued")
            # Time for a wrong conclusion.
            await asyncio.sleep(2.5)

        act.start(clients.prosody(), clients.portal())
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await clients.cycle(40, RATE, before_live=pause)
    return act


async def full_disk(seed, seconds):
    """A disk that is full again and again: a small file system (only root can mount one), and a limit of file sizes."""
    expect = {"create": 20, "full": 2, "read": 20}
    with tempfile.TemporaryDirectory(prefix="usher-disk-") as directory, small_disk(directory) as is_mounted:
        if not is_mounted:
            print("  note: only root can mount a small disk; the disk is full by a limit of file sizes only")
        async with Act("full disk", seed, expect=expect, database=directory) as act:
            clients = act.clients
            act.start(clients.prosody(), clients.prosody(), *(clients.portal() for _ in range(4)))
            act.start(clients.crowd(20, RATE, flaps=0))
            for round in range(4):
                await asyncio.sleep(seconds / 10)
                act.record.add("full")
                with full_file_system(directory) if is_mounted and round % 2 == 0 else small_files(act.usher):
                    await asyncio.sleep(seconds / 8)
                act.record.add("free")
            await asyncio.sleep(1)
    return act


@contextlib.contextmanager
def small_disk(directory):
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "usher-test", directory]
    try:
        is_mounted = subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", directory], check=False)


@contextlib.contextmanager
def full_file_system(directory):
    ballast = os.path.join(directory, "ballast")
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        os.remove(ballast)


@contextlib.contextmanager
def small_files(usher):
    usher.limit_files(4096)
    try:
        yield
    finally:
        usher.limit_files(None)


# Each with its share of the time.
ACTS = {"floods": (floods, 0.6), "kills": (kills, 0.12), "restarts": (restarts, 0.04), "pauses": (pauses, 0.06),
        "full disk": (full_disk, 0.1)}

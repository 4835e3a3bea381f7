"""The process under test, in a directory of its own."""

import asyncio
import os
import pathlib
import resource
import signal
import socket
import subprocess

from wire import DOMAIN, SECRET, TOKEN, now, read_response, request_bytes

ROOT = pathlib.Path(__file__).parents[2]
# systemd's watchdog: usher notifies it three times within this time.
WATCHDOG_SECONDS = 3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Usher:
    """usher with a watchdog, whose notifications are recorded."""

    def __init__(self, directory, record, database=None, settings=""):
        self.directory, self.record = directory, record
        self.port = free_port()
        self.process = None
        self.is_wanted = False
        self.binary = os.environ.get("USHER_BIN") or str(ROOT / "target" / "debug" / "usher")
        self.log = directory / "usher.log"
        self.config = directory / "config.toml"
        self.config.write_text(
            f"""
server.listen = "127.0.0.1:{self.port}"
database.url = "sqlite:{database or directory}/usher.db"
xmpp.domain = "{DOMAIN}"
auth.secret = "{SECRET}"
auth.service.tokens = ["{TOKEN}"]
{settings}
"""
        )
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(directory / "notify"))
        self.notified.setblocking(False)

    async def start(self):
        environment = {
            "NOTIFY_SOCKET": str(self.directory / "notify"),
            "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000),
            # As in the package's unit.
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": "16384",
        }
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", str(self.config)],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        self.is_wanted = True
        for _ in range(1000):
            if await self.is_ready():
                self.record.add("up")
                return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"usher does not start:\n{self.log.read_text()[-2000:]}")

    async def is_ready(self):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(request_bytes("GET", "/health"))
            status, _ = await asyncio.wait_for(read_response(reader), 5)
            writer.close()
            return status == 200
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if self.process.poll() is not None:
                raise RuntimeError(f"usher has exited:\n{self.log.read_text()[-2000:]}") from None
            return False

    async def end(self, number):
        """Ends the process by SIGKILL or SIGTERM."""
        if not self.is_wanted:
            return
        self.is_wanted = False
        self.record.add("down", kind="kill" if number == signal.SIGKILL else "stop")
        self.process.send_signal(number)
        for _ in range(1500):
            if self.process.poll() is not None:
                return
            await asyncio.sleep(0.01)
        self.process.kill()
        self.process.wait()
        self.record.add("logged", text="usher did not stop within 15 s")

    def signal(self, number):
        self.process.send_signal(number)

    def limit_files(self, size):
        """Sets the largest size of a file; None removes the limit."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def memory(self, when):
        """Records the resident bytes."""
        for line in open(f"/proc/{self.process.pid}/status", encoding="ascii"):
            if line.startswith("VmRSS:"):
                self.record.add("memory", when=when, bytes=int(line.split()[1]) * 1024)

    async def watch(self):
        """Records the watchdog's notifications and an exit that nothing requested, until it is cancelled."""
        while True:
            while True:
                try:
                    if b"WATCHDOG=1" in self.notified.recv(4096):
                        self.record.add("watchdog")
                except BlockingIOError:
                    break
            if self.is_wanted and self.process.poll() is not None:
                self.is_wanted = False
                self.record.add("exited", code=self.process.returncode)
                self.record.add("down", kind="kill")
                await self.start()
            await asyncio.sleep(0.05)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self.notified.close()
        for line in self.log.read_text(errors="replace").splitlines():
            if "panicked" in line or "stack backtrace" in line:
                self.record.add("logged", text=line.strip())


async def measure_lag(record):
    """Records how much later than requested our own event loop runs."""
    while True:
        before = now()
        await asyncio.sleep(0.05)
        lag = now() - before - 0.05
        if lag > 0.05:
            record.add("lag", seconds=lag)

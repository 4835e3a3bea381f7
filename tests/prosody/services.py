"""The two processes under test: usher and Prosody, each on scratch files and free loopback ports."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlencode

HERE = pathlib.Path(__file__).parent
SHIM = HERE.parent.parent / "prosody-plugins"
DOMAIN = "meet.localhost"
MUC = f"conference.{DOMAIN}"
TOKEN = "a-service-token-for-tests-only"
SECRET = "a-secret-for-tests-only-of-some-length"


def free_ports(count):
    """So many different ones."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def until(condition, timeout=10, what="the condition"):
    """Waits for what can only be looked at, and returns it; everything that announces itself is awaited elsewhere."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about within {timeout} s")


class Service:
    """A process of ours: ended by its own id, and never left behind."""

    process = None

    def launch(self, command, log):
        with open(log, "ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def is_open(self, port):
        if self.process.poll() is not None:
            raise AssertionError(f"{type(self).__name__} ended at once:\n{self.log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, number):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def stop(self):
        self.end(signal.SIGTERM)

    def kill(self):
        self.end(signal.SIGKILL)


class Usher(Service):
    def __init__(self, directory, settings, queue=None):
        self.directory = directory
        [self.port] = free_ports(1)
        self.log = directory / "usher.log"
        self.config = directory / "config.toml"
        self.binary = os.environ.get("USHER_BIN") or str(HERE.parent.parent / "target" / "debug" / "usher")
        reservations, queue = toml(settings), toml(queue or {})
        self.config.write_text(
            f"""
[server]
listen = "127.0.0.1:{self.port}"

[database]
url = "sqlite:{directory}/usher.db"

[xmpp]
domain = "{DOMAIN}"

[auth]
secret = "{SECRET}"

[auth.service]
tokens = ["{TOKEN}"]

[reservations]
{reservations}

[queue]
{queue}
"""
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.launch([self.binary, "serve", "--config", str(self.config)], self.log)
        until(lambda: self.is_open(self.port), what="usher's port")

    def forget_everything(self):
        """As when the database was replaced."""
        self.stop()
        for file in self.directory.glob("usher.db*"):
            file.unlink()
        self.start()

    def call(self, method, path, body=None, content_type="application/json", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"Authorization": f"Bearer {TOKEN}"}
        if body is not None:
            sent["Content-Type"] = content_type
        connection.request(method, path, body, {**sent, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def book(self, room, seconds=3600, **fields):
        """A booking that began a minute ago and ends in so many seconds, at a full second; its id and its end."""
        end = at_second(time.time() + seconds)
        body = {"room": room, "start": iso(end - seconds - 60), "end": iso(end), **fields}
        status, booking = self.call("POST", "/api/v1/bookings", json.dumps(body))
        assert status == 201, booking
        return booking["id"], end

    def change(self, booking, **fields):
        status, answer = self.call("PATCH", f"/api/v1/bookings/{booking}", json.dumps(fields))
        assert status == 200, answer

    def cancel(self, booking):
        status, answer = self.call("DELETE", f"/api/v1/bookings/{booking}")
        assert status in (200, 204), answer

    def post(self, **form):
        return self.call("POST", "/conference", urlencode(form), "application/x-www-form-urlencoded")

    def token(self, *arguments):
        """A token as usher itself makes them."""
        command = [self.binary, "token", "--config", str(self.config), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def golive(self, conference):
        """As somebody else than the shim says it."""
        status, answer = self.call("POST", "/waiting-queue/golive", json.dumps({"conference": conference}))
        assert status == 200, answer

    def conference(self, conference):
        status, answer = self.call("GET", f"/waiting-queue/conferences?conference={quote(conference)}")
        assert status == 200, answer
        return answer["conferences"][0]

    def is_live(self, conference):
        return self.conference(conference)["live"]

    def ended(self, allocation):
        status, answer = self.call("GET", f"/conference/{allocation}")
        return status == 404 and "ended_at" in answer


def toml(settings):
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())


def at_second(moment):
    return int(moment + 0.999)


def iso(moment):
    return (datetime.fromtimestamp(0, timezone.utc) + timedelta(seconds=int(moment))).strftime("%Y-%m-%dT%H:%M:%SZ")


def lua(value):
    return json.dumps(value) if not isinstance(value, dict) else "{}"


class Prosody(Service):
    def __init__(self, directory, usher_url, options):
        self.directory = directory
        self.port, self.component_port = free_ports(2)
        self.log = directory / "prosody.log"
        self.config = directory / "prosody.cfg.lua"
        (directory / "data").mkdir()
        (directory / "certs").mkdir()
        options = dict(options)
        storage = options.pop("storage", "memory")
        modules = ", ".join(f'"{name}"' for name in options.pop("modules", ["usher_reservations"]))
        # A stand-in for Jitsi's component of that name; Prosody alone has none.
        metadata = f'Component "metadata.{DOMAIN}" "room_metadata_component"' if options.pop("metadata", False) else ""
        settings = {"usher_url": usher_url, "usher_token": TOKEN, "usher_refresh": 1, "usher_warn_before": 0, **options}
        shim = "\n\t".join(f"{name} = {lua(value)};" for name, value in settings.items())
        self.config.write_text(
            f"""
run_as_root = true
daemonize = false
data_path = "{directory}/data"
pidfile = "{directory}/prosody.pid"
plugin_paths = {{ "{SHIM}", "{HERE}/modules" }}
storage = "{storage}"
log = {{ {{ levels = {{ min = "debug" }}; to = "file"; filename = "{self.log}" }} }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {self.port} }}
c2s_direct_tls_ports = {{}}
component_ports = {{ {self.component_port} }}
component_interfaces = {{ "127.0.0.1" }}
http_ports = {{}}
https_ports = {{}}
c2s_require_encryption = false
modules_enabled = {{ "saslauth", "disco" }}
modules_disabled = {{ "s2s", "s2s_auth_certs", "offline", "tls" }}

VirtualHost "{DOMAIN}"
	authentication = "anonymous"
	modules_enabled = {{ {modules}, "test_console", "test_lobby" }}
	{shim}

Component "{MUC}" "muc"
	admins = {{ "focus@focus.{DOMAIN}" }}
	muc_room_locking = false
	muc_room_default_public_jids = true

Component "breakout.{DOMAIN}" "muc"
	muc_room_locking = false

Component "focus.{DOMAIN}"
	component_secret = "secret"

{metadata}
"""
        )

    def start(self):
        program = shutil.which("prosody")
        assert program, "prosody is not installed"
        self.launch([program, "--config", str(self.config), "-F"], self.directory / "prosody.out")
        until(lambda: self.is_open(self.port) and self.is_open(self.component_port), what="Prosody's ports")

    def logged(self, level, text=""):
        """Lines of the shim at this level."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if ":usher_" in line and f"\t{level}\t" in line and text in line]

    def errors(self):
        """Everything Prosody logged as an error, but for a fault of its own: 0.12 may unbind a client's session twice
        when its host goes while it leaves (`destroy_session`, sessionmanager.lua). An entry that names a shim counts
        whatever it is."""
        entries = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            if entries and line[:1].isspace():
                entries[-1].append(line)
            else:
                entries.append([line])
        texts = ("\n".join(entry) for entry in entries)
        return [text for text in texts if self.is_error(text)]

    @staticmethod
    def is_error(text):
        own_fault = "ondisconnect: /usr/lib/prosody/core/sessionmanager.lua" in text and "usher" not in text
        return ("\terror\t" in text or "traceback" in text.lower()) and not own_fault

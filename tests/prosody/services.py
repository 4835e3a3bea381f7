"""The processes under test: usher and Prosody, with scratch files and free loopback ports."""

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
# The last revision with the modules of usher 0.1, which a Prosody runs until it is restarted after an upgrade.
OLD_SHIM = "ad177e0"
USES_OLD_SHIM = os.environ.get("USHER_SHIM") == "0.1"
DOMAIN = "meet.localhost"
MUC = f"conference.{DOMAIN}"
TOKEN = "a-service-token-for-tests-only"
SECRET = "a-secret-for-tests-only-of-some-length"


# The root directory of another system, whose Prosody runs instead of the installed one.
ROOT = os.environ.get("USHER_PROSODY_ROOT")

# In its own mount namespace, with the files of the test at their paths. exec keeps the process id.
ENTER = """
set -e
for directory in /dev /tmp "$PROJECT" "$SCRATCH"; do mkdir -p "$0$directory"; mount --rbind "$directory" "$0$directory"; done
mount -t proc proc "$0/proc"
exec chroot "$0" "$@"
"""


def prosody_command(directory, *arguments):
    if not ROOT:
        program = shutil.which(arguments[0])
        assert program, f"{arguments[0]} is not installed"
        return [program, *arguments[1:]]
    project, environment = HERE.parent.parent, ["env", f"PROJECT={HERE.parent.parent}", f"SCRATCH={directory}"]
    assert project.is_dir()
    return [*environment, "unshare", "--mount", "sh", "-c", ENTER, ROOT, *arguments]


def prosody_version():
    """The first number of the version: 0 for 0.12, or 13."""
    library = pathlib.Path(f"{ROOT or ''}/usr/lib/prosody/prosody.version")
    text = library.read_text() if library.exists() else "0.12"
    return int(text.strip().split(".")[0])


def free_ports(count):
    """Different free ports."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def until(condition, timeout=10, description="the condition"):
    """Polls a condition and returns its value. Events are awaited elsewhere, without polling."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out after {timeout} s waiting for {description}")


class Service:
    """A child process that is ended by its id."""

    process = None

    def launch(self, command, log):
        with open(log, "ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def is_open(self, port):
        if self.process.poll() is not None:
            raise AssertionError(f"{type(self).__name__} exited at its start:\n{self.log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def signal(self, number):
        self.process.send_signal(number)

    def terminate(self, number):
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
        self.terminate(signal.SIGTERM)

    def kill(self):
        self.terminate(signal.SIGKILL)


class Usher(Service):
    def __init__(self, directory, settings, queue=None, protocol=None):
        self.directory = directory
        [self.port] = free_ports(1)
        self.log = directory / "usher.log"
        self.config = directory / "config.toml"
        self.binary = os.environ.get("USHER_BIN") or str(HERE.parent.parent / "target" / "debug" / "usher")
        reservations, queue, protocol = toml(settings), toml(queue or {}), toml(protocol or {})
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

[prosody]
{protocol}
"""
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.launch([self.binary, "serve", "--config", str(self.config)], self.log)
        until(lambda: self.is_open(self.port), description="usher's port")

    def delete_database(self):
        """Restarts usher with an empty database."""
        self.stop()
        for file in self.directory.glob("usher.db*"):
            file.unlink()
        self.start()

    def request(self, method, path, body=None, content_type="application/json", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        defaults = {"Authorization": f"Bearer {TOKEN}"}
        if body is not None:
            defaults["Content-Type"] = content_type
        connection.request(method, path, body, {**defaults, **(headers or {})})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def book(self, room, seconds=3600, **fields):
        """Creates a booking that started a minute ago and ends at a full second. Returns its id and its end."""
        end = at_second(time.time() + seconds)
        body = {"room": room, "start": iso(end - seconds - 60), "end": iso(end), **fields}
        status, booking = self.request("POST", "/api/v1/bookings", json.dumps(body))
        assert status == 201, booking
        return booking["id"], end

    def change(self, booking, **fields):
        status, answer = self.request("PATCH", f"/api/v1/bookings/{booking}", json.dumps(fields))
        assert status == 200, answer

    def cancel(self, booking):
        status, answer = self.request("DELETE", f"/api/v1/bookings/{booking}")
        assert status in (200, 204), answer

    def post(self, **form):
        return self.request("POST", "/conference", urlencode(form), "application/x-www-form-urlencoded")

    def token(self, *arguments):
        """A token from `usher token`."""
        command = [self.binary, "token", "--config", str(self.config), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def golive(self, conference):
        """Sends go-live directly, not through the shim."""
        status, answer = self.request("POST", "/waiting-queue/golive", json.dumps({"conference": conference}))
        assert status == 200, answer

    def conference(self, conference):
        status, answer = self.request("GET", f"/waiting-queue/conferences?conference={quote(conference)}")
        assert status == 200, answer
        return answer["conferences"][0]

    def is_live(self, conference):
        return self.conference(conference)["live"]

    def wait_live(self, conference, live=True, timeout=20):
        until(lambda: self.is_live(conference) is live, timeout, f"live = {live} of {conference}")

    def running(self, room="room1", tenant=None):
        """The conference of a room as GET /api/v1/conferences has it; None if there is none."""
        status, answer = self.request("GET", f"/api/v1/conferences?room={quote(room)}" + (f"&tenant={tenant}" if tenant else ""))
        assert status == 200, answer
        return next(iter(answer["conferences"]), None)

    def allocation(self, room="room1", tenant=None):
        """The id of the allocation of a room."""
        return (self.running(room, tenant) or {}).get("id")

    def wait_allocation(self, room="room1", other_than=None, timeout=10):
        return until(lambda: (found := self.allocation(room)) != other_than and found, timeout, f"an allocation of {room}")

    def allocations_of(self, room):
        """The number of conferences of a room, also of those that ended."""
        status, answer = self.request("GET", "/api/v1/decisions?limit=100")
        assert status == 200, answer
        return len({d["conference"] for d in answer["decisions"] if d["room"] == room and d["outcome"] == "allowed"})

    def wait_ended(self, allocation, timeout=15):
        until(lambda: self.has_ended(allocation), timeout, f"the end of {allocation}")

    def has_ended(self, allocation):
        status, answer = self.request("GET", f"/conference/{allocation}")
        return status == 404 and "ended_at" in answer


def toml(settings):
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())


def at_second(moment):
    return int(moment + 0.999)


def iso(moment):
    return (datetime.fromtimestamp(0, timezone.utc) + timedelta(seconds=int(moment))).strftime("%Y-%m-%dT%H:%M:%SZ")


def shim_directory(directory):
    if not USES_OLD_SHIM:
        return SHIM
    old = directory / "old-shim"
    if not old.exists():
        old.mkdir()
        archive = subprocess.run(["git", "archive", OLD_SHIM, "prosody-plugins"], cwd=HERE.parent.parent, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "--strip-components=1", "-C", old], input=archive.stdout, check=True)
    return old


def lua(value):
    if isinstance(value, list):
        return "{ " + ", ".join(map(lua, value)) + " }"
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
        # A replacement for Jitsi's component of that name, which Prosody does not contain.
        metadata = f'Component "metadata.{DOMAIN}" "room_metadata_component"' if options.pop("metadata", False) else ""
        # Jitsi's own component of that name.
        jitsi_plugins = options.pop("jitsi_plugins", None)
        if jitsi_plugins:
            metadata = (
                f'Component "metadata.{DOMAIN}" "room_metadata_component"\n\tmuc_component = "{MUC}"\n'
                f'\tbreakout_rooms_component = "breakout.{DOMAIN}"\n\tmuc_mapper_domain_base = "{DOMAIN}"\n'
                f'\tadmins = {{ "focus@focus.{DOMAIN}" }}'
            )
        plugins = f'"{jitsi_plugins}", ' if jitsi_plugins else ""
        # Jitsi's guest domain: another virtual host with the same MUC.
        guests = options.pop("guests", False)
        muc_settings = options.pop("muc", "")
        lobby = ', "test_lobby"' if options.pop("persistent_lobby", True) else ""
        defaults = {"usher_refresh": 1, "usher_reconcile": 1} if USES_OLD_SHIM else {}
        settings = {**defaults, "usher_url": usher_url, "usher_token": TOKEN, "usher_warn_before": 0, **options}
        shim = "\n\t".join(f"{name} = {lua(value)};" for name, value in settings.items())
        guest_host = f'''
VirtualHost "guest.{DOMAIN}"
	authentication = "anonymous"
	modules_enabled = {{ {modules}, "test_console" }}
	main_muc = "{MUC}"
	focus_component = "focus.{DOMAIN}"
	{shim}
''' if guests else ""
        self.config.write_text(
            f"""
run_as_root = true
daemonize = false
data_path = "{directory}/data"
pidfile = "{directory}/prosody.pid"
plugin_paths = {{ {plugins}"{shim_directory(directory)}", "{HERE}/modules" }}
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
	modules_enabled = {{ {modules}, "test_console"{lobby} }}
	{shim}

{guest_host}

Component "{MUC}" "muc"
	admins = {{ "focus@focus.{DOMAIN}" }}
	muc_room_locking = false
	muc_room_default_public_jids = true
	muc_room_cache_size = 10000
	{muc_settings}

Component "breakout.{DOMAIN}" "muc"
	muc_room_locking = false

Component "focus.{DOMAIN}"
	component_secret = "secret"

{metadata}
"""
        )

    def start(self):
        command = prosody_command(self.directory, "prosody", "--config", str(self.config), "-F")
        self.launch(command, self.directory / "prosody.out")
        until(lambda: self.is_open(self.port) and self.is_open(self.component_port), description="Prosody's ports")

    def log_lines(self, level, text=""):
        """Log lines of the shim at this level."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if ":usher_" in line and f"\t{level}\t" in line and text in line]

    def errors(self):
        """All errors in the log except for a bug of Prosody 0.12, which may unbind a client's session twice when its
        host is removed while the client disconnects (`destroy_session`, sessionmanager.lua). An entry that names a
        shim always counts."""
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
        prosody_bug = "ondisconnect: /usr/lib/prosody/core/sessionmanager.lua" in text and "usher" not in text
        return ("\terror\t" in text or "traceback" in text.lower()) and not prosody_bug

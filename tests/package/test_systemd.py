"""The package under systemd: sandbox, socket, reloads, failures, upgrades.

The tests share one machine and depend on their order."""

import functools
import json
import os
import subprocess

import pytest

import debian
from machine import Machine, NotPermitted

ADDRESS = "http://127.0.0.1:8060"
CONFIG = "/etc/jitsi/usher/config.toml"
TOKEN = "/etc/jitsi/usher/service-token"
ASAP_KEY = "/etc/prosody/certs/asap.key"

# The machine is slower than a single service.
until = functools.partial(debian.until, timeout=30)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    try:
        machine = Machine(tmp_path_factory.mktemp("machine"))
    except NotPermitted as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"systemd can't run here: {reason}")
    yield machine
    machine.end()


@pytest.fixture(scope="module")
def installed(machine, package):
    """Installs usher without Prosody, which may run on another machine."""
    machine.run("apt-get", "purge", "-y", "prosody")
    machine.run("sh", "-c", "rm -rf /etc/prosody; ! getent group prosody || delgroup --quiet --system prosody")
    machine.write("/root/answers", "usher usher/domain string meet.jitsi.test\n")
    machine.run("debconf-set-selections", "/root/answers")
    return machine.install(package)


def status(machine, *arguments):
    process = machine.curl(*arguments)
    return int(process.stdout.rpartition("\n")[2]), process.stdout.rpartition("\n")[0] + process.stderr


def main_process(machine):
    return machine.show("usher.service", "MainPID")


def install_prosody(machine):
    """Installs or reinstalls Prosody, as an upgrade does."""
    machine.run("sh", "-c", "apt-get install -y --reinstall /root/prosody_*.deb")


def replace_in_config(machine, old, new):
    """Adds a mistake to the configuration or removes it."""
    text = machine.read(CONFIG)
    assert old in text
    (machine.path / CONFIG.lstrip("/")).write_text(text.replace(old, new))


def test_preseeded_domain_is_used(machine, installed):
    assert machine.read("/etc/jitsi/usher/domain") == "meet.jitsi.test\n"


def test_token_is_readable_by_usher_only_without_prosody(machine, installed):
    assert machine.access(TOKEN) == "usher:jitsi 600"
    assert not (machine.path / ASAP_KEY.lstrip("/")).exists()
    assert machine.run("ls", "/etc/jitsi/usher/keys") == ""


def test_units_are_valid_for_this_systemd(machine, installed):
    # Another test checks the manual.
    assert machine.run("systemd-analyze", "verify", "--man=no", "usher.service", "usher.socket") == ""


def test_service_has_a_low_exposure_score(machine, installed):
    unit = machine.show("usher.service", "FragmentPath")
    # The unit of the threshold is 0.1: the score must be below 2.0.
    machine.run("systemd-analyze", "security", "--offline=true", "--threshold=19", "--no-pager", unit)


def test_service_works_in_its_sandbox(machine, installed):
    assert machine.systemctl("is-active", "usher.service") == "active"
    token = machine.read(TOKEN).strip()
    conference = ["-d", "name=standup", "-d", "start_time=2026-11-21T22:21:26.000Z", "-d", "mail_owner="]
    code, body = status(machine, "-H", f"Authorization: Bearer {token}", *conference, f"{ADDRESS}/conference")
    assert code == 201 and json.loads(body)["name"] == "standup", body
    assert status(machine, *conference, f"{ADDRESS}/conference")[0] == 401
    # The process has no capabilities.
    process = machine.run("cat", f"/proc/{main_process(machine)}/status")
    assert "CapEff:\t0000000000000000" in process and "NoNewPrivs:\t1" in process and "Seccomp:\t2" in process


def test_process_metrics_are_available_in_the_sandbox(machine, installed):
    visible = machine.run("nsenter", "-t", main_process(machine), "-m", "ls", "/proc").split()
    assert "self" in visible and "stat" not in visible, "ProcSubset=pid is not in force"
    _, metrics = status(machine, f"{ADDRESS}/metrics")
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"]:
        assert f"\nprocess_{name} " in metrics


def test_reload_accepts_a_valid_file_and_reports_an_invalid_one(machine, installed):
    process = main_process(machine)
    machine.systemctl("reload", "usher")
    until(lambda: "the configuration was reloaded" in machine.journal("usher.service"), "the reload")
    replace_in_config(machine, "[database]", "[databse]")
    try:
        with pytest.raises(AssertionError, match="Job for usher.service failed"):
            machine.systemctl("reload", "usher")
        until(lambda: "was not reloaded" in machine.journal("usher.service"), "the refusal")
        assert "databse" in machine.journal("usher.service")
        assert status(machine, f"{ADDRESS}/ready")[0] == 200
        _, metrics = status(machine, f"{ADDRESS}/metrics")
        assert "usher_reload_successful 0" in metrics
    finally:
        replace_in_config(machine, "[databse]", "[database]")
    machine.systemctl("reload", "usher")
    assert main_process(machine) == process


def test_prosody_installed_later_gets_the_token_and_a_key_that_usher_loads(machine, installed):
    reloads = machine.journal("usher.service").count("the configuration was reloaded")
    install_prosody(machine)
    assert machine.access(TOKEN) == "usher:prosody 640"
    assert machine.access(ASAP_KEY) == "root:prosody 640"
    public = machine.run("openssl", "pkey", "-in", ASAP_KEY, "-pubout")
    assert machine.read("/etc/jitsi/usher/keys/jitsi.pem") == public
    until(lambda: machine.journal("usher.service").count("the configuration was reloaded") > reloads, "the reload")


def test_prosody_can_be_upgraded_after_the_token_was_deleted(machine, installed):
    token = machine.read(TOKEN)
    (machine.path / TOKEN.lstrip("/")).unlink()
    try:
        install_prosody(machine)
        assert machine.run("dpkg", "--audit") == ""
        assert not (machine.path / TOKEN.lstrip("/")).exists()
    finally:
        (machine.path / TOKEN.lstrip("/")).write_text(token)
        machine.run("chown", "usher:prosody", TOKEN)
        machine.run("chmod", "640", TOKEN)


def test_socket_stays_active_while_the_service_cannot_start(machine, installed):
    replace_in_config(machine, "[database]", "[databse]")
    try:
        with pytest.raises(AssertionError, match="Job for usher.service failed"):
            machine.systemctl("restart", "usher")
        client = subprocess.Popen(
            ["nsenter", "-t", machine.first, "-n", "curl", "-sS", "--max-time", "60", f"{ADDRESS}/health"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # More than systemd's default start limit.
        until(lambda: int(machine.show("usher.service", "NRestarts")) > 6, "seven attempts")
        assert machine.show("usher.socket", "ActiveState") == "active"
    finally:
        replace_in_config(machine, "[databse]", "[database]")
    output, _ = client.communicate(timeout=60)
    assert client.returncode == 0, output
    assert machine.show("usher.socket", "Result") == "success"


def test_upgrade_refuses_no_connection_and_keeps_the_socket(machine, installed, next_package):
    socket = machine.show("usher.socket", "InvocationID")
    service = machine.show("usher.service", "InvocationID")
    # A client connects every 50 ms and waits for its response.
    script = f"""
    while ! [ -e "$0" ]; do
        (curl -sS -o /dev/null --max-time 20 -w '%{{http_code}}\\n' {ADDRESS}/health || echo refused) & sleep 0.05
    done
    wait
    """
    stop = machine.path.parent / "stop"
    clients = subprocess.Popen(
        ["nsenter", "-t", machine.first, "-n", "bash", "-c", script, stop], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        machine.install(next_package)
    finally:
        stop.touch()
        output, _ = clients.communicate(timeout=60)
    assert machine.show("usher.service", "InvocationID") != service
    assert machine.show("usher.socket", "InvocationID") == socket
    assert len(output.split()) > 10 and set(output.split()) == {"200"}, output


def test_backup_is_restored_as_documented(machine, installed):
    machine.run("usher", "bookings", "add", "--room", "Kept", "--for", "1h")
    machine.run("usher", "backup", "/root/usher-backup.db")
    machine.run("usher", "bookings", "add", "--room", "Lost", "--for", "1h")
    machine.systemctl("stop", "usher.socket", "usher.service")
    assert status(machine, f"{ADDRESS}/health")[0] == 0, "the socket is still active"
    machine.run("sh", "-c", "rm -f /var/lib/usher/usher.db-wal /var/lib/usher/usher.db-shm")
    machine.run("install", "-m", "600", "-o", "usher", "-g", "jitsi", "/root/usher-backup.db", "/var/lib/usher/usher.db")
    machine.systemctl("start", "usher.socket", "usher.service")
    until(lambda: status(machine, f"{ADDRESS}/ready")[0] == 200, "readiness of usher")
    listed = machine.run("usher", "bookings", "list").lower()
    assert "kept" in listed and "lost" not in listed


def test_removal_ends_service_and_socket(machine, installed):
    machine.run("apt-get", "remove", "-y", "usher")
    for unit in ["usher.service", "usher.socket"]:
        assert machine.show(unit, "ActiveState") == "inactive"
    assert status(machine, f"{ADDRESS}/health")[0] == 0


def test_reinstallation_after_a_removal_keeps_the_data(machine, installed, next_package):
    token = machine.read(TOKEN)
    machine.install(next_package)
    assert machine.systemctl("is-active", "usher.service", "usher.socket").split() == ["active", "active"]
    assert machine.read(TOKEN) == token
    assert "kept" in machine.run("usher", "bookings", "list").lower()


def test_purge_leaves_no_unit(machine, installed):
    machine.run("apt-get", "purge", "-y", "usher")
    assert "usher" not in machine.systemctl("list-units", "--all", "--plain", "--no-legend", "usher*")
    assert "usher" not in machine.systemctl("list-unit-files", "--no-legend")

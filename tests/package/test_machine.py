"""The package under systemd itself: the sandbox, the socket, reloads, failures, upgrades.

The tests share one machine and build on each other, in the order they stand in."""

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

# A machine that boots is slower than a service that starts.
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
    """On a machine without Prosody, which may be another's."""
    machine.run("apt-get", "purge", "-y", "prosody")
    machine.run("sh", "-c", "rm -rf /etc/prosody; ! getent group prosody || delgroup --quiet --system prosody")
    machine.write("/root/answers", "usher usher/domain string meet.jitsi.test\n")
    machine.run("debconf-set-selections", "/root/answers")
    return machine.install(package)


def status(machine, *arguments):
    done = machine.curl(*arguments)
    return int(done.stdout.rpartition("\n")[2]), done.stdout.rpartition("\n")[0] + done.stderr


def main_process(machine):
    return machine.show("usher.service", "MainPID")


def install_prosody(machine):
    """Or installs it again, as an upgrade does."""
    machine.run("sh", "-c", "apt-get install -y --reinstall /root/prosody_*.deb")


def changed(machine, old, new):
    """The configuration with a mistake in it, or without."""
    text = machine.read(CONFIG)
    assert old in text
    (machine.path / CONFIG.lstrip("/")).write_text(text.replace(old, new))


def test_domain_that_was_answered_beforehand_is_taken(machine, installed):
    assert machine.read("/etc/jitsi/usher/domain") == "meet.jitsi.test\n"


def test_without_prosody_the_token_is_usher_s_alone(machine, installed):
    assert machine.access(TOKEN) == "usher:jitsi 600"
    assert not (machine.path / ASAP_KEY.lstrip("/")).exists()
    assert machine.run("ls", "/etc/jitsi/usher/keys") == ""


def test_service_works_in_its_sandbox(machine, installed):
    assert machine.systemctl("is-active", "usher.service") == "active"
    token = machine.read(TOKEN).strip()
    conference = ["-d", "name=standup", "-d", "start_time=2026-11-21T22:21:26.000Z", "-d", "mail_owner="]
    answer, told = status(machine, "-H", f"Authorization: Bearer {token}", *conference, f"{ADDRESS}/conference")
    assert answer == 201 and json.loads(told)["name"] == "standup", told
    assert status(machine, *conference, f"{ADDRESS}/conference")[0] == 401
    # Of what it could have, it has nothing.
    about = machine.run("cat", f"/proc/{main_process(machine)}/status")
    assert "CapEff:\t0000000000000000" in about and "NoNewPrivs:\t1" in about and "Seccomp:\t2" in about


def test_figures_of_the_process_are_there_in_the_sandbox(machine, installed):
    inside = machine.run("nsenter", "-t", main_process(machine), "-m", "ls", "/proc").split()
    assert "self" in inside and "stat" not in inside, "ProcSubset=pid is not in force"
    _, scraped = status(machine, f"{ADDRESS}/metrics")
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"]:
        assert f"\nprocess_{name} " in scraped


def test_reload_takes_a_good_file_and_says_so_of_a_bad_one(machine, installed):
    process = main_process(machine)
    machine.systemctl("reload", "usher")
    until(lambda: "the configuration was reloaded" in machine.journal("usher.service"), "the reload")
    changed(machine, "[database]", "[databse]")
    try:
        with pytest.raises(AssertionError, match="Job for usher.service failed"):
            machine.systemctl("reload", "usher")
        until(lambda: "was not reloaded" in machine.journal("usher.service"), "the refusal")
        assert "databse" in machine.journal("usher.service")
        assert status(machine, f"{ADDRESS}/ready")[0] == 200
        _, scraped = status(machine, f"{ADDRESS}/metrics")
        assert "usher_reload_successful 0" in scraped
    finally:
        changed(machine, "[databse]", "[database]")
    machine.systemctl("reload", "usher")
    assert main_process(machine) == process


def test_prosody_that_comes_later_gets_the_token_and_a_key_that_usher_takes_up(machine, installed):
    reloads = machine.journal("usher.service").count("the configuration was reloaded")
    install_prosody(machine)
    assert machine.access(TOKEN) == "usher:prosody 640"
    assert machine.access(ASAP_KEY) == "root:prosody 640"
    public = machine.run("openssl", "pkey", "-in", ASAP_KEY, "-pubout")
    assert machine.read("/etc/jitsi/usher/keys/jitsi.pem") == public
    until(lambda: machine.journal("usher.service").count("the configuration was reloaded") > reloads, "the reload")


def test_prosody_is_upgraded_though_the_token_was_deleted(machine, installed):
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


def test_socket_outlives_a_service_that_can_not_start(machine, installed):
    changed(machine, "[database]", "[databse]")
    try:
        with pytest.raises(AssertionError, match="Job for usher.service failed"):
            machine.systemctl("restart", "usher")
        waiting = subprocess.Popen(
            ["nsenter", "-t", machine.first, "-n", "curl", "-sS", "--max-time", "60", f"{ADDRESS}/health"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # More often than systemd's own limit of starts.
        until(lambda: int(machine.show("usher.service", "NRestarts")) > 6, "seven attempts")
        assert machine.show("usher.socket", "ActiveState") == "active"
    finally:
        changed(machine, "[databse]", "[database]")
    told, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, told
    assert machine.show("usher.socket", "Result") == "success"


def test_upgrade_refuses_nobody_and_leaves_the_socket_alone(machine, installed, next_package):
    socket = machine.show("usher.socket", "InvocationID")
    service = machine.show("usher.service", "InvocationID")
    # Somebody comes every 50 ms, and waits for as long as it takes.
    comes = f"""
    while ! [ -e "$0" ]; do
        (curl -sS -o /dev/null --max-time 20 -w '%{{http_code}}\\n' {ADDRESS}/health || echo refused) & sleep 0.05
    done
    wait
    """
    over = machine.path.parent / "over"
    coming = subprocess.Popen(
        ["nsenter", "-t", machine.first, "-n", "bash", "-c", comes, over], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        machine.install(next_package)
    finally:
        over.touch()
        told, _ = coming.communicate(timeout=60)
    assert machine.show("usher.service", "InvocationID") != service
    assert machine.show("usher.socket", "InvocationID") == socket
    assert len(told.split()) > 10 and set(told.split()) == {"200"}, told


def test_backup_is_restored_as_the_readme_says(machine, installed):
    machine.run("usher", "bookings", "add", "--room", "Kept", "--for", "1h")
    machine.run("usher", "backup", "/root/usher-backup.db")
    machine.run("usher", "bookings", "add", "--room", "Lost", "--for", "1h")
    machine.systemctl("stop", "usher.socket", "usher.service")
    assert status(machine, f"{ADDRESS}/health")[0] == 0, "the socket would start it again"
    machine.run("sh", "-c", "rm -f /var/lib/usher/usher.db-wal /var/lib/usher/usher.db-shm")
    machine.run("install", "-m", "600", "-o", "usher", "-g", "jitsi", "/root/usher-backup.db", "/var/lib/usher/usher.db")
    machine.systemctl("start", "usher.socket", "usher.service")
    until(lambda: status(machine, f"{ADDRESS}/ready")[0] == 200, "usher to be ready")
    listed = machine.run("usher", "bookings", "list").lower()
    assert "kept" in listed and "lost" not in listed


def test_removal_ends_service_and_socket(machine, installed):
    machine.run("apt-get", "remove", "-y", "usher")
    for unit in ["usher.service", "usher.socket"]:
        assert machine.show(unit, "ActiveState") == "inactive"
    assert status(machine, f"{ADDRESS}/health")[0] == 0


def test_reinstallation_after_a_removal_serves_again_with_what_was_kept(machine, installed, next_package):
    token = machine.read(TOKEN)
    machine.install(next_package)
    assert machine.systemctl("is-active", "usher.service", "usher.socket").split() == ["active", "active"]
    assert machine.read(TOKEN) == token
    assert "kept" in machine.run("usher", "bookings", "list").lower()


def test_purge_leaves_no_unit(machine, installed):
    machine.run("apt-get", "purge", "-y", "usher")
    assert "usher" not in machine.systemctl("list-units", "--all", "--plain", "--no-legend", "usher*")
    assert "usher" not in machine.systemctl("list-unit-files", "--no-legend")

"""A scratch Debian with systemd as its first process, in its own namespaces, so that units run as on a server."""

import os
import pathlib
import signal
import subprocess
import time
import uuid

from debian import Root, output

# Mounts and processes end with the first process.
NAMESPACES = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child"]
BOOT = """
set -e
echo $$ > "$1/cgroup.procs"
mount --make-rprivate /
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"; mount -t sysfs sysfs "$0/sys"
for directory in run tmp dev; do mount -t tmpfs tmpfs "$0/$directory"; done
mkdir -p "$0/run/lock" "$0/dev/pts" "$0/dev/shm"
for device in null zero full random urandom tty; do touch "$0/dev/$device"; mount --bind "/dev/$device" "$0/dev/$device"; done
ln -s /proc/self/fd "$0/dev/fd"; ln -s pts/ptmx "$0/dev/ptmx"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$0/dev/pts"
unshare --cgroup mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
# Not chroot: systemd creates mounts for its units, which requires a real root.
cd "$0"
pivot_root . .
umount -l .
exec unshare --cgroup env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --show-status=no --log-target=journal --unit=multi-user.target
"""


class NotPermitted(Exception):
    """The user of the tests may not create namespaces or control groups."""


def control_groups():
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, directory, kind, *_ = line.split()
        if kind == "cgroup2":
            return pathlib.Path(directory)
    raise NotPermitted("there is no cgroup2")


class Machine(Root):
    """A booted Debian."""

    def __init__(self, directory):
        super().__init__(directory)
        # Services that the tests do not need.
        for unit in ["nginx", "prosody", "apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer", "dpkg-db-backup.timer"]:
            output(["systemctl", f"--root={directory}", "mask", "--quiet", unit])
        self.group = control_groups() / f"usher-test-{uuid.uuid4().hex[:8]}"
        try:
            self.group.mkdir()
        except OSError as error:
            raise NotPermitted(str(error)) from error
        self.shell = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", BOOT, str(directory), str(self.group)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            self.first = self.boot()
        except BaseException:
            self.end()
            raise

    def boot(self):
        deadline = time.monotonic() + 60
        children = pathlib.Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children")
        while time.monotonic() < deadline:
            if self.shell.poll() is not None:
                raise NotPermitted(self.shell.stderr.read().decode())
            first = children.read_text().strip()
            if first and self.state(first) in ("running", "degraded"):
                return first
            time.sleep(0.1)
        raise AssertionError("systemd does not finish booting")

    @staticmethod
    def state(first):
        command = ["nsenter", "-t", first, "-a", "-r", "-w", "systemctl", "is-system-running"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def command(self, *command):
        return ["nsenter", "-t", self.first, "-a", "-r", "-w", *map(str, command)]

    def systemctl(self, *arguments):
        return self.run("systemctl", *arguments).strip()

    def show(self, unit, key):
        return self.systemctl("show", "--value", "--property", key, unit)

    def journal(self, unit):
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit)

    def curl(self, *arguments):
        """Runs the curl of this machine in the network of the other. The last line of output is the status."""
        command = ["nsenter", "-t", self.first, "-n", "curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def end(self):
        self.shell.send_signal(signal.SIGKILL)
        self.shell.wait()
        self.shell.stderr.close()
        deadline = time.monotonic() + 20
        while self.group.exists() and time.monotonic() < deadline:
            for directory, _, _ in os.walk(self.group, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    time.sleep(0.05)  # the last processes are still exiting

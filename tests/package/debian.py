"""A scratch Debian system and the package to install into it."""

import os
import pathlib
import shutil
import subprocess
import time

import scratch

HERE = pathlib.Path(__file__).parent
PROJECT = HERE.parent.parent

# The release of Debian in which the package is tested.
RELEASE = os.environ.get("USHER_TESTS_DEBIAN") or scratch.codename()

# Namespaces, so that mounts and processes end with the command. Without the permission a plain chroot is used.
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
ENTER = """
mount -t proc proc "$0/proc" 2>/dev/null; mount --bind /dev "$0/dev" 2>/dev/null
# Without exec: this shell is the first process of its namespace, and its end kills all others.
chroot "$0" "$@"; exit $?
"""


def until(condition, description, timeout=20):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out after {timeout} s waiting for {description}")


def output(command, **options):
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert process.returncode == 0, f"{command} exited with {process.returncode}:\n{process.stdout}"
    return process.stdout


def binary():
    return pathlib.Path(os.environ.get("USHER_BIN") or scratch.target() / "debug" / "usher")


def build(directory, version):
    """Builds the package from the debug binary, without compression, which is slow."""
    command = [PROJECT / "packaging" / "build-deb", "--binary", binary(), "--version", version, "--output", directory]
    # A machine that builds the package from a program may have no cargo.
    without_cargo = directory / "without-cargo"
    without_cargo.mkdir(exist_ok=True)
    (without_cargo / "cargo").write_text("#!/bin/sh\necho 'build-deb calls cargo' >&2; exit 1\n")
    (without_cargo / "cargo").chmod(0o755)
    path = f"{without_cargo}:{os.environ['PATH']}"
    environment = {**os.environ, "DPKG_DEB_COMPRESSOR_TYPE": "none", "PATH": path}
    return pathlib.Path(output(command, env=environment).splitlines()[-1])


class Root:
    def __init__(self, directory):
        self.path = directory
        output(["tar", "-xf", scratch.archive(RELEASE), "-C", directory])
        # Without sources a missing package is an error.
        (directory / "etc/apt/sources.list").write_text("")
        self.namespaces = NAMESPACES if subprocess.run([*NAMESPACES, "true"], stderr=subprocess.DEVNULL).returncode == 0 else []

    def command(self, *command):
        return [*self.namespaces, "sh", "-c", ENTER, str(self.path), *map(str, command)]

    def run(self, *command, **environment):
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        return output(self.command(*command), env={**clean, **environment}, stdin=subprocess.DEVNULL)

    def start(self, *command, log, **environment):
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(
            self.command(*command), env={**clean, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def processes(self):
        """Command lines of the processes that run in it."""
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "root").startswith(str(self.path)):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                pass  # the process has exited
        return found

    def install(self, package):
        shutil.copy(package, self.path / "root")
        return self.run("apt-get", "install", "-y", f"/root/{package.name}")

    def files(self):
        """All files except the package state of dpkg, apt and systemd."""
        ignored = ("var/lib/dpkg", "var/log", "var/cache", "var/lib/apt", "var/lib/systemd", "root", "tmp", "proc", "dev", "run")
        found = set()
        for directory, names, files in os.walk(self.path):
            below = pathlib.Path(directory).relative_to(self.path)
            names[:] = [name for name in names if str(below / name) not in ignored]
            found.update(str(below / name) for name in [*names, *files])
        # Backup copies of adduser and debconf.
        return {name for name in found if not name.endswith(("-", "-old"))}

    def read(self, name):
        return (self.path / name.lstrip("/")).read_text()

    def write(self, name, text):
        path = self.path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def access(self, name):
        """Owner, group and mode."""
        return self.run("stat", "-c", "%U:%G %a", name).strip()

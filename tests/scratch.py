#!/usr/bin/env python3
"""Scratch systems for the tests: small Debian systems with Prosody, made by mmdebstrap from the mirrors of this machine's
apt, and kept in the target directory.

tests/scratch.py CODENAME...            makes the archives, side by side, and prints their paths
tests/scratch.py --unpack CODENAME...   makes directories from them, for programs that only read, and prints their paths"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

PROJECT = pathlib.Path(__file__).resolve().parent.parent

# Of a Jitsi server, and dependencies of usher's package, so that apt needs no network in the tests.
PACKAGES = [
    "adduser", "ca-certificates", "debconf", "init-system-helpers", "lua-cjson", "lua-sec", "man-db", "nginx-light", "openssl",
    "procps", "prosody", "systemd",
]  # fmt: skip
# The package itself, for tests that install it later.
CUSTOMIZE = 'cd "$1/root" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download prosody'


def codename():
    """The release of this machine."""
    for line in pathlib.Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2]
    raise SystemExit("/etc/os-release names no release of Debian")


def target():
    """The target directory of cargo."""
    if "CARGO_TARGET_DIR" in os.environ or not shutil.which("cargo"):
        return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    return pathlib.Path(json.loads(subprocess.check_output(command, cwd=PROJECT))["target_directory"])


def sources(release):
    """The Debian sources of this machine for `release`, in the format of sources.list."""
    lines = subprocess.check_output(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        text=True,
    )
    found = {line.split(maxsplit=1)[1] for line in lines.splitlines() if line.startswith("Debian ")}
    return "".join(f"deb {line}\n" for line in sorted(found)).replace(codename(), release)


def archive(release):
    """The archive of a system, made once."""
    key = hashlib.sha256(f"{release} {PACKAGES} {CUSTOMIZE}".encode()).hexdigest()[:12]
    path = target() / f"scratch-{release}-{key}.tar"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tar")
    command = [
        "mmdebstrap", "--variant=apt", f"--include={','.join(PACKAGES)}", f"--customize-hook={CUSTOMIZE}", release, unfinished, "-",
    ]  # fmt: skip
    process = subprocess.run(command, input=sources(release), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise SystemExit(f"mmdebstrap {release} failed:\n{process.stdout}")
    unfinished.rename(path)
    return path


def directory(release):
    """The system, unpacked once. Programs that write must unpack the archive themselves."""
    found = archive(release)
    path = found.with_suffix("")
    if path.exists():
        return path
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.mkdir()
    subprocess.run(["tar", "-xf", found, "-C", unfinished], check=True)
    unfinished.chmod(0o755)
    unfinished.rename(path)
    return path


if __name__ == "__main__":
    make, releases = archive, sys.argv[1:]
    if releases[:1] == ["--unpack"]:
        make, releases = directory, releases[1:]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for made in pool.map(make, releases or [codename()]):
            print(made)

"""The overlay for docker-jitsi-meet, as far as it can be tested without Docker."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from debian import PROJECT, binary, output

DOCKER = PROJECT / "packaging" / "docker"
MINIMAL = {"USHER_TOKEN": "a" * 64}
TOKENS = {
    **MINIMAL,
    "JWT_APP_ID": "portal",
    "JWT_APP_SECRET": "b" * 64,
    "JWT_ASAP_KEYSERVER": "https://keys.example.com/",
    "JWT_ENABLE_DOMAIN_VERIFICATION": "1",
    "TZ": "Europe/Berlin",
    "XMPP_DOMAIN": "meet.jitsi.test",
}


def expand(text, environment):
    """Replaces ${NAME:-default} and ${NAME:?message} as compose does. A default may hold another variable."""

    def value(found):
        given = environment.get(found[1])
        assert given or found[2] != ":?", found[0]
        return given or found[3]

    innermost = re.compile(r"\$\{(\w+)(:[-?])([^${}]*)\}")
    while innermost.search(text):
        text = innermost.sub(value, text)
    assert "$" not in text
    return text


def overlay():
    return yaml.safe_load((DOCKER / "usher.yml").read_text())


@pytest.mark.parametrize("environment", [MINIMAL, TOKENS], ids=["reservations alone", "with tokens"])
def test_usher_accepts_every_variable_of_the_overlay(tmp_path, environment):
    service = overlay()["services"]["usher"]
    variables = dict(expand(line, environment).split("=", 1) for line in service["environment"])
    assert variables["USHER_XMPP__DOMAIN"] == environment.get("XMPP_DOMAIN", "meet.jitsi")
    assert variables["USHER_AUTH__ACCEPTED_ISSUERS"] == environment.get("JWT_APP_ID", "")
    assert variables["USHER_AUTH__VERIFY_DOMAIN"] == environment.get("JWT_ENABLE_DOMAIN_VERIFICATION", "false")
    # A scratch directory replaces /data of the container.
    variables["USHER_DATABASE__URL"] = f"sqlite:{tmp_path}/usher.db"
    process = subprocess.run([binary(), "check", "--json"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    findings = {finding["about"]: finding for finding in json.loads(process.stdout)["findings"]}
    assert findings["configuration"]["state"] == "ok", findings
    assert findings["database"]["state"] == "ok", findings


def test_service_has_one_alias_and_writes_to_its_volume_only():
    service = overlay()["services"]["usher"]
    assert service["networks"]["meet.jitsi"]["aliases"] == ["usher.meet.jitsi"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert [volume.split(":")[0] for volume in service["volumes"]] == list(overlay()["volumes"])
    assert "http://usher.meet.jitsi:8060" in (DOCKER / "prosody.cfg.lua").read_text()
    assert "set $usher usher.meet.jitsi;" in (DOCKER / "nginx.conf").read_text()


def test_nginx_accepts_the_location_while_usher_cannot_be_resolved(root):
    server = f"events {{}} http {{ resolver 127.0.0.11; server {{ listen 127.0.0.1:9081; {(DOCKER / 'nginx.conf').read_text()} }} }}"
    root.write("/root/docker-nginx.conf", server)
    assert "test is successful" in root.run("sh", "-c", "nginx -t -c /root/docker-nginx.conf 2>&1")


def test_prosody_drop_in_is_valid_lua():
    output(["luac5.4", "-p", DOCKER / "prosody.cfg.lua"])


def test_dockerfile_passes_the_linter():
    # DL3008 wants pinned versions, but a rebuild must install Debian's security updates.
    hadolint = pathlib.Path(sys.executable).parent / "hadolint"
    assert output([hadolint, "--no-color", "--ignore", "DL3008", DOCKER / "Dockerfile"]) == ""


def test_image_runs_on_the_debian_of_jitsis_images_and_without_root():
    text = (DOCKER / "Dockerfile").read_text()
    images = re.findall(r"^FROM (\S+)", text, re.M)
    assert [image.rpartition(":")[2] for image in images] == ["1.94-slim-trixie", "trixie-slim"]
    assert re.findall(r"^USER (\S+)", text, re.M) == ["1000"]


def test_image_copies_only_files_of_the_build_context():
    context = set(re.findall(r"^!(\S+)", (DOCKER / "Dockerfile.dockerignore").read_text(), re.M))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.M)
    assert {name for line in copied for name in line.split()} == context
    assert all((PROJECT / name).exists() for name in context)

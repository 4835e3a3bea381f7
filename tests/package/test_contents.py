"""The contents of the package, checked with lintian, man, bash and systemd."""

import gzip
import re
import subprocess

import pytest

from debian import PROJECT, binary, output


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory):
    directory = tmp_path_factory.mktemp("unpacked")
    output(["dpkg-deb", "-x", package, directory])
    return directory


def manual(unpacked, name):
    path = unpacked / "usr/share/man" / f"man{name[-1]}" / f"{name}.gz"
    return gzip.decompress(path.read_bytes()).decode().replace("\\-", "-")


def test_lintian_reports_nothing(package):
    # Only the tests build without compression.
    suppressed = "uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball"
    assert output(["lintian", "--allow-root", "--fail-on", "error,warning", "--suppress-tags", suppressed, package]) == ""


def test_documents_are_installed(unpacked):
    documents = unpacked / "usr/share/doc/usher"
    assert (documents / "README.md.gz").is_file()
    for page in (PROJECT / "docs").iterdir():
        name = f"docs/{page.name}"
        assert (documents / name).is_file() or (documents / f"{name}.gz").is_file(), name


def test_examples_in_the_documents_are_installed(unpacked):
    examples = unpacked / "usr/share/doc/usher/examples"
    for name in ["config.toml", "grafana/usher.json", "prometheus/usher.rules.yml"]:
        assert (examples / name).is_file()
    changes = unpacked / "usr/share/doc/usher/CHANGELOG.md.gz"
    assert gzip.decompress(changes.read_bytes()).startswith(b"# Changelog")


def test_manual_documents_every_option_of_every_command(unpacked):
    text, options, remaining = manual(unpacked, "usher.1"), set(), [[]]
    while remaining:
        path = remaining.pop()
        usage = output([binary(), *path, "--help"])
        options.update(re.findall(r"^ {2,6}(?:-\w, )?(--[\w-]+)", usage, re.M))
        commands = re.search(r"^Commands:\n((?:  .*\n)+)", usage, re.M)
        names = re.findall(r"^  (\w+)", commands[1], re.M) if commands else []
        remaining += [[*path, name] for name in names]
        assert " ".join(["usher", *path]) in text
    assert len(options) > 20
    assert [option for option in options if option not in text] == []


def test_configuration_manual_documents_every_key(unpacked):
    text = manual(unpacked, "usher-config.5")
    keys = re.findall(r"^# ?([a-z_]+) = ", (PROJECT / "config.toml").read_text(), re.M)
    assert len(keys) > 30
    assert [key for key in keys if rf"\fB{key} = " not in text] == []


@pytest.mark.parametrize("page", ["usher.1", "usher-config.5"])
def test_manuals_are_typeset_without_warnings(unpacked, page, tmp_path):
    (tmp_path / page).write_text(manual(unpacked, page))
    process = subprocess.run(["man", "--warnings", "-l", tmp_path / page], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("usher ch", "check"),
        ("usher bookings ca", "cancel"),
        ("usher bookings add --waiting", "--waiting-queue"),
        ("usher -c x.toml bookings add --waiting", "--waiting-queue"),
        ("usher token --ttl ", ""),
    ],
)
def test_bash_completes_commands_and_options(unpacked, typed, expected):
    script = """
    source /usr/share/bash-completion/bash_completion; source "$1"
    COMP_LINE=$2 COMP_POINT=${#2}; read -ra COMP_WORDS <<< "$2"; [[ $2 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _usher usher "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
    echo "${COMPREPLY[*]}"
    """
    completion = unpacked / "usr/share/bash-completion/completions/usher"
    assert output(["bash", "-c", script, "bash", completion, typed]).strip() == expected


def test_units_in_the_documents_match_the_package(unpacked):
    [printed] = re.findall(r"^```ini\n(.*?)^```", (PROJECT / "docs/operations.md").read_text(), re.M | re.S)
    units = re.split(r"^# (usher\.\w+)\n", printed, flags=re.M)[1:]
    assert units[::2] == ["usher.socket", "usher.service"]
    for name, text in zip(units[::2], units[1::2]):
        packaged = (unpacked / "lib/systemd/system" / name).read_text().splitlines()
        lines = [line for line in text.splitlines() if line]
        assert lines and [line for line in lines if line not in packaged] == []

"""Installation, upgrade, removal and purge of the package in a scratch Debian with Prosody and nginx.

The tests share one root and depend on their order."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request

import pytest

from debian import output, until

TOKEN = "/etc/jitsi/usher/service-token"
APP_SECRET = "the-secret-of-the-tests-deployment"
ASAP_KEY = "/etc/prosody/certs/asap.key"
SNIPPET = "/etc/jitsi/meet/jaas/usher.conf"
SITE = "/etc/nginx/sites-enabled/meet.jitsi.test.conf"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    """Ends a process and its children, which share its session."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="module")
def before(root):
    """Presets Jitsi's debconf answers. Returns all files before the installation of usher."""
    answer = "jitsi-meet-prosody jitsi-meet-prosody/jvb-hostname string meet.jitsi.test\n"
    root.write("/root/answers", answer)
    root.run("debconf-set-selections", "/root/answers")
    root.run("nginx", "-t")  # creates directories
    return root.files()


@pytest.fixture(scope="module")
def installed(root, before, package):
    return root.install(package)


def test_installation_prints_the_remaining_steps(installed):
    assert "usher check" in installed
    assert "systemctl reload nginx" in installed


def test_user_has_no_shell_and_belongs_to_group_jitsi(root, installed):
    assert root.run("getent", "passwd", "usher").strip().split(":")[5:] == ["/var/lib/usher", "/usr/sbin/nologin"]
    assert root.run("id", "-gn", "usher").strip() == "jitsi"


def test_secrets_are_readable_by_their_users_only(root, installed):
    assert root.access(TOKEN) == "usher:prosody 640"
    assert root.access("/etc/jitsi/usher/config.toml") == "usher:jitsi 600"
    assert root.access("/var/lib/usher") == "usher:jitsi 700"
    assert root.access("/var/lib/usher/usher.db") == "usher:jitsi 600"
    assert root.access(ASAP_KEY) == "root:prosody 640"
    assert len(root.run("runuser", "-u", "prosody", "--", "cat", TOKEN).strip()) == 64
    assert "PRIVATE" in root.run("runuser", "-u", "prosody", "--", "cat", ASAP_KEY)
    assert "PUBLIC" in root.read("/etc/jitsi/usher/keys/jitsi.pem")
    assert root.read(TOKEN).strip() not in installed


def test_domain_is_taken_from_jitsis_debconf_answer(root, installed):
    assert root.read("/etc/jitsi/usher/domain") == "meet.jitsi.test\n"


def test_units_are_enabled(root, installed):
    for unit in ["sockets.target.wants/usher.socket", "multi-user.target.wants/usher.service"]:
        assert (root.path / "etc/systemd/system" / unit).is_symlink()


def test_service_answers_as_its_user_from_the_installed_paths(root, installed, tmp_path):
    port = free_port()
    with open(tmp_path / "log", "w") as log:
        process = root.start(
            "setpriv", "--reuid", "usher", "--regid", "jitsi", "--clear-groups",
            "usher", "serve", "--config", "/etc/jitsi/usher/config.toml",
            log=log, USHER_SERVER__LISTEN=f"127.0.0.1:{port}",
        )  # fmt: skip

    def healthy():
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).status == 200
        except OSError:
            return False

    try:
        until(healthy, "readiness of usher")
        assert any("usher serve" in process for process in root.processes())
        token = root.read(TOKEN).strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/waiting-queue/golive",
            data=json.dumps({"conference": "demo@conference.meet.jitsi.test"}).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        assert urllib.request.urlopen(request, timeout=5).status == 200
        assert token not in (tmp_path / "log").read_text()
    finally:
        end(process)


@pytest.fixture(scope="class")
def site(root, installed):
    """nginx and config.js as Jitsi's packages configure them."""
    root.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=meet.jitsi.test",
             "-keyout", "/root/site.key", "-out", "/root/site.crt")  # fmt: skip
    port, plain, jicofo = free_port(), free_port(), free_port()
    site = r"""
    server {
        listen 127.0.0.1:%d ssl; server_name meet.jitsi.test;
        ssl_certificate /root/site.crt; ssl_certificate_key /root/site.key;
        include /etc/jitsi/meet/jaas/*.conf;
        location ~ ^/([^/?&:'"]+)/conference-request/v1(\/.*)?$ {
            rewrite ^/([^/?&:'"]+)/conference-request/v1(\/.*)?$ /conference-request/v1$2;
        }
        location ~ ^/conference-request/v1(\/.*)?$ { proxy_pass http://127.0.0.1:%d/conference-request/v1$1; }
        location ~ ^/([^/?&:'"]+)$ { return 404; }
        location ~ ^/([^/?&:'"]+)/(.*)$ { set $subdir "$1/"; rewrite ^/([^/?&:'"]+)/(.*)$ /$2; }
    }
    server { listen 127.0.0.1:%d; server_name meet.jitsi.test; return 301 https://$host$request_uri; }
    """ % (port, jicofo, plain)
    # Debian's default site listens on port 80 of this machine.
    default = root.path / "etc/nginx/sites-enabled/default"
    target = default.readlink()
    default.unlink()
    root.write(SITE, site)
    root.write("/etc/jitsi/meet/meet.jitsi.test-config.js", "var config = {};\n")
    yield site
    default.symlink_to(target)
    for file in ["nginx/sites-enabled/meet.jitsi.test.conf", "jitsi/meet/meet.jitsi.test-config.js"]:
        (root.path / "etc" / file).unlink()


@pytest.fixture(scope="class")
def service(root, installed, tmp_path_factory):
    """usher on a free port, to which nginx passes the queue."""
    port = free_port()
    snippet = replace_in_file(root, SNIPPET, ":8060", f":{port}")
    environment = {"USHER_SERVER__LISTEN": f"127.0.0.1:{port}", "USHER_DATABASE__URL": "sqlite:/tmp/beside-jitsi.db"}
    with open(tmp_path_factory.mktemp("usher") / "log", "w") as log:
        process = root.start("usher", "serve", log=log, **environment)

    def healthy():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
        except OSError:
            return False

    until(healthy, "an answer of usher")
    yield f"127.0.0.1:{port}"
    end(process)
    root.write(SNIPPET, snippet)


@contextlib.contextmanager
def nginx(root):
    """nginx with the configuration as it is now."""
    ports = [int(port) for port in re.findall(r"listen 127.0.0.1:(\d+)", root.read(SITE))]
    with open(root.path / "tmp/nginx.log", "w") as log:
        process = root.start("nginx", "-g", "daemon off;", log=log)
    try:
        until(lambda: all(is_open(port) for port in ports) or process.poll() is not None, "the ports of nginx")
        yield
    finally:
        end(process)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="class")
def prosody(root, installed, tmp_path_factory):
    """A running Prosody with the drop-in. Returns the path of its log."""
    config = f"""
    log = {{ {{ levels = {{ min = "debug" }}, to = "console" }} }}
    pidfile = "/tmp/prosody.pid"; data_path = "/tmp/prosody"; certificates = "/etc/prosody/certs"
    c2s_ports = {{}}; s2s_ports = {{}}; http_ports = {{ {free_port()} }}; http_interfaces = {{ "127.0.0.1" }}; https_ports = {{}}
    modules_enabled = {{ "admin_shell" }}; modules_disabled = {{ "s2s", "c2s" }}
    Include "/etc/prosody/conf.avail/usher.cfg.lua"
    VirtualHost "meet.jitsi.test"
        modules_enabled = {{ "http", "usher_reservations", "usher_queue" }}
        app_secret = "{APP_SECRET}"
    Component "conference.meet.jitsi.test" "muc"
    """
    root.write("/tmp/prosody.cfg.lua", config)
    root.run("install", "-d", "-o", "prosody", "/tmp/prosody")
    log_file = tmp_path_factory.mktemp("prosody") / "log"
    with open(log_file, "w") as log:
        process = root.start(
            "setpriv", "--reuid", "prosody", "--regid", "prosody", "--clear-groups",
            "prosody", "--config", "/tmp/prosody.cfg.lua", "-F", log=log,
        )  # fmt: skip
    yield log_file
    end(process)


def check(root, *arguments, **environment):
    command = root.command("usher", "check", "--json", *arguments)
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    report = json.loads(process.stdout)
    assert report["sound"] == (process.returncode == 0)
    assert APP_SECRET not in process.stdout and root.read(TOKEN).strip() not in process.stdout
    return {finding["about"]: finding for finding in report["findings"]}


def replace_in_file(root, name, old, new):
    text = root.read(name)
    assert old in text
    root.write(name, text.replace(old, new))
    return text


class TestBesideJitsi:
    def test_nginx_accepts_the_snippet_that_jitsis_site_includes(self, root, site):
        assert "test is successful" in root.run("nginx", "-t")
        assert "location ^~ /waiting-queue/" in root.run("nginx", "-T")

    def test_prosody_finds_the_modules_and_reads_the_token(self, prosody):
        # usher is not running: the message shows that the module is loaded and sends requests.
        until(lambda: "usher at http://127.0.0.1:8060 fails" in prosody.read_text(), "a log line of the module")
        log = prosody.read_text()
        assert "Cannot read usher_token_file" not in log
        assert not [line for line in log.splitlines() if "\terror\t" in line or "Unable to load" in line]

    def test_check_reports_nginx_and_prosody(self, root, site, service, prosody):
        until(lambda: "usher at http://127.0.0.1:8060 fails" in prosody.read_text(), "a log line of the module")
        with nginx(root):
            findings = check(root, "--prosody", "/tmp/prosody.cfg.lua")
        for about in ["nginx", "Prosody", "Prosody's service token", "Prosody's loaded modules", "conference requests over HTTP"]:
            assert findings[about]["state"] == "ok", findings
        for about in ["config.js", "Prosody's app_secret", "server.listen", "nginx's connections", "lobby"]:
            assert findings[about]["state"] == "note" and findings[about]["remedy"], findings
        assert "usher_reservations checks" in findings["conference requests over HTTP"]["says"]

    @pytest.mark.parametrize(
        "file, old, new, about",
        [
            (SITE, "include", "#include", "nginx"),
            (SNIPPET, "proxy_pass http://127.0.0.1:", "proxy_pass http://127.0.0.2:", "nginx"),
            (SNIPPET, "proxy_set_header Upgrade", "proxy_set_header Nothing", "nginx"),
            (SNIPPET, "proxy_pass", "proxy_pas", "nginx"),
            ("/tmp/prosody.cfg.lua", ', "usher_reservations", "usher_queue"', "", "Prosody"),
            ("/tmp/prosody.cfg.lua", '"usher_queue"', '"usher_queue", "reservations"', "Prosody's reservations"),
            ("/tmp/prosody.cfg.lua", "app_secret", 'usher_token = "inline-but-unknown"; app_secret', "Prosody's service token"),
            ("/tmp/prosody.cfg.lua", '"meet.jitsi.test"', '"meet.jitsi.tset"', "Prosody"),
            (SITE, "server_name meet.jitsi.test", "server_name meet.jitsi.tset", "nginx"),
            ("/etc/jitsi/usher/domain", "meet.jitsi.test", "meet.jitsi.tset", "config.js"),
            ("/tmp/prosody.cfg.lua", '"usher_reservations"', '"reservations"', "conference requests over HTTP"),
            ("/tmp/prosody.cfg.lua", "app_secret", 'usher_url = "http://127.0.0.1:9"; app_secret', "Prosody's address of usher"),
            ("/tmp/prosody.cfg.lua", "app_secret", 'usher_token_file = "/root/answers"; app_secret', "Prosody's service token"),
            ("/tmp/prosody.cfg.lua", "app_secret", 'usher_token_file = "/etc/hostname"; app_secret', "Prosody's service token"),
        ],
    )
    def test_check_reports_each_fault_with_a_remedy(self, root, site, service, prosody, file, old, new, about):
        text = replace_in_file(root, file, old, new)
        try:
            with nginx(root):
                finding = check(root, "--prosody", "/tmp/prosody.cfg.lua")[about]
        finally:
            root.write(file, text)
        assert finding["state"] == "failed" and finding["remedy"], finding

    def test_check_repeats_nginxs_own_message_with_file_and_line(self, root, site, service, prosody):
        text = replace_in_file(root, SNIPPET, "proxy_pass", "proxy_pas")
        try:
            finding = check(root, "--prosody", "/tmp/prosody.cfg.lua")["nginx"]
        finally:
            root.write(SNIPPET, text)
        assert re.search(r'unknown directive "proxy_pas" in /etc/jitsi/meet/jaas/usher.conf:\d+', finding["says"]), finding

    def test_token_is_checked_by_the_running_usher(self, root, site, service, prosody):
        def finding():
            return check(root, "--prosody", "/tmp/prosody.cfg.lua", USHER_SERVER__LISTEN=service)["Prosody's service token"]

        assert finding()["says"] == f"usher accepts the one in {TOKEN}"
        # Prosody and the configuration have the new one, but the running usher has not read it.
        text, path = root.read(TOKEN), root.path / TOKEN.lstrip("/")
        path.write_text("a-new-token-0123456789abcdef0123456789\n")
        try:
            refused = finding()
        finally:
            path.write_text(text)
        assert refused["state"] == "failed" and "reload usher" in refused["remedy"], refused
        # A mark that an editor of Windows writes.
        path.write_text("\ufeff" + text)
        try:
            marked = finding()
        finally:
            path.write_text(text)
        assert marked["state"] == "failed" and "byte order mark" in marked["says"], marked

    def test_jitsis_own_meeting_timer_is_reported(self, root, site, service, prosody):
        text = replace_in_file(root, "/tmp/prosody.cfg.lua", '"usher_queue"', '"usher_queue", "time_restricted"')
        try:
            finding = check(root, "--prosody", "/tmp/prosody.cfg.lua")["meeting timer"]
        finally:
            root.write("/tmp/prosody.cfg.lua", text)
        assert finding["state"] == "note" and "usher_timer" in finding["remedy"], finding

    def test_modules_that_prosody_loaded_before_an_upgrade_are_reported(self, root, site, service, tmp_path):
        # What a running Prosody still has: a module without the one that those of this version load.
        root.write("/tmp/earlier/mod_usher_reservations.lua", "-- 0.1\n")
        config = """
        log = { { levels = { min = "info" }, to = "console" } }; plugin_paths = { "/tmp/earlier" }
        pidfile = "/tmp/earlier.pid"; data_path = "/tmp/earlier/data"; certificates = "/etc/prosody/certs"
        c2s_ports = {}; s2s_ports = {}; http_ports = {}; https_ports = {}
        modules_enabled = { "admin_shell" }; modules_disabled = { "s2s", "c2s" }
        Include "/etc/prosody/conf.avail/usher.cfg.lua"
        VirtualHost "meet.jitsi.test"
            modules_enabled = { "usher_reservations" }
        """
        root.write("/tmp/earlier.cfg.lua", config)
        root.run("install", "-d", "-o", "prosody", "/tmp/earlier/data")
        with open(tmp_path / "log", "w") as log:
            process = root.start(
                "setpriv", "--reuid", "prosody", "--regid", "prosody", "--clear-groups",
                "prosody", "--config", "/tmp/earlier.cfg.lua", "-F", log=log,
            )  # fmt: skip
        try:
            findings = until(
                lambda: (found := check(root, "--prosody", "/tmp/earlier.cfg.lua"))["Prosody's loaded modules"]["state"] == "ok" and found,
                "an answer of Prosody's shell",
            )
        finally:
            end(process)
        finding = findings["Prosody's loaded version"]
        assert finding["state"] == "note" and "version 0.1" in finding["says"], finding
        assert "restart prosody" in finding["remedy"], finding

    def test_queue_without_reservations_passes(self, root, site, service, prosody):
        text = replace_in_file(root, "/tmp/prosody.cfg.lua", '"usher_reservations", ', "")
        try:
            findings = check(root, "--prosody", "/tmp/prosody.cfg.lua")
        finally:
            root.write("/tmp/prosody.cfg.lua", text)
        assert findings["Prosody"]["state"] == "ok", findings
        assert findings["Prosody's service token"]["state"] == "ok", findings

    def test_stock_module_is_checked_with_its_header_and_its_limits(self, root, site, service, prosody):
        def with_header(token):
            header = '{ ["Authorization"] = "Bearer %s" }' % token
            return (
                f'"reservations" }}; reservations_api_prefix = "http://127.0.0.1:8060"; reservations_api_headers = {header};'
                "reservations_enable_max_occupants = true; unused = {"
            )

        token = root.read(TOKEN).strip()
        for header, state in [(with_header(token), "ok"), (with_header("unknown"), "failed")]:
            text = replace_in_file(root, "/tmp/prosody.cfg.lua", '"usher_reservations", "usher_queue"', header)
            try:
                findings = check(root, "--prosody", "/tmp/prosody.cfg.lua")
            finally:
                root.write("/tmp/prosody.cfg.lua", text)
            assert findings["Prosody's service token"]["state"] == state, findings
            assert findings["max_occupants"]["state"] == "note" and findings["max_occupants"]["remedy"], findings

    def test_remedy_that_restarts_prosody_reads_a_sound_configuration_and_no_broken_one(self, root, site, service, prosody):
        def status(*arguments):
            command = root.command("prosodyctl", "--config", "/tmp/prosody.cfg.lua", *arguments)
            return subprocess.run(command, capture_output=True, text=True).returncode

        # Jitsi's template has options for which prosodyctl has advice.
        text = replace_in_file(root, "/tmp/prosody.cfg.lua", "log =", "cross_domain_bosh = false; log =")
        try:
            assert status("check", "config") != 0
            assert status("mod_usher_check", "meet.jitsi.test") == 0
            replace_in_file(root, "/tmp/prosody.cfg.lua", "VirtualHost", "VirtualHst")
            assert status("mod_usher_check", "meet.jitsi.test") != 0
        finally:
            root.write("/tmp/prosody.cfg.lua", text)

    def test_check_reports_that_conference_requests_over_http_are_blocked(self, root, site, service, prosody):
        text = root.read(SNIPPET)
        head, found, override = text.partition("#location ^~ /conference-request/v1")
        assert found
        root.write(SNIPPET, head + (found + override).replace("#", ""))
        try:
            assert "test is successful" in root.run("nginx", "-t")
            with nginx(root):
                finding = check(root, "--prosody", "/tmp/prosody.cfg.lua")["conference requests over HTTP"]
        finally:
            root.write(SNIPPET, text)
        assert finding["says"] == "nginx passes none on to jicofo"


def test_command_in_a_source_tree_reads_the_packages_configuration(root, installed):
    root.write("/tmp/tree/config.toml", "[reservations]\npolicy = \"nonsense\"\n")
    command = root.command("env", "--chdir=/tmp/tree", "usher", "check", "--json")
    process = subprocess.run(command, capture_output=True, text=True)
    findings = json.loads(process.stdout)["findings"]
    assert findings[0]["says"] == "/etc/jitsi/usher/config.toml: every key is valid"
    assert "./config.toml is here, too" in findings[1]["says"] and findings[1]["remedy"]
    command = root.command("env", "--chdir=/tmp/tree", "usher", "bookings", "list")
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0 and "reading /etc/jitsi/usher/config.toml, not ./config.toml" in process.stderr
    assert root.run("ls", "/tmp/tree") == "config.toml\n"
    root.run("rm", "-r", "/tmp/tree")


def test_token_of_the_command_line_is_the_packages(root, installed):
    assert root.run("sh", "-c", "usher token --service 2>/dev/null") == root.read(TOKEN)


@pytest.mark.parametrize("path", [TOKEN, "/etc/jitsi/usher/keys/jitsi.pem", "/var/lib/usher/usher.db", "/var/lib/usher"])
def test_check_judges_files_as_the_services_user(root, installed, path):
    owner, mode = root.access(path).split()
    root.run("chown", "root:root", path)
    root.run("chmod", "700", path)
    try:
        finding = check(root)["files"]
    finally:
        root.run("chown", owner, path)
        root.run("chmod", mode, path)
    assert finding["state"] == "failed" and finding["remedy"], finding
    assert "the user usher" in finding["says"] and path in finding["says"], finding
    assert check(root)["files"]["state"] == "ok"


def test_upgrade_keeps_configuration_secrets_and_bookings(root, installed, next_package):
    config = root.read("/etc/jitsi/usher/config.toml") + '\n[queue]\nstate_interval = "20s"\n'
    (root.path / "etc/jitsi/usher/config.toml").write_text(config)
    # Root must not change the owner of the database.
    root.run("usher", "bookings", "add", "--room", "Board Meeting", "--for", "1h")
    files = [TOKEN, "/etc/jitsi/usher/domain", "/etc/jitsi/usher/keys/jitsi.pem", ASAP_KEY]
    contents = [root.read(name) for name in files]
    accesses = [root.access(name) for name in files]

    output = root.install(next_package)

    assert "systemctl restart prosody" in output
    assert root.read("/etc/jitsi/usher/config.toml") == config
    assert root.access("/etc/jitsi/usher/config.toml") == "usher:jitsi 600"
    assert [root.read(name) for name in files] == contents
    assert [root.access(name) for name in files] == accesses
    for name in root.run("sh", "-c", "ls -d /var/lib/usher/*").split():
        assert root.access(name) == "usher:jitsi 600"
    assert "board meeting" in root.run("usher", "bookings", "list").lower()


def test_unreadable_asap_key_does_not_break_usher(root, installed):
    public = "/etc/jitsi/usher/keys/jitsi.pem"
    key, original = root.read(ASAP_KEY), root.read(public)
    (root.path / ASAP_KEY.lstrip("/")).write_text("garbage\n")
    # An earlier version of the package created an empty file.
    (root.path / public.lstrip("/")).write_text("")
    output = root.run("sh", "-c", "dpkg-reconfigure usher 2>&1")
    assert f"openssl cannot read {ASAP_KEY}" in output
    assert root.run("ls", "/etc/jitsi/usher/keys") == ""
    assert check(root)["keys"]["state"] == "ok"

    (root.path / ASAP_KEY.lstrip("/")).write_text(key)
    root.run("dpkg-reconfigure", "usher")
    assert root.read(public) == original
    assert root.access(public) == "root:root 644"


def test_removal_keeps_configuration_and_data(root, installed):
    root.run("apt-get", "remove", "-y", "usher")
    assert not (root.path / "usr/bin/usher").exists()
    for name in ["etc/jitsi/usher/config.toml", TOKEN.lstrip("/"), "var/lib/usher/usher.db", ASAP_KEY.lstrip("/")]:
        assert (root.path / name).exists()


def test_no_process_is_left_running(root, installed):
    until(lambda: not root.processes(), "the end of the last process")


def test_purge_leaves_nothing(root, installed, before):
    # As documented. Prosody would not start if this link had no target.
    root.run("ln", "-s", "../conf.avail/usher.cfg.lua", "/etc/prosody/conf.d/")
    assert "usher_url" in root.run("cat", "/etc/prosody/conf.d/usher.cfg.lua")
    root.run("apt-get", "purge", "-y", "usher")
    assert not (root.path / "etc/prosody/conf.d/usher.cfg.lua").is_symlink()
    assert "All checks passed" in root.run("prosodyctl", "check", "config")
    assert root.files() - before == set()
    assert before - root.files() == set()
    for database, name in [("passwd", "usher"), ("group", "jitsi")]:
        assert f"{name}:" not in root.run("getent", database)


def test_existing_key_pair_is_kept(root, before, next_package):
    root.run("openssl", "genrsa", "-out", ASAP_KEY, "2048")
    existing = root.read(ASAP_KEY)
    root.install(next_package)
    assert root.read(ASAP_KEY) == existing
    public = root.run("openssl", "pkey", "-in", ASAP_KEY, "-pubout")
    assert root.read("/etc/jitsi/usher/keys/jitsi.pem") == public
    root.run("apt-get", "purge", "-y", "usher")
    assert root.read(ASAP_KEY) == existing

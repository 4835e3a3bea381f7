"""A proxy between Prosody and usher that forwards and records all requests and responses."""

import http.client
import json
import select
import socket
import threading
from urllib.parse import parse_qs

from listener import Listener


def parse(body):
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode()


class Decision:
    """What was decided on a request of the modules, by either protocol."""

    # Of POST /conference, which the modules of usher 0.1 use.
    ACTIONS = {200: "allow", 201: "allow", 409: "allow", 202: "queue", 403: "refuse"}

    def __init__(self, action, room, sender, user, tenant, text):
        self.action, self.room, self.sender, self.user, self.tenant, self.text = action, room, sender, user, tenant, text

    @classmethod
    def of_form(cls, exchange):
        form, answer = exchange.form, exchange.response if isinstance(exchange.response, dict) else {}
        user = {name.removeprefix("user_"): value for name, value in form.items() if name.startswith("user_")}
        user |= {name: form[name] for name in ("moderator", "role") if name in form}
        action = cls.ACTIONS.get(exchange.status, "fail")
        return cls(action, form["name"], form["mail_owner"], user, form.get("tenant"), answer.get("message"))

    @classmethod
    def of_request(cls, request, decision):
        user = {name: str(value).lower() if isinstance(value, bool) else value for name, value in request.get("user", {}).items()}
        room = request["room"].rsplit("@", 1)[0]
        return cls(decision["action"], room, request["from"], user, request.get("tenant"), decision.get("text"))

    def __repr__(self):
        return f"{self.action} {self.room} {self.sender} {self.user}: {self.text}"


class Exchange:
    def __init__(self, method, path, headers, form):
        self.method, self.path, self.headers, self.form = method, path, headers, form
        self.status, self.response = None, None

    def __repr__(self):
        return f"{self.method} {self.path} {self.form} -> {self.status} {self.response}"


class Recorder:
    def __init__(self, usher):
        self.usher = usher
        self.exchanges = []
        self.changed = threading.Condition()
        self.pending = 0
        self.decisions, self.requests = [], {}
        # Returns true for exchanges whose connection is closed without a request to usher.
        self.disconnect_on = lambda exchange: False
        # Returns a status and a text that the client receives instead of the response of usher.
        self.override_response = lambda exchange: None
        self.listener = Listener(self.forward)
        self.url = self.listener.url

    def close(self):
        self.listener.close()

    def forward(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if handler.headers.get("Content-Type") == "application/json":
            form = json.loads(body)
        else:
            form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        exchange = Exchange(handler.command, handler.path, dict(handler.headers), form)
        status, content = None, b""
        with self.changed:
            self.pending += 1
        override = self.override_response(exchange)
        if override:
            status, content = override[0], override[1].encode()
        elif not self.disconnect_on(exchange):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.usher.port, timeout=40)
                connection.request(handler.command, handler.path, body, dict(handler.headers))
                if self.is_abandoned(handler.connection, connection.sock):
                    connection.close()
                    raise OSError("the client is gone")
                response = connection.getresponse()
                status, content = response.status, response.read()
                connection.close()
            except OSError:
                status = None
        exchange.status = status
        exchange.response = parse(content)
        with self.changed:
            self.pending -= 1
            self.exchanges.append(exchange)
            self.note_decisions(exchange)
            self.changed.notify_all()
        if status is None:
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    @staticmethod
    def is_abandoned(client, upstream):
        """Waits for the response, or for the end of the client: usher must notice that Prosody is gone."""
        readable, _, _ = select.select([client, upstream], [], [], 40)
        return upstream not in readable and client in readable and client.recv(1, socket.MSG_PEEK) == b""

    def note_decisions(self, exchange):
        if exchange.path == "/conference":
            self.decisions.append(Decision.of_form(exchange))
        if not exchange.path.startswith("/api/v1/prosody/") or exchange.status != 200:
            return
        for request in exchange.form.get("requests", []):
            self.requests[request["id"]] = request
        for decision in exchange.response["decisions"]:
            self.decisions.append(Decision.of_request(self.requests[decision["id"]], decision))

    def decided(self, action=None):
        return [decision for decision in self.decisions if action in (None, decision.action)]

    def wait_decision(self, action=None, count=1, timeout=10):
        """Waits for this number of decisions and returns the last one."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.decided(action)) >= count, timeout)
            assert found, f"no {count} × {action} within {timeout} s; decided: {self.decisions}; seen: {self.exchanges[-10:]}"
            return self.decided(action)[-1]

    def reports(self, room):
        """The reports of a room that usher answered."""
        posts = [e for e in self.exchanges if e.path == "/api/v1/prosody/events" and e.status == 200]
        return [report for post in posts for report in post.form.get("rooms", []) if report["room"] == room]

    def seen(self, method, status=None):
        return [e for e in self.exchanges if e.method == method and (status is None or e.status == status)]

    def wait(self, method, status=None, count=1, timeout=10):
        """Waits for this number of responses and returns the last exchange."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.seen(method, status)) >= count, timeout)
            assert found, f"no {count} × {method} {status or ''} within {timeout} s; seen: {self.exchanges}"
            return self.seen(method, status)[-1]

    def wait_for_status(self, method, statuses, timeout=10):
        """Waits for a response with one of these statuses and returns all such exchanges."""
        def found():
            return [e for e in self.seen(method) if e.status in statuses]

        with self.changed:
            assert self.changed.wait_for(found, timeout), f"no {method} {statuses} within {timeout} s; seen: {self.exchanges}"
            return found()

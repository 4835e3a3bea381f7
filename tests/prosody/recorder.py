"""A proxy between Prosody and usher that forwards and records all requests and responses."""

import http.client
import json
import threading
from urllib.parse import parse_qs

from listener import Listener


def parse(body):
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode()


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
                connection = http.client.HTTPConnection("127.0.0.1", self.usher.port, timeout=20)
                connection.request(handler.command, handler.path, body, dict(handler.headers))
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
            self.changed.notify_all()
        if status is None:
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def seen(self, method, status=None):
        return [e for e in self.exchanges if e.method == method and (status is None or e.status == status)]

    def wait(self, method, status=None, count=1, timeout=10):
        """Waits for this number of responses and returns the last exchange."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.seen(method, status)) >= count, timeout)
            assert found, f"no {count} × {method} {status or ''} within {timeout} s; seen: {self.exchanges}"
            return self.seen(method, status)[-1]

    def accepted(self, action, conference=None):
        """The golive or endlive requests that usher accepted."""
        return [
            e for e in self.seen("POST", 200)
            if e.path.endswith("/" + action) and conference in (None, e.form.get("conference"))
        ]

    def wait_accepted(self, action, conference, count=1, timeout=10):
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.accepted(action, conference)) >= count, timeout)
            assert found, f"no {count} × {action} of {conference} within {timeout} s; seen: {self.exchanges}"
            return self.accepted(action, conference)[-1]

    def wait_for_status(self, method, statuses, timeout=10):
        """Waits for a response with one of these statuses and returns all such exchanges."""
        def found():
            return [e for e in self.seen(method) if e.status in statuses]

        with self.changed:
            assert self.changed.wait_for(found, timeout), f"no {method} {statuses} within {timeout} s; seen: {self.exchanges}"
            return found()

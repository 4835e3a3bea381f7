"""Stands between Prosody and usher: passes every request on, and remembers what was asked and answered."""

import http.client
import json
import threading
from urllib.parse import parse_qs

from listener import Listener


def read(answer):
    try:
        return json.loads(answer) if answer else None
    except ValueError:
        return answer.decode()


class Exchange:
    def __init__(self, method, path, headers, form):
        self.method, self.path, self.headers, self.form = method, path, headers, form
        self.status, self.answer = None, None

    def __repr__(self):
        return f"{self.method} {self.path} {self.form} -> {self.status} {self.answer}"


class Recorder:
    def __init__(self, usher):
        self.usher = usher
        self.exchanges = []
        self.changed = threading.Condition()
        self.pending = 0
        self.hang_up_on = lambda exchange: False
        # What a proxy in the way answers by itself: a status and a text; usher is not asked then.
        self.answer_instead = lambda exchange: None
        self.listener = Listener(self.pass_on)
        self.url = self.listener.url

    def close(self):
        self.listener.close()

    def pass_on(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if handler.headers.get("Content-Type") == "application/json":
            form = json.loads(body)
        else:
            form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        exchange = Exchange(handler.command, handler.path, dict(handler.headers), form)
        status, answer = None, b""
        with self.changed:
            self.pending += 1
        instead = self.answer_instead(exchange)
        if instead:
            status, answer = instead[0], instead[1].encode()
        elif not self.hang_up_on(exchange):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.usher.port, timeout=20)
                connection.request(handler.command, handler.path, body, dict(handler.headers))
                response = connection.getresponse()
                status, answer = response.status, response.read()
                connection.close()
            except OSError:
                status = None
        exchange.status = status
        exchange.answer = read(answer)
        with self.changed:
            self.pending -= 1
            self.exchanges.append(exchange)
            self.changed.notify_all()
        if status is None:
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def seen(self, method, status=None):
        return [e for e in self.exchanges if e.method == method and (status is None or e.status == status)]

    def wait(self, method, status=None, count=1, timeout=10):
        """Until so many such requests were answered; the last of them."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.seen(method, status)) >= count, timeout)
            assert found, f"no {count} × {method} {status or ''} within {timeout} s; seen: {self.exchanges}"
            return self.seen(method, status)[-1]

    def told(self, what, conference=None):
        """The golives or endlives that usher took, of one conference or of all."""
        return [
            e for e in self.seen("POST", 200)
            if e.path.endswith("/" + what) and conference in (None, e.form.get("conference"))
        ]

    def wait_told(self, what, conference, count=1, timeout=10):
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.told(what, conference)) >= count, timeout)
            assert found, f"no {count} × {what} of {conference} within {timeout} s; seen: {self.exchanges}"
            return self.told(what, conference)[-1]

    def wait_for_status(self, method, statuses, timeout=10):
        """Until such a request was answered with one of these; all of them."""
        def found():
            return [e for e in self.seen(method) if e.status in statuses]

        with self.changed:
            assert self.changed.wait_for(found, timeout), f"no {method} {statuses} within {timeout} s; seen: {self.exchanges}"
            return found()

"""A scripted reservation system behind usher that records its requests."""

import json
import threading
import time
from urllib.parse import parse_qs

from listener import Listener
from services import at_second, iso


def conference(identifier, name, seconds=3600, **fields):
    start = iso(at_second(time.time()) - 1)
    return {"id": identifier, "name": name, "mail_owner": "owner@example.com", "start_time": start, "duration": seconds, **fields}


class Upstream:
    """`handler` maps (method, path, form) to (status, body). None: no response until the test ends."""

    def __init__(self):
        self.requests, self.changed, self.closing = [], threading.Condition(), threading.Event()
        self.handler = lambda method, path, form: (404, {"message": "not found"})
        # A handler that may block: it is called without the lock.
        self.slow = None
        self.listener = Listener(self.respond)
        self.url = self.listener.url

    def close(self):
        self.closing.set()
        self.listener.close()

    def respond(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
        response = self.slow(handler.command, handler.path, form) if self.slow else None
        with self.changed:
            response = response or self.handler(handler.command, handler.path, form)
            self.requests.append((handler.command, handler.path, form))
            self.changed.notify_all()
        if response is None:
            self.closing.wait()
            handler.close_connection = True
            return
        status, content = response
        content = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def seen(self, method, path=None):
        return [request for request in self.requests if request[0] == method and path in (None, request[1])]

    def wait(self, method, path=None, count=1, timeout=15):
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.seen(method, path)) >= count, timeout)
            assert found, f"no {count} × {method} {path or ''}; requests: {self.requests}"

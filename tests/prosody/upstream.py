"""A reservation system behind usher: answers as a test says, and remembers what it was asked."""

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
    """`says` takes (method, path, form) and gives (status, body), or None: nothing is answered until the end."""

    def __init__(self):
        self.asked, self.changed, self.over = [], threading.Condition(), threading.Event()
        self.says = lambda method, path, form: (404, {"message": "nothing here"})
        self.listener = Listener(self.answer)
        self.url = self.listener.url

    def close(self):
        self.over.set()
        self.listener.close()

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
        with self.changed:
            answer = self.says(handler.command, handler.path, form)
            self.asked.append((handler.command, handler.path, form))
            self.changed.notify_all()
        if answer is None:
            self.over.wait()
            handler.close_connection = True
            return
        status, content = answer
        content = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def seen(self, method, path=None):
        return [asked for asked in self.asked if asked[0] == method and path in (None, asked[1])]

    def wait(self, method, path=None, count=1, timeout=15):
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.seen(method, path)) >= count, timeout)
            assert found, f"no {count} × {method} {path or ''}; asked: {self.asked}"

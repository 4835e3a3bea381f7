"""A scripted usher: the other end of the protocol of docs/prosody-protocol.md, for tests of the modules alone."""

import itertools
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

from listener import Listener
from services import TOKEN


class ScriptedUsher:
    """Allows every request unless `decide` says otherwise, and lets tests set directives."""

    def __init__(self, clock=time.time, poll=25):
        self.clock, self.poll = clock, poll
        self.changed = threading.Condition()
        self.posts, self.polls = [], 0
        self.instances, self.rooms, self.directives, self.late = {}, {}, {}, []
        self.revisions = itertools.count(int(time.time() * 1000))
        self.revision = next(self.revisions)
        self.pushed = {}
        self.decide = lambda request: {"action": "allow"}
        # Whether requests get no answer at all.
        self.is_away = False
        self.closing = False
        self.listener = Listener(self.respond)
        self.url = self.listener.url

    def close(self):
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.listener.close()

    def forget_instances(self):
        """As after a restart."""
        with self.changed:
            self.instances, self.rooms = {}, {}
            self.changed.notify_all()

    def directive(self, room, **members):
        """Replaces the directive of a room and pushes it."""
        with self.changed:
            self.revision = next(self.revisions)
            self.directives[room] = {"room": room, "revision": self.revision, "live": True, "schedule": [], **members}
            self.pushed[room] = self.revision
            self.changed.notify_all()

    def decide_late(self, identifier, **decision):
        with self.changed:
            self.revision = next(self.revisions)
            self.late.append({"id": identifier, **decision})
            self.changed.notify_all()

    def respond(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        assert handler.headers["Authorization"] == f"Bearer {TOKEN}"
        if self.is_away:
            handler.close_connection = True
            return
        path = urlsplit(handler.path)
        if handler.command == "POST" and path.path == "/api/v1/prosody/events":
            status, answer = 200, self.on_events(json.loads(body))
        elif handler.command == "GET" and path.path == "/api/v1/prosody/rooms":
            query = parse_qs(path.query)
            status, answer = self.on_poll(query["instance"][0], int(query["after"][0]))
        else:
            status, answer = 404, {"message": "not found"}
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def on_events(self, events):
        with self.changed:
            events["at"] = time.time()
            self.posts.append(events)
            instance = self.instances.setdefault(events["instance"], {"synced": False})
            instance["synced"] = instance["synced"] or events.get("all", False)
            if events.get("all"):
                self.rooms = {}
            for gone in events.get("gone", []):
                assert gone["seq"] <= events["seq"]
                self.rooms.pop(gone["room"], None)
            for report in events.get("rooms", []):
                self.rooms[report["room"]] = report
            self.changed.notify_all()
        answer = {"now": self.clock(), "rooms": [], "decisions": [], "pending": []}
        for request in events.get("requests", []):
            decision = self.decide(request)
            if decision is None:
                answer["pending"].append(request["id"])
                continue
            answer["decisions"].append({"id": request["id"], **decision})
        asked = [request["room"] for request in events.get("requests", [])]
        wanted = asked + [report["room"] for report in events.get("rooms", [])]
        for room in wanted:
            if room not in self.directives:
                self.directives[room] = {"room": room, "revision": next(self.revisions), "live": True, "schedule": []}
        answer["rooms"] = [self.directives[room] for room in wanted]
        if not instance["synced"]:
            answer["send_all"] = True
        return answer

    def on_poll(self, instance, after):
        with self.changed:
            self.polls += 1
            if instance not in self.instances:
                return 410, {"now": self.clock(), "message": "unknown instance"}
            self.changed.wait_for(lambda: self.closing or instance not in self.instances or self.revision > after, self.poll)
            if instance not in self.instances:
                return 410, {"now": self.clock(), "message": "unknown instance"}
            rooms = [self.directives[room] for room, revision in self.pushed.items() if revision > after]
            late, self.late = self.late, []
            return 200, {"now": self.clock(), "revision": self.revision, "rooms": rooms, "decisions": late}

    def wait(self, condition, timeout=10, description="the report"):
        with self.changed:
            found = self.changed.wait_for(lambda: condition(self), timeout)
        assert found, f"{description} was not received within {timeout} s; received: {self.posts[-5:]}"
        return found

    def wait_report(self, room, timeout=10, **members):
        """Waits until the last report of a room has these members, and returns it."""
        def matches(usher):
            report = usher.rooms.get(room)
            return report and all(report.get(name) == value for name, value in members.items()) and report

        return self.wait(matches, timeout, f"{members} of {room}")

    def wait_gone(self, room, timeout=10):
        self.wait(lambda usher: any(gone["room"] == room for post in usher.posts for gone in post.get("gone", [])), timeout, f"the end of {room}")

    def reports(self, room):
        """All reports of a room with their times."""
        return [(post["at"], report) for post in self.posts for report in post.get("rooms", []) if report["room"] == room]

    def requests(self, kind=None):
        return [r for post in self.posts for r in post.get("requests", []) if kind in (None, r["kind"])]

"""Well-behaved clients. They record what they request and what they receive, and assert nothing."""

import asyncio
import json
import random
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

from wire import (
    PATH, Closed, Session, frame, jid, now, read_response, request_bytes, subscribe_frame, visitor_token,
)

BOOKINGS = "/api/v1/bookings"
FORM = "application/x-www-form-urlencoded"
# The longest wait for an answer. Prosody gives up earlier.
ANSWER_TIMEOUT = 15
# How long a visitor waits beyond the time that its place requires.
RELEASE_TIMEOUT = 12
LOST = (OSError, asyncio.IncompleteReadError)


class Clients:
    """All clients of one act."""

    def __init__(self, usher, record, seed):
        self.usher, self.record = usher, record
        self.random = random.Random(seed)
        self.numbers = 0
        self.is_over = False

    def number(self):
        self.numbers += 1
        return self.numbers

    async def request(self, op, key, method, path, body=b"", content_type="application/json", half_close=False, id=None, **more):
        """Sends a request on a connection of its own and records the answer. Returns status and body."""
        start, status, answer, error, writer = now(), None, None, None, None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.usher.port)
                writer.write(request_bytes(method, path, body, content_type))
                await writer.drain()
                if half_close:
                    writer.write_eof()
                status, answer = await read_response(reader)
        except (*LOST, TimeoutError) as lost:
            error = type(lost).__name__
        finally:
            if writer:
                writer.close()
        fields = {**more, "conflict": answer["conflict_id"]} if status == 409 and "conflict_id" in answer else more
        if op == "create" and status == 201:
            id = answer["id"]
        elif status is not None and status >= 400:
            fields["body"] = answer
        self.record.add("http", t0=start, op=op, key=key, status=status, id=id, error=error, **fields)
        return status, answer

    # Prosody: a conference is made, read, in conflict with another, and ended.

    def open(self, room, op="create", **more):
        start = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        body = urlencode({"name": room, "start_time": start, "mail_owner": f"user@{room}"}).encode()
        return self.request(op, f"room:{room}", "POST", "/conference", body, FORM, **more)

    async def prosody(self, pause=0.05):
        while not self.is_over:
            room = f"room{self.number()}"
            key = f"room:{room}"
            # Sometimes two servers ask for one room at the same time.
            both = self.random.random() < 0.3
            opened = [
                self.open(room, race=both, half_close=self.random.random() < 0.2) for _ in range(2 if both else 1)
            ]
            answers = await asyncio.gather(*opened)
            made = next((answer["id"] for status, answer in answers if status == 201), None)
            if made is None:
                await asyncio.sleep(0.1)
                continue
            path = f"/conference/{made}"
            await self.request("read", key, "GET", path, id=made)
            await self.open(room, op="again")
            await self.request("delete", key, "DELETE", path, id=made)
            await self.request("read", key, "GET", path, id=made)
            await asyncio.sleep(self.random.random() * pause)

    async def rooms(self, interval=0.1, most=30):
        """Opens a room in each interval, also while earlier answers are missing."""
        async with asyncio.TaskGroup() as tasks:
            open = set()
            while not self.is_over:
                if len(open) < most:
                    open.add(task := tasks.create_task(self.room()))
                    task.add_done_callback(open.discard)
                await asyncio.sleep(interval)

    async def room(self):
        room = f"room{self.number()}"
        status, answer = await self.open(room)
        if status == 201:
            await self.request("delete", f"room:{room}", "DELETE", f"/conference/{answer['id']}", id=answer["id"])

    # A portal: bookings are made, read, and cancelled by several requests at the same time.

    async def portal(self, pause=0.05):
        while not self.is_over:
            room = f"booked{self.number()}"
            key = f"booking:{room}"
            start = datetime.now(timezone.utc) + timedelta(days=1)
            times = {"start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat()}
            body = json.dumps({"room": room, **times}).encode()
            status, booking = await self.request("create", key, "POST", BOOKINGS, body)
            if status != 201:
                await asyncio.sleep(0.1)
                continue
            await self.cancel(key, booking["id"])
            await asyncio.sleep(self.random.random() * pause)

    async def cancel(self, key, id):
        """Four DELETEs at once, until one succeeds: each answer must agree with what follows."""
        path = f"{BOOKINGS}/{id}"
        await self.request("read", key, "GET", path, id=id)
        for _ in range(200):
            deletes = [self.request("delete", key, "DELETE", path, id=id) for _ in range(4)]
            answers = await asyncio.gather(*deletes)
            await self.request("read", key, "GET", path, id=id)
            if any(status in (204, 404) for status, _ in answers) or self.is_over:
                return
            await asyncio.sleep(0.05)

    # The queue: a crowd arrives, its conference goes live, ends and goes live again, and all are released.

    def set_live(self, room, is_live):
        """Repeated without an answer, as Prosody's module does."""
        action = "golive" if is_live else "endlive"
        body = json.dumps({"conference": jid(room)}).encode()

        async def repeat():
            while True:
                status, _ = await self.request("other", f"{action}:{room}", "POST", f"{PATH}/{action}", body)
                if status == 200 or self.is_over:
                    return
                await asyncio.sleep(0.2)

        return repeat()

    async def crowd(self, size, rate, flaps=0, before_live=None):
        """One cycle after another. `before_live` runs while all wait."""
        while not self.is_over:
            await self.cycle(size, rate, flaps, before_live)

    async def cycle(self, size, rate, flaps=0, before_live=None):
        room = f"hall{self.number()}"
        visitors = [Visitor(self, room, f"{room}-{n}") for n in range(size)]
        late = visitors[size * 3 // 4 :]
        async with asyncio.TaskGroup() as tasks:
            await self.arrive(tasks, visitors[: size - len(late)])
            if before_live:
                await before_live()
            if self.is_over:
                [visitor.cancel() for visitor in visitors]
                return
            await self.set_live(room, True)
            arriving = tasks.create_task(self.arrive(tasks, late))
            for _ in range(flaps):
                await self.set_live(room, False)
                await self.set_live(room, True)
            await arriving
            allowance = size / rate + RELEASE_TIMEOUT
            await asyncio.gather(*(visitor.wait_for_end(allowance) for visitor in visitors))
        await self.set_live(room, False)

    async def arrive(self, tasks, visitors):
        """A few at a time: most pairs of visitors have a certain order."""
        for group in range(0, len(visitors), 4):
            for visitor in visitors[group : group + 4]:
                visitor.start(tasks)
            await asyncio.gather(*(visitor.has_joined.wait() for visitor in visitors[group : group + 4]))


class Visitor:
    """Waits with one token until it is released, and returns with it when the connection breaks."""

    def __init__(self, clients, room, name):
        self.clients, self.record, self.room, self.name = clients, clients.record, room, name
        self.token = visitor_token(name, room)
        self.has_joined, self.has_ended = asyncio.Event(), asyncio.Event()
        self.task = None

    def start(self, tasks):
        self.task = tasks.create_task(self.run())

    def cancel(self):
        if self.task:
            self.task.cancel()

    async def run(self):
        try:
            while not self.clients.is_over and not await self.wait_once():
                # Jitsi Meet's client returns after a random time, too.
                await asyncio.sleep(0.1 + self.clients.random.random())
        finally:
            self.has_joined.set()
            self.has_ended.set()

    async def wait_once(self):
        """Waits on one connection. Returns whether the visitor was released or gave up."""
        session, room = None, self.room
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                session = await Session.open(self.clients.usher.port, self.token, "1000,1000")
                sent = now()
                await session.send(subscribe_frame(room))
            beating = asyncio.create_task(self.beat(session))
            try:
                return await self.receive(session, sent)
            finally:
                beating.cancel()
        except (*LOST, TimeoutError, Closed) as lost:
            code = lost.code if isinstance(lost, Closed) else type(lost).__name__
            self.record.add("closed", who=self.name, code=code, text=str(lost))
            return False
        finally:
            if session:
                session.writer.close()

    async def receive(self, session, sent):
        while True:
            command, headers, body = await session.receive()
            if headers.get("receipt-id") == "subscribed":
                self.record.add("joined", t0=sent, who=self.name, conference=self.room)
                self.has_joined.set()
            elif command == "MESSAGE":
                message = json.loads(body)
                if message.get("status") == "live":
                    delay = message["randomDelayMs"]
                    self.record.add("released", who=self.name, conference=self.room, delay=delay)
                    # A second message would arrive now.
                    await self.drain(session)
                    return True

    async def drain(self, session):
        try:
            async with asyncio.timeout(0.3):
                while True:
                    _, _, body = await session.receive()
                    if '"live"' in body:
                        self.record.add("released", who=self.name, conference=self.room, delay=0)
        except (*LOST, TimeoutError, Closed):
            pass

    async def beat(self, session):
        """Sends heart-beats, also while nothing is received."""
        while True:
            await asyncio.sleep(0.8)
            try:
                await session.send(frame(b"\n"))
            except OSError:
                return

    async def wait_for_end(self, allowance):
        start = now()
        while not self.has_ended.is_set():
            try:
                async with asyncio.timeout(0.5):
                    await self.has_ended.wait()
            except TimeoutError:
                pass
            if self.clients.is_over and not self.has_ended.is_set():
                self.cancel()
            if now() - start > allowance and not self.has_ended.is_set():
                self.record.add("given_up", who=self.name, conference=self.room, waited=now() - start)
                self.cancel()

"""Hostile clients, in a process of their own: `attacks.py NAME PORT SOCKETS SECONDS SEED`.

They know no service token. Some have a visitor's token, as every visitor has one. They stop by themselves.
"""

import os
import random
import resource
import selectors
import signal
import socket
import sys
import time

from wire import PATH, connect_frame, frame, jwt, request_bytes, stomp, subscribe_frame, upgrade, visitor_token

# New connections per second of one attack.
CONNECTS_PER_SECOND = 1500
# Addresses of hostile clients, on the loopback interface of the suite's own network. Without it they use 127.0.0.1, which
# stands for many clients and has no limits.
ADDRESSES = os.environ.get("USHER_HOSTILE_ADDRESSES", "").split()
HANDSHAKE = upgrade()
PLAIN = request_bytes("GET", "/health", token=None)


class Attack:
    """What each socket sends: `first` once, then `chunk` again and again, at most `rate` times a second (0: as fast as
    the server reads). `reads`: whether it reads the answers. `held`: whether a connection that sent everything stays."""

    def __init__(self, first=b"", chunk=b"", rate=0, reads=True):
        self.first, self.chunk, self.rate, self.reads = first, chunk, rate, reads

    def opening(self, number, random):
        return self.first

    def repeated(self, number, random):
        return self.chunk


class Visitors(Attack):
    """Attackers with a token each: the flood follows CONNECT and perhaps SUBSCRIBE."""

    def __init__(self, chunk, subscribes=False, **more):
        super().__init__(chunk=chunk, **more)
        self.subscribes = subscribes

    def opening(self, number, random):
        subscribe = subscribe_frame("attacked") if self.subscribes else b""
        return HANDSHAKE + connect_frame(visitor_token(f"attacker{number}", "attacked")) + subscribe


class Verifying(Attack):
    """CONNECT frames with wrong tokens, on a new connection each."""

    def opening(self, number, random):
        token = jwt({"role": "visitor"}, secret="another-secret-of-some-length-01", jti=str(random.random()))
        return HANDSHAKE + connect_frame(token)


class Mutated(Attack):
    """A valid conversation with some bytes changed, left out, repeated or moved."""

    def __init__(self, valid):
        super().__init__(reads=True)
        self.valid = valid

    def opening(self, number, random):
        data = bytearray(random.choice(self.valid)(number))
        # The handshake stays whole in half of them, so that the frames behind it are reached.
        begin = len(HANDSHAKE) if data.startswith(HANDSHAKE) and random.random() < 0.9 else 0
        for _ in range(random.randint(1, 8)):
            at = random.randint(begin, len(data) - 1)
            kind = random.randrange(5)
            if kind == 0:
                data[at] ^= 1 << random.randrange(8)
            elif kind == 1:
                data[at] = random.choice(b"\0\n\r:\x7f\x80\xff\\ \x88\x89\x81")
            elif kind == 2:
                del data[at : at + random.randint(1, 16)]
            elif kind == 3:
                data[at:at] = data[at : at + random.randint(1, 64)] * random.randint(1, 4)
            else:
                data[at:at] = random.randbytes(random.randint(1, 16))
            if len(data) <= begin:
                break
        return bytes(data)


def conversation(number):
    token = visitor_token(f"mutant{number % 50}", "attacked")
    return (
        HANDSHAKE + connect_frame(token, "5000,5000") + subscribe_frame("attacked") + frame(b"\n")
        + stomp("UNSUBSCRIBE", id="1", receipt="u") + frame(b"ping", 9) + frame(b"SEND\n", fin=False)
        + frame(b"destination:a\n\nx\0", 0) + stomp("DISCONNECT", receipt="d") + frame(b"\x03\xe8", 8)
    )


def post(number):
    body = f"name=mutant{number}&start_time=2026-11-21T22%3A21%3A26.000Z&mail_owner=a".encode()
    return request_bytes("POST", "/conference", body, "application/x-www-form-urlencoded", token="wrong")


def golive(number):
    return request_bytes("POST", f"{PATH}/golive", b'{"conference": "attacked@conference.meet.localhost"}', token="wrong")


def read(number):
    return request_bytes("GET", f"{PATH}/conferences?conference=a%40b", token="wrong", headers="Accept: */*\r\nX: y\r\n")


SUBSCRIBE_AND_LEAVE = subscribe_frame("attacked", number="9") + stomp("UNSUBSCRIBE", id="9", receipt="u")
OWN_TOKEN = b"".join(
    subscribe_frame("attacked", number="8", Authorization=f"Bearer {visitor_token('own', 'attacked')}")
    + stomp("UNSUBSCRIBE", id="8")
    for _ in range(4)
)

ATTACKS = {
    # WebSockets without a token.
    "ping": Attack(HANDSHAKE, frame(b"x", 9) * 300),
    "pong": Attack(HANDSHAKE, frame(b"", 10) * 300),
    "close": Attack(HANDSHAKE, frame(b"\x03\xe8", 8) * 300),
    "empty text": Attack(HANDSHAKE, frame(b"") * 300),
    "heart-beats before CONNECT": Attack(HANDSHAKE, frame(b"\n") * 300),
    "binary": Attack(HANDSHAKE, frame(b"\n", 2) * 300),
    "long heart-beats": Attack(HANDSHAKE, frame(b"\n" * 8000)),
    "empty fragments": Attack(HANDSHAKE + frame(b"", 1, fin=False), frame(b"", 0, fin=False) * 300),
    "fragments": Attack(HANDSHAKE + frame(b"\n", 1, fin=False), frame(b"\n", 0, fin=False) * 300),
    "pings between fragments": Attack(
        HANDSHAKE + frame(b"C", 1, fin=False), (frame(b"", 9) + frame(b"", 0, fin=False)) * 150
    ),
    "handshakes": Attack(HANDSHAKE + frame(b"\x03\xe8", 8)),
    "wrong tokens": Verifying(),
    "unfinished frames": Attack(HANDSHAKE + frame(b"CONNECT\n" + b"a:b\n" * 15000)[:60000]),
    # WebSockets with a visitor's token.
    "heart-beats": Visitors(frame(b"\n") * 300),
    "pings of a visitor": Visitors(frame(b"x", 9) * 300, subscribes=True),
    "SEND": Visitors(stomp("SEND", destination="/a") * 50),
    "SUBSCRIBE and UNSUBSCRIBE": Visitors(SUBSCRIBE_AND_LEAVE * 20),
    "SUBSCRIBE with a token": Visitors(OWN_TOKEN),
    "ACK with receipts": Visitors(stomp("ACK", id="1", receipt="r" * 60) * 100),
    "never reads": Visitors(stomp("ACK", id="1", receipt="r" * 60) * 100, reads=False),
    # HTTP.
    "requests": Attack(chunk=PLAIN * 50),
    "requests without a token": Attack(chunk=request_bytes("GET", "/conference/1", token=None) * 50),
    "posts without a token": Attack(chunk=post(1) * 20),
    "never reads answers": Attack(chunk=PLAIN * 50, reads=False),
    "slow heads": Attack(b"POST /conference HTTP/1.1\r\nHost: a\r\n", b"a: b\r\n", rate=1),
    "slow bodies": Attack(post(1)[:-20], b"x", rate=1),
    "silent": Attack(),
    "large heads": Attack(b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"a: " + b"b" * 30000),
    # Both.
    "mutated frames": Mutated([conversation]),
    "mutated requests": Mutated([post, golive, read]),
}
# These connect again as soon as the server has answered.
SHORT = {"handshakes", "wrong tokens", "mutated frames", "mutated requests"}
# How long a short connection waits for its end.
SHORT_SECONDS = 0.3


class Socket:
    """One hostile connection."""

    def __init__(self, attack, port, number, rng):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if not attack.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if ADDRESSES:
            self.socket.bind((ADDRESSES[number % len(ADDRESSES)], 0))
        self.socket.connect_ex(("127.0.0.1", port))
        self.attack, self.number, self.random = attack, number, rng
        self.unsent = attack.opening(number, rng)
        self.began = time.monotonic()
        self.next_at = 0.0

    def write(self):
        """Sends what the socket accepts. Returns whether it wants to send more at once."""
        now = time.monotonic()
        if not self.unsent and now >= self.next_at:
            self.unsent = self.attack.repeated(self.number, self.random)
            if self.attack.rate:
                self.next_at = now + 1 / self.attack.rate
        if self.unsent:
            sent = self.socket.send(self.unsent)
            self.unsent = self.unsent[sent:]
        return bool(self.unsent) or bool(self.attack.chunk and not self.attack.rate)

    def read(self):
        return self.socket.recv(65536)


def run(name, port, count, seconds, seed):
    attack, rng = ATTACKS[name], random.Random(seed)
    selector = selectors.DefaultSelector()
    end, opened, connections = time.monotonic() + seconds, 0, {}
    started = time.monotonic()

    def drop(it):
        selector.unregister(it.socket)
        it.socket.close()
        connections.pop(it.number, None)

    while (now := time.monotonic()) < end:
        allowed = (now - started) * CONNECTS_PER_SECOND + 64
        while len(connections) < count and opened < allowed:
            it = Socket(attack, port, opened, rng)
            opened += 1
            connections[it.number] = it
            selector.register(it.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, it)
        if name in SHORT or attack.rate:
            for it in list(connections.values()):
                if name in SHORT and now - it.began > SHORT_SECONDS:
                    drop(it)
                elif attack.rate and now >= it.next_at:
                    interest(selector, it, True)
        for key, events in selector.select(0.05):
            it = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    interest(selector, it, it.write())
                if events & selectors.EVENT_READ and not it.read():
                    drop(it)
            except BlockingIOError:
                pass
            except OSError:
                if it.number in connections:
                    drop(it)
    for it in list(connections.values()):
        drop(it)
    print(opened)


def interest(selector, it, writes):
    reads = selectors.EVENT_READ if it.attack.reads else 0
    wanted = reads | (selectors.EVENT_WRITE if writes else 0)
    # A selector requires at least one kind.
    selector.modify(it.socket, wanted or selectors.EVENT_WRITE, it)


def main():
    name, port, count, seconds, seed = sys.argv[1:]
    # The end, also if a call should block.
    signal.alarm(int(float(seconds)) + 10)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run(name, int(port), int(count), float(seconds), int(seed))


if __name__ == "__main__":
    main()

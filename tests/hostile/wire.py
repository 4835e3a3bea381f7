"""HTTP, WebSocket and STOMP, only as much as the clients of these tests need."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

SECRET = "a-secret-for-tests-only-of-some-length"
TOKEN = "a-service-token-for-tests-only"
DOMAIN = "meet.localhost"
PATH = "/waiting-queue"

now = time.monotonic


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(user, room="*", secret=SECRET, **claims):
    """A token of Jitsi's kind."""
    header = {"alg": "HS256", "typ": "JWT"}
    body = {
        "iss": "jitsi", "aud": "jitsi", "sub": DOMAIN, "room": room, "exp": int(time.time()) + 7200,
        "context": {"user": user}, **claims,
    }
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, body))
    return f"{text}.{encoded(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())}"


def visitor_token(name, room):
    return jwt({"role": "visitor", "id": name}, room, jti=name)


def jid(room):
    return f"{room}@conference.{DOMAIN}"


def request_bytes(method, path, body=b"", content_type="application/json", token=TOKEN, headers=""):
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    ).encode() + body


async def read_response(reader):
    """Status and body; the body is JSON or empty."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split(" ", 2)[1])
    length = 0
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    body = await reader.readexactly(length) if length else b""
    return status, json.loads(body) if body else None


async def close(writer):
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


def frame(payload, opcode=1, fin=True):
    """A frame of a client. The mask is zero, which saves the masking."""
    length = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def stomp(command, **headers):
    """A STOMP frame in a text message; an underscore in a name stands for a hyphen."""
    lines = "".join(f"{name.replace('_', '-')}:{value}\n" for name, value in headers.items())
    return frame(f"{command}\n{lines}\n\0".encode())


def connect_frame(token, heart_beat="0,0"):
    return stomp("CONNECT", accept_version="1.2", heart_beat=heart_beat, Authorization=f"Bearer {token}")


def subscribe_frame(room, topic="visitor", number="1", **headers):
    destination = f"/secured/conference/{topic}/topic.{jid(room)}"
    return stomp("SUBSCRIBE", id=number, destination=destination, receipt="subscribed", **headers)


def upgrade(path=f"{PATH}/visitor/websocket", headers=""):
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: v12.stomp\r\n{headers}\r\n"
    ).encode()


class Closed(Exception):
    """The server closed the WebSocket."""

    def __init__(self, code, text=""):
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text


class Session:
    """A STOMP session of a well-behaved client."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port, token, heart_beat="0,0"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        session = cls(reader, writer)
        try:
            writer.write(upgrade())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head.split(b"\r\n")[0]:
                raise Closed(int(head.split(b" ")[1]), "the handshake was refused")
            await session.send(connect_frame(token, heart_beat))
            while (await session.receive())[0] != "CONNECTED":
                pass
        except BaseException:
            writer.close()
            raise
        return session

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self):
        """Command, headers and body of the next STOMP frame."""
        while True:
            first, length = await self.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            payload = await self.reader.readexactly(length)
            opcode = first & 15
            if opcode == 8:
                raise Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())
            if opcode == 9:
                await self.send(frame(payload, 10))
            text = payload.decode().strip("\n") if opcode == 1 else ""
            if text:
                head, _, body = text.removesuffix("\0").partition("\n\n")
                command, *lines = head.split("\n")
                return command, dict(line.split(":", 1) for line in lines), body

    async def close(self):
        try:
            await self.send(stomp("DISCONNECT"))
        except OSError:
            pass
        await close(self.writer)

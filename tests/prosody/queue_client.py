"""A client of the waiting queue: the part of STOMP over WebSocket that Jitsi Meet's client uses."""

import json
import time

from websockets.sync.client import connect


class QueueClient:
    """A subscription to one topic of a conference that records its messages."""

    def __init__(self, usher, conference, topic, token):
        self.messages = []
        url = f"ws://127.0.0.1:{usher.port}/waiting-queue/visitor/websocket"
        self.socket = connect(url, subprotocols=["v12.stomp"], compression=None, open_timeout=10, proxy=None)
        self.send("CONNECT", {"accept-version": "1.2", "heart-beat": "0,0", "Authorization": f"Bearer {token}"})
        command, headers, _ = self.receive(10)
        assert command == "CONNECTED", headers
        destination = f"/secured/conference/{topic}/topic.{conference}"
        self.send("SUBSCRIBE", {"id": "sub-0", "destination": destination, "receipt": "subscribed"})
        while self.receive(10)[0] != "RECEIPT":
            pass

    def send(self, command, headers):
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        self.socket.send(f"{command}\n{lines}\n\0".encode())

    def receive(self, timeout):
        """Returns command, headers and body of the next frame."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.socket.recv(max(0, deadline - time.monotonic()))
            text = (message if isinstance(message, str) else message.decode()).strip("\n")
            if text:
                break
        head, _, body = text.rstrip("\n").removesuffix("\0").partition("\n\n")
        command, *lines = head.split("\n")
        headers = dict(line.split(":", 1) for line in lines)
        if command == "MESSAGE":
            self.messages.append(json.loads(body))
        return command, headers, body

    def wait(self, condition, timeout=10):
        """Waits for a matching message. Earlier messages count."""
        deadline = time.monotonic() + timeout
        while True:
            found = next((message for message in self.messages if condition(message)), None)
            if found:
                return found
            left = deadline - time.monotonic()
            assert left > 0, f"no matching message within {timeout} s; received: {self.messages}"
            try:
                self.receive(left)
            except TimeoutError:
                pass

    def wait_live(self, timeout=10):
        return self.wait(lambda m: m.get("status") == "live", timeout)

    def wait_count(self, count, timeout=10):
        return self.wait(lambda m: m.get("visitorsWaiting") == count, timeout)

    def receives_live(self, within=0.3):
        """Whether the live message arrives within this time."""
        try:
            self.wait_live(within)
        except AssertionError:
            return False
        return True

    def close(self):
        self.socket.close()

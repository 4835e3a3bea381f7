"""A client on stomp.py's WebSocket transport. It prints its events to stdout, one JSON object per line.

The argument has the settings as JSON. Each line of stdin is a command. The client exits at the end of stdin.
"""

import json
import sys

import stomp

settings = json.loads(sys.argv[1])


def report(**event):
    print(json.dumps(event), flush=True)


class Listener(stomp.ConnectionListener):
    def on_connected(self, frame):
        report(what="connected", headers=frame.headers)

    def on_message(self, frame):
        report(what="message", headers=frame.headers, body=frame.body)

    def on_receipt(self, frame):
        report(what="receipt", headers=frame.headers)

    def on_error(self, frame):
        report(what="error", headers=frame.headers)

    def on_heartbeat(self):
        report(what="heart-beat")

    def on_heartbeat_timeout(self):
        report(what="heart-beat missed")

    def on_disconnected(self):
        report(what="disconnected")


connection = stomp.WSStompConnection(
    [("127.0.0.1", settings["port"])],
    ws_path=settings["path"],
    header={"Sec-WebSocket-Protocol": "v12.stomp"} if settings["protocol"] else None,
    binary_mode=settings["binary"],
    heartbeats=tuple(settings["heart_beats"]),
)
connection.set_listener("", Listener())
connection.connect(headers={"Authorization": f"Bearer {settings['token']}"})
for line in sys.stdin:
    command, *rest = line.split()
    if command == "subscribe":
        connection.subscribe(rest[0], id="1", headers={"receipt": "subscribed"})
    elif command == "unsubscribe":
        connection.unsubscribe("1", headers={"receipt": "unsubscribed"})
    elif command == "disconnect":
        connection.disconnect(receipt="bye")

"""One participant on stomp.py's WebSocket transport: says on stdout what happens to it, a JSON object a line.

Takes its settings as one JSON argument; each line on stdin is something to do. At the end of stdin it goes.
"""

import json
import sys

import stomp

settings = json.loads(sys.argv[1])


def say(**fact):
    print(json.dumps(fact), flush=True)


class Listener(stomp.ConnectionListener):
    def on_connected(self, frame):
        say(what="connected", headers=frame.headers)

    def on_message(self, frame):
        say(what="message", headers=frame.headers, body=frame.body)

    def on_receipt(self, frame):
        say(what="receipt", headers=frame.headers)

    def on_error(self, frame):
        say(what="error", headers=frame.headers)

    def on_heartbeat(self):
        say(what="heart-beat")

    def on_heartbeat_timeout(self):
        say(what="heart-beat missed")

    def on_disconnected(self):
        say(what="disconnected")


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
    do, *rest = line.split()
    if do == "subscribe":
        connection.subscribe(rest[0], id="1", headers={"receipt": "subscribed"})
    elif do == "unsubscribe":
        connection.unsubscribe("1", headers={"receipt": "unsubscribed"})
    elif do == "disconnect":
        connection.disconnect(receipt="bye")

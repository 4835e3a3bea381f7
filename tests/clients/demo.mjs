// Waits for a conference, or watches the number of waiting visitors, with the client that Jitsi Meet uses; for the
// demonstration in docs/queue.md. node demo.mjs visitor|moderator ROOM TOKEN [URL], with the room's name or address.
import { Client } from "@stomp/stompjs";
import { WebSocket } from "ws";

const [role, room, token, url = "ws://127.0.0.1:8060/waiting-queue"] = process.argv.slice(2);
const topics = { visitor: "visitor", moderator: "state" };
if (!topics[role] || !room || !token) {
	console.error("usage: node demo.mjs visitor|moderator ROOM TOKEN [URL]");
	process.exit(2);
}

const say = (text) => console.log(`${new Date().toISOString()}  ${text}`);
const client = new Client({
	webSocketFactory: () => new WebSocket(`${url}/visitor/websocket`, ["v12.stomp", "v11.stomp", "v10.stomp"]),
	connectHeaders: { Authorization: `Bearer ${token}` },
	forceBinaryWSFrames: true,
	appendMissingNULLonIncoming: true,
	onConnect: () => {
		say(`connected as a ${role}; Ctrl-C ends it`);
		const address = room.includes("@") ? room : `${room}@conference.meet.example.com`;
		const destination = `/secured/conference/${topics[role]}/topic.${address}`;
		client.subscribe(destination, (message) => say(message.body));
	},
	onStompError: (frame) => say(`refused: ${frame.headers.message}`),
});
client.activate();

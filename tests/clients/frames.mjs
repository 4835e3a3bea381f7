// STOMP by hand on a raw WebSocket, for what a library would not send and would not show.

import { WebSocket } from "ws";

import { Inbox } from "./harness.mjs";

export class RawSocket {
	/** What came: `{ binary, text }` for each WebSocket message. */
	#story = () => JSON.stringify({ messages: this.messages.all.slice(-20), closes: this.closes.all });
	messages = new Inbox(this.#story);
	closes = new Inbox(this.#story);

	static async open(url, protocols = []) {
		const raw = new RawSocket();
		raw.socket = new WebSocket(url, protocols);
		raw.socket.on("message", (data, binary) => raw.messages.put({ binary, text: data.toString("utf8") }));
		raw.socket.on("close", (code) => raw.closes.put(code));
		await new Promise((resolve, reject) => raw.socket.once("open", resolve).once("error", reject));
		raw.socket.on("error", () => {});
		return raw;
	}

	/** A frame as a text message. */
	send(command, headers, body = "") {
		const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
		this.socket.send(`${command}\n${lines.join("")}\n${body}\0`);
	}

	/** Whatever it is, as it is. */
	sendBytes(bytes) {
		this.socket.send(Buffer.from(bytes), { binary: true });
	}

	/** The next message that is more than a heart-beat. */
	async frame(what, patience) {
		return this.messages.first(({ text }) => text !== "\n", what, patience);
	}

	close() {
		this.socket.close();
	}
}

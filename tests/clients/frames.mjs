// STOMP on a raw WebSocket, for frames that a library would not send or show.

import { WebSocket } from "ws";

import { MessageQueue } from "./harness.mjs";

export class RawSocket {
	/** Received WebSocket messages as `{ binary, text }`. */
	#context = () => JSON.stringify({ messages: this.messages.all.slice(-20), closes: this.closes.all });
	messages = new MessageQueue(this.#context);
	closes = new MessageQueue(this.#context);

	static async open(url, protocols = []) {
		const raw = new RawSocket();
		raw.socket = new WebSocket(url, protocols);
		raw.socket.on("message", (data, binary) => raw.messages.push({ binary, text: data.toString("utf8") }));
		raw.socket.on("close", (code) => raw.closes.push(code));
		await new Promise((resolve, reject) => raw.socket.once("open", resolve).once("error", reject));
		raw.socket.on("error", () => {});
		return raw;
	}

	/** Sends a frame in a text message. */
	send(command, headers, body = "") {
		const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
		this.socket.send(`${command}\n${lines.join("")}\n${body}\0`);
	}

	/** Sends a binary message. */
	sendBytes(bytes) {
		this.socket.send(Buffer.from(bytes), { binary: true });
	}

	/** Returns the next message that is no heart-beat. */
	async frame(description, timeout) {
		return this.messages.first(({ text }) => text !== "\n", description, timeout);
	}

	close() {
		this.socket.close();
	}
}

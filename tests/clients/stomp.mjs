// @stomp/stompjs in Node, configured as Jitsi Meet configures it.

import { Client } from "@stomp/stompjs";
import { WebSocket } from "ws";

import { MessageQueue, moderatorToken, stateTopic, visitorToken, visitorTopic } from "./harness.mjs";

Object.assign(globalThis, { WebSocket });

const open = new Set();

/** A client that subscribes on each connection, as Jitsi Meet does. */
export class Participant {
	/** The debug log of stompjs, with all frames. */
	log = [];
	#context = () => this.log.slice(-20).join("\n");
	messages = new MessageQueue(this.#context);
	errors = new MessageQueue(this.#context);
	closes = new MessageQueue(this.#context);
	connections = new MessageQueue(this.#context);
	heartBeats = 0;

	constructor(url, topic, token, options = {}) {
		this.client = new Client({
			brokerURL: url,
			forceBinaryWSFrames: true,
			appendMissingNULLonIncoming: true,
			connectHeaders: token === undefined ? {} : { Authorization: `Bearer ${token}` },
			debug: (line) => this.log.push(line),
			logRawCommunication: true,
			onConnect: (frame) => {
				if (topic !== undefined) this.subscribe(topic);
				this.connections.push(frame);
			},
			onStompError: (frame) => this.errors.push(frame),
			onWebSocketClose: (event) => this.closes.push(event),
			onHeartbeatReceived: () => this.heartBeats++,
			...options,
		});
		open.add(this);
		this.client.activate();
	}

	subscribe(topic, headers = {}) {
		return this.client.subscribe(topic, (message) => this.messages.push(message), headers);
	}

	/** Subscribes and waits for the receipt. */
	async subscribed(topic) {
		const receipt = `receipt-${topic}`;
		const received = this.receipt(receipt);
		const subscription = this.subscribe(topic, { receipt });
		await received;
		return subscription;
	}

	receipt(id) {
		return new Promise((resolve) => this.client.watchForReceipt(id, resolve));
	}

	/** Waits for a message with this number of waiting visitors. */
	async count(number) {
		const message = await this.messages.first(
			({ body }) => JSON.parse(body).visitorsWaiting === number,
			`visitorsWaiting ${number}`,
		);
		return JSON.parse(message.body);
	}

	async disconnect() {
		open.delete(this);
		await this.client.deactivate();
	}
}

export function visitor(usher, { room, conference }, options) {
	return new Participant(usher.url, visitorTopic(conference), visitorToken(room), options);
}

export function moderator(usher, { room, conference }, options) {
	return new Participant(usher.url, stateTopic(conference), moderatorToken(room), options);
}

/** Disconnects all clients after a test. */
export async function disconnectAll() {
	await Promise.all(
		[...open].map((participant) => {
			open.delete(participant);
			return participant.client.deactivate({ force: true });
		}),
	);
}

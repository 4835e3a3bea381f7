// @stomp/stompjs in Node, configured as Jitsi Meet configures it.

import { Client } from "@stomp/stompjs";
import { WebSocket } from "ws";

import { Inbox, moderatorToken, stateTopic, visitorToken, visitorTopic } from "./harness.mjs";

Object.assign(globalThis, { WebSocket });

const open = new Set();

/** One client with one subscription for each of its connections, as Jitsi Meet has it. */
export class Participant {
	/** What was said on the wire, as stompjs's log has it. */
	log = [];
	#story = () => this.log.slice(-20).join("\n");
	messages = new Inbox(this.#story);
	errors = new Inbox(this.#story);
	closes = new Inbox(this.#story);
	connections = new Inbox(this.#story);
	beats = 0;

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
				this.connections.put(frame);
			},
			onStompError: (frame) => this.errors.put(frame),
			onWebSocketClose: (event) => this.closes.put(event),
			onHeartbeatReceived: () => this.beats++,
			...options,
		});
		open.add(this);
		this.client.activate();
	}

	subscribe(topic, headers = {}) {
		return this.client.subscribe(topic, (message) => this.messages.put(message), headers);
	}

	/** Subscribes, and waits until the server has taken it. */
	async subscribed(topic) {
		const receipt = `receipt-${topic}`;
		const taken = this.receipt(receipt);
		const subscription = this.subscribe(topic, { receipt });
		await taken;
		return subscription;
	}

	receipt(id) {
		return new Promise((resolve) => this.client.watchForReceipt(id, resolve));
	}

	/** A number that a moderator is told. */
	async count(number) {
		const message = await this.messages.first(
			({ body }) => JSON.parse(body).visitorsWaiting === number,
			`visitorsWaiting ${number}`,
		);
		return JSON.parse(message.body);
	}

	async leave() {
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

/** Nobody stays behind after a test, whatever became of it. */
export async function everybodyLeaves() {
	await Promise.all(
		[...open].map((participant) => {
			open.delete(participant);
			return participant.client.deactivate({ force: true });
		}),
	);
}

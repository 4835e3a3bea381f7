// A thousand visitors wait while their connections break at random and usher is killed and restarted. Each visitor
// must receive the live message, at most once per subscription.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Client } from "@stomp/stompjs";

import { assertLive, moderatorToken, newRoom, stateTopic, until, Usher, visitorToken, visitorTopic } from "./harness.mjs";
import "./stomp.mjs";

const VISITORS = 1000;
const DISRUPTIONS = ["break", "close", "leave", "stall"];
/** Interval of disruptions in milliseconds. */
const TICK = 5;

/** A pseudo-random generator of numbers from 0 to 1 (mulberry32). */
export function seededRandom(seed) {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
}

class Visitor {
	/** The live messages of each subscription. */
	subscriptions = [];
	errors = [];
	#leaving = Promise.resolve();
	#disconnected = false;

	constructor(usher, { room, conference }, random, state) {
		this.stays = random() < 0.5;
		this.client = new Client({
			brokerURL: usher.url,
			forceBinaryWSFrames: true,
			appendMissingNULLonIncoming: true,
			connectHeaders: { Authorization: `Bearer ${visitorToken(room)}` },
			reconnectDelay: 100 + Math.floor(random() * 500),
			onConnect: () => {
				const live = [];
				this.subscriptions.push(live);
				this.client.subscribe(visitorTopic(conference), ({ body }) => {
					live.push({ body, early: !state.live });
					// Half of the visitors disconnect as Jitsi Meet does. The others stay, which shows duplicate messages.
					if (!this.stays) this.disconnect();
				});
			},
			onStompError: ({ headers }) => this.errors.push(headers.message),
		});
		this.client.activate();
	}

	get receivedLive() {
		return this.subscriptions.some((live) => live.length > 0);
	}

	disconnect() {
		this.#disconnected = true;
		return this.client.deactivate();
	}

	/** Breaks the connection. Returns false if the visitor is not connected. */
	disrupt(way, pause) {
		const socket = this.client.webSocket;
		if (this.#disconnected || !this.client.connected || socket?.readyState !== WebSocket.OPEN) return false;
		if (way === "break") socket.terminate();
		if (way === "close") socket.close();
		if (way === "stall") {
			// Stops reading, and later breaks the connection without a close.
			socket.pause();
			setTimeout(() => socket.terminate(), pause);
		}
		if (way === "leave") {
			this.#leaving = this.client.deactivate().then(async () => {
				await sleep(pause);
				if (!this.#disconnected) this.client.activate();
			});
		}
		return true;
	}

	async end() {
		this.#disconnected = true;
		await this.#leaving;
		await this.client.deactivate({ force: true });
	}
}

/** Runs the test and returns what it recorded. `again`: kills usher a second time while it releases visitors. */
export async function storm({ seed, queue, again, report }) {
	const random = seededRandom(seed);
	const usher = await Usher.start({ heart_beat: "2s", ...queue });
	const target = newRoom();
	const state = { live: false };
	const disrupted = Object.fromEntries(DISRUPTIONS.map((way) => [way, 0]));
	const visitors = [];
	const moderator = watch(usher, target);
	let ticking;
	try {
		for (let count = 0; count < VISITORS; count++) {
			visitors.push(new Visitor(usher, target, random, state));
			if (count % 25 === 24) await sleep(20);
		}
		await until(() => moderator.last === VISITORS, `a count of ${VISITORS}`, 20_000).catch((error) =>
			assert.fail(`${error.message}: ${moderator.last} are reported as waiting`),
		);
		report(`${VISITORS} wait`);

		ticking = setInterval(() => {
			const visitor = visitors[Math.floor(random() * VISITORS)];
			const way = DISRUPTIONS[Math.floor(random() * DISRUPTIONS.length)];
			if (visitor.disrupt(way, random() * 1500)) disrupted[way]++;
		}, TICK);
		await sleep(2000);
		await restart(usher, 500 * random());
		report("killed and restarted");
		await sleep(2000);
		state.live = true;
		await usher.goLive(target.conference);
		report("the conference is live");
		if (again) {
			await sleep(50 * random());
			const released = visitors.filter((visitor) => visitor.receivedLive).length;
			await restart(usher, 500 * random());
			report(`killed after ${released} had received the live message, and restarted`);
		}
		await sleep(2000);
		clearInterval(ticking);

		const missing = () => visitors.filter((visitor) => !visitor.receivedLive).length;
		await until(() => missing() === 0, "the last visitor's message", 20_000).catch((error) =>
			assert.fail(`${error.message}: ${missing()} of ${VISITORS} did not receive the live message`),
		);
		await until(() => moderator.last === 0, "a count of 0");
		// Time for a duplicate message.
		await sleep(1500);
		return { target, visitors, moderator, disrupted };
	} finally {
		clearInterval(ticking);
		await Promise.all([...visitors.map((visitor) => visitor.end()), moderator.client.deactivate({ force: true })]);
		await usher.stop();
	}
}

/** A moderator whose connection breaks only with usher. */
function watch(usher, { room, conference }) {
	const moderator = { highest: 0 };
	moderator.client = new Client({
		brokerURL: usher.url,
		connectHeaders: { Authorization: `Bearer ${moderatorToken(room)}` },
		reconnectDelay: 200,
		onConnect: () =>
			moderator.client.subscribe(stateTopic(conference), ({ body }) => {
				moderator.last = JSON.parse(body).visitorsWaiting;
				moderator.highest = Math.max(moderator.highest, moderator.last);
			}),
	});
	moderator.client.activate();
	return moderator;
}

async function restart(usher, pause) {
	await usher.terminate("SIGKILL");
	await sleep(pause);
	await usher.start();
}

/** Checks the result for all visitors. */
export function assertEachReceivedLiveOnce({ target, visitors, moderator, disrupted }) {
	assert.equal(visitors.length, VISITORS);
	for (const [index, visitor] of visitors.entries()) {
		const counts = visitor.subscriptions.map((live) => live.length);
		assert.ok(visitor.receivedLive, `visitor ${index} did not receive the live message`);
		assert.ok(counts.every((count) => count <= 1), `visitor ${index} received ${counts} live messages on its subscriptions`);
		assert.deepEqual(visitor.errors, [], `visitor ${index}`);
		for (const { body, early } of visitor.subscriptions.flat()) {
			assert.ok(!early, `visitor ${index} received the live message too early`);
			assertLive(body, target.conference);
		}
	}
	assert.ok(moderator.highest <= VISITORS, `${moderator.highest} visitors were reported as waiting`);
	// The test is valid only if there were enough disruptions.
	for (const [way, times] of Object.entries(disrupted)) assert.ok(times > 50, `only ${times} disruptions of kind ${way}`);
	const subscriptions = visitors.reduce((sum, visitor) => sum + visitor.subscriptions.length, 0);
	assert.ok(subscriptions > 2 * VISITORS, `only ${subscriptions} subscriptions`);
	return { subscriptions };
}

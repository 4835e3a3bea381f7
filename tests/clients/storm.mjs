// A crowd in bad weather: a thousand visitors whose connections break at random while they wait, usher
// killed among them and started again. Everybody must be told, and nobody twice on one subscription.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Client } from "@stomp/stompjs";

import { assertLive, moderatorToken, newRoom, stateTopic, until, Usher, visitorToken, visitorTopic } from "./harness.mjs";
import "./stomp.mjs";

const CROWD = 1000;
const WAYS = ["break", "close", "leave", "stall"];
/** One connection a tick comes to grief. */
const TICK = 5;

/** Numbers from 0 up to 1 that a seed repeats (mulberry32). */
export function numbers(seed) {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
}

class Visitor {
	/** The live messages on each subscription it has had. */
	subscriptions = [];
	errors = [];
	#leaving = Promise.resolve();
	#gone = false;

	constructor(usher, { room, conference }, random, storm) {
		this.patient = random() < 0.5;
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
					live.push({ body, early: !storm.live });
					// Half of them do as Jitsi Meet does and go; the others stay, to hear whether they are told again.
					if (!this.patient) this.goes();
				});
			},
			onStompError: ({ headers }) => this.errors.push(headers.message),
		});
		this.client.activate();
	}

	get told() {
		return this.subscriptions.some((live) => live.length > 0);
	}

	goes() {
		this.#gone = true;
		return this.client.deactivate();
	}

	/** Comes to grief in one of the ways; false if there is nothing to break. */
	suffers(way, pause) {
		const socket = this.client.webSocket;
		if (this.#gone || !this.client.connected || socket?.readyState !== WebSocket.OPEN) return false;
		if (way === "break") socket.terminate();
		if (way === "close") socket.close();
		if (way === "stall") {
			// Reads nothing for a while, and then is gone without a word.
			socket.pause();
			setTimeout(() => socket.terminate(), pause);
		}
		if (way === "leave") {
			this.#leaving = this.client.deactivate().then(async () => {
				await sleep(pause);
				if (!this.#gone) this.client.activate();
			});
		}
		return true;
	}

	async end() {
		this.#gone = true;
		await this.#leaving;
		await this.client.deactivate({ force: true });
	}
}

/** Lets it happen; gives back what was counted. `again`: usher is killed a second time, while it lets them in. */
export async function storm({ seed, queue, again, report }) {
	const random = numbers(seed);
	const usher = await Usher.start({ heart_beat: "2s", ...queue });
	const place = newRoom();
	const weather = { live: false };
	const grief = Object.fromEntries(WAYS.map((way) => [way, 0]));
	const visitors = [];
	const watching = watch(usher, place);
	let ticking;
	try {
		for (let arrivals = 0; arrivals < CROWD; arrivals++) {
			visitors.push(new Visitor(usher, place, random, weather));
			if (arrivals % 25 === 24) await sleep(20);
		}
		await until(() => watching.last === CROWD, `a count of ${CROWD}`, 20_000).catch((error) =>
			assert.fail(`${error.message}: ${watching.last} were said to wait`),
		);
		report(`${CROWD} wait`);

		ticking = setInterval(() => {
			const unhappy = visitors[Math.floor(random() * CROWD)];
			const way = WAYS[Math.floor(random() * WAYS.length)];
			if (unhappy.suffers(way, random() * 1500)) grief[way]++;
		}, TICK);
		await sleep(2000);
		await restart(usher, 500 * random());
		report("killed and started again");
		await sleep(2000);
		weather.live = true;
		await usher.goLive(place.conference);
		report("gone live");
		if (again) {
			await sleep(50 * random());
			const told = visitors.filter((visitor) => visitor.told).length;
			await restart(usher, 500 * random());
			report(`killed when ${told} had been told, and started again`);
		}
		await sleep(2000);
		clearInterval(ticking);

		const lost = () => visitors.filter((visitor) => !visitor.told).length;
		await until(() => lost() === 0, "the last visitor's message", 20_000).catch((error) =>
			assert.fail(`${error.message}: ${lost()} of ${CROWD} were never told`),
		);
		await until(() => watching.last === 0, "a count of 0");
		// Long enough for a second message, if there were one.
		await sleep(1500);
		return { place, visitors, watching, grief };
	} finally {
		clearInterval(ticking);
		await Promise.all([...visitors.map((visitor) => visitor.end()), watching.client.deactivate({ force: true })]);
		await usher.stop();
	}
}

/** A moderator, whose connection breaks only with usher. */
function watch(usher, { room, conference }) {
	const watching = { highest: 0 };
	watching.client = new Client({
		brokerURL: usher.url,
		connectHeaders: { Authorization: `Bearer ${moderatorToken(room)}` },
		reconnectDelay: 200,
		onConnect: () =>
			watching.client.subscribe(stateTopic(conference), ({ body }) => {
				watching.last = JSON.parse(body).visitorsWaiting;
				watching.highest = Math.max(watching.highest, watching.last);
			}),
	});
	watching.client.activate();
	return watching;
}

async function restart(usher, pause) {
	await usher.end("SIGKILL");
	await sleep(pause);
	await usher.start();
}

/** What must hold of the whole crowd. */
export function assertNobodyLostOrToldTwice({ place, visitors, watching, grief }) {
	assert.equal(visitors.length, CROWD);
	for (const [index, visitor] of visitors.entries()) {
		const counts = visitor.subscriptions.map((live) => live.length);
		assert.ok(visitor.told, `visitor ${index} was never told`);
		assert.ok(counts.every((count) => count <= 1), `visitor ${index} was told ${counts} times on its subscriptions`);
		assert.deepEqual(visitor.errors, [], `visitor ${index}`);
		for (const { body, early } of visitor.subscriptions.flat()) {
			assert.ok(!early, `visitor ${index} was told before the conference was live`);
			assertLive(body, place.conference);
		}
	}
	assert.ok(watching.highest <= CROWD, `${watching.highest} were said to wait`);
	// A storm that was none proves nothing.
	for (const [way, times] of Object.entries(grief)) assert.ok(times > 50, `only ${times} times: ${way}`);
	const subscriptions = visitors.reduce((sum, visitor) => sum + visitor.subscriptions.length, 0);
	assert.ok(subscriptions > 2 * CROWD, `only ${subscriptions} subscriptions`);
	return { subscriptions };
}

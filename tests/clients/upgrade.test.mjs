// An upgrade while visitors wait: usher restarts with socket activation. No connection is refused, and each
// visitor keeps their place.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { assertLive, newRoom, SocketActivatedUsher, until, visitorToken, visitorTopic } from "./harness.mjs";
import { disconnectAll, Participant, visitor } from "./stomp.mjs";

const VISITORS = 1000;
const PER_SECOND = 100;
// The documented time is 15 s; a busy machine may need more.
const RECONNECTED_WITHIN = 30_000;
/** Interval of new connections during restarts in milliseconds. */
const INTERVAL = 50;

let usher;
// Longer than the reconnection on a busy machine.
beforeEach(
	async () =>
		(usher = await SocketActivatedUsher.start({ release_per_second: PER_SECOND, reconnect_grace: "2m" })),
);
afterEach(async () => {
	await disconnectAll();
	await usher?.stop();
});

describe("when usher is upgraded", () => {
	test("a thousand visitors reconnect and are released in their original order", { timeout: 180_000 }, async (t) => {
		const target = newRoom();
		const released = [];
		const visitors = [];
		for (let number = 0; number < VISITORS; number++) {
			// The delay of Jitsi Meet.
			visitors.push(await waitingVisitor(target, { reconnectDelay: 5000 }, (body) => released.push({ number, body })));
		}
		assert.equal(await usher.waiting(target.conference), VISITORS);

		const start = performance.now();
		const exit = await usher.terminate("SIGTERM");
		const stopped = performance.now() - start;
		await usher.start();
		const waiting = async () => (await usher.waiting(target.conference)) === VISITORS;
		await until(waiting, "the reconnection of all", RECONNECTED_WITHIN);
		const reconnected = performance.now() - start;
		t.diagnostic(`stopped after ${Math.round(stopped)} ms, all ${VISITORS} reconnected after ${Math.round(reconnected)} ms`);
		assert.deepEqual(exit, { code: 0, signal: null });
		for (const { closes, errors } of visitors) {
			assert.deepEqual(closes.all.map(({ code, wasClean }) => ({ code, wasClean })), [{ code: 1012, wasClean: true }]);
			assert.deepEqual(errors.all, [], "an ERROR counts towards giving up");
		}

		await usher.goLive(target.conference);
		await until(() => released.length >= VISITORS, "the last live message", 60_000);
		assert.equal(new Set(released.map(({ number }) => number)).size, VISITORS);
		for (const [position, { number, body }] of released.entries()) {
			assertLive(body, target.conference);
			// Messages of two consecutive batches may arrive in the wrong order.
			const off = Math.abs(Math.floor(position / PER_SECOND) - Math.floor(number / PER_SECOND));
			assert.ok(off <= 1, `visitor ${number} was released at position ${position}`);
		}
	});

	test("new visitors during restarts see no refusal and no error", { timeout: 120_000 }, async (t) => {
		const target = newRoom();
		const visitors = [];
		const failures = [];
		let stopping = false;
		const connecting = (async () => {
			while (!stopping) {
				const options = { reconnectDelay: 200, onWebSocketError: ({ message }) => failures.push(message) };
				visitors.push(visitor(usher, target, options));
				await sleep(INTERVAL);
			}
		})();
		for (let times = 0; times < 3; times++) {
			await sleep(4 * INTERVAL);
			assert.deepEqual(await usher.terminate("SIGTERM"), { code: 0, signal: null });
			// Some connect while usher is not running.
			await sleep(4 * INTERVAL);
			await usher.start();
		}
		stopping = true;
		await connecting;
		const waiting = async () => (await usher.waiting(target.conference)) === visitors.length;
		await until(waiting, "a place for each visitor", 30_000);
		t.diagnostic(`${visitors.length} visitors`);
		assert.ok(visitors.length > 20);
		assert.deepEqual(failures, []);
		for (const { closes, errors } of visitors) {
			assert.deepEqual(errors.all, []);
			for (const { code, wasClean } of closes.all) assert.ok(wasClean && code === 1012, `closed with ${code}`);
		}
	});
});

/** A visitor with a place in the queue, who subscribes again on each reconnection. */
async function waitingVisitor({ room, conference }, options, onMessage) {
	const participant = new Participant(usher.url, undefined, visitorToken(room), options);
	const topic = visitorTopic(conference);
	await participant.connections.next("CONNECTED");
	const subscribe = () => participant.client.subscribe(topic, ({ body }) => onMessage(body), { receipt: "in" });
	const received = participant.receipt("in");
	subscribe();
	await received;
	participant.client.onConnect = subscribe;
	return participant;
}

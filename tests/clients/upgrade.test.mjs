// An upgrade in the middle of an event: usher is stopped and started anew on a socket that systemd keeps, and
// nobody is refused, and nobody loses their place.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { assertLive, newRoom, SocketActivatedUsher, until, visitorToken, visitorTopic } from "./harness.mjs";
import { everybodyLeaves, Participant, visitor } from "./stomp.mjs";

const CROWD = 1000;
const PER_SECOND = 100;
// Promised are 15 s; a machine that others use, too, may take longer.
const BACK_WITHIN = 30_000;
/** How often a client comes in the middle of restarts. */
const EVERY = 50;

let usher;
// Longer than a busy machine may take to bring everybody back.
beforeEach(
	async () =>
		(usher = await SocketActivatedUsher.start({ release_per_second: PER_SECOND, reconnect_grace: "2m" })),
);
afterEach(async () => {
	await everybodyLeaves();
	await usher?.stop();
});

describe("when usher is upgraded", () => {
	test("a thousand visitors are back soon, and are let in in the order they came", { timeout: 180_000 }, async (t) => {
		const place = newRoom();
		const told = [];
		const crowd = [];
		for (let number = 0; number < CROWD; number++) {
			// As Jitsi Meet has it.
			crowd.push(await arrival(place, { reconnectDelay: 5000 }, (body) => told.push({ number, body })));
		}
		assert.equal(await usher.waiting(place.conference), CROWD);

		const start = performance.now();
		const exit = await usher.end("SIGTERM");
		const away = performance.now() - start;
		await usher.start();
		const waiting = async () => (await usher.waiting(place.conference)) === CROWD;
		await until(waiting, "the return of all", BACK_WITHIN);
		const back = performance.now() - start;
		t.diagnostic(`stopped after ${Math.round(away)} ms, all ${CROWD} back after ${Math.round(back)} ms`);
		assert.deepEqual(exit, { code: 0, signal: null });
		for (const { closes, errors } of crowd) {
			assert.deepEqual(closes.all.map(({ code, wasClean }) => ({ code, wasClean })), [{ code: 1012, wasClean: true }]);
			assert.deepEqual(errors.all, [], "an ERROR counts towards giving up");
		}

		await usher.goLive(place.conference);
		await until(() => told.length >= CROWD, "the last one's message", 60_000);
		assert.equal(new Set(told.map(({ number }) => number)).size, CROWD);
		for (const [position, { number, body }] of told.entries()) {
			assertLive(body, place.conference);
			// Two batches may come within a moment, and cross on the way here; no more than that.
			const off = Math.abs(Math.floor(position / PER_SECOND) - Math.floor(number / PER_SECOND));
			assert.ok(off <= 1, `number ${number} was told as number ${position}`);
		}
	});

	test("who comes meanwhile sees no refusal and no error", { timeout: 120_000 }, async (t) => {
		const place = newRoom();
		const comers = [];
		const failures = [];
		let over = false;
		const coming = (async () => {
			while (!over) {
				const options = { reconnectDelay: 200, onWebSocketError: ({ message }) => failures.push(message) };
				comers.push(visitor(usher, place, options));
				await sleep(EVERY);
			}
		})();
		for (let times = 0; times < 3; times++) {
			await sleep(4 * EVERY);
			assert.deepEqual(await usher.end("SIGTERM"), { code: 0, signal: null });
			// Some come while there is nobody.
			await sleep(4 * EVERY);
			await usher.start();
		}
		over = true;
		await coming;
		const waiting = async () => (await usher.waiting(place.conference)) === comers.length;
		await until(waiting, "everybody's place in the line", 30_000);
		t.diagnostic(`${comers.length} came`);
		assert.ok(comers.length > 20);
		assert.deepEqual(failures, []);
		for (const { closes, errors } of comers) {
			assert.deepEqual(errors.all, []);
			for (const { code, wasClean } of closes.all) assert.ok(wasClean && code === 1012, `closed with ${code}`);
		}
	});
});

/** A visitor who has a place in the line, and after each return another subscription. */
async function arrival({ room, conference }, options, hears) {
	const participant = new Participant(usher.url, undefined, visitorToken(room), options);
	const topic = visitorTopic(conference);
	await participant.connections.next("CONNECTED");
	const subscribe = () => participant.client.subscribe(topic, ({ body }) => hears(body), { receipt: "in" });
	const taken = participant.receipt("in");
	subscribe();
	await taken;
	participant.client.onConnect = subscribe;
	return participant;
}

// What a restart of usher is for those who wait: a connection lost, and the same place found again.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { assertLive, newRoom, until, Usher } from "./harness.mjs";
import { everybodyLeaves, moderator, visitor } from "./stomp.mjs";

// Jitsi Meet waits 5 s before it tries again; tests have less patience.
const IMPATIENT = { reconnectDelay: 200 };

let usher;
beforeEach(async () => (usher = await Usher.start()));
afterEach(async () => {
	await everybodyLeaves();
	await usher?.stop();
});

describe("when usher is restarted", () => {
	for (const signal of ["SIGTERM", "SIGKILL"]) {
		test(`after ${signal} visitors come back by themselves, and are told`, async () => {
			const place = newRoom();
			const waiting = visitor(usher, place, IMPATIENT);
			const watching = moderator(usher, place, IMPATIENT);
			await watching.count(1);

			const exit = await usher.end(signal);
			await waiting.closes.next("the close");
			await usher.start();
			await watching.connections.first(() => watching.connections.all.length > 1, "the moderator's return");
			await watching.count(1);
			assert.deepEqual(waiting.messages.all, []);
			await usher.goLive(place.conference);
			assertLive((await waiting.messages.next()).body, place.conference);
			assert.equal(waiting.messages.all.length, 1);

			assert.equal(exit.signal, signal === "SIGKILL" ? "SIGKILL" : null);
			assert.deepEqual([...waiting.errors.all, ...watching.errors.all], [], "an ERROR counts towards giving up");
		});

		test(`after ${signal} a live conference is live still`, async () => {
			const place = newRoom();
			const before = visitor(usher, place, IMPATIENT);
			await moderator(usher, place, IMPATIENT).count(1);
			await usher.goLive(place.conference);
			await before.messages.next();
			await usher.end(signal);
			await usher.start();
			assertLive((await visitor(usher, place).messages.next()).body, place.conference);
			// Who stayed on, without leaving as Jitsi Meet does, is told again: it is another subscription.
			assertLive((await before.messages.next()).body, place.conference);
			assert.equal(before.messages.all.length, 2);
		});
	}

	test("a stop closes every WebSocket in good order, without an ERROR, and soon", async () => {
		const place = newRoom();
		const options = { reconnectDelay: 0 };
		const crowd = Array.from({ length: 1000 }, () => visitor(usher, place, options));
		const watching = moderator(usher, place, options);
		await until(async () => (await usher.waiting(place.conference)) === crowd.length, "a thousand who wait", 30_000);
		const start = performance.now();
		const exit = await usher.end("SIGTERM");
		assert.ok(performance.now() - start < 5000, "longer than the grace");
		assert.deepEqual(exit, { code: 0, signal: null });
		for (const one of [...crowd, watching]) {
			const close = await one.closes.next("the close");
			assert.ok(close.wasClean, `closed with ${close.code}`);
			assert.ok([1000, 1001, 1012].includes(close.code), `closed with ${close.code}`);
			assert.deepEqual(one.errors.all, []);
		}
	});

	test("going live while visitors are away loses none of them", async () => {
		const place = newRoom();
		const waiting = visitor(usher, place, { reconnectDelay: 1500 });
		await moderator(usher, place).count(1);
		await usher.end("SIGKILL");
		await usher.start();
		await usher.goLive(place.conference);
		await usher.end("SIGKILL");
		await usher.start();
		assertLive((await waiting.messages.next()).body, place.conference);
	});
});

// Restarts of usher while visitors wait.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { assertLive, newRoom, until, Usher } from "./harness.mjs";
import { disconnectAll, moderator, visitor } from "./stomp.mjs";

// Jitsi Meet waits 5 s before it reconnects, which is too long for tests.
const QUICK_RECONNECT = { reconnectDelay: 200 };

let usher;
beforeEach(async () => (usher = await Usher.start()));
afterEach(async () => {
	await disconnectAll();
	await usher?.stop();
});

describe("when usher is restarted", () => {
	for (const signal of ["SIGTERM", "SIGKILL"]) {
		test(`visitors reconnect after ${signal} and receive the live message`, async () => {
			const target = newRoom();
			const waiting = visitor(usher, target, QUICK_RECONNECT);
			const watching = moderator(usher, target, QUICK_RECONNECT);
			await watching.count(1);

			const exit = await usher.terminate(signal);
			await waiting.closes.next("the close");
			await usher.start();
			await watching.connections.first(() => watching.connections.all.length > 1, "the reconnection of the moderator");
			await watching.count(1);
			assert.deepEqual(waiting.messages.all, []);
			await usher.goLive(target.conference);
			assertLive((await waiting.messages.next()).body, target.conference);
			assert.equal(waiting.messages.all.length, 1);

			assert.equal(exit.signal, signal === "SIGKILL" ? "SIGKILL" : null);
			assert.deepEqual([...waiting.errors.all, ...watching.errors.all], [], "an ERROR counts towards giving up");
		});

		test(`a live conference stays live after ${signal}`, async () => {
			const target = newRoom();
			const before = visitor(usher, target, QUICK_RECONNECT);
			await moderator(usher, target, QUICK_RECONNECT).count(1);
			await usher.goLive(target.conference);
			await before.messages.next();
			await usher.terminate(signal);
			await usher.start();
			assertLive((await visitor(usher, target).messages.next()).body, target.conference);
			// A client that stays connected receives the message again, because it is a new subscription.
			assertLive((await before.messages.next()).body, target.conference);
			assert.equal(before.messages.all.length, 2);
		});
	}

	test("a stop closes every WebSocket with a close frame and without an ERROR", async () => {
		const target = newRoom();
		const options = { reconnectDelay: 0 };
		const visitors = Array.from({ length: 1000 }, () => visitor(usher, target, options));
		const watching = moderator(usher, target, options);
		await until(async () => (await usher.waiting(target.conference)) === visitors.length, "a thousand waiting visitors", 30_000);
		const start = performance.now();
		const exit = await usher.terminate("SIGTERM");
		assert.ok(performance.now() - start < 5000, "longer than the grace period");
		assert.deepEqual(exit, { code: 0, signal: null });
		for (const one of [...visitors, watching]) {
			const close = await one.closes.next("the close");
			assert.ok(close.wasClean, `closed with ${close.code}`);
			assert.ok([1000, 1001, 1012].includes(close.code), `closed with ${close.code}`);
			assert.deepEqual(one.errors.all, []);
		}
	});

	test("visitors who reconnect after go-live are released", async () => {
		const target = newRoom();
		const waiting = visitor(usher, target, { reconnectDelay: 1500 });
		await moderator(usher, target).count(1);
		await usher.terminate("SIGKILL");
		await usher.start();
		await usher.goLive(target.conference);
		await usher.terminate("SIGKILL");
		await usher.start();
		assertLive((await waiting.messages.next()).body, target.conference);
	});
});

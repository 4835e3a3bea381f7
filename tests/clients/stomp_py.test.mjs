// Another STOMP client: stomp.py with its WebSocket transport.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

import {
	assertLive,
	MessageQueue,
	moderatorToken,
	newRoom,
	killAtExit,
	ROOT,
	stateTopic,
	until,
	Usher,
	visitorToken,
	visitorTopic,
} from "./harness.mjs";
import { disconnectAll, moderator } from "./stomp.mjs";

const ENVIRONMENT = join(ROOT, ".test-env/bin/python");
const PYTHON = process.env.USHER_PYTHON ?? (existsSync(ENVIRONMENT) ? ENVIRONMENT : "python3");
const CLIENT = fileURLToPath(new URL("stomp_py_client.py", import.meta.url));

let usher;
const open = [];
before(async () => (usher = await Usher.start({ heart_beat: "1s" })));
afterEach(async () => {
	await Promise.all(open.splice(0).map((client) => client.end()));
	await disconnectAll();
});
after(() => usher?.stop());

class PythonClient {
	#errors = "";
	events = new MessageQueue(() => `${JSON.stringify(this.events.all)}\n${this.#errors}`);

	constructor(token, settings = {}) {
		const all = {
			port: usher.port,
			path: "/waiting-queue/visitor/websocket",
			protocol: false,
			binary: false,
			heart_beats: [0, 0],
			token,
			...settings,
		};
		this.process = killAtExit(spawn(PYTHON, [CLIENT, JSON.stringify(all)], { stdio: "pipe" }));
		this.exit = new Promise((resolve) => this.process.once("close", resolve));
		this.process.stderr.on("data", (text) => (this.#errors += text));
		this.process.stdin.on("error", () => {});
		createInterface(this.process.stdout).on("line", (line) => this.events.push(JSON.parse(line)));
		open.push(this);
	}

	do(line) {
		this.process.stdin.write(`${line}\n`);
	}

	waitFor(what) {
		return this.events.first((event) => event.what === what, what);
	}

	received(what) {
		return this.events.all.filter((event) => event.what === what);
	}

	async end() {
		this.process.stdin.end();
		const timer = setTimeout(() => this.process.kill("SIGKILL"), 3000);
		await this.exit;
		clearTimeout(timer);
	}
}

async function subscribed(token, topic, settings) {
	const client = new PythonClient(token, settings);
	const connected = await client.waitFor("connected");
	assert.equal(connected.headers.version, "1.2");
	client.do(`subscribe ${topic}`);
	const receipt = await client.waitFor("receipt");
	assert.equal(receipt.headers["receipt-id"], "subscribed");
	return client;
}

describe("waiting with stomp.py", () => {
	const ways = {
		"in text messages": {},
		"in binary messages": { binary: true },
		"with the sub-protocol named": { protocol: true },
	};
	for (const [way, settings] of Object.entries(ways)) {
		test(`a visitor waits and is released, ${way}`, async () => {
			const { room, conference } = newRoom();
			const waiting = await subscribed(visitorToken(room), visitorTopic(conference), settings);
			await moderator(usher, { room, conference }).count(1);
			await usher.goLive(conference);
			const live = await waiting.waitFor("message");
			assert.equal(live.headers.subscription, "1");
			assert.equal(live.headers.destination, visitorTopic(conference));
			assertLive(live.body, conference);
		});
	}

	test("a moderator sees a visitor subscribe, unsubscribe and disconnect", async () => {
		const { room, conference } = newRoom();
		const watching = new PythonClient(moderatorToken(room));
		await watching.waitFor("connected");
		watching.do(`subscribe ${stateTopic(conference)}`);
		const count = async () => JSON.parse((await watching.waitFor("message")).body);
		assert.deepEqual(await count(), { conference, visitorsWaiting: 0 });

		const waiting = await subscribed(visitorToken(room), visitorTopic(conference));
		assert.deepEqual(await count(), { conference, visitorsWaiting: 1 });
		waiting.do("unsubscribe");
		assert.equal((await waiting.waitFor("receipt")).headers["receipt-id"], "unsubscribed");
		assert.deepEqual(await count(), { conference, visitorsWaiting: 0 });
		waiting.do("disconnect");
		assert.equal((await waiting.waitFor("receipt")).headers["receipt-id"], "bye");
		await until(() => waiting.received("disconnected").length > 0, "the end");
		assert.deepEqual(waiting.received("error"), []);
	});

	test("heart-beats work in both directions for many intervals", async () => {
		const { room, conference } = newRoom();
		const waiting = await subscribed(visitorToken(room), visitorTopic(conference), { heart_beats: [1000, 1000] });
		for (let beats = 0; beats < 4; beats++) await waiting.waitFor("heart-beat");
		assert.deepEqual([...waiting.received("heart-beat missed"), ...waiting.received("disconnected")], []);
		await usher.goLive(conference);
		assertLive((await waiting.waitFor("message")).body, conference);
	});

	test("a refused token causes an ERROR with a message", async () => {
		const { room } = newRoom();
		const refused = new PythonClient(visitorToken(room, {}, "another-secret-0123456789-0123456789"));
		assert.match((await refused.waitFor("error")).headers.message, /\w/);
		await refused.waitFor("disconnected");
	});
});

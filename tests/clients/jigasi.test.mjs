// The protocol of jigasi, which waits for telephone callers: text messages, no sub-protocol, a service token,
// heart-beats in binary messages, and a simple parser of frames.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { assertLive, newRoom, sign, serviceToken, stateTopic, Usher, visitorTopic } from "./harness.mjs";
import { RawSocket } from "./frames.mjs";
import { disconnectAll, moderator } from "./stomp.mjs";

let usher;
const callers = [];
before(async () => (usher = await Usher.start()));
afterEach(async () => {
	callers.splice(0).forEach((caller) => caller.close());
	await disconnectAll();
});
after(() => usher?.stop());

/** Parses a frame as jigasi does: no escapes, header lines up to an empty line, body up to the NUL. */
function parseAsJigasi({ binary, text }) {
	assert.equal(binary, false, "jigasi reads text messages only");
	assert.ok(!text.includes("\r"), "jigasi splits at line feeds only");
	assert.ok(text.endsWith("\0") && text.indexOf("\0") === text.length - 1, "one frame in each message");
	const lines = text.slice(0, -1).split("\n");
	const command = lines.shift();
	const headers = {};
	while (lines.length > 0 && lines[0] !== "") {
		const line = lines.shift();
		const colon = line.indexOf(":");
		assert.ok(colon > 0, `no header: ${line}`);
		headers[line.slice(0, colon)] = line.slice(colon + 1);
	}
	assert.equal(lines.shift(), "", "an empty line before the body");
	assert.ok(lines.length === 1, "a body of one line");
	return { command, headers, body: lines[0] };
}

async function connectCaller(at, token, heartBeat = "15000,15000") {
	const caller = await RawSocket.open(at.url);
	callers.push(caller);
	assert.equal(caller.socket.protocol, "", "no sub-protocol was offered");
	caller.send("CONNECT", {
		"accept-version": "1.2,1.1,1.0",
		"heart-beat": heartBeat,
		Authorization: `Bearer ${token}`,
	});
	const connected = parseAsJigasi(await caller.frame("CONNECTED"));
	assert.equal(connected.command, "CONNECTED");
	assert.equal(connected.headers.version, "1.2");
	caller.heartBeat = connected.headers["heart-beat"].split(",").map(Number);
	return caller;
}

function subscribe(caller, { conference }) {
	caller.send("SUBSCRIBE", { id: "1", destination: visitorTopic(conference) });
}

function assertLiveMessage(message, { conference }) {
	const { command, headers, body } = parseAsJigasi(message);
	assert.equal(command, "MESSAGE");
	assert.equal(headers.subscription, "1");
	assert.equal(headers.destination, visitorTopic(conference));
	assert.ok(headers["message-id"]);
	if (headers["content-length"] !== undefined) {
		assert.equal(Number(headers["content-length"]), Buffer.byteLength(body));
	}
	assertLive(body, conference);
}

describe("waiting as jigasi does", () => {
	test("a caller with a service token waits for a conference and is released", async () => {
		const target = newRoom();
		const caller = await connectCaller(usher, serviceToken());
		subscribe(caller, target);
		await moderator(usher, target).count(1);
		await usher.goLive(target.conference);
		assertLiveMessage(await caller.frame("the live message"), target);
	});

	test("a late caller is released at once", async () => {
		const target = newRoom();
		await usher.goLive(target.conference);
		const caller = await connectCaller(usher, serviceToken());
		subscribe(caller, target);
		assertLiveMessage(await caller.frame("the live message", 1000), target);
	});

	test("callers with the same service token wait for several conferences", async () => {
		const token = serviceToken();
		const targets = Array.from({ length: 5 }, newRoom);
		const waiting = [];
		for (const target of targets) {
			for (let callers = 0; callers < 2; callers++) {
				const caller = await connectCaller(usher, token);
				subscribe(caller, target);
				waiting.push([caller, target]);
			}
			await moderator(usher, target).count(2);
		}
		for (const { conference } of targets) await usher.goLive(conference);
		for (const [caller, target] of waiting) assertLiveMessage(await caller.frame("the live message"), target);
	});

	test("heart-beats in binary messages are accepted between frames", async () => {
		const target = newRoom();
		const caller = await connectCaller(usher, serviceToken());
		caller.sendBytes("\n");
		subscribe(caller, target);
		for (let pings = 0; pings < 3; pings++) caller.sendBytes("\n");
		await moderator(usher, target).count(1);
		await usher.goLive(target.conference);
		assertLiveMessage(await caller.frame("the live message"), target);
		assert.deepEqual(caller.closes.all, []);
	});

	test("heart-beats of 15 s are accepted", async () => {
		const caller = await connectCaller(usher, serviceToken());
		const [sends, wants] = caller.heartBeat;
		assert.ok(sends > 0 && sends <= 15_000, String(caller.heartBeat));
		// Seldom enough for every client; jigasi's own 15 s are more than that.
		assert.ok(wants >= 65_000, String(caller.heartBeat));
	});

	test("a service token may wait but not subscribe to the state", async () => {
		const target = newRoom();
		const caller = await connectCaller(usher, serviceToken());
		caller.send("SUBSCRIBE", { id: "1", destination: stateTopic(target.conference) });
		const refusal = await caller.frame("an ERROR");
		assert.match(refusal.text, /^ERROR\n(.+\n)*message:.+\n/);
		await caller.closes.next("the close");
	});

	test("a refused token causes an ERROR that jigasi can parse", async () => {
		const caller = await RawSocket.open(usher.url);
		callers.push(caller);
		caller.send("CONNECT", { "accept-version": "1.2,1.1,1.0", Authorization: `Bearer ${sign({}, "another-secret")}` });
		const refusal = await caller.frame("an ERROR");
		assert.equal(refusal.binary, false);
		assert.match(refusal.text, /^ERROR\n([^:\n]+:.*\n)*message:.+\n/);
		await caller.closes.next("the close");
	});
});

describe("heart-beats of jigasi", () => {
	const INTERVAL = 1000;
	let quick;
	before(async () => (quick = await Usher.start({ heart_beat: "1s" })));
	after(() => quick?.stop());

	test("binary heart-beats keep an idle connection, and usher's arrive within twice the interval", async () => {
		const target = newRoom();
		const caller = await connectCaller(quick, serviceToken(), `${INTERVAL},${INTERVAL}`);
		subscribe(caller, target);
		const pings = setInterval(() => caller.sendBytes("\n"), INTERVAL / 2);
		try {
			for (let beats = 0; beats < 5; beats++) {
				const { text, binary } = await caller.messages.next("a heart-beat", 2 * INTERVAL);
				assert.deepEqual([text, binary], ["\n", false]);
			}
			await quick.goLive(target.conference);
			assertLiveMessage(await caller.frame("the live message"), target);
		} finally {
			clearInterval(pings);
		}
	});

	test("a caller without heart-beats is no longer counted", async () => {
		const target = newRoom();
		const watching = moderator(quick, target);
		const caller = await connectCaller(quick, serviceToken(), `${INTERVAL},${INTERVAL}`);
		subscribe(caller, target);
		await watching.count(1);
		const start = performance.now();
		await watching.count(0);
		assert.ok(performance.now() - start > INTERVAL, "dropped too early");
	});

	test("a caller that negotiated no heart-beats stays connected", async () => {
		const target = newRoom();
		const caller = await connectCaller(quick, serviceToken(), "0,0");
		subscribe(caller, target);
		await sleep(4 * INTERVAL);
		assert.deepEqual(caller.closes.all, []);
		await quick.goLive(target.conference);
		assertLiveMessage(await caller.frame("the live message"), target);
	});
});

// What jigasi does for callers from the telephone network, on the wire: text messages, no sub-protocol, a
// service token, pings in binary, and a reading of frames that takes every line as it comes.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { assertLive, newRoom, sign, serviceToken, stateTopic, Usher, visitorTopic } from "./harness.mjs";
import { RawSocket } from "./frames.mjs";
import { everybodyLeaves, moderator } from "./stomp.mjs";

let usher;
const callers = [];
before(async () => (usher = await Usher.start()));
afterEach(async () => {
	callers.splice(0).forEach((caller) => caller.close());
	await everybodyLeaves();
});
after(() => usher?.stop());

/** Lines up to an empty one, each header as it stands; then the body, up to the NUL. */
function readLiterally({ binary, text }) {
	assert.equal(binary, false, "jigasi hears text messages only");
	assert.ok(!text.includes("\r"), "jigasi splits at line feeds alone");
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

async function call(at, token, heartBeat = "15000,15000") {
	const caller = await RawSocket.open(at.url);
	callers.push(caller);
	assert.equal(caller.socket.protocol, "", "none was offered");
	caller.send("CONNECT", {
		"accept-version": "1.2,1.1,1.0",
		"heart-beat": heartBeat,
		Authorization: `Bearer ${token}`,
	});
	const connected = readLiterally(await caller.frame("CONNECTED"));
	assert.equal(connected.command, "CONNECTED");
	assert.equal(connected.headers.version, "1.2");
	caller.heartBeat = connected.headers["heart-beat"].split(",").map(Number);
	return caller;
}

function wait(caller, { conference }) {
	caller.send("SUBSCRIBE", { id: "1", destination: visitorTopic(conference) });
}

function assertTold(message, { conference }) {
	const { command, headers, body } = readLiterally(message);
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
	test("a caller waits for a conference that its service token does not name, and is let in", async () => {
		const place = newRoom();
		const caller = await call(usher, serviceToken());
		wait(caller, place);
		await moderator(usher, place).count(1);
		await usher.goLive(place.conference);
		assertTold(await caller.frame("the live message"), place);
	});

	test("a caller who comes late is let in at once", async () => {
		const place = newRoom();
		await usher.goLive(place.conference);
		const caller = await call(usher, serviceToken());
		wait(caller, place);
		assertTold(await caller.frame("the live message", 1000), place);
	});

	test("callers with one and the same service token wait for many conferences", async () => {
		const token = serviceToken();
		const places = Array.from({ length: 5 }, newRoom);
		const waiting = [];
		for (const place of places) {
			for (let callers = 0; callers < 2; callers++) {
				const caller = await call(usher, token);
				wait(caller, place);
				waiting.push([caller, place]);
			}
			await moderator(usher, place).count(2);
		}
		for (const { conference } of places) await usher.goLive(conference);
		for (const [caller, place] of waiting) assertTold(await caller.frame("the live message"), place);
	});

	test("a ping in a binary message breaks nothing, not even between the frames", async () => {
		const place = newRoom();
		const caller = await call(usher, serviceToken());
		caller.sendBytes("\n");
		wait(caller, place);
		for (let pings = 0; pings < 3; pings++) caller.sendBytes("\n");
		await moderator(usher, place).count(1);
		await usher.goLive(place.conference);
		assertTold(await caller.frame("the live message"), place);
		assert.deepEqual(caller.closes.all, []);
	});

	test("heart-beats of 15 s are taken", async () => {
		const caller = await call(usher, serviceToken());
		const [sends, wants] = caller.heartBeat;
		assert.ok(sends > 0 && sends <= 15_000 && wants > 0 && wants <= 15_000, String(caller.heartBeat));
	});

	test("a service token may wait but not watch", async () => {
		const place = newRoom();
		const caller = await call(usher, serviceToken());
		caller.send("SUBSCRIBE", { id: "1", destination: stateTopic(place.conference) });
		const refusal = await caller.frame("an ERROR");
		assert.match(refusal.text, /^ERROR\n(.+\n)*message:.+\n/);
		await caller.closes.next("the close");
	});

	test("a refused token is an ERROR that can be read line by line", async () => {
		const caller = await RawSocket.open(usher.url);
		callers.push(caller);
		caller.send("CONNECT", { "accept-version": "1.2,1.1,1.0", Authorization: `Bearer ${sign({}, "another-secret")}` });
		const refusal = await caller.frame("an ERROR");
		assert.equal(refusal.binary, false);
		assert.match(refusal.text, /^ERROR\n([^:\n]+:.*\n)*message:.+\n/);
		await caller.closes.next("the close");
	});
});

describe("heart-beats as jigasi keeps them", () => {
	const INTERVAL = 1000;
	let quick;
	before(async () => (quick = await Usher.start({ heart_beat: "1s" })));
	after(() => quick?.stop());

	test("a quiet connection is kept by binary pings, and usher's come within twice the interval", async () => {
		const place = newRoom();
		const caller = await call(quick, serviceToken(), `${INTERVAL},${INTERVAL}`);
		wait(caller, place);
		const pings = setInterval(() => caller.sendBytes("\n"), INTERVAL / 2);
		try {
			for (let beats = 0; beats < 5; beats++) {
				const { text, binary } = await caller.messages.next("a heart-beat", 2 * INTERVAL);
				assert.deepEqual([text, binary], ["\n", false]);
			}
			await quick.goLive(place.conference);
			assertTold(await caller.frame("the live message"), place);
		} finally {
			clearInterval(pings);
		}
	});

	test("a caller that falls silent is no longer counted", async () => {
		const place = newRoom();
		const watching = moderator(quick, place);
		const caller = await call(quick, serviceToken(), `${INTERVAL},${INTERVAL}`);
		wait(caller, place);
		await watching.count(1);
		const start = performance.now();
		await watching.count(0);
		assert.ok(performance.now() - start > INTERVAL, "dropped before its time");
	});

	test("a caller that agreed on no heart-beats may be silent", async () => {
		const place = newRoom();
		const caller = await call(quick, serviceToken(), "0,0");
		wait(caller, place);
		await sleep(4 * INTERVAL);
		assert.deepEqual(caller.closes.all, []);
		await quick.goLive(place.conference);
		assertTold(await caller.frame("the live message"), place);
	});
});

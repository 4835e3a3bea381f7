// The behaviour of Jitsi Meet's web client, with its STOMP client.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { Versions } from "@stomp/stompjs";

import {
	assertLive,
	DOMAIN,
	moderatorToken,
	newRoom,
	serviceToken,
	sign,
	stateTopic,
	Usher,
	visitorToken,
	visitorTopic,
} from "./harness.mjs";
import { disconnectAll, moderator, Participant, visitor } from "./stomp.mjs";

const BOTH_ROLES = { context: { user: { id: "both", role: "visitor", moderator: true } } };

let usher;
before(async () => (usher = await Usher.start()));
afterEach(disconnectAll);
after(() => usher?.stop());

/** Returns the result of a promise and its duration. */
async function timed(promise) {
	const start = performance.now();
	return [await promise, performance.now() - start];
}

describe("waiting with the client that Jitsi Meet uses", () => {
	test("a visitor waits, the moderator sees the number, and go-live releases the visitor", async () => {
		const target = newRoom();
		const watching = moderator(usher, target);
		const first = await watching.messages.next();
		assert.deepEqual(JSON.parse(first.body), { conference: target.conference, visitorsWaiting: 0 });
		assert.equal(first.headers.destination, stateTopic(target.conference));

		const waiting = visitor(usher, target);
		assert.deepEqual(await watching.count(1), { conference: target.conference, visitorsWaiting: 1 });
		assert.deepEqual(waiting.messages.all, [], "the live message arrived too early");

		await usher.goLive(target.conference);
		const [live, milliseconds] = await timed(waiting.messages.next());
		assertLive(live.body, target.conference);
		assert.equal(live.headers.destination, visitorTopic(target.conference));
		assert.ok(milliseconds < 1000, `delivered after ${milliseconds} ms`);

		await watching.count(0);
		assert.equal(waiting.messages.all.length, 1, "exactly one message");
		assert.deepEqual([...waiting.errors.all, ...watching.errors.all], []);
	});

	test("a late visitor is released at once", async () => {
		const target = newRoom();
		await usher.goLive(target.conference);
		const late = visitor(usher, target);
		await late.connections.next();
		const [live, milliseconds] = await timed(late.messages.next());
		assertLive(live.body, target.conference);
		assert.ok(milliseconds < 1000, `delivered after ${milliseconds} ms`);
	});

	test("visitors wait again after end-live", async () => {
		const target = newRoom();
		await usher.goLive(target.conference);
		assertLive((await visitor(usher, target).messages.next()).body, target.conference);
		await usher.endLive(target.conference);

		const next = visitor(usher, target);
		const watching = moderator(usher, target);
		await watching.count(1);
		assert.deepEqual(next.messages.all, []);
		await usher.goLive(target.conference);
		assertLive((await next.messages.next()).body, target.conference);
	});

	test("go-live of one conference does not release visitors of another", async () => {
		const [one, other] = [newRoom(), newRoom()];
		const waiting = visitor(usher, other);
		await moderator(usher, other).count(1);
		await usher.goLive(one.conference);
		assertLive((await visitor(usher, one).messages.next()).body, one.conference);
		await moderator(usher, other).count(1);
		assert.deepEqual(waiting.messages.all, []);
	});

	test("each waiting visitor receives the live message once", async () => {
		const target = newRoom();
		const visitors = Array.from({ length: 25 }, () => visitor(usher, target));
		const watching = moderator(usher, target);
		await watching.count(25);
		await usher.goLive(target.conference);
		for (const one of visitors) assertLive((await one.messages.next()).body, target.conference);
		await usher.goLive(target.conference);
		await watching.count(0);
		assert.deepEqual(visitors.map((one) => one.messages.all.length), visitors.map(() => 1));
	});

	test("a visitor who disconnects receives a receipt and is no longer counted", async () => {
		const target = newRoom();
		const watching = moderator(usher, target);
		const waiting = visitor(usher, target);
		await watching.count(1);
		await waiting.disconnect();
		assert.ok(waiting.log.some((line) => line.includes("RECEIPT")), waiting.log.join("\n"));
		await watching.count(0);
		assert.deepEqual(waiting.errors.all, []);
	});

	test("a visitor who unsubscribes is not counted, receives nothing and can subscribe again", async () => {
		const target = newRoom();
		const watching = moderator(usher, target);
		const waiting = new Participant(usher.url, undefined, visitorToken(target.room));
		await waiting.connections.next();
		const subscription = await waiting.subscribed(visitorTopic(target.conference));
		await watching.count(1);
		subscription.unsubscribe();
		await watching.count(0);
		await usher.goLive(target.conference);
		await usher.endLive(target.conference);

		await waiting.subscribed(visitorTopic(target.conference));
		await watching.count(1);
		assert.deepEqual(waiting.messages.all, []);
		await usher.goLive(target.conference);
		assertLive((await waiting.messages.next()).body, target.conference);
	});

	test("one connection can subscribe to both topics", async () => {
		const target = newRoom();
		const both = new Participant(usher.url, undefined, visitorToken(target.room, BOTH_ROLES));
		await both.connections.next();
		both.subscribe(visitorTopic(target.conference));
		both.subscribe(stateTopic(target.conference));
		await both.count(1);
		await usher.goLive(target.conference);
		const live = await both.messages.first(({ body }) => body.includes("status"), "the live message");
		assertLive(live.body, target.conference);
	});

	for (const path of ["/visitor/websocket", "/visitor", "/state/websocket", "/state"]) {
		test(`both roles are served at ${path}`, async () => {
			const target = newRoom();
			const at = usher.at(path);
			const watching = new Participant(at, stateTopic(target.conference), moderatorToken(target.room));
			const waiting = new Participant(at, visitorTopic(target.conference), visitorToken(target.room));
			await watching.count(1);
			await usher.goLive(target.conference);
			assertLive((await waiting.messages.next()).body, target.conference);
		});
	}

	test("both spellings of a tenant conference are the same conference", async () => {
		const { room } = newRoom();
		const ofTenant = `${room}@conference.acme.${DOMAIN}`;
		const inBrackets = `[acme]${room}@conference.${DOMAIN}`;
		const claims = { sub: "acme" };
		const watching = new Participant(usher.url, stateTopic(ofTenant), moderatorToken(room, claims));
		const waiting = [ofTenant, inBrackets].map(
			(conference) => new Participant(usher.url, visitorTopic(conference), visitorToken(room, claims)),
		);
		await watching.count(2);
		await usher.goLive(inBrackets);
		for (const one of waiting) {
			assert.equal(JSON.parse((await one.messages.next()).body).status, "live");
		}
	});

	test("a percent-encoded room name works as Jitsi Meet sends it", async () => {
		const conference = `caf%c3%a9%20${newRoom().room}@conference.${DOMAIN}`;
		const waiting = new Participant(usher.url, visitorTopic(conference), visitorToken("*"));
		const watching = new Participant(usher.url, stateTopic(conference), moderatorToken("*"));
		await watching.count(1);
		await usher.goLive(conference);
		assertLive((await waiting.messages.next()).body, conference);
	});

	test("a service token can go live, a visitor token cannot", async () => {
		const target = newRoom();
		const answer = await usher.post("/golive", { conference: target.conference }, visitorToken(target.room));
		assert.ok([401, 403].includes(answer.status), String(answer.status));
		assert.equal(typeof (await answer.json()).message, "string");

		const waiting = visitor(usher, target);
		await moderator(usher, target).count(1);
		assert.deepEqual(waiting.messages.all, []);
		await usher.goLive(target.conference, serviceToken());
		assertLive((await waiting.messages.next()).body, target.conference);
	});
});

describe("options of stompjs", () => {
	const versions = [
		[Versions.V1_2, "v12.stomp"],
		[Versions.V1_1, "v11.stomp"],
		[Versions.V1_0, "v10.stomp"],
	];
	for (const [version, protocol] of versions) {
		test(`STOMP ${version} only`, async () => {
			const target = newRoom();
			const only = { stompVersions: new Versions([version]) };
			const watching = moderator(usher, target, only);
			const waiting = visitor(usher, target, only);
			await watching.count(1);
			assert.equal(waiting.client.connectedVersion, version);
			assert.equal(waiting.client.webSocket.protocol, protocol);
			await usher.goLive(target.conference);
			assertLive((await waiting.messages.next()).body, target.conference);
			await waiting.disconnect();
			assert.deepEqual(waiting.errors.all, []);
		});
	}

	test("the highest common version is chosen", async () => {
		const waiting = visitor(usher, newRoom());
		const connected = await waiting.connections.next();
		assert.equal(connected.headers.version, "1.2");
		assert.equal(waiting.client.webSocket.protocol, "v12.stomp");
	});

	const ways = {
		"text messages": { forceBinaryWSFrames: false },
		"frames split over many messages": {
			forceBinaryWSFrames: false,
			splitLargeFrames: true,
			maxWebSocketChunkSize: 16,
		},
		"no NUL appended to received messages": { appendMissingNULLonIncoming: false },
	};
	for (const [way, options] of Object.entries(ways)) {
		test(way, async () => {
			const target = newRoom();
			const watching = moderator(usher, target, options);
			const waiting = visitor(usher, target, options);
			await watching.count(1);
			await usher.goLive(target.conference);
			assertLive((await waiting.messages.next()).body, target.conference);
			await watching.count(0);
			if (options.splitLargeFrames) {
				assert.ok(waiting.log.filter((line) => line.startsWith("chunk sent")).length > 10, "no message was split");
			}
			assert.deepEqual([...waiting.errors.all, ...watching.errors.all], []);
		});
	}
});

describe("refusals have a message", () => {
	const target = newRoom();
	const other = newRoom();
	const waits = visitorTopic(target.conference);
	const watches = stateTopic(target.conference);
	const refused = {
		"no token": [waits, undefined],
		"an invalid token": [waits, "invalid"],
		"a token signed with another secret": [waits, visitorToken(target.room, {}, "another-secret-0123456789-0123456789")],
		"an expired token": [waits, visitorToken(target.room, { exp: Math.floor(Date.now() / 1000) - 3600 })],
		"a token of another issuer": [waits, visitorToken(target.room, { iss: "other" })],
		"a token for another audience": [waits, visitorToken(target.room, { aud: "other" })],
		"a token for another room": [waits, visitorToken(other.room)],
		"a token of another tenant": [waits, visitorToken(target.room, { sub: "acme" })],
		"a token without a role": [waits, sign({ room: target.room, sub: DOMAIN, context: { user: { id: "no-role" } } })],
		"a visitor on the state topic": [watches, visitorToken(target.room)],
		"a moderator on the visitor topic": [waits, moderatorToken(target.room)],
		"a conference of another domain": [visitorTopic(`${target.room}@conference.example.org`), visitorToken("*", { sub: "*" })],
		"an unknown destination": ["/topic/anything", visitorToken(target.room)],
	};
	for (const [what, [topic, token]] of Object.entries(refused)) {
		test(what, async () => {
			const one = new Participant(usher.url, topic, token, { reconnectDelay: 0 });
			const error = await one.errors.next("an ERROR frame");
			assert.match(error.headers.message, /\w/);
			await one.closes.next("the close");
			await usher.goLive(target.conference);
			assert.deepEqual(one.messages.all, []);
			await usher.endLive(target.conference);
		});
	}

	test("a message from a client", async () => {
		const one = new Participant(usher.url, undefined, visitorToken(target.room), { reconnectDelay: 0 });
		await one.connections.next();
		one.client.publish({ destination: waits, body: '{"status":"live"}' });
		const error = await one.errors.next("an ERROR frame");
		assert.match(error.headers.message, /\w/);
		await one.closes.next("the close");
	});
});

describe("heart-beats", () => {
	test("Jitsi Meet's heart-beats are accepted", async () => {
		const waiting = visitor(usher, newRoom());
		const connected = await waiting.connections.next();
		const [sends, wants] = connected.headers["heart-beat"].split(",").map(Number);
		// A hidden tab can send one a minute.
		assert.ok(sends > 0 && sends <= 10_000 && wants >= 65_000, connected.headers["heart-beat"]);
	});

	test("heart-beats keep an idle connection for many intervals", async () => {
		const quick = await Usher.start({ heart_beat: "1s" });
		try {
			const target = newRoom();
			const options = { heartbeatIncoming: 500, heartbeatOutgoing: 500, reconnectDelay: 0 };
			const waiting = visitor(quick, target, options);
			const watching = moderator(quick, target, options);
			await watching.count(1);
			const start = performance.now();
			await waiting.closes.next("a close", 5500).then(
				() => assert.fail("the connection ended"),
				() => {},
			);
			assert.ok(performance.now() - start >= 5000);
			assert.ok(waiting.heartBeats >= 4, `received ${waiting.heartBeats} heart-beats`);
			await quick.goLive(target.conference);
			assertLive((await waiting.messages.next()).body, target.conference);
		} finally {
			await disconnectAll();
			await quick.stop();
		}
	});
});

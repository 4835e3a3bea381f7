// What Jitsi Meet's web client does, with the STOMP client it uses: it waits, watches, is let in and refused.

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
import { everybodyLeaves, moderator, Participant, visitor } from "./stomp.mjs";

const BOTH_ROLES = { context: { user: { id: "both", role: "visitor", moderator: true } } };

let usher;
before(async () => (usher = await Usher.start()));
afterEach(everybodyLeaves);
after(() => usher?.stop());

/** How long something took, beside what it came to. */
async function timed(promise) {
	const start = performance.now();
	return [await promise, performance.now() - start];
}

describe("waiting with the client that Jitsi Meet uses", () => {
	test("a visitor waits, a moderator sees it, and going live lets it in", async () => {
		const place = newRoom();
		const watching = moderator(usher, place);
		const first = await watching.messages.next();
		assert.deepEqual(JSON.parse(first.body), { conference: place.conference, visitorsWaiting: 0 });
		assert.equal(first.headers.destination, stateTopic(place.conference));

		const waiting = visitor(usher, place);
		assert.deepEqual(await watching.count(1), { conference: place.conference, visitorsWaiting: 1 });
		assert.deepEqual(waiting.messages.all, [], "told before the conference was live");

		await usher.goLive(place.conference);
		const [told, milliseconds] = await timed(waiting.messages.next());
		assertLive(told.body, place.conference);
		assert.equal(told.headers.destination, visitorTopic(place.conference));
		assert.ok(milliseconds < 1000, `told after ${milliseconds} ms`);

		await watching.count(0);
		assert.equal(waiting.messages.all.length, 1, "told once");
		assert.deepEqual([...waiting.errors.all, ...watching.errors.all], []);
	});

	test("a visitor who comes late is told at once", async () => {
		const place = newRoom();
		await usher.goLive(place.conference);
		const late = visitor(usher, place);
		await late.connections.next();
		const [told, milliseconds] = await timed(late.messages.next());
		assertLive(told.body, place.conference);
		assert.ok(milliseconds < 1000, `told after ${milliseconds} ms`);
	});

	test("after the end the next visitor waits again, until the next time", async () => {
		const place = newRoom();
		await usher.goLive(place.conference);
		assertLive((await visitor(usher, place).messages.next()).body, place.conference);
		await usher.endLive(place.conference);

		const next = visitor(usher, place);
		const watching = moderator(usher, place);
		await watching.count(1);
		assert.deepEqual(next.messages.all, []);
		await usher.goLive(place.conference);
		assertLive((await next.messages.next()).body, place.conference);
	});

	test("a conference that goes live lets nobody into another", async () => {
		const [one, other] = [newRoom(), newRoom()];
		const waiting = visitor(usher, other);
		await moderator(usher, other).count(1);
		await usher.goLive(one.conference);
		assertLive((await visitor(usher, one).messages.next()).body, one.conference);
		await moderator(usher, other).count(1);
		assert.deepEqual(waiting.messages.all, []);
	});

	test("everybody who waits is told, once", async () => {
		const place = newRoom();
		const crowd = Array.from({ length: 25 }, () => visitor(usher, place));
		const watching = moderator(usher, place);
		await watching.count(25);
		await usher.goLive(place.conference);
		for (const one of crowd) assertLive((await one.messages.next()).body, place.conference);
		await usher.goLive(place.conference);
		await watching.count(0);
		assert.deepEqual(crowd.map((one) => one.messages.all.length), crowd.map(() => 1));
	});

	test("who leaves is no longer counted, and leaving is confirmed", async () => {
		const place = newRoom();
		const watching = moderator(usher, place);
		const waiting = visitor(usher, place);
		await watching.count(1);
		await waiting.leave();
		assert.ok(waiting.log.some((line) => line.includes("RECEIPT")), waiting.log.join("\n"));
		await watching.count(0);
		assert.deepEqual(waiting.errors.all, []);
	});

	test("who unsubscribes is no longer counted and not told, and may wait again on the same socket", async () => {
		const place = newRoom();
		const watching = moderator(usher, place);
		const waiting = new Participant(usher.url, undefined, visitorToken(place.room));
		await waiting.connections.next();
		const subscription = await waiting.subscribed(visitorTopic(place.conference));
		await watching.count(1);
		subscription.unsubscribe();
		await watching.count(0);
		await usher.goLive(place.conference);
		await usher.endLive(place.conference);

		await waiting.subscribed(visitorTopic(place.conference));
		await watching.count(1);
		assert.deepEqual(waiting.messages.all, []);
		await usher.goLive(place.conference);
		assertLive((await waiting.messages.next()).body, place.conference);
	});

	test("one socket can wait and watch", async () => {
		const place = newRoom();
		const both = new Participant(usher.url, undefined, visitorToken(place.room, BOTH_ROLES));
		await both.connections.next();
		both.subscribe(visitorTopic(place.conference));
		both.subscribe(stateTopic(place.conference));
		await both.count(1);
		await usher.goLive(place.conference);
		const told = await both.messages.first(({ body }) => body.includes("status"), "the live message");
		assertLive(told.body, place.conference);
	});

	for (const path of ["/visitor/websocket", "/visitor", "/state/websocket", "/state"]) {
		test(`both roles are served at ${path}`, async () => {
			const place = newRoom();
			const at = usher.at(path);
			const watching = new Participant(at, stateTopic(place.conference), moderatorToken(place.room));
			const waiting = new Participant(at, visitorTopic(place.conference), visitorToken(place.room));
			await watching.count(1);
			await usher.goLive(place.conference);
			assertLive((await waiting.messages.next()).body, place.conference);
		});
	}

	test("a tenant's conference is one, whichever way it is written", async () => {
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

	test("a room with a name in another script is waited for as Jitsi Meet writes it", async () => {
		const conference = `caf%c3%a9%20${newRoom().room}@conference.${DOMAIN}`;
		const waiting = new Participant(usher.url, visitorTopic(conference), visitorToken("*"));
		const watching = new Participant(usher.url, stateTopic(conference), moderatorToken("*"));
		await watching.count(1);
		await usher.goLive(conference);
		assertLive((await waiting.messages.next()).body, conference);
	});

	test("a service's own token can go live, a visitor's can't", async () => {
		const place = newRoom();
		const answer = await usher.post("/golive", { conference: place.conference }, visitorToken(place.room));
		assert.ok([401, 403].includes(answer.status), String(answer.status));
		assert.equal(typeof (await answer.json()).message, "string");

		const waiting = visitor(usher, place);
		await moderator(usher, place).count(1);
		assert.deepEqual(waiting.messages.all, []);
		await usher.goLive(place.conference, serviceToken());
		assertLive((await waiting.messages.next()).body, place.conference);
	});
});

describe("the ways in which stompjs can speak", () => {
	const versions = [
		[Versions.V1_2, "v12.stomp"],
		[Versions.V1_1, "v11.stomp"],
		[Versions.V1_0, "v10.stomp"],
	];
	for (const [version, protocol] of versions) {
		test(`STOMP ${version} alone`, async () => {
			const place = newRoom();
			const only = { stompVersions: new Versions([version]) };
			const watching = moderator(usher, place, only);
			const waiting = visitor(usher, place, only);
			await watching.count(1);
			assert.equal(waiting.client.connectedVersion, version);
			assert.equal(waiting.client.webSocket.protocol, protocol);
			await usher.goLive(place.conference);
			assertLive((await waiting.messages.next()).body, place.conference);
			await waiting.leave();
			assert.deepEqual(waiting.errors.all, []);
		});
	}

	test("of all versions the best is taken", async () => {
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
		"no NUL added to what comes": { appendMissingNULLonIncoming: false },
	};
	for (const [way, options] of Object.entries(ways)) {
		test(way, async () => {
			const place = newRoom();
			const watching = moderator(usher, place, options);
			const waiting = visitor(usher, place, options);
			await watching.count(1);
			await usher.goLive(place.conference);
			assertLive((await waiting.messages.next()).body, place.conference);
			await watching.count(0);
			if (options.splitLargeFrames) {
				assert.ok(waiting.log.filter((line) => line.startsWith("chunk sent")).length > 10, "nothing was split");
			}
			assert.deepEqual([...waiting.errors.all, ...watching.errors.all], []);
		});
	}
});

describe("what is refused says why", () => {
	const place = newRoom();
	const other = newRoom();
	const waits = visitorTopic(place.conference);
	const watches = stateTopic(place.conference);
	const refused = {
		"no token": [waits, undefined],
		"rubbish for a token": [waits, "rubbish"],
		"a token signed with another secret": [waits, visitorToken(place.room, {}, "another-secret-0123456789-0123456789")],
		"an expired token": [waits, visitorToken(place.room, { exp: Math.floor(Date.now() / 1000) - 3600 })],
		"a token of another issuer": [waits, visitorToken(place.room, { iss: "somebody" })],
		"a token for another audience": [waits, visitorToken(place.room, { aud: "somebody" })],
		"a token for another room": [waits, visitorToken(other.room)],
		"a token of another tenant": [waits, visitorToken(place.room, { sub: "acme" })],
		"a token without a role": [waits, sign({ room: place.room, sub: DOMAIN, context: { user: { id: "nobody" } } })],
		"a visitor who wants to watch": [watches, visitorToken(place.room)],
		"a moderator who wants to wait": [waits, moderatorToken(place.room)],
		"a conference of another domain": [visitorTopic(`${place.room}@conference.example.org`), visitorToken("*", { sub: "*" })],
		"a destination that isn't there": ["/topic/anything", visitorToken(place.room)],
	};
	for (const [what, [topic, token]] of Object.entries(refused)) {
		test(what, async () => {
			const one = new Participant(usher.url, topic, token, { reconnectDelay: 0 });
			const error = await one.errors.next("an ERROR frame");
			assert.match(error.headers.message, /\w/);
			await one.closes.next("the close");
			await usher.goLive(place.conference);
			assert.deepEqual(one.messages.all, []);
			await usher.endLive(place.conference);
		});
	}

	test("a message from a client", async () => {
		const one = new Participant(usher.url, undefined, visitorToken(place.room), { reconnectDelay: 0 });
		await one.connections.next();
		one.client.publish({ destination: waits, body: '{"status":"live"}' });
		const error = await one.errors.next("an ERROR frame");
		assert.match(error.headers.message, /\w/);
		await one.closes.next("the close");
	});
});

describe("heart-beats", () => {
	test("a client that asks for Jitsi Meet's gets them", async () => {
		const waiting = visitor(usher, newRoom());
		const connected = await waiting.connections.next();
		const [sends, wants] = connected.headers["heart-beat"].split(",").map(Number);
		assert.ok(sends > 0 && sends <= 10_000 && wants > 0 && wants <= 10_000, connected.headers["heart-beat"]);
	});

	test("keep a quiet connection for many intervals", async () => {
		const quick = await Usher.start({ heart_beat: "1s" });
		try {
			const place = newRoom();
			const options = { heartbeatIncoming: 500, heartbeatOutgoing: 500, reconnectDelay: 0 };
			const waiting = visitor(quick, place, options);
			const watching = moderator(quick, place, options);
			await watching.count(1);
			const start = performance.now();
			await waiting.closes.next("a close", 5500).then(
				() => assert.fail("the connection ended"),
				() => {},
			);
			assert.ok(performance.now() - start >= 5000);
			assert.ok(waiting.beats >= 4, `${waiting.beats} heart-beats came`);
			await quick.goLive(place.conference);
			assertLive((await waiting.messages.next()).body, place.conference);
		} finally {
			await everybodyLeaves();
			await quick.stop();
		}
	});
});

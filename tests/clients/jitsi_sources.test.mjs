// Jitsi's own client code of 2026, unmodified (see jitsi.mjs): the visitor queue of web and mobile clients, and the
// meeting timer's reading of the server's message.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { WebSocket } from "ws";

import { DOMAIN, MessageQueue, moderatorToken, newRoom, until, Usher, visitorToken, visitorTopic } from "./harness.mjs";
import { jitsi, store } from "./jitsi.mjs";
import { meetingTimer } from "./timer.mjs";

// Clients build wss:// URLs, and usher has no TLS: nginx has it.
class PlainWebSocket extends WebSocket {
	constructor(url, protocols) {
		super(url.replace(/^wss:/, "ws:"), protocols);
	}
}
Object.assign(globalThis, { WebSocket: PlainWebSocket, window: new EventTarget() });

const QUEUE = `
	export { WebsocketClient } from "visitors/websocket-client";
	export { lines } from "base/logging/functions";
`;
const VISITORS = `
	import "visitors/middleware";
	import "visitors/reducer";
	export { CONNECTION_FAILED } from "base/connection/actionTypes";
	export { CONFERENCE_WILL_LEAVE, UPDATE_CONFERENCE_METADATA } from "base/conference/actionTypes";
	export { JitsiConnectionErrors } from "base/lib-jitsi-meet";
	export { lines } from "base/logging/functions";
	export { default as middlewares } from "base/redux/MiddlewareRegistry";
	export { default as reducers } from "base/redux/ReducerRegistry";
`;

let usher;
before(async () => (usher = await Usher.start()));
after(() => usher?.stop());

/** A participant whose client asks usher for the queue. */
async function participant(platform, { room }, jwt) {
	const sources = await jitsi(VISITORS, platform);
	const opened = store(sources, {
		"base/config": { hosts: { muc: `conference.${DOMAIN}` }, visitors: { queueService: `127.0.0.1:${usher.port}/waiting-queue` } },
		"base/connection": { locationURL: new URL(`https://${DOMAIN}/${room}`) },
		"base/conference": { room },
		"base/jwt": { jwt },
	});
	const visitors = () => opened.getState()["features/visitors"];
	return { ...sources, ...opened, visitors, leave: () => opened.dispatch({ type: sources.CONFERENCE_WILL_LEAVE }) };
}

for (const platform of ["web", "native"]) {
	describe(`Jitsi's visitor queue, ${platform}`, () => {
		test("a refused visitor waits, a moderator sees the number, and the visitor joins when the conference is live", async () => {
			const target = newRoom();
			const moderator = await participant(platform, target, moderatorToken(target.room));
			moderator.dispatch({ type: moderator.UPDATE_CONFERENCE_METADATA, metadata: { visitors: { live: false } } });
			const visitor = await participant(platform, target, visitorToken(target.room));
			visitor.dispatch({ type: visitor.CONNECTION_FAILED, error: { name: visitor.JitsiConnectionErrors.NOT_LIVE_ERROR } });

			await until(() => visitor.visitors().inQueue, "the visitor's screen of the queue");
			await until(() => moderator.visitors().inQueueCount === 1, "one waiting visitor");
			await usher.goLive(target.conference);
			await visitor.actions.first(({ type }) => type === "prejoin/actions.joinConference", "the join");
			await until(() => !visitor.visitors().inQueue, "the end of the visitor's screen");
			await until(() => moderator.visitors().inQueueCount === 0, "no waiting visitor");
			moderator.leave();
			assert.deepEqual([...visitor.lines, ...moderator.lines].filter((line) => /error/i.test(line)), []);
		});

		test("a visitor who closes the page is no longer counted", async () => {
			const target = newRoom();
			const visitor = await participant(platform, target, visitorToken(target.room));
			visitor.dispatch({ type: visitor.CONNECTION_FAILED, error: { name: visitor.JitsiConnectionErrors.NOT_LIVE_ERROR } });
			await until(async () => (await usher.waiting(target.conference)) === 1, "the visitor in the queue");
			window.dispatchEvent(new Event("beforeunload"));
			await until(async () => (await usher.waiting(target.conference)) === 0, "an empty queue");
		});

		test("the client logs the reason of a refusal, and stays able to connect with another token", async () => {
			const target = newRoom();
			const { WebsocketClient, lines } = await jitsi(QUEUE, platform);
			const client = WebsocketClient.getInstance();
			const messages = new MessageQueue();
			const connect = (token) =>
				client.connect(usher.url, visitorTopic(target.conference), (message) => messages.push(message), token);
			connect(visitorToken("another-room"));
			await until(() => lines.some((line) => line.startsWith("Error connecting to") && /room/.test(line)), "the reason");
			await client.disconnect();
			assert.equal(client.isActive(), false);

			connect(visitorToken(target.room));
			await until(async () => (await usher.waiting(target.conference)) === 1, "the visitor in the queue");
			await usher.goLive(target.conference);
			assert.deepEqual(await messages.next(), { conference: target.conference, status: "live", randomDelayMs: 0 });
			await client.disconnect();
		});
	});
}

describe("Jitsi's meeting timer", () => {
	for (const platform of ["web", "native"]) {
		test(`${platform}: a message of the room starts the timer, and the next one changes its end`, async () => {
			const timer = await meetingTimer(platform);
			timer.receive({ type: "time_restricted", durationSeconds: 3600, elapsedSeconds: 600 });
			assertTimer(timer, 3600, 3000);
			timer.receive({ type: "time_restricted", durationSeconds: 5400, elapsedSeconds: 600 });
			assertTimer(timer, 5400, 4800);
			timer.leave();
			assert.equal(timer.state().running, false);
		});
	}

	test("a message of an occupant, or one without a duration, starts no timer", async () => {
		const timer = await meetingTimer("web");
		timer.receive({ type: "time_restricted", durationSeconds: 3600, elapsedSeconds: 0 }, "nick");
		timer.receive({ type: "time_restricted", durationSeconds: 0, elapsedSeconds: 0 });
		assert.equal(timer.state().running, false);
	});
});

function assertTimer(timer, duration, remaining) {
	const { running, expired, durationSeconds, remainingSeconds } = timer.state();
	assert.deepEqual({ running, expired, durationSeconds }, { running: true, expired: false, durationSeconds: duration });
	assert.ok(Math.abs(remainingSeconds - remaining) <= 2, `${remainingSeconds} s remain`);
}

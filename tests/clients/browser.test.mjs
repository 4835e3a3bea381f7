// Waiting in a browser: a visitor and a moderator in two tabs of headless Chromium.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, afterEach, before, describe, test } from "node:test";

import { chromium } from "playwright-core";

import {
	assertLive,
	moderatorToken,
	newRoom,
	stateTopic,
	Usher,
	visitorToken,
	visitorTopic,
} from "./harness.mjs";

const CHROMIUM = process.env.USHER_CHROMIUM ?? "/usr/bin/chromium";
// Without connections to other servers.
const QUIET = [
	"--disable-gpu",
	"--disable-quic",
	"--no-first-run",
	"--disable-background-networking",
	"--disable-component-update",
	"--disable-sync",
];
const FILES = {
	"/": ["text/html", new URL("page.html", import.meta.url)],
	"/stomp.umd.js": ["text/javascript", new URL("node_modules/@stomp/stompjs/bundles/stomp.umd.js", import.meta.url)],
};

let usher, pages, browser, context;

before(async () => {
	usher = await Usher.start();
	pages = createServer((request, response) => {
		const [type, file] = FILES[request.url] ?? [];
		if (file === undefined) return response.writeHead(404).end();
		response.writeHead(200, { "content-type": type }).end(readFileSync(file));
	});
	await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
	browser = await chromium.launch({ executablePath: CHROMIUM, args: QUIET });
	context = await browser.newContext();
});
afterEach(async () => Promise.all(context.pages().map((page) => page.close())));
after(async () => {
	await browser?.close();
	pages?.close();
	await usher?.stop();
});

async function tab(topic, token, options = {}) {
	const page = await context.newPage();
	const settings = new URLSearchParams({ url: usher.url, topic, token, ...options });
	await page.goto(`http://127.0.0.1:${pages.address().port}/#${settings}`);
	return page;
}

function visitorTab({ room, conference }, options) {
	return tab(visitorTopic(conference), visitorToken(room), options);
}

function moderatorTab({ room, conference }, options) {
	return tab(stateTopic(conference), moderatorToken(room), options);
}

function seen(page) {
	return page.evaluate(() => window.seen);
}

/** Waits until the tab shows this text. */
function shows(page, id, text) {
	return page.waitForFunction(
		([id, text]) => document.getElementById(id).textContent.includes(text),
		[id, text],
		{ timeout: 10_000 },
	);
}

describe("waiting in a browser", () => {
	test("a visitor waits, the moderator sees the number, and go-live releases the visitor", async () => {
		const target = newRoom();
		const watching = await moderatorTab(target);
		await shows(watching, "body", '"visitorsWaiting":0');
		const waiting = await visitorTab(target);
		await shows(watching, "body", '"visitorsWaiting":1');
		assert.deepEqual((await seen(waiting)).messages, []);

		await usher.goLive(target.conference);
		await shows(waiting, "body", "live");
		await shows(watching, "body", '"visitorsWaiting":0');
		const { messages, errors, failures } = await seen(waiting);
		assert.equal(messages.length, 1);
		assertLive(messages[0], target.conference);
		assert.deepEqual([errors, failures], [[], 0]);
	});

	test("a late visitor is released at once, and visitors wait again after end-live", async () => {
		const target = newRoom();
		await usher.goLive(target.conference);
		await shows(await visitorTab(target), "body", "live");
		await usher.endLive(target.conference);

		const next = await visitorTab(target);
		const watching = await moderatorTab(target);
		await shows(watching, "body", '"visitorsWaiting":1');
		assert.deepEqual((await seen(next)).messages, []);
		await usher.goLive(target.conference);
		await shows(next, "body", "live");
	});

	test("a disconnected tab and a closed tab are no longer counted", async () => {
		const target = newRoom();
		const [leaving, closing, watching] = [await visitorTab(target), await visitorTab(target), await moderatorTab(target)];
		await shows(watching, "body", '"visitorsWaiting":2');
		await leaving.evaluate(() => window.leave());
		await shows(watching, "body", '"visitorsWaiting":1');
		await closing.close();
		await shows(watching, "body", '"visitorsWaiting":0');
	});

	test("a refused token causes an ERROR with a message", async () => {
		const target = newRoom();
		const refused = await tab(visitorTopic(target.conference), visitorToken(newRoom().room));
		await shows(refused, "state", "closed");
		const { messages, errors } = await seen(refused);
		assert.equal(errors.length, 1);
		assert.match(errors[0], /\w/);
		assert.deepEqual(messages, []);
	});

	for (const signal of ["SIGTERM", "SIGKILL"]) {
		test(`a tab reconnects after a restart by ${signal}`, async () => {
			const target = newRoom();
			const options = { reconnectDelay: "300" };
			const waiting = await visitorTab(target, options);
			const watching = await moderatorTab(target, options);
			await shows(watching, "body", '"visitorsWaiting":1');
			await usher.terminate(signal);
			await shows(waiting, "state", "closed");
			const [close] = (await seen(waiting)).closes;
			assert.equal(close.wasClean, signal === "SIGTERM", `closed with ${close.code}`);
			await usher.start();
			await shows(waiting, "state", "connected");
			assert.deepEqual((await seen(waiting)).messages, []);
			await usher.goLive(target.conference);
			await shows(waiting, "body", "live");
			const { messages, errors, connections } = await seen(waiting);
			assert.deepEqual([messages.length, errors, connections], [1, [], 2]);
		});
	}
});

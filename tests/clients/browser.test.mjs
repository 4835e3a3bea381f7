// The same in a real browser: a visitor and a moderator in two tabs of headless Chromium.

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
// It looks for nothing but the two servers of the test.
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

/** Waits until the tab shows this; the deadline is Playwright's own. */
function shows(page, id, text) {
	return page.waitForFunction(
		([id, text]) => document.getElementById(id).textContent.includes(text),
		[id, text],
		{ timeout: 10_000 },
	);
}

describe("waiting in a browser", () => {
	test("a visitor's tab waits, a moderator's tab shows it, and going live lets the visitor in", async () => {
		const place = newRoom();
		const watching = await moderatorTab(place);
		await shows(watching, "body", '"visitorsWaiting":0');
		const waiting = await visitorTab(place);
		await shows(watching, "body", '"visitorsWaiting":1');
		assert.deepEqual((await seen(waiting)).messages, []);

		await usher.goLive(place.conference);
		await shows(waiting, "body", "live");
		await shows(watching, "body", '"visitorsWaiting":0');
		const { messages, errors, failures } = await seen(waiting);
		assert.equal(messages.length, 1);
		assertLive(messages[0], place.conference);
		assert.deepEqual([errors, failures], [[], 0]);
	});

	test("a late tab is told at once, and after the end the next one waits again", async () => {
		const place = newRoom();
		await usher.goLive(place.conference);
		await shows(await visitorTab(place), "body", "live");
		await usher.endLive(place.conference);

		const next = await visitorTab(place);
		const watching = await moderatorTab(place);
		await shows(watching, "body", '"visitorsWaiting":1');
		assert.deepEqual((await seen(next)).messages, []);
		await usher.goLive(place.conference);
		await shows(next, "body", "live");
	});

	test("a tab that leaves, and one that is closed, are no longer counted", async () => {
		const place = newRoom();
		const [leaving, closing, watching] = [await visitorTab(place), await visitorTab(place), await moderatorTab(place)];
		await shows(watching, "body", '"visitorsWaiting":2');
		await leaving.evaluate(() => window.leave());
		await shows(watching, "body", '"visitorsWaiting":1');
		await closing.close();
		await shows(watching, "body", '"visitorsWaiting":0');
	});

	test("a refused token is an ERROR that says why", async () => {
		const place = newRoom();
		const refused = await tab(visitorTopic(place.conference), visitorToken(newRoom().room));
		await shows(refused, "state", "closed");
		const { messages, errors } = await seen(refused);
		assert.equal(errors.length, 1);
		assert.match(errors[0], /\w/);
		assert.deepEqual(messages, []);
	});

	for (const signal of ["SIGTERM", "SIGKILL"]) {
		test(`a tab survives a restart after ${signal}`, async () => {
			const place = newRoom();
			const options = { reconnectDelay: "300" };
			const waiting = await visitorTab(place, options);
			const watching = await moderatorTab(place, options);
			await shows(watching, "body", '"visitorsWaiting":1');
			await usher.end(signal);
			await shows(waiting, "state", "closed");
			const [close] = (await seen(waiting)).closes;
			assert.equal(close.wasClean, signal === "SIGTERM", `closed with ${close.code}`);
			await usher.start();
			await shows(waiting, "state", "connected");
			assert.deepEqual((await seen(waiting)).messages, []);
			await usher.goLive(place.conference);
			await shows(waiting, "body", "live");
			const { messages, errors, connections } = await seen(waiting);
			assert.deepEqual([messages.length, errors, connections], [1, [], 2]);
		});
	}
});

// A booking's room is the one that Jitsi's clients ask for: usher against Jitsi's own rules (see jitsi.mjs).

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { DOMAIN, SERVICE_TOKEN, Usher } from "./harness.mjs";
import { jitsi } from "./jitsi.mjs";

const RANDOM_NAMES = 3000;
const AT_ONCE = 50;
const HEADERS = { authorization: `Bearer ${SERVICE_TOKEN}`, "content-type": "application/json" };

// Jitsi's address of these names leads elsewhere: to a tenant, to a name that is cut, or nowhere.
const LEADS_ELSEWHERE = /[/\\]|[?#]./s;

let usher;
let uri;
before(async () => {
	usher = await Usher.start();
	uri = await jitsi('export * from "base/util/uri";');
});
after(() => usher?.stop());

/** The room that a page of Jitsi with this address asks for. */
function roomAt(address) {
	return uri.getBackendSafeRoomName(uri.parseURIString(new URL(address).href).room);
}

/** The room of a name that a person writes after the host of an address. */
function roomOf(name) {
	// "?" and "#" start other parts of an address. Of blanks an address keeps the code, which the parser has not seen.
	const parts = name.replaceAll(/[?#]/g, "").split(/(\s+)/);
	const parsed = parts.map((part) => (part.trim() === "" ? part : (uri.parseURIString(`https://${DOMAIN}/${part}`).room ?? "")));
	return uri.getBackendSafeRoomName(parsed.join(""));
}

/** Some names change once more where Jitsi's rule is applied again ("J\u030c"). usher has one room for both. */
function isSame(room, right) {
	return uri.getBackendSafeRoomName(room) === uri.getBackendSafeRoomName(right);
}

let hours = 0;

/** Books a room for an hour of its own. Returns the status and the answer. */
async function book(room) {
	const start = new Date(Date.UTC(2030, 0, 1, hours++));
	const answer = await fetch(`${usher.http}/api/v1/bookings`, {
		method: "POST",
		headers: HEADERS,
		body: JSON.stringify({ room, start: start.toISOString(), end: new Date(+start + 3_600_000).toISOString() }),
	});
	return { status: answer.status, booking: await answer.json() };
}

/** Books all names. Returns those whose booking is not for the room that Jitsi asks for. */
async function differences(names) {
	const found = [];
	const queue = [...names];
	const worker = async () => {
		for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
			const { status, booking } = await book(name);
			const right = roomOf(name);
			const same = status === 201 && isSame(booking.room, right) && booking.url && isSame(roomAt(booking.url), right);
			const refused = status === 400 && typeof booking.message === "string";
			if (!(same || (refused && mayBeRefused(name, right)))) found.push({ name, right, status, booking });
		}
	};
	await Promise.all(Array.from({ length: AT_ONCE }, worker));
	return found;
}

function mayBeRefused(name, right) {
	return LEADS_ELSEWHERE.test(name) || !right || right === "." || right === ".." || /\p{Cc}/u.test(uri.safeDecodeURIComponent(name)) || right.includes("'");
}

function randomName(random) {
	const pieces = [
		() => String.fromCharCode(0x20 + random(0x5f)),
		() => String.fromCharCode(0x20 + random(0x5f)),
		() => String.fromCodePoint([0xa1, 0x370, 0x400, 0x5d0, 0x621, 0x900, 0x4e00, 0xac00, 0xff01, 0x1f600][random(10)] + random(0x50)),
		() => `%${random(256).toString(16).padStart(2, "0")}`,
		() => encodeURIComponent(String.fromCharCode(0x20 + random(0x400))),
		() => ["J\u030c", "\u0130", "\u03a3", "e\u0301", "ﬁ", "%", "%4", " ", "[a]", "'"][random(10)],
	];
	return `r${Array.from({ length: 1 + random(8) }, () => pieces[random(pieces.length)]()).join("")}x`;
}

/** Numbers below a limit, the same in each run (a linear congruential generator). */
function numbers(seed) {
	let state = seed;
	return (limit) => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return Math.floor((state / 2 ** 32) * limit);
	};
}

describe("the room of a booking is the room that Jitsi asks for", () => {
	test("for each ASCII character at the beginning, in the middle and at the end of a name", async () => {
		const names = Array.from({ length: 128 }, (_, code) => String.fromCharCode(code)).flatMap((c) => [`${c}b`, `a${c}b`, `a${c}`]);
		// Browsers remove blanks at the end of an address.
		assert.deepEqual(await differences(names.filter((name) => !/^\s|\s$/.test(name))), []);
	});

	test(`for ${RANDOM_NAMES} random names`, async () => {
		const random = numbers(20_261_126);
		assert.deepEqual(await differences(Array.from({ length: RANDOM_NAMES }, () => randomName(random))), []);
	});

	test("for names that people type", async () => {
		const rooms = {
			"R&D": "rd",
			"R%26D": "r%26d",
			"Town Hall": "town%20hall",
			"What's next?": "whats%20next",
			"Q&A: Sales (EMEA)": "qa%20sales%20emea",
			"C++": "c",
			"Müller & Söhne": "m%c3%bcller%20%20s%c3%b6hne",
			"100%": "100%25",
		};
		for (const [name, room] of Object.entries(rooms)) {
			const { status, booking } = await book(name);
			assert.deepEqual([name, status, booking.room], [name, 201, room], booking.message);
		}
	});

	test("a name that Jitsi takes away or cuts is refused with a reason", async () => {
		for (const name of ["!!!", "?", "..", ".", "a/b", "Q? A", "C# Users"]) {
			const { status, booking } = await book(name);
			assert.equal(status, 400, `${name}: ${JSON.stringify(booking)}`);
			assert.match(booking.message, /room/);
		}
	});
});

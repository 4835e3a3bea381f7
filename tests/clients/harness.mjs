// The real binary on a free port with scratch files, tokens for it, and what the tests wait with.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const DOMAIN = "meet.example.com";
export const SECRET = "a-secret-for-the-clients-tests-0123456789";
export const SERVICE_TOKEN = "a-service-token-for-the-clients-tests-0123456789";

const BINARY = process.env.USHER_BIN ?? join(ROOT, "target/debug/usher");
const PATIENCE = 10_000;
// Below the ports that systems give to clients: while usher is down between two lives on one port,
// nobody else may be given it, not even a client that is trying to reach it.
const PORTS = { first: 15_000, last: 30_000 };

// What has to go whatever becomes of the tests: processes and directories.
const running = new Set();
const scratch = new Set();
process.on("exit", () => {
	running.forEach((child) => child.kill("SIGKILL"));
	scratch.forEach(remove);
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** Keeps a process from outliving the tests. */
export function own(child) {
	running.add(child);
	child.once("exit", () => running.delete(child));
	return child;
}

function remove(directory) {
	rmSync(directory, { recursive: true, force: true });
	scratch.delete(directory);
}

function isFree(port) {
	return new Promise((resolve) => {
		const probe = createServer();
		probe.once("error", () => resolve(false));
		probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
	});
}

async function freePort() {
	for (;;) {
		const port = PORTS.first + Math.floor(Math.random() * (PORTS.last - PORTS.first));
		if (await isFree(port)) return port;
	}
}

/** Waits for what can only be looked at; what announces itself is awaited through an `Inbox`. */
export async function until(condition, what, patience = PATIENCE) {
	const deadline = performance.now() + patience;
	while (performance.now() < deadline) {
		const found = await condition();
		if (found) return found;
		await sleep(20);
	}
	assert.fail(`${what} did not come about within ${patience} ms`);
}

/** What came in, in order, for whoever waits for it; `story` is told when it waits in vain. */
export class Inbox {
	all = [];
	#taken = 0;
	#waiting = [];
	#story;

	constructor(story = () => "") {
		this.#story = story;
	}

	put(item) {
		this.all.push(item);
		this.#waiting.splice(0).forEach((wake) => wake());
	}

	/** The next one not taken yet. */
	async next(what = "a message", patience = PATIENCE) {
		const deadline = performance.now() + patience;
		while (this.#taken === this.all.length) {
			const left = deadline - performance.now();
			if (left <= 0) assert.fail(`${what} did not come within ${Math.round(patience)} ms\n${this.#story()}`);
			await new Promise((resolve) => {
				const timer = setTimeout(resolve, left);
				this.#waiting.push(() => {
					clearTimeout(timer);
					resolve();
				});
			});
		}
		return this.all[this.#taken++];
	}

	/** The first one that passes; those before it are passed over. */
	async first(passes, what, patience = PATIENCE) {
		const deadline = performance.now() + patience;
		for (;;) {
			const item = await this.next(what, deadline - performance.now());
			if (passes(item)) return item;
		}
	}
}

export class Usher {
	/** Starts the binary; `queue` holds lines for that section of its configuration. */
	static async start(queue = {}) {
		const usher = new this();
		usher.directory = mkdtempSync(join(tmpdir(), "usher-clients-"));
		scratch.add(usher.directory);
		usher.port = await freePort();
		usher.log = join(usher.directory, "usher.log");
		writeFileSync(join(usher.directory, "config.toml"), usher.#config({ state_interval: "1s", ...queue }));
		await usher.start();
		return usher;
	}

	#config(queue) {
		const lines = Object.entries(queue).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
		return `
[server]
listen = "127.0.0.1:${this.port}"

[database]
url = "sqlite:${this.directory}/usher.db"

[xmpp]
domain = "${DOMAIN}"

[auth]
secret = "${SECRET}"

[auth.service]
tokens = ["${SERVICE_TOKEN}"]

[queue]
${lines.join("\n")}
`;
	}

	/** Starts the process on the files and the port it had before. */
	async start() {
		this.process = own(await this.launch([BINARY, "serve", "--config", join(this.directory, "config.toml")]));
		this.exit = once(this.process, "exit").then(([code, signal]) => ({ code, signal }));
		this.exit.catch(() => {});
		await until(() => this.#isUp(), "usher's answer");
	}

	launch([command, ...words]) {
		return this.spawn(command, words, ["ignore"]);
	}

	/** Its output goes to the log, and no setting of ours comes in by the environment. */
	spawn(command, words, [input, output, ...more]) {
		const settings = Object.entries(process.env).filter(([name]) => !name.startsWith("USHER_"));
		const log = openSync(this.log, "a");
		const env = Object.fromEntries(settings);
		const child = spawn(command, words, { cwd: this.directory, env, stdio: [input, output ?? log, log, ...more] });
		closeSync(log);
		return child;
	}

	async #isUp() {
		if (this.process.pid === undefined) throw await this.exit.catch((error) => error);
		if (this.process.exitCode !== null) assert.fail(`usher ended at once:\n${this.said()}`);
		return fetch(`${this.http}/health`).then((answer) => answer.ok, () => false);
	}

	said() {
		return readFileSync(this.log, "utf8");
	}

	get http() {
		return `http://127.0.0.1:${this.port}`;
	}

	/** The URL that Jitsi Meet opens for visitors and moderators alike. */
	get url() {
		return this.at("/visitor/websocket");
	}

	at(path) {
		return `ws://127.0.0.1:${this.port}/waiting-queue${path}`;
	}

	async post(path, body, token = SERVICE_TOKEN) {
		return fetch(`${this.http}/waiting-queue${path}`, {
			method: "POST",
			headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
			body: JSON.stringify(body),
		});
	}

	/** How many wait for a conference. */
	async waiting(conference) {
		const answer = await fetch(`${this.http}/waiting-queue/conferences?conference=${conference}`, {
			headers: { authorization: `Bearer ${SERVICE_TOKEN}` },
		});
		return (await answer.json()).conferences[0].visitorsWaiting;
	}

	async goLive(conference, token) {
		const answer = await this.post("/golive", { conference }, token);
		assert.equal(answer.status, 200, await answer.text());
	}

	async endLive(conference) {
		const answer = await this.post("/endlive", { conference });
		assert.equal(answer.status, 200, await answer.text());
	}

	/** Sends a signal and waits for the end. */
	async end(signal) {
		this.process.kill(signal);
		const timer = setTimeout(() => this.process.kill("SIGKILL"), PATIENCE);
		const exit = await this.exit;
		clearTimeout(timer);
		return exit;
	}

	/** Ends it and takes its files away. */
	async stop() {
		if (running.has(this.process)) await this.end("SIGTERM");
		remove(this.directory);
	}
}

// Holds the socket as descriptor 3, never accepts, and hands it to a new usher for each line that it reads.
const KEEPER = `while read -r _; do
	(LISTEN_FDS=1 LISTEN_PID=$BASHPID exec "$@" >&2) & echo "pid $!"
	wait $!; echo "exit $?"
done`;
// As many as systemd lets wait in a socket of its own.
const BACKLOG = 4096;

/** usher on a socket that outlives it, as systemd keeps one: connections wait there while it is away. */
export class SocketActivatedUsher extends Usher {
	#keeper;
	#lines;

	async launch(command) {
		this.#keeper ??= await this.#keep(command);
		this.#keeper.stdin.write("start\n");
		const [line] = await once(this.#lines, "line");
		const process = new KeptProcess(Number(line.split(" ")[1]));
		once(this.#lines, "line").then(([line]) => process.ended(Number(line.split(" ")[1])));
		return process;
	}

	async #keep(command) {
		const socket = createServer();
		socket.listen({ port: this.port, host: "127.0.0.1", backlog: BACKLOG });
		await once(socket, "listening");
		const keeper = own(this.spawn("bash", ["-c", KEEPER, "keeper", ...command], ["pipe", "pipe", socket._handle.fd]));
		// Ours would accept, too.
		socket.close();
		this.#lines = createInterface(keeper.stdout);
		return keeper;
	}

	async stop() {
		await super.stop();
		this.#keeper.stdin.end();
		await once(this.#keeper, "exit");
	}
}

/** What is used of a child process, of one that is the keeper's. */
class KeptProcess extends EventEmitter {
	exitCode = null;

	constructor(pid) {
		super();
		this.pid = pid;
	}

	kill(signal) {
		process.kill(this.pid, signal);
	}

	ended(code) {
		this.exitCode = code;
		this.emit("exit", code, null);
	}
}

function encode(part) {
	return Buffer.from(JSON.stringify(part)).toString("base64url");
}

/** A token as a Jitsi deployment signs it. */
export function sign(claims, secret = SECRET) {
	const now = Math.floor(Date.now() / 1000);
	const header = encode({ alg: "HS256", typ: "JWT", kid: "jitsi" });
	const body = encode({ iss: "jitsi", aud: "jitsi", iat: now, nbf: now, exp: now + 3600, ...claims });
	const signature = createHmac("sha256", secret).update(`${header}.${body}`).digest("base64url");
	return `${header}.${body}.${signature}`;
}

/** Each visitor's token is their own. */
export function visitorToken(room, claims = {}, secret = SECRET) {
	return sign({ room, sub: DOMAIN, context: { user: { id: randomUUID(), role: "visitor" } }, ...claims }, secret);
}

export function moderatorToken(room, claims = {}) {
	return sign({ room, sub: DOMAIN, context: { user: { id: randomUUID(), moderator: true } }, ...claims });
}

/** What Prosody and jigasi make for themselves: no room, no user. */
export function serviceToken() {
	return sign({});
}

/** A room nobody else uses, and its conference. */
export function newRoom() {
	const room = `room-${randomUUID().slice(0, 8)}`;
	return { room, conference: `${room}@conference.${DOMAIN}` };
}

export function visitorTopic(conference) {
	return `/secured/conference/visitor/topic.${conference}`;
}

export function stateTopic(conference) {
	return `/secured/conference/state/topic.${conference}`;
}

/** The message that lets a visitor in, to the letter of the contract. */
export function assertLive(body, conference) {
	const { randomDelayMs } = JSON.parse(body);
	assert.ok(Number.isInteger(randomDelayMs) && randomDelayMs >= 0, body);
	assert.match(body, /"randomDelayMs":\s*\d+\s*[,}]/, "jigasi reads a fraction as something else");
	assert.deepEqual(JSON.parse(body), { conference, status: "live", randomDelayMs });
}

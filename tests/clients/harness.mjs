// Starts usher on a free port with scratch files, signs tokens for it, and has helpers that wait.

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
const TIMEOUT = 10_000;
// Below the ephemeral ports: while usher restarts, the kernel must not give its port to another process or to a
// client that tries to connect.
const PORTS = { first: 15_000, last: 30_000 };

// Processes and directories to remove when the tests exit.
const running = new Set();
const scratch = new Set();
process.on("exit", () => {
	running.forEach((child) => child.kill("SIGKILL"));
	scratch.forEach(remove);
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** Kills a process when the tests exit. */
export function killAtExit(child) {
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

/** Polls a condition. Events are awaited with a `MessageQueue` instead. */
export async function until(condition, description, timeout = TIMEOUT) {
	const deadline = performance.now() + timeout;
	while (performance.now() < deadline) {
		const found = await condition();
		if (found) return found;
		await sleep(20);
	}
	assert.fail(`timed out after ${timeout} ms waiting for ${description}`);
}

/** Received items in order. `context` is added to the message of a time-out. */
export class MessageQueue {
	all = [];
	#taken = 0;
	#waiting = [];
	#context;

	constructor(context = () => "") {
		this.#context = context;
	}

	push(item) {
		this.all.push(item);
		this.#waiting.splice(0).forEach((wake) => wake());
	}

	/** Returns the next item, or waits for it. */
	async next(description = "a message", timeout = TIMEOUT) {
		const deadline = performance.now() + timeout;
		while (this.#taken === this.all.length) {
			const left = deadline - performance.now();
			if (left <= 0) assert.fail(`timed out after ${Math.round(timeout)} ms waiting for ${description}\n${this.#context()}`);
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

	/** Returns the next item that matches and skips others. */
	async first(matches, description, timeout = TIMEOUT) {
		const deadline = performance.now() + timeout;
		for (;;) {
			const item = await this.next(description, deadline - performance.now());
			if (matches(item)) return item;
		}
	}
}

export class Usher {
	/** Starts usher. `queue` has settings of that section of its configuration. */
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

	/** Starts the process with the same files and port as before. */
	async start() {
		this.process = killAtExit(await this.launch([BINARY, "serve", "--config", join(this.directory, "config.toml")]));
		this.exit = once(this.process, "exit").then(([code, signal]) => ({ code, signal }));
		this.exit.catch(() => {});
		await until(() => this.#isUp(), "a response of usher");
	}

	launch([command, ...words]) {
		return this.spawn(command, words, ["ignore"]);
	}

	/** Its output goes to the log. Variables of usher are removed from the environment. */
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
		if (this.process.exitCode !== null) assert.fail(`usher exited at its start:\n${this.readLog()}`);
		return fetch(`${this.http}/health`).then((answer) => answer.ok, () => false);
	}

	readLog() {
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

	/** The number of visitors who wait for a conference. */
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

	/** Sends a signal and waits for the exit. */
	async terminate(signal) {
		this.process.kill(signal);
		const timer = setTimeout(() => this.process.kill("SIGKILL"), TIMEOUT);
		const exit = await this.exit;
		clearTimeout(timer);
		return exit;
	}

	/** Stops usher and deletes its files. */
	async stop() {
		if (running.has(this.process)) await this.terminate("SIGTERM");
		remove(this.directory);
	}
}

// Holds the socket as descriptor 3 without accepting, and starts usher with it for each line of its input.
const SOCKET_HOLDER = `while read -r _; do
	(LISTEN_FDS=1 LISTEN_PID=$BASHPID exec "$@" >&2) & echo "pid $!"
	wait $!; echo "exit $?"
done`;
// The default backlog of systemd sockets.
const BACKLOG = 4096;

/** usher with socket activation as by systemd: connections wait in the socket while usher restarts. */
export class SocketActivatedUsher extends Usher {
	#holder;
	#lines;

	async launch(command) {
		this.#holder ??= await this.#holdSocket(command);
		this.#holder.stdin.write("start\n");
		const [line] = await once(this.#lines, "line");
		const process = new ActivatedProcess(Number(line.split(" ")[1]));
		once(this.#lines, "line").then(([line]) => process.ended(Number(line.split(" ")[1])));
		return process;
	}

	async #holdSocket(command) {
		const socket = createServer();
		socket.listen({ port: this.port, host: "127.0.0.1", backlog: BACKLOG });
		await once(socket, "listening");
		const holder = killAtExit(this.spawn("bash", ["-c", SOCKET_HOLDER, "holder", ...command], ["pipe", "pipe", socket._handle.fd]));
		// This process must not accept connections.
		socket.close();
		this.#lines = createInterface(holder.stdout);
		return holder;
	}

	async stop() {
		await super.stop();
		this.#holder.stdin.end();
		await once(this.#holder, "exit");
	}
}

/** The used part of the child process interface for a process that the socket holder has started. */
class ActivatedProcess extends EventEmitter {
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

/** A token as Jitsi deployments sign it. */
export function sign(claims, secret = SECRET) {
	const now = Math.floor(Date.now() / 1000);
	const header = encode({ alg: "HS256", typ: "JWT", kid: "jitsi" });
	const body = encode({ iss: "jitsi", aud: "jitsi", iat: now, nbf: now, exp: now + 3600, ...claims });
	const signature = createHmac("sha256", secret).update(`${header}.${body}`).digest("base64url");
	return `${header}.${body}.${signature}`;
}

/** A token for one visitor. */
export function visitorToken(room, claims = {}, secret = SECRET) {
	return sign({ room, sub: DOMAIN, context: { user: { id: randomUUID(), role: "visitor" } }, ...claims }, secret);
}

export function moderatorToken(room, claims = {}) {
	return sign({ room, sub: DOMAIN, context: { user: { id: randomUUID(), moderator: true } }, ...claims });
}

/** A token as Prosody and jigasi sign it: without room and user. */
export function serviceToken() {
	return sign({});
}

/** A new room and its conference. */
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

/** Checks the live message against its contract. */
export function assertLive(body, conference) {
	const { randomDelayMs } = JSON.parse(body);
	assert.ok(Number.isInteger(randomDelayMs) && randomDelayMs >= 0, body);
	assert.match(body, /"randomDelayMs":\s*\d+\s*[,}]/, "jigasi reads integers only");
	assert.deepEqual(JSON.parse(body), { conference, status: "live", randomDelayMs });
}

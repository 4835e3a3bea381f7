// Jitsi's own meeting timer. As a program it reads one json-message of a room per line and prints what the timer of the
// client then has: `node timer.mjs web`.

import { realpathSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { jitsi, store } from "./jitsi.mjs";

const TIMER = `
	import "time-timer/middleware";
	import "time-timer/reducer";
	export { CONFERENCE_LEFT, NON_PARTICIPANT_MESSAGE_RECEIVED } from "base/conference/actionTypes";
	export { default as middlewares } from "base/redux/MiddlewareRegistry";
	export { default as reducers } from "base/redux/ReducerRegistry";
`;
const FEATURE = "features/time-timer";

/** The timer of a client on `platform`. Messages from the room itself have no `id`. */
export async function meetingTimer(platform) {
	const sources = await jitsi(TIMER, platform);
	const { dispatch, getState } = store(sources, { "base/config": {} });
	return {
		receive: (json, id = null) => dispatch({ type: sources.NON_PARTICIPANT_MESSAGE_RECEIVED, id, json }),
		state: () => getState()[FEATURE],
		leave: () => dispatch({ type: sources.CONFERENCE_LEFT }),
	};
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
	const timer = await meetingTimer(process.argv[2] ?? "web");
	for await (const line of createInterface(process.stdin)) {
		timer.receive(JSON.parse(line));
		console.log(JSON.stringify(timer.state()));
	}
	timer.leave();
}

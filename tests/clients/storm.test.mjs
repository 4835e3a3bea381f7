// `USHER_SEED=…` repeats a run.

import { describe, test } from "node:test";

import { assertEachReceivedLiveOnce, storm } from "./storm.mjs";

const SEED = Number(process.env.USHER_SEED ?? 20_261_122);
// A second kill makes all visitors reconnect, which would hide lost messages. So only one case has it.
const STORMS = {
	"when all are released at once": { release_per_second: 0, again: false },
	"when 500 are released per second": { release_per_second: 500, again: false },
	"when usher is killed again during the release": { release_per_second: 500, again: true },
};

describe("a thousand visitors with breaking connections", () => {
	for (const [name, { release_per_second, again }] of Object.entries(STORMS)) {
		test(`each receives the live message once per subscription ${name}`, { timeout: 60_000 }, async (t) => {
			t.diagnostic(`seed ${SEED}`);
			const report = (line) => t.diagnostic(line);
			const outcome = await storm({ seed: SEED, queue: { release_per_second }, again, report });
			const { subscriptions } = assertEachReceivedLiveOnce(outcome);
			report(`${subscriptions} subscriptions; disruptions: ${JSON.stringify(outcome.disrupted)}`);
			report(`at most ${outcome.moderator.highest} were reported as waiting`);
		});
	}
});

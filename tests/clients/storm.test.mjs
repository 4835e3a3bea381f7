// The storm, as a test. `USHER_SEED=…` repeats one.

import { describe, test } from "node:test";

import { assertNobodyLostOrToldTwice, storm } from "./storm.mjs";

const SEED = Number(process.env.USHER_SEED ?? 20_261_122);
// Killing usher again heals what it forgot, for everybody comes back: so not in every storm.
const STORMS = {
	"released all at once": { release_per_second: 0, again: false },
	"released 500 a second": { release_per_second: 500, again: false },
	"killed again while it lets them in": { release_per_second: 500, again: true },
};

describe("a thousand visitors in a storm", () => {
	for (const [name, { release_per_second, again }] of Object.entries(STORMS)) {
		test(`none is lost and none told twice, ${name}`, { timeout: 60_000 }, async (t) => {
			t.diagnostic(`seed ${SEED}`);
			const report = (line) => t.diagnostic(line);
			const outcome = await storm({ seed: SEED, queue: { release_per_second }, again, report });
			const { subscriptions } = assertNobodyLostOrToldTwice(outcome);
			report(`${subscriptions} subscriptions; came to grief: ${JSON.stringify(outcome.grief)}`);
			report(`at most ${outcome.watching.highest} were said to wait`);
		});
	}
});

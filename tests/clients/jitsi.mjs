// The sources of Jitsi's clients from npm's @jitsi/react-native-sdk, as modules of Node.js.

import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

import { MessageQueue } from "./harness.mjs";

const PACKAGE = "@jitsi/react-native-sdk/react/features";
const FEATURES = fileURLToPath(new URL(`node_modules/${PACKAGE}`, import.meta.url));

// These run unmodified. Everything else, as React Native and the user interface, is a stand-in.
const ORIGINALS = [
	/^(visitors|time-timer)\/[^/]+$/,
	/^base\/util\/(uri|strings)(\.web|\.native)?$/,
	/^base\/redux\/\w+$/,
	/\/actionTypes$/,
];
const DEPENDENCIES = ["@stomp/stompjs", "redux", "unorm"];

// Functions of a stand-in return an action with their name and arguments, which a store ignores.
const STAND_IN = `
	function standIn(name) {
		const members = {};
		return new Proxy(function () {}, {
			get: (_, key) => (typeof key === "symbol" ? () => name : (members[key] ??= standIn(name + "." + key))),
			apply: (_, self, args) => ({ type: name, args }),
		});
	}
	module.exports = Object.create(standIn(NAME));
`;
const LOGGING = `
	export const lines = [];
	const add = (...parts) => lines.push(parts.join(" "));
	export const getLogger = () => ({ debug: add, error: add, info: add, warn: add });
`;

function standIns(build) {
	build.onResolve({ filter: /.*/ }, ({ path, importer, resolveDir }) => {
		if (importer === "" || DEPENDENCIES.includes(path) || importer.includes("/node_modules/", FEATURES.length)) return;
		if (relative(FEATURES, importer).startsWith("..") && importer !== "<stdin>") return;
		const own = path.startsWith(".") ? relative(FEATURES, join(resolveDir, path)) : path.replace(`${PACKAGE}/`, "");
		if (own === "base/logging/functions") return { path: own, namespace: "logging" };
		if (!ORIGINALS.some((pattern) => pattern.test(own))) return { path: own, namespace: "stand-in" };
	});
	build.onLoad({ filter: /.*/, namespace: "logging" }, () => ({ contents: LOGGING }));
	build.onLoad({ filter: /.*/, namespace: "stand-in" }, ({ path }) => ({
		contents: STAND_IN.replace("NAME", JSON.stringify(path)),
	}));
}

/**
 * Returns the exports of a module with the text `source`, in which paths like "visitors/middleware" are files of Jitsi.
 * `platform` is "web" or "native". Each call evaluates the files again.
 */
export async function jitsi(source, platform = "web") {
	const contents = source.replaceAll(/(from|import) "/g, `$&${PACKAGE}/`);
	const { outputFiles } = await build({
		stdin: { contents, resolveDir: dirname(fileURLToPath(import.meta.url)) },
		bundle: true,
		write: false,
		format: "esm",
		resolveExtensions: [`.${platform}.ts`, ".any.ts", ".ts", ".js"],
		plugins: [{ name: "stand-ins", setup: standIns }],
		logLevel: "error",
	});
	const text = Buffer.from(outputFiles[0].contents).toString("base64");
	return import(`data:text/javascript;base64,${text}#${Math.random()}`);
}

/** A redux store with Jitsi's registered middleware and reducers, and with fixed states of other features. */
export function store({ middlewares, reducers }, states) {
	const actions = new MessageQueue();
	const fixed = Object.entries(states).map(([feature, state]) => [`features/${feature}`, () => state]);
	const reduce = reducers.combineReducers(Object.fromEntries(fixed));
	let state = reduce(undefined, { type: "initial" });
	const create = () => ({
		getState: () => state,
		dispatch(action) {
			state = reduce(state, action);
			actions.push(action);
			return action;
		},
	});
	return { ...middlewares.applyMiddleware(thunk)(create)(), actions };
}

function thunk({ dispatch, getState }) {
	return (next) => (action) => (typeof action === "function" ? action(dispatch, getState) : next(action));
}

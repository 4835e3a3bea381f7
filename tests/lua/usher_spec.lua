-- Unit tests of usher.lib.lua with a simulated module API, net.http and clock.

local plugins = (debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "").."prosody-plugins/";

describe("usher.lib", function ()
	local usher, module, requests, timers, logged, options;

	local function load_usher()
		return module:require("usher");
	end

	local function count(level)
		local n = 0;
		for _, line in ipairs(logged) do
			if line.level == level then n = n + 1; end
		end
		return n;
	end

	-- Answers the oldest pending request.
	local function answer(code, body)
		table.remove(requests, 1).callback(body or "", code);
	end

	local function fail()
		answer(0, "connection refused");
	end

	-- Runs the earliest timer and returns its delay.
	local function tick()
		table.sort(timers, function (a, b) return a.delay < b.delay; end);
		local timer = assert(table.remove(timers, 1), "no timer is running");
		timer.callback();
		return timer.delay;
	end

	before_each(function ()
		requests, timers, logged = {}, {}, {};
		options = { usher_token = "secret", usher_timeout = 5 };
		module = {};
		local function get_option(_, name, default)
			if options[name] == nil then return default; end
			return options[name];
		end
		module.get_option_string, module.get_option_number = get_option, get_option;
		function module:require(name)
			return assert(loadfile(plugins..name..".lib.lua", "t", setmetatable({ module = self }, { __index = _G })))();
		end
		function module:log(level, ...)
			table.insert(logged, { module = self; level = level; text = string.format(...) });
		end
		module.log_status = module.log;
		function module:add_timer(delay, callback)
			local timer = { module = self; delay = delay; callback = callback };
			function timer.stop()
				for i, other in ipairs(timers) do
					if other == timer then return table.remove(timers, i); end
				end
			end
			table.insert(timers, timer);
			return timer;
		end
		package.loaded["net.http"] = {
			request = function (url, request, callback)
				request.url, request.callback = url, callback;
				table.insert(requests, request);
				return request;
			end;
			destroy_request = function (request)
				request.destroyed = true;
			end;
			formencode = function (form)
				return "name="..form.name;
			end;
		};
		package.loaded["util.json"] = {
			decode = function (text)
				local message = text:match('^{"message":"(.*)"}$');
				return message and { message = message } or nil, "not JSON";
			end;
			encode = function (data)
				return ('{"conference":"%s"}'):format(data.conference);
			end;
		};
		usher = load_usher();
	end);

	after_each(function ()
		package.loaded["net.http"], package.loaded["util.json"] = nil, nil;
	end);

	describe("a request", function ()
		local responses;

		local function callback(code, data)
			table.insert(responses, { code = code; data = data });
		end

		before_each(function ()
			responses = {};
		end);

		it("contains the token and an encoded form", function ()
			usher.request("POST", "/conference", { name = "room1" }, callback);
			local sent = requests[1];
			assert.equal("http://127.0.0.1:8060/conference", sent.url);
			assert.equal("POST", sent.method);
			assert.equal("Bearer secret", sent.headers.Authorization);
			assert.equal("name=room1", sent.body);
			assert.equal("application/x-www-form-urlencoded", sent.headers["Content-Type"]);
		end);

		it("has a JSON body if requested", function ()
			usher.request("POST", "/golive", { json = { conference = "a@b" } }, callback);
			assert.equal('{"conference":"a@b"}', requests[1].body);
			assert.equal("application/json", requests[1].headers["Content-Type"]);
		end);

		it("has neither body nor content type without a form", function ()
			usher.request("GET", "/a", nil, callback);
			assert.is_nil(requests[1].body);
			assert.is_nil(requests[1].headers["Content-Type"]);
		end);

		it("has its own header table", function ()
			usher.request("GET", "/a", nil, callback);
			usher.request("GET", "/b", nil, callback);
			assert.are_not.equal(requests[1].headers, requests[2].headers);
		end);

		it("has no Authorization header without a token", function ()
			options.usher_token = nil;
			load_usher().request("GET", "/a", nil, callback);
			assert.is_nil(requests[1].headers.Authorization);
		end);

		it("accepts a URL with trailing slashes", function ()
			options.usher_url = "https://usher.example.com//";
			load_usher().request("GET", "/a", nil, callback);
			assert.equal("https://usher.example.com/a", requests[1].url);
		end);

		it("passes status and body to the callback", function ()
			usher.request("GET", "/a", nil, callback);
			answer(403, '{"message":"not today"}');
			assert.same({ { code = 403; data = { message = "not today" } } }, responses);
		end);

		it("passes an empty table for a body that is not JSON", function ()
			usher.request("GET", "/a", nil, callback);
			answer(200, "<html>");
			assert.same({ { code = 200; data = {} } }, responses);
		end);

		it("stops its timer after the response", function ()
			usher.request("GET", "/a", nil, callback);
			answer(200);
			assert.same({}, timers);
		end);

		it("fails at its time-out and ignores a later response", function ()
			usher.request("GET", "/a", nil, callback);
			local sent = requests[1];
			assert.equal(5, tick());
			assert.is_true(sent.destroyed);
			answer(200);
			assert.same({ { code = 0; data = {} } }, responses);
		end);

		it("fails at once if net.http fails", function ()
			package.loaded["net.http"].request = function (_, _, on_answer)
				on_answer("invalid-url", 0);
			end;
			load_usher().request("GET", "/a", nil, callback);
			assert.same({ { code = 0; data = {} } }, responses);
			assert.same({}, timers);
		end);

		it("does not call back after the module was unloaded", function ()
			usher.request("GET", "/a", nil, callback);
			module.loaded = false;
			answer(200);
			assert.same({}, responses);
		end);

		for _, code in ipairs({ 500, 503, 401, 408, 429 }) do
			it("reports a failure for status "..code, function ()
				usher.request("GET", "/a", nil, callback);
				answer(code, '{"message":"sorry"}');
				assert.equal(0, responses[1].code);
				assert.equal(1, count("warn"));
			end);
		end
	end);

	describe("the state of usher", function ()
		local function ignore() end

		it("is logged when it changes, not for every request", function ()
			for _ = 1, 3 do
				usher.request("GET", "/a", nil, ignore);
				fail();
			end
			assert.equal(1, count("warn"));
			for _ = 1, 3 do
				usher.request("GET", "/a", nil, ignore);
				answer(200);
			end
			assert.equal(1, count("warn"));
			assert.equal(1, count("info"));
		end);

		it("is passed to listeners when it changes", function ()
			local changes = {};
			usher.on_change(function (is_up) table.insert(changes, is_up); end);
			for _, act in ipairs({ answer, fail, fail, answer, answer }) do
				usher.request("GET", "/a", nil, ignore);
				act(200);
			end
			assert.same({ false, true }, changes);
		end);

		it("is not changed by a refusal", function ()
			usher.request("POST", "/conference", { name = "x" }, ignore);
			answer(403);
			assert.same({}, logged);
		end);
	end);

	describe("the token", function ()
		local path;

		before_each(function ()
			path = os.tmpname();
			options.usher_token = nil;
			options.usher_token_file = path;
		end);

		after_each(function ()
			os.remove(path);
		end);

		it("is read from a file without surrounding white space", function ()
			local file = assert(io.open(path, "w"));
			file:write("  from-a-file\n");
			file:close();
			load_usher().request("GET", "/a", nil, function () end);
			assert.equal("Bearer from-a-file", requests[1].headers.Authorization);
		end);

		it("is reported as missing if its file cannot be read", function ()
			os.remove(path);
			load_usher();
			assert.equal(1, count("error"));
		end);
	end);

	describe("a queued request", function ()
		it("is sent once if usher accepts it", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			assert.equal("DELETE", requests[1].method);
			answer(204);
			assert.same({}, requests);
			assert.same({}, timers);
			assert.same({}, usher.save());
		end);

		it("counts as delivered if usher responds with 404", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			answer(404);
			assert.same({}, usher.save());
		end);

		it("is retried with increasing delays up to a minute", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			local pauses = {};
			for i = 1, 9 do
				fail();
				pauses[i] = tick();
			end
			assert.same({ 1, 2, 4, 8, 16, 32, 60, 60, 60 }, pauses);
			answer(204);
			assert.same({}, usher.save());
		end);

		it("is retried after a short delay again once a request was delivered", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			fail();
			tick();
			fail();
			tick();
			answer(204);
			usher.tell("room2", "DELETE", "/conference/8");
			fail();
			assert.equal(1, tick());
		end);

		it("does not block others if usher rejects it", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.tell("room2", "DELETE", "/conference/8");
			answer(400);
			tick();
			assert.truthy(requests[1].url:find("/conference/8", 1, true));
		end);

		it("is sent alone, and the next one after it", function ()
			for i = 1, 5 do
				usher.tell("room"..i, "DELETE", "/conference/"..i);
			end
			for i = 1, 5 do
				assert.equal(1, #requests);
				assert.truthy(requests[1].url:find("/"..i, 1, true));
				answer(204);
			end
		end);

		it("is sent at once when usher responds to another request", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			fail();
			usher.request("GET", "/a", nil, function () end);
			answer(200);
			assert.equal("DELETE", requests[1].method);
			assert.same({ 5 }, { timers[1].delay, timers[2] and timers[2].delay });
		end);

		it("is dropped for a newer one if a thousand are queued", function ()
			for i = 1, 1001 do
				usher.tell("room"..i, "DELETE", "/conference/"..i);
			end
			local saved = usher.save();
			assert.equal(1000, #saved);
			assert.equal("room1001", saved[1000].key);
		end);

		it("survives a reload", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.tell("room2", "DELETE", "/conference/8");
			local saved = usher.save();
			requests = {};
			load_usher().restore(saved);
			assert.truthy(requests[1].url:find("/7", 1, true));
			answer(204);
			assert.truthy(requests[1].url:find("/8", 1, true));
			answer(204);
			assert.same({}, requests);
		end);
	end);

	describe("a queued state", function ()
		local function tell(key, state)
			usher.tell_state(key, "POST", "/"..state, { json = { conference = key } });
		end

		local function first_request()
			local path = requests[1] and requests[1].url:match("[^/]+$");
			return path, #requests;
		end

		it("is retried as JSON until it is delivered", function ()
			tell("room1", "golive");
			assert.equal('{"conference":"room1"}', requests[1].body);
			fail();
			tick();
			answer(200);
			assert.same({}, usher.save());
		end);

		it("is not delivered by a response with 404", function ()
			tell("room1", "golive");
			answer(404);
			assert.equal(1, #usher.save());
			assert.equal(1, count("warn"));
		end);

		it("is logged once if usher rejects it", function ()
			tell("room1", "golive");
			for _ = 1, 3 do
				answer(403, '{"message":"not yours"}');
				tick();
			end
			assert.equal(1, count("warn"));
			assert.truthy(logged[1].text:find("not yours", 1, true));
		end);

		it("does not block others while usher rejects it", function ()
			tell("room1", "golive");
			for _ = 1, 6 do
				answer(403);
				tick();
			end
			answer(403);
			tell("room2", "golive");
			assert.equal('{"conference":"room2"}', requests[1].body);
		end);

		it("is sent after the one before it", function ()
			tell("room1", "golive");
			tell("room1", "endlive");
			assert.same({ "golive", 1 }, { first_request() });
			answer(200);
			assert.same({ "endlive", 1 }, { first_request() });
			answer(200);
			assert.same({}, requests);
		end);

		it("replaces an undelivered one", function ()
			tell("room1", "golive");
			fail();
			tell("room1", "endlive");
			tick();
			assert.same({ "endlive", 1 }, { first_request() });
			answer(200);
			assert.same({}, requests);
		end);

		it("replaces one that fails while it waits", function ()
			tell("room1", "golive");
			tell("room1", "endlive");
			fail();
			assert.same({ "endlive", 1 }, { first_request() });
			fail();
			tick();
			assert.same({ "endlive", 1 }, { first_request() });
			answer(200);
			assert.same({}, requests);
		end);

		it("does not replace states of other rooms or other requests of the same room", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			tell("room2", "golive");
			tell("room1", "golive");
			tell("room1", "endlive");
			local saved = usher.save();
			assert.same({ "/conference/7", "/golive", "/endlive" }, { saved[1].path, saved[2].path, saved[3].path });
		end);

		it("is pending until it is delivered", function ()
			assert.is_true(usher.has_heard("room1"));
			tell("room1", "golive");
			assert.is_false(usher.has_heard("room1"));
			assert.is_true(usher.has_heard("room2"));
			answer(200);
			assert.is_true(usher.has_heard("room1"));
		end);

		it("passes callbacks of an older one to a newer one", function ()
			local delivered = {};
			tell("room1", "golive");
			usher.when_told("room1", function (ok) table.insert(delivered, ok); end);
			tell("room1", "endlive");
			fail();
			assert.same({}, delivered);
			answer(200);
			assert.same({ true }, delivered);
		end);

		it("is still the newest of its room after a reload", function ()
			tell("room1", "golive");
			tell("room1", "endlive");
			local saved = usher.save();
			requests = {};
			usher = load_usher();
			usher.restore(saved);
			assert.same({ "endlive", 1 }, { first_request() });
			tell("room1", "golive");
			fail();
			assert.same({ "golive", 1 }, { first_request() });
		end);
	end);

	describe("waiting for delivery", function ()
		local delivered;

		local function callback(ok)
			table.insert(delivered, ok);
		end

		before_each(function ()
			delivered = {};
		end);

		it("ends at once if nothing is queued", function ()
			usher.tell("room2", "DELETE", "/conference/8");
			usher.when_told("room1", callback);
			assert.same({ true }, delivered);
		end);

		it("lasts until the current request is delivered", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.when_told("room1", callback);
			assert.same({}, delivered);
			answer(204);
			assert.same({ true }, delivered);
		end);

		it("sends the request at once, before all others", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			fail();
			usher.tell("room2", "DELETE", "/conference/8");
			usher.when_told("room2", callback);
			assert.equal(1, #requests);
			assert.truthy(requests[1].url:find("/8", 1, true));
			answer(204);
			assert.same({ true }, delivered);
		end);

		it("retries once if the current attempt fails", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.when_told("room1", callback);
			fail();
			assert.same({}, delivered);
			assert.truthy(requests[1].url:find("/7", 1, true));
			fail();
			assert.same({ false }, delivered);
			assert.equal(1, #usher.save());
		end);

		it("ends with false if usher is not reachable", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.tell("room2", "DELETE", "/conference/8");
			usher.when_told("room2", callback);
			fail();
			assert.same({ false }, delivered);
			assert.equal(2, #usher.save());
		end);
	end);
end);

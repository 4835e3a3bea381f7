-- usher.lib.lua on its own: Prosody's module API, net.http and the clock are stand-ins that the test moves by hand.

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

	-- Answers the oldest request that is still open.
	local function answer(code, body)
		table.remove(requests, 1).callback(body or "", code);
	end

	local function fail()
		answer(0, "connection refused");
	end

	-- Lets the earliest timer fire; its delay.
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
		local heard;

		local function callback(code, data)
			table.insert(heard, { code = code; data = data });
		end

		before_each(function ()
			heard = {};
		end);

		it("goes to usher with the token and an encoded form", function ()
			usher.request("POST", "/conference", { name = "room1" }, callback);
			local sent = requests[1];
			assert.equal("http://127.0.0.1:8060/conference", sent.url);
			assert.equal("POST", sent.method);
			assert.equal("Bearer secret", sent.headers.Authorization);
			assert.equal("name=room1", sent.body);
			assert.equal("application/x-www-form-urlencoded", sent.headers["Content-Type"]);
		end);

		it("goes to usher as JSON if that is wanted", function ()
			usher.request("POST", "/golive", { json = { conference = "a@b" } }, callback);
			assert.equal('{"conference":"a@b"}', requests[1].body);
			assert.equal("application/json", requests[1].headers["Content-Type"]);
		end);

		it("has neither body nor type where nothing is sent along", function ()
			usher.request("GET", "/a", nil, callback);
			assert.is_nil(requests[1].body);
			assert.is_nil(requests[1].headers["Content-Type"]);
		end);

		it("has headers of its own, which nobody else can change", function ()
			usher.request("GET", "/a", nil, callback);
			usher.request("GET", "/b", nil, callback);
			assert.are_not.equal(requests[1].headers, requests[2].headers);
		end);

		it("goes out without Authorization where no token is set", function ()
			options.usher_token = nil;
			load_usher().request("GET", "/a", nil, callback);
			assert.is_nil(requests[1].headers.Authorization);
		end);

		it("takes a URL that ends in a slash", function ()
			options.usher_url = "https://usher.example.com//";
			load_usher().request("GET", "/a", nil, callback);
			assert.equal("https://usher.example.com/a", requests[1].url);
		end);

		it("hands over status and body", function ()
			usher.request("GET", "/a", nil, callback);
			answer(403, '{"message":"not today"}');
			assert.same({ { code = 403; data = { message = "not today" } } }, heard);
		end);

		it("makes an empty table of a body that is no JSON", function ()
			usher.request("GET", "/a", nil, callback);
			answer(200, "<html>");
			assert.same({ { code = 200; data = {} } }, heard);
		end);

		it("leaves no timer behind", function ()
			usher.request("GET", "/a", nil, callback);
			answer(200);
			assert.same({}, timers);
		end);

		it("is given up at its deadline, and an answer after it is not heard", function ()
			usher.request("GET", "/a", nil, callback);
			local sent = requests[1];
			assert.equal(5, tick());
			assert.is_true(sent.destroyed);
			answer(200);
			assert.same({ { code = 0; data = {} } }, heard);
		end);

		it("fails at once where net.http does", function ()
			package.loaded["net.http"].request = function (_, _, on_answer)
				on_answer("invalid-url", 0);
			end;
			load_usher().request("GET", "/a", nil, callback);
			assert.same({ { code = 0; data = {} } }, heard);
			assert.same({}, timers);
		end);

		it("is not heard of after the module was unloaded", function ()
			usher.request("GET", "/a", nil, callback);
			module.loaded = false;
			answer(200);
			assert.same({}, heard);
		end);

		for _, code in ipairs({ 500, 503, 401, 408, 429 }) do
			it("reads no decision from "..code, function ()
				usher.request("GET", "/a", nil, callback);
				answer(code, '{"message":"sorry"}');
				assert.equal(0, heard[1].code);
				assert.equal(1, count("warn"));
			end);
		end
	end);

	describe("the state of usher", function ()
		local function ignore() end

		it("is logged when it changes, not with every request", function ()
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

		it("is announced when it changes", function ()
			local changes = {};
			usher.on_change(function (is_up) table.insert(changes, is_up); end);
			for _, act in ipairs({ answer, fail, fail, answer, answer }) do
				usher.request("GET", "/a", nil, ignore);
				act(200);
			end
			assert.same({ false, true }, changes);
		end);

		it("is fine with a refusal", function ()
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

		it("can come from a file, without the blanks around it", function ()
			local file = assert(io.open(path, "w"));
			file:write("  from-a-file\n");
			file:close();
			load_usher().request("GET", "/a", nil, function () end);
			assert.equal("Bearer from-a-file", requests[1].headers.Authorization);
		end);

		it("is missed loudly when its file can't be read", function ()
			os.remove(path);
			load_usher();
			assert.equal(1, count("error"));
		end);
	end);

	describe("a fact", function ()
		it("is told once when usher hears it", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			assert.equal("DELETE", requests[1].method);
			answer(204);
			assert.same({}, requests);
			assert.same({}, timers);
			assert.same({}, usher.save());
		end);

		it("counts as told when usher knows of no such thing", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			answer(404);
			assert.same({}, usher.save());
		end);

		it("is told again until it is heard, with longer and longer pauses up to a minute", function ()
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

		it("is told again soon after one was heard", function ()
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

		it("does not hold up the others when usher chokes on it", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.tell("room2", "DELETE", "/conference/8");
			answer(400);
			tick();
			assert.truthy(requests[1].url:find("/conference/8", 1, true));
		end);

		it("goes out alone, and the next one after it", function ()
			for i = 1, 5 do
				usher.tell("room"..i, "DELETE", "/conference/"..i);
			end
			for i = 1, 5 do
				assert.equal(1, #requests);
				assert.truthy(requests[1].url:find("/"..i, 1, true));
				answer(204);
			end
		end);

		it("is told at once when usher answers something else again", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			fail();
			usher.request("GET", "/a", nil, function () end);
			answer(200);
			assert.equal("DELETE", requests[1].method);
			assert.same({ 5 }, { timers[1].delay, timers[2] and timers[2].delay });
		end);

		it("is given up for a newer one when a thousand wait", function ()
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

	describe("a state", function ()
		local function tell(key, state)
			usher.tell_state(key, "POST", "/"..state, { json = { conference = key } });
		end

		local function said()
			local path = requests[1] and requests[1].url:match("[^/]+$");
			return path, #requests;
		end

		it("is told as JSON until it is heard", function ()
			tell("room1", "golive");
			assert.equal('{"conference":"room1"}', requests[1].body);
			fail();
			tick();
			answer(200);
			assert.same({}, usher.save());
		end);

		it("is not heard by a usher that knows no such path", function ()
			tell("room1", "golive");
			answer(404);
			assert.equal(1, #usher.save());
			assert.equal(1, count("warn"));
		end);

		it("is complained about once when usher does not take it", function ()
			tell("room1", "golive");
			for _ = 1, 3 do
				answer(403, '{"message":"not yours"}');
				tick();
			end
			assert.equal(1, count("warn"));
			assert.truthy(logged[1].text:find("not yours", 1, true));
		end);

		it("makes no other wait while usher does not take it", function ()
			tell("room1", "golive");
			for _ = 1, 6 do
				answer(403);
				tick();
			end
			answer(403);
			tell("room2", "golive");
			assert.equal('{"conference":"room2"}', requests[1].body);
		end);

		it("comes after the one before it", function ()
			tell("room1", "golive");
			tell("room1", "endlive");
			assert.same({ "golive", 1 }, { said() });
			answer(200);
			assert.same({ "endlive", 1 }, { said() });
			answer(200);
			assert.same({}, requests);
		end);

		it("takes the place of one that was not heard", function ()
			tell("room1", "golive");
			fail();
			tell("room1", "endlive");
			tick();
			assert.same({ "endlive", 1 }, { said() });
			answer(200);
			assert.same({}, requests);
		end);

		it("takes the place of one that fails while it waits", function ()
			tell("room1", "golive");
			tell("room1", "endlive");
			fail();
			assert.same({ "endlive", 1 }, { said() });
			fail();
			tick();
			assert.same({ "endlive", 1 }, { said() });
			answer(200);
			assert.same({}, requests);
		end);

		it("leaves those of other rooms, and facts of the same room, alone", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			tell("room2", "golive");
			tell("room1", "golive");
			tell("room1", "endlive");
			local saved = usher.save();
			assert.same({ "/conference/7", "/golive", "/endlive" }, { saved[1].path, saved[2].path, saved[3].path });
		end);

		it("is unheard until it is heard", function ()
			assert.is_true(usher.has_heard("room1"));
			tell("room1", "golive");
			assert.is_false(usher.has_heard("room1"));
			assert.is_true(usher.has_heard("room2"));
			answer(200);
			assert.is_true(usher.has_heard("room1"));
		end);

		it("hands those who wait for an older one on to a newer one", function ()
			local told = {};
			tell("room1", "golive");
			usher.when_told("room1", function (ok) table.insert(told, ok); end);
			tell("room1", "endlive");
			fail();
			assert.same({}, told);
			answer(200);
			assert.same({ true }, told);
		end);

		it("survives a reload as the newest of its room", function ()
			tell("room1", "golive");
			tell("room1", "endlive");
			local saved = usher.save();
			requests = {};
			usher = load_usher();
			usher.restore(saved);
			assert.same({ "endlive", 1 }, { said() });
			tell("room1", "golive");
			fail();
			assert.same({ "golive", 1 }, { said() });
		end);
	end);

	describe("waiting until usher has heard", function ()
		local told;

		local function callback(ok)
			table.insert(told, ok);
		end

		before_each(function ()
			told = {};
		end);

		it("is no wait where there is nothing to tell", function ()
			usher.tell("room2", "DELETE", "/conference/8");
			usher.when_told("room1", callback);
			assert.same({ true }, told);
		end);

		it("lasts until the fact under way is heard", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.when_told("room1", callback);
			assert.same({}, told);
			answer(204);
			assert.same({ true }, told);
		end);

		it("tells the fact at once, before all others", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			fail();
			usher.tell("room2", "DELETE", "/conference/8");
			usher.when_told("room2", callback);
			assert.equal(1, #requests);
			assert.truthy(requests[1].url:find("/8", 1, true));
			answer(204);
			assert.same({ true }, told);
		end);

		it("gets an attempt of its own if the one under way fails", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.when_told("room1", callback);
			fail();
			assert.same({}, told);
			assert.truthy(requests[1].url:find("/7", 1, true));
			fail();
			assert.same({ false }, told);
			assert.equal(1, #usher.save());
		end);

		it("ends with a no when usher can't be told", function ()
			usher.tell("room1", "DELETE", "/conference/7");
			usher.tell("room2", "DELETE", "/conference/8");
			usher.when_told("room2", callback);
			fail();
			assert.same({ false }, told);
			assert.equal(2, #usher.save());
		end);
	end);
end);

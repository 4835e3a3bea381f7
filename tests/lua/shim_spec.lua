-- Unit tests of the pure parts of the modules: addresses, users of tokens, HTTP, stanzas that wait. All else is tested
-- in a real Prosody (tests/prosody).

local plugins = (debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "").."prosody-plugins/";

describe("the modules", function ()
	local module, options, loaded, logged;

	local function no_set()
		return { contains = function () return false; end };
	end

	local function load_library(name)
		return assert(loadfile(plugins..name..".lib.lua", "t", setmetatable({ module = module }, { __index = _G })))();
	end

	before_each(function ()
		options, loaded, logged = {}, {}, {};
		module = { host = "meet.example.com" };
		local function get_option(_, name, default)
			if options[name] == nil then return default; end
			return options[name];
		end
		module.get_option_string, module.get_option_number, module.get_option_array = get_option, get_option, get_option;
		module.get_option_set, module.get_option_inherited_set = no_set, no_set;
		function module:context() return self; end
		function module:log(level, ...) table.insert(logged, { module = self; level = level; text = string.format(...) }); end
		module.log_status = module.log;
		function module:require(name)
			return loaded[name] or load_library(name, self);
		end
		local function split(address)
			local node, rest = address:match("^([^@/]+)@(.+)$");
			local host, resource = (rest or address):match("^([^/]+)/?(.*)$");
			return node, host, resource ~= "" and resource or nil;
		end
		package.loaded["util.jid"] = {
			split = split;
			join = function (node, host) return node.."@"..host; end;
			bare = function (address) return (address:gsub("/.*", "")); end;
			host = function (address) return (select(2, split(address))); end;
			resource = function (address) return (select(3, split(address))); end;
		};
		package.loaded["util.encodings"] = { stringprep = { nodeprep = string.lower } };
		package.loaded["core.configmanager"] = { get = function () end };
		package.loaded["core.modulemanager"] = {};
	end);

	after_each(function ()
		for _, name in ipairs({ "util.jid", "util.encodings", "core.configmanager", "core.modulemanager", "util.stanza",
			"net.http", "util.json" }) do
			package.loaded[name] = nil;
		end
	end);

	describe("the room of an address", function ()
		local cases = {
			{ "Room1@conference.meet.example.com", "room1@conference.meet.example.com" };
			{ "room1@conference.acme.meet.example.com", "[acme]room1@conference.meet.example.com" };
			{ "room1@conference.my_tenant.meet.example.com", "[my_tenant]room1@conference.meet.example.com" };
			{ "room1@breakout.meet.example.com", nil };
			{ "room1@conference.a.b.meet.example.com", nil };
			{ "room1@conference.acme.meetXexample.com", nil };
			{ "conference.meet.example.com", nil };
			{ "", nil };
		};
		for _, case in ipairs(cases) do
			it(("%q is %s"):format(case[1], tostring(case[2])), function ()
				local found = load_library("usher_jitsi").room_of(case[1]);
				assert.equal(case[2], found);
			end);
		end
	end);

	describe("the user of a session", function ()
		local function id_of(value)
			return load_library("usher_jitsi").user_of({ jitsi_meet_context_user = { id = value } }).id;
		end

		it("has texts, whole numbers and booleans of the token", function ()
			assert.equal("u-17", id_of("u-17"));
			assert.equal("1001", id_of(1001.0));
			assert.equal("1001", id_of(1001));
			assert.equal("-3", id_of(-3));
			assert.equal(true, id_of(true));
		end);

		for _, value in ipairs({ "", 1.5, 1e300, math.huge, -math.huge, 0/0, {}, io.stdout }) do
			it("has nothing for "..tostring(value), function ()
				assert.is_nil(id_of(value));
			end);
		end

		it("is empty without a token", function ()
			local jitsi = load_library("usher_jitsi");
			assert.same({}, (jitsi.user_of({})));
			assert.same({}, (jitsi.user_of({ jitsi_meet_context_user = "x" })));
		end);
	end);

	describe("a request to usher", function ()
		local requests, timers, responses, server;

		local function answer(code, body)
			table.remove(requests, 1).callback(body, code);
		end

		local function request(method, data)
			server.request(method or "GET", "/a", data, 5, function (code, content)
				table.insert(responses, { code = code; content = content });
			end);
		end

		local function load_server()
			server = load_library("usher_http");
		end

		before_each(function ()
			requests, timers, responses = {}, {}, {};
			options.usher_token = "secret";
			function module.add_timer(_, delay, callback)
				local timer = { delay = delay; callback = callback };
				function timer.stop() timer.stopped = true; end
				table.insert(timers, timer);
				return timer;
			end
			package.loaded["net.http"] = {
				request = function (url, content, callback)
					content.url, content.callback = url, callback;
					table.insert(requests, content);
					return content;
				end;
				destroy_request = function (content) content.destroyed = true; end;
			};
			package.loaded["util.json"] = {
				encode = function (data) return "encoded "..data; end;
				decode = function (body) return body:match("^{") and { message = body } or nil; end;
			};
			load_server();
		end);

		it("has the token and a body of JSON", function ()
			request("POST", "data");
			local sent = requests[1];
			assert.equal("http://127.0.0.1:8060/a", sent.url);
			assert.equal("Bearer secret", sent.headers.Authorization);
			assert.equal("application/json", sent.headers["Content-Type"]);
			assert.equal("encoded data", sent.body);
		end);

		it("has no Authorization header without a token", function ()
			options.usher_token = nil;
			load_server();
			request();
			assert.is_nil(requests[1].headers.Authorization);
		end);

		for _, code in ipairs({ 200, 410 }) do
			it("is answered by "..code, function ()
				request();
				answer(code, "{}");
				assert.same({ { code = code; content = { message = "{}" } } }, responses);
				assert.is_true(timers[1].stopped);
			end);
		end

		for _, code in ipairs({ 500, 503, 401, 403, 404, 408, 413, 429, 0 }) do
			it("fails with "..code..", which is logged once", function ()
				for _ = 1, 3 do
					request();
					answer(code, "reason");
				end
				assert.same({ code = 0; content = {} }, responses[3]);
				assert.equal(1, #logged);
				assert.equal("warn", logged[1].level);
				request();
				answer(200);
				assert.equal("info", logged[2].level);
			end);
		end

		it("fails at its deadline and ignores a later answer", function ()
			request();
			local sent = requests[1];
			assert.equal(5, timers[1].delay);
			timers[1].callback();
			assert.is_true(sent.destroyed);
			answer(200, "{}");
			assert.same({ { code = 0; content = {} } }, responses);
			assert.truthy(logged[1].text:find("no answer within 5 seconds", 1, true));
		end);

		it("is not answered after the module was unloaded", function ()
			request();
			module.loaded = false;
			answer(200, "{}");
			assert.same({}, responses);
		end);

		it("is sent to the next URL at once, and later requests as well", function ()
			options.usher_url = { "http://one/", "http://two" };
			load_server();
			request();
			assert.equal("http://one/a", requests[1].url);
			answer(0, "connection refused");
			assert.equal("http://two/a", requests[1].url);
			answer(200, "{}");
			assert.equal(200, responses[1].code);
			assert.same({}, logged);
			request();
			assert.equal("http://two/a", requests[1].url);
		end);

		it("fails after each URL was tried once", function ()
			options.usher_url = { "http://one", "http://two" };
			load_server();
			request();
			answer(503, "{}");
			answer(0, "timeout");
			assert.same({ { code = 0; content = {} } }, responses);
			assert.same({}, requests);
		end);

		it("has the token of a file, without surrounding white space", function ()
			local path = os.tmpname();
			local file = assert(io.open(path, "w"));
			file:write("  from-a-file\n");
			file:close();
			options.usher_token, options.usher_token_file = nil, path;
			load_server();
			os.remove(path);
			request();
			assert.equal("Bearer from-a-file", requests[1].headers.Authorization);
			load_server();
			assert.equal("error", logged[1].level);
		end);
	end);

	describe("stanzas that wait for a decision", function ()
		local held, asked, answered, sent;

		local function join(id)
			local origin = { send = function (reply) table.insert(answered, reply); end };
			local stanza = { name = "presence"; attr = { from = id.."@host/r"; to = "room1@muc/"..id } };
			return held.ask({ origin = origin; stanza = stanza }, "create", "room1@muc");
		end

		before_each(function ()
			asked, answered, sent = {}, {}, {};
			package.loaded["util.stanza"] = {
				clone = function (stanza) return stanza; end;
				error_reply = function (_, _, _, text) return text; end;
			};
			function module.send(_, stanza)
				table.insert(sent, { stanza = stanza; is_passing = held.is_passing({ stanza = stanza }) });
			end
			held = load_library("usher_held")(function (request, callback)
				table.insert(asked, { request = request; callback = callback });
			end);
		end);

		it("are sent on, or answered with the text of the refusal", function ()
			assert.is_true(join("alice"));
			join("bob");
			asked[1].callback({ action = "allow" });
			asked[2].callback({ action = "refuse"; text = "Not today." });
			assert.equal("room1@muc/alice", sent[1].stanza.attr.to);
			assert.is_true(sent[1].is_passing);
			assert.is_false(held.is_passing(sent[1]));
			assert.same({ "Not today." }, answered);
		end);

		it("are limited to a thousand, and further ones are refused at once", function ()
			for i = 1, 1001 do
				assert.is_true(join("guest"..i));
			end
			assert.equal(1000, #asked);
			assert.equal(1, #answered);
			join("guest1");
			assert.equal(1, #answered, "an occupant who already waits may send another stanza");
			asked[1].callback({ action = "allow" });
			join("late");
			assert.equal(1001, #asked);
		end);

		it("fail if there is no decision", function ()
			join("alice");
			asked[1].callback({ action = "fail" });
			assert.truthy(answered[1]:find("try again", 1, true));
		end);
	end);
end);

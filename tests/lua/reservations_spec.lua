-- Unit tests of the libraries of mod_usher_reservations, with a simulated usher.

local plugins = (debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "").."prosody-plugins/";

describe("libraries of mod_usher_reservations", function ()
	local module, options, usher, requests, logged;

	local function answer(code, data)
		table.remove(requests, 1).callback(code, data or {});
	end

	before_each(function ()
		options, requests, logged = {}, {}, {};
		usher = {
			request = function (method, path, form, callback)
				table.insert(requests, { method = method; path = path; form = form; callback = callback });
			end;
			when_told = function (_, callback) callback(true); end;
		};
		module = {};
		function module.get_option_string(_, name, default)
			return options[name] or default;
		end
		function module:log(level)
			table.insert(logged, { module = self; level = level });
		end
		function module:require(name)
			if name == "usher" then return usher; end
			return assert(loadfile(plugins..name..".lib.lua", "t", setmetatable({ module = self }, { __index = _G })))();
		end
		package.loaded["util.datetime"] = { parse = function (text) return text == "then" and 1000 or nil; end };
	end);

	after_each(function ()
		package.loaded["util.datetime"], package.loaded["util.stanza"] = nil, nil;
	end);

	describe("an allocation", function ()
		local meaning, detail;

		local function ask(data)
			local allocations = module:require "usher_allocations";
			allocations.ask("room1@muc", {}, function (...) meaning, detail = ...; end);
			answer(201, data);
		end

		it("ends when its duration is over", function ()
			ask({ id = 7; start_time = "then"; duration = 60.5 });
			assert.equal("allocated", meaning);
			assert.equal(1060, detail.ends_at);
		end);

		for _, duration in ipairs({ 1e10, 1e300, math.huge }) do
			it("of "..duration.." seconds is limited to 1e9 seconds", function ()
				ask({ id = 7; start_time = "then"; duration = duration });
				assert.equal("allocated", meaning);
				assert.equal(1000 + 1e9, detail.ends_at);
				assert.same({}, logged);
			end);
		end

		it("without a numeric duration is invalid", function ()
			ask({ id = 7; start_time = "then"; duration = "60" });
			assert.equal("failed", meaning);
			assert.equal("error", logged[1].level);
		end);
	end);

	describe("stanzas that wait for a response", function ()
		local held, asked, answered, sent;

		local function join(id)
			local origin = { send = function (reply) table.insert(answered, reply); end };
			local stanza = { name = "presence"; attr = { from = id.."@host"; to = "room1@muc/"..id } };
			return held.ask({ origin = origin; stanza = stanza }, "room1@muc", {});
		end

		before_each(function ()
			asked, answered, sent = {}, {}, {};
			package.loaded["util.stanza"] = {
				clone = function (stanza) return stanza; end;
				error_reply = function (_, _, _, text) return text; end;
			};
			function module.send(_, stanza)
				table.insert(sent, stanza);
			end
			held = module:require "usher_held"({
				ask = function (_, _, callback) table.insert(asked, callback); end;
				approve = function () end;
			});
		end);

		it("are forwarded, or answered with the message of the refusal", function ()
			assert.is_true(join("alice"));
			join("bob");
			asked[1]("allocated", {});
			asked[2]("refused", "Not today.");
			assert.equal("room1@muc/alice", sent[1].attr.to);
			assert.same({ "Not today." }, answered);
		end);

		it("are limited to a thousand, and further ones are refused at once", function ()
			for i = 1, 1001 do
				assert.is_true(join("guest"..i));
			end
			assert.equal(1000, #asked);
			assert.equal(1, #answered);
			assert.truthy(answered[1]:find("try again", 1, true));
			join("guest1");
			assert.equal(1, #answered, "an occupant who already waits may send another stanza");
			asked[1]("allocated", {});
			join("late");
			assert.equal(1001, #asked);
		end);
	end);
end);

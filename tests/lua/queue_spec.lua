-- Unit tests of the libraries of mod_usher_queue, with a simulated Prosody, usher and clock.

local plugins = (debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "").."prosody-plugins/";
local host = "meet.example.com";
local muc_host = "conference."..host;

describe("libraries of mod_usher_queue", function ()
	local module, prosody, options, clock, timers, rooms, events, allocation;
	local conferences, reported, undelivered, looks, lists;

	local function make_room(name, ...)
		local room = { jid = name.."@"..muc_host; occupants = { ... }; owners = {} };
		function room:each_occupant()
			return pairs(self.occupants);
		end
		function room:has_occupant()
			return self.occupants[1] ~= nil;
		end
		function room:get_affiliation(bare_jid)
			return self.owners[bare_jid] and "owner" or "none";
		end
		rooms[room.jid] = room;
		return room;
	end

	local function make_occupant(room, name)
		local occupant = { nick = room.jid.."/"..name; bare_jid = name.."@"..host };
		table.insert(room.occupants, occupant);
		return occupant;
	end

	local function count_announcements()
		local count = 0;
		for _, event in ipairs(events) do
			if event == "room-metadata-changed" then count = count + 1; end
		end
		return count;
	end

	local function tick()
		local timer = table.remove(timers, 1);
		clock = clock + timer.delay;
		timer.callback();
	end

	before_each(function ()
		options, clock, timers, rooms, events, allocation = {}, 1000, {}, {}, {}, nil;
		reported, undelivered, looks, lists = {}, {}, {}, {};
		module = { host = host };
		local function get_option(_, name, default)
			if options[name] == nil then return default; end
			return options[name];
		end
		module.get_option_string, module.get_option_number, module.get_option_boolean = get_option, get_option, get_option;
		module.log = function () end;
		function module:require(name)
			local env = setmetatable({ module = self; prosody = prosody }, { __index = _G });
			return assert(loadfile(plugins..name..".lib.lua", "t", env))();
		end
		function module:context(name)
			return { fire_event = function (_, event) table.insert(events, name == muc_host and event or self.host); end };
		end
		function module.fire_event()
			return allocation;
		end
		function module:add_timer(delay, callback)
			local timer = { module = self; delay = delay; callback = callback; stop = function () end };
			table.insert(timers, timer);
			return timer;
		end
		prosody = { hosts = {
			["metadata."..host] = { modules = { room_metadata_component = {} } };
			[muc_host] = { modules = { muc = {
				get_room_from_jid = function (room_jid) return rooms[room_jid]; end;
				live_rooms = function ()
					local room_jid, room;
					return function ()
						room_jid, room = next(rooms, room_jid);
						return room;
					end;
				end;
			} } };
		} };
		package.loaded["util.time"] = { now = function () return clock; end };
		package.loaded["util.jid"] = {
			resource = function (jid) return jid:match("/(.*)$"); end;
			host = function (jid) return jid:match("@([^/]*)"); end;
			join = function (node, domain) return node.."@"..domain; end;
			split = function (jid) return jid:match("^(.*)@(.*)$"); end;
			prepped_split = function (jid) return jid:match("^(.*)@(.*)$"); end;
		};
		conferences = {
			tell = function (room_jid, is_live) table.insert(reported, (is_live and "live " or "over ")..room_jid:match("^[^@]*")); end;
			has_heard = function (room_jid) return not undelivered[room_jid]; end;
			was_reported = function (room_jid) return room_jid:find("^mine") ~= nil; end;
			look = function (_, callback) table.insert(looks, callback); end;
			list = function (callback) table.insert(lists, callback); end;
		};
	end);

	after_each(function ()
		package.loaded["util.time"], package.loaded["util.jid"] = nil, nil;
	end);

	describe("the live state of a room", function ()
		local stage, room;

		local function begin(waiting_queue)
			allocation = { id = "7"; waiting_queue = waiting_queue };
			stage.begin(room);
		end

		local function join(name)
			stage.on_joined(room, make_occupant(room, name));
		end

		before_each(function ()
			stage = module:require "usher_stage"(conferences);
			room = make_room("room1");
		end);

		it("is live with its first occupant and is reported once", function ()
			begin(false);
			assert.same({}, reported);
			join("alice");
			join("bob");
			assert.same({ "live room1" }, reported);
			assert.is_nil(room.jitsiMetadata);
		end);

		it("is not live with the focus only", function ()
			begin(false);
			join("focus");
			assert.same({}, reported);
		end);

		it("is created as not live if it has a waiting queue, and is announced to the first occupant", function ()
			begin(true);
			assert.same({ visitors = { live = false } }, room.jitsiMetadata);
			assert.equal(0, count_announcements());
			join("focus");
			tick();
			assert.equal(1, count_announcements());
			join("alice");
			assert.same({}, reported);
		end);

		it("is announced when the focus joins again, not for other occupants", function ()
			begin(true);
			for _, name in ipairs({ "focus", "alice", "bob", "focus" }) do
				join(name);
			end
			assert.equal(2, #timers);
		end);

		it("follows the metadata and reports each change once", function ()
			begin(true);
			join("alice");
			for _, live in ipairs({ true, true, false, true }) do
				room.jitsiMetadata.visitors = { live = live };
				stage.update(room);
			end
			assert.same({ "live room1", "over room1", "live room1" }, reported);
		end);

		it("is reported as ended once when it is destroyed", function ()
			begin(false);
			join("alice");
			stage.forget(room);
			stage.forget(room);
			assert.same({ "live room1", "over room1" }, reported);
		end);

		it("is not reported until usher has said whether it has a waiting queue", function ()
			stage.begin(room);
			join("alice");
			assert.same({}, reported);
			assert.is_false(room.jitsiMetadata.visitors.live);
			looks[1]({ live = false; waiting_queue = false });
			assert.same({ "live room1" }, reported);
			assert.is_true(room.jitsiMetadata.visitors.live);
		end);

		it("stays not live while usher is not reachable", function ()
			stage.begin(room);
			join("alice");
			looks[1](nil);
			assert.is_false(room.jitsiMetadata.visitors.live);
		end);

		it("is live while usher is not reachable if so configured, and not live again when usher reports a queue", function ()
			options.usher_on_failure = "allow";
			stage = module:require "usher_stage"(conferences);
			stage.begin(room);
			join("alice");
			looks[1](nil);
			assert.is_true(room.jitsiMetadata.visitors.live);
			stage.compare(room, nil, clock);
			looks[2]({ live = false; waiting_queue = true });
			assert.is_false(room.jitsiMetadata.visitors.live);
			assert.same({}, reported);
		end);

		it("is not changed while its allocation is unverified", function ()
			allocation = { form = {} };
			stage.begin(room);
			assert.is_nil(room.jitsiMetadata);
		end);

		it("is requested once at a time", function ()
			stage.begin(room);
			stage.begin(room);
			stage.compare(room, nil, clock);
			assert.equal(1, #looks);
			looks[1](nil);
			stage.compare(room, nil, clock);
			assert.equal(2, #looks);
		end);

		it("keeps a change made before the response", function ()
			stage.begin(room);
			join("alice");
			room.jitsiMetadata = { visitors = { live = true } };
			stage.update(room);
			looks[1]({ live = false; waiting_queue = true });
			assert.is_true(room.jitsiMetadata.visitors.live);
			assert.same({ "live room1" }, reported);
		end);

		it("ignores late responses after it is removed", function ()
			stage.begin(room);
			stage.forget(room);
			looks[1]({ live = true; waiting_queue = true });
			assert.is_false(room.jitsiMetadata.visitors.live);
		end);

		it("is live if it is live in usher, as after a restart of Prosody", function ()
			begin(true);
			join("alice");
			looks[1]({ live = true; waiting_queue = true });
			assert.is_true(room.jitsiMetadata.visitors.live);
			assert.same({ "live room1" }, reported);
		end);

		it("is live if its conference was live before it was created", function ()
			allocation = { id = "7"; waiting_queue = true; live = true };
			stage.begin(room);
			assert.same({}, looks);
			assert.same({}, stage.held());
			join("alice");
			assert.is_nil(room.jitsiMetadata);
			assert.same({ "live room1" }, reported);
		end);

		it("is waiting until it goes live in Prosody or in usher", function ()
			begin(true);
			assert.same({ room }, stage.held());
			stage.open(room);
			assert.same({}, stage.held());
			room = make_room("room2");
			begin(true);
			room.jitsiMetadata.visitors = { live = true };
			stage.update(room);
			assert.same({}, stage.held());
		end);

		it("applies the waiting queue of a late allocation", function ()
			allocation = {};
			stage.begin(room);
			assert.is_false(room.jitsiMetadata.visitors.live);
			stage.on_allocation({ room_jid = room.jid; allocation = { form = {} } });
			assert.is_true(room.jitsiMetadata.visitors.live);
			stage.on_allocation({ room_jid = room.jid; allocation = { id = "7"; waiting_queue = true } });
			assert.is_false(room.jitsiMetadata.visitors.live);
		end);

		it("is not reported if it is a health check", function ()
			room = make_room("__jicofo-health-check-1");
			stage.begin(room);
			join("alice");
			stage.forget(room);
			assert.same({}, reported);
			assert.same({}, looks);
		end);

		it("goes live with a moderator if there is no metadata component, and stays live", function ()
			prosody.hosts["metadata."..host] = nil;
			begin(true);
			join("alice");
			assert.same({}, reported);
			room.owners["focus@"..host] = true;
			join("focus");
			assert.same({}, reported);
			room.owners["alice@"..host] = true;
			stage.update(room);
			room.owners = {};
			stage.update(room);
			assert.same({ "live room1" }, reported);
			assert.is_nil(room.jitsiMetadata);
		end);

		it("is live with its occupants if it is older than the module", function ()
			allocation = { id = "7"; waiting_queue = true };
			make_occupant(room, "alice");
			stage.adopt(room);
			assert.same({ "live room1" }, reported);
		end);

		it("is compared with usher unless it is newer or has undelivered changes", function ()
			begin(false);
			join("alice");
			stage.compare(room, nil, clock - 1);
			undelivered[room.jid] = true;
			stage.compare(room, nil, clock);
			assert.same({ "live room1" }, reported);
			undelivered[room.jid] = nil;
			stage.compare(room, nil, clock);
			assert.same({ "live room1", "live room1" }, reported);
		end);

		it("keeps its state over a reload", function ()
			begin(false);
			join("alice");
			local saved = stage.save();
			stage = module:require "usher_stage"(conferences);
			stage.restore(saved);
			stage.adopt(room);
			stage.forget(room);
			assert.same({ "live room1", "over room1" }, reported);
		end);
	end);

	describe("polling", function ()
		local held, live;

		before_each(function ()
			held, live = { make_room("room1"), make_room("room2") }, {};
			local stage = {
				held = function () return table.move(held, 1, #held, 1, {}); end;
				open = function (room) table.insert(live, room.jid:match("^[^@]*")); end;
			};
			module:require "usher_watch"(conferences, stage).run();
		end);

		local function answer(entry)
			table.remove(looks, 1)(entry);
		end

		it("requests one waiting room at a time, and again after two seconds", function ()
			assert.equal(1, #looks);
			answer({ live = false });
			assert.equal(1, #looks);
			answer({ live = true });
			assert.same({ "room1" }, live);
			assert.same({}, looks);
			assert.equal(2, timers[1].delay);
			tick();
			assert.equal(1, #looks);
		end);

		it("sends no request while no room is waiting", function ()
			held = {};
			answer(nil);
			answer(nil);
			tick();
			tick();
			assert.same({}, looks);
			assert.same({}, live);
		end);

		it("skips rooms with undelivered changes", function ()
			undelivered[held[1].jid], undelivered[held[2].jid] = true, true;
			answer(nil);
			assert.same({}, looks);
			tick();
			assert.same({}, looks);
		end);
	end);

	describe("reconciliation", function ()
		local repair, compared;

		local function make()
			compared = {};
			local stage = { compare = function (room, entry) compared[room.jid] = entry or false; end };
			repair = module:require "usher_repair"(conferences, stage);
		end

		-- Requests the list and answers with these conferences.
		local function run(...)
			local entries = {};
			for i, name in ipairs({ ... }) do
				entries[i] = { conference = name.."@"..muc_host; live = true; live_since = "then" };
			end
			if #lists == 0 then tick(); end
			table.remove(lists, 1)(entries);
		end

		it("compares every room with its state in usher", function ()
			local here, there = make_room("here"), make_room("there");
			make();
			repair.run();
			run("here");
			assert.equal("then", compared[here.jid].live_since);
			assert.is_false(compared[there.jid]);
			assert.same({}, reported);
		end);

		it("ends a conference without a room after the second list", function ()
			make();
			repair.run();
			run("left");
			assert.same({}, reported);
			run("left");
			assert.same({ "over left" }, reported);
		end);

		it("keeps a conference whose room is created again in time", function ()
			make();
			repair.run();
			run("left");
			make_room("left");
			run("left");
			rooms = {};
			run("left");
			assert.same({}, reported);
		end);

		it("keeps a conference that went live later", function ()
			make();
			repair.run();
			for _ = 1, 3 do
				run();
				run("later");
			end
			run("later");
			assert.same({}, reported);
		end);

		it("ends a conference that it has reported itself", function ()
			options.usher_only_prosody = false;
			make();
			repair.run();
			run();
			run("mine", "left");
			run("mine", "left");
			assert.same({ "over mine" }, reported);
		end);

		it("ignores other domains", function ()
			make();
			repair.run();
			for _ = 1, 2 do
				table.remove(lists, 1)({ { conference = "a@conference.other.example"; live = true; live_since = "then" } });
				tick();
			end
			assert.same({}, reported);
		end);

		it("sends one request at a time, sooner while usher fails, and at once when usher is back", function ()
			make();
			repair.run();
			repair.run();
			assert.equal(1, #lists);
			table.remove(lists, 1)(nil);
			assert.equal(10, timers[1].delay);
			repair.on_change(true);
			assert.equal(1, #lists);
			timers = {};
			table.remove(lists, 1)({});
			assert.equal(60, timers[1].delay);
		end);
	end);
end);

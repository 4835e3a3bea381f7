-- What mod_usher_queue tells usher, by its libraries: rooms, usher's answers and the clock are moved by hand.

local plugins = (debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "").."prosody-plugins/";
local host = "meet.example.com";
local muc_host = "conference."..host;

describe("the queue's libraries", function ()
	local module, prosody, options, clock, timers, rooms, events, allocation;
	local conferences, told, unheard, looks, lists;

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

	local function count_announced()
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
		told, unheard, looks, lists = {}, {}, {}, {};
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
			tell = function (room_jid, is_live) table.insert(told, (is_live and "live " or "over ")..room_jid:match("^[^@]*")); end;
			has_heard = function (room_jid) return not unheard[room_jid]; end;
			was_reported = function (room_jid) return room_jid:find("^mine") ~= nil; end;
			look = function (_, callback) table.insert(looks, callback); end;
			list = function (callback) table.insert(lists, callback); end;
		};
	end);

	after_each(function ()
		package.loaded["util.time"], package.loaded["util.jid"] = nil, nil;
	end);

	describe("a room on stage", function ()
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

		it("is live with its first occupant, and told once", function ()
			begin(false);
			assert.same({}, told);
			join("alice");
			join("bob");
			assert.same({ "live room1" }, told);
			assert.is_nil(room.jitsiMetadata);
		end);

		it("is not live with the focus alone", function ()
			begin(false);
			join("focus");
			assert.same({}, told);
		end);

		it("is created as not live if it has a waiting queue, and announced when somebody is there to hear it", function ()
			begin(true);
			assert.same({ visitors = { live = false } }, room.jitsiMetadata);
			assert.equal(0, count_announced());
			join("focus");
			tick();
			assert.equal(1, count_announced());
			join("alice");
			assert.same({}, told);
		end);

		it("is announced to a focus that comes again, not to everybody", function ()
			begin(true);
			for _, name in ipairs({ "focus", "alice", "bob", "focus" }) do
				join(name);
			end
			assert.equal(2, #timers);
		end);

		it("goes live and back as somebody says, with each change told once", function ()
			begin(true);
			join("alice");
			for _, said in ipairs({ true, true, false, true }) do
				room.jitsiMetadata.visitors = { live = said };
				stage.update(room);
			end
			assert.same({ "live room1", "over room1", "live room1" }, told);
		end);

		it("ends when it is destroyed, and only once", function ()
			begin(false);
			join("alice");
			stage.forget(room);
			stage.forget(room);
			assert.same({ "live room1", "over room1" }, told);
		end);

		it("is neither live nor not until it is known whether it has a waiting queue", function ()
			stage.begin(room);
			join("alice");
			assert.same({}, told);
			assert.is_false(room.jitsiMetadata.visitors.live);
			looks[1]({ live = false; waiting_queue = false });
			assert.same({ "live room1" }, told);
			assert.is_true(room.jitsiMetadata.visitors.live);
		end);

		it("stays held while usher can't be asked", function ()
			stage.begin(room);
			join("alice");
			looks[1](nil);
			assert.is_false(room.jitsiMetadata.visitors.live);
		end);

		it("is let go while usher can't be asked, if so configured, and held when usher says so", function ()
			options.usher_on_failure = "allow";
			stage = module:require "usher_stage"(conferences);
			stage.begin(room);
			join("alice");
			looks[1](nil);
			assert.is_true(room.jitsiMetadata.visitors.live);
			stage.compare(room, nil, clock);
			looks[2]({ live = false; waiting_queue = true });
			assert.is_false(room.jitsiMetadata.visitors.live);
			assert.same({}, told);
		end);

		it("is not held while it is let in without an answer", function ()
			allocation = { form = {} };
			stage.begin(room);
			assert.is_nil(room.jitsiMetadata);
		end);

		it("is asked about once at a time", function ()
			stage.begin(room);
			stage.begin(room);
			stage.compare(room, nil, clock);
			assert.equal(1, #looks);
			looks[1](nil);
			stage.compare(room, nil, clock);
			assert.equal(2, #looks);
		end);

		it("stays as somebody set it before the answer came", function ()
			stage.begin(room);
			join("alice");
			room.jitsiMetadata = { visitors = { live = true } };
			stage.update(room);
			looks[1]({ live = false; waiting_queue = true });
			assert.is_true(room.jitsiMetadata.visitors.live);
			assert.same({ "live room1" }, told);
		end);

		it("is forgotten by answers that come too late", function ()
			stage.begin(room);
			stage.forget(room);
			looks[1]({ live = true; waiting_queue = true });
			assert.is_false(room.jitsiMetadata.visitors.live);
		end);

		it("is live if usher has it live, as after a restart of Prosody", function ()
			begin(true);
			join("alice");
			looks[1]({ live = true; waiting_queue = true });
			assert.is_true(room.jitsiMetadata.visitors.live);
			assert.same({ "live room1" }, told);
		end);

		it("is not held if it went live before it was there", function ()
			allocation = { id = "7"; waiting_queue = true; live = true };
			stage.begin(room);
			assert.same({}, looks);
			assert.same({}, stage.held());
			join("alice");
			assert.is_nil(room.jitsiMetadata);
			assert.same({ "live room1" }, told);
		end);

		it("is held until it goes live, here or at usher", function ()
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

		it("learns of its queue when its allocation comes late", function ()
			allocation = {};
			stage.begin(room);
			assert.is_false(room.jitsiMetadata.visitors.live);
			stage.on_allocation({ room_jid = room.jid; allocation = { form = {} } });
			assert.is_true(room.jitsiMetadata.visitors.live);
			stage.on_allocation({ room_jid = room.jid; allocation = { id = "7"; waiting_queue = true } });
			assert.is_false(room.jitsiMetadata.visitors.live);
		end);

		it("is no health check", function ()
			room = make_room("__jicofo-health-check-1");
			stage.begin(room);
			join("alice");
			stage.forget(room);
			assert.same({}, told);
			assert.same({}, looks);
		end);

		it("waits for a moderator where no metadata is sent, and stays live without one", function ()
			prosody.hosts["metadata."..host] = nil;
			begin(true);
			join("alice");
			assert.same({}, told);
			room.owners["focus@"..host] = true;
			join("focus");
			assert.same({}, told);
			room.owners["alice@"..host] = true;
			stage.update(room);
			room.owners = {};
			stage.update(room);
			assert.same({ "live room1" }, told);
			assert.is_nil(room.jitsiMetadata);
		end);

		it("stays with who is in it when the module comes late", function ()
			allocation = { id = "7"; waiting_queue = true };
			make_occupant(room, "alice");
			stage.adopt(room);
			assert.same({ "live room1" }, told);
		end);

		it("is compared with what usher says, unless it is newer or something is on its way", function ()
			begin(false);
			join("alice");
			stage.compare(room, nil, clock - 1);
			unheard[room.jid] = true;
			stage.compare(room, nil, clock);
			assert.same({ "live room1" }, told);
			unheard[room.jid] = nil;
			stage.compare(room, nil, clock);
			assert.same({ "live room1", "live room1" }, told);
		end);

		it("keeps its state over a reload", function ()
			begin(false);
			join("alice");
			local saved = stage.save();
			stage = module:require "usher_stage"(conferences);
			stage.restore(saved);
			stage.adopt(room);
			stage.forget(room);
			assert.same({ "live room1", "over room1" }, told);
		end);
	end);

	describe("watching", function ()
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

		it("asks about one held room at a time, and again two seconds later", function ()
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

		it("asks nothing while no room is held", function ()
			held = {};
			answer(nil);
			answer(nil);
			tick();
			tick();
			assert.same({}, looks);
			assert.same({}, live);
		end);

		it("leaves alone what usher is still being told of", function ()
			unheard[held[1].jid], unheard[held[2].jid] = true, true;
			answer(nil);
			assert.same({}, looks);
			tick();
			assert.same({}, looks);
		end);
	end);

	describe("repair", function ()
		local repair, compared;

		local function make()
			compared = {};
			local stage = { compare = function (room, entry) compared[room.jid] = entry or false; end };
			repair = module:require "usher_repair"(conferences, stage);
		end

		-- Asks, and is answered so.
		local function run(...)
			local entries = {};
			for i, name in ipairs({ ... }) do
				entries[i] = { conference = name.."@"..muc_host; live = true; live_since = "then" };
			end
			if #lists == 0 then tick(); end
			table.remove(lists, 1)(entries);
		end

		it("shows every room what usher says of it", function ()
			local here, there = make_room("here"), make_room("there");
			make();
			repair.run();
			run("here");
			assert.equal("then", compared[here.jid].live_since);
			assert.is_false(compared[there.jid]);
			assert.same({}, told);
		end);

		it("ends what was left over, at the second look", function ()
			make();
			repair.run();
			run("left");
			assert.same({}, told);
			run("left");
			assert.same({ "over left" }, told);
		end);

		it("leaves alone what is back in time", function ()
			make();
			repair.run();
			run("left");
			make_room("left");
			run("left");
			rooms = {};
			run("left");
			assert.same({}, told);
		end);

		it("leaves alone what usher went live with later", function ()
			make();
			repair.run();
			for _ = 1, 3 do
				run();
				run("later");
			end
			run("later");
			assert.same({}, told);
		end);

		it("ends what it reported itself, whenever that was", function ()
			options.usher_only_prosody = false;
			make();
			repair.run();
			run();
			run("mine", "left");
			run("mine", "left");
			assert.same({ "over mine" }, told);
		end);

		it("leaves other domains alone", function ()
			make();
			repair.run();
			for _ = 1, 2 do
				table.remove(lists, 1)({ { conference = "a@conference.other.example"; live = true; live_since = "then" } });
				tick();
			end
			assert.same({}, told);
		end);

		it("asks once at a time, sooner while usher fails, and at once when it is back", function ()
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

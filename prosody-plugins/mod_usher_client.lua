-- Reports the rooms to usher, applies what usher answers, and requests decisions: docs/prosody-protocol.md. Loaded by
-- mod_usher_reservations and mod_usher_queue; not meant for modules_enabled.

if module:get_host_type() ~= "local" then error("Load usher's modules on a VirtualHost, not on a component", 0); end

local array = require "util.array";
local cache = require "util.cache";
local new_id = require "util.id".medium;
local time = require "util.time".now;

local jitsi = module:require "usher_jitsi";
local live = module:require "usher_live";
local server = module:require "usher_http";

local version = "0.2.0";
local batch_delay, count_delay, retry_delay = 0.02, 1, 1; -- seconds
local poll_timeout, late_decision = 40, 30; -- seconds; usher answers a long poll after 25

local function seconds(name, default) return module:get_option_number(name, default); end
local options = { timeout = seconds("usher_timeout", 5); warn_before = seconds("usher_warn_before", 300);
	create_timeout = seconds("usher_create_timeout", 60); timer = module:get_option_boolean("usher_timer", true) };

local instance, seq, revision, last_request, offset = new_id(), 0, 0, 0, 0;
local needs_list = true; -- usher does not have the list of all rooms, or not all changes since
local waiting = {}; -- by id: requests without a decision
local changed = {}; -- by room JID: rooms to report
local gone = cache.new(1000); -- by room JID: rooms that were destroyed, until usher has answered a POST that says so
local flush_timer, list_timer, flush, set_list;

local function set_flush() flush_timer = flush_timer or module:add_timer(batch_delay, function () flush(); end); end

local function note_change(room)
	changed[room.jid] = room;
	set_flush();
end

rooms = module:require "usher_rooms"(server, note_change, function () return time() + offset; end);

local function features()
	local loaded = prosody.hosts[module.host].modules;
	return array({ loaded.usher_reservations and "reservations" or ""; loaded.usher_queue and "queue" or "";
		live.has_metadata() and "metadata" or ""; jitsi.has_lobby_module() and "lobby" or "" })
		:filter(function (name) return name ~= ""; end);
end

local function decide(id, decision)
	local entry = waiting[id];
	if not entry then return; end
	waiting[id] = nil;
	entry.timer:stop();
	entry.callback(decision);
end

-- Directives first: an allowed room is created with its options.
local function read(answer)
	offset = answer.now and answer.now - time() or offset;
	local known = {};
	for _, directive in ipairs(answer.rooms or {}) do
		known[directive.room] = directive;
		rooms.apply(directive);
	end
	for _, decision in ipairs(answer.decisions or {}) do
		local request = (waiting[decision.id] or {}).request;
		local opens = decision.action == "allow" or decision.action == "await_owner";
		if request and opens and request.kind ~= "join" then rooms.approve(request.room, known[request.room]); end
		decide(decision.id, decision);
	end
	for _, it in ipairs(answer.rejected or {}) do module:log("warn", "usher rejects %s: %s", it.room, it.message); end
end

-- reports: of all rooms if is_list is set.
local function post(reports, requests, is_list)
	seq = seq + 1;
	local destroyed = array();
	for room_jid, mark in gone:items() do
		mark.room, mark.seq = room_jid, mark.seq or seq;
		destroyed:push(mark);
	end
	server.request("POST", "/api/v1/prosody/events", {
		protocol = 1; shim = version; instance = instance; seq = seq; options = options; features = features();
		all = is_list; rooms = array(reports); gone = destroyed; requests = array(requests);
	}, options.timeout, function (code, answer)
		local pending = {};
		for _, id in ipairs(answer.pending or {}) do pending[id] = true; end
		if code == 200 then
			for _, mark in ipairs(destroyed) do if gone:get(mark.room) == mark then gone:set(mark.room, nil); end end
			read(answer);
			if needs_list or answer.send_all then set_list(0); end
		else
			set_list(retry_delay);
		end
		for _, request in ipairs(requests) do
			if not pending[request.id] then decide(request.id, { action = "fail" }); end
		end
	end);
end

-- Adds the report of a room, if it exists by now. If only counts changed, once a second.
local function add_report(reports, room, is_due)
	local report = jitsi.find_room(room.jid) == room and rooms.report(room);
	if not report then return; end
	local essence = ("%s %s %s %s %s %s %s"):format(report.occupied, report.occupants > 0, report.moderators > 0,
		(report.visitors or 0) > 0, report.live, report.live_is_ours, report.meetingId);
	local counts = ("%d %d %s"):format(report.occupants, report.moderators, report.visitors);
	local last = room.usher.reported or {};
	local is_count = not is_due and last.essence == essence;
	if is_count and (last.counts == counts or last.is_late) then return; end
	if is_count and time() < last.at + count_delay then
		local function note_late() last.is_late = nil; note_change(room); end
		last.is_late = module:add_timer(last.at + count_delay - time(), note_late);
		return;
	end
	room.usher.reported = { essence = essence; counts = counts; at = time() };
	table.insert(reports, report);
end

-- All changes of the last 20 ms in one request. While usher fails nothing is sent: the list will have it.
function flush()
	local reports, due = {}, changed;
	flush_timer, changed = nil, {};
	if needs_list or not server.is_up then return; end
	for _, room in pairs(due) do add_report(reports, room); end
	if reports[1] or gone:count() > 0 then post(reports, {}); end
end

-- All rooms, and what still waits for a decision: usher may have been restarted.
local function send_list()
	local reports, requests = {}, {};
	for room in jitsi.each_room() do add_report(reports, room, true); end
	for _, entry in pairs(waiting) do table.insert(requests, entry.request); end
	needs_list, changed = false, {};
	post(reports, requests, true);
end

-- While usher fails, a small request finds out when it answers again.
function set_list(delay)
	needs_list = true;
	list_timer = list_timer or module:add_timer(delay, function ()
		list_timer = nil;
		if server.is_up then send_list(); else post({}, {}); end
	end);
end

local function poll()
	local path = ("/api/v1/prosody/rooms?instance=%s&after=%d"):format(instance, revision);
	server.request("GET", path, nil, poll_timeout, function (code, answer)
		revision = answer.revision or revision;
		if code == 200 then read(answer); end
		if code == 410 then set_list(0); end
		module:add_timer(code == 200 and 0 or retry_delay, poll);
	end);
end

-- callback(decision). A request does not wait for other changes, and has those of its room.
function ask(request, callback)
	local reporter = ((prosody.hosts[jitsi.reporting_host] or {}).modules or {}).usher_client;
	if not reporter then return callback({ action = "fail" }); end
	if reporter.ask ~= ask then return reporter.ask(request, callback); end
	last_request = last_request + 1;
	-- A copy: after a reload the same request is asked again, and the answer to the first must not settle the second.
	request = { id = ("r%d"):format(last_request); kind = request.kind; room = request.room; from = request.from;
		user = request.user; tenant = request.tenant };
	local timer = module:add_timer(late_decision, function () decide(request.id, { action = "fail" }); end);
	waiting[request.id] = { request = request; callback = callback; timer = timer };
	local reports, room = {}, changed[request.room];
	if room then add_report(reports, room, true); end
	post(reports, { request });
end

function on_change(event) if event.room and rooms.begin(event.room) then note_change(event.room); end end

local function on_destroyed(event)
	local state = event.room.usher;
	if not state then return; end
	if state.timer then state.timer:stop(); end
	gone:set(event.room.jid, {});
	set_flush();
end

jitsi.when_active(function (host)
	local function begin(event) rooms.begin(event.room); end
	-- After mod_usher_reservations (-0.5) has its answer, before the room exists (-1000).
	host:hook("muc-room-pre-create", begin, -0.75);
	-- Before Jitsi's metadata component (-1) sends what there is.
	host:hook("muc-room-created", begin, 10);
	host:hook("muc-room-restored", begin);
	-- Of a room that a rejected join left: before Jitsi's mod_visitors_component (0) reads visitors.live.
	host:hook("muc-occupant-joined", begin, 10);
	-- After all that makes moderators (2, -2) and sets metadata (-1, -2).
	host:hook("muc-occupant-joined", function (event) rooms.on_joined(event.room, event.occupant); end, -10);
	-- Whatever becomes of an occupant: a role, the number of visitors in the focus' presence, the end.
	host:hook("muc-broadcast-presence", on_change);
	-- Before tombstones (-10), which end the chain.
	host:hook("muc-room-destroyed", on_destroyed);
end);

-- After a reload it is the same instance: usher ends what is missing in its list.
function module.save() return { instance, seq, revision, last_request }; end
function module.restore(saved) instance, seq, revision, last_request = table.unpack(saved); end

function module.load()
	if jitsi.reporting_host ~= module.host then return; end
	for _, name in ipairs({ "usher_refresh", "usher_reconcile", "usher_only_prosody" }) do
		if module:get_option(name) ~= nil then module:log("info", "The option %s has no effect any more", name); end
	end
	server.on_change = rooms.refresh;
	-- In a timer: hosts are still being activated when Prosody starts.
	set_list(0);
	module:add_timer(batch_delay, poll);
end

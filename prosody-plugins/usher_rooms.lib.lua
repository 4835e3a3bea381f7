-- Rooms with an allocation: what is applied to them, when they end, and what changes meanwhile.

local now = require "util.time".now;

local allocations = module:require "usher_allocations";
local muc = module:require "usher_muc";
local notice = module:require "usher_notice";

local longest_timer = 3600; -- seconds; looking at the clock now and then keeps far-away ends right when it is set

local refresh_every = module:get_option_number("usher_refresh", 30);
local warn_before = module:get_option_number("usher_warn_before", 300);
local create_timeout = module:get_option_number("usher_create_timeout", 60);

local rooms = { ask = allocations.ask };
local known = {}; -- by room JID: the allocation, the form it was asked with, and what was done about it
local timers = {}; -- by room JID, by purpose

local function set_timer(room_jid, purpose, delay, action)
	local own = timers[room_jid] or {};
	timers[room_jid] = own;
	if own[purpose] then own[purpose]:stop(); end
	own[purpose] = delay and module:add_timer(delay, function ()
		own[purpose] = nil;
		action(room_jid);
	end) or nil;
end

function rooms.get(room_jid)
	return known[room_jid];
end

function rooms.forget(room_jid)
	local record = known[room_jid];
	if not record then return; end
	for _, timer in pairs(timers[room_jid] or {}) do
		timer:stop();
	end
	known[room_jid], timers[room_jid] = nil, nil;
	if record.id then allocations.finish(room_jid, record.id); end
end

function rooms.close(room_jid, reason)
	local room = muc.find(room_jid);
	if not room then return rooms.forget(room_jid); end
	module:log("info", "Closing %s: %s", room_jid, reason);
	room:destroy(nil, reason);
end

-- Who comes after the warning is told as well.
function rooms.greet(room, occupant)
	local record = known[room.jid];
	if record and record.warned_of then notice.remind(room, occupant, record.warned_of); end
end

local function watch_end(room_jid)
	local record, room = known[room_jid], muc.find(room_jid);
	if not record or not room or not record.ends_at then return; end
	local left = record.ends_at - now();
	if left <= 0 then return rooms.close(room_jid, "The time of this conference is over."); end
	if left > warn_before then
		record.warned_of = nil;
		left = left - warn_before;
	elseif record.warned_of ~= record.ends_at then
		record.warned_of = record.ends_at;
		notice.warn(room, record.ends_at, record.ends);
	end
	set_timer(room_jid, "end", math.min(left, longest_timer), watch_end);
end

-- Only what changed at usher is set: a password set in the room meanwhile is its moderators' business.
local function apply(room, record)
	local applied = record.applied or {};
	if record.password ~= applied.password then room:set_password(record.password or ""); end
	if record.max_occupants ~= applied.max_occupants then room._data.max_occupants = record.max_occupants; end
	record.applied = { password = record.password; max_occupants = record.max_occupants };
	-- In a timer, as a room must not be destroyed while its creation is still being announced.
	set_timer(room.jid, "end", 0, watch_end);
end

local function follow(room_jid)
	local record = known[room_jid];
	set_timer(room_jid, "refresh", refresh_every, follow);

	local function on_answer(meaning, detail)
		if known[room_jid] ~= record then return; end
		if meaning == "over" or meaning == "refused" then
			rooms.close(room_jid, detail);
		elseif meaning == "allocated" then
			rooms.approve(room_jid, detail, record.form);
		elseif meaning == "unknown" then
			record.id = nil;
			allocations.ask(room_jid, record.form, on_answer);
		end
	end

	if record.id then return allocations.look(record.id, on_answer); end
	allocations.ask(room_jid, record.form, on_answer);
end

-- The room of an approval is there; more than once for one room does no harm.
function rooms.open(room)
	local record = known[room.jid];
	if not record or record.opened then return; end
	record.opened = true;
	set_timer(room.jid, "unused");
	set_timer(room.jid, "refresh", refresh_every, follow);
	apply(room, record);
end

function rooms.approve(room_jid, allocation, form)
	local record = known[room_jid] or { form = form };
	known[room_jid] = record;
	for _, field in ipairs({ "id", "ends_at", "ends", "max_occupants", "password", "lobby", "waiting_queue", "live" }) do
		record[field] = allocation[field];
	end
	-- For mod_usher_queue, which may have a room of which nothing was known yet.
	module:fire_event("usher-allocation", { room_jid = room_jid; allocation = record });
	local room = muc.find(room_jid);
	if not room then return set_timer(room_jid, "unused", create_timeout, rooms.forget); end
	if record.opened then return apply(room, record); end
	rooms.open(room);
end

-- Let in while usher fails: an allocation is asked for again until usher answers.
function rooms.trust(room_jid, form)
	if not known[room_jid] then rooms.approve(room_jid, {}, form); end
end

function rooms.save()
	return { known = known; facts = allocations.save() };
end

function rooms.restore(saved)
	allocations.restore(saved.facts);
	known = saved.known or known;
	for room_jid, record in pairs(known) do
		record.opened = nil;
		rooms.approve(room_jid, record, record.form);
	end
end

return rooms;

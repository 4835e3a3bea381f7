-- The schedule of a directive: the meeting timer, the warning and the end, by usher's clock and without usher.
-- room.usher.done has the entries that were executed.

local datetime = require "util.datetime";
local jid = require "util.jid";
local json = require "util.json";
local st = require "util.stanza";

local jitsi = module:require "usher_jitsi";

local longest_timer = 3600; -- seconds; the clock may be set meanwhile
local schedule = {};

local function payload_of(room, entry, now)
	local left = math.max(1, math.floor(entry.ends_at - now + 0.5));
	local past = math.max(0, math.floor(now - entry.started_at + 0.5));
	if entry.timer then return { type = "time_restricted"; durationSeconds = past + left; elapsedSeconds = past }; end
	return { type = "usher-ending"; conference = room.jid; seconds = left;
		ends_at = datetime.datetime(math.floor(entry.ends_at)) };
end

local function notify(room, occupant, entry, now)
	if jid.resource(occupant.nick) == "focus" or not entry.ends_at then return; end
	room:route_to_occupant(occupant, st.message({ from = room.jid })
		:tag("json-message", { xmlns = "http://jitsi.org/jitmeet" }):text(json.encode(payload_of(room, entry, now))));
end

-- Returns whether it was done: a handler of muc-pre-room-destroy can veto the end.
local function execute(room, entry, now)
	if entry.close then
		module:log("info", "Closing %s: %s", room.jid, entry.close);
		return room:destroy(nil, entry.close);
	end
	if entry.say then room:broadcast_message(st.message({ type = "groupchat"; from = room.jid }, entry.say)); end
	for _, occupant in room:each_occupant() do notify(room, occupant, entry, now); end
	return true;
end

local function key_of(it) return (it.timer and "timer" or it.say and "say" or "")..(it.ends_at or it.at); end

local function entries_of(room) return ipairs(room.usher.directive.schedule or {}); end

-- get_time returns the time by usher's clock.
function schedule.run(room, get_time)
	if jitsi.find_room(room.jid) ~= room then return; end
	local state, now, next_at = room.usher, get_time(), math.huge;
	for _, entry in entries_of(room) do
		local key = key_of(entry);
		if not state.done[key] and entry.at <= now then state.done[key] = execute(room, entry, now); end
		if entry.close and state.done[key] then return; end
		if not state.done[key] then next_at = math.min(next_at, entry.at > now and entry.at or now + 1); end
	end
	schedule.set(room, get_time, next_at - now);
end

function schedule.set(room, get_time, delay)
	if room.usher.timer then room.usher.timer:stop(); end
	room.usher.timer = module:add_timer(math.min(delay, longest_timer), function () schedule.run(room, get_time); end);
end

-- An occupant that joins later receives what the others have received.
function schedule.catch_up(room, occupant, now)
	for _, it in entries_of(room) do if room.usher.done[key_of(it)] then notify(room, occupant, it, now); end end
end

return schedule;

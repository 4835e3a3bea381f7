-- What the occupants of a room are told before its end: a line of chat, and the same for programs.

local jid = require "util.jid";
local json = require "util.json";
local st = require "util.stanza";
local datetime = require "util.datetime";
local now = require "util.time".now;

local notice = {};

local function seconds_left(ends_at)
	return math.max(1, math.floor(ends_at - now() + 0.5));
end

-- To one occupant, as a json-message; the focus has no use for it.
function notice.remind(room, occupant, ends_at)
	if jid.resource(occupant.nick) == "focus" then return; end
	local payload = {
		type = "usher-ending"; conference = room.jid;
		ends_at = datetime.datetime(ends_at); seconds = seconds_left(ends_at);
	};
	room:route_to_occupant(occupant, st.message({ from = room.jid })
		:tag("json-message", { xmlns = "http://jitsi.org/jitmeet" }):text(json.encode(payload)));
end

-- In the zone of usher's sentences, whatever Prosody's own is: usher says when the end is, unless that is in UTC.
function notice.warn(room, ends_at, ends)
	local seconds = seconds_left(ends_at);
	local minutes = math.floor(seconds / 60 + 0.5);
	local length = minutes >= 2 and minutes.." minutes" or seconds.." seconds";
	local text = ("This conference ends in %s, at %s."):format(length, ends or os.date("!%H:%M UTC", ends_at));
	room:broadcast_message(st.message({ type = "groupchat"; from = room.jid }, text));
	for _, occupant in room:each_occupant() do
		notice.remind(room, occupant, ends_at);
	end
end

return notice;

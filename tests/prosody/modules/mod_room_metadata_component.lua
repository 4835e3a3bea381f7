-- For the tests alone: stands in for Jitsi's component of this name, and notes what metadata it would send out.

local json = require "util.json";

local muc_host = "conference."..module.host:gsub("^[^.]+%.", "");
local sent = module:shared("sent");

local function note(room)
	table.insert(sent, { room = room.jid; metadata = json.decode(json.encode(room.jitsiMetadata)) });
end

local function watch_rooms()
	local muc = module:context(muc_host);
	muc:hook("muc-room-created", function (event)
		event.room.jitsiMetadata = event.room.jitsiMetadata or {};
		note(event.room);
	end, -1);
	muc:hook("room-metadata-changed", function (event)
		note(event.room);
	end);
end

module:hook_global("host-activated", function (host)
	if host == muc_host then watch_rooms(); end
end);
if prosody.hosts[muc_host] then watch_rooms(); end

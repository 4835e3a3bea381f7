-- For tests only: replaces Jitsi's component of this name and records the metadata that it would send.

local json = require "util.json";

local muc_host = "conference."..module.host:gsub("^[^.]+%.", "");
local sent = module:shared("sent");

local function record(room)
	table.insert(sent, { room = room.jid; metadata = json.decode(json.encode(room.jitsiMetadata)) });
end

local function watch_rooms()
	local muc = module:context(muc_host);
	muc:hook("muc-room-created", function (event)
		event.room.jitsiMetadata = event.room.jitsiMetadata or {};
		record(event.room);
	end, -1);
	muc:hook("room-metadata-changed", function (event)
		record(event.room);
	end);
end

module:hook_global("host-activated", function (host)
	if host == muc_host then watch_rooms(); end
end);
if prosody.hosts[muc_host] then watch_rooms(); end

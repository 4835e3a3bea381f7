-- Whether a room is live: visitors.live of its metadata, which Jitsi's room_metadata_component sends to the occupants.
-- room.usher.mark is the value that was written here last; room.usher.decided, that a moderator wrote another.

local jitsi = module:require "usher_jitsi";

local live = {};

function live.has_metadata()
	for _, host in pairs(prosody.hosts) do
		if (host.modules or {}).room_metadata_component then return true; end
	end
	return false;
end

-- Without the component no client could set a room live, so nothing is written.
local function is_managed() return prosody.hosts[module.host].modules.usher_queue ~= nil and live.has_metadata(); end

-- A moderator's client can write any value: nothing in the metadata is certain to be a table.
local function get_visitors(room)
	local metadata = room.jitsiMetadata;
	local visitors = type(metadata) == "table" and metadata.visitors;
	return type(visitors) == "table" and visitors or {};
end

-- The focus receives no metadata when it joins, only broadcasts. A room that is being created has no occupants yet.
function live.announce(room)
	if jitsi.find_room(room.jid) ~= room or not room:has_occupant() then return; end
	room.usher.announced = true;
	module:context(jitsi.muc_host):fire_event("room-metadata-changed", { room = room });
end

function live.set_metadata(room, key, value)
	if type(room.jitsiMetadata) ~= "table" then room.jitsiMetadata = {}; end
	room.jitsiMetadata[key] = value;
end

-- Nil: not set, or not managed. A value that a moderator wrote is a decision, also if it is changed back.
function live.get(room)
	if not is_managed() then return nil; end
	local value = get_visitors(room).live;
	if value ~= nil then value = value ~= false; end
	if value ~= room.usher.mark then room.usher.decided = true; end
	return value;
end

-- Never over a decision.
function live.set(room, value)
	live.get(room);
	if room.usher.decided or room.usher.mark == value or not is_managed() then return; end
	local visitors = get_visitors(room);
	visitors.live, room.usher.mark = value, value;
	live.set_metadata(room, "visitors", visitors);
	live.announce(room);
end

return live;

-- Whether a room is live: as its metadata says, which Jitsi's room_metadata_component sends to its occupants. Without
-- that component nobody could set a room live, so one with a waiting queue becomes live when its first moderator is in.

local live = {};

-- A moderator's client writes what it likes into the metadata: nothing in it is certain to be a table.
local function get_visitors(room)
	local metadata = room.jitsiMetadata;
	local visitors = type(metadata) == "table" and metadata.visitors;
	return type(visitors) == "table" and visitors or nil;
end

-- nil: nobody said.
function live.get(room)
	local visitors = get_visitors(room);
	return visitors and visitors.live;
end

function live.set(room, value)
	if type(room.jitsiMetadata) ~= "table" then room.jitsiMetadata = {}; end
	if not get_visitors(room) then room.jitsiMetadata.visitors = {}; end
	room.jitsiMetadata.visitors.live = value;
end

function live.is_metadata_sent()
	for _, host in pairs(prosody.hosts) do
		if host.modules and host.modules.room_metadata_component then return true; end
	end
	return false;
end

function live.has_occupant(room, is_focus)
	for _, occupant in room:each_occupant() do
		if not is_focus(occupant) then return true; end
	end
	return false;
end

function live.has_moderator(room, is_focus)
	for _, occupant in room:each_occupant() do
		if not is_focus(occupant) and room:get_affiliation(occupant.bare_jid) == "owner" then return true; end
	end
	return false;
end

return live;

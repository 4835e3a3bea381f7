-- What mod_usher_queue itself says of a room: held, which is not live, or released.

local muc = module:require "usher_muc";
local live = module:require "usher_live";

local mark = {};

local function announce(room)
	if muc.find(room.jid) ~= room then return; end
	module:context(muc.host):fire_event("room-metadata-changed", { room = room });
end

-- What somebody here decided comes first. Nobody is in a room yet that is being created: on_joined tells who comes.
local function set(room, state, value)
	if state.decided or live.get(room) ~= state.mark or state.mark == value or not live.is_metadata_sent() then return; end
	state.mark = value;
	live.set(room, value);
	if not room:has_occupant() then return; end
	state.announced = true;
	announce(room);
end

-- Jitsi takes a room for live of which nobody says otherwise.
function mark.hold(room, state)
	set(room, state, false);
end

function mark.release(room, state)
	if state.mark == false then set(room, state, true); end
end

-- Jitsi's component sends the focus nothing when it joins; in a timer, as the first one joins before the room is created.
function mark.on_joined(room, state, occupant)
	if state.mark ~= false or state.announced and not muc.is_focus_occupant(occupant) then return; end
	state.announced = true;
	module:add_timer(0, function () announce(room); end);
end

return mark;

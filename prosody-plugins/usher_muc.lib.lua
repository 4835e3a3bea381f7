-- The MUC whose rooms are conferences: where it is, which rooms are there, who in them is the focus, and
-- their lobbies.

local jid = require "util.jid";

local muc = {};

muc.host = module:get_option_string("usher_muc", module:get_option_string("main_muc", "conference."..module.host));
muc.focus_host = module:get_option_string("usher_focus", module:get_option_string("focus_component", "focus."..module.host));

local function get_module()
	local host = prosody.hosts[muc.host];
	return host and host.modules.muc;
end

function muc.find(room_jid)
	local loaded = get_module();
	return loaded and loaded.get_room_from_jid(room_jid) or nil;
end

function muc.each()
	local loaded = get_module();
	if not loaded then return function () end; end
	return loaded.live_rooms();
end

function muc.is_health_check(room_jid)
	return room_jid:find("__jicofo-health-check", 1, true) == 1;
end

function muc.is_focus_occupant(occupant)
	return jid.resource(occupant.nick) == "focus" or jid.host(occupant.bare_jid) == muc.focus_host;
end

-- Of who joins a room: before Prosody makes its creator its owner, only its admins are, and Jitsi lists the focus among them.
function muc.is_focus(room, from)
	return jid.host(from) == muc.focus_host or room:get_affiliation(from) == "owner";
end

-- Jitsi's, which outlives the last occupant.
function muc.make_lobby(room)
	module:context("*"):fire_event("create-persistent-lobby-room", { room = room });
end

-- callback once the MUC is there, at once if it is.
function muc.when_there(callback)
	module:hook_global("host-activated", function (host)
		if host == muc.host then callback(); end
	end);
	if prosody.hosts[muc.host] then callback(); end
end

return muc;

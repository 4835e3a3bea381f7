-- Holds the visitors of a conference until it goes live. Where this module is loaded, mod_usher_client writes
-- visitors.live of the rooms as usher says, and reports what a moderator decides.

local jid = require "util.jid";

local client = module:depends "usher_client";
local jitsi = module:require "usher_jitsi";

-- The owner as the booking names it: an e-mail address in any case, an id, a bare JID, or "name:" and a name.
local function is_owner(event, owner)
	local user = jitsi.user_of(event.session or {});
	local from = event.actor and event.actor.bare_jid or "";
	return user.id == owner or user.name and "name:"..tostring(user.name) == owner or jid.bare(from) == owner
		or type(user.email) == "string" and user.email:lower() == owner:lower();
end

-- Denies a "Go live" that the booking does not allow. Jitsi's component fires this for a change by a client.
local function on_allow(event)
	local rule = event.room and event.room.usher and event.room.usher.directive.go_live;
	local goes_live = event.key == "visitors" and type(event.data) == "table" and event.data.live == true;
	if not rule or not goes_live then return; end
	local is_early = rule.from and client.rooms.get_time() < rule.from;
	if not is_early and (not rule.owner or is_owner(event, rule.owner)) then return; end
	module:log("info", "%s must not go live yet, or not by this user", event.room.jid);
	return false;
end

jitsi.when_active(function (host)
	host:hook("jitsi-metadata-updated", function (event)
		if event.key == "visitors" then client.on_change(event); end
	end);
	host:hook("room-metadata-changed", client.on_change);
	-- Before the handlers that allow a change (0).
	module:context(jitsi.main_host):hook("jitsi-metadata-allow-moderation", on_allow, 10);
end);

function module.load() client.rooms.refresh(not module.reloading); end

-- How many occupants a room may have. Jitsi's mod_muc_max_occupants enforces nothing unless it is configured with
-- a number for all rooms, so a booking's limit can't be left to it alone.

local jid = require "util.jid";
local st = require "util.stanza";

local limit = {};

-- Neither the focus counts, nor what Jitsi is told to let in always, such as recorders.
local function is_counted(whitelist, nick, bare_jid)
	return jid.resource(nick) ~= "focus" and not whitelist:contains(bare_jid) and not whitelist:contains(jid.host(bare_jid));
end

-- Answers a join that is one too many, and returns true; for muc-occupant-pre-join.
function limit.refuse_if_full(event, max_occupants)
	local room, stanza = event.room, event.stanza;
	local whitelist = module:context(jid.host(room.jid)):get_option_set("muc_access_whitelist", {});
	if not event.is_first_session or not is_counted(whitelist, stanza.attr.to, jid.bare(stanza.attr.from)) then return; end
	local count = 0;
	for nick, occupant in room:each_occupant() do
		if is_counted(whitelist, nick, occupant.bare_jid) then count = count + 1; end
	end
	if count < max_occupants then return; end
	event.origin.send(st.error_reply(stanza, "cancel", "service-unavailable", "This conference is full.", room.jid));
	return true;
end

return limit;

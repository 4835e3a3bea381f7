-- For tests only: gives a session the identity of a verified token, and runs Lua code inside Prosody.

local json = require "util.json";
local st = require "util.stanza";

local xmlns = "urn:usher:test";

module:hook("iq-set/host/"..xmlns..":identity", function (event)
	local session, stanza = event.origin, event.stanza;
	local identity = json.decode(stanza.tags[1]:get_text());
	session.jitsi_meet_context_user = identity.user;
	session.jitsi_meet_context_group = identity.group;
	session.jitsi_web_query_prefix = identity.tenant;
	session.send(st.reply(stanza));
	return true;
end);

module:hook("iq-set/host/"..xmlns..":lua", function (event)
	local session, stanza = event.origin, event.stanza;
	local chunk, err = load(stanza.tags[1]:get_text(), "=console");
	local ok, result;
	if chunk then
		ok, result = pcall(chunk);
	end
	local answer = { ok = ok or false; result = result; error = not ok and tostring(err or result) or nil };
	session.send(st.reply(stanza):tag("answer", { xmlns = xmlns }):text(json.encode(answer)));
	return true;
end);

-- What Jitsi adds to Prosody: the MUC of the conferences, tenants, the focus, and the user of a session.

local jid = require "util.jid";
local nodeprep = require "util.encodings".stringprep.nodeprep;
local configmanager = require "core.configmanager";
local modulemanager = require "core.modulemanager";

local prefix = module:get_option_string("muc_mapper_domain_prefix", "conference");
local base = module:get_option_string("muc_mapper_domain_base", module.host);

local jitsi = { main_host = base };
jitsi.muc_host = module:get_option_string("usher_muc", module:get_option_string("main_muc", prefix.."."..base));
jitsi.focus_host = module:get_option_string("usher_focus", module:get_option_string("focus_component", "focus."..base));

local admins = module:context(jitsi.muc_host):get_option_inherited_set("admins", {});
local whitelist = module:context(jitsi.muc_host):get_option_set("muc_access_whitelist", {});

-- A tenant's label may hold "_", which Prosody 13 rejects in a host name.
local tenant_pattern = "^"..prefix:gsub("%p", "%%%0").."%.([^.]+)%."..base:gsub("%p", "%%%0").."$";

-- In Jitsi, room@conference.tenant.domain is the room [tenant]room@conference.domain. Nil for another MUC.
function jitsi.room_of(address)
	local node, host = jid.split(address);
	node, host = nodeprep(node or ""), (host or ""):lower();
	if not node or node == "" then return; end
	if host == jitsi.muc_host then return jid.join(node, host); end
	local tenant = host:match(tenant_pattern);
	return tenant and jid.join("["..tenant.."]"..node, jitsi.muc_host) or nil;
end

-- Of several virtual hosts with one MUC, as with Jitsi's guest domain, the one in the MUC's name reports the rooms.
jitsi.reporting_host = module.host;
local main_host = jitsi.muc_host:match("^[^.]+%.(.+)$") or "";
if configmanager.get(main_host, "defined") then
	for name in modulemanager.get_modules_for_host(main_host) do
		if name == "usher_reservations" or name == "usher_queue" then jitsi.reporting_host = main_host; end
	end
end

local no_muc = { get_room_from_jid = function () end; live_rooms = function () return next, {}; end };

local function get_muc()
	local host = prosody.hosts[jitsi.muc_host];
	return host and host.modules.muc or no_muc;
end

function jitsi.find_room(room_jid) return get_muc().get_room_from_jid(room_jid); end
function jitsi.each_room() return get_muc().live_rooms(); end

-- callback(context of the MUC) once it is active; not on a host whose rooms another one reports.
function jitsi.when_active(callback)
	if jitsi.reporting_host ~= module.host then return; end
	module:hook_global("host-activated", function (host)
		if host == jitsi.muc_host then callback(module:context(host)); end
	end);
	if prosody.hosts[jitsi.muc_host] then callback(module:context(jitsi.muc_host)); end
end

-- Jicofo's own rooms are neither reserved nor reported.
function jitsi.is_health_check(room_jid) return room_jid:find("__jicofo-health-check", 1, true) == 1; end

function jitsi.is_focus_occupant(occupant)
	return jid.resource(occupant.nick) == "focus" or jid.host(occupant.bare_jid) == jitsi.focus_host;
end

-- Prosody 13 makes admins owners only with component_admins_as_room_owners.
function jitsi.is_focus(room, from)
	local is_admin = jid.host(from) == jitsi.focus_host or admins:contains(jid.bare(from));
	return is_admin or room:get_affiliation(from) == "owner";
end

-- The focus does not count, nor what Jitsi always admits, such as recorders.
local function is_counted(nick, bare_jid)
	local is_admitted = whitelist:contains(bare_jid) or whitelist:contains(jid.host(bare_jid));
	return not is_admitted and jid.resource(nick) ~= "focus";
end

-- Jitsi's mod_muc_max_occupants checks nothing without a limit for all rooms.
function jitsi.is_full(room, max_occupants, stanza)
	if not is_counted(stanza.attr.to, jid.bare(stanza.attr.from)) then return false; end
	local count = 0;
	for nick, occupant in room:each_occupant() do
		if is_counted(nick, occupant.bare_jid) then count = count + 1; end
	end
	return count >= max_occupants;
end

function jitsi.has_lobby_module()
	return next(prosody.events.get_handlers("create-persistent-lobby-room") or {}) ~= nil;
end

-- Jicofo publishes the number of visitors in its presence.
function jitsi.visitors_of(focus)
	local presence = focus:get_presence();
	local properties = presence and presence:get_child("conference-properties", "http://jitsi.org/protocol/focus");
	for _, property in ipairs(properties and properties.tags or {}) do
		if property.attr.key == "visitor-count" then return tonumber(property.attr.value); end
	end
end

-- In a token only texts, whole numbers and booleans are values. Lua 5.4 reads 1001 as 1001.0, and null is a userdata.
local function scalar(value)
	local kind = type(value);
	if kind == "string" and value ~= "" or kind == "boolean" then return value; end
	if kind == "number" and value % 1 == 0 and math.abs(value) < 2^53 then return ("%d"):format(value); end
end

-- The user as the verified token of the session describes it, and the session's tenant.
function jitsi.user_of(session)
	local claims = type(session.jitsi_meet_context_user) == "table" and session.jitsi_meet_context_user or {};
	local user = { group = scalar(session.jitsi_meet_context_group) };
	for _, name in ipairs({ "id", "email", "name", "role", "moderator" }) do user[name] = scalar(claims[name]); end
	return user, scalar(session.jitsi_web_query_prefix);
end

return jitsi;

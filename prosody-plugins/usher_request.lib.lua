-- What usher is told of a request: which room it is really about, and who asks.

local jid = require "util.jid";

local tenant_prefix = module:get_option_string("muc_mapper_domain_prefix", "conference");
local tenant_base = module:get_option_string("muc_mapper_domain_base", module.host);

local request = {};

local function literal(text)
	return (text:gsub("%p", "%%%0"));
end

local tenant_pattern = "^"..literal(tenant_prefix..".").."([^.]+)"..literal("."..tenant_base).."$";

-- The room an address stands for: room@conference.tenant.domain is [tenant]room@conference.domain in Jitsi.
-- Nothing for an address that is not on the given MUC.
function request.room_of(address, muc_host)
	local node, host = jid.prepped_split(address);
	if not node then return; end
	if host == muc_host then return jid.join(node, host); end
	local tenant = host:match(tenant_pattern);
	return tenant and jid.join("["..tenant.."]"..node, muc_host) or nil;
end

-- The other way round: the address that clients and usher know a room by.
function request.address_of(room_jid)
	local node, host = jid.split(room_jid);
	local tenant, name = (node or ""):match("^%[([^%].]+)%](.+)$");
	return tenant and jid.join(name, tenant_prefix.."."..tenant.."."..tenant_base) or jid.join(node, host);
end

local function text(value)
	if value == nil or type(value) == "table" or value == "" then return; end
	return tostring(value);
end

-- Without a session nothing is known but the room: the focus asks on somebody's behalf and does not say whose.
function request.form(room_jid, session, from)
	session = session or {};
	local user = type(session.jitsi_meet_context_user) == "table" and session.jitsi_meet_context_user or {};
	local name = jid.node(room_jid) or ""; -- a MUC is a room, too, if somebody joins it as such
	return {
		name = name;
		mail_owner = from and jid.bare(from) or "";
		user_id = text(user.id);
		user_email = text(user.email);
		user_name = text(user.name);
		user_group = text(session.jitsi_meet_context_group);
		tenant = name:match("^%[([^%]]+)%]") or text(session.jitsi_web_query_prefix);
		moderator = text(user.moderator);
		role = text(user.role);
	};
end

return request;

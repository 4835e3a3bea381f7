-- Requests usher's decision before a conference starts: for a conference request to the focus, the creation of a room,
-- and a user who joins a room that waits for its owner.

local jid = require "util.jid";
local st = require "util.stanza";

local client = module:depends "usher_client";
local jitsi = module:require "usher_jitsi";
local held = module:require "usher_held"(client.ask);
local rooms = client.rooms;

local function reject(event, kind, condition, text)
	event.origin.send(st.error_reply(event.stanza, kind, condition, text, event.room.jid));
	return true;
end

local function on_conference_request(event)
	local stanza = event.stanza;
	if stanza.attr.type ~= "set" or stanza.attr.to ~= jitsi.focus_host then return; end
	local conference = stanza:get_child("conference", "http://jitsi.org/protocol/focus");
	local room_jid = conference and jitsi.room_of(conference.attr.room);
	if not room_jid or jitsi.is_health_check(room_jid) or jitsi.find_room(room_jid) then return; end
	return held.ask(event, "iq", room_jid);
end

-- A request over HTTP reaches the focus without Prosody: then the creation of the room is the first that is seen of it.
local function on_room_pre_create(event)
	local stanza, room = event.stanza, event.room;
	if jitsi.is_health_check(room.jid) then return; end
	local is_focus = jitsi.is_focus(room, stanza.attr.from);
	local approval = rooms.get_approval(room.jid);
	if not approval and not held.is_passing(event) then return held.ask(event, "create", room.jid, is_focus); end
	-- The password is set once the focus is in; a user who creates the room has to know it.
	local password = approval and approval.directive and approval.directive.password;
	local is_wrong = password and not is_focus and room:get_password() ~= password;
	if is_wrong then return reject(event, "auth", "not-authorized"); end
end

local function on_occupant_pre_join(event)
	local stanza, room = event.stanza, event.room;
	-- The name of a health check must not be a way around the decision.
	if jitsi.is_health_check(room.jid) and jid.resource(stanza.attr.to) ~= "focus" then
		return reject(event, "cancel", "not-allowed", "This room is for health checks only.");
	end
	local directive = room.usher and room.usher.directive or {};
	if directive.await_owner and not held.is_passing(event) and not jitsi.is_focus(room, stanza.attr.from) then
		return held.ask(event, "join", room.jid);
	end
	if directive.max_occupants and event.is_first_session and jitsi.is_full(room, directive.max_occupants, stanza) then
		return reject(event, "cancel", "service-unavailable", "This conference is full.");
	end
end

-- Last: a stanza that is sent on does not come by the handlers after this one.
module:hook("pre-iq/host", on_conference_request, -1000);
jitsi.when_active(function (host)
	-- After all that rejects a creation and sets defaults (0 and above), before the creator becomes owner (-1).
	host:hook("muc-room-pre-create", on_room_pre_create, -0.5);
	-- Before the lobby (-4): no user should knock at a full room.
	host:hook("muc-occupant-pre-join", on_occupant_pre_join, 10);
end);

module.save, module.restore = held.save, held.restore;

function module.load() rooms.refresh(); end
function module.unload() if not module.reloading then held.give_up(); end end

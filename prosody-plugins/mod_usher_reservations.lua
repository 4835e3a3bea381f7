-- Asks usher before a conference starts, by whichever way: a request to the focus, or a room that is being created.

if module:get_host_type() ~= "local" then
	error("Load mod_usher_reservations on the main VirtualHost, not on a component", 0);
end

local jid = require "util.jid";
local st = require "util.stanza";

local muc = module:require "usher_muc";
local rooms = module:require "usher_rooms";
local unclaimed = module:require "usher_unclaimed"(rooms);
local held = module:require "usher_held"(rooms, unclaimed);
local request = module:require "usher_request";
local limit = module:require "usher_limit";

local xmlns_focus = "http://jitsi.org/protocol/focus";

local breakout_host = module:get_option_string("breakout_rooms_muc", "breakout."..module.host);

local checking = {}; -- by room JID

local function is_exempt(room_jid)
	return muc.is_health_check(room_jid) or jid.host(room_jid) == breakout_host;
end

local function on_conference_request(event)
	local stanza = event.stanza;
	if stanza.attr.type ~= "set" or stanza.attr.to ~= muc.focus_host then return; end
	local conference = stanza:get_child("conference", xmlns_focus);
	local room_jid = conference and request.room_of(conference.attr.room, muc.host);
	if not room_jid or is_exempt(room_jid) or muc.find(room_jid) then return; end
	return held.ask(event, room_jid, request.form(room_jid, event.origin, stanza.attr.from));
end

-- A client's request over HTTP reaches the focus behind Prosody's back: the room is the first that is seen of it.
local function on_room_pre_create(event)
	local origin, stanza, room = event.origin, event.stanza, event.room;
	if is_exempt(room.jid) then return; end
	local by_focus = muc.is_focus(room, stanza.attr.from);
	local record = rooms.get(room.jid);
	if not record and by_focus and unclaimed.has(room.jid) then return; end
	if not record then
		return held.ask(event, room.jid, by_focus and request.form(room.jid) or request.form(room.jid, origin, stanza.attr.from));
	end
	-- The focus comes in before the password is set; whoever else creates the room has to know it.
	if record.password and not by_focus and room:get_password() ~= record.password then
		origin.send(st.error_reply(stanza, "auth", "not-authorized", nil, room.jid));
		return true;
	end
	if record.lobby then muc.make_lobby(room); end
end

-- For rooms that came to be without on_room_pre_create: made by a module, restored from storage, older than this module.
local function check(room, is_new)
	local room_jid = room.jid;
	if rooms.get(room_jid) then return rooms.open(room); end
	if is_exempt(room_jid) or unclaimed.has(room_jid) or checking[room_jid] then return; end
	local form = request.form(room_jid);
	checking[room_jid] = true;
	rooms.ask(room_jid, form, function (meaning, detail)
		checking[room_jid] = nil;
		if meaning == "allocated" then
			rooms.approve(room_jid, detail, form);
		elseif meaning == "refused" then
			rooms.close(room_jid, detail);
		elseif is_new and not held.fail_open then
			rooms.close(room_jid, held.unreachable);
		else
			rooms.trust(room_jid, form);
		end
	end);
end

-- Whoever comes to a room that waits for its owner is asked for by name; true if that has to be waited for.
local function claim(event)
	local stanza, room = event.stanza, event.room;
	if not unclaimed.has(room.jid) or muc.is_focus(room, stanza.attr.from) then return; end
	local record = rooms.get(room.jid);
	if not record then return held.ask(event, room.jid, request.form(room.jid, event.origin, stanza.attr.from)); end
	unclaimed.forget(room.jid);
	if record.lobby then muc.make_lobby(room); end
end

local function on_occupant_pre_join(event)
	local origin, stanza, room = event.origin, event.stanza, event.room;
	-- A name that is never asked about must be no way around asking.
	if muc.is_health_check(room.jid) and jid.resource(stanza.attr.to) ~= "focus" then
		origin.send(st.error_reply(stanza, "cancel", "not-allowed", "This room is for health checks only.", room.jid));
		return true;
	end
	if claim(event) then return true; end
	local record = rooms.get(room.jid);
	if not record or not record.max_occupants then return; end
	return limit.refuse_if_full(event, record.max_occupants);
end

local function check_all()
	for room in muc.each() do
		check(room, false);
	end
end

local function watch_rooms()
	local host = module:context(muc.host);
	-- After all that may refuse a creation and set defaults (0 and above), before the creator becomes owner (-1).
	host:hook("muc-room-pre-create", on_room_pre_create, -0.5);
	-- Before the lobby (-4), as nobody should knock at a full room.
	host:hook("muc-occupant-pre-join", on_occupant_pre_join, 10);
	-- Comes before muc-room-created for the first occupant, and alone where a refused join left an empty room behind.
	host:hook("muc-occupant-joined", function (event)
		check(event.room, true);
		rooms.greet(event.room, event.occupant);
	end);
	host:hook("muc-room-created", function (event) check(event.room, true); end);
	host:hook("muc-room-restored", function (event) check(event.room, false); end);
	host:hook("muc-room-destroyed", function (event)
		unclaimed.forget(event.room.jid);
		rooms.forget(event.room.jid);
	end);
end

-- Last: a request is sent on without the handlers after us.
module:hook("pre-iq/host", on_conference_request, -1000);
muc.when_there(watch_rooms);
-- What mod_usher_queue asks: an answer, empty if nothing is known yet, means that this module is here.
module:hook("usher-get-allocation", function (event) return rooms.get(event.room_jid) or {}; end);

function module.load()
	if not module.reloading then check_all(); end
end

function module.save()
	return { rooms = rooms.save(); held = held.save(); unclaimed = unclaimed.save() };
end

function module.restore(saved)
	if saved.rooms then rooms.restore(saved.rooms); end
	unclaimed.restore(saved.unclaimed);
	held.restore(saved.held);
	check_all();
end

function module.unload()
	if not module.reloading then held.give_up(); end
end

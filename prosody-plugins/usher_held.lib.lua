-- Stanzas that wait for usher's decision: sent on, or answered with an error.

local jid = require "util.jid";
local st = require "util.stanza";

local jitsi = module:require "usher_jitsi";

local max_held = 1000;
local fail_open = module:get_option_string("usher_on_failure", "deny") == "allow";
local unreachable = "The reservation service does not answer at the moment. Please try again in a minute.";
local refused = "The reservation service refused this conference.";

-- ask(request, callback) of mod_usher_client
return function (ask)
	local held, waiting, count = {}, {}, 0; -- waiting: by kind of stanza, id, sender and addressee
	local passing; -- the key of the stanza that is being sent on

	local function key_of(stanza)
		local id = stanza.name == "iq" and stanza.attr.id or "";
		return table.concat({ stanza.name; id; stanza.attr.from; stanza.attr.to }, " ");
	end

	-- Whether the stanza was allowed: it comes by the same hook when it is sent on.
	function held.is_passing(event) return passing == key_of(event.stanza); end

	local function refuse(origin, stanza, code, text)
		if stanza.name ~= "iq" then return origin.send(st.error_reply(stanza, "cancel", "not-allowed", text)); end
		origin.send(st.error_reply(stanza, "cancel", "service-unavailable", text)
			:tag("reservation-error", { xmlns = "http://jitsi.org/protocol/focus"; ["error-code"] = code }));
	end

	local function settle(hold, decision)
		if waiting[hold.key] ~= hold then return; end
		waiting[hold.key], count = nil, count - 1;
		local origin, stanza, action = hold.origin, hold.stanza, decision.action;
		if origin.destroyed then return; end
		-- A visitor may ask the focus for the way to the queue, but not create the room.
		if action == "refuse" or action == "queue" and stanza.name ~= "iq" then
			return refuse(origin, stanza, ("%d"):format(decision.code or 403), decision.text or refused);
		elseif action == "fail" and not fail_open then
			return refuse(origin, stanza, "503", unreachable);
		end
		passing = hold.key;
		module:send(stanza, origin);
		passing = nil;
	end

	local function start(hold)
		waiting[hold.key], count = hold, count + 1;
		ask(hold.request, function (decision) settle(hold, decision); end);
	end

	-- Always true: the event is consumed. Each sender is decided alone, and no decision is remembered. kind: "iq",
	-- "create" or "join". The focus does not name the user it asks for.
	function held.ask(event, kind, room_jid, is_focus)
		local origin, stanza = event.origin, st.clone(event.stanza);
		local key, request = key_of(stanza), { kind = kind; room = room_jid; from = "" };
		if not is_focus then
			request.from = jid.bare(stanza.attr.from);
			request.user, request.tenant = jitsi.user_of(origin);
		end
		if waiting[key] then
			waiting[key].stanza = stanza;
		elseif count >= max_held then
			refuse(origin, stanza, "503", unreachable);
		else
			start({ key = key; origin = origin; stanza = stanza; request = request });
		end
		return true;
	end

	-- What was saved is settled after the reload, and not here.
	function held.save() local saved = waiting; waiting = {}; return saved; end
	function held.restore(saved) for _, hold in pairs(saved) do start(hold); end end
	function held.give_up() for _, hold in pairs(waiting) do settle(hold, { action = "fail" }); end end

	return held;
end;

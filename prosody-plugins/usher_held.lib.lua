-- Stanzas that wait for usher's answer, and what becomes of them: sent on, or answered with an error.

local st = require "util.stanza";

local max_held = 1000;
local fail_open = module:get_option_string("usher_on_failure", "deny") == "allow";
local unreachable = "The reservation service does not answer at the moment. Please try again in a minute.";

local waiting, waiting_count = {}, 0; -- by sender, addressee and stanza id

local function refuse(hold, code, text)
	local origin, stanza = hold.origin, hold.stanza;
	if stanza.name == "iq" then
		origin.send(st.error_reply(stanza, "cancel", "service-unavailable", text)
			:tag("reservation-error", { xmlns = "http://jitsi.org/protocol/focus"; ["error-code"] = code }));
	else
		origin.send(st.error_reply(stanza, "cancel", "not-allowed", text));
	end
end

return function (rooms, unclaimed)
	local held = { fail_open = fail_open; unreachable = unreachable };

	-- The focus asks for nobody: who the owner is can be told when they come in.
	local function is_unclaimed(hold, meaning, reason)
		local is_for_nobody = meaning == "refused" and reason == "not_owner" and hold.form.mail_owner == "";
		return is_for_nobody and unclaimed.may_keep(hold.room_jid);
	end

	local function settle(hold, meaning, detail, reason)
		if waiting[hold.key] ~= hold then return; end
		waiting[hold.key], waiting_count = nil, waiting_count - 1;
		if meaning == "allocated" then
			rooms.approve(hold.room_jid, detail, hold.form);
		elseif meaning == "failed" and fail_open then
			rooms.trust(hold.room_jid, hold.form);
		elseif is_unclaimed(hold, meaning, reason) then
			unclaimed.keep(hold.room_jid, detail);
			return module:send(hold.stanza, hold.origin);
		end
		if hold.origin.destroyed then return; end
		-- Who waits for the conference to go live may ask the focus the way to the queue, but not make the room.
		if meaning == "refused" or meaning == "waiting" and hold.stanza.name ~= "iq" then
			return refuse(hold, "403", detail);
		elseif meaning == "failed" and not fail_open then
			return refuse(hold, "503", unreachable);
		elseif meaning == "waiting" then
			unclaimed.note_visitor(hold.room_jid);
		end
		module:send(hold.stanza, hold.origin);
	end

	local function ask(hold)
		waiting[hold.key], waiting_count = hold, waiting_count + 1;
		rooms.ask(hold.room_jid, hold.form, function (meaning, detail, reason)
			settle(hold, meaning, detail, reason);
		end);
	end

	-- Each sender is asked for on their own, and nothing is remembered of a refusal. Always true: the event is consumed.
	function held.ask(event, room_jid, form)
		local origin, stanza = event.origin, st.clone(event.stanza);
		local id = stanza.name == "iq" and stanza.attr.id or "";
		local key = table.concat({ stanza.name; id; stanza.attr.from; stanza.attr.to }, " ");
		local hold = { key = key; origin = origin; stanza = stanza; room_jid = room_jid; form = form };
		if waiting[key] then
			waiting[key].stanza = stanza;
		elseif waiting_count >= max_held then
			refuse(hold, "503", unreachable);
		else
			ask(hold);
		end
		return true;
	end

	function held.save()
		return waiting;
	end

	function held.restore(saved)
		for _, hold in pairs(saved or {}) do
			ask(hold);
		end
	end

	function held.give_up()
		for _, hold in pairs(waiting) do
			settle(hold, "failed");
		end
	end

	return held;
end;

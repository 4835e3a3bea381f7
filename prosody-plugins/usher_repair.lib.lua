-- Compares what usher takes for live with the rooms that are there, and repairs what differs, as after one of the
-- two was restarted.

local now = require "util.time".now;

local muc = module:require "usher_muc";
local request = module:require "usher_request";

local every = math.max(1, module:get_option_number("usher_reconcile", 60));
-- Whether what is live at first, and has no room, can only be left over, or may be another Prosody's.
local only_prosody = module:get_option_boolean("usher_only_prosody", true);
local retry_every = math.min(every, 10);

return function (conferences, stage)
	local repair = {};
	local leftovers; -- by room JID: what was live when usher was asked first, since when
	local absent = {}; -- by room JID: live at usher without a room, since when
	local timer, asked_at;

	-- What usher went live with by itself may well have no room yet.
	local function is_ours(room_jid, entry)
		return conferences.was_reported(room_jid) or only_prosody and leftovers[room_jid] == entry.live_since;
	end

	local function note_leftovers(live)
		if leftovers then return; end
		leftovers = {};
		for room_jid, entry in pairs(live) do
			leftovers[room_jid] = entry.live_since;
		end
	end

	-- After a restart of Prosody everyone is on their way back: what is missing is looked at twice before it ends.
	local function end_absent(entries)
		local still_absent = {};
		for room_jid, entry in pairs(entries) do
			local before = absent[room_jid];
			local since = before and before.live_since == entry.live_since and before.since or now();
			if now() - since < every * 0.9 then
				still_absent[room_jid] = { live_since = entry.live_since; since = since };
			elseif conferences.has_heard(room_jid) then
				module:log("info", "usher reports %s as live, but there is no such room; ending it", room_jid);
				conferences.tell(room_jid, false);
			end
		end
		absent = still_absent;
	end

	local function compare(entries, asked)
		local live = {};
		for _, entry in ipairs(entries) do
			local room_jid = entry.live and request.room_of(entry.conference, muc.host);
			if room_jid then live[room_jid] = entry; end
		end
		note_leftovers(live);
		for room in muc.each() do
			stage.compare(room, live[room.jid], asked);
			live[room.jid] = nil;
		end
		for room_jid, entry in pairs(live) do
			if not is_ours(room_jid, entry) then live[room_jid] = nil; end
		end
		end_absent(live);
	end

	local function set_timer(delay)
		if timer then timer:stop(); end
		timer = module:add_timer(delay, repair.run);
	end

	function repair.run()
		if asked_at then return; end
		asked_at = now();
		conferences.list(function (entries)
			local asked = asked_at;
			asked_at = nil;
			set_timer(entries and every or retry_every);
			if entries then compare(entries, asked); end
		end);
	end

	-- While usher fails it is tried more often, as what it did not hear or say waits for this.
	function repair.on_change(is_up)
		if is_up then repair.run(); else set_timer(retry_every); end
	end

	function repair.save()
		return leftovers;
	end

	function repair.restore(saved)
		leftovers = saved;
	end

	return repair;
end;

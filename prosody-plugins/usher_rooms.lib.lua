-- The state of the rooms: what is reported of each, and how usher's directive is applied. It hangs on room.usher:
-- directive (without a revision: none yet), applied (the options that were set), done, mark, decided, occupied.

local cache = require "util.cache";
local time = require "util.time".now;

local jitsi = module:require "usher_jitsi";
local live = module:require "usher_live";
local schedule = module:require "usher_schedule";

local create_timeout = module:get_option_number("usher_create_timeout", 60);
local fail_open = module:get_option_string("usher_on_failure", "deny") == "allow";

-- server: usher_http. note_change(room). get_time(): by usher's clock.
return function (server, note_change, get_time)
	local rooms = { get_time = get_time };
	local approvals = cache.new(1000); -- by room JID: allowed rooms that do not exist yet

	function rooms.approve(room_jid, directive)
		approvals:set(room_jid, { directive = directive; expires_at = time() + create_timeout });
	end

	function rooms.get_approval(room_jid)
		local approval = approvals:get(room_jid);
		return approval and approval.expires_at > time() and approval or nil;
	end

	local function open_lobby(room)
		if room.usher.has_lobby or not room.usher.directive.lobby then return; end
		room.usher.has_lobby = true;
		module:context("*"):fire_event("create-persistent-lobby-room", { room = room });
	end

	-- A room is held until usher answers: visitors who are in can't be sent back to the queue.
	local function write_live(room)
		local state, is_down = room.usher, not server.is_up;
		if state.directive.revision then
			live.set(room, state.directive.live ~= false);
		elseif state.mark == nil or is_down then
			live.set(room, fail_open and is_down);
		end
	end

	-- Returns the state of a room, nil for a health check. More than one call for one room does no harm.
	function rooms.begin(room)
		if room.usher or jitsi.is_health_check(room.jid) then return room.usher; end
		local approval = rooms.get_approval(room.jid);
		approvals:set(room.jid, nil);
		room.usher = { directive = approval and approval.directive or {}; applied = {}; done = {} };
		open_lobby(room);
		write_live(room);
		note_change(room);
		return room.usher;
	end

	-- Only what changed at usher is set: a password that a moderator set stays.
	local function apply_options(room)
		local old, new, data = room.usher.applied, room.usher.directive, room._data;
		room.usher.applied = new;
		if new.password ~= old.password then room:set_password(new.password or ""); end
		if new.max_occupants ~= old.max_occupants then data.max_occupants = new.max_occupants; end
		local changed = table.concat(new.moderators or {}, " ") ~= table.concat(old.moderators or {}, " ");
		if changed then data.moderators = new.moderators; end
		for _, keys in ipairs({ old.metadata or {}, new.metadata or {} }) do
			for key in pairs(keys) do
				local value = (new.metadata or {})[key];
				if (old.metadata or {})[key] ~= value then
					live.set_metadata(room, key, value);
					changed = true;
				end
			end
		end
		if changed then live.announce(room); end
	end

	local function settle(room)
		write_live(room);
		if not room.usher.directive.revision then return; end
		open_lobby(room);
		apply_options(room);
		-- In a timer: a room must not be destroyed while its creation is still being announced.
		schedule.set(room, get_time, 0);
	end

	-- A directive of a room that does not exist is kept for one that was allowed, and otherwise ignored.
	function rooms.apply(directive)
		local room, approval = jitsi.find_room(directive.room), rooms.get_approval(directive.room);
		local state = room and rooms.begin(room);
		if not room and approval then approval.directive = directive; end
		if not state or directive.revision < (state.directive.revision or 0) then return; end
		state.directive = directive;
		settle(room);
	end

	function rooms.on_joined(room, occupant)
		local state = rooms.begin(room);
		if not state then return; end
		-- Not before the first occupant is in: the focus does not know the password.
		settle(room);
		if state.mark ~= nil and (not state.announced or jitsi.is_focus_occupant(occupant)) then
			module:add_timer(0, function () live.announce(room); end);
		end
		schedule.catch_up(room, occupant, get_time());
		note_change(room);
	end

	-- After a load of the modules, and when usher stops or starts to answer. After the first load of mod_usher_queue,
	-- occupied rooms are live: their occupants are not sent back to the queue.
	function rooms.refresh(is_first)
		for room in jitsi.each_room() do
			local state = rooms.begin(room);
			if state and is_first and state.mark == nil and rooms.report(room).occupied then
				live.set(room, true);
				state.decided = true;
			end
			if state then settle(room); note_change(room); end
		end
	end

	function rooms.report(room)
		local state = rooms.begin(room);
		if not state then return; end
		local occupants, moderators, visitors = 0, 0, nil;
		for _, occupant in room:each_occupant() do
			if jitsi.is_focus_occupant(occupant) then
				visitors = jitsi.visitors_of(occupant) or visitors;
			else
				occupants = occupants + 1;
				if occupant.role == "moderator" then moderators = moderators + 1; end
			end
		end
		state.occupied = state.occupied or occupants > 0;
		return {
			room = room.jid; occupied = state.occupied; meetingId = room._data.meetingId;
			occupants = occupants; moderators = moderators; visitors = visitors;
			live = live.get(room); live_is_ours = not state.decided;
		};
	end

	return rooms;
end;

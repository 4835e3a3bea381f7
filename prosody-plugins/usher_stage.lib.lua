-- Every room as usher is to see it: live or not, and what that is known from.

local now = require "util.time".now;

local muc = module:require "usher_muc";
local live = module:require "usher_live";
local mark = module:require "usher_mark";

local fail_open = module:get_option_string("usher_on_failure", "deny") == "allow";

return function (conferences)
	local stage = {};
	-- By room, as one that is refused while it is being created goes without a word.
	local states = setmetatable({}, { __mode = "k" });

	local function is_live(room, state)
		local said = live.get(room);
		if state.queue == nil and said == state.mark then return false; end
		if said ~= nil then return said ~= false; end
		if not state.queue or live.is_metadata_sent() then return true; end
		state.opened = state.opened or live.has_moderator(room, muc.is_focus_occupant);
		return state.opened;
	end

	-- Whatever happened to a room: usher is told if that made it live, or ended it.
	function stage.update(room)
		local state = states[room];
		if not state then return; end
		if live.get(room) ~= state.mark then state.decided = true; end
		state.occupied = state.occupied or live.has_occupant(room, muc.is_focus_occupant);
		local is_live_now = state.occupied and is_live(room, state);
		if is_live_now == state.live then return; end
		state.live = is_live_now;
		conferences.tell(room.jid, is_live_now);
	end

	local function learn(room, state, has_queue)
		state.queue = has_queue;
		(has_queue and not state.opened and mark.hold or mark.release)(room, state);
		stage.update(room);
	end

	-- usher went live by itself, or still is since before Prosody was restarted; what somebody here decided comes first.
	function stage.open(room)
		local state = states[room];
		if not state or state.decided then return; end
		state.opened = true;
		mark.release(room, state);
		stage.update(room);
	end

	local function ask(room, state)
		if state.asking then return; end
		state.asking = true;
		conferences.look(room.jid, function (entry)
			state.asking = nil;
			if states[room] ~= state then return; end
			if not entry then
				if fail_open and state.queue == nil then mark.release(room, state); end
				return;
			end
			if state.queue == nil then learn(room, state, entry.waiting_queue and not entry.live); end
			if entry.live then stage.open(room); end
		end);
	end

	local function learn_from(room, state, allocation)
		if not allocation.id or state.queue ~= nil then return; end
		state.opened = allocation.live;
		learn(room, state, allocation.waiting_queue == true);
		if state.queue and not state.opened then ask(room, state); end
	end

	-- More than once for one room does no harm.
	function stage.begin(room)
		if states[room] or muc.is_health_check(room.jid) then return; end
		local state = { since = now(); live = false; occupied = false };
		states[room] = state;
		local allocation = module:fire_event("usher-get-allocation", { room_jid = room.jid });
		if not allocation or not next(allocation) then mark.hold(room, state); end
		if not allocation then return ask(room, state); end
		learn_from(room, state, allocation);
	end

	-- Who is in a room already when the module comes is not sent back to wait.
	function stage.adopt(room)
		if not states[room] and not muc.is_health_check(room.jid) and live.has_occupant(room, muc.is_focus_occupant) then
			states[room] = { since = now(); live = false; occupied = true; queue = false };
		end
		stage.begin(room);
		stage.update(room);
	end

	function stage.on_allocation(event)
		local room = muc.find(event.room_jid);
		local state = room and states[room];
		if not state then return; end
		-- Without an id it was let in while usher fails.
		if not event.allocation.id and state.queue == nil then mark.release(room, state); end
		learn_from(room, state, event.allocation);
	end

	function stage.on_joined(room, occupant)
		if states[room] then mark.on_joined(room, states[room], occupant); end
		stage.update(room);
	end

	function stage.forget(room)
		if not states[room] then return; end
		states[room] = nil;
		conferences.tell(room.jid, false);
	end

	-- What usher said of a room when it was asked at that time; nil, that it is not live.
	function stage.compare(room, entry, asked_at)
		local state = states[room];
		if not state or state.since > asked_at or not conferences.has_heard(room.jid) then return; end
		if state.queue == nil then
			ask(room, state);
		elseif state.live and not entry or entry and not state.live and state.decided then
			conferences.tell(room.jid, state.live);
		elseif entry and not state.live then
			stage.open(room);
		end
	end

	-- The rooms that wait for somebody to go live: in Prosody, or at usher.
	function stage.held()
		local rooms = {};
		for room, state in pairs(states) do
			if state.queue and not state.opened and not state.decided then table.insert(rooms, room); end
		end
		return rooms;
	end

	function stage.save()
		for _, state in pairs(states) do
			state.asking = nil;
		end
		return states;
	end

	function stage.restore(saved)
		states = saved or states;
	end

	return stage;
end;

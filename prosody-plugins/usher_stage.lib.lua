-- Every room as usher is to see it: live or not, and what that is known from.

local now = require "util.time".now;

local muc = module:require "usher_muc";
local live = module:require "usher_live";

return function (conferences)
	local stage = {};
	-- By room, as one that is refused while it is being created goes without a word.
	local states = setmetatable({}, { __mode = "k" });

	local function announce(room)
		if muc.find(room.jid) ~= room then return; end
		module:context(muc.host):fire_event("room-metadata-changed", { room = room });
	end

	-- Nobody is in a room yet that is being created: on_joined tells who comes.
	local function mark(room, state, value)
		state.mark = value;
		live.set(room, value);
		if not room:has_occupant() then return; end
		state.announced = true;
		announce(room);
	end

	local function is_live(room, state)
		local said = live.get(room);
		if said ~= nil then return said ~= false; end
		if state.queue == nil then return false; end
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
		if has_queue and not state.opened and live.get(room) == nil and live.is_metadata_sent() then mark(room, state, false); end
		stage.update(room);
	end

	-- usher went live by itself, or still is since before Prosody was restarted; what somebody here decided comes first.
	local function open(room, state)
		if state.decided then return; end
		state.opened = true;
		if state.mark == false then mark(room, state, true); end
		stage.update(room);
	end

	local function ask(room, state)
		if state.asking then return; end
		state.asking = true;
		conferences.look(room.jid, function (entry)
			state.asking = nil;
			if not entry or states[room] ~= state then return; end
			if state.queue == nil then learn(room, state, entry.waiting_queue and not entry.live); end
			if entry.live then open(room, state); end
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
		if state then learn_from(room, state, event.allocation); end
	end

	-- Jitsi's component sends the focus nothing when it joins; in a timer, as the first one joins before the room is created.
	function stage.on_joined(room, occupant)
		local state = states[room];
		if state and state.mark == false and (not state.announced or muc.is_focus_occupant(occupant)) then
			state.announced = true;
			module:add_timer(0, function () announce(room); end);
		end
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
			open(room, state);
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

	function stage.on_live(room)
		local state = states[room];
		if state then open(room, state); end
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

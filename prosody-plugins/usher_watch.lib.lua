-- Listens for usher going live by itself, as a booking or an operator may want it: visitors are told at once, and are sent
-- back to the queue until the room is live in Prosody, too. So the rooms that are held are asked about all the time.

local watch_every = 2; -- seconds between two rounds

return function (conferences, stage)
	local watch = {};
	local rooms = {}; -- of this round, those that are still to be asked about

	-- One at a time, however many are held.
	local function ask_next()
		local room = table.remove(rooms);
		if not room then
			rooms = {};
			return module:add_timer(watch_every, watch.run);
		end
		-- What usher has not heard of a room is told at its own pace, and comes first.
		if not conferences.has_heard(room.jid) then return ask_next(); end
		conferences.look(room.jid, function (entry)
			if entry and entry.live then stage.open(room); end
			ask_next();
		end);
	end

	function watch.run()
		rooms = stage.held();
		ask_next();
	end

	return watch;
end;

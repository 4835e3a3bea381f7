-- Rooms that the focus made on behalf of somebody it doesn't name, where only the booking's owner may start: nobody is let
-- in until the owner comes, whose session says who they are.

local cache = require "util.cache";
local now = require "util.time".now;

local create_timeout = module:get_option_number("usher_create_timeout", 60);
local visitor_memory = 5; -- seconds

return function (rooms)
	local unclaimed = {};
	local sentences = {}; -- by room JID: what others are told
	local visited = cache.new(1000); -- by room JID: when a waiting visitor was shown the way to the focus

	function unclaimed.note_visitor(room_jid)
		visited:set(room_jid, now());
	end

	-- A room that the focus makes right after that is no owner's, and visitors are not to get in by it.
	function unclaimed.may_keep(room_jid)
		local at = visited:get(room_jid);
		return not at or now() - at > visitor_memory;
	end

	function unclaimed.has(room_jid)
		return sentences[room_jid] ~= nil;
	end

	function unclaimed.forget(room_jid)
		sentences[room_jid] = nil;
	end

	-- The focus leaves a room that stays empty; should it not, this does.
	function unclaimed.keep(room_jid, sentence)
		sentences[room_jid] = sentence;
		module:add_timer(create_timeout, function ()
			if sentences[room_jid] ~= sentence then return; end
			sentences[room_jid] = nil;
			rooms.close(room_jid, sentence);
		end);
	end

	function unclaimed.save()
		return sentences;
	end

	function unclaimed.restore(saved)
		for room_jid, sentence in pairs(saved or {}) do
			unclaimed.keep(room_jid, sentence);
		end
	end

	return unclaimed;
end;

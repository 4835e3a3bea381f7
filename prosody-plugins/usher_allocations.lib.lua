-- What usher allocated: asking for an allocation, reading it, and telling usher that it is over.

local datetime = require "util.datetime";

local usher = module:require "usher";

local longest = 1e9; -- seconds; some thirty years, so that an end can be reckoned with, whatever the answer says

local allocations = { save = usher.save; restore = usher.restore };

local looks_refused = false;

local function path_of(id)
	return "/conference/"..id;
end

-- An id goes into a URL: 7, never 7.0, whatever JSON made of it. Those of another reservation system may be texts.
local function read_id(id)
	if type(id) == "string" then return id:match("^[%w%-._~:@+=,]+$"); end
	return type(id) == "number" and id >= 0 and id % 1 == 0 and ("%d"):format(id) or nil;
end

local function read_allocation(data)
	local id = read_id(data.id);
	local start = type(data.start_time) == "string" and datetime.parse(data.start_time);
	local duration = type(data.duration) == "number" and math.floor(math.min(data.duration, longest));
	if not id or not start or not duration then return; end
	local max_occupants = type(data.max_occupants) == "number" and data.max_occupants or nil;
	local password = type(data.password) == "string" and data.password or nil;
	return {
		id = id;
		ends_at = start + duration;
		ends = type(data.ends) == "string" and data.ends or nil;
		max_occupants = max_occupants;
		password = password;
		lobby = data.lobby == true;
		waiting_queue = data.waiting_queue == true;
		live = data.live == true;
	};
end

local function read_message(data)
	return type(data.message) == "string" and data.message or "The reservation service refused this conference.";
end

-- What an answer means: "allocated" with the allocation, "waiting", "over" or "refused" each with a sentence (and the last with
-- a word for programs, if usher has one), "unknown", or "failed".
local function read_answer(code, data)
	if code == 200 or code == 201 then
		local allocation = read_allocation(data);
		if allocation then return "allocated", allocation; end
		module:log("error", "invalid response from usher: not an allocation; check usher_url");
	elseif code == 202 and data.waiting_queue == true then
		return "waiting", read_message(data);
	elseif code == 404 and data.ended_at then
		return "over", read_message(data);
	elseif code == 404 then
		return "unknown";
	elseif code >= 400 and code < 500 then
		return "refused", read_message(data), data.reason;
	end
	return "failed";
end

-- callback(meaning, detail, reason) with a meaning of "allocated", "waiting", "refused" or "failed".
function allocations.ask(room_jid, form, callback)
	form.start_time = os.date("!%Y-%m-%dT%H:%M:%S.000Z");

	local post;

	local function on_answer(code, data)
		local meaning, detail, reason = read_answer(code, data);
		if meaning == "over" or meaning == "unknown" then meaning = "failed"; end
		callback(meaning, detail, reason);
	end

	-- What was in the way may be over by now, as between two bookings: asking once more tells.
	local function on_running(id, is_last)
		usher.request("GET", path_of(id), nil, function (code, data)
			if code == 404 and not is_last then return post(true); end
			on_answer(code, data);
		end);
	end

	function post(is_last)
		usher.request("POST", "/conference", form, function (code, data)
			local running = code == 409 and read_id(data.conflict_id);
			if running then return on_running(running, is_last); end
			on_answer(code == 409 and 0 or code, data);
		end);
	end

	-- While usher has not heard that the room's last allocation is over, it would hand out that one again.
	usher.when_told(room_jid, function (told)
		if not told then return callback("failed"); end
		post(false);
	end);
end

local function note_look(refused, code, detail)
	if refused == looks_refused then return; end
	looks_refused = refused;
	if refused then
		module:log("warn", "usher refuses requests about running conferences, changed bookings are not applied: %d %s", code, detail);
	else
		module:log("info", "usher accepts requests about running conferences again");
	end
end

-- callback(meaning, detail) with a meaning of "allocated", "over", "unknown" or "failed".
function allocations.look(id, callback)
	usher.request("GET", path_of(id), nil, function (code, data)
		local meaning, detail = read_answer(code, data);
		-- usher refuses who wants to open a conference; that one doesn't run any more, it says otherwise.
		local refused = meaning == "refused";
		if meaning ~= "failed" then note_look(refused, code, detail); end
		callback(refused and "failed" or meaning, detail);
	end);
end

function allocations.finish(room_jid, id)
	usher.tell(room_jid, "DELETE", path_of(id));
end

return allocations;

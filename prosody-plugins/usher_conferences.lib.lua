-- What usher is told of conferences that go live and end, and what it says of them.

local http = require "net.http";
local cache = require "util.cache";

local usher = module:require "usher";
local request = module:require "usher_request";

local path = module:get_option_string("usher_queue_path", "/waiting-queue"):gsub("/+$", "");

local conferences = { has_heard = usher.has_heard; on_change = usher.on_change };
local reported = cache.new(1000); -- by room JID: what usher was told to be live
local understood = true;

function conferences.tell(room_jid, is_live)
	module:log("debug", "%s is %s", room_jid, is_live and "live" or "not live");
	if is_live then reported:set(room_jid, true); end
	local fact = { json = { conference = request.address_of(room_jid) } };
	usher.tell_state(room_jid, "POST", path..(is_live and "/golive" or "/endlive"), fact);
end

function conferences.was_reported(room_jid)
	return reported:get(room_jid) ~= nil;
end

local function read_entry(entry)
	if type(entry) ~= "table" or type(entry.conference) ~= "string" then return; end
	return {
		conference = entry.conference;
		live = entry.live == true;
		live_since = entry.liveSince;
		waiting_queue = entry.waitingQueue == true;
	};
end

-- callback(entries), nil instead of them if usher doesn't say.
local function get(query, callback)
	usher.request("GET", path.."/conferences"..query, nil, function (code, data)
		local understands = code == 200 and type(data.conferences) == "table";
		if code ~= 0 and understands ~= understood then
			understood = understands;
			local level = understands and "info" or "warn";
			local text = understands and "reports live conferences again" or "does not report live conferences, check usher_queue_path";
			module:log(level, "usher %s (%d %s)", text, code, tostring(data.message or ""));
		end
		if not understands then return callback(nil); end
		local entries = {};
		for _, entry in ipairs(data.conferences) do
			entries[#entries + 1] = read_entry(entry);
		end
		callback(entries);
	end);
end

function conferences.list(callback)
	get("", callback);
end

-- callback(entry), of one conference, after usher has heard all that it was told of it.
function conferences.look(room_jid, callback)
	usher.when_told(room_jid, function (told)
		if not told then return callback(nil); end
		get("?conference="..http.urlencode(request.address_of(room_jid)), function (entries)
			callback(entries and entries[1]);
		end);
	end);
end

function conferences.save()
	return { facts = usher.save(); reported = reported };
end

function conferences.restore(saved)
	reported = saved.reported or reported;
	usher.restore(saved.facts);
end

return conferences;

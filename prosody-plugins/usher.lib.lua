-- All HTTP towards usher: requests with a deadline, whether usher is there, and what it has to hear sooner or later.

local http = require "net.http";
local json = require "util.json";

-- Answers from which no decision can be read: usher does not know us, or has no time for us.
local not_a_decision = { [401] = true; [408] = true; [429] = true };

local url = module:get_option_string("usher_url", "http://127.0.0.1:8060"):gsub("/+$", "");
local timeout = module:get_option_number("usher_timeout", 5);
local token = module:get_option_string("usher_token");
local token_file = module:get_option_string("usher_token_file");

if token_file and not token then
	local file, err = io.open(token_file);
	if file then
		token = file:read("*a"):match("^%s*(.-)%s*$");
		file:close();
	else
		module:log_status("error", "Cannot read usher_token_file: %s", err);
	end
end

local usher = {};
local up = true;
local change_handlers = {};

local function note(answered, reason)
	if answered == up then return; end
	up = answered;
	if up then
		module:log_status("info", "usher at %s answers again", url);
	else
		module:log_status("warn", "usher at %s fails: %s", url, reason);
	end
	for _, handler in ipairs(change_handlers) do
		handler(up);
	end
end

local function decode(body)
	local data = json.decode(body or "");
	return type(data) == "table" and data or {};
end

-- What is sent along: a form, or { json = … }.
local function encode(content)
	if content.json then return json.encode(content.json), "application/json"; end
	return http.formencode(content), "application/x-www-form-urlencoded";
end

-- callback(code, data): code 0 is any failure to get a decision, data is never nil.
function usher.request(method, path, content, callback)
	local deadline, done;
	local function finish(code, body)
		if done or module.loaded == false then return; end
		done = true;
		if deadline then deadline:stop(); end
		local data = code ~= 0 and decode(body) or {};
		local failed = code == 0 or code >= 500 or not_a_decision[code];
		note(not failed, code == 0 and body or ("%d %s"):format(code, tostring(data.message or "")));
		callback(failed and 0 or code, data);
	end

	local encoded, content_type;
	if content then encoded, content_type = encode(content); end
	local request = http.request(url..path, {
		method = method;
		headers = { ["Authorization"] = token and "Bearer "..token or nil; ["Content-Type"] = content_type };
		body = encoded;
	}, function (body, code) finish(code or 0, body); end);
	if done then return; end
	-- net.http has no deadline of its own.
	deadline = module:add_timer(timeout, function ()
		if done then return; end
		http.destroy_request(request);
		finish(0, ("no answer within %g seconds"):format(timeout));
	end);
end

-- handler(true) when usher answers again, handler(false) when it fails.
function usher.on_change(handler)
	table.insert(change_handlers, handler);
end

module:require "usher_facts"(usher);

return usher;

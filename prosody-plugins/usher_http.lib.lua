-- HTTP requests to usher, with a deadline and one log line whenever usher stops or starts to answer.

local http = require "net.http";
local json = require "util.json";

local urls = module:get_option_array("usher_url", { "http://127.0.0.1:8060" });
local token = module:get_option_string("usher_token");
local token_file = module:get_option_string("usher_token_file");

if token_file and not token then
	local file, err = io.open(token_file);
	token = file and file:read("*a"):match("^%s*(.-)%s*$");
	if file then file:close(); else module:log_status("error", "Cannot read usher_token_file: %s", err); end
end

local server = { is_up = true; on_change = function () end };
local current = 1; -- of the URLs

local function note(is_up, url, reason)
	if is_up == server.is_up then return; end
	server.is_up = is_up;
	if is_up then module:log_status("info", "usher at %s answers again", url);
	else module:log_status("warn", "usher at %s fails: %s", url, reason); end
	server.on_change();
end

-- callback(code, answer) with a code of 200, of 410 if usher does not know this instance, or of 0 without an answer.
-- Each URL is tried once.
function server.request(method, path, data, timeout, callback, attempt)
	local index, url = current, tostring(urls[current]):gsub("/+$", "");
	local request, timer, done;
	local function finish(body, code)
		if done or module.loaded == false then return; end
		done = true;
		if timer then timer:stop(); end
		local answer = json.decode(body or "");
		answer = type(answer) == "table" and answer or {};
		if code == 200 or code == 410 then
			note(true, url);
			return callback(code, answer);
		end
		if index == current then current = current % #urls + 1; end
		attempt = (attempt or 1) + 1;
		if attempt <= #urls then return server.request(method, path, data, timeout, callback, attempt); end
		note(false, url, code == 0 and body or ("%s %s"):format(code, answer.message));
		callback(0, {});
	end
	local headers = { ["Authorization"] = token and "Bearer "..token; ["Content-Type"] = data and "application/json" };
	local content = { method = method; headers = headers; body = data and json.encode(data) };
	request = http.request(url..path, content, finish);
	if done then return; end
	-- net.http has no deadline of its own.
	timer = module:add_timer(timeout, function ()
		http.destroy_request(request);
		finish(("no answer within %g seconds"):format(timeout), 0);
	end);
end

return server;

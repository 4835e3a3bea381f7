-- Tells `usher check` what Prosody's configuration says about usher: prosodyctl mod_usher_check meet.example.com
-- It runs in prosodyctl only, and is not meant for modules_enabled.

local configmanager = require "core.configmanager";
local modulemanager = require "core.modulemanager";
local json = require "util.json";

-- Whether the token is there, and never what it is.
local function token_state(host)
	if configmanager.get(host, "usher_token") then return "inline"; end
	local path = configmanager.get(host, "usher_token_file");
	if not path then return "none"; end
	local file, err = io.open(path);
	if not file then return "unreadable", err; end
	file:close();
	return "file", path;
end

local function enabled(host)
	local names = {};
	for name in modulemanager.get_modules_for_host(host) do
		table.insert(names, name);
	end
	table.sort(names);
	return names;
end

function module.command(arg)
	local host = arg[1];
	local served = configmanager.getconfig()[host] and configmanager.get(host, "defined") or false;
	local report = { served = served };
	if served then
		report.modules = enabled(host);
		report.usher_url = configmanager.get(host, "usher_url") or "http://127.0.0.1:8060";
		report.reservations_api_prefix = configmanager.get(host, "reservations_api_prefix");
		report.app_secret = configmanager.get(host, "app_secret") ~= nil;
		report.token, report.token_detail = token_state(host);
	end
	print(json.encode(report));
	return 0;
end

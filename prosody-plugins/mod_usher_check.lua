-- Tells `usher check` what Prosody's configuration says about usher: prosodyctl mod_usher_check meet.example.com
-- It runs in prosodyctl only, and is not meant for modules_enabled. It prints the service token only if the second
-- argument is --with-token: usher check asks usher whether it is accepted.

local configmanager = require "core.configmanager";
local modulemanager = require "core.modulemanager";
local json = require "util.json";

local function read(path)
	local file, err = io.open(path);
	if not file then return nil, err; end
	local text = file:read("*a");
	file:close();
	return text;
end

local function modules_of(host)
	local names = {};
	for name in modulemanager.get_modules_for_host(host) do table.insert(names, name); end
	table.sort(names);
	return names;
end

-- Where the token is, and whether Prosody's user can read its file.
local function token_of(host, with_value)
	local token, path = configmanager.get(host, "usher_token"), configmanager.get(host, "usher_token_file");
	if token then return { place = "inline"; value = with_value and token or nil }; end
	if not path then return { place = "none" }; end
	local text, err = read(path);
	if not text then return { place = "unreadable"; detail = err }; end
	return { place = "file"; detail = path; value = with_value and text:match("^%s*(.-)%s*$") or nil };
end

-- The token of the stock module.
local function header_of(host, with_value)
	local headers = configmanager.get(host, "reservations_api_headers");
	for name, value in pairs(type(headers) == "table" and headers or {}) do
		if name:lower() == "authorization" then return { place = "header"; value = with_value and value or nil }; end
	end
	return { place = "none" };
end

local function virtual_hosts()
	local names = {};
	for name in pairs(configmanager.getconfig()) do
		local is_host = configmanager.get(name, "defined") and not configmanager.get(name, "component_module");
		if is_host and name ~= "*" then table.insert(names, name); end
	end
	table.sort(names);
	return names;
end

local function report_of(host, with_value)
	local function option(name) return configmanager.get(host, name); end
	local muc, url = option("usher_muc") or option("main_muc") or "conference."..host, option("usher_url");
	local queue = configmanager.get("visitors."..host, "visitors_queue_service") or option("visitors_queue_service");
	return {
		modules = modules_of(host); muc_modules = configmanager.getconfig()[muc] and modules_of(muc) or nil;
		muc_max_occupants = tonumber(configmanager.get(muc, "muc_max_occupants"));
		usher_url = type(url) == "table" and url or { url or "http://127.0.0.1:8060" };
		reservations_api_prefix = option("reservations_api_prefix");
		reservations_enable_max_occupants = option("reservations_enable_max_occupants") == true;
		component_admins_as_room_owners = configmanager.get(muc, "component_admins_as_room_owners") == true;
		app_secret = option("app_secret") ~= nil; visitors_queue_service = queue ~= nil;
		token = token_of(host, with_value); header = header_of(host, with_value);
	};
end

function module.command(arg)
	local host = arg[1];
	local served = configmanager.getconfig()[host] and configmanager.get(host, "defined") or false;
	local report = served and report_of(host, arg[2] == "--with-token") or {};
	report.served, report.hosts, report.version = served, virtual_hosts(), prosody.version;
	-- Of the modules on disk; the running Prosody may have loaded others.
	local source = read(module:get_directory().."/mod_usher_client.lua");
	report.module_version = source and source:match('\nlocal version = "([^"]+)";');
	print(json.encode(report));
	return 0;
end

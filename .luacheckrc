-- As strict as Prosody's own checks, except for the length of lines.
std = "lua54";
cache = false;
max_line_length = 120;
codes = true;
unused_secondaries = true;

-- Globals of a Prosody module.
files["prosody-plugins/"] = {
	read_globals = { "prosody" };
	globals = {
		module = { fields = {
			"add_feature", "add_timer", "context", "depends", "fire_event",
			"get_host", "get_host_type", "get_option_boolean", "get_option_number", "get_option_string", "get_option_set",
			"get_option_array", "get_option",
			"get_directory", "get_name", "hook", "hook_global", "unhook", "host", "log", "log_status", "name", "require", "send", "load_resource", "shared",
			command = { read_only = false }, load = { read_only = false }, unload = { read_only = false },
			save = { read_only = false }, restore = { read_only = false }, add_host = { read_only = false },
			"environment", "provides", "global", "loaded", "reloading",
		} };
	};
};

-- Functions that mod_usher_client offers to the others.
files["prosody-plugins/mod_usher_client.lua"] = { allow_defined_top = true; ignore = { "131" } };

files["tests/prosody/modules/"] = files["prosody-plugins/"];
files["tests/lua/"] = { std = "+busted" };

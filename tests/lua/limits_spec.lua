-- The modules stay small enough to read: policy belongs into usher.

local plugins = (debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "").."prosody-plugins/";

describe("all modules together", function ()
	it("have at most 10 files, 700 lines that are neither blank nor comment, and 120 columns", function ()
		local files, lines = 0, 0;
		for name in assert(io.popen("ls "..plugins)):lines() do
			files = files + 1;
			for line in io.lines(plugins..name) do
				if not line:match("^%s*$") and not line:match("^%s*%-%-") then lines = lines + 1; end
				assert.is_true(#line:gsub("\t", "    ") <= 120, name..": "..line);
			end
		end
		assert.is_true(files <= 10, files.." files");
		assert.is_true(lines <= 700, lines.." lines");
	end);
end);

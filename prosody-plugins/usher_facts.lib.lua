-- Facts: what usher has to hear, told one after the other until it has, with longer and longer pauses.

local retry_first, retry_most = 1, 60; -- seconds between two attempts
local max_facts = 1000;

return function (usher)
	local facts, telling, delay, retry = {}, nil, retry_first, nil;
	local tell_next;

	local function remove(fact)
		for i, other in ipairs(facts) do
			if other == fact then return table.remove(facts, i); end
		end
	end

	local function answer_waiters(fact, told)
		local waiters = fact.waiters;
		fact.waiters = {};
		for _, callback in ipairs(waiters) do
			callback(told);
		end
	end

	local function answer_all_waiters(told)
		local unheard = table.move(facts, 1, #facts, 1, {});
		for _, fact in ipairs(unheard) do
			answer_waiters(fact, told);
		end
	end

	-- Of a thing to delete, usher knowing nothing is as good as a yes; of a state, it is not.
	local function is_heard(fact, code)
		return code >= 200 and code < 300 or code == 404 and not fact.is_state;
	end

	-- usher is there, but does not take this fact: others need not wait for the next attempt.
	local function rest(fact, code, data)
		if not fact.delay then
			module:log("warn", "usher rejects %s %s of %s, retrying: %d %s", fact.method, fact.path, fact.key, code, tostring(data.message or ""));
		end
		local pause = fact.delay or retry_first;
		fact.delay, fact.resting = math.min(pause * 2, retry_most), true;
		module:add_timer(pause, function ()
			fact.resting = false;
			tell_next();
		end);
		answer_waiters(fact, false);
		tell_next();
	end

	local function pause_all()
		retry = module:add_timer(delay, function ()
			retry = nil;
			tell_next();
		end);
		delay = math.min(delay * 2, retry_most);
		answer_all_waiters(false);
	end

	-- Who came while the attempt was under way gets one of their own, at once.
	local function try_again(fact)
		answer_all_waiters(false);
		fact.waiters, fact.late = fact.late, {};
		table.insert(facts, 1, fact);
		tell_next();
	end

	local function on_told(fact, code, data)
		telling = nil;
		remove(fact);
		if is_heard(fact, code) then
			delay = retry_first;
			answer_waiters(fact, true);
			fact.waiters = fact.late;
			answer_waiters(fact, true);
			return tell_next();
		elseif fact.superseded then
			return tell_next();
		elseif #fact.late > 0 then
			answer_waiters(fact, false);
			return try_again(fact);
		end
		-- To the end of the queue: a fact usher chokes on must not hold up the others.
		table.insert(facts, fact);
		if code ~= 0 then return rest(fact, code, data); end
		pause_all();
	end

	local function get_next()
		for _, fact in ipairs(facts) do
			if not fact.resting then return fact; end
		end
	end

	function tell_next()
		local fact = not telling and not retry and get_next();
		if not fact then return; end
		telling = fact;
		usher.request(fact.method, fact.path, fact.content, function (code, data) on_told(fact, code, data); end);
	end

	local function tell_now()
		if retry then
			retry:stop();
			retry = nil;
		end
		tell_next();
	end

	local function add(fact)
		if #facts >= max_facts then
			local lost = table.remove(facts, facts[1] == telling and 2 or 1);
			module:log("warn", "Too many undelivered reports to usher; dropped %s %s", lost.method, lost.path);
			answer_waiters(lost, true);
		end
		table.insert(facts, fact);
		tell_next();
	end

	-- A fact counts as told after a 2xx, or a 404: usher knows of nothing that it could contradict.
	function usher.tell(key, method, path, content)
		add({ key = key; method = method; path = path; content = content; waiters = {}; late = {} });
	end

	-- The same of a state, which counts as told after a 2xx, and takes the place of an older one that was not heard.
	function usher.tell_state(key, method, path, content)
		local newest = { key = key; method = method; path = path; content = content; waiters = {}; late = {}; is_state = true };
		for i = #facts, 1, -1 do
			local fact = facts[i];
			if fact.key == key and fact.is_state then
				table.move(fact.waiters, 1, #fact.waiters, #newest.waiters + 1, newest.waiters);
				table.move(fact.late, 1, #fact.late, #newest.waiters + 1, newest.waiters);
				fact.waiters, fact.late, fact.superseded = {}, {}, true;
				if fact ~= telling then table.remove(facts, i); end
			end
		end
		add(newest);
	end

	function usher.has_heard(key)
		for _, fact in ipairs(facts) do
			if fact.key == key then return false; end
		end
		return true;
	end

	-- callback(true) once usher has heard what it was told under this key, callback(false) if it can't be told now.
	function usher.when_told(key, callback)
		for i = #facts, 1, -1 do
			local fact = facts[i];
			if fact.key == key then
				if fact == telling then return table.insert(fact.late, callback); end
				table.insert(fact.waiters, callback);
				fact.resting = false;
				table.insert(facts, 1, table.remove(facts, i));
				return tell_now();
			end
		end
		callback(true);
	end

	function usher.save()
		local saved = {};
		for _, fact in ipairs(facts) do
			local kept = { key = fact.key; method = fact.method; path = fact.path; content = fact.content; is_state = fact.is_state };
			if not fact.superseded then table.insert(saved, kept); end
		end
		return saved;
	end

	function usher.restore(saved)
		for _, fact in ipairs(saved or {}) do
			(fact.is_state and usher.tell_state or usher.tell)(fact.key, fact.method, fact.path, fact.content);
		end
	end

	usher.on_change(function (is_up)
		if is_up then tell_now(); end
	end);
end;

-- Tells usher when a conference goes live and when it ends, and holds rooms whose booking has a waiting queue.
--
-- A conference is live while its room is, from the room's first occupant on (the focus is none) until the room is
-- destroyed or somebody sets it to not live. A room is live unless its metadata says otherwise; one with a waiting queue
-- is created as not live. usher_stage has the rules, usher_watch hears of it when usher goes live by itself, and
-- usher_repair knows what is to be done after a restart.

if module:get_host_type() ~= "local" then
	error("Load mod_usher_queue on the main VirtualHost, not on a component", 0);
end

local muc = module:require "usher_muc";
local conferences = module:require "usher_conferences";
local stage = module:require "usher_stage"(conferences);
local watch = module:require "usher_watch"(conferences, stage);
local repair = module:require "usher_repair"(conferences, stage);

local function begin(event)
	stage.begin(event.room);
end

local function update(event)
	if event.room then stage.update(event.room); end
end

local function watch_rooms()
	local host = module:context(muc.host);
	-- After mod_usher_reservations (-0.5) has got its answer, before the room exists (-1000).
	host:hook("muc-room-pre-create", begin, -0.75);
	-- For rooms made by a module: before Jitsi's metadata component (-1) sends out what there is.
	host:hook("muc-room-created", begin, 10);
	host:hook("muc-room-restored", begin);
	-- For rooms left over from a refused join: before mod_visitors_component (0) looks whether the room is live.
	host:hook("muc-occupant-joined", begin, 10);
	-- After all that makes moderators of occupants (2, -2) and sets metadata (-1, -2).
	host:hook("muc-occupant-joined", function (event) stage.on_joined(event.room, event.occupant); end, -10);
	host:hook("muc-room-created", update, -10);
	host:hook("muc-set-affiliation", update, -10);
	host:hook("jitsi-metadata-updated", function (event)
		if event.key == "visitors" then update(event); end
	end);
	host:hook("room-metadata-changed", update);
	-- Before tombstones (-10), which end the chain.
	host:hook("muc-room-destroyed", function (event) stage.forget(event.room); end);
end

local function adopt_all()
	for room in muc.each() do
		stage.adopt(room);
	end
end

module:hook("usher-allocation", stage.on_allocation);
conferences.on_change(repair.on_change);
muc.when_there(watch_rooms);

function module.load()
	if not module.reloading then adopt_all(); end
	-- Hosts are still being activated when Prosody starts.
	module:add_timer(1, repair.run);
	watch.run();
end

function module.save()
	return { stage = stage.save(); repair = repair.save(); conferences = conferences.save() };
end

function module.restore(saved)
	conferences.restore(saved.conferences or {});
	stage.restore(saved.stage);
	repair.restore(saved.repair);
	adopt_all();
end

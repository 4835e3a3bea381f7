-- For tests only: records the rooms for which a lobby was requested, and whether they existed already.

local lobbies = module:shared("/*/test_lobby/lobbies");

module:hook_global("create-persistent-lobby-room", function (event)
	local muc = prosody.hosts["conference."..module.host].modules.muc;
	table.insert(lobbies, { room = event.room.jid; existed = muc.get_room_from_jid(event.room.jid) ~= nil });
end);

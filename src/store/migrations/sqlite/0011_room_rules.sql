-- Rules for a room that Jitsi applies, as JSON (domain/room_rules.rs); absent: none.
ALTER TABLE booking ADD COLUMN room_rules TEXT;
ALTER TABLE allocation ADD COLUMN room_rules TEXT;

-- The rooms whose conferences were opened or reported over the protocol of usher's modules for Prosody. The absence of
-- reports ends only these.
CREATE TABLE prosody_room (
    room   TEXT NOT NULL,
    tenant TEXT NOT NULL,
    PRIMARY KEY (tenant, room)
);

-- The waiting queue: which conferences are live, and bookings that go live by themselves.

CREATE TABLE live (
    room       TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    live_since BIGINT NOT NULL,
    live_until BIGINT NOT NULL, -- when it ends if nobody says so
    PRIMARY KEY (tenant, room)
);

-- Minutes after the start at which the conference goes live by itself; absent: never.
ALTER TABLE booking ADD COLUMN auto_live BIGINT;
-- When it did, or when somebody else had gone live: it happens once.
ALTER TABLE booking ADD COLUMN went_live_at BIGINT;

CREATE INDEX booking_auto_live ON booking (starts_at) WHERE auto_live IS NOT NULL AND went_live_at IS NULL;

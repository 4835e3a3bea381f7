-- Versions, time zones and comparable owners of bookings; keys of the requests that made them.

-- Increases with each change: the ETag of the API.
ALTER TABLE booking ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
-- The IANA name of the zone that the times were given in; absent: none was given.
ALTER TABLE booking ADD COLUMN time_zone TEXT;
-- The owner in the form in which owners are compared (requester.rs). usher fills it in where it is missing.
ALTER TABLE booking ADD COLUMN owner_key TEXT;

CREATE INDEX booking_by_owner ON booking (owner_key, starts_at) WHERE owner_key IS NOT NULL;

-- Idempotency-Key: a repeated request gets the booking that the first one made. Kept for a day.
CREATE TABLE booking_request (
    key        TEXT   PRIMARY KEY,
    digest     BLOB   NOT NULL, -- of the body
    booking_id BIGINT NOT NULL,
    made_at    BIGINT NOT NULL
);

CREATE INDEX booking_request_by_time ON booking_request (made_at);

-- Ids begin at the second a database was made, which is negative if the clock was before 1970.
UPDATE sqlite_sequence SET seq = 0 WHERE name = 'allocation' AND seq < 0;

-- Bookings, allocations and the decision log.
--
-- Instants are whole milliseconds since 1970 UTC. `room` and `tenant` hold the canonical spelling
-- (conference.rs); '' is "no tenant", so that the unique index sees it as a value.

CREATE TABLE booking (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    room          TEXT    NOT NULL,
    tenant        TEXT    NOT NULL,
    title         TEXT,
    owner         TEXT,
    starts_at     BIGINT  NOT NULL,
    ends_at       BIGINT, -- absent: permanent
    max_occupants BIGINT,
    lobby         BIGINT  NOT NULL,
    password      TEXT,
    waiting_queue BIGINT  NOT NULL,
    starters      TEXT, -- absent: as the configuration says at the time
    created_at    BIGINT  NOT NULL,
    changed_at    BIGINT  NOT NULL,
    CHECK (ends_at IS NULL OR ends_at > starts_at)
);

CREATE INDEX booking_by_room ON booking (tenant, room, starts_at);
CREATE INDEX booking_by_start ON booking (starts_at, id);

-- No two bookings of one room overlap, whoever writes and however they race. Ends are exclusive:
-- one booking may start at the instant another ends.
CREATE TRIGGER booking_overlap_insert BEFORE INSERT ON booking
WHEN EXISTS (
    SELECT 1 FROM booking
    WHERE room = NEW.room AND tenant = NEW.tenant
      AND (ends_at IS NULL OR ends_at > NEW.starts_at)
      AND (NEW.ends_at IS NULL OR starts_at < NEW.ends_at)
)
BEGIN
    SELECT RAISE(ABORT, 'booking_overlap');
END;

CREATE TRIGGER booking_overlap_update BEFORE UPDATE OF room, tenant, starts_at, ends_at ON booking
WHEN EXISTS (
    SELECT 1 FROM booking
    WHERE room = NEW.room AND tenant = NEW.tenant AND id <> NEW.id
      AND (ends_at IS NULL OR ends_at > NEW.starts_at)
      AND (NEW.ends_at IS NULL OR starts_at < NEW.ends_at)
)
BEGIN
    SELECT RAISE(ABORT, 'booking_overlap');
END;

CREATE TABLE allocation (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    room          TEXT    NOT NULL,
    tenant        TEXT    NOT NULL,
    name          TEXT    NOT NULL, -- the node as Prosody wrote it, echoed byte for byte
    mail_owner    TEXT    NOT NULL,
    booking_id    BIGINT, -- absent: not booked
    starts_at     BIGINT  NOT NULL,
    ends_at       BIGINT  NOT NULL,
    max_occupants BIGINT,
    lobby         BIGINT  NOT NULL,
    password      TEXT,
    waiting_queue BIGINT  NOT NULL,
    created_at    BIGINT  NOT NULL,
    ended_at      BIGINT,
    end_reason    TEXT
);

-- One running allocation per room.
CREATE UNIQUE INDEX allocation_running ON allocation (tenant, room) WHERE ended_at IS NULL;
CREATE INDEX allocation_due ON allocation (ends_at) WHERE ended_at IS NULL;
CREATE INDEX allocation_ended ON allocation (ended_at) WHERE ended_at IS NOT NULL;

-- Ids begin at the second this database was made (below 10^14, as the API needs): a DELETE that
-- Prosody still holds for a database that was lost must not hit a new allocation.
INSERT INTO sqlite_sequence (name, seq) VALUES ('allocation', CAST(strftime('%s', 'now') AS INTEGER));

CREATE TABLE decision (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    decided_at    BIGINT  NOT NULL,
    room          TEXT    NOT NULL,
    tenant        TEXT    NOT NULL,
    mail_owner    TEXT    NOT NULL,
    user_id       TEXT,
    user_email    TEXT,
    user_name     TEXT,
    outcome       TEXT    NOT NULL, -- allowed, conflict, queued, refused
    reason        TEXT    NOT NULL,
    sentence      TEXT    NOT NULL,
    allocation_id BIGINT,
    booking_id    BIGINT
);

CREATE INDEX decision_by_room ON decision (tenant, room, id);
CREATE INDEX decision_by_time ON decision (decided_at);

-- One row that /ready writes, to know that the disk takes a durable write.
CREATE TABLE probe (
    probed_at BIGINT NOT NULL
);

INSERT INTO probe (probed_at) VALUES (0);

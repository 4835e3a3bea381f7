-- An upstream's conferences, and the deletions that it has not heard yet.

-- What usher has seen run there: whose room an id is, and what Prosody wrote its name like.
CREATE TABLE upstream_conference (
    upstream_id   TEXT   PRIMARY KEY, -- as in the path
    room          TEXT   NOT NULL,
    tenant        TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    mail_owner    TEXT   NOT NULL,
    waiting_queue BIGINT NOT NULL,
    ends_at       BIGINT NOT NULL,
    ended_at      BIGINT -- when its room was destroyed
);

CREATE INDEX upstream_conference_by_room ON upstream_conference (tenant, room);

-- Deletions in order of their arrival. One that is delivered, or given up, leaves.
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    upstream_id TEXT    NOT NULL UNIQUE,
    room        TEXT, -- absent: usher knows the conference by its id alone
    tenant      TEXT,
    accepted_at BIGINT  NOT NULL,
    attempts    BIGINT  NOT NULL,
    next_at     BIGINT  NOT NULL,
    trouble     TEXT -- of the last attempt
);

CREATE INDEX outbox_due ON outbox (next_at);
CREATE INDEX outbox_by_room ON outbox (tenant, room, id);

-- The waiting queue's order while usher restarts: written at the stop, taken out at the start.
CREATE TABLE place (
    number INTEGER PRIMARY KEY, -- lower ones came earlier
    room   TEXT NOT NULL,
    tenant TEXT NOT NULL,
    token  BLOB NOT NULL        -- half of its SHA-256; several may wait with one token
);

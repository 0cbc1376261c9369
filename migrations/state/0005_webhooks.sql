-- The outbox of the webhooks is the audit: how far each webhook has got in it, and what it could not deliver. See
-- proxy/src/webhook.rs.
CREATE TABLE webhook (
    name      TEXT    NOT NULL PRIMARY KEY,
    position  INTEGER NOT NULL CHECK (position >= 0),   -- row of the audit: every event up to it is delivered or dead
    delivered INTEGER NOT NULL CHECK (delivered >= 0),  -- messages
    dead      INTEGER NOT NULL CHECK (dead >= 0)        -- messages
) STRICT, WITHOUT ROWID;

-- The last messages of each webhook that were given up.
CREATE TABLE dead_letter (
    webhook   TEXT    NOT NULL,
    audit_row INTEGER NOT NULL,  -- of the event
    message   TEXT    NOT NULL,  -- its webhook-id
    kind      TEXT    NOT NULL,  -- its type
    at        INTEGER NOT NULL,  -- when it was given up, in microseconds since 1970
    error     TEXT    NOT NULL,
    PRIMARY KEY (webhook, audit_row)
) STRICT, WITHOUT ROWID;

-- Alarms and breakers of which the audit has the beginning and not yet the end: a start notes the ends that it missed.
CREATE TABLE condition (
    name   TEXT NOT NULL PRIMARY KEY,
    detail TEXT NOT NULL               -- of the note about its beginning
) STRICT, WITHOUT ROWID;

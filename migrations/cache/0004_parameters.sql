-- Operations with further parameters beside the card, which are part of the key; and the charset that the carrier named.
CREATE TABLE answer_with_parameters (
    "group"     TEXT    NOT NULL,  -- who holds the accounts: no key is shared between groups
    operation   TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('msisdn', 'iccid', 'imsi')),
    card        TEXT    NOT NULL,
    parameters  TEXT    NOT NULL DEFAULT '',  -- as they are sent: query_date=20260101; empty for most operations
    code        TEXT    NOT NULL,  -- of the carrier's envelope, as text: it may have leading zeros
    status      TEXT,              -- STATUS where the operation has one
    answered_at INTEGER NOT NULL,  -- when the carrier answered, in microseconds since 1970 (UTC)
    body        BLOB    NOT NULL,  -- the carrier's bytes, as they came
    stale       INTEGER NOT NULL DEFAULT 0 CHECK (stale IN (0, 1)),  -- purged softly
    charset     TEXT,              -- NULL for UTF-8, empty where the carrier named none and the body is not UTF-8
    PRIMARY KEY ("group", operation, kind, card, parameters)
) STRICT, WITHOUT ROWID;
INSERT INTO answer_with_parameters ("group", operation, kind, card, code, status, answered_at, body, stale)
    SELECT "group", operation, kind, card, code, status, answered_at, body, stale FROM answer;
DROP TABLE answer;
ALTER TABLE answer_with_parameters RENAME TO answer;
CREATE INDEX answer_by_age ON answer (answered_at);

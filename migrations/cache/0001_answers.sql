-- The carrier's last answer to each look-up, so that a restart begins warm. All of it may be deleted at will.
--
-- Rows are small and always found by the whole key, so they live in the key's own tree (WITHOUT ROWID).
CREATE TABLE answer (
    "group"     TEXT    NOT NULL,  -- who holds the accounts: no key is shared between groups
    operation   TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('msisdn', 'iccid', 'imsi')),
    card        TEXT    NOT NULL,
    code        TEXT    NOT NULL,  -- of the carrier's envelope, as text: it may have leading zeros
    status      TEXT,              -- STATUS where the operation has one
    answered_at INTEGER NOT NULL,  -- when the carrier answered, in microseconds since 1970 (UTC)
    body        BLOB    NOT NULL,  -- the carrier's bytes, as they came
    PRIMARY KEY ("group", operation, kind, card)
) STRICT, WITHOUT ROWID;

-- The part of an account's leased calls that the database of the fleet has counted. The rest was leased without a fleet.
ALTER TABLE spending ADD COLUMN shared INTEGER NOT NULL DEFAULT 0;

-- The calls of a day that this node keeps for the time when it cannot reach the database of the fleet. Losing them costs
-- calls and spends none twice.
CREATE TABLE reserve (
    appid   TEXT    NOT NULL,
    day     INTEGER NOT NULL,                                         -- days since 1970 at UTC+8
    granted INTEGER NOT NULL CHECK (granted >= 0),                    -- calls
    leased  INTEGER NOT NULL CHECK (leased BETWEEN 0 AND granted),    -- calls, spent or about to be
    PRIMARY KEY (appid, day)
) STRICT, WITHOUT ROWID;

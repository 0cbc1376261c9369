-- How many calls of a day each account has leased. Losing it could spend a day's budget twice.
CREATE TABLE spending (
    appid  TEXT    NOT NULL PRIMARY KEY,
    day    INTEGER NOT NULL,                      -- days since 1970 at UTC+8
    leased INTEGER NOT NULL CHECK (leased >= 0)   -- calls, spent or about to be
) STRICT, WITHOUT ROWID;

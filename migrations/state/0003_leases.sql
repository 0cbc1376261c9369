-- Blocks of numbers whose calls may have no row in the audit yet. A drain that ended every call empties the table; a start
-- that finds one notes in the audit which of their numbers have no row. See proxy/src/sequence/unaccounted.rs.
CREATE TABLE leased (
    id    INTEGER PRIMARY KEY,
    appid TEXT    NOT NULL,
    node  INTEGER NOT NULL,
    first INTEGER NOT NULL,                      -- of the lap
    past  INTEGER NOT NULL CHECK (past > first), -- the number behind the last
    since INTEGER NOT NULL                       -- no stamp of theirs is before it, in seconds since 1970
) STRICT;

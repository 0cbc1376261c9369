-- How far the transids sent to the carrier have got. Losing this could repeat one: see proxy/src/sequence.rs.

-- One row: what a lost state.db was started over above, or 0. Sequences that have no lease yet start here.
CREATE TABLE beginning (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    floor INTEGER NOT NULL  -- in seconds since 1970
) STRICT;

CREATE TABLE sequence (
    appid   TEXT    NOT NULL,
    node    INTEGER NOT NULL CHECK (node BETWEEN 0 AND 99),
    next    INTEGER NOT NULL CHECK (next BETWEEN 1 AND 1000000),  -- lowest number of this lap not leased; 1000000: none left
    floor   INTEGER NOT NULL,                                     -- every stamp of this lap is at or above it, of laps before below it
    ceiling INTEGER NOT NULL CHECK (ceiling >= floor),            -- no stamp above it was ever used
    PRIMARY KEY (appid, node)
) STRICT, WITHOUT ROWID;

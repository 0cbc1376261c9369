-- The windows in which transids were accepted. A start reads the audit back by the widest that may still matter, since a
-- record may be older than its transid's stamp by as much. See proxy/src/store/state/window.rs.
CREATE TABLE window (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    current INTEGER NOT NULL CHECK (current >= 0),       -- in seconds, as is the next
    widest  INTEGER NOT NULL CHECK (widest >= current),
    until   INTEGER NOT NULL                             -- no record was written under another window after it, in seconds since 1970
) STRICT;

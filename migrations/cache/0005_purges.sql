-- The last purge of a fleet that this file has applied: a node that was away applies the later ones before it shares again.
CREATE TABLE purged (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    fleet       TEXT    NOT NULL,  -- identity of the fleet
    generation  INTEGER NOT NULL
) STRICT;

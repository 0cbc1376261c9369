-- A soft purge: the answer is kept for the carrier's bad days, but is no longer fresh whatever its age.
ALTER TABLE answer ADD COLUMN stale INTEGER NOT NULL DEFAULT 0 CHECK (stale IN (0, 1));

-- What the carrier wrote, where the body was made from a reply in another version of its API: its code, and after a blank
-- what a gateway is told of it. NULL where the body is the carrier's own.
ALTER TABLE answer ADD COLUMN carrier TEXT;

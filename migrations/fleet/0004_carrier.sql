-- The reply of the carrier itself, where the body was made from a reply in another form than gateways get: the transid of its
-- call, a space, and the text that `carrier` of cache.db has. It belongs to the row while the row has this transid: a node of
-- an earlier version leaves it when it replaces the rest of the row.
ALTER TABLE fleet.answer ADD carrier text;
ALTER TABLE fleet.flight ADD carrier text;

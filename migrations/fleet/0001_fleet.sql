-- The tables that the nodes of a fleet share. PostgreSQL 15 or newer. All time comes from fleet.now().
CREATE SCHEMA IF NOT EXISTS fleet;

-- The only clock of the fleet. Tests replace it.
CREATE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';

-- One row: the identity of the fleet, the version of this schema, and the oldest version of a node that may use it.
CREATE TABLE fleet.about (
  one smallint PRIMARY KEY DEFAULT 1 CHECK (one = 1),
  fleet uuid NOT NULL DEFAULT gen_random_uuid(),
  version int NOT NULL,
  oldest int NOT NULL
);

-- A node's number belongs to one store for good: `store` is the public key of its audit.
CREATE TABLE fleet.node (
  node smallint PRIMARY KEY CHECK (node BETWEEN 0 AND 99),
  store bytea NOT NULL,
  since timestamptz NOT NULL DEFAULT fleet.now()
);

-- One start of a node, from its first heartbeat until `until` has passed or it is gone. A life that is gone never returns.
CREATE TABLE fleet.life (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node smallint NOT NULL REFERENCES fleet.node ON DELETE CASCADE,
  began timestamptz NOT NULL DEFAULT fleet.now(),
  -- The store's folder on one machine since its boot, as a hash, and for people.
  folder bytea NOT NULL,
  place text NOT NULL,
  until timestamptz NOT NULL,
  gone boolean NOT NULL DEFAULT false,
  beats bigint NOT NULL DEFAULT 0,
  -- The last purge that the node has applied.
  applied bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX life_current ON fleet.life (node) WHERE NOT gone;

-- Begins a life for a node, and ends the one that it had. `result`:
-- - 'begun': `life` is the new one;
-- - 'bound': the number belongs to `store`, which is another one;
-- - 'held': a process with another folder has a life of this node whose lease runs for `remains` more. It has the same
--   store: one is a copy of the other. The process of the same folder is dead, since a folder has one process.
CREATE FUNCTION fleet.begin_life(number smallint, own_store bytea, own_folder bytea, own_place text, lease interval,
  OUT result text, OUT life bigint, OUT store bytea, OUT place text, OUT beats bigint, OUT remains interval)
LANGUAGE plpgsql AS $$
DECLARE
  last fleet.life;
BEGIN
  INSERT INTO fleet.node (node, store) VALUES (number, own_store) ON CONFLICT DO NOTHING;
  -- Until the end of the transaction no other process begins a life of this node.
  SELECT n.store INTO store FROM fleet.node n WHERE n.node = number FOR UPDATE;
  SELECT * INTO last FROM fleet.life l WHERE l.node = number ORDER BY l.id DESC LIMIT 1;
  place := last.place;
  beats := last.beats;
  remains := last.until - fleet.now();
  IF store <> own_store THEN
    result := 'bound';
  ELSIF NOT last.gone AND remains > interval '0' AND last.folder <> own_folder THEN
    result := 'held';
  ELSE
    UPDATE fleet.life l SET gone = true WHERE l.node = number AND NOT l.gone;
    DELETE FROM fleet.life l WHERE l.node = number AND l.id < last.id AND l.until < fleet.now() - interval '1 day';
    INSERT INTO fleet.life AS l (node, folder, place, until)
      VALUES (number, own_folder, own_place, fleet.now() + lease) RETURNING l.id INTO life;
    result := 'begun';
  END IF;
END $$;

-- Transids of clients that some node has accepted. `number` is stamp and sequence in the order of time: old rows are one
-- range of it. `process` is a random number of one start of the node: a process may repeat its own insertion.
CREATE TABLE fleet.used_transid (
  number bigint NOT NULL,
  node smallint NOT NULL,
  process int NOT NULL,
  appid text COLLATE "C" NOT NULL,
  PRIMARY KEY (number, appid)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- One row: transids below this number are refused, and their rows may be missing.
CREATE TABLE fleet.transid_floor (
  one smallint PRIMARY KEY DEFAULT 1 CHECK (one = 1),
  number bigint NOT NULL
);
INSERT INTO fleet.transid_floor (number) VALUES (0);

-- The widest window of each node's clients: the greatest age of a stamp that the node accepts.
CREATE TABLE fleet.transid_window (
  node smallint PRIMARY KEY REFERENCES fleet.node ON DELETE CASCADE,
  seconds bigint NOT NULL
);

-- Transids that `node` accepted while it was alone, and `other` accepted too.
CREATE TABLE fleet.accepted_twice (
  number bigint NOT NULL,
  appid text COLLATE "C" NOT NULL,
  node smallint NOT NULL,
  other smallint NOT NULL,
  found timestamptz NOT NULL DEFAULT fleet.now(),
  PRIMARY KEY (number, appid, node)
);

-- The latest carrier responses. Emptied by crash recovery, which costs calls and nothing else. No card number is stored in
-- the clear: `key` is an HMAC of the whole lookup, `card` of the card alone, for purges. `keep_until` is the end of freshness
-- by the configuration of the node that stored it; the reader judges by its own.
CREATE UNLOGGED TABLE fleet.answer (
  key bytea PRIMARY KEY,
  card bytea NOT NULL,
  "group" text NOT NULL,
  operation text NOT NULL,
  status text,
  answered_at timestamptz NOT NULL,
  keep_until timestamptz NOT NULL,
  stale boolean NOT NULL DEFAULT false,
  body bytea NOT NULL,
  charset text,
  account text NOT NULL,
  transid text
);
CREATE INDEX answer_keep ON fleet.answer (keep_until);
CREATE INDEX answer_card ON fleet.answer (card);

-- Flights: one row per key names the life that leads, with a fence. A row that has landed keeps its result for followers:
-- a body, or a fault. `awaited`: a node follows, and waits for the notification. `takeover`: the life or the time of the
-- leader before was over. `stored`: the response may answer later lookups. A purge deletes the rows that it covers, under
-- a lock (SHARE ROW EXCLUSIVE) of fleet.answer and then of fleet.flight: nobody who asks after the purge follows a call
-- that began before it.
CREATE SEQUENCE fleet.fence CACHE 32;
CREATE UNLOGGED TABLE fleet.flight (
  key bytea PRIMARY KEY,
  card bytea NOT NULL,
  "group" text NOT NULL,
  operation text NOT NULL,
  life bigint NOT NULL,
  fence bigint NOT NULL,
  until timestamptz NOT NULL,
  awaited boolean NOT NULL DEFAULT false,
  takeover boolean NOT NULL DEFAULT false,
  landed_at timestamptz,
  stored boolean NOT NULL DEFAULT false,
  fault text,
  body bytea,
  charset text,
  age interval,
  account text,
  transid text
) WITH (fillfactor = 50);

-- The accounts of each group, as the configuration of a life has them: a hash. Where two lives differ, that group is not
-- shared.
CREATE TABLE fleet.grouping (
  life bigint NOT NULL REFERENCES fleet.life ON DELETE CASCADE,
  "group" text NOT NULL,
  accounts bytea NOT NULL,
  PRIMARY KEY (life, "group")
);

-- Purges in the order of their commits, without a gap: their number is taken under the lock of fleet.answer and
-- fleet.flight, and the last row stays. `card` is as in fleet.answer.
CREATE TABLE fleet.purge (
  generation bigint PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT fleet.now(),
  card bytea,
  "group" text,
  operation text,
  status text,
  soft boolean NOT NULL,
  -- The card, encrypted with the key of the fleet; without a card absent.
  sealed bytea
);

-- Orders a purge: removes the shared answers that it covers, or marks them stale, and removes the flights. Nobody who asks
-- after its commit gets an answer or follows a call from before it.
CREATE FUNCTION fleet.purge_where(by_card bytea, by_group text, by_operation text, by_status text, softly boolean,
  sealed_card bytea) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  number bigint;
BEGIN
  LOCK TABLE fleet.answer IN SHARE ROW EXCLUSIVE MODE;
  LOCK TABLE fleet.flight IN SHARE ROW EXCLUSIVE MODE;
  SELECT coalesce(max(p.generation), 0) + 1 INTO number FROM fleet.purge p;
  INSERT INTO fleet.purge (generation, card, "group", operation, status, soft, sealed)
    VALUES (number, by_card, by_group, by_operation, by_status, softly, sealed_card);
  IF softly THEN
    UPDATE fleet.answer a SET stale = true
    WHERE (by_card IS NULL OR a.card = by_card) AND (by_group IS NULL OR a."group" = by_group)
      AND (by_operation IS NULL OR a.operation = by_operation) AND (by_status IS NULL OR a.status = by_status);
  ELSE
    DELETE FROM fleet.answer a
    WHERE (by_card IS NULL OR a.card = by_card) AND (by_group IS NULL OR a."group" = by_group)
      AND (by_operation IS NULL OR a.operation = by_operation) AND (by_status IS NULL OR a.status = by_status);
  END IF;
  DELETE FROM fleet.flight f
  WHERE (by_card IS NULL OR f.card = by_card) AND (by_group IS NULL OR f."group" = by_group)
    AND (by_operation IS NULL OR f.operation = by_operation);
  PERFORM pg_notify('cmiot_fleet', 'purge ' || number);
  RETURN number;
END $$;

-- The last STATUS that the carrier has answered to any node. `key` is an HMAC over group, operation and card.
CREATE TABLE fleet.card_status (
  key bytea PRIMARY KEY,
  status text NOT NULL,
  seen timestamptz NOT NULL
) WITH (fillfactor = 70);

-- The answers that were changes, by the name of the event, with the STATUS before: an answer that is passed again is the
-- same change.
CREATE TABLE fleet.status_change (
  event text COLLATE "C" PRIMARY KEY,
  previous text NOT NULL,
  seen timestamptz NOT NULL,
  at timestamptz NOT NULL DEFAULT fleet.now()
);

-- Remembers an answer of an age in microseconds. `previous` and `seen` are the STATUS before and the time of its last answer,
-- if it was another one; `known` is the STATUS before by the node's own records.
CREATE FUNCTION fleet.note_status(card_key bytea, event_name text, new_status text, age bigint, known text,
  known_age bigint, OUT previous text, OUT seen timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
  answered timestamptz := fleet.now() - age * interval '1 microsecond';
  last fleet.card_status;
BEGIN
  INSERT INTO fleet.card_status (key, status, seen)
    VALUES (card_key, coalesce(known, new_status),
            CASE WHEN known IS NULL THEN answered ELSE fleet.now() - known_age * interval '1 microsecond' END)
    ON CONFLICT DO NOTHING;
  -- Until the end of the transaction nobody else compares an answer of this card, nor the same answer for another webhook.
  SELECT * INTO last FROM fleet.card_status c WHERE c.key = card_key FOR UPDATE;
  SELECT c.previous, c.seen INTO previous, seen FROM fleet.status_change c WHERE c.event = event_name;
  IF FOUND THEN
    RETURN;
  END IF;
  IF answered <= last.seen THEN
    RETURN;
  END IF;
  UPDATE fleet.card_status c SET status = new_status, seen = answered WHERE c.key = card_key;
  IF last.status <> new_status THEN
    previous := last.status;
    seen := last.seen;
    INSERT INTO fleet.status_change (event, previous, seen) VALUES (event_name, last.status, last.seen);
  END IF;
END $$;

-- The calls of an account's day, in days since 1970 at UTC+8. Everything that a node may spend is counted here first, its
-- reserve for the time when it is alone included, so that the sum is exact whatever the nodes believe of each other.
CREATE TABLE fleet.quota (
  appid text NOT NULL,
  day bigint NOT NULL,
  -- Calls that were granted in blocks, and those that nodes made before they joined the fleet.
  leased bigint NOT NULL DEFAULT 0,
  -- Calls that nodes keep for the time when they are alone, spent or not.
  reserved bigint NOT NULL DEFAULT 0,
  -- The grant of the last statement.
  granted bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (appid, day)
) WITH (fillfactor = 50);

-- The nodes that take their calls from the shared rate. A node that is in no valid row may use its own share of the rate,
-- so the shared rate is smaller by that share. Emptied by crash recovery, which lowers the shared rate until the next beat.
CREATE UNLOGGED TABLE fleet.pacer (
  node smallint PRIMARY KEY,
  until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The time of an account's next free slot under its rate, and the slots of the last statement. Emptied by crash recovery:
-- a new row begins after the last slot that may have been given out.
CREATE UNLOGGED TABLE fleet.pace (
  appid text PRIMARY KEY,
  next timestamptz NOT NULL,
  first timestamptz NOT NULL,
  step interval NOT NULL,
  granted int NOT NULL
) WITH (fillfactor = 50);

-- Cool-downs and refusals of accounts, as one node has met them. `credentials` is an HMAC over those that were refused: a
-- node with others is not concerned.
CREATE TABLE fleet.rest (
  appid text NOT NULL,
  what text NOT NULL,
  credentials bytea NOT NULL,
  until timestamptz NOT NULL,
  code text,
  node smallint NOT NULL,
  PRIMARY KEY (appid, what, credentials)
);

INSERT INTO fleet.about (version, oldest) VALUES (1, 1);

-- Gives the role of the nodes its rights. `cmiot-proxy fleet migrate` calls it after each migration. The role that owns the
-- schema has them already.
CREATE FUNCTION fleet.grant_node(node_role text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF node_role = current_user THEN
    RETURN;
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA fleet TO %I', node_role);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA fleet TO %I', node_role);
  EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON fleet.about FROM %I', node_role);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA fleet TO %I', node_role);
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA fleet TO %I', node_role);
  -- The rights on the central audit are narrower: its own migration defines them.
  IF to_regprocedure('audit.grant_node(text)') IS NOT NULL THEN
    PERFORM audit.grant_node(node_role);
  END IF;
END $$;

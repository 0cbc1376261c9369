-- The copy of the audits of all nodes. A node copies the rows of its own audit after their commit there, in the order of
-- its hash chain, one shipment per transaction. It may insert, and read positions; it may read no row.
--
-- The columns of `record`, `call`, `refused`, `gap` and `note` are those of the node's own tables
-- (migrations/audit/0001_records.sql and later), with names spelled out. In a text, a backslash is written as \\ and a zero
-- byte as \0. `month` is that of the segment, as 202601. A month is one partition of each of these tables and of `batch`;
-- audit.add_month makes it, audit.drop_month removes it.
--
-- `digest` covers everything that is copied of a chain, so that a row which was changed, removed or inserted here is found
-- although the node's own hash chain covers rows that are not copied. The node signs it with the key of its anchors:
--
--     base    = SHA-256('cmiot-audit-copy-1' 0x00, 32 zero bytes, 'o', base, base_head)
--     segment = SHA-256('cmiot-audit-copy-1' 0x00, digest before, 's', before, seed)
--     missing = SHA-256('cmiot-audit-copy-1' 0x00, digest before, 'm', first, last, head)
--     batch   = SHA-256('cmiot-audit-copy-1' 0x00, digest before, 'h', previous, hash, copied rows, 'b', version, first,
--                       last, begins, horizon)
--     signed  = 'cmiot-audit-copy-signature-1' 0x00, last, head, digest
CREATE SCHEMA IF NOT EXISTS audit;

-- One row per chain of a store. A store has another chain when its audit is no longer a continuation of the copy: it was
-- restored from a backup, rolled back or replaced. `parent` and `base` say where the two part.
CREATE TABLE audit.chain (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node smallint NOT NULL,
  -- The public key of the store's audit.
  store bytea NOT NULL,
  began timestamptz NOT NULL DEFAULT fleet.now(),
  parent bigint REFERENCES audit.chain,
  -- The row and the head that the first row of this chain follows.
  base bigint NOT NULL,
  base_head bytea NOT NULL,
  -- The position: rows up to `last` are here, as far as the node copies them. `head` is the node's chain there.
  last bigint NOT NULL,
  head bytea NOT NULL,
  digest bytea NOT NULL,
  signature bytea NOT NULL,
  -- The node's last row when it copied this one.
  known bigint NOT NULL,
  copied_at timestamptz NOT NULL DEFAULT fleet.now()
) WITH (fillfactor = 50);
CREATE INDEX chain_store ON audit.chain (store, id);

-- The segments of a chain that the copy has entered. `digest` is that before the entry.
CREATE TABLE audit.segment (
  chain bigint NOT NULL,
  seed bytea NOT NULL,
  month int NOT NULL,
  before bigint NOT NULL,
  previous bytea NOT NULL,
  digest bytea NOT NULL,
  PRIMARY KEY (chain, seed)
);

-- The segments before each of them, those too that the node has pruned.
CREATE TABLE audit.manifest (
  chain bigint NOT NULL,
  seed bytea NOT NULL,
  month text NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  count bigint NOT NULL,
  since bigint NOT NULL,
  until bigint NOT NULL,
  head bytea NOT NULL,
  PRIMARY KEY (chain, seed, month)
);

-- Rows that the node no longer had when it would have copied them: pruned, or lost. `head` is the one that the next segment
-- follows.
CREATE TABLE audit.missing (
  chain bigint NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  head bytea NOT NULL,
  at timestamptz NOT NULL DEFAULT fleet.now(),
  PRIMARY KEY (chain, first)
);

-- Signed heads of the nodes' chains.
CREATE TABLE audit.anchor (
  store bytea NOT NULL,
  at bigint NOT NULL,
  segment text NOT NULL,
  last bigint NOT NULL,
  head bytea NOT NULL,
  signature bytea NOT NULL,
  node smallint NOT NULL,
  copied_at timestamptz NOT NULL DEFAULT fleet.now(),
  PRIMARY KEY (store, at, segment, last, head)
);

-- Batches of which at least one row is copied: `copied` of them. `previous` is the hash that this one follows; `digest` is
-- that of the copy after it.
CREATE TABLE audit.batch (
  month int NOT NULL,
  chain bigint NOT NULL,
  last bigint NOT NULL,
  first bigint NOT NULL,
  version bigint NOT NULL,
  begins bigint NOT NULL,
  horizon bigint NOT NULL,
  previous bytea NOT NULL,
  hash bytea NOT NULL,
  copied bigint NOT NULL,
  digest bytea NOT NULL,
  PRIMARY KEY (chain, last, month)
) PARTITION BY LIST (month);

CREATE TABLE audit.record (
  month int NOT NULL,
  chain bigint NOT NULL,
  id bigint NOT NULL,
  at bigint NOT NULL,
  card text,
  kind bigint,
  masked text,
  key text,
  outcome text NOT NULL,
  reason text,
  authenticated bigint NOT NULL,
  "group" text,
  account text,
  operation text,
  client text,
  peer text NOT NULL,
  transid text,
  code text NOT NULL,
  carrier_code text,
  status text,
  age bigint,
  carrier_transid text,
  latency bigint NOT NULL,
  PRIMARY KEY (chain, id, month)
) PARTITION BY LIST (month);
CREATE INDEX record_at ON audit.record USING brin (at);

CREATE TABLE audit.call (
  month int NOT NULL,
  chain bigint NOT NULL,
  id bigint NOT NULL,
  at bigint NOT NULL,
  transid text,
  previous text,
  card text,
  kind bigint,
  masked text,
  key text,
  account text NOT NULL,
  operation text NOT NULL,
  code text,
  fault text,
  status text,
  latency bigint NOT NULL,
  bytes bigint,
  body bytea,
  PRIMARY KEY (chain, id, month)
) PARTITION BY LIST (month);
CREATE INDEX call_at ON audit.call USING brin (at);

CREATE TABLE audit.refused (
  month int NOT NULL,
  chain bigint NOT NULL,
  id bigint NOT NULL,
  peer text,
  reason text NOT NULL,
  count bigint NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  PRIMARY KEY (chain, id, month)
) PARTITION BY LIST (month);

CREATE TABLE audit.gap (
  month int NOT NULL,
  chain bigint NOT NULL,
  id bigint NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  answered bigint NOT NULL,
  refused bigint NOT NULL,
  PRIMARY KEY (chain, id, month)
) PARTITION BY LIST (month);

CREATE TABLE audit.note (
  month int NOT NULL,
  chain bigint NOT NULL,
  id bigint NOT NULL,
  at bigint NOT NULL,
  what text NOT NULL,
  detail text NOT NULL,
  PRIMARY KEY (chain, id, month)
) PARTITION BY LIST (month);

-- Months that were removed here.
CREATE TABLE audit.dropped (
  month int PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT fleet.now(),
  by text NOT NULL DEFAULT session_user
);

-- For people: times, node numbers, and names of the columns as in the node's own views.
CREATE VIEW audit.lookup AS
SELECT c.node, r.chain, r.id, to_timestamp(r.at / 1e6) AS time, r.client, r."group", r.account, r.peer, r.operation,
       CASE r.kind WHEN 1 THEN 'msisdn' WHEN 2 THEN 'iccid' WHEN 3 THEN 'imsi' END AS kind, r.card, r.transid, r.outcome,
       r.reason, r.code, r.carrier_code, r.status, r.age / 1e6 AS age_s, r.carrier_transid, r.latency / 1e3 AS latency_ms,
       r.authenticated = 1 AS authenticated, r.masked, r.month
FROM audit.record r JOIN audit.chain c ON c.id = r.chain;

CREATE VIEW audit.carrier_call AS
SELECT c.node, r.chain, r.id, to_timestamp(r.at / 1e6) AS time, r.transid, r.previous, r.account, r.operation,
       CASE r.kind WHEN 1 THEN 'msisdn' WHEN 2 THEN 'iccid' WHEN 3 THEN 'imsi' END AS kind, r.card, r.code, r.fault,
       r.status, r.latency / 1e3 AS latency_ms, r.bytes, r.masked, r.month
FROM audit.call r JOIN audit.chain c ON c.id = r.chain;

CREATE VIEW audit.noted AS
SELECT c.node, r.chain, r.id, to_timestamp(r.at / 1e6) AS time, r.what, r.detail, r.month
FROM audit.note r JOIN audit.chain c ON c.id = r.chain;

-- Makes the partitions of a month, such as 202601. Nodes call it before the first row of a month.
CREATE FUNCTION audit.add_month(wanted int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kind text;
  part text;
BEGIN
  IF wanted IS NULL OR wanted NOT BETWEEN 100 AND 999912 OR wanted % 100 NOT BETWEEN 1 AND 12 THEN
    RAISE EXCEPTION 'not a month: %', wanted USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF to_regclass(format('audit.note_%s', wanted)) IS NOT NULL THEN
    RETURN;
  END IF;
  -- Of two nodes at once the second one finds the tables of the first.
  PERFORM pg_advisory_xact_lock(hashtext('cmiot audit.add_month'));
  FOREACH kind IN ARRAY ARRAY['batch', 'record', 'call', 'refused', 'gap', 'note'] LOOP
    part := format('%s_%s', kind, wanted);
    IF to_regclass(format('audit.%I', part)) IS NULL THEN
      -- A table of its own first: to attach it needs a lighter lock of the whole than to create it as a partition.
      EXECUTE format('CREATE TABLE audit.%I (LIKE audit.%I INCLUDING ALL)', part, kind);
      EXECUTE format('ALTER TABLE audit.%I ATTACH PARTITION audit.%I FOR VALUES IN (%s)', kind, part, wanted);
    END IF;
  END LOOP;
END $$;

-- Removes a month of all nodes, for the owner of the schema. Positions, segments, manifests and anchors stay.
CREATE FUNCTION audit.drop_month(unwanted int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  kind text;
BEGIN
  IF unwanted >= to_char(fleet.now() AT TIME ZONE 'Asia/Shanghai', 'YYYYMM')::int THEN
    RAISE EXCEPTION 'the month is not over: %', unwanted USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOREACH kind IN ARRAY ARRAY['batch', 'record', 'call', 'refused', 'gap', 'note'] LOOP
    EXECUTE format('DROP TABLE IF EXISTS audit.%I', format('%s_%s', kind, unwanted));
  END LOOP;
  INSERT INTO audit.dropped (month) VALUES (unwanted) ON CONFLICT DO NOTHING;
END $$;

-- Begins a chain; its number.
CREATE FUNCTION audit.begin_chain(of_node smallint, of_store bytea, of_parent bigint, at_base bigint, at_head bytea,
  first_digest bytea, signed bytea) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
'INSERT INTO audit.chain (node, store, parent, base, base_head, last, head, digest, signature, known)
 VALUES (of_node, of_store, of_parent, at_base, at_head, at_base, at_head, first_digest, signed, at_base) RETURNING id';

-- Moves the position of a chain, first of all in the transaction of a shipment: a second one of the same rows waits, and
-- fails.
CREATE FUNCTION audit.advance(of_chain bigint, from_last bigint, from_head bytea, to_last bigint, to_head bytea,
  to_digest bytea, signed bytea, last_known bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE audit.chain c SET last = to_last, head = to_head, digest = to_digest, signature = signed, known = last_known,
      copied_at = fleet.now()
  WHERE c.id = of_chain AND c.last = from_last AND c.head = from_head AND to_last >= from_last
    AND NOT EXISTS (SELECT FROM audit.chain later WHERE later.store = c.store AND later.id > c.id);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the copy of this audit has another position' USING ERRCODE = 'serialization_failure';
  END IF;
END $$;

-- The last head at or before a row that is here, of a chain or of those that it continues.
CREATE FUNCTION audit.head_at(of_chain bigint, at_row bigint, OUT chain bigint, OUT last bigint, OUT head bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one audit.chain;
BEGIN
  chain := of_chain;
  LOOP
    SELECT * INTO one FROM audit.chain c WHERE c.id = chain;
    SELECT b.last, b.hash INTO last, head FROM audit.batch b
    WHERE b.chain = one.id AND b.last <= at_row ORDER BY b.last DESC LIMIT 1;
    IF one.last <= at_row AND one.last >= coalesce(last, one.last) THEN
      last := one.last;
      head := one.head;
    END IF;
    IF last IS NULL AND one.base <= at_row THEN
      last := one.base;
      head := one.base_head;
    END IF;
    EXIT WHEN last IS NOT NULL OR one.parent IS NULL;
    chain := one.parent;
  END LOOP;
END $$;

-- Gives the role of the nodes its rights on the copy; fleet.grant_node calls it. The role that owns the schema has them.
CREATE FUNCTION audit.grant_node(node_role text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA audit TO %I', node_role);
  EXECUTE format('GRANT INSERT ON audit.segment, audit.manifest, audit.missing, audit.anchor, audit.batch, audit.record,
                  audit.call, audit.refused, audit.gap, audit.note TO %I', node_role);
  -- Positions and signed heads: no row of a request.
  EXECUTE format('GRANT SELECT ON audit.chain, audit.anchor TO %I', node_role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION audit.add_month, audit.begin_chain, audit.advance, audit.head_at TO %I',
                 node_role);
END $$;

-- Gives a role of auditors the right to read everything, for queries and for `cmiot-proxy fleet verify --user`.
CREATE FUNCTION audit.grant_reader(reader_role text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA audit, fleet TO %I', reader_role);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA audit TO %I', reader_role);
  EXECUTE format('GRANT SELECT ON fleet.about TO %I', reader_role);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;

-- Settings that all nodes need alike, as the configuration of a life has them: a digest per subject.
CREATE TABLE fleet.agreement (
  life bigint NOT NULL REFERENCES fleet.life ON DELETE CASCADE,
  subject text NOT NULL,
  digest bytea NOT NULL,
  PRIMARY KEY (life, subject)
);

-- A store keeps its chains when its proxy gets another number: they then have the number of its last copy.
CREATE FUNCTION audit.renumber(of_store bytea, to_node smallint) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
'UPDATE audit.chain SET node = to_node WHERE store = of_store AND node <> to_node';

-- The rights of 0002_audit.sql, and the function above.
CREATE OR REPLACE FUNCTION audit.grant_node(node_role text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA audit TO %I', node_role);
  EXECUTE format('GRANT INSERT ON audit.segment, audit.manifest, audit.missing, audit.anchor, audit.batch, audit.record,
                  audit.call, audit.refused, audit.gap, audit.note TO %I', node_role);
  EXECUTE format('GRANT SELECT ON audit.chain, audit.anchor TO %I', node_role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION audit.add_month, audit.begin_chain, audit.advance, audit.head_at,
                  audit.renumber TO %I', node_role);
END $$;

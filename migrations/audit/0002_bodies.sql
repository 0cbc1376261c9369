-- What the carrier answered to each call, for disputes about a lookup: [audit] bodies. Batches of version 2 hash it as a
-- value of bytes; in batches of version 1 it is NULL. The first byte says what the others are:
--
--     01  SHA-256 of the body
--     02  HMAC-SHA256(key of the month, 'cmiot-audit-body-1' 0x00, SHA-256 of the body): where `card` is a hash
--     03  the body, at most 4096 bytes
--     04  SHA-256 of the body, then its first 4096 bytes: of a longer one
ALTER TABLE call ADD COLUMN body BLOB;

-- Every attempt at the carrier.
DROP VIEW carrier_call;
CREATE VIEW carrier_call AS
SELECT
    call.id,
    strftime('%Y-%m-%dT%H:%M:%S', call.at / 1000000 + 28800, 'unixepoch')
        || printf('.%03d+08:00', call.at / 1000 % 1000) AS time,
    call.transid,
    call.previous,
    (SELECT text FROM name WHERE id = call.account) AS account,
    (SELECT text FROM name WHERE id = call.operation) AS operation,
    CASE call.kind WHEN 1 THEN 'msisdn' WHEN 2 THEN 'iccid' WHEN 3 THEN 'imsi' END AS kind,
    call.card,
    call.code,
    (SELECT text FROM name WHERE id = call.fault) AS fault,
    call.status,
    round(call.latency / 1e3, 3) AS latency_ms,
    call.bytes,
    call.masked,
    CASE hex(substr(call.body, 1, 1))
        WHEN '01' THEN 'sha256:' || lower(hex(substr(call.body, 2)))
        WHEN '02' THEN 'hmac-sha256:' || lower(hex(substr(call.body, 2)))
        WHEN '03' THEN CAST(substr(call.body, 2) AS TEXT)
        WHEN '04' THEN 'sha256:' || lower(hex(substr(call.body, 2, 32))) || ' ' || CAST(substr(call.body, 34) AS TEXT)
    END AS body
FROM call;

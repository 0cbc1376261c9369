-- One segment of the audit: a month (at UTC+8) of requests, one row each, appended and never altered.
--
-- The only indexes are the primary keys, which grow at their end: a secondary one would dirty a page a row.
-- Rows are found by time through `batch`, whose `horizon` never falls even when the clock is stepped back.

-- Names that repeat (groups, accounts, operations, outcomes, reasons) are kept once.
CREATE TABLE name (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE record (
    id              INTEGER PRIMARY KEY,  -- counts on from segment to segment
    at              INTEGER NOT NULL,     -- microseconds since 1970 (UTC)
    outcome         INTEGER NOT NULL,     -- name
    reason          INTEGER,              -- name
    authenticated   INTEGER NOT NULL CHECK (authenticated IN (0, 1)),
    "group"         INTEGER,              -- name
    account         INTEGER,              -- name
    operation       INTEGER,              -- name
    client          TEXT,                 -- appid that the gateway signed with
    peer            TEXT    NOT NULL,     -- address
    kind            INTEGER,              -- 1 msisdn, 2 iccid, 3 imsi
    card            TEXT,
    transid         TEXT,                 -- the gateway's, at most 48 characters of it
    code            TEXT    NOT NULL,     -- answered to the gateway
    carrier_code    TEXT,
    status          TEXT,
    age             INTEGER,              -- microseconds since the carrier answered
    carrier_transid TEXT,                 -- of the last attempt made for this answer
    latency         INTEGER NOT NULL      -- microseconds
) STRICT;

-- What was committed together: rows first to last.
CREATE TABLE batch (
    last    INTEGER PRIMARY KEY,
    first   INTEGER NOT NULL,
    horizon INTEGER NOT NULL  -- the greatest `at` of this and the batches before, in this segment
) STRICT;

CREATE TRIGGER record_stays BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'audit records are never altered'); END;
CREATE TRIGGER record_is_kept BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END;
CREATE TRIGGER batch_stays BEFORE UPDATE ON batch BEGIN SELECT RAISE(ABORT, 'audit batches are never altered'); END;
CREATE TRIGGER batch_is_kept BEFORE DELETE ON batch BEGIN SELECT RAISE(ABORT, 'audit batches are never deleted'); END;
CREATE TRIGGER name_stays BEFORE UPDATE ON name BEGIN SELECT RAISE(ABORT, 'audit names are never altered'); END;
CREATE TRIGGER name_is_kept BEFORE DELETE ON name BEGIN SELECT RAISE(ABORT, 'audit names are never deleted'); END;

-- For people: names and codes spelled out, times at UTC+8, latency in milliseconds, age in seconds.
CREATE VIEW lookup AS
SELECT
    record.id,
    strftime('%Y-%m-%dT%H:%M:%S', record.at / 1000000 + 28800, 'unixepoch')
        || printf('.%03d+08:00', record.at / 1000 % 1000) AS time,
    record.client,
    grouped.text AS "group",
    accounted.text AS account,
    record.peer,
    operated.text AS operation,
    CASE record.kind WHEN 1 THEN 'msisdn' WHEN 2 THEN 'iccid' WHEN 3 THEN 'imsi' END AS kind,
    record.card,
    record.transid,
    ended.text AS outcome,
    reasoned.text AS reason,
    record.code,
    CASE
        WHEN record.code = '0' THEN 'ok'
        WHEN record.code IN ('3', '4', '5', '6', '7', '8') THEN 'credentials'
        WHEN record.code IN ('10', '13', '14', '15', '17', '18', '19', '21', '23', '26', '28', '29', '38', '01016')
            THEN 'bad request'
        WHEN record.code IN ('2', '9', '11', '12', '22', '24', '25', '27', '32', '34', '35', '36', '39', '40', '41',
                             '43', '81', '205') THEN 'not found'
        WHEN record.code IN ('20', '42') THEN 'not ready'
        WHEN record.code IN ('71', '72', '75') THEN 'throttled'
        WHEN record.code IN ('1', '37', '73', '74', '99', '100', '101', '102', '200', '201', '202', '204', '300')
            THEN 'busy'
        WHEN record.code = '10006' THEN 'no such path'
        ELSE 'other'
    END AS meaning,
    record.carrier_code,
    record.status,
    CASE record.status
        WHEN '00' THEN 'normal'
        WHEN '01' THEN 'one-way barred'
        WHEN '02' THEN 'barred'
        WHEN '03' THEN 'pre-cancelled'
        WHEN '04' THEN 'cancelled'
        WHEN '05' THEN 'transferred'
        WHEN '06' THEN 'dormant'
        WHEN '07' THEN 'awaiting activation'
        WHEN '99' THEN 'no such number'
    END AS card_is,
    round(record.age / 1e6, 3) AS age_s,
    record.carrier_transid,
    round(record.latency / 1e3, 3) AS latency_ms,
    record.authenticated
FROM record
LEFT JOIN name AS ended ON ended.id = record.outcome
LEFT JOIN name AS reasoned ON reasoned.id = record.reason
LEFT JOIN name AS grouped ON grouped.id = record."group"
LEFT JOIN name AS accounted ON accounted.id = record.account
LEFT JOIN name AS operated ON operated.id = record.operation;

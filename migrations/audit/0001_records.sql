-- One segment of the audit: a month (at UTC+8), appended and never altered.
--
-- Every row of `record`, `call`, `refused`, `gap` and `note` has a number from one count, which goes on from segment
-- to segment. `batch` says which numbers were committed together and holds the chain:
--
--     hash = SHA-256('cmiot-audit-batch-1' 0x00, hash before, rows, 'b', version, first, last, begins, horizon)
--     row  = letter of its table, number, values (each with type and length; names spelled out)
--
-- The first batch follows `segment.seed`, which covers the head of the segment before and the `manifest`:
--
--     seed = SHA-256('cmiot-audit-segment-1' 0x00, month, previous, before, manifest rows)
--
-- The only index that grows elsewhere than at its end is that of the carrier's transids, of which there are few. Cards
-- are found through sorted runs (`card_run`, `card_entry`) and blocks of runs (`card_block`, `card_block_entry`), built
-- after the commit, and by scanning what is in no run yet: the view `card_row` does all three. Times are found through
-- `batch`.

-- Names that repeat (groups, accounts, operations, outcomes, reasons) are kept once.
CREATE TABLE name (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

-- Look-ups: one a request.
CREATE TABLE record (
    id              INTEGER PRIMARY KEY,
    at              INTEGER NOT NULL,     -- microseconds since 1970 (UTC)
    card            TEXT,                 -- as it is, or its keyed hash: see `key`
    kind            INTEGER,              -- 1 msisdn, 2 iccid, 3 imsi
    masked          TEXT,                 -- 1476****176, where `card` is a hash
    key             INTEGER,              -- name: which key hashed it
    outcome         INTEGER NOT NULL,     -- name
    reason          INTEGER,              -- name
    authenticated   INTEGER NOT NULL CHECK (authenticated IN (0, 1)),
    "group"         INTEGER,              -- name
    account         INTEGER,              -- name
    operation       INTEGER,              -- name
    client          TEXT,                 -- appid that the gateway signed with
    peer            TEXT    NOT NULL,     -- address
    transid         TEXT,                 -- the gateway's, at most 48 characters of it
    code            TEXT    NOT NULL,     -- answered to the gateway
    carrier_code    TEXT,
    status          TEXT,
    age             INTEGER,              -- microseconds since the carrier answered
    carrier_transid TEXT,                 -- of the last attempt made for this answer
    latency         INTEGER NOT NULL      -- microseconds
) STRICT;

-- Attempts at the carrier: one a call.
CREATE TABLE call (
    id        INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,           -- when it began
    transid   TEXT,                       -- its own; none when the proxy could not number it
    previous  TEXT,                       -- of the attempt before it in the same flight
    card      TEXT,
    kind      INTEGER,
    masked    TEXT,
    key       INTEGER,                    -- name
    account   INTEGER NOT NULL,           -- name
    operation INTEGER NOT NULL,           -- name
    code      TEXT,                       -- the carrier's
    fault     INTEGER,                    -- name: why there is no code
    status    TEXT,
    latency   INTEGER NOT NULL,           -- microseconds
    bytes     INTEGER                     -- of the carrier's answer
) STRICT;
CREATE INDEX call_transid ON call (transid);

-- Refusals before authentication beyond the first few of a peer and reason in a period: how many, from when to when.
CREATE TABLE refused (
    id     INTEGER PRIMARY KEY,
    peer   TEXT,                          -- none: of peers too many to tell apart
    reason INTEGER NOT NULL,              -- name
    count  INTEGER NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL
) STRICT;

-- Requests without a record, because none could be written: the first row after the audit works again.
CREATE TABLE gap (
    id       INTEGER PRIMARY KEY,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    answered INTEGER NOT NULL,            -- answered all the same (on_failure = "answer")
    refused  INTEGER NOT NULL             -- answered 73
) STRICT;

-- What was done to the audit itself.
CREATE TABLE note (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    what   INTEGER NOT NULL,              -- name
    detail TEXT NOT NULL
) STRICT;

-- What was committed together: rows first to last.
CREATE TABLE batch (
    last    INTEGER PRIMARY KEY,
    first   INTEGER NOT NULL,
    version INTEGER NOT NULL,             -- of the rows: 1
    begins  INTEGER NOT NULL,             -- the least `at` of this batch
    horizon INTEGER NOT NULL,             -- the greatest `at` of this and the batches before, in this segment
    hash    BLOB    NOT NULL
) STRICT;

-- This segment: the only row.
CREATE TABLE segment (
    month    TEXT NOT NULL,               -- 2026-01
    previous BLOB NOT NULL,               -- head of the segment before; zeros for the very first
    before   INTEGER NOT NULL,            -- the last row's number there
    seed     BLOB NOT NULL
) STRICT;

-- The segments before this one, those too that are deleted by now.
CREATE TABLE manifest (
    month  TEXT PRIMARY KEY,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    count  INTEGER NOT NULL,              -- of rows
    since  INTEGER NOT NULL,              -- the least `at`
    until  INTEGER NOT NULL,              -- the greatest
    head   BLOB NOT NULL
) STRICT;

-- Rows first to last, sorted by card.
CREATE TABLE card_run (
    id    INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL
) STRICT;
CREATE TABLE card_entry (
    run  INTEGER NOT NULL,
    card TEXT    NOT NULL,
    id   INTEGER NOT NULL,
    PRIMARY KEY (run, card, id)
) STRICT, WITHOUT ROWID;

-- Runs merged: rows first to last of the runs behind the block before, up to the run of the block's own number. Entries of
-- a greater number than any block's are a block in the making.
CREATE TABLE card_block (
    id    INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL
) STRICT;
CREATE TABLE card_block_entry (
    block INTEGER NOT NULL,
    card  TEXT    NOT NULL,
    id    INTEGER NOT NULL,
    PRIMARY KEY (block, card, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER record_stays BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'audit records are never altered'); END;
CREATE TRIGGER record_is_kept BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END;
CREATE TRIGGER call_stays BEFORE UPDATE ON call BEGIN SELECT RAISE(ABORT, 'audit calls are never altered'); END;
CREATE TRIGGER call_is_kept BEFORE DELETE ON call BEGIN SELECT RAISE(ABORT, 'audit calls are never deleted'); END;
CREATE TRIGGER refused_stays BEFORE UPDATE ON refused BEGIN SELECT RAISE(ABORT, 'audit counts are never altered'); END;
CREATE TRIGGER refused_is_kept BEFORE DELETE ON refused BEGIN SELECT RAISE(ABORT, 'audit counts are never deleted'); END;
CREATE TRIGGER gap_stays BEFORE UPDATE ON gap BEGIN SELECT RAISE(ABORT, 'audit gaps are never altered'); END;
CREATE TRIGGER gap_is_kept BEFORE DELETE ON gap BEGIN SELECT RAISE(ABORT, 'audit gaps are never deleted'); END;
CREATE TRIGGER note_stays BEFORE UPDATE ON note BEGIN SELECT RAISE(ABORT, 'audit notes are never altered'); END;
CREATE TRIGGER note_is_kept BEFORE DELETE ON note BEGIN SELECT RAISE(ABORT, 'audit notes are never deleted'); END;
CREATE TRIGGER batch_stays BEFORE UPDATE ON batch BEGIN SELECT RAISE(ABORT, 'audit batches are never altered'); END;
CREATE TRIGGER batch_is_kept BEFORE DELETE ON batch BEGIN SELECT RAISE(ABORT, 'audit batches are never deleted'); END;
CREATE TRIGGER name_stays BEFORE UPDATE ON name BEGIN SELECT RAISE(ABORT, 'audit names are never altered'); END;
CREATE TRIGGER name_is_kept BEFORE DELETE ON name BEGIN SELECT RAISE(ABORT, 'audit names are never deleted'); END;
CREATE TRIGGER segment_stays BEFORE UPDATE ON segment BEGIN SELECT RAISE(ABORT, 'audit segments are never altered'); END;
CREATE TRIGGER segment_is_kept BEFORE DELETE ON segment BEGIN SELECT RAISE(ABORT, 'audit segments are never deleted'); END;
CREATE TRIGGER manifest_stays BEFORE UPDATE ON manifest BEGIN SELECT RAISE(ABORT, 'audit manifests are never altered'); END;
CREATE TRIGGER manifest_is_kept BEFORE DELETE ON manifest BEGIN SELECT RAISE(ABORT, 'audit manifests are never deleted'); END;
CREATE TRIGGER run_stays BEFORE UPDATE ON card_run BEGIN SELECT RAISE(ABORT, 'audit runs are never altered'); END;
CREATE TRIGGER run_is_kept BEFORE DELETE ON card_run BEGIN SELECT RAISE(ABORT, 'audit runs are never deleted'); END;
CREATE TRIGGER entry_stays BEFORE UPDATE ON card_entry BEGIN SELECT RAISE(ABORT, 'audit entries are never altered'); END;
CREATE TRIGGER entry_is_kept BEFORE DELETE ON card_entry BEGIN SELECT RAISE(ABORT, 'audit entries are never deleted'); END;
CREATE TRIGGER block_stays BEFORE UPDATE ON card_block BEGIN SELECT RAISE(ABORT, 'audit blocks are never altered'); END;
CREATE TRIGGER block_is_kept BEFORE DELETE ON card_block BEGIN SELECT RAISE(ABORT, 'audit blocks are never deleted'); END;
CREATE TRIGGER block_entry_stays BEFORE UPDATE ON card_block_entry BEGIN SELECT RAISE(ABORT, 'audit entries are never altered'); END;
CREATE TRIGGER block_entry_is_kept BEFORE DELETE ON card_block_entry BEGIN SELECT RAISE(ABORT, 'audit entries are never deleted'); END;

-- Views for people: names and codes spelled out, times at UTC+8, latency in milliseconds, age in seconds. They run in
-- the sqlite3 shell of Debian 12 (3.40).

-- Every look-up. ORDER BY id DESC LIMIT 20 shows the latest.
CREATE VIEW lookup AS
SELECT
    record.id,
    strftime('%Y-%m-%dT%H:%M:%S', record.at / 1000000 + 28800, 'unixepoch')
        || printf('.%03d+08:00', record.at / 1000 % 1000) AS time,
    record.client,
    (SELECT text FROM name WHERE id = record."group") AS "group",
    (SELECT text FROM name WHERE id = record.account) AS account,
    record.peer,
    (SELECT text FROM name WHERE id = record.operation) AS operation,
    CASE record.kind WHEN 1 THEN 'msisdn' WHEN 2 THEN 'iccid' WHEN 3 THEN 'imsi' END AS kind,
    record.card,
    record.transid,
    (SELECT text FROM name WHERE id = record.outcome) AS outcome,
    (SELECT text FROM name WHERE id = record.reason) AS reason,
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
    record.authenticated,
    record.masked,
    (SELECT text FROM name WHERE id = record.key) AS key
FROM record;

-- Every attempt at the carrier.
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
    call.masked
FROM call;

-- Which calls an answer cost, and which account paid: WHERE lookup = 7. The last attempt first; most have one.
CREATE VIEW lookup_call AS
SELECT record.id AS lookup, record.client, record.transid AS client_transid, 0 AS earlier, call.id AS call,
       call.transid, (SELECT text FROM name WHERE id = call.account) AS account, call.code,
       (SELECT text FROM name WHERE id = call.fault) AS fault, round(call.latency / 1e3, 3) AS latency_ms
FROM record CROSS JOIN call ON call.transid = record.carrier_transid
UNION ALL
SELECT record.id, record.client, record.transid, 1, earlier.id,
       earlier.transid, (SELECT text FROM name WHERE id = earlier.account), earlier.code,
       (SELECT text FROM name WHERE id = earlier.fault), round(earlier.latency / 1e3, 3)
FROM record CROSS JOIN call ON call.transid = record.carrier_transid
            CROSS JOIN call AS earlier ON earlier.transid = call.previous
UNION ALL
SELECT record.id, record.client, record.transid, 2, first.id,
       first.transid, (SELECT text FROM name WHERE id = first.account), first.code,
       (SELECT text FROM name WHERE id = first.fault), round(first.latency / 1e3, 3)
FROM record CROSS JOIN call ON call.transid = record.carrier_transid
            CROSS JOIN call AS earlier ON earlier.transid = call.previous
            CROSS JOIN call AS first ON first.transid = earlier.previous;

-- The rows of a card, look-ups and calls, fast: WHERE card = '14765004176'.
CREATE VIEW card_row AS
SELECT card_block_entry.card AS card, card_block_entry.id AS id
FROM card_block CROSS JOIN card_block_entry ON card_block_entry.block = card_block.id
UNION ALL
SELECT card_entry.card, card_entry.id
FROM card_run CROSS JOIN card_entry ON card_entry.run = card_run.id
WHERE card_run.id > (SELECT coalesce(max(id), 0) FROM card_block)
UNION ALL
SELECT card, id FROM record WHERE card IS NOT NULL AND id > (SELECT coalesce(max(last), 0) FROM card_run)
UNION ALL
SELECT card, id FROM call WHERE card IS NOT NULL AND id > (SELECT coalesce(max(last), 0) FROM card_run);

-- The look-ups of a card, fast: WHERE card = '14765004176' ORDER BY id DESC LIMIT 50.
CREATE VIEW by_card AS
SELECT card_row.card AS card, lookup.id AS id, time, client, "group", account, peer, operation, kind, transid, outcome,
       reason, code, meaning, status, card_is, age_s, carrier_transid, latency_ms, masked
FROM card_row CROSS JOIN lookup ON lookup.id = card_row.id;

-- What each client had: one row a client.
CREATE VIEW by_client AS
SELECT client, look_ups, hits, carrier_calls, refused, failed,
       strftime('%Y-%m-%dT%H:%M:%S+08:00', first / 1000000 + 28800, 'unixepoch') AS first,
       strftime('%Y-%m-%dT%H:%M:%S+08:00', last / 1000000 + 28800, 'unixepoch') AS last
FROM (SELECT client, count(*) AS look_ups,
             sum(outcome = (SELECT id FROM name WHERE text = 'hit')) AS hits,
             count(DISTINCT carrier_transid) AS carrier_calls,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'refused')), 0) AS refused,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'failed')), 0) AS failed,
             min(at) AS first, max(at) AS last
      FROM record WHERE authenticated = 1 GROUP BY client);

-- What each day had, days at UTC+8: one row a day.
CREATE VIEW by_day AS
SELECT day, sum(look_ups) AS look_ups, sum(hits) AS hits, sum(stale) AS stale, sum(misses) AS misses,
       sum(collapsed) AS collapsed, sum(refused) AS refused, sum(failed) AS failed,
       sum(carrier_calls) AS carrier_calls
FROM (SELECT date(at / 1000000 + 28800, 'unixepoch') AS day, count(*) AS look_ups,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'hit')), 0) AS hits,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'stale')), 0) AS stale,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'miss')), 0) AS misses,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'collapsed')), 0) AS collapsed,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'refused')), 0) AS refused,
             coalesce(sum(outcome = (SELECT id FROM name WHERE text = 'failed')), 0) AS failed,
             0 AS carrier_calls
      FROM record GROUP BY at / 1000000 + 28800 - (at / 1000000 + 28800) % 86400
      UNION ALL
      SELECT date(at / 1000000 + 28800, 'unixepoch'), 0, 0, 0, 0, 0, 0, 0, count(*)
      FROM call GROUP BY at / 1000000 + 28800 - (at / 1000000 + 28800) % 86400)
GROUP BY day;

-- When a card's STATUS was seen to change, and between which two answers of the carrier's it must have happened. Fast
-- for one card.
CREATE VIEW status_change AS
SELECT card, kind, "from", status AS "to",
       strftime('%Y-%m-%dT%H:%M:%S+08:00', after / 1000000 + 28800, 'unixepoch') AS after,
       strftime('%Y-%m-%dT%H:%M:%S+08:00', told / 1000000 + 28800, 'unixepoch') AS before,
       id AS lookup
FROM (SELECT card, CASE kind WHEN 1 THEN 'msisdn' WHEN 2 THEN 'iccid' WHEN 3 THEN 'imsi' END AS kind, status, told,
             id, lag(status) OVER answers AS "from", lag(told) OVER answers AS after
      FROM (SELECT card_row.card AS card, kind, operation, status, at - coalesce(age, 0) AS told, record.id AS id
            FROM card_row CROSS JOIN record ON record.id = card_row.id WHERE status IS NOT NULL)
      WINDOW answers AS (PARTITION BY card, kind, operation ORDER BY told, id))
WHERE "from" IS NOT NULL AND "from" <> status;

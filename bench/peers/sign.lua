-- wrk's requests: each signed anew, with a transid of its own, as the carrier's page says.
--
-- token = lower-case hex of SHA-256(appid + password + transid), by libcrypto through LuaJIT's FFI.
-- Environment: APPID, PASSWORD, EBID, CARDS (how many distinct ones), STRIDE (each so many after the
-- one before; no divisor of theirs), FIRST (the first sequence number).

local ffi = require("ffi")
ffi.cdef [[
unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);
]]
local crypto = ffi.load("libcrypto.so.3")

local appid, password, ebid = os.getenv("APPID"), os.getenv("PASSWORD"), os.getenv("EBID")
local cards, stride = tonumber(os.getenv("CARDS")), tonumber(os.getenv("STRIDE"))
local sequence = tonumber(os.getenv("FIRST"))

local digest = ffi.new("unsigned char[32]")
local hex = ffi.new("char[64]")
local digits = ffi.new("char[17]", "0123456789abcdef")

local function token(transid)
    local text = appid .. password .. transid
    crypto.SHA256(text, #text, digest)
    for i = 0, 31 do
        local byte = digest[i]
        hex[2 * i] = digits[bit.rshift(byte, 4)]
        hex[2 * i + 1] = digits[bit.band(byte, 15)]
    end
    return ffi.string(hex, 64)
end

local second, stamp = 0, ""

function request()
    local now = os.time()
    if now ~= second then
        second, stamp = now, os.date("!%Y%m%d%H%M%S", now + 8 * 3600)
    end
    sequence = sequence + 1
    local transid = string.format("%s%s%08d", appid, stamp, sequence % 99999999 + 1)
    return string.format(
        "GET /v2/userstatusrealsingle?appid=%s&transid=%s&ebid=%s&token=%s&msisdn=%d HTTP/1.1\r\nHost: a\r\n\r\n",
        appid, transid, ebid, token(transid), 14765000000 + sequence * stride % cards)
end

-- One line for whoever runs wrk: requests, microseconds, errors, then latencies in microseconds.
function done(summary, latency)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end

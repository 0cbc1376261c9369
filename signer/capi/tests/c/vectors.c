/* The library from C: the 65 known answers, the rules of replies, the limits, power cuts, and misuse that must fail.
 *
 * Freestanding except for console_print, so that it runs on hosts and chips. The table signer/tests/vectors.tsv
 * (-DVECTORS names it) is linked in unchanged. Prints `c tests: N checks passed` and returns 0, or the line of
 * the first check that failed and 1.
 */
#include <stdbool.h>

#include "cmiot_signer.h"
#include "console.h"

__asm__(".section .rodata\n"
        ".global vectors_begin\n"
        ".global vectors_end\n"
        "vectors_begin: .incbin \"" VECTORS "\"\n"
        "vectors_end: .byte 0\n"
        ".text\n");
extern const char vectors_begin[], vectors_end[];

static unsigned checks;
static unsigned failed_line;

#define CHECK(condition)                                  \
    do {                                                  \
        checks++;                                         \
        if (!(condition) && failed_line == 0)             \
            failed_line = __LINE__;                       \
    } while (0)

static size_t length(const char *text) {
    size_t len = 0;
    while (text[len] != '\0')
        len++;
    return len;
}

static bool same(const char *a, const char *b, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

static cmiot_text text(const char *nul_terminated) { return (cmiot_text){nul_terminated, length(nul_terminated)}; }

static bool is(cmiot_text a, const char *b) {
    return a.len == length(b) && same(a.ptr, b, a.len);
}

static void print_number(unsigned number) {
    char digits[12];
    char *at = digits + sizeof digits - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    console_print(at);
}

static uint32_t number(cmiot_text digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits.len; i++)
        value = value * 10 + (uint32_t)(digits.ptr[i] - '0');
    return value;
}

/* Seconds since 1970, UTC, of `YYYYMMDDHHMMSS` in China. */
static uint64_t unix_seconds(cmiot_text stamp) {
    uint32_t part[7];
    for (size_t i = 0; i < 7; i++)
        part[i] = number((cmiot_text){stamp.ptr + 2 * i, 2});
    uint32_t year = part[0] * 100 + part[1], month = part[2], day = part[3];
    /* A year that begins in March has its leap day at its end. */
    if (month < 3) {
        year--;
        month += 12;
    }
    uint64_t days = 365ull * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + day - 719469;
    return days * 86400 + part[4] * 3600 + part[5] * 60 + part[6] - 8 * 3600;
}

static void vector(const cmiot_text column[10]) {
    const cmiot_text query = column[9];
    cmiot_account account = {{0}};
    CHECK(cmiot_account_init(&account, column[0], column[4], column[1]) == CMIOT_OK);
    int32_t kind = is(column[5], "msisdn") ? CMIOT_MSISDN : is(column[5], "iccid") ? CMIOT_ICCID : CMIOT_IMSI;
    const cmiot_card card = {kind, column[6]};

    char out[CMIOT_QUERY_SIZE] = "";
    int32_t len = cmiot_sign(&account, unix_seconds(column[2]), number(column[3]), card, out, sizeof out);
    CHECK(len == (int32_t)query.len);
    CHECK(len > 0 && same(out, query.ptr, query.len) && out[len] == '\0');

    /* A buffer of exactly the right size, and one that is one byte smaller. */
    CHECK(cmiot_sign(&account, unix_seconds(column[2]), number(column[3]), card, out, query.len + 1) == len);
    out[0] = out[query.len - 1] = 'x';
    CHECK(cmiot_sign(&account, unix_seconds(column[2]), number(column[3]), card, out, query.len) == CMIOT_E_BUFFER);
    CHECK(out[0] == 'x' && out[query.len - 1] == 'x');
}

static void vectors(void) {
    unsigned rows = 0;
    for (const char *line = vectors_begin; line < vectors_end;) {
        const char *end = line;
        while (end < vectors_end && *end != '\n')
            end++;
        if (*line != '#' && end > line) {
            cmiot_text column[10];
            const char *at = line;
            for (size_t i = 0; i < 10; i++) {
                const char *start = at;
                while (at < end && *at != '\t')
                    at++;
                column[i] = (cmiot_text){start, (size_t)(at - start)};
                at++;
            }
            vector(column);
            rows++;
        }
        line = end + 1;
    }
    CHECK(rows == 65);
}

/* The status or error of a reply. */
static int32_t status_of(const char *body) {
    cmiot_reply reply;
    int32_t scanned = cmiot_reply_scan(&reply, (const uint8_t *)body, length(body));
    CHECK(scanned == CMIOT_OK || cmiot_reply_status(&reply) == scanned);
    return cmiot_reply_status(&reply);
}

static void replies(void) {
    CHECK(status_of("{\"status\":\"0\",\"message\":\"ok\",\"result\":[{\"STATUS\":\"00\"}]}") == 0);
    CHECK(status_of("{\"status\":0,\"result\":[{\"STATUS\":\"99\"},{}]}") == 99);
    CHECK(status_of("{\"status\":\"0\",\"result\":[{\"STATUS\":\"08\"}]}") == CMIOT_STATUS_UNKNOWN);
    CHECK(status_of("{\"status\":\"0\",\"result\":[{}]}") == CMIOT_E_NO_STATUS);
    CHECK(status_of("{\"status\":\"0\",\"result\":[]}") == CMIOT_E_NO_RESULT);
    CHECK(status_of("{\"status\":\"7\"}") == CMIOT_E_REFUSED);
    CHECK(status_of("{\"status\":\"0\"") == CMIOT_E_TRUNCATED);
    CHECK(status_of("") == CMIOT_E_TRUNCATED);
    CHECK(status_of("{\"status\":\"0\",}") == CMIOT_E_MALFORMED);
    CHECK(status_of("<html>") == CMIOT_E_NOT_JSON);
    CHECK(status_of("{}") == CMIOT_E_NOT_ENVELOPE);
    CHECK(status_of("{\"status\":\"0\",\"status\":\"0\"}") == CMIOT_E_DUPLICATE);
    CHECK(status_of("{\"x\":[[[[[[[[[[[[[[[[[[[[") == CMIOT_E_TOO_DEEP);

    const char *refusal = "{\"status\":\"01016\",\"message\":\"\\u6b63\\u786e!\",\"result\":[{\"STATUS\":\"A state\"}]}";
    cmiot_reply reply;
    CHECK(cmiot_reply_scan(&reply, (const uint8_t *)refusal, length(refusal)) == CMIOT_OK);
    char out[17];
    CHECK(cmiot_reply_code(&reply, out, sizeof out) == 5 && same(out, "01016", 6));
    out[0] = 'x';
    CHECK(cmiot_reply_code(&reply, out, 5) == CMIOT_E_BUFFER && out[0] == 'x');
    CHECK(cmiot_reply_status_text(&reply, out, sizeof out) == 7 && same(out, "A state", 8));
    CHECK(cmiot_reply_results(&reply) == 1);
    CHECK(cmiot_reply_message(&reply, out, sizeof out) == 7);
    CHECK(same(out, "\xE6\xAD\xA3\xE7\xA1\xAE!", 8));
    /* A character that does not fit is omitted as a whole. */
    CHECK(cmiot_reply_message(&reply, out, 6) == 3 && same(out, "\xE6\xAD\xA3", 4));
    CHECK(cmiot_reply_message(&reply, out, 0) == CMIOT_E_BUFFER);
}

static void clocks_and_sequences(void) {
    uint64_t seconds = 0;
    const cmiot_text date = text("Thu, 16 Oct 2014 07:30:30 GMT");
    CHECK(cmiot_date_to_unix(date, &seconds) == CMIOT_OK && seconds == 1413444630);
    CHECK(cmiot_date_to_unix((cmiot_text){date.ptr, date.len - 1}, &seconds) == CMIOT_E_DATE && seconds == 1413444630);
    CHECK(cmiot_date_to_unix((cmiot_text){NULL, 0}, &seconds) == CMIOT_E_NULL);
    CHECK(cmiot_date_to_unix(date, NULL) == CMIOT_E_NULL);

    /* The header's example. */
    CHECK(cmiot_date_to_unix(text("Sun, 29 Nov 2026 10:00:00 GMT"), &seconds) == CMIOT_OK && seconds == 1795946400);
    const uint64_t built = 1767225600, now = 1795946400, day = 86400;
    CHECK(cmiot_date_check(now, now + day, built, 0) == CMIOT_OK);
    CHECK(cmiot_date_check(now, now + day + 1, built, 0) == CMIOT_E_DATE_LIMITS);
    CHECK(cmiot_date_check(now, now - 61, built, 60) == CMIOT_E_DATE_LIMITS);
    CHECK(cmiot_date_check(0, now, built, 0) == CMIOT_OK && cmiot_date_check(1413444630, now, built, 60) == CMIOT_OK);
    CHECK(cmiot_date_check(0, built - 1, built, 0) == CMIOT_E_DATE_LIMITS);
    CHECK(cmiot_date_check(0, built + 21 * 365 * day, built, 0) == CMIOT_E_DATE_LIMITS);
    CHECK(cmiot_date_check(0, now, 0, 0) == CMIOT_E_CLOCK_UNSET && cmiot_date_check(0, 0, built, 0) == CMIOT_E_CLOCK_UNSET);

    CHECK(cmiot_version() == CMIOT_SIGNER_VERSION);

    CHECK(cmiot_sequence_next(0, 0, 0) == 1);
    CHECK(cmiot_sequence_next(99999999, 0, 0) == 1);
    CHECK(cmiot_sequence_next(0, 4, 1234) == 12340000);
    CHECK(cmiot_sequence_next(12340000, 4, 1234) == 12340001);
    CHECK(cmiot_sequence_next(12349999, 4, 1234) == 12340000);
    CHECK(cmiot_sequence_next(0, 8, 1) == CMIOT_E_SEQUENCE);
}

static const char response[] = "HTTP/1.1 200 OK\r\nDate: Thu, 16 Oct 2014 07:30:30 GMT\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n"
                             "1b\r\n{\"status\":\"0\",\"result\":[{\"S\r\n"
                             "0e\r\nTATUS\":\"00\"}]}\r\n0\r\n\r\n";

static void http(void) {
    cmiot_account account;
    CHECK(cmiot_account_init(&account, text("100001"), text("1"), text("example-password")) == CMIOT_OK);
    char request[512];
    const cmiot_card card = {CMIOT_MSISDN, text("14765004176")};
    const cmiot_endpoint endpoint = {text("192.168.1.10:8080"), text("/v2/userstatusrealsingle"), 0};
    const cmiot_endpoint bad_host = {text("a b"), endpoint.path, 0}, no_host = {{NULL, 0}, endpoint.path, 0};
    int32_t len = cmiot_http_request(&account, 1413444630, 80000001, card, &endpoint, request, sizeof request);
    const char *start = "GET /v2/userstatusrealsingle?appid=100001&transid=1000012014101615303080000001&ebid=1&token=";
    const char *end = "&msisdn=14765004176 HTTP/1.1\r\nHost: 192.168.1.10:8080\r\nConnection: close\r\n\r\n";
    CHECK(len == (int32_t)(length(start) + 64 + length(end)));
    CHECK(same(request, start, length(start)) && same(request + length(start) + 64, end, length(end) + 1));
    request[0] = request[len - 1] = 'x';
    CHECK(cmiot_http_request(&account, 1413444630, 80000001, card, &endpoint, request, (size_t)len) == CMIOT_E_BUFFER);
    CHECK(cmiot_http_request(&account, 1413444630, 80000001, card, &bad_host, request, sizeof request) == CMIOT_E_URL);
    CHECK(cmiot_http_request(&account, 1413444630, 80000001, card, &no_host, request, sizeof request) == CMIOT_E_NULL);
    CHECK(cmiot_http_request(&account, 1413444630, 80000001, card, NULL, request, sizeof request) == CMIOT_E_NULL);
    CHECK(request[0] == 'x' && request[len - 1] == 'x');
    /* A capacity that is too large: nothing behind the text's NUL is written. */
    request[len] = request[len + 1] = 'x';
    CHECK(cmiot_http_request(&account, 1413444630, 80000001, card, &endpoint, request, 4096) == len);
    CHECK(request[len] == '\0' && request[len + 1] == 'x');

    /* The same response in pieces of every size. */
    for (size_t size = 1; size <= sizeof response - 1; size++) {
        cmiot_http http = {{0}};
        uint8_t body[64];
        CHECK(cmiot_http_feed(&http, (const uint8_t *)response, 1) == CMIOT_E_UNFILLED);
        CHECK(cmiot_http_body_len(&http) == CMIOT_E_UNFILLED && cmiot_http_status(&http) == CMIOT_E_UNFILLED);
        CHECK(cmiot_http_begin(&http, 0, 0, body, sizeof body) == CMIOT_OK);
        CHECK(cmiot_http_body_len(&http) == CMIOT_E_UNFILLED && cmiot_http_status(&http) == 0);
        int32_t fed = 0;
        for (size_t at = 0; at < sizeof response - 1; at += size) {
            size_t left = sizeof response - 1 - at;
            CHECK(fed == 0);
            fed = cmiot_http_feed(&http, (const uint8_t *)response + at, left < size ? left : size);
        }
        uint64_t seconds = 0;
        cmiot_reply reply;
        CHECK(fed == 1 && cmiot_http_close(&http) == 1 && cmiot_http_status(&http) == 200);
        CHECK(cmiot_http_named(&http) == 0);
        CHECK(cmiot_http_date(&http, &seconds) == CMIOT_OK && seconds == 1413444630);
        CHECK(cmiot_reply_scan(&reply, body, (size_t)cmiot_http_body_len(&http)) == CMIOT_OK);
        CHECK(cmiot_reply_status(&reply) == 0);
    }
    cmiot_http http;
    uint8_t small[8];
    const uint8_t *const whole = (const uint8_t *)response;
    CHECK(cmiot_http_begin(&http, 0, 0, small, sizeof small) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, whole, sizeof response - 1) == CMIOT_E_HTTP_LONG);
    CHECK(cmiot_http_begin(&http, 0, 0, small, sizeof small) == CMIOT_OK);
    CHECK(cmiot_http_close(&http) == CMIOT_E_HTTP_CLOSED && cmiot_http_reusable(&http) == 0);
    /* A failure stays until the struct is prepared again. */
    uint8_t body[64];
    CHECK(cmiot_http_begin(&http, 0, 0, body, sizeof body) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, (const uint8_t *)"+CREG: 1\r\n", 10) == CMIOT_E_NOT_HTTP);
    CHECK(cmiot_http_feed(&http, whole, sizeof response - 1) == CMIOT_E_NOT_HTTP);
    CHECK(cmiot_http_feed(&http, whole, 0) == CMIOT_E_NOT_HTTP && cmiot_http_close(&http) == CMIOT_E_NOT_HTTP);
    CHECK(cmiot_http_body_len(&http) == CMIOT_E_NOT_HTTP && cmiot_http_reusable(&http) == 0);
    CHECK(cmiot_http_begin(&http, 0, 0, body, sizeof body) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, (const uint8_t *)"HTTP/1.1 2x\r\n", 13) == CMIOT_E_HTTP);
    CHECK(cmiot_http_begin(&http, 0, 0, NULL, 8) == CMIOT_E_NULL && cmiot_http_status(&http) == CMIOT_E_UNFILLED);
    CHECK(cmiot_http_begin(NULL, 0, 0, small, 8) == CMIOT_E_NULL);
    CHECK(cmiot_http_begin(&http, 0, 1, body, 8) == CMIOT_E_CLOCK_UNSET);
    CHECK(cmiot_http_begin(&http, 1413444630, 100000000, body, 8) == CMIOT_E_SEQUENCE);

    /* A response to this request, and to the one before. */
    const cmiot_text named = text("HTTP/1.1 200 OK\r\ncmiot-transid: 1000012014101615303080000001\r\nContent-Length: 0\r\n\r\n");
    CHECK(cmiot_http_begin(&http, 1413444630, 80000001, body, sizeof body) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, (const uint8_t *)named.ptr, named.len) == 1 && cmiot_http_body_len(&http) == 0);
    CHECK(cmiot_http_named(&http) == 1);
    CHECK(cmiot_http_begin(&http, 1413444630, 80000002, body, sizeof body) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, (const uint8_t *)named.ptr, named.len) == CMIOT_E_OTHER_REQUEST);
    CHECK(cmiot_http_begin(&http, 1413444631, 80000001, body, sizeof body) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, (const uint8_t *)named.ptr, named.len) == CMIOT_E_OTHER_REQUEST);

    /* The body's buffer contains the response, as a whole or a byte of it. */
    uint8_t shared[256];
    for (size_t i = 0; i < sizeof response - 1; i++)
        shared[i] = whole[i];
    CHECK(cmiot_http_begin(&http, 0, 0, shared, sizeof shared) == CMIOT_OK);
    CHECK(cmiot_http_feed(&http, shared, sizeof response - 1) == 1 && cmiot_http_body_len(&http) == 41);
    CHECK(same((const char *)shared, "{\"status\":\"0\",\"result\":[{\"STATUS\":\"00\"}]}", 41));
}

/* Flash that loses power after `power` more bytes, in the middle of the next one. */
static struct {
    uint8_t bytes[2 * 1024];
    uint32_t power;
    bool worn;
} chip;

static bool change(uint32_t at, uint8_t to) {
    const uint8_t half = (uint8_t)(0x5A5A >> at % 8);
    if (chip.power == 0) {
        chip.bytes[at] = (uint8_t)((chip.bytes[at] & ~half) | (to & half));
        return false;
    }
    chip.power--;
    chip.bytes[at] = to;
    return true;
}

static int32_t chip_read(void *flash, uint32_t offset, uint8_t *bytes, size_t len) {
    CHECK(flash == &chip && len == 8 && offset + len <= sizeof chip.bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = chip.bytes[offset + i];
    return 0;
}

static int32_t chip_write(void *flash, uint32_t offset, const uint8_t *bytes, size_t len) {
    CHECK(flash == &chip && offset % len == 0 && offset + len <= sizeof chip.bytes);
    for (uint32_t i = 0; i < len && !chip.worn; i++) {
        CHECK(chip.bytes[offset + i] == 0xFF);
        if (!change(offset + i, bytes[i]))
            return -1;
    }
    return 0;
}

static uint32_t page_size;

static int32_t chip_erase(void *flash, uint32_t offset) {
    CHECK(flash == &chip && (offset == 0 || offset == page_size));
    for (uint32_t i = 0; i < page_size; i++)
        if (!change(offset + i, 0xFF))
            return -1;
    return 0;
}

/* Takes numbers until power fails, at most a dozen. Each must be greater than all before. Returns the last. */
static int32_t switched_on(const cmiot_flash *flash, uint32_t power, int32_t last) {
    cmiot_lease lease;
    chip.power = power;
    CHECK(cmiot_lease_mount(&lease, flash, 0, 0, 3) == CMIOT_OK);
    for (int i = 0; i < 12; i++) {
        int32_t number = cmiot_lease_next(&lease);
        if (number < 0) {
            CHECK(number == CMIOT_E_FLASH && chip.power == 0);
            break;
        }
        CHECK(number > last);
        last = number;
    }
    return last;
}

/* Power fails after every `step`th byte while one page is full and the other is erased. */
static void power_cuts(uint32_t write_size, uint32_t step) {
    static uint8_t full[sizeof chip.bytes];
    const uint32_t lasting = 1000000;
    page_size = 64 * (write_size < 8 ? 8 : write_size);
    const cmiot_flash flash = {&chip, chip_read, chip_write, chip_erase, page_size, write_size};
    for (size_t i = 0; i < sizeof chip.bytes; i++)
        chip.bytes[i] = 0xA5;
    int32_t before = 0;
    /* A dozen numbers are four marks. */
    for (int i = 0; i < 15; i++)
        before = switched_on(&flash, lasting, before);
    CHECK(before == 15 * 12);
    for (size_t i = 0; i < sizeof full; i++)
        full[i] = chip.bytes[i];
    for (uint32_t cut = 0; cut < page_size + 80; cut += step) {
        for (size_t i = 0; i < sizeof full; i++)
            chip.bytes[i] = full[i];
        int32_t last = switched_on(&flash, cut, before);
        last = switched_on(&flash, cut % 13, last);
        CHECK(switched_on(&flash, lasting, last) >= last + 12);
    }
}

/* Flash with write units of 512 bytes, of which the first eight are stored: no chip here has 64 KiB of RAM. */
enum { LARGE = 512, LARGE_PAGE = 64 * LARGE };
static uint8_t large[2 * 64][8];

static int32_t large_read(void *unused, uint32_t offset, uint8_t *bytes, size_t len) {
    CHECK(unused == NULL && len == 8 && offset % LARGE == 0 && offset < 2 * LARGE_PAGE);
    for (size_t i = 0; i < len; i++)
        bytes[i] = large[offset / LARGE][i];
    return 0;
}

static int32_t large_write(void *unused, uint32_t offset, const uint8_t *bytes, size_t len) {
    CHECK(unused == NULL && len == LARGE && offset % LARGE == 0 && offset < 2 * LARGE_PAGE);
    for (size_t i = 0; i < 8; i++)
        large[offset / LARGE][i] = bytes[i];
    CHECK(bytes[8] == 0xFF && bytes[LARGE - 1] == 0xFF);
    return 0;
}

static int32_t large_erase(void *unused, uint32_t offset) {
    CHECK(unused == NULL && (offset == 0 || offset == LARGE_PAGE));
    for (size_t i = 0; i < 64 * 8; i++)
        large[offset / LARGE + i / 8][i % 8] = 0;
    return 0;
}

static void large_units(void) {
    const cmiot_flash flash = {NULL, large_read, large_write, large_erase, LARGE_PAGE, LARGE};
    cmiot_lease lease;
    for (int32_t boot = 0; boot < 150; boot++)
        CHECK(cmiot_lease_mount(&lease, &flash, 0, 0, 2) == CMIOT_OK && cmiot_lease_next(&lease) == 2 * boot + 1);
}

static void leases(void) {
    power_cuts(4, 1);
    power_cuts(16, 5);
    large_units();

    cmiot_lease lease = {{0}};
    page_size = 1024;
    cmiot_flash flash = {&chip, chip_read, chip_write, chip_erase, page_size, 16};
    CHECK(cmiot_lease_next(&lease) == CMIOT_E_UNFILLED && cmiot_lease_next(NULL) == CMIOT_E_NULL);
    CHECK(cmiot_lease_mount(NULL, &flash, 0, 0, 1) == CMIOT_E_NULL);
    CHECK(cmiot_lease_mount(&lease, NULL, 0, 0, 1) == CMIOT_E_NULL);
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 100, 1) == CMIOT_E_SEQUENCE);
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 0) == CMIOT_E_FLASH_LAYOUT);
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 5) == CMIOT_OK);
    int32_t number = cmiot_lease_next(&lease);
    CHECK(number > 42000000 && number < 43000000 && cmiot_lease_next(&lease) == number + 1);
    chip.worn = true;
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 5) == CMIOT_OK && cmiot_lease_next(&lease) == CMIOT_E_FLASH_WORN);
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 0) == CMIOT_E_FLASH_LAYOUT && cmiot_lease_next(&lease) == CMIOT_E_UNFILLED);
    flash.write_size = 3;
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 5) == CMIOT_E_FLASH_LAYOUT);
    flash.write_size = 32;
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 5) == CMIOT_E_FLASH_LAYOUT);
    flash.erase = NULL;
    CHECK(cmiot_lease_mount(&lease, &flash, 2, 42, 5) == CMIOT_E_NULL);
}

#ifdef V5 /* of a library with feature v5 */
static int32_t v5_status_of(const char *body) { return cmiot_v5_status((const uint8_t *)body, length(body)); }

static int32_t v5_token_of(const char *body, char *token, size_t capacity, uint32_t *renew_after) {
    return cmiot_v5_token((const uint8_t *)body, length(body), token, capacity, renew_after);
}

static int32_t v5_field_of(const char *body, const char *name, char *out, size_t capacity) {
    return cmiot_v5_field((const uint8_t *)body, length(body), text(name), out, capacity);
}

static void v5_requests(void) {
    const cmiot_text appid = text("200001"), password = text("example-password"), token = text("a/\"b");
    const cmiot_card card = {CMIOT_MSISDN, text("1440000000001")};
    const uint64_t now = 1413444630;
    const char *body = "{\"appid\":\"200001\",\"password\":\"example-password\","
                       "\"transid\":\"2000012014101615303080000001\",\"refresh\":\"0\"}";
    char out[256];
    int32_t len = cmiot_v5_token_request(appid, password, now, 80000001, 0, CMIOT_V5_BODY, out, sizeof out);
    CHECK(len == (int32_t)length(body) && same(out, body, length(body) + 1));
    CHECK(cmiot_v5_token_request(appid, password, now, 80000001, 0, CMIOT_V5_BODY, out, (size_t)len + 1) == len);
    out[0] = 'x';
    CHECK(cmiot_v5_token_request(appid, password, now, 80000001, 0, CMIOT_V5_BODY, out, (size_t)len) == CMIOT_E_BUFFER);
    CHECK(out[0] == 'x');
    body = "appid=200001&password=example-password&transid=2000012014101615303080000001&refresh=1";
    len = cmiot_v5_token_request(appid, password, now, 80000001, 1, CMIOT_V5_QUERY, out, sizeof out);
    CHECK(len == (int32_t)length(body) && same(out, body, length(body) + 1));

    body = "{\"transid\":\"2000012014101615303080000001\",\"token\":\"a/\\\"b\",\"msisdn\":\"1440000000001\"}";
    len = cmiot_v5_query(appid, token, now, 80000001, card, CMIOT_V5_BODY, out, sizeof out);
    CHECK(len == (int32_t)length(body) && same(out, body, length(body) + 1));
    out[0] = 'x';
    CHECK(cmiot_v5_query(appid, token, now, 80000001, card, CMIOT_V5_BODY, out, (size_t)len) == CMIOT_E_BUFFER);
    CHECK(out[0] == 'x');
    body = "transid=2000012014101615303080000001&token=a%2F%22b&msisdn=1440000000001";
    len = cmiot_v5_query(appid, token, now, 80000001, card, CMIOT_V5_QUERY, out, sizeof out);
    CHECK(len == (int32_t)length(body) && same(out, body, length(body) + 1));

    const cmiot_text null = {NULL, 1}, bad = text("a\n");
    const cmiot_card no_card = {CMIOT_ICCID, card.number};
    out[0] = 'x';
    CHECK(cmiot_v5_token_request(null, password, now, 1, 0, 0, out, sizeof out) == CMIOT_E_NULL);
    CHECK(cmiot_v5_token_request(text("-"), password, now, 1, 0, 0, out, sizeof out) == CMIOT_E_APPID);
    CHECK(cmiot_v5_token_request(appid, text(""), now, 1, 0, 0, out, sizeof out) == CMIOT_E_PASSWORD);
    CHECK(cmiot_v5_token_request(appid, bad, now, 1, 0, 0, out, sizeof out) == CMIOT_E_PASSWORD);
    CHECK(cmiot_v5_token_request(appid, password, 0, 1, 0, 0, out, sizeof out) == CMIOT_E_CLOCK_UNSET);
    CHECK(cmiot_v5_token_request(appid, password, now, 0, 0, 0, out, sizeof out) == CMIOT_E_SEQUENCE);
    CHECK(cmiot_v5_token_request(appid, password, now, 1, 0, 0, NULL, 1) == CMIOT_E_NULL);
    CHECK(cmiot_v5_query(appid, null, now, 1, card, 0, out, sizeof out) == CMIOT_E_NULL);
    CHECK(cmiot_v5_query(appid, text("-1"), now, 1, card, 0, out, sizeof out) == CMIOT_E_TOKEN);
    CHECK(cmiot_v5_query(appid, bad, now, 1, card, 0, out, sizeof out) == CMIOT_E_TOKEN);
    CHECK(cmiot_v5_query(appid, token, now, 1, no_card, 0, out, sizeof out) == CMIOT_E_CARD);
    CHECK(out[0] == 'x');
}

static void v5_replies(void) {
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[{\"cardStatus\":\"02\"}]}") == 2);
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[{\"cardStatus\":\"99\"}]}") == 99);
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[{\"cardStatus\":\"2\"}]}") == CMIOT_V5_CT + 2);
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[{\"cardStatus\":2}]}") == CMIOT_STATUS_UNKNOWN);
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[{\"cardStatus\":\"5\"}]}") == CMIOT_STATUS_UNKNOWN);
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[{\"STATUS\":\"00\"}]}") == CMIOT_E_NO_STATUS);
    CHECK(v5_status_of("{\"status\":\"0\",\"result\":[]}") == CMIOT_E_NO_RESULT);
    CHECK(v5_status_of("{\"status\":\"12021\",\"result\":[]}") == CMIOT_E_TOKEN_EXPIRED);
    CHECK(v5_status_of("{\"status\":\"11011\"}") == CMIOT_E_REFUSED);
    CHECK(v5_status_of("<html>") == CMIOT_E_NOT_JSON);
    CHECK(cmiot_v5_status(NULL, 1) == CMIOT_E_NULL);

    static const int32_t as_v2[][2] = {
        {0, 0}, {2, 2}, {7, 7}, {99, 99}, {2001, 7}, {2002, 0}, {2004, 2}, {2008, 3}, {2009, 4},
        {2006, CMIOT_STATUS_UNKNOWN}, {2007, CMIOT_STATUS_UNKNOWN}, {8, CMIOT_STATUS_UNKNOWN},
        {CMIOT_STATUS_UNKNOWN, CMIOT_STATUS_UNKNOWN}, {CMIOT_E_TOKEN_EXPIRED, CMIOT_E_TOKEN_EXPIRED},
    };
    for (size_t i = 0; i < sizeof as_v2 / sizeof *as_v2; i++)
        CHECK(cmiot_v5_status_as_v2(as_v2[i][0]) == as_v2[i][1]);

    const char *issued = "{\"status\":\"0\",\"result\":[{\"token\":\"a\\/b\",\"ttl\":\"600\"}]}";
    char token[CMIOT_V5_TOKEN_SIZE];
    uint32_t renew_after = 0;
    CHECK(v5_token_of(issued, token, sizeof token, &renew_after) == 3 && same(token, "a/b", 4) && renew_after == 540);
    CHECK(v5_token_of(issued, token, 4, NULL) == 3);
    token[0] = 'x';
    renew_after = 0;
    CHECK(v5_token_of(issued, token, 3, &renew_after) == CMIOT_E_BUFFER);
    CHECK(v5_token_of("{\"status\":\"12022\",\"result\":[{\"token\":\"-1\"}]}", token, 9, &renew_after) == CMIOT_E_REFUSED);
    CHECK(v5_token_of("{\"status\":\"0\",\"result\":[{\"token\":\"-1\"}]}", token, 9, &renew_after) == CMIOT_E_NO_TOKEN);
    CHECK(v5_token_of(issued, NULL, 9, &renew_after) == CMIOT_E_NULL);
    CHECK(token[0] == 'x' && renew_after == 0);

    const char *used = "{\"status\":\"0\",\"result\":[{\"dataAmount\":\"10.50\"}]}";
    CHECK(v5_field_of(used, "dataAmount", token, sizeof token) == 5 && same(token, "10.50", 6));
    CHECK(v5_field_of(used, "amount", token, sizeof token) == CMIOT_E_NO_FIELD);
    CHECK(v5_field_of("{\"status\":\"12021\"}", "amount", token, sizeof token) == CMIOT_E_TOKEN_EXPIRED);
    CHECK(v5_field_of(used, "dataAmount", token, 0) == CMIOT_E_BUFFER);
}
#endif

static void misuse(void) {
    const cmiot_text password = text("example-password"), one = text("1"), null = {NULL, 1};
    const cmiot_card card = {CMIOT_MSISDN, text("14765004176")};
    char out[CMIOT_QUERY_SIZE];
    cmiot_account account = {{0}};
    /* Not initialised yet. */
    CHECK(cmiot_sign(&account, 1413444630, 1, card, out, sizeof out) == CMIOT_E_UNFILLED);
    CHECK(cmiot_account_init(&account, text(""), one, password) == CMIOT_E_APPID);
    CHECK(cmiot_account_init(&account, text("10 1"), one, password) == CMIOT_E_APPID);
    CHECK(cmiot_account_init(&account, text("1\xFF"), one, password) == CMIOT_E_APPID);
    CHECK(cmiot_account_init(&account, one, text("-"), password) == CMIOT_E_EBID);
    CHECK(cmiot_account_init(&account, one, one, text("")) == CMIOT_E_PASSWORD);
    CHECK(cmiot_account_init(&account, one, one, null) == CMIOT_E_NULL);
    CHECK(cmiot_account_init(&account, null, one, password) == CMIOT_E_NULL);
    CHECK(cmiot_account_init(NULL, one, one, password) == CMIOT_E_NULL);
    CHECK(cmiot_account_init(&account, text("100001"), one, password) == CMIOT_OK);
    CHECK(cmiot_account_init(&account, text("100001"), one, text("")) == CMIOT_E_PASSWORD);
    CHECK(cmiot_sign(&account, 1413444630, 1, card, out, sizeof out) == CMIOT_E_UNFILLED);
    CHECK(cmiot_account_init(&account, text("100001"), one, password) == CMIOT_OK);
    out[0] = 'x';

    const cmiot_card no_number = {CMIOT_MSISDN, null}, short_iccid = {CMIOT_ICCID, card.number}, no_kind = {3, card.number};
    CHECK(cmiot_sign(NULL, 1413444630, 1, card, out, sizeof out) == CMIOT_E_NULL);
    CHECK(cmiot_sign(&account, 1413444630, 1, no_number, out, sizeof out) == CMIOT_E_NULL);
    CHECK(cmiot_sign(&account, 1413444630, 1, card, NULL, sizeof out) == CMIOT_E_NULL);
    CHECK(cmiot_sign(&account, 1413444630, 1, card, out, 0) == CMIOT_E_BUFFER);
    CHECK(cmiot_sign(&account, 1413444630, 1, short_iccid, out, sizeof out) == CMIOT_E_CARD);
    CHECK(cmiot_sign(&account, 1413444630, 1, no_kind, out, sizeof out) == CMIOT_E_CARD);
    CHECK(cmiot_sign(&account, 1413444630, 0, card, out, sizeof out) == CMIOT_E_SEQUENCE);
    CHECK(cmiot_sign(&account, 1413444630, 100000000, card, out, sizeof out) == CMIOT_E_SEQUENCE);
    CHECK(cmiot_sign(&account, 0, 1, card, out, sizeof out) == CMIOT_E_CLOCK_UNSET);
    CHECK(cmiot_sign(&account, 1413444630000, 1, card, out, sizeof out) == CMIOT_E_CLOCK_LATE);
    CHECK(out[0] == 'x');

    CHECK(cmiot_reply_scan(NULL, (const uint8_t *)out, 1) == CMIOT_E_NULL);
    /* All zeros are no reply, and "0" is a normal card's status. */
    cmiot_reply reply = {{0}};
    CHECK(cmiot_reply_status(&reply) == CMIOT_E_UNFILLED && cmiot_reply_results(&reply) == CMIOT_E_UNFILLED);
    CHECK(cmiot_reply_code(&reply, out, sizeof out) == CMIOT_E_UNFILLED);
    CHECK(cmiot_reply_status_text(&reply, out, sizeof out) == CMIOT_E_UNFILLED);
    CHECK(cmiot_reply_message(&reply, out, sizeof out) == CMIOT_E_UNFILLED);
    CHECK(cmiot_reply_scan(&reply, NULL, 1) == CMIOT_E_NULL);
    CHECK(cmiot_reply_status(&reply) == CMIOT_E_NULL && cmiot_reply_status(NULL) == CMIOT_E_NULL);
    CHECK(cmiot_reply_code(&reply, NULL, 9) == CMIOT_E_NULL && cmiot_reply_code(NULL, out, 9) == CMIOT_E_NULL);
    CHECK(cmiot_reply_scan(&reply, (const uint8_t *)"<html>", 6) == CMIOT_E_NOT_JSON);
    CHECK(cmiot_reply_message(&reply, out, sizeof out) == CMIOT_E_NOT_JSON && out[0] == 'x');
    CHECK(cmiot_reply_results(&reply) == CMIOT_E_NOT_JSON);
}

/* A compression function in C, in place of hardware: FIPS 180-4, 6.2.2. Counts its calls. */
static unsigned compressions;

static uint32_t rotated(uint32_t x, unsigned by) { return x >> by | x << (32 - by); }

static void compress(uint32_t *state, uint32_t *w) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t v[8];
    compressions++;
    for (int i = 0; i < 8; i++)
        v[i] = state[i];
    for (int t = 0; t < 64; t++) {
        if (t >= 16) {
            uint32_t a = w[(t + 1) % 16], b = w[(t + 14) % 16];
            w[t % 16] += (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) + w[(t + 9) % 16] +
                         (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
        }
        uint32_t one = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) +
                       ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[t] + w[t % 16];
        uint32_t two = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) +
                       ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        for (int i = 7; i > 0; i--)
            v[i] = v[i - 1];
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

/* A query with the caller's compression function is the library's own. */
static void hardware(void) {
    static const cmiot_text appid = {"100001", 6}, ebid = {"0001000000009", 13}, password = {"example-password", 16};
    const cmiot_card card = {CMIOT_MSISDN, {"14765004176", 11}};
    char own[CMIOT_QUERY_SIZE], other[CMIOT_QUERY_SIZE];
    cmiot_account account = {{0}};
    CHECK(cmiot_account_compress(&account, compress) == CMIOT_E_UNFILLED);
    CHECK(cmiot_account_compress(NULL, compress) == CMIOT_E_NULL);
    CHECK(cmiot_account_init(&account, appid, ebid, password) == CMIOT_OK);
    int32_t len = cmiot_sign(&account, 1413444630, 80000001, card, own, sizeof own);
    CHECK(len > 0 && compressions == 0);
    CHECK(cmiot_account_compress(&account, compress) == CMIOT_OK);
    CHECK(cmiot_sign(&account, 1413444630, 80000001, card, other, sizeof other) == len);
    CHECK(compressions == 1 && same(own, other, (size_t)len));
    CHECK(cmiot_account_compress(&account, NULL) == CMIOT_OK);
    CHECK(cmiot_sign(&account, 1413444630, 80000001, card, other, sizeof other) == len);
    CHECK(compressions == 1 && same(own, other, (size_t)len));
}

int main(void) {
    vectors();
    hardware();
    replies();
    clocks_and_sequences();
    http();
    leases();
#ifdef V5
    v5_requests();
    v5_replies();
#endif
    misuse();
    if (failed_line != 0) {
        console_print("c tests: FAILED at line ");
        print_number(failed_line);
        console_print("\n");
        return 1;
    }
    console_print("c tests: ");
    print_number(checks);
    console_print(" checks passed\n");
    return 0;
}

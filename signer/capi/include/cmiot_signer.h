/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cmiot-signer for C: signs SIM-card lookups for China Mobile's IoT platform and reads the replies.
 *
 * No heap, no clock, no randomness, no I/O, no static data: the caller supplies them. Every function may be called from
 * any thread or interrupt, as long as its arguments do not change during the call.
 *
 * A negative result is one of CMIOT_E_...; 0 or more is success. An input text is a cmiot_text and needs no NUL; an
 * output text ends in a NUL, which counts in the capacity and not in the returned length. A pointer must be NULL (which
 * is an error) or point to an aligned object of its type.
 *
 * Generated from signer/capi/src. Do not edit: UPDATE_HEADER=1 cargo test -p cmiot-signer-capi --test header
 */

#ifndef CMIOT_SIGNER_H
#define CMIOT_SIGNER_H

#include <stddef.h>
#include <stdint.h>

/* This library's version: major x 65536 + minor x 256 + patch. */
#define CMIOT_SIGNER_VERSION 256

/* Success. */
#define CMIOT_OK 0

/* A pointer is NULL. */
#define CMIOT_E_NULL (-1)

/* The text and its NUL do not fit into the buffer; nothing was written. */
#define CMIOT_E_BUFFER (-2)

/* The struct was not filled by its function: cmiot_account_init, cmiot_http_begin, cmiot_lease_mount or
 * cmiot_reply_scan was not called, or failed; or the response is not complete yet. */
#define CMIOT_E_UNFILLED (-3)

/* The appid is not 1 to 26 of 0-9A-Za-z. */
#define CMIOT_E_APPID (-10)

/* The ebid is not 1 to 32 of 0-9A-Za-z. */
#define CMIOT_E_EBID (-11)

/* The password is not 1 to 256 bytes. */
#define CMIOT_E_PASSWORD (-12)

/* The token of API v5 is not 1 to 512 printable ASCII characters without blanks. */
#define CMIOT_E_TOKEN (-13)

/* The card's kind is unknown, or its number is invalid for that kind. */
#define CMIOT_E_CARD (-20)

/* The clock was never set: it reads a time before the year 2000. */
#define CMIOT_E_CLOCK_UNSET (-30)

/* The clock reads a time after the year 2099: milliseconds, perhaps. */
#define CMIOT_E_CLOCK_LATE (-31)

/* The date is not in the format of an HTTP Date header, or not of the years 2000 to 2099. */
#define CMIOT_E_DATE (-32)

/* The date may not set this clock: it is before the firmware's build or decades after it, or the step is too large. */
#define CMIOT_E_DATE_LIMITS (-33)

/* The sequence is not 1 to 99999999, or a node has more than 7 digits. */
#define CMIOT_E_SEQUENCE (-40)

/* One of the flash functions failed. cmiot_lease_mount: nothing could be read. */
#define CMIOT_E_FLASH (-41)

/* The flash's pages are too small, its write unit is not one of those listed, or a block is 0. */
#define CMIOT_E_FLASH_LAYOUT (-42)

/* Written bytes do not read back: call again; if that fails each time, the flash page is worn. */
#define CMIOT_E_FLASH_WORN (-43)

/* Four billion numbers were leased: erase both pages and restart. */
#define CMIOT_E_SEQUENCE_SPENT (-44)

/* The reply ends too early: read on, or retry. */
#define CMIOT_E_TRUNCATED (-50)

/* The reply is not valid JSON. */
#define CMIOT_E_MALFORMED (-51)

/* The reply is not JSON at all: a web page, perhaps. */
#define CMIOT_E_NOT_JSON (-52)

/* The reply is longer than 64 KiB. */
#define CMIOT_E_TOO_LONG (-53)

/* The reply is nested deeper than 16. */
#define CMIOT_E_TOO_DEEP (-54)

/* The reply has a duplicate key. */
#define CMIOT_E_DUPLICATE (-55)

/* The reply is JSON, but not the carrier's envelope. */
#define CMIOT_E_NOT_ENVELOPE (-56)

/* The carrier refused the lookup: see code and message. */
#define CMIOT_E_REFUSED (-60)

/* The carrier accepted the lookup, but sent no result. */
#define CMIOT_E_NO_RESULT (-61)

/* The result has no STATUS: it belongs to another operation. */
#define CMIOT_E_NO_STATUS (-62)

/* The token of API v5 is expired or unknown (12021): fetch one, and repeat the query once. */
#define CMIOT_E_TOKEN_EXPIRED (-63)

/* The result has no valid token of API v5. */
#define CMIOT_E_NO_TOKEN (-64)

/* The result has no text or number of this name. */
#define CMIOT_E_NO_FIELD (-65)

/* The host is not a name or address with an optional port, or the path does not begin with /. */
#define CMIOT_E_URL (-70)

/* The response is not valid HTTP/1: bytes were lost, or the modem put a message between them. */
#define CMIOT_E_HTTP (-71)

/* The response's head is longer than 8 KiB, or its body is longer than the buffer. */
#define CMIOT_E_HTTP_LONG (-72)

/* The connection was closed within the response. */
#define CMIOT_E_HTTP_CLOSED (-73)

/* The first line is not one of HTTP: the modem echoes the request (ATE0 ends that) or reports something (RING, CONNECT,
 * +CREG: switch its messages off), or host and port are wrong. */
#define CMIOT_E_NOT_HTTP (-74)

/* The response answers an earlier request, which was given up. */
#define CMIOT_E_OTHER_REQUEST (-75)

/* A STATUS that the carrier's page does not list: see cmiot_reply_status_text. */
#define CMIOT_STATUS_UNKNOWN 1000

/* A card identified by its telephone number: 1 to 13 digits. */
#define CMIOT_MSISDN 0

/* A card identified by its serial number: 20 of 0-9A-Fa-f. */
#define CMIOT_ICCID 1

/* A card identified by its subscriber identity: 1 to 15 digits. */
#define CMIOT_IMSI 2

/* Buffer size that is enough for every query with its NUL. */
#define CMIOT_QUERY_SIZE 226

/* A JSON body, for a POST of type application/json. */
#define CMIOT_V5_BODY 0

/* A query, for a GET. The URL then contains the password or the token. */
#define CMIOT_V5_QUERY 1

/* Buffer size that is enough for every token with its NUL. */
#define CMIOT_V5_TOKEN_SIZE 513

/* A status of the newer platform (CT) is this plus its digit: 2001 awaiting activation, 2002 active, 2004 barred,
 * 2006 testing, 2007 in stock, 2008 pre-cancelled, 2009 cancelled. */
#define CMIOT_V5_CT 2000

/* An account: appid, ebid and a pointer to the password. Its fields are private to the library. */
typedef struct cmiot_account {
  size_t words[19];
} cmiot_account;

/* A text of `len` bytes, which needs no NUL. */
typedef struct cmiot_text {
  /* The first byte. */
  const char *ptr;
  /* The number of bytes. */
  size_t len;
} cmiot_text;

/* SHA-256's compression function (FIPS 180-4, 6.2.2): replaces the eight words of `state` by the next ones. `block` has
 * the sixteen words of the message, each with its first byte in the most significant position, and may be overwritten.
 * All blocks of a token are passed in their order, and the first with the initial state: hardware that cannot load a
 * state can keep it. */
typedef void (*cmiot_compress)(uint32_t *state, uint32_t *block);

/* A card, identified by one of its numbers. */
typedef struct cmiot_card {
  /* CMIOT_MSISDN, CMIOT_ICCID or CMIOT_IMSI. */
  int32_t kind;
  /* The number. */
  struct cmiot_text number;
} cmiot_card;

/* The destination of lookups over HTTP. */
typedef struct cmiot_endpoint {
  /* The value of the Host header, the proxy's name or address and port: `192.168.1.10:8080`. */
  struct cmiot_text host;
  /* The path of the operation, such as `/v2/userstatusrealsingle`. */
  struct cmiot_text path;
  /* With 0 the connection carries one lookup; otherwise the request asks to keep it for further ones. */
  int32_t keep_alive;
} cmiot_endpoint;

/* Parser of an HTTP response. Its fields are private to the library. */
typedef struct cmiot_http {
  size_t words[40];
} cmiot_http;

/* A counter in flash. Its fields are private to the library. */
typedef struct cmiot_lease {
  size_t words[22];
} cmiot_lease;

/* The caller's flash: two pages that are used for nothing else, and three functions, which return 0 on success.
 *
 * Offsets count from the first page, which begins at 0; the second begins at `page_size`. */
typedef struct cmiot_flash {
  /* Passed to the functions unchanged. */
  void *context;
  /* Reads `len` bytes: always 8. Bytes that cannot be read, as after a power cut in a flash with error correction, are
   * a failure; they count as used. */
  int32_t (*read)(void *context, uint32_t offset, uint8_t *bytes, size_t len);
  /* Writes `len` bytes: 8, or `write_size` if that is more, at a multiple of `len`. */
  int32_t (*write)(void *context, uint32_t offset, const uint8_t *bytes, size_t len);
  /* Erases a page, to 0xFF, 0x00 or another value: the one at 0 or the one at `page_size`. */
  int32_t (*erase)(void *context, uint32_t offset);
  /* Bytes per page: one or more erase units, and at least 512 or 64 times `write_size`, whichever is more. */
  uint32_t page_size;
  /* Bytes per write unit: a power of two from 1 to 512. */
  uint32_t write_size;
} cmiot_flash;

/* A reply. Its fields are private to the library. */
typedef struct cmiot_reply {
  size_t words[18];
} cmiot_reply;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/* The version of the library that is linked. It should be CMIOT_SIGNER_VERSION, the version of this header. */
uint32_t cmiot_version(void);

/* Checks an account's credentials and stores them in `account`.
 *
 * The password is not copied: it must stay in its place, unchanged, as long as the account is used. A constant in
 * flash is suitable; the caller wipes a password in RAM. A password is any sequence of bytes. Nothing is trimmed: a
 * newline is part of it.
 *
 * Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_PASSWORD; then the account cannot be used. */
int32_t cmiot_account_init(struct cmiot_account *account,
                           struct cmiot_text appid,
                           struct cmiot_text ebid,
                           struct cmiot_text password);

/* Has this account's tokens computed by another compression function, such as the chip's hardware; with NULL, by the
 * library's own. cmiot_account_init sets the library's own.
 *
 * Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_UNFILLED. */
int32_t cmiot_account_compress(struct cmiot_account *account,
                               cmiot_compress compress);

/* Reads the value of an HTTP `Date` header, such as `Sun, 29 Nov 2026 10:00:00 GMT`, into seconds since 1970, UTC.
 * A device without a clock sends a lookup, which is refused for its stamp, and sets its clock from the refusal, if
 * cmiot_date_check permits.
 *
 * Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_DATE, CMIOT_E_CLOCK_LATE. */
int32_t cmiot_date_to_unix(struct cmiot_text date,
                           uint64_t *unix_seconds);

/* Whether `date`, from a response, may set a clock that reads `clock` (0 if it was never set). All times are seconds
 * since 1970, UTC; `built` is the time of the firmware's build, and `largest_step` a number of seconds (86400 if 0).
 *
 * A date before `built` or 20 years after it sets no clock. A clock that reads such a time cannot be right, and any
 * other date sets it; otherwise the step is limited. Plain HTTP protects no header: an attacker on the path can send
 * any date, and record lookups that are signed for that time.
 *
 * Returns CMIOT_OK, or CMIOT_E_DATE_LIMITS, or CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE for `date` or `built`. */
int32_t cmiot_date_check(uint64_t clock,
                         uint64_t date,
                         uint64_t built,
                         uint32_t largest_step);

/* Signs a lookup of a card, as cmiot_sign does, and writes it as a whole HTTP request: GET, Host, Connection.
 *
 * Returns the request's length, or CMIOT_E_URL, or a code of cmiot_sign; then nothing was written. */
int32_t cmiot_http_request(const struct cmiot_account *account,
                           uint64_t unix_seconds,
                           uint32_t sequence,
                           struct cmiot_card card,
                           const struct cmiot_endpoint *endpoint,
                           char *request,
                           size_t capacity);

/* Prepares to read the response to the request with this time and sequence, as passed to cmiot_http_request. The body
 * is written to `body`, which must stay in its place until it was read. Nothing is written yet.
 *
 * The proxy names the request in each response. cmiot_http_feed refuses the response to another request, which came
 * late; the carrier's responses name none. A sequence of 0 accepts the response to any request.
 *
 * Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE, CMIOT_E_SEQUENCE. */
int32_t cmiot_http_begin(struct cmiot_http *http,
                         uint64_t unix_seconds,
                         uint32_t sequence,
                         uint8_t *body,
                         size_t body_capacity);

/* Reads a piece of the response, of any size. The piece may be in the body's buffer, from its beginning on: each byte
 * is read before one is written to its place.
 *
 * Returns 1 when the response is complete, 0 when more is missing, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_HTTP,
 * CMIOT_E_NOT_HTTP, CMIOT_E_HTTP_LONG, CMIOT_E_OTHER_REQUEST; then every call returns the same until cmiot_http_begin
 * is called again. After any failure, a time-out included, the rest of the response may still come and must not be
 * taken for the next one's: hang up and dial again, or discard what comes until the line is silent. */
int32_t cmiot_http_feed(struct cmiot_http *http,
                        const uint8_t *piece,
                        size_t piece_len);

/* Reports that the connection was closed, which ends a response without a declared length.
 *
 * Returns 1 when the response is complete, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_HTTP_CLOSED, or the failure of
 * cmiot_http_feed. */
int32_t cmiot_http_close(struct cmiot_http *http);

/* The length of the body, once the response is complete.
 *
 * Returns it, or CMIOT_E_NULL, CMIOT_E_UNFILLED, or the failure of cmiot_http_feed. */
int32_t cmiot_http_body_len(const struct cmiot_http *http);

/* The response's HTTP status. Proxy and carrier send 200 even for a refusal.
 *
 * Returns it, 0 before it was read, or CMIOT_E_NULL, CMIOT_E_UNFILLED. */
int32_t cmiot_http_status(const struct cmiot_http *http);

/* Whether the response names the request of cmiot_http_begin, as the proxy's do. One that does not, after a request
 * without a response on the same connection, may answer that.
 *
 * Returns 1 if so, 0 if not, or CMIOT_E_NULL, CMIOT_E_UNFILLED. */
int32_t cmiot_http_named(const struct cmiot_http *http);

/* Whether the connection can carry another lookup after this response.
 *
 * Returns 1 if so, 0 if not, or CMIOT_E_NULL, CMIOT_E_UNFILLED. */
int32_t cmiot_http_reusable(const struct cmiot_http *http);

/* The server's clock in seconds since 1970, UTC, from the response's Date header: for a device without a clock. See
 * cmiot_date_check before it sets a clock.
 *
 * Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_UNFILLED, or CMIOT_E_DATE if there is none. */
int32_t cmiot_http_date(const struct cmiot_http *http,
                        uint64_t *unix_seconds);

/* Finds the highest number that was ever leased in the flash, and prepares to continue from it. Nothing is written
 * yet. Pages that were never used may contain anything. The page with the highest number is never erased.
 *
 * The numbers are those of the device's node, as in cmiot_sequence_next, and `block` of them are leased per write: a
 * power cut or a reset loses the rest of a block, and repeats none. A page is erased once per 128 blocks, so that the
 * two last for 128 x endurance x `block` numbers. `flash` is copied; its functions must stay valid.
 *
 * Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_SEQUENCE for the node, CMIOT_E_FLASH, CMIOT_E_FLASH_LAYOUT; then the lease
 * cannot be used. */
int32_t cmiot_lease_mount(struct cmiot_lease *lease,
                          const struct cmiot_flash *flash,
                          uint32_t node_digits,
                          uint32_t node,
                          uint32_t block);

/* The next number, for one lookup. It writes to the flash once per `block` numbers, before it returns the first.
 *
 * Returns the number, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_FLASH, CMIOT_E_FLASH_WORN, CMIOT_E_SEQUENCE_SPENT. */
int32_t cmiot_lease_next(struct cmiot_lease *lease);

/* Reads a reply: the whole body of one HTTP response, and nothing else.
 *
 * `body` must stay in its place, unchanged, until the last call of cmiot_reply_message.
 *
 * Returns CMIOT_OK for a reply with any code, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it; then the other
 * functions return the same. */
int32_t cmiot_reply_scan(struct cmiot_reply *reply,
                         const uint8_t *body,
                         size_t body_len);

/* The card's status: 0 normal, 1 one-way barred, 2 barred, 3 pre-cancelled, 4 cancelled, 5 transferred, 6 dormant,
 * 7 awaiting activation, 99 no such number, or CMIOT_STATUS_UNKNOWN.
 *
 * Returns it, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, or the failure
 * of cmiot_reply_scan. */
int32_t cmiot_reply_status(const struct cmiot_reply *reply);

/* The number of results. Only the first is read.
 *
 * Returns the number, or CMIOT_E_NULL, CMIOT_E_UNFILLED, or the failure of cmiot_reply_scan. */
int32_t cmiot_reply_results(const struct cmiot_reply *reply);

/* Writes the envelope code: "0", "10", "01016". 17 bytes are always enough.
 *
 * Returns its length, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER, or the failure of cmiot_reply_scan. */
int32_t cmiot_reply_code(const struct cmiot_reply *reply,
                         char *out,
                         size_t capacity);

/* Writes the card's STATUS as received: "00", or up to 16 bytes of an unknown one; empty if there is none.
 *
 * Returns its length, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER, or the failure of cmiot_reply_scan. */
int32_t cmiot_reply_status_text(const struct cmiot_reply *reply,
                                char *out,
                                size_t capacity);

/* Writes the envelope's message, decoded to UTF-8, as far as whole characters fit; empty if there is none.
 *
 * Returns the length written, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER when there is no room for the NUL, or
 * the failure of cmiot_reply_scan. */
int32_t cmiot_reply_message(const struct cmiot_reply *reply,
                            char *out,
                            size_t capacity);

/* Signs a lookup of a card and writes its query, `appid=...&transid=...&ebid=...&token=...&msisdn=...`.
 *
 * `unix_seconds` is the time in seconds since 1970, UTC; `sequence` (1 to 99999999) is a number that no device of the
 * appid has used in the same second: see cmiot_sequence_next.
 *
 * Returns the query's length, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER, CMIOT_E_CLOCK_UNSET,
 * CMIOT_E_CLOCK_LATE, CMIOT_E_SEQUENCE, CMIOT_E_CARD; then nothing was written. */
int32_t cmiot_sign(const struct cmiot_account *account,
                   uint64_t unix_seconds,
                   uint32_t sequence,
                   struct cmiot_card card,
                   char *query,
                   size_t capacity);

/* The number after `previous` within the device's node: the numbers that begin with `node`, written in `node_digits`
 * digits (0 to 7; 0 digits and node 0 mean all numbers). The first number follows the last one, and every `previous`
 * that does not belong to the node, such as 0.
 *
 * Devices that share an appid never collide if they have different nodes of the same width. Store `previous` over
 * resets, or begin at another number each time.
 *
 * Returns the number, or CMIOT_E_SEQUENCE. */
int32_t cmiot_sequence_next(uint32_t previous,
                            uint32_t node_digits,
                            uint32_t node);

/* Writes a request for a token, to be sent to /v5/ec/get/token. It contains the password: wipe `out` afterwards.
 *
 * `form` is CMIOT_V5_BODY or CMIOT_V5_QUERY. `renew` is 0; 1 asks a carrier for a new token that returned the one that
 * it has just refused. `unix_seconds` and `sequence` are those of cmiot_sign. The password is 1 to 256 printable ASCII
 * characters.
 *
 * Returns the length, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_PASSWORD, CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE,
 * CMIOT_E_SEQUENCE, CMIOT_E_BUFFER; then nothing was written. */
int32_t cmiot_v5_token_request(struct cmiot_text appid,
                               struct cmiot_text password,
                               uint64_t unix_seconds,
                               uint32_t sequence,
                               int32_t renew,
                               int32_t form,
                               char *out,
                               size_t capacity);

/* Reads the reply to a request for a token, and writes the token; CMIOT_V5_TOKEN_SIZE bytes are always enough. The token
 * is a secret. `renew_after`, unless it is NULL, gets the seconds after which to fetch the next one.
 *
 * Returns the token's length, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it, CMIOT_E_REFUSED (see
 * cmiot_reply_scan of the same body), CMIOT_E_TOKEN_EXPIRED, CMIOT_E_NO_RESULT, CMIOT_E_NO_TOKEN, CMIOT_E_BUFFER; then
 * nothing was written. */
int32_t cmiot_v5_token(const uint8_t *body,
                       size_t body_len,
                       char *token,
                       size_t capacity,
                       uint32_t *renew_after);

/* Writes a query about a card, to be sent to the path of its operation, such as /v5/ec/query/sim-status. It contains
 * the token.
 *
 * `appid` is that of the token, `form` CMIOT_V5_BODY or CMIOT_V5_QUERY; `unix_seconds` and `sequence` are those of
 * cmiot_sign.
 *
 * Returns the length, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_TOKEN, CMIOT_E_CARD, CMIOT_E_CLOCK_UNSET,
 * CMIOT_E_CLOCK_LATE, CMIOT_E_SEQUENCE, CMIOT_E_BUFFER; then nothing was written. */
int32_t cmiot_v5_query(struct cmiot_text appid,
                       struct cmiot_text token,
                       uint64_t unix_seconds,
                       uint32_t sequence,
                       struct cmiot_card card,
                       int32_t form,
                       char *out,
                       size_t capacity);

/* The card's status in the reply to /v5/ec/query/sim-status. Of the older platform (PB) it is a result of
 * cmiot_reply_status, 0 to 7 or 99; of the newer one (CT) it is CMIOT_V5_CT plus its digit. The two are never mixed: 2
 * is barred, and 2002 active. Any other value, and every JSON number, is CMIOT_STATUS_UNKNOWN: see cmiot_v5_field.
 *
 * Returns it, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it, CMIOT_E_TOKEN_EXPIRED (fetch a token, and repeat
 * the query once), CMIOT_E_REFUSED (see cmiot_reply_scan of the same body), CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS. */
int32_t cmiot_v5_status(const uint8_t *body,
                        size_t body_len);

/* The STATUS of API v2 with the same meaning as a result of cmiot_v5_status: 0 to 7 or 99. CMIOT_STATUS_UNKNOWN if there
 * is none, as for 2006 (testing) and 2007 (in stock); a failure is returned as it is. */
int32_t cmiot_v5_status_as_v2(int32_t status);

/* Writes the text or number that the first result of a reply has under a name, such as "dataAmount" or "cardStatus",
 * decoded to UTF-8, as far as whole characters fit.
 *
 * Returns the length written, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it, CMIOT_E_TOKEN_EXPIRED,
 * CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_FIELD, or CMIOT_E_BUFFER when there is no room for the NUL. */
int32_t cmiot_v5_field(const uint8_t *body,
                       size_t body_len,
                       struct cmiot_text name,
                       char *out,
                       size_t capacity);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* CMIOT_SIGNER_H */

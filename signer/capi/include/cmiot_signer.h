/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cmiot-signer for C: signs SIM-card look-ups for China Mobile's IoT platform and reads the answers.
 *
 * No heap, no clock, no randomness, no I/O, no static data: all of it is handed in. Every function may be called from
 * any thread or interrupt, as long as nobody writes to its arguments meanwhile.
 *
 * A result that is negative is one of CMIOT_E_...; 0 or more is success. Texts come as pointer and length and need no
 * NUL; texts that go out end in a NUL, which the capacity must have room for and the returned length does not count.
 * Pointers must be NULL (which is refused) or point to what their names say, properly aligned.
 *
 * Generated from signer/capi/src. Do not edit: UPDATE_HEADER=1 cargo test -p cmiot-signer-capi --test header
 */

#ifndef CMIOT_SIGNER_H
#define CMIOT_SIGNER_H

#include <stddef.h>
#include <stdint.h>

// It went well.
#define CMIOT_OK 0

// A pointer is NULL, or an account was never initialised.
#define CMIOT_E_NULL -1

// The text and its NUL do not fit into the buffer; nothing was written.
#define CMIOT_E_BUFFER -2

// The appid is not 1 to 26 of 0-9A-Za-z.
#define CMIOT_E_APPID -10

// The ebid is not 1 to 32 of 0-9A-Za-z.
#define CMIOT_E_EBID -11

// The password is not 1 to 256 bytes.
#define CMIOT_E_PASSWORD -12

// The card's kind is unknown, or its number is none of that kind.
#define CMIOT_E_CARD -20

// The clock was never set: it reads a time before the year 2000.
#define CMIOT_E_CLOCK_UNSET -30

// The clock reads a time after the year 2099: milliseconds, perhaps.
#define CMIOT_E_CLOCK_LATE -31

// The date is not in the format of an HTTP Date header, or not of the years 2000 to 2099.
#define CMIOT_E_DATE -32

// The sequence is not 1 to 99999999, or a node has more than 7 digits.
#define CMIOT_E_SEQUENCE -40

// One of the flash's functions failed.
#define CMIOT_E_FLASH -41

// The flash's pages are too small, its write unit is none of those listed, or a block is 0.
#define CMIOT_E_FLASH_LAYOUT -42

// What was written to the flash does not read back: the page is worn.
#define CMIOT_E_FLASH_WORN -43

// Four billion numbers were leased: erase both pages and start again.
#define CMIOT_E_SEQUENCE_SPENT -44

// The answer ends too early: read on, or ask again.
#define CMIOT_E_TRUNCATED -50

// The answer is broken JSON.
#define CMIOT_E_MALFORMED -51

// The answer is not JSON at all: a web page, perhaps.
#define CMIOT_E_NOT_JSON -52

// The answer is longer than 64 KiB.
#define CMIOT_E_TOO_LONG -53

// The answer is nested deeper than 16.
#define CMIOT_E_TOO_DEEP -54

// The answer says something twice.
#define CMIOT_E_DUPLICATE -55

// The answer is JSON, but not one of the carrier's.
#define CMIOT_E_NOT_ENVELOPE -56

// The carrier said no: see code and message.
#define CMIOT_E_REFUSED -60

// The carrier said yes, and gave no result.
#define CMIOT_E_NO_RESULT -61

// The result has no STATUS: it answers another operation.
#define CMIOT_E_NO_STATUS -62

// The host is not a name or address with an optional port, or the path does not begin with /.
#define CMIOT_E_URL -70

// The answer is not HTTP/1.
#define CMIOT_E_HTTP -71

// The answer's head is longer than 8 KiB, or its body than the buffer.
#define CMIOT_E_HTTP_LONG -72

// The connection was closed within the answer.
#define CMIOT_E_HTTP_CLOSED -73

// A STATUS that the carrier's page does not list: its text says which.
#define CMIOT_STATUS_UNKNOWN 1000

// A card named by its telephone number: 1 to 13 digits.
#define CMIOT_MSISDN 0

// A card named by its serial number: 20 of 0-9A-Fa-f.
#define CMIOT_ICCID 1

// A card named by its subscriber identity: 1 to 15 digits.
#define CMIOT_IMSI 2

// A buffer of this size takes any query with its NUL.
#define CMIOT_QUERY_SIZE 226

// An account: appid, ebid and a pointer to the password. Its fields are the library's own.
// All zeros is an account that was not initialised.
typedef struct cmiot_account {
  size_t words[18];
} cmiot_account;

// An HTTP answer as it comes in. Its fields are the library's own.
typedef struct cmiot_http {
  size_t words[32];
} cmiot_http;

// A counter that is kept in flash. Its fields are the library's own.
typedef struct cmiot_lease {
  size_t words[20];
} cmiot_lease;

// The caller's flash: two pages that nothing else uses, and three functions, which return 0 when it went well.
//
// Offsets count from the first page, which begins at 0; the second begins at `page_size`.
typedef struct cmiot_flash {
  // Handed to the functions as it is.
  void *context;
  // Reads `len` bytes: always 8.
  int32_t (*read)(void *context, uint32_t offset, uint8_t *bytes, size_t len);
  // Writes `len` bytes: 8, or `write_size` if that is more, at a multiple of as many.
  int32_t (*write)(void *context, uint32_t offset, const uint8_t *bytes, size_t len);
  // Erases a page, to 0xFF: the one at 0 or the one at `page_size`.
  int32_t (*erase)(void *context, uint32_t offset);
  // Bytes of a page: an erase unit or several, and 512, or 64 times `write_size` if that is more.
  uint32_t page_size;
  // Bytes that can only be written together: 1, 2, 4, 8, 16 or 32.
  uint32_t write_size;
} cmiot_flash;

// An answer that was read. Its fields are the library's own.
typedef struct cmiot_reply {
  size_t words[16];
} cmiot_reply;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Checks an account's credentials and puts them into `account`.
//
// The password is not copied: it must stay where it is, unchanged, as long as the account is used. A constant in
// flash is a good place; whoever keeps it in RAM wipes it. Nothing is trimmed: a newline is part of a password.
//
// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_PASSWORD.
int32_t cmiot_account_init(struct cmiot_account *account,
                           const char *appid,
                           size_t appid_len,
                           const char *ebid,
                           size_t ebid_len,
                           const uint8_t *password,
                           size_t password_len);

// Reads the value of an HTTP `Date` header, such as `Sun, 06 Nov 1994 08:49:37 GMT`, into seconds since 1970, UTC.
// A device without a clock asks, is refused for its stamp, and sets itself from the refusal.
//
// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_DATE, CMIOT_E_CLOCK_LATE.
int32_t cmiot_date_to_unix(const char *date,
                           size_t date_len,
                           uint64_t *unix_seconds);

// Signs a look-up of a card, as cmiot_sign does, and writes it as a whole HTTP request: GET, Host, Connection.
//
// `host` is the proxy's name or address and port as the Host header has it, `192.168.1.10:8080`; `path` begins with
// `/`. With `keep_alive` other than 0 the connection is meant for further look-ups.
//
// Returns the request's length, or CMIOT_E_URL, or what cmiot_sign does; then nothing was written.
int32_t cmiot_http_request(const struct cmiot_account *account,
                           uint64_t unix_seconds,
                           uint32_t sequence,
                           int32_t kind,
                           const char *card,
                           size_t card_len,
                           const char *host,
                           size_t host_len,
                           const char *path,
                           size_t path_len,
                           int32_t keep_alive,
                           char *request,
                           size_t capacity);

// Makes ready for an answer, whose body will go into `body`. The buffer must stay where it is until it was read.
//
// Returns CMIOT_OK or CMIOT_E_NULL.
int32_t cmiot_http_begin(struct cmiot_http *http,
                         uint8_t *body,
                         size_t body_capacity);

// Takes a piece of the answer, of any size.
//
// Returns 1 when the answer is complete, 0 when there is more to come, or CMIOT_E_NULL, CMIOT_E_HTTP,
// CMIOT_E_HTTP_LONG; then begin anew, on a new connection.
int32_t cmiot_http_feed(struct cmiot_http *http,
                        const uint8_t *piece,
                        size_t piece_len);

// Says that the connection was closed, which ends an answer without a stated length.
//
// Returns 1 when the answer is complete, or CMIOT_E_NULL, CMIOT_E_HTTP_CLOSED.
int32_t cmiot_http_close(struct cmiot_http *http);

// The length of the body, once the answer is complete.
//
// Returns it, or CMIOT_E_NULL.
int32_t cmiot_http_body_len(struct cmiot_http *http);

// The answer's HTTP status. Proxy and carrier answer 200 even when they refuse.
//
// Returns it, 0 before it came, or CMIOT_E_NULL.
int32_t cmiot_http_status(struct cmiot_http *http);

// Whether the connection can carry another look-up after this answer.
//
// Returns 1 if so, 0 if not, or CMIOT_E_NULL.
int32_t cmiot_http_reusable(struct cmiot_http *http);

// The server's clock in seconds since 1970, UTC, from the answer's Date header: for a device without a clock.
//
// Returns CMIOT_OK, or CMIOT_E_NULL, or CMIOT_E_DATE if it stated none.
int32_t cmiot_http_date(struct cmiot_http *http,
                        uint64_t *unix_seconds);

// Finds the highest number that was ever leased in the flash, and makes ready to count on from there. Nothing is
// written yet. Pages never used before may hold anything.
//
// Numbers are of the device's node, as in cmiot_sequence_next, and `block` of them are leased at a time: a power cut
// or a reset forfeits what is left of a block, and repeats none. A page is erased once in 128 blocks, so that the two
// last for 128 x endurance x `block` numbers. `flash` is copied; its functions must stay.
//
// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_SEQUENCE for the node, CMIOT_E_FLASH, CMIOT_E_FLASH_LAYOUT.
int32_t cmiot_lease_mount(struct cmiot_lease *lease,
                          const struct cmiot_flash *flash,
                          uint32_t node_digits,
                          uint32_t node,
                          uint32_t block);

// The next number, for one look-up. Every `block` numbers it writes to the flash, before it hands one out.
//
// Returns the number, or CMIOT_E_NULL, CMIOT_E_FLASH, CMIOT_E_FLASH_WORN, CMIOT_E_SEQUENCE_SPENT.
int32_t cmiot_lease_next(struct cmiot_lease *lease);

// Reads an answer: the whole body of one HTTP response, and nothing else.
//
// `body` must stay where it is, unchanged, until its message was asked for. On failure `reply` holds an answer
// without anything in it.
//
// Returns CMIOT_OK when it is an answer, whatever it says, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes below it.
int32_t cmiot_reply_scan(struct cmiot_reply *reply,
                         const uint8_t *body,
                         size_t body_len);

// The card's status: 0 normal, 1 one-way barred, 2 barred, 3 pre-cancelled, 4 cancelled, 5 transferred, 6 dormant,
// 7 awaiting activation, 99 no such number, or CMIOT_STATUS_UNKNOWN.
//
// Returns it, or CMIOT_E_NULL, CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, or what cmiot_reply_scan said.
int32_t cmiot_reply_status(const struct cmiot_reply *reply);

// How many results the answer has. Only the first is read.
//
// Returns the number, or CMIOT_E_NULL.
int32_t cmiot_reply_results(const struct cmiot_reply *reply);

// Writes the envelope's code: "0", "10", "01016". 17 bytes hold any.
//
// Returns its length, or CMIOT_E_NULL, CMIOT_E_BUFFER.
int32_t cmiot_reply_code(const struct cmiot_reply *reply, char *out, size_t capacity);

// Writes the card's STATUS as it came: "00", and up to 16 bytes of an unknown one; empty if there is none.
//
// Returns its length, or CMIOT_E_NULL, CMIOT_E_BUFFER.
int32_t cmiot_reply_status_text(const struct cmiot_reply *reply,
                                char *out,
                                size_t capacity);

// Writes the envelope's message, decoded to UTF-8, as far as whole characters fit; empty if there is none.
//
// Returns the length written, or CMIOT_E_NULL, CMIOT_E_BUFFER when there is no room for the NUL.
int32_t cmiot_reply_message(const struct cmiot_reply *reply,
                            char *out,
                            size_t capacity);

// Signs a look-up of a card and writes its query, `appid=...&transid=...&ebid=...&token=...&msisdn=...`.
//
// `unix_seconds` is the time in seconds since 1970, UTC; `sequence` (1 to 99999999) is a number not used in the same
// second before, by any device of the appid: see cmiot_sequence_next. `kind` is CMIOT_MSISDN, CMIOT_ICCID or
// CMIOT_IMSI.
//
// Returns the query's length, or CMIOT_E_NULL, CMIOT_E_BUFFER, CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE,
// CMIOT_E_SEQUENCE, CMIOT_E_CARD; then the query is empty.
int32_t cmiot_sign(const struct cmiot_account *account,
                   uint64_t unix_seconds,
                   uint32_t sequence,
                   int32_t kind,
                   const char *card,
                   size_t card_len,
                   char *query,
                   size_t capacity);

// The number after `previous` for a device with its own node: the numbers that begin with `node`, written in
// `node_digits` digits (0 to 7; with 0 and node 0, all numbers). After the last comes the first; a `previous` from
// elsewhere, such as 0, is followed by the first.
//
// Devices that share an appid and have different nodes of one width never collide. Keep `previous` over resets, or
// start somewhere else each time.
//
// Returns the number, or CMIOT_E_SEQUENCE.
int32_t cmiot_sequence_next(uint32_t previous,
                            uint32_t node_digits,
                            uint32_t node);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CMIOT_SIGNER_H */

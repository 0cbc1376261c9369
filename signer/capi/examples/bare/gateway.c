/* A gateway in C, on bare metal: signs a lookup, sends it through its UART, reads the response.
 *
 * It sets a wrong clock from the refusal's Date header, within limits, and retries a lookup without a response, with
 * longer and longer pauses; the sequence is leased and continues after a reset. A real firmware has its settings in
 * flash, and a running clock; here QEMU passes the settings, as NAME=VALUE words separated by blanks:
 *
 *   appid, ebid, password, msisdn, host
 *   clock     Unix seconds
 *   built     Unix seconds of the firmware's build, before which no Date sets the clock; default 2026-01-01
 *   node      the first digits of this device's sequences; default: none, all numbers
 *   lookups   the number of lookups, default 1; formerly look-ups
 *   timeout   the time to wait for a byte, in units of POLLS polls of the UART; formerly patience
 *   reset     1: reset once at the end, and repeat everything
 */
#include "cmiot_signer.h"
#include "startup.h"
#include "uart.h"

/* Attempts per lookup; default timeout, and polls of the UART per unit of it; the first and the longest pause after a
 * failure, and the silence before a request, in the same unit; numbers per lease. */
enum { ATTEMPTS = 8, TIMEOUT = 5000, POLLS = 4000, PAUSE = 1000, LONGEST_PAUSE = 32000, SILENCE = 20, BLOCK = 16 };

/* 2026-01-01. A real firmware takes the time of its build. */
#define BUILT 1767225600u

static size_t length(const char *text) {
    size_t len = 0;
    while (text[len] != '\0')
        len++;
    return len;
}

/* The value of a setting; empty if there is none. The first of equal names counts. */
static cmiot_text setting(const char *words, const char *name) {
    const size_t name_len = length(name);
    for (const char *word = words; *word != '\0';) {
        size_t len = 0, same = 0;
        while (word[len] != '\0' && word[len] != ' ')
            len++;
        while (same < name_len && word[same] == name[same])
            same++;
        if (same == name_len && word[same] == '=')
            return (cmiot_text){word + same + 1, len - same - 1};
        word += len + (word[len] == ' ');
    }
    return (cmiot_text){"", 0};
}

/* The value of a setting, or of its former name. */
static cmiot_text named(const char *words, const char *name, const char *former) {
    cmiot_text value = setting(words, name);
    return value.len > 0 ? value : setting(words, former);
}

static uint64_t number(cmiot_text digits) {
    uint64_t value = 0;
    for (size_t i = 0; i < digits.len; i++)
        value = value * 10 + (uint64_t)(digits.ptr[i] - '0');
    return value;
}

/* Storage in place of flash: the KiB of RAM that link.ld reserves, which survives a reset. */
extern uint8_t persistent[];
enum { PAGE = 512 };

static int32_t storage_read(void *unused, uint32_t offset, uint8_t *bytes, size_t len) {
    (void)unused;
    for (size_t i = 0; i < len; i++)
        bytes[i] = persistent[offset + i];
    return 0;
}

static int32_t storage_write(void *unused, uint32_t offset, const uint8_t *bytes, size_t len) {
    (void)unused;
    for (size_t i = 0; i < len; i++)
        persistent[offset + i] &= bytes[i];
    return 0;
}

static int32_t storage_erase(void *unused, uint32_t offset) {
    (void)unused;
    for (size_t i = 0; i < PAGE; i++)
        persistent[offset + i] = 0xFF;
    return 0;
}

static const cmiot_flash flash = {NULL, storage_read, storage_write, storage_erase, PAGE, 1};

struct gateway {
    const char *words;
    cmiot_account account;
    cmiot_lease lease;
    uint64_t clock, built;
    uint32_t timeout;
    /* Requests without a response on this connection. Their responses may still come, before that to the next one. */
    uint32_t unanswered;
};

/* Discards what comes until the line was silent for so long, but no more than four times as long: a late response must
 * not be taken for the next one's. Returns whether anything came. A firmware that can hang up does that instead, and
 * dials again. */
static bool discard(uint32_t silence) {
    bool any = false;
    for (uint32_t idle = 0, total = 0; idle / POLLS < silence && total / POLLS / 4 < silence; idle++, total++) {
        uint8_t byte;
        if (!uart_receive(&byte))
            continue;
        idle = 0;
        any = true;
    }
    return any;
}

/* The results of receive() other than 1, a complete response, and the codes of cmiot_http_feed. */
enum { SILENT = 0, CUT = 2 };

/* Reads one response from the UART. */
static int32_t receive_one(cmiot_http *http, uint32_t timeout) {
    int32_t nothing = SILENT;
    for (uint32_t idle = 0; idle / POLLS < timeout; idle++) {
        uint8_t byte;
        if (!uart_receive(&byte))
            continue;
        int32_t fed = cmiot_http_feed(http, &byte, 1);
        if (fed != 0)
            return fed;
        idle = 0;
        nothing = CUT;
    }
    return nothing;
}

/* Reads the response to the request of this time and sequence. One that names no request is another request's while
 * there are some without a response, since responses come in order: then it is discarded. If none follows it, the other
 * requests' are lost. */
static int32_t receive(cmiot_http *http, struct gateway *gateway, uint64_t now, uint32_t sequence, uint8_t *body,
                       size_t capacity) {
    const uint32_t before = gateway->unanswered;
    for (;;) {
        cmiot_http_begin(http, now, sequence, body, capacity);
        int32_t received = receive_one(http, gateway->timeout);
        if (received != 1) {
            gateway->unanswered = received == SILENT && gateway->unanswered == before ? before + 1 : 0;
            return received;
        }
        if (gateway->unanswered == 0 || cmiot_http_named(http) == 1) {
            gateway->unanswered = 0;
            return 1;
        }
        gateway->unanswered--;
        console_print("discarded the response to an earlier request\n");
    }
}

/* Prints why there is no response. */
static void print_loss(int32_t received) {
    console_print("no response");
    if (received == CMIOT_E_NOT_HTTP)
        console_print(": the first line is not HTTP: an echo (ATE0) or a message of the modem");
    else if (received == CMIOT_E_OTHER_REQUEST)
        console_print(": it answers an earlier request");
    else if (received < 0)
        console_print(": it is not valid");
    console_print("\n");
}

/* Prints `ask ` and the sequence's eight digits. */
static void print_ask(uint32_t sequence) {
    char line[] = "ask 00000000\n";
    for (int at = 11; at >= 4; at--) {
        line[at] = (char)('0' + sequence % 10);
        sequence /= 10;
    }
    console_print(line);
}

enum outcome { DONE, REFUSED, LOST, CLOCK_SET };

/* Sends one request and reads one response. */
static enum outcome attempt(struct gateway *gateway) {
    static const char path[] = "/v2/userstatusrealsingle";
    static char request[512], text[64];
    static uint8_t body[512];
    const cmiot_card card = {CMIOT_MSISDN, setting(gateway->words, "msisdn")};
    const cmiot_endpoint endpoint = {setting(gateway->words, "host"), {path, sizeof path - 1}, 1};
    int32_t sequence = cmiot_lease_next(&gateway->lease);
    /* Without a clock, any time is suitable: the refusal carries the time. 946656000 is the earliest. */
    uint64_t now = gateway->clock < 946656000 ? 946656000 : gateway->clock;
    if (sequence < 0)
        return REFUSED;
    int32_t len = cmiot_http_request(&gateway->account, now, (uint32_t)sequence, card, &endpoint, request,
                                     sizeof request);
    if (len < 0)
        return REFUSED;

    cmiot_http http;
    cmiot_reply reply;
    discard(SILENCE);
    print_ask((uint32_t)sequence);
    for (int32_t i = 0; i < len; i++)
        uart_send((uint8_t)request[i]);
    int32_t received = receive(&http, gateway, now, (uint32_t)sequence, body, sizeof body);
    if (received == 1 && cmiot_reply_scan(&reply, body, (size_t)cmiot_http_body_len(&http)) != CMIOT_OK)
        received = CMIOT_E_HTTP;
    if (received != 1) {
        print_loss(received);
        return LOST;
    }

    int32_t status = cmiot_reply_status(&reply);
    if (status >= 0) {
        cmiot_reply_status_text(&reply, text, sizeof text);
        console_print("lookup: ");
        console_print(text);
        console_print("\n");
        return DONE;
    }
    cmiot_reply_code(&reply, text, sizeof text);
    console_print("refused ");
    console_print(text);
    cmiot_reply_message(&reply, text, sizeof text);
    console_print(" ");
    console_print(text);
    console_print("\n");
    uint64_t date;
    if (status != CMIOT_E_REFUSED || cmiot_http_date(&http, &date) != CMIOT_OK ||
        (date < gateway->clock + 60 && gateway->clock < date + 60))
        return REFUSED;
    if (cmiot_date_check(gateway->clock, date, gateway->built, 0) != CMIOT_OK) {
        console_print("clock kept: the response's date is too far from it\n");
        return REFUSED;
    }
    gateway->clock = date;
    console_print("clock set\n");
    return CLOCK_SET;
}

/* Looks the card up. After a failure the next attempt waits, twice as long each time, until the line is silent. */
static enum outcome look_up(struct gateway *gateway) {
    uint32_t pause = PAUSE;
    enum outcome outcome = LOST;
    for (int i = 0; i < ATTEMPTS && (outcome == LOST || outcome == CLOCK_SET); i++) {
        outcome = attempt(gateway);
        if (outcome == LOST) {
            if (discard(pause > gateway->timeout ? pause : gateway->timeout) && gateway->unanswered > 0)
                gateway->unanswered--;
            pause = pause < LONGEST_PAUSE ? 2 * pause : pause;
        }
    }
    return outcome;
}

int main(void) {
    static char words[512];
    static struct gateway gateway;
    uart_start();
    if (!arguments(words, sizeof words))
        return 2;
    cmiot_text appid = setting(words, "appid"), ebid = setting(words, "ebid"), password = setting(words, "password"),
                node = setting(words, "node"), timeout = named(words, "timeout", "patience");
    if (cmiot_account_init(&gateway.account, appid, ebid, password) != CMIOT_OK ||
        cmiot_lease_mount(&gateway.lease, &flash, (uint32_t)node.len, (uint32_t)number(node), BLOCK) != CMIOT_OK)
        return 2;
    gateway.words = words;
    gateway.clock = number(setting(words, "clock"));
    cmiot_text built = setting(words, "built");
    gateway.built = built.len > 0 ? number(built) : BUILT;
    gateway.timeout = timeout.len > 0 ? (uint32_t)number(timeout) : TIMEOUT;

    uint64_t wanted = number(named(words, "lookups", "look-ups"));
    for (uint64_t done = 0; done < (wanted > 0 ? wanted : 1); done++) {
        if (look_up(&gateway) != DONE)
            return 1;
    }
    /* A number of the first block means that there was no reset yet. */
    if (number(setting(words, "reset")) == 1 && cmiot_lease_next(&gateway.lease) % 1000 < BLOCK) {
        console_print("reset\n");
        restart();
    }
    return 0;
}

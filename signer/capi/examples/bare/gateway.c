/* A gateway in C, on bare metal: signs a look-up, sends it through its UART, reads the answer.
 *
 * A clock that is wrong is set from the refusal's Date header; what did not come is asked for again; the sequence is
 * leased, and goes on after a reset. A firmware would have its settings in flash, and a clock that runs on; here QEMU
 * hands the settings in, as blanks-separated NAME=VALUE words:
 *
 *   appid, ebid, password, msisdn, host
 *   clock     Unix seconds
 *   node      this device's first digits of a sequence; without one all numbers are its own
 *   look-ups  how many, one if not said
 *   patience  how long an answer is waited for; one is as long as POLLS looks at the UART
 *   reset     1: reset once when done, and do it all again
 */
#include "cmiot_signer.h"
#include "startup.h"
#include "uart.h"

/* How often a look-up is tried, how long an answer is waited for, in so many looks at the UART each, and how many
 * numbers are leased at a time. */
enum { ATTEMPTS = 20, PATIENCE = 5000, POLLS = 4000, BLOCK = 16 };

struct span {
    const char *at;
    size_t len;
};

static size_t length(const char *text) {
    size_t len = 0;
    while (text[len] != '\0')
        len++;
    return len;
}

/* The value of a setting; empty if there is none. The first of a name counts. */
static struct span setting(const char *words, const char *name) {
    const size_t name_len = length(name);
    for (const char *word = words; *word != '\0';) {
        size_t len = 0, same = 0;
        while (word[len] != '\0' && word[len] != ' ')
            len++;
        while (same < name_len && word[same] == name[same])
            same++;
        if (same == name_len && word[same] == '=')
            return (struct span){word + same + 1, len - same - 1};
        word += len + (word[len] == ' ');
    }
    return (struct span){"", 0};
}

static uint64_t number(struct span digits) {
    uint64_t value = 0;
    for (size_t i = 0; i < digits.len; i++)
        value = value * 10 + (uint64_t)(digits.at[i] - '0');
    return value;
}

/* What stands in for flash: the KiB of RAM that link.ld keeps out of the way of the rest, which outlives a reset. */
extern uint8_t kept[];
enum { PAGE = 512 };

static int32_t kept_read(void *unused, uint32_t offset, uint8_t *bytes, size_t len) {
    (void)unused;
    for (size_t i = 0; i < len; i++)
        bytes[i] = kept[offset + i];
    return 0;
}

static int32_t kept_write(void *unused, uint32_t offset, const uint8_t *bytes, size_t len) {
    (void)unused;
    for (size_t i = 0; i < len; i++)
        kept[offset + i] &= bytes[i];
    return 0;
}

static int32_t kept_erase(void *unused, uint32_t offset) {
    (void)unused;
    for (size_t i = 0; i < PAGE; i++)
        kept[offset + i] = 0xFF;
    return 0;
}

static const cmiot_flash flash = {NULL, kept_read, kept_write, kept_erase, PAGE, 1};

struct gateway {
    const char *words;
    cmiot_account account;
    cmiot_lease lease;
    uint64_t clock;
    uint32_t patience;
};

/* Takes an answer from the UART. True if it came whole. */
static bool receive(cmiot_http *http, uint32_t patience) {
    for (uint32_t idle = 0; idle / POLLS < patience; idle++) {
        uint8_t byte;
        if (!uart_receive(&byte))
            continue;
        int32_t fed = cmiot_http_feed(http, &byte, 1);
        if (fed != 0)
            return fed == 1;
        idle = 0;
    }
    return false;
}

/* `ask ` and the sequence's eight digits. */
static void print_ask(uint32_t sequence) {
    char line[] = "ask 00000000\n";
    for (int at = 11; at >= 4; at--) {
        line[at] = (char)('0' + sequence % 10);
        sequence /= 10;
    }
    console_print(line);
}

enum outcome { DONE, REFUSED, AGAIN };

/* One request, one answer. */
static enum outcome attempt(struct gateway *gateway) {
    static const char path[] = "/v2/userstatusrealsingle";
    static char request[512], text[64];
    static uint8_t body[512];
    struct span card = setting(gateway->words, "msisdn"), host = setting(gateway->words, "host");
    int32_t sequence = cmiot_lease_next(&gateway->lease);
    /* Without a clock any time will do: the refusal says what time it is. 946656000 is the earliest. */
    uint64_t now = gateway->clock < 946656000 ? 946656000 : gateway->clock;
    if (sequence < 0)
        return REFUSED;
    int32_t len = cmiot_http_request(&gateway->account, now, (uint32_t)sequence, CMIOT_MSISDN, card.at, card.len,
                                     host.at, host.len, path, sizeof path - 1, 1, request, sizeof request);
    if (len < 0)
        return REFUSED;

    cmiot_http http;
    cmiot_reply reply;
    uint8_t stale;
    while (uart_receive(&stale)) {
    }
    cmiot_http_begin(&http, body, sizeof body);
    print_ask((uint32_t)sequence);
    for (int32_t i = 0; i < len; i++)
        uart_send((uint8_t)request[i]);
    if (!receive(&http, gateway->patience) ||
        cmiot_reply_scan(&reply, body, (size_t)cmiot_http_body_len(&http)) != CMIOT_OK) {
        console_print("no answer\n");
        return AGAIN;
    }

    int32_t status = cmiot_reply_status(&reply);
    if (status >= 0) {
        cmiot_reply_status_text(&reply, text, sizeof text);
        console_print("look-up: ");
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
    gateway->clock = date;
    console_print("clock set\n");
    return AGAIN;
}

int main(void) {
    static char words[512];
    static struct gateway gateway;
    uart_start();
    if (!arguments(words, sizeof words))
        return 2;
    struct span appid = setting(words, "appid"), ebid = setting(words, "ebid"), password = setting(words, "password"),
                node = setting(words, "node"), patience = setting(words, "patience");
    if (cmiot_account_init(&gateway.account, appid.at, appid.len, ebid.at, ebid.len, (const uint8_t *)password.at,
                           password.len) != CMIOT_OK ||
        cmiot_lease_mount(&gateway.lease, &flash, (uint32_t)node.len, (uint32_t)number(node), BLOCK) != CMIOT_OK)
        return 2;
    gateway.words = words;
    gateway.clock = number(setting(words, "clock"));
    gateway.patience = patience.len > 0 ? (uint32_t)number(patience) : PATIENCE;

    uint64_t wanted = number(setting(words, "look-ups"));
    for (uint64_t done = 0; done < (wanted > 0 ? wanted : 1); done++) {
        enum outcome outcome = AGAIN;
        for (int i = 0; i < ATTEMPTS && outcome == AGAIN; i++)
            outcome = attempt(&gateway);
        if (outcome != DONE)
            return 1;
    }
    /* A number of the first block: there was no reset yet. */
    if (number(setting(words, "reset")) == 1 && cmiot_lease_next(&gateway.lease) % 1000 < BLOCK) {
        console_print("reset\n");
        restart();
    }
    return 0;
}

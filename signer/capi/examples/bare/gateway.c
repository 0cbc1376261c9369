/* A gateway in C, on bare metal: signs a look-up, sends it through its UART, reads the answer.
 *
 * A clock that is wrong is set from the refusal's Date header; what did not come is asked for again. QEMU hands the
 * settings in, as blanks-separated NAME=VALUE words: appid, ebid, password, msisdn, host, clock (Unix seconds). A
 * firmware would have them in its flash, a clock that runs on, and a sequence that outlives a reset.
 */
#include "cmiot_signer.h"
#include "startup.h"
#include "uart.h"

/* How often a look-up is tried, and how often the UART is polled in vain before an answer counts as lost. */
enum { ATTEMPTS = 20, PATIENCE = 20 * 1000 * 1000 };

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

/* Takes an answer from the UART. True if it came whole. */
static bool receive(cmiot_http *http) {
    for (uint32_t idle = 0; idle < PATIENCE; idle++) {
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

int main(void) {
    static char words[512];
    cmiot_account account;
    uart_start();
    if (!arguments(words, sizeof words))
        return 2;
    struct span appid = setting(words, "appid"), ebid = setting(words, "ebid"), host = setting(words, "host"),
                password = setting(words, "password"), card = setting(words, "msisdn");
    if (cmiot_account_init(&account, appid.at, appid.len, ebid.at, ebid.len, (const uint8_t *)password.at,
                           password.len) != CMIOT_OK)
        return 2;

    uint64_t clock = number(setting(words, "clock"));
    int32_t sequence = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        static const char path[] = "/v2/userstatusrealsingle";
        static char request[512], text[64];
        static uint8_t body[512];
        /* Lane 8 of ten. */
        sequence = cmiot_sequence_next((uint32_t)sequence, 1, 8);
        /* Without a clock any time will do: the refusal says what time it is. 946656000 is the earliest. */
        int32_t len = cmiot_http_request(&account, clock < 946656000 ? 946656000 : clock, (uint32_t)sequence,
                                         CMIOT_MSISDN, card.at, card.len, host.at, host.len, path, sizeof path - 1, 1,
                                         request, sizeof request);
        if (len < 0)
            return 2;

        cmiot_http http;
        cmiot_reply reply;
        uint8_t stale;
        while (uart_receive(&stale)) {
        }
        cmiot_http_begin(&http, body, sizeof body);
        console_print("ask\n");
        for (int32_t i = 0; i < len; i++)
            uart_send((uint8_t)request[i]);
        if (!receive(&http) || cmiot_reply_scan(&reply, body, (size_t)cmiot_http_body_len(&http)) != CMIOT_OK) {
            console_print("no answer\n");
            continue;
        }

        int32_t status = cmiot_reply_status(&reply);
        if (status >= 0) {
            cmiot_reply_status_text(&reply, text, sizeof text);
            console_print("status ");
            console_print(text);
            console_print("\n");
            return 0;
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
            (date < clock + 60 && clock < date + 60))
            return 1;
        clock = date;
        console_print("clock set\n");
    }
    return 1;
}

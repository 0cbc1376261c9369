/* examples/bare/gateway.c on a host, with a UART that receives nothing. Time is the number of its polls. Prints each pause
 * between a failure and the next request, in the example's unit, one per line. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the place of uart.h and startup.h. */
#define UART_H
#define STARTUP_H

static uint64_t polls, failed;

static void uart_start(void) {
}

static void uart_send(uint8_t byte) {
    (void)byte;
}

static bool uart_receive(uint8_t *byte) {
    (void)byte;
    polls++;
    return false;
}

static void console_print(const char *text);

static bool arguments(char *out, size_t capacity) {
    static const char words[] = "appid=100001 ebid=0001000000009 password=example-password msisdn=14765004176 "
                                "host=192.168.1.10:8080 clock=1795946400 timeout=1";
    if (capacity < sizeof words)
        return false;
    memcpy(out, words, sizeof words);
    return true;
}

static void restart(void) {
    exit(3);
}

#define main gateway_main
#include "../../examples/bare/gateway.c"
#undef main

uint8_t persistent[1024];

static void console_print(const char *text) {
    if (strncmp(text, "no response", 11) == 0)
        failed = polls;
    else if (strncmp(text, "ask ", 4) == 0 && failed > 0)
        printf("%u\n", (unsigned)((polls - failed) / POLLS - SILENCE));
}

int main(void) {
    memset(persistent, 0xFF, sizeof persistent);
    /* No attempt has a response: the gateway gives up. */
    return gateway_main() == 1 ? 0 : 1;
}

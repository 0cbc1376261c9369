/* The UART of a modem in transparent mode, polled: ARM PL011 at UART0 of a Stellaris LM3S6965. */
#ifndef UART_H
#define UART_H

#include <stdbool.h>
#include <stdint.h>

#define UART_DATA (*(volatile uint32_t *)0x4000C000u)
#define UART_FLAGS (*(volatile uint32_t *)0x4000C018u)
#define UART_LINE_CONTROL (*(volatile uint32_t *)0x4000C02Cu)
#define UART_CONTROL (*(volatile uint32_t *)0x4000C030u)

/* FIFOs on; UART, sender and receiver on. */
static inline void uart_start(void) {
    UART_LINE_CONTROL = 1u << 4;
    UART_CONTROL = 1u | 1u << 8 | 1u << 9;
}

static inline void uart_send(uint8_t byte) {
    while (UART_FLAGS & 1u << 5) {
    }
    UART_DATA = byte;
}

/* Returns whether a byte was received, and the byte. */
static inline bool uart_receive(uint8_t *byte) {
    if (UART_FLAGS & 1u << 4)
        return false;
    *byte = (uint8_t)UART_DATA;
    return true;
}

#endif

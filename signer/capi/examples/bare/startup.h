/* Functions of startup.c: console, QEMU's arguments, exit. */
#ifndef STARTUP_H
#define STARTUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes a text to the host's console. */
void console_print(const char *text);

/* Copies QEMU's `-semihosting-config arg=...` values, separated by blanks. False if they do not fit. */
bool arguments(char *out, size_t capacity);

/* Ends QEMU with this exit code. */
_Noreturn void leave(uint32_t code);

/* Resets the chip; RAM that startup.c does not set stays unchanged. */
_Noreturn void restart(void);

#endif

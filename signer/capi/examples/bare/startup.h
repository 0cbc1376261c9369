/* What startup.c offers to a main: a console, the arguments QEMU was given, and the way out. */
#ifndef STARTUP_H
#define STARTUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes a text to the host's console. */
void console_print(const char *text);

/* Copies QEMU's `-semihosting-config arg=...` values, a blank between each. False if they do not fit. */
bool arguments(char *out, size_t capacity);

/* Ends QEMU with this exit code. */
_Noreturn void leave(uint32_t code);

/* Resets the chip; RAM keeps what startup.c does not set. */
_Noreturn void restart(void);

#endif

/* Startup code for any Cortex-M: vector table, RAM, and semihosting with the exit from QEMU. */
#include "startup.h"

#include <stddef.h>

int main(void);

extern uint32_t data_begin[], data_end[], data_load[], bss_begin[], bss_end[], stack_top[];

/* A semihosting call: a breakpoint that the debugger, here QEMU, handles as a request. */
static uintptr_t semihosting(uintptr_t operation, const void *argument) {
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void console_print(const char *text) { semihosting(0x04 /* SYS_WRITE0 */, text); }

_Noreturn void leave(uint32_t code) {
    const uint32_t block[2] = {0x20026 /* ADP_Stopped_ApplicationExit */, code};
    for (;;)
        semihosting(0x20 /* SYS_EXIT_EXTENDED */, block);
}

_Noreturn void restart(void) {
    volatile uint32_t *const application_interrupt_and_reset_control = (volatile uint32_t *)0xE000ED0Cu;
    *application_interrupt_and_reset_control = 0x05FA0004; /* VECTKEY, SYSRESETREQ */
    for (;;) {
    }
}

bool arguments(char *out, size_t capacity) {
    struct {
        char *buffer;
        size_t size;
    } block = {out, capacity};
    return semihosting(0x15 /* SYS_GET_CMDLINE */, &block) == 0;
}

_Noreturn void reset(void) {
    for (size_t i = 0; data_begin + i < data_end; i++)
        data_begin[i] = data_load[i];
    for (uint32_t *word = bss_begin; word < bss_end; word++)
        *word = 0;
    leave((uint32_t)main());
}

static void fault(void) {
    console_print("fault\n");
    leave(102);
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)stack_top, (uintptr_t)reset, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault,
    (uintptr_t)fault,     (uintptr_t)fault,
};

/* Startup code for any Cortex-M, and for RV32IMC: entry, RAM, and semihosting with the exit from QEMU. */
#include "startup.h"

#include <stddef.h>

int main(void);

extern uint32_t data_begin[], data_end[], data_load[], bss_begin[], bss_end[], stack_top[];

/* A semihosting call: the debugger, here QEMU, handles a breakpoint as a request. */
static uintptr_t semihosting(uintptr_t operation, const void *argument) {
#if defined(__riscv)
    register uintptr_t result __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    /* The three instructions have 32 bits each and are in one page ("RISC-V Semihosting"). */
    __asm__ volatile(".option push\n .option norvc\n .balign 16\n"
                     " slli zero, zero, 0x1f\n ebreak\n srai zero, zero, 7\n .option pop"
                     : "+r"(result)
                     : "r"(a1)
                     : "memory");
#else
    register uintptr_t result __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(result) : "r"(r1) : "memory");
#endif
    return result;
}

void console_print(const char *text) { semihosting(0x04 /* SYS_WRITE0 */, text); }

_Noreturn void leave(uint32_t code) {
    const uint32_t block[2] = {0x20026 /* ADP_Stopped_ApplicationExit */, code};
    for (;;)
        semihosting(0x20 /* SYS_EXIT_EXTENDED */, block);
}

_Noreturn void restart(void) {
#if defined(__riscv)
    *(volatile uint32_t *)0x100000u = 0x7777; /* QEMU's test device: reset */
#else
    volatile uint32_t *const application_interrupt_and_reset_control = (volatile uint32_t *)0xE000ED0Cu;
    *application_interrupt_and_reset_control = 0x05FA0004; /* VECTKEY, SYSRESETREQ */
#endif
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

#if defined(__riscv)

/* mtvec keeps its mode in the two lowest bits. */
__attribute__((aligned(4), used)) static void fault(void) {
    console_print("fault\n");
    leave(102);
}

__attribute__((naked, section(".vectors"), used)) void start_riscv(void) {
    __asm__ volatile("la sp, stack_top\n la t0, fault\n csrw mtvec, t0\n j reset");
}

#else

static void fault(void) {
    console_print("fault\n");
    leave(102);
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)stack_top, (uintptr_t)reset, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault,
    (uintptr_t)fault,     (uintptr_t)fault,
};

#endif

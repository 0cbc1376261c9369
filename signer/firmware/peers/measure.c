/* src/measure.rs in C, with the same painting, counters and loop of known length. */
#include "job.h"
#include "startup.h"

#include <stdint.h>

enum { RUNS = 1000, PAINTED = 4 * 1024, OWN_FRAME = 64 };
#define PAINT 0xDEADBEEFu

__attribute__((noinline)) static bool nothing(void) {
    __asm__ volatile("");
    return true;
}

__attribute__((noinline)) static uint32_t stack(bool (*volatile run)(void)) {
    uint32_t *here;
#if defined(__riscv)
    __asm__ volatile("mv %0, sp" : "=r"(here));
#else
    __asm__ volatile("mov %0, sp" : "=r"(here));
#endif
    volatile uint32_t *low = here - PAINTED / 4, *high = here - OWN_FRAME / 4;
    for (volatile uint32_t *word = low; word < high; word++)
        *word = PAINT;
    run();
    while (low < high && *low == PAINT)
        low++;
    return (uint32_t)((uintptr_t)here - (uintptr_t)low);
}

#if defined(__riscv)

/* The register minstret, which QEMU counts exactly under -icount. */
static uint32_t counted(bool (*volatile run)(void)) {
    uint32_t start, end;
    __asm__ volatile("csrr %0, minstret" : "=r"(start));
    for (int i = 0; i < RUNS; i++)
        run();
    __asm__ volatile("csrr %0, minstret" : "=r"(end));
    return end - start;
}

static uint32_t instructions(bool (*run)(void)) { return (counted(run) - counted(nothing) + RUNS / 2) / RUNS; }

#else

enum { TURNS = 5000, KNOWN = 2 * TURNS + 1 };
#define LONGEST 0xFFFFFFu
#define SYSTICK ((volatile uint32_t *)0xE000E010u)

__attribute__((noinline)) static bool known_loop(void) {
    uint32_t turns = TURNS;
    __asm__ volatile(".syntax unified\n2: subs %0, %0, #1\n bne 2b" : "+l"(turns) : : "cc");
    return true;
}

static uint32_t ticks(bool (*volatile run)(void)) {
    SYSTICK[1] = LONGEST;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    uint32_t start = SYSTICK[2];
    for (int i = 0; i < RUNS; i++)
        run();
    uint32_t end = SYSTICK[2];
    SYSTICK[0] = 4;
    return (start - end) & LONGEST;
}

static uint32_t instructions(bool (*run)(void)) {
    uint32_t none = ticks(nothing), known = ticks(known_loop) - none;
    return (uint32_t)((uint64_t)(ticks(run) - none) * KNOWN / known);
}

#endif

static void print_number(uint32_t number) {
    char digits[11];
    char *at = digits + sizeof digits - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    console_print(at);
}

int main(void) {
    if (!job()) {
        console_print("the job failed\n");
        return 1;
    }
    uint32_t used = stack(job);
    uint32_t count = instructions(job);
    console_print("sign ");
    print_number(used);
    console_print(" ");
    print_number(count);
    console_print("\n");
    return 0;
}

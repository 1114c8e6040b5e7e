/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Panic: the first processor to get here reports, all others stop. Takes no locks: the console is
 * told so first. A panic while panicking ends at once.
 */
#include "kernel/panic.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/backtrace.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "arch/x86_64/smp.h"
#include "kernel/drivers/console.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"

static bool active;          /* atomic; set once by the reporting processor */
static struct cpu *reporter; /* written by it before it reports */
static bool reboot;          /* panic=reboot; set at boot */

bool panic_active(void)
{
    return __atomic_load_n(&active, __ATOMIC_ACQUIRE);
}

void panic_park(void)
{
    for (;;) {
        irq_disable();
        cpu_halt();
    }
}

void panic_configure(const char *cmdline)
{
    char word[16];

    if (!parse_option(cmdline, "panic", word, sizeof(word))) {
        return;
    }
    if (str_equal(word, "reboot")) {
        reboot = true;
    } else if (!str_equal(word, "halt")) {
        log_error("command line: panic=%s: accepted: halt, reboot", word);
    }
}

/* Become the one processor that reports, or never return. */
static void begin(void)
{
    irq_disable();
    if (__atomic_exchange_n(&active, true, __ATOMIC_ACQ_REL)) {
        if (reporter == this_cpu()) {
            static const char text[] = "\npanic while panicking; halted\n";

            console_write(text, sizeof(text) - 1);
        }
        panic_park();
    }
    reporter = this_cpu();
    console_panic_mode();
    smp_stop_others();
}

static void end(void) __noreturn;
static void end(void)
{
    if (reboot) {
        log_error("panic=reboot: resetting the machine");
        acpi_reset();
    }
    log_error("halted; the log is kept for the next start");
    panic_park();
}

static void log_reason(const char *fmt, va_list ap)
{
    char text[512];

    vsnprintf(text, sizeof(text), fmt, ap);
    log_error("PANIC on cpu %u: %s", reporter != NULL ? reporter->id : 0, text);
}

static void log_registers(const struct trap_frame *f)
{
    static const struct {
        const char *name;
        size_t offset;
    } regs[] = {
#define REG(r) {#r, offsetof(struct trap_frame, r)}
        REG(rax), REG(rbx), REG(rcx), REG(rdx), REG(rsi), REG(rdi), REG(rbp), REG(rsp),
        REG(r8),  REG(r9),  REG(r10), REG(r11), REG(r12), REG(r13), REG(r14), REG(r15),
#undef REG
    };

    log_error("vector %llu error 0x%llx rip %04llx:%016llx rflags 0x%llx",
              (unsigned long long)f->vector, (unsigned long long)f->error,
              (unsigned long long)f->cs, (unsigned long long)f->rip, (unsigned long long)f->rflags);
    for (size_t i = 0; i < ARRAY_SIZE(regs); i += 4) {
        char line[128];
        size_t n = 0;

        for (size_t k = i; k < i + 4; k++) {
            uint64_t v = *(const uint64_t *)((const char *)f + regs[k].offset);

            n += scnprintf(line + n, sizeof(line) - n, "%s%s %016llx", k == i ? "" : "  ",
                           regs[k].name, (unsigned long long)v);
        }
        log_error("%s", line);
    }
    log_error("cr0 %llx  cr2 %llx  cr3 %llx  cr4 %llx", (unsigned long long)read_cr0(),
              (unsigned long long)read_cr2(), (unsigned long long)read_cr3(),
              (unsigned long long)read_cr4());
}

void panic(const char *fmt, ...)
{
    va_list ap;

    begin();
    va_start(ap, fmt);
    log_reason(fmt, ap);
    va_end(ap);
    backtrace_log((uint64_t)__builtin_frame_address(0));
    end();
}

void panic_trap(const struct trap_frame *frame, const char *fmt, ...)
{
    va_list ap;

    begin();
    va_start(ap, fmt);
    log_reason(fmt, ap);
    va_end(ap);
    log_registers(frame);
    backtrace_log_trap(frame->rip, frame->rsp, frame->rbp);
    end();
}

void panic_unusable(const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_error("%s", text);
    log_error("Ballast cannot run on this machine as it is; halted");
    begin();
    panic_park();
}

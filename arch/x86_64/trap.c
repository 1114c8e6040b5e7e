/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exception dispatch. Runs with interrupts off on the interrupted stack, or on the IST stack for
 * NMI, double fault and machine check; takes no locks on the way to a report.
 */
#include "arch/x86_64/trap.h"

#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "arch/x86_64/mce.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/log.h"
#include "kernel/panic.h"

struct extable_entry {
    uint64_t from, to;
};
extern const struct extable_entry __extable_start[], __extable_end[];

static const char *const names[32] = {
    [EXC_DE] = "divide error",
    [EXC_DB] = "debug",
    [EXC_NMI] = "non-maskable interrupt",
    [EXC_BP] = "breakpoint",
    [EXC_OF] = "overflow",
    [EXC_BR] = "bound range",
    [EXC_UD] = "invalid opcode",
    [EXC_NM] = "device not available",
    [EXC_DF] = "double fault",
    [EXC_TS] = "invalid TSS",
    [EXC_NP] = "segment not present",
    [EXC_SS] = "stack segment",
    [EXC_GP] = "general protection",
    [EXC_PF] = "page fault",
    [EXC_MF] = "x87 floating point",
    [EXC_AC] = "alignment check",
    [EXC_MC] = "machine check",
    [EXC_XM] = "SIMD floating point",
    [EXC_VE] = "virtualisation exception",
    [EXC_CP] = "control protection",
};

const char *trap_name(uint64_t vector)
{
    return vector < 32 && names[vector] != NULL ? names[vector] : "unknown exception";
}

static bool fix_up(struct trap_frame *frame)
{
    for (const struct extable_entry *e = __extable_start; e < __extable_end; e++) {
        if (e->from == frame->rip) {
            frame->rip = e->to;
            return true;
        }
    }
    return false;
}

bool trap_read64(uint64_t va, uint64_t *out)
{
    uint64_t v = 0;
    uint32_t ok = 0;

    __asm__ volatile("1: movq (%2), %0\n"
                     "movl $1, %1\n"
                     "2:\n" EXTABLE("1b", "2b")
                     : "+r"(v), "+r"(ok)
                     : "r"(va)
                     : "memory");
    *out = v;
    return ok != 0;
}

static void report_page_fault(const struct trap_frame *frame, uint64_t address)
{
    uint64_t e = frame->error;

    if (hostmap_is_guard(address)) {
        panic_trap(frame, "stack overflow: %s hit the guard page at 0x%llx",
                   frame->vector == EXC_DF ? "a push" : "an access", (unsigned long long)address);
    }
    if (frame->vector == EXC_DF) {
        panic_trap(frame, "double fault (last page fault at 0x%llx)", (unsigned long long)address);
    }
    panic_trap(frame, "page fault: %s of %s address 0x%llx%s",
               (e & PFEC_I) != 0   ? "execution"
               : (e & PFEC_W) != 0 ? "write"
                                   : "read",
               (e & PFEC_P) != 0 ? "protected" : "unmapped", (unsigned long long)address,
               (e & PFEC_RSVD) != 0 ? " (reserved bit set in a table)" : "");
}

/* "NMI Status and Control Register": ports 61H (causes) and 70H are all that a PC says. */
static void take_nmi(const struct trap_frame *frame)
{
    this_cpu()->nr_nmis++;
    if (panic_active()) {
        panic_park();
    }
    uint8_t cause = inb(0x61);
    if ((cause & 0xc0) != 0) {
        panic_trap(frame, "NMI: %s",
                   (cause & 0x80) != 0 ? "memory or system error (SERR)" : "I/O channel check");
    }
    log_warn("cpu %u: NMI without a known cause", this_cpu()->id);
}

void trap_dispatch(struct trap_frame *frame)
{
    if (frame->vector >= 32) {
        irq_dispatch(frame);
        return;
    }
    switch (frame->vector) {
    case EXC_NMI:
        take_nmi(frame);
        return;
    case EXC_MC:
        mce_handle(frame);
        return;
    case EXC_DF:
        report_page_fault(frame, read_cr2());
        return;
    case EXC_PF:
        if (!fix_up(frame)) {
            report_page_fault(frame, read_cr2());
        }
        return;
    default:
        if (!fix_up(frame)) {
            panic_trap(frame, "%s (error code 0x%llx)", trap_name(frame->vector),
                       (unsigned long long)frame->error);
        }
        return;
    }
}

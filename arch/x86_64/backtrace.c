/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Backtraces. A chain is followed as long as it climbs inside one stack; everything else ends it,
 * so that a damaged stack cannot send the reporter astray.
 */
#include "arch/x86_64/backtrace.h"

#include "arch/x86_64/percpu.h"
#include "arch/x86_64/trap.h"
#include "kernel/lib/symbols.h"
#include "kernel/log.h"

#define MAX_FRAMES 32

static void log_address(uint64_t address, uint64_t lookup)
{
    uint64_t offset;
    char name[SYMBOL_NAME_BYTES];

    if (symbols_lookup(lookup, name, &offset)) {
        log_error("  %016llx %s+0x%llx", (unsigned long long)address, name,
                  (unsigned long long)(offset + (address - lookup)));
    } else {
        log_error("  %016llx", (unsigned long long)address);
    }
}

static void log_callers(uint64_t rbp)
{
    uint64_t stack = rbp & ~(STACK_SIZE - 1);

    for (unsigned i = 0; i < MAX_FRAMES; i++) {
        uint64_t next, ret;

        if (rbp == 0 || !IS_ALIGNED(rbp, 8) || rbp > stack + STACK_SIZE - 16) {
            return;
        }
        if (!trap_read64(rbp, &next) || !trap_read64(rbp + 8, &ret) || ret == 0) {
            return;
        }
        /* A call may be its function's last instruction: look up the call, not what follows. */
        log_address(ret, ret - 1);
        if (next <= rbp) {
            return;
        }
        rbp = next;
    }
}

void backtrace_log(uint64_t rbp)
{
    log_error("backtrace:");
    log_callers(rbp);
}

void backtrace_log_trap(uint64_t rip, uint64_t rsp, uint64_t rbp)
{
    uint64_t offset, ret;
    char name[SYMBOL_NAME_BYTES];

    log_error("backtrace:");
    log_address(rip, rip);
    if (!symbols_lookup(rip, name, &offset) && IS_ALIGNED(rsp, 8) && trap_read64(rsp, &ret) &&
        symbols_lookup(ret, name, &offset)) {
        log_address(ret, ret - 1);
    }
    log_callers(rbp);
}

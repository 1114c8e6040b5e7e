/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The periodic audit of debug builds (make DEBUG=1): frames, pages and references of the whole machine
 * are recounted every few seconds, and a disagreement, which the audit has logged, is a panic. The same
 * as the shell's `audit`. Caller: kernel/startup.c.
 */
#include "kernel/vm/selfaudit.h"

#ifdef BALLAST_DEBUG

#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/vm.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/share/share.h"

#define PERIOD_NS 5000000000u

static bool audit_vm(struct vm *vm, void *arg)
{
    bool *good = arg;

    *good = vm_audit(vm) && *good;
    return true;
}

static void selfaudit_main(void *unused)
{
    (void)unused;
    for (;;) {
        struct share_recount count;
        bool good = mm_audit();

        vm_for_each(audit_vm, &good);
        good = share_audit(&count) && good;
        if (!good) {
            panic("audit: memory is not accounted for");
        }
        thread_sleep_ns(PERIOD_NS);
    }
}

void selfaudit_start(void)
{
    struct thread *t;

    if (thread_create("audit", selfaudit_main, NULL, WEIGHT_NORMAL, OWNER_HOST, &t) == HV_OK) {
        thread_start(t);
    } else {
        log_error("audit: no memory for its thread");
    }
}

#else

void selfaudit_start(void)
{
}

#endif

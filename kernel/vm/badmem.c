/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine-check handler may not take a lock and cannot wake anybody, so a thread of its own looks
 * at what the handler noted, once a second. Between the machine check and that look the owner may
 * have read the frame: then the processor reports it again, and as consumed.
 */
#include "kernel/vm/badmem.h"

#include "arch/x86_64/mce.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"

#define LOOK_NS 1000000000u

struct loss {
    hpa_t at;
    struct buddy_holder holder;
};

static bool stop_owner(struct vm *vm, void *arg)
{
    const struct loss *loss = arg;

    if (vm->id != loss->holder.owner) {
        return true;
    }
    if (loss->holder.use == FRAME_GUEST) {
        vm_stop_request(
            vm, STOP_ERROR, 0, "machine memory at 0x%llx is bad: guest page 0x%llx lost",
            (unsigned long long)loss->at.a, (unsigned long long)gfn_gpa(loss->holder.gfn).a);
    } else {
        vm_stop_request(vm, STOP_ERROR, 0,
                        "machine memory at 0x%llx is bad: tables of this VM lost",
                        (unsigned long long)loss->at.a);
    }
    return false;
}

static void retire(hpa_t at)
{
    struct loss loss = {.at = at};
    const char *what;

    switch (buddy_retire(hpa_mfn(at), &loss.holder)) {
    case HV_OK:
        what = "was free, is retired";
        break;
    case HV_EBUSY:
        if (loss.holder.use == FRAME_SHARED) {
            what = "is shared by guest pages, will be retired when the last one leaves it";
        } else {
            what = loss.holder.owner == OWNER_HOST ? "is the hypervisor's own and stays in use"
                                                   : "is in use, will be retired when it is freed";
        }
        break;
    case HV_ENOMEM:
        what = "is in use, and too many like it wait: it will be used again";
        break;
    default:
        what = "is not memory of ours";
        break;
    }
    log_error("machine memory at 0x%llx is bad: it %s", (unsigned long long)at.a, what);
    if (loss.holder.owner != OWNER_HOST) {
        vm_for_each(stop_owner, &loss);
    }
}

static void badmem_main(void *unused)
{
    hpa_t at;

    (void)unused;
    for (;;) {
        while (mce_take_bad_memory(&at)) {
            retire(at);
        }
        thread_sleep_ns(LOOK_NS);
    }
}

void badmem_start(void)
{
    struct thread *t;

    if (thread_create("badmem", badmem_main, NULL, WEIGHT_NORMAL, OWNER_HOST, &t) != HV_OK) {
        log_error("badmem: no memory for its thread: bad memory will not be retired");
        return;
    }
    thread_start(t);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page faults: the view resolves what is RAM, devices answer for the rest. What cannot be
 * emulated becomes an event of the guest, or stops the VM with the reason. Called from the exit
 * table only.
 */
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"
#include "mm/p2m.h"
#include "mm/view.h"

#define RETRY_NS 100000u /* the view said "again" */

static enum exit_action cannot(struct vcpu *v, const struct vm_exit *exit, const char *what)
{
    vm_stop_request(v->vm, STOP_EMULATION, 0, "%s at 0x%llx (rip 0x%llx)", what,
                    (unsigned long long)exit->mem.gpa.a, (unsigned long long)v->rip);
    return ACT_LEAVE;
}

/* Nobody's RAM: a device access by the instruction at RIP, unless it came about otherwise. */
static enum exit_action device_access(struct vcpu *v, struct vm_exit *exit, bool fast)
{
    char text[96] = "";

    if (unlikely(v->interrupted.type != EVENT_NONE || exit->mem.table_walk)) {
        if (fast) {
            return ACT_SLOW;
        }
        return cannot(v, exit,
                      exit->mem.table_walk ? "page tables in unassigned memory"
                                           : "event delivery through unassigned memory");
    }
    if (unlikely(exit->mem.access & P2M_EXEC)) {
        /* All ones, as reads there give, are no instruction. */
        vcpu_inject_ud(v);
        return ACT_RESUME;
    }
    switch (emul_mmio(v, &exit->mem, fast, text, sizeof(text))) {
    case HV_OK:
    case HV_EFAULT:
        return ACT_RESUME;
    case HV_EAGAIN:
        return fast ? ACT_SLOW : ACT_LEAVE;
    default:
        if (fast) {
            return ACT_SLOW;
        }
        vm_stop_request(v->vm, STOP_EMULATION, 0,
                        "cannot emulate the access to 0x%llx at rip 0x%llx: %s",
                        (unsigned long long)exit->mem.gpa.a, (unsigned long long)v->rip, text);
        return ACT_LEAVE;
    }
}

/* What the view is told: also that the processor walked the guest's page tables there. */
static inline uint32_t access_of(const struct vm_exit *exit)
{
    return exit->mem.access | (exit->mem.table_walk ? P2M_WALK : 0);
}

enum exit_action fault_fast(struct vcpu *v, struct vm_exit *exit)
{
    struct view *view = v->vm->view;

    switch (view->ops->fault(view, exit->mem.gpa, access_of(exit) | P2M_FAST)) {
    case HV_OK:
        return ACT_RESUME;
    case HV_ENOENT:
        return device_access(v, exit, true);
    default:
        return ACT_SLOW;
    }
}

/* Memory may come back: pages are merged, other VMs end. */
static enum exit_action no_memory(struct vcpu *v, const struct vm_exit *exit)
{
    if (memwait_wait(v)) {
        return ACT_LEAVE;
    }
    vm_stop_request(v->vm, STOP_NO_MEMORY, 0, "no machine memory left for guest page 0x%llx",
                    (unsigned long long)exit->mem.gpa.a);
    return ACT_LEAVE;
}

enum exit_action fault_slow(struct vcpu *v, struct vm_exit *exit)
{
    struct view *view = v->vm->view;
    enum hv_err err = view->ops->fault(view, exit->mem.gpa, access_of(exit));

    if (err == HV_ENOMEM) {
        return no_memory(v, exit);
    }
    memwait_done(v);
    switch (err) {
    case HV_OK:
        return ACT_RESUME;
    case HV_ENOENT:
        return device_access(v, exit, false);
    case HV_EAGAIN:
        thread_sleep_ns(RETRY_NS);
        return ACT_LEAVE;
    default:
        vm_stop_request(v->vm, STOP_ERROR, 0, "guest page 0x%llx: %s",
                        (unsigned long long)exit->mem.gpa.a, hv_strerror(err));
        return ACT_LEAVE;
    }
}

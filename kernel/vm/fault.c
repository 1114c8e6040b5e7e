/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page faults: the view resolves what is RAM, devices answer for the rest. What cannot be
 * emulated becomes an event of the guest, or stops the VM with the reason. Called from the exit
 * table only.
 */
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/overwrite.h"
#include "kernel/vm/swapping.h"
#include "mm/p2m.h"
#include "mm/view.h"

static enum exit_action cannot(struct vcpu *v, const struct vm_exit *exit, const char *what)
{
    vm_stop_request(v->vm, STOP_EMULATION, 0, "%s at 0x%llx (rip 0x%llx)", what,
                    (unsigned long long)exit->mem.gpa.a, (unsigned long long)v->rip);
    return ACT_LEAVE;
}

/* Nobody's RAM: a device access by the instruction at RIP, unless it came about otherwise. */
enum exit_action fault_device(struct vcpu *v, struct vm_exit *exit, bool fast)
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
    enum hv_err err = emul_mmio(v, &exit->mem, fast, text, sizeof(text));
    switch (err) {
    case HV_OK:
    case HV_EFAULT:
        return ACT_RESUME;
    case HV_EAGAIN:
    case HV_ENOMEM:
        return exit_again(v, err);
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

    switch (view->ops->fault(view, exit->mem.gpa, access_of(exit) | memwait_access_fast())) {
    case HV_OK:
        return ACT_RESUME;
    case HV_ENOENT:
        return fault_device(v, exit, true);
    default:
        return ACT_SLOW;
    }
}

enum exit_action fault_failed(struct vcpu *v, gpa_t gpa, enum hv_err err)
{
    switch (err) {
    case HV_EAGAIN:
        swapping_wait(v->vm, v, gpa_gfn(gpa));
        break;
    case HV_EIO:
        swapping_failed(v->vm, gpa_gfn(gpa));
        break;
    case HV_ENOMEM:
        memwait_or_stop(v, gpa.a);
        break;
    default:
        vm_stop_request(v->vm, STOP_ERROR, 0, "guest page 0x%llx: %s", (unsigned long long)gpa.a,
                        hv_strerror(err));
        break;
    }
    return ACT_LEAVE;
}

enum exit_action fault_slow(struct vcpu *v, struct vm_exit *exit)
{
    struct view *view = v->vm->view;
    uint32_t how = memwait_access(v);

    if ((exit->mem.access & P2M_WRITE) && !exit->mem.table_walk && overwrite_may_begin(v, how) &&
        overwrite_page(v, exit->mem.gpa)) {
        memwait_served(v, true);
        return ACT_LEAVE;
    }
    enum hv_err err = view->ops->fault(view, exit->mem.gpa, access_of(exit) | how);

    switch (err) {
    case HV_OK:
        return ACT_RESUME;
    case HV_ENOENT:
        return fault_device(v, exit, false);
    default:
        return fault_failed(v, exit->mem.gpa, err);
    }
}

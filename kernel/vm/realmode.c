/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests in a state that the processor cannot run (real mode without unrestricted guests): their
 * instructions are executed in software, in bounded rounds between which the vCPU's thread looks at
 * requests as between any two exits. What the processor would exit for goes through the exit table; what
 * it would inject is delivered here. Entered from the exit table; no section, host interrupts on.
 */
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"

#define ROUND 512u

static enum exit_action cannot(struct vcpu *v, const char *what, const char *text)
{
    vm_stop_request(v->vm, STOP_EMULATION, 0,
                    "cannot run the guest in real mode, nor emulate %s at rip 0x%llx: %s", what,
                    (unsigned long long)v->rip, text);
    return ACT_LEAVE;
}

static enum exit_action step(struct vcpu *v)
{
    struct vm_exit exit;
    char text[96] = "";
    enum hv_err err = emul_step(v, &exit, text, sizeof(text));

    if (err == HV_ENOTSUP) {
        return cannot(v, "the code", text);
    }
    if (err != HV_OK) {
        return exit_again(v, err);
    }
    if (exit.kind == EXIT_INVLPG && !v->vm->software_mmu) {
        /* The processor would not exit: drop everything, as a load of CR3 does. */
        hv->set_reg(v, REG_CR3, hv->get_reg(v, REG_CR3));
        vcpu_advance(v, exit.insn_len);
        return ACT_RESUME;
    }
    return exit.kind == EXIT_NONE ? ACT_RESUME : exit_table[exit.kind].slow(v, &exit);
}

/* An event that event_prepare queued for an entry. */
static enum exit_action deliver(struct vcpu *v, const struct event *ev)
{
    /* An exception's own delivery may fault, and the two combine; an interrupt that faults is lost. */
    v->interrupted = *ev;
    if (ev->type != EVENT_EXCEPTION) {
        v->interrupted.type = EVENT_NONE;
    }
    enum hv_err err = emul_event(v, ev);
    if (err == HV_OK) {
        v->interrupted.type = EVENT_NONE;
        if (ev->type == EVENT_NMI) {
            hv->emulation->block(v, BLOCK_NMI, true);
        }
        return ACT_RESUME;
    }
    if (err == HV_ENOTSUP) {
        return cannot(v, "an interrupt", "a gate to another task or privilege level");
    }
    if (err != HV_EFAULT) {
        v->interrupted = *ev; /* begins again */
    }
    return exit_again(v, err);
}

enum exit_action realmode_exit(struct vcpu *v, struct vm_exit *exit)
{
    enum exit_action action = ACT_RESUME;
    struct event ev;

    (void)exit;
    v->plain_step = false;
    for (unsigned i = 0; i < ROUND && action == ACT_RESUME; i++) {
        if (hv->emulation->withdraw(v, &ev)) {
            action = deliver(v, &ev);
        } else if (v->halted || hv->emulation->enterable(v) || sched_need_resched()) {
            break;
        } else {
            action = step(v);
        }
        if (action == ACT_RESUME) {
            memwait_served(v, true);
        }
        if (action == ACT_RESUME && !event_prepare(v)) {
            break;
        }
    }
    return action == ACT_YIELD ? ACT_YIELD : ACT_LEAVE;
}

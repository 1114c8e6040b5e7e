/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The exit table and the handlers that are too small for a file of their own. Most handlers serve
 * both paths: vcpu_in_section() tells them whether they may wait. An instruction's length is found
 * before its effects, because finding it may have to leave the fast path.
 */
#include "kernel/vm/exit.h"

#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/emul/emul.h"
#include "kernel/log.h"
#include "kernel/vm/memwait.h"

enum exit_action exit_again(struct vcpu *v, enum hv_err err)
{
    if (vcpu_in_section(v)) {
        return ACT_SLOW; /* and start again */
    }
    if (err == HV_ENOMEM) {
        memwait_or_stop(v, MEMWAIT_NO_GPA);
    }
    return err == HV_EFAULT ? ACT_RESUME : ACT_LEAVE;
}

static enum exit_action skip(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_skip(v, exit);

    return likely(err == HV_OK) ? ACT_RESUME : exit_again(v, err);
}

static enum exit_action leave(struct vcpu *v, struct vm_exit *exit)
{
    (void)v;
    (void)exit;
    return ACT_LEAVE;
}

static enum exit_action slow(struct vcpu *v, struct vm_exit *exit)
{
    (void)v;
    (void)exit;
    return ACT_SLOW;
}

static enum exit_action string_io(struct vcpu *v, struct vm_exit *exit)
{
    char text[96] = "";
    enum hv_err err = emul_string_io(v, &exit->port, vcpu_in_section(v), text, sizeof(text));

    if (likely(err == HV_OK)) {
        return ACT_RESUME;
    }
    if (err == HV_EAGAIN || err == HV_EFAULT || err == HV_ENOMEM || vcpu_in_section(v)) {
        return exit_again(v, err);
    }
    vm_stop_request(v->vm, STOP_EMULATION, 0, "cannot emulate string I/O at rip 0x%llx: %s",
                    (unsigned long long)v->rip, text);
    return ACT_LEAVE;
}

static enum exit_action port(struct vcpu *v, struct vm_exit *exit)
{
    /* By size in bytes: what of RAX is the operand, and what of it IN leaves alone. */
    static const uint64_t operand[] = {0, 0xff, 0xffff, 0, UINT32_MAX};
    static const uint64_t left_alone[] = {0, ~0xffULL, ~0xffffULL, 0, 0};
    const struct exit_port *p = &exit->port;

    uint64_t value = v->gpr[GPR_RAX] & operand[p->size];
    enum hv_err err = bus_port(v->vm->bus, v, p->port, p->size, !p->in, &value);
    if (unlikely(err != HV_OK)) {
        return exit_again(v, err);
    }
    if (p->in) {
        v->gpr[GPR_RAX] = (v->gpr[GPR_RAX] & left_alone[p->size]) | (value & operand[p->size]);
    }
    return exit_done(v, exit->insn_len);
}

static enum exit_action do_cpuid(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = exit_length(v, exit);

    if (unlikely(err != HV_OK)) {
        return exit_again(v, err);
    }
    cpuid_execute(v);
    return exit_done(v, exit->insn_len);
}

static enum exit_action msr(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = exit_length(v, exit);
    uint64_t value;

    if (unlikely(err != HV_OK)) {
        return exit_again(v, err);
    }
    if (exit->msr.write) {
        value = (v->gpr[GPR_RDX] << 32) | (uint32_t)v->gpr[GPR_RAX];
        err = msr_write(v, exit->msr.index, value);
    } else {
        err = msr_read(v, exit->msr.index, &value);
        if (likely(err == HV_OK)) {
            v->gpr[GPR_RAX] = (uint32_t)value;
            v->gpr[GPR_RDX] = value >> 32;
        }
    }
    if (likely(err == HV_OK)) {
        return exit_done(v, exit->insn_len);
    }
    if (err == HV_EAGAIN) {
        return exit_again(v, err);
    }
    vcpu_inject_gp(v);
    return ACT_RESUME;
}

static enum exit_action hlt(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_skip(v, exit);

    if (unlikely(err != HV_OK)) {
        return exit_again(v, err);
    }
    v->halted = true;
    return ACT_LEAVE;
}

static enum exit_action pause(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_skip(v, exit);

    return likely(err == HV_OK) ? ACT_YIELD : exit_again(v, err);
}

/* The guest's TSC is offset, not intercepted: a processor may report the exit all the same. */
static enum exit_action do_rdtsc(struct vcpu *v, struct vm_exit *exit)
{
    const unsigned rdtscp_len = 3;
    enum hv_err err = vcpu_skip(v, exit);

    if (unlikely(err != HV_OK)) {
        return exit_again(v, err);
    }
    uint64_t now = vcpu_guest_tsc(v);
    v->gpr[GPR_RAX] = (uint32_t)now;
    v->gpr[GPR_RDX] = now >> 32;
    if (exit->insn_len == rdtscp_len) {
        v->gpr[GPR_RCX] = (uint32_t)v->msr.tsc_aux;
    }
    return ACT_RESUME;
}

static enum exit_action undefined(struct vcpu *v, struct vm_exit *exit)
{
    (void)exit;
    vcpu_inject_ud(v);
    return ACT_RESUME;
}

static enum exit_action protection(struct vcpu *v, struct vm_exit *exit)
{
    (void)exit;
    vcpu_inject_gp(v);
    return ACT_RESUME;
}

/*
 * Intercepted only so that the guest cannot loop inside the processor: give it back. Its delivery may
 * raise it again before any instruction boundary, where alone the processor looks at interrupts: so
 * the section ends each time, and ours are taken there.
 */
static enum exit_action exception(struct vcpu *v, struct vm_exit *exit)
{
    vcpu_inject_exception(v, exit->exc.vector, exit->exc.has_error, exit->exc.error);
    return ACT_LEAVE;
}

/* Look at events again. */
static enum exit_action window(struct vcpu *v, struct vm_exit *exit)
{
    (void)exit;
    __atomic_fetch_or(&v->request, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
    return ACT_RESUME;
}

static enum exit_action shutdown(struct vcpu *v, struct vm_exit *exit)
{
    (void)exit;
    vm_stop_request(v->vm, STOP_TRIPLE_FAULT, 0, "triple fault at rip 0x%llx",
                    (unsigned long long)v->rip);
    return ACT_LEAVE;
}

/* The host's own machine check: its handler decides, as if it had come a moment later. */
static enum exit_action machine_check(struct vcpu *v, struct vm_exit *exit)
{
    (void)v;
    (void)exit;
    __asm__ volatile("int %0" ::"i"(EXC_MC) : "memory");
    return ACT_LEAVE;
}

/*
 * QEMU's TCG reports a guest's MOV to CR3 or CR4 with reserved bits as a failed entry: the state is
 * sound, and RIP stands at that instruction.
 */
static bool is_refused_cr(struct vcpu *v)
{
    struct exit_cr cr = {0};
    uint8_t len;
    uint64_t lmsw;

    return doctor_is_sound(v) && emul_decode_cr(v, &cr, false, &len, &lmsw) == HV_OK &&
           (cr.cr == 3 || cr.cr == 4) && cr.write;
}

/*
 * 64-bit code ran past the lower half of the addresses and exited there: the guest's #GP, but processors
 * refuse to enter with such a RIP. It comes with that of the last byte before.
 */
static bool is_past_edge(struct vcpu *v)
{
    const unsigned insn_max = 15;
    uint64_t edge = BIT(hv->get_reg(v, REG_CR4) & CR4_LA57 ? 56 : 47);

    if (emul_mode_of(v) != EMUL_64 || v->rip < edge || v->rip >= edge + insn_max) {
        return false;
    }
    v->rip = edge - 1;
    return true;
}

static enum exit_action entry_failed(struct vcpu *v, struct vm_exit *exit)
{
    tag_entry_failed(v);
    if (is_past_edge(v) || is_refused_cr(v)) {
        vcpu_inject_gp(v);
        return ACT_RESUME;
    }
    if (exit->raw[0] == 0) {
        log_error("vm %s: vcpu %u: not entered: its state breaks a rule", v->vm->config.name,
                  v->id);
    } else {
        log_error("vm %s: vcpu %u: the processor refused the entry (%#llx)", v->vm->config.name,
                  v->id, (unsigned long long)exit->raw[0]);
    }
    doctor_stop(v);
    return ACT_LEAVE;
}

static enum exit_action task_switch(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = exit->task.by_insn ? exit_length(v, exit) : HV_OK;

    if (err == HV_OK) {
        err = emul_task_switch(v, &exit->task, exit->task.by_insn ? exit->insn_len : 0);
    }
    return err == HV_OK ? ACT_RESUME : exit_again(v, err);
}

static enum exit_action unexpected(struct vcpu *v, struct vm_exit *exit)
{
    doctor_dump(v);
    vm_stop_request(v->vm, STOP_ERROR, 0, "exit that was not asked for: %s (%#llx %#llx %#llx)",
                    exit_kind_name(exit->kind), (unsigned long long)exit->raw[0],
                    (unsigned long long)exit->raw[1], (unsigned long long)exit->raw[2]);
    return ACT_LEAVE;
}

const struct exit_handlers exit_table[NR_EXIT_KINDS] = {
    [EXIT_NONE] = {slow, unexpected},
    [EXIT_INTERRUPT] = {leave, leave},
    [EXIT_NMI] = {leave, leave},
    [EXIT_PORT] = {port, port},
    [EXIT_STRING_IO] = {string_io, string_io},
    [EXIT_MEMORY] = {fault_fast, fault_slow},
    [EXIT_PAGE_FAULT] = {softmmu_fault, softmmu_fault},
    [EXIT_CPUID] = {do_cpuid, do_cpuid},
    [EXIT_MSR] = {msr, msr},
    [EXIT_CR] = {cr_exit, cr_exit},
    [EXIT_DR] = {slow, dr_exit}, /* from emulated code alone */
    [EXIT_HLT] = {hlt, hlt},
    [EXIT_PAUSE] = {pause, pause},
    [EXIT_RDTSC] = {do_rdtsc, do_rdtsc},
    [EXIT_RDPMC] = {protection, protection},
    [EXIT_XSETBV] = {cr_xsetbv, cr_xsetbv},
    [EXIT_WBINVD] = {skip, skip}, /* no device of the guest's writes memory behind its caches */
    [EXIT_INVLPG] = {softmmu_invlpg, softmmu_invlpg},
    [EXIT_MONITOR] = {undefined, undefined},
    [EXIT_MWAIT] = {undefined, undefined},
    [EXIT_HYPERCALL] = {undefined, undefined},
    [EXIT_VIRT_INSN] = {undefined, undefined},
    [EXIT_EXCEPTION] = {exception, exception},
    [EXIT_IRQ_WINDOW] = {window, window},
    [EXIT_NMI_WINDOW] = {window, window},
    [EXIT_TASK_SWITCH] = {slow, task_switch},
    [EXIT_EMULATE] = {slow, realmode_exit},
    [EXIT_SHUTDOWN] = {shutdown, shutdown},
    [EXIT_INIT] = {leave, leave},
    [EXIT_MACHINE_CHECK] = {slow, machine_check},
    [EXIT_ENTRY_FAILED] = {slow, entry_failed},
    [EXIT_UNKNOWN] = {slow, unexpected},
};

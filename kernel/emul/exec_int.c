/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Delivering interrupts and exceptions in software, for a guest that the processor cannot run: in real
 * mode through the vectors at IDTR, in protected mode through interrupt and trap gates to the same
 * privilege level. See exec.h. Manual: "Interrupt and Exception Handling", "Interrupt and Exception
 * Handling in Real-Address Mode".
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/emul/exec.h"
#include "kernel/emul/segment.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"

#define VECTOR_BYTES 4u
#define GATE_BYTES 8u
#define GATE_32 8u /* in the type: a 32-bit gate */
#define GATE_TRAP 1u
#define ERROR_IDT 2u
#define ERROR_EXT 1u

struct delivery {
    const struct emul *e;
    const struct exec_interrupt *what;
    struct segment cs; /* where it goes */
    uint64_t rip;
    unsigned size; /* bytes of what is pushed */
    bool keep_if;
};

static enum hv_err read_entry(const struct delivery *d, unsigned bytes, uint64_t *raw)
{
    uint32_t offset = d->what->vector * bytes;
    struct segment idt;
    struct operand o;

    hv->get_seg(d->e->v, SEG_IDTR, &idt);
    if (offset + bytes - 1 > idt.limit) {
        return segment_fault(d->e, EXC_GP,
                             d->what->vector * 8u | ERROR_IDT | (d->what->soft ? 0 : ERROR_EXT));
    }
    enum hv_err err = operand_resolve_linear(d->e, GVA((uint32_t)(idt.base + offset)), bytes,
                                             GVA_READ | GVA_SUPERVISOR, &o);
    if (!err) {
        err = operand_access(d->e, &o, false, raw);
        operand_release(d->e, &o);
    }
    return err;
}

static enum hv_err find_real(struct delivery *d)
{
    uint64_t raw = 0;
    enum hv_err err = read_entry(d, VECTOR_BYTES, &raw);

    d->rip = raw & 0xffff;
    d->size = 2;
    return err ? err : segment_code(d->e, (uint16_t)(raw >> 16), &d->cs);
}

static enum hv_err find_gate(struct delivery *d)
{
    uint32_t error = d->what->vector * 8u | ERROR_IDT | (d->what->soft ? 0 : ERROR_EXT);
    uint64_t raw = 0;
    enum hv_err err = read_entry(d, GATE_BYTES, &raw);

    if (err) {
        return err;
    }
    unsigned attr = raw >> 40 & 0xff, type = attr & 0x1f;
    bool is_gate = (type & ~(GATE_32 | GATE_TRAP)) == 6;
    if (!is_gate && type == 5) {
        return HV_ENOTSUP; /* a task gate */
    }
    if (!is_gate || (d->what->soft && SEG_DPL(attr) < vcpu_cpl(d->e->v))) {
        return segment_fault(d->e, EXC_GP, error);
    }
    if (!(attr & SEG_P)) {
        return segment_fault(d->e, EXC_NP, error);
    }
    d->size = type & GATE_32 ? 4 : 2;
    d->keep_if = (type & GATE_TRAP) != 0;
    d->rip = (raw & 0xffff) | (d->size == 4 ? raw >> 32 & 0xffff0000 : 0);
    return segment_code(d->e, (uint16_t)(raw >> 16), &d->cs);
}

enum hv_err exec_deliver(const struct emul *e, const struct exec_interrupt *what)
{
    struct delivery d = {.e = e, .what = what};
    uint64_t flags = hv->get_reg(e->v, REG_RFLAGS);
    struct segment old;
    bool real = segment_is_real(e);

    if (hv->get_reg(e->v, REG_EFER) & EFER_LMA) {
        return HV_ENOTSUP;
    }
    enum hv_err err = real ? find_real(&d) : find_gate(&d);
    if (!err && d.rip > d.cs.limit) {
        err = segment_fault(e, EXC_GP, what->soft ? 0 : ERROR_EXT);
    }
    if (err) {
        return err;
    }
    hv->get_seg(e->v, SEG_CS, &old);
    uint64_t frame[4] = {what->error, what->rip, old.selector, flags};
    bool error = what->has_error && !real;
    err = stack_push(e, d.size, error ? frame : frame + 1, error ? 4 : 3);
    if (err) {
        return err;
    }
    uint64_t cleared = RFLAGS_TF | RFLAGS_RF | RFLAGS_AC | (d.keep_if ? 0 : RFLAGS_IF);
    if (!real) {
        cleared = (cleared & ~RFLAGS_AC) | RFLAGS_NT;
    }
    hv->set_seg(e->v, SEG_CS, &d.cs);
    hv->set_reg(e->v, REG_RFLAGS, flags & ~cleared);
    hv->clear_shadow(e->v);
    e->v->rip = d.rip;
    return HV_OK;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hardware task switches, for guests whose processor leaves them to the hypervisor: some always do, some
 * where CR3 is ours. See emul.h. Manual: "Task Switching", "Task Switch Intercept".
 *
 *     check the new TSS -> pin all that is to be written -> save the old task -> load the new one -> commit
 *     faults: the old task's                                                    | the new task's
 *
 * Each step up to the last may have to wait for memory. Then the registers are put back and the switch
 * begins anew: what has been written of the old TSS by then will be written again, from the same registers.
 * Busy bits and the link, whose changes a second attempt would notice, are pinned first and written last.
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/emul/exec.h"
#include "kernel/emul/segment.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"

#define NR_TASK_GPRS 8u
#define NR_TASK_SEGS 6u

#define TYPE_BUSY BIT(1) /* of a TSS descriptor */
#define TYPE_WIDE BIT(3) /* 32-bit */
#define TYPE_BYTE 5u     /* where a descriptor has its type */

#define FLAGS_TASK 0x3f7fd5u /* what of EFLAGS a TSS can set */
#define DR6_TASK BIT(15)
#define DR7_LOCAL 0x155u /* L0 to L3 and LE: of the old task */

/* A TSS: dwords (words) by number; from `first` on IP, flags, the general registers, the segments, the LDT. */
struct format {
    uint8_t bytes; /* of a field */
    uint8_t size;  /* of the TSS */
    uint8_t first, segs;
};

static const struct format formats[2] = {
    {.bytes = 2, .size = 44, .first = 7, .segs = 4}, /* ES, CS, SS, DS */
    {.bytes = 4,
     .size = 104,
     .first = 8,
     .segs = 6}, /* field 7 is CR3; a trap bit behind the LDT */
};
#define FIELD_CR3 7u

struct tss_state {
    uint32_t cr3, ip, flags, gpr[NR_TASK_GPRS];
    uint16_t seg[NR_TASK_SEGS], ldt; /* by enum seg_reg */
    bool trap;
};

/* All that a switch changes before it is sure to happen. */
struct registers {
    uint64_t rip, rsp, rflags, cr0, cr3, dr7, gpr[NR_TASK_GPRS], pdptr[4], pdpte[4];
    struct segment seg[SEG_TR + 1];
};

struct task {
    struct emul e;
    const struct exit_task *how;
    const struct format *old_format, *new_format;
    struct segment old, new; /* TR */
    gva_t new_at;            /* its descriptor */
    struct operand save, link, mark,
        unmark; /* to be written: old TSS, new TSS, descriptors' types */
    struct operand load;
};

static const struct format *format_of(const struct segment *tss)
{
    return &formats[(tss->attr & TYPE_WIDE) != 0];
}

static bool is_nested(const struct task *t)
{
    return t->how->reason == TASK_CALL || t->how->reason == TASK_GATE;
}

/* --- the new TSS --- */

static enum hv_err find(struct task *t)
{
    uint16_t selector = t->how->selector;
    uint32_t error = selector & SELECTOR_ERROR;
    bool returns = t->how->reason == TASK_IRET;
    uint64_t raw;

    t->e.refusal = returns ? EXC_TS : EXC_GP;
    if (!(selector & ~SELECTOR_RPL) || (selector & SELECTOR_LOCAL)) {
        return segment_fault(&t->e, t->e.refusal, error);
    }
    enum hv_err err = segment_fetch(&t->e, selector, &t->new_at, &raw, &t->new);
    if (err) {
        return err;
    }
    unsigned type = t->new.attr &(SEG_S | 0xf);
    bool busy = (type & TYPE_BUSY) != 0;
    if ((type & ~(TYPE_BUSY | TYPE_WIDE)) != 1 || busy != returns) {
        return segment_fault(&t->e, t->e.refusal, error);
    }
    if (!(t->new.attr &SEG_P)) {
        return segment_fault(&t->e, EXC_NP, error);
    }
    t->new_format = format_of(&t->new);
    if (t->new.limit < t->new_format->size - 1u) {
        return segment_fault(&t->e, EXC_TS, error);
    }
    return HV_OK;
}

static enum hv_err pin(struct task *t, uint64_t base, unsigned offset, unsigned size,
                       uint32_t access, struct operand *out)
{
    return operand_resolve_linear(&t->e, GVA((uint32_t)(base + offset)), size,
                                  access | GVA_SUPERVISOR, out);
}

/* What is written first: a page that is shared becomes the guest's own then. */
static enum hv_err pin_all(struct task *t)
{
    unsigned first = t->old_format->first * t->old_format->bytes;
    unsigned size = (2 + NR_TASK_GPRS + t->old_format->segs) * t->old_format->bytes;
    gva_t old_at;

    if (t->old.limit < first + size - 1) {
        return segment_fault(&t->e, EXC_TS, t->old.selector & SELECTOR_ERROR);
    }
    enum hv_err err = pin(t, t->old.base, first, size, GVA_WRITE, &t->save);
    if (!err && is_nested(t)) {
        err = pin(t, t->new.base, 0, 2, GVA_WRITE, &t->link);
    }
    if (!err && t->how->reason != TASK_IRET) {
        err = pin(t, t->new_at.a, TYPE_BYTE, 1, GVA_WRITE, &t->mark);
    }
    if (!err && !is_nested(t)) {
        err = segment_locate(&t->e, t->old.selector & SELECTOR_ERROR, &old_at);
        err = err ? err : pin(t, old_at.a, TYPE_BYTE, 1, GVA_WRITE, &t->unmark);
    }
    return err ? err : pin(t, t->new.base, 0, t->new_format->size, GVA_READ, &t->load);
}

static void release_all(struct task *t)
{
    operand_release(&t->e, &t->load);
    operand_release(&t->e, &t->unmark);
    operand_release(&t->e, &t->mark);
    operand_release(&t->e, &t->link);
    operand_release(&t->e, &t->save);
}

/* A byte of pinned memory; NULL: no RAM is there. */
static uint8_t *byte_of(const struct operand *o, unsigned i)
{
    uint8_t *ram = o->ram[i >= o->first];

    return ram == NULL ? NULL : ram + (i >= o->first ? i - o->first : i);
}

/* Outside RAM writes are lost, and reads give ones. */
static void put(const struct operand *o, unsigned offset, uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        uint8_t *at = byte_of(o, offset + i);

        if (at != NULL) {
            *at = (uint8_t)(value >> (8 * i));
        }
    }
}

static uint32_t get(const struct operand *o, unsigned offset, unsigned bytes)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        const uint8_t *at = byte_of(o, offset + i);

        value |= (at != NULL ? *at : 0xffu) << (8 * i);
    }
    return value;
}

/* --- the old task --- */

static uint32_t task_gpr(struct vcpu *v, unsigned i)
{
    return (uint32_t)(i == GPR_RSP ? hv->get_reg(v, REG_RSP) : v->gpr[i]);
}

static void save(const struct task *t, uint32_t ip)
{
    struct vcpu *v = t->e.v;
    unsigned bytes = t->old_format->bytes, field = 2;
    uint64_t flags = hv->get_reg(v, REG_RFLAGS) & ~RFLAGS_RF;
    struct segment s;

    flags |= t->how->resume ? RFLAGS_RF : 0;
    flags &= t->how->reason == TASK_IRET ? ~RFLAGS_NT : UINT64_MAX;
    put(&t->save, 0, ip, bytes);
    put(&t->save, bytes, (uint32_t)flags, bytes);
    for (unsigned i = 0; i < NR_TASK_GPRS; i++, field++) {
        put(&t->save, field * bytes, task_gpr(v, i), bytes);
    }
    for (unsigned i = 0; i < t->old_format->segs; i++, field++) {
        hv->get_seg(v, (enum seg_reg)i, &s);
        put(&t->save, field * bytes, s.selector, 2);
    }
}

/* --- registers, put back if need be --- */

static void keep(struct vcpu *v, struct registers *r)
{
    *r = (struct registers){
        .rip = v->rip,
        .rsp = hv->get_reg(v, REG_RSP),
        .rflags = hv->get_reg(v, REG_RFLAGS),
        .cr0 = hv->get_reg(v, REG_CR0),
        .cr3 = hv->get_reg(v, REG_CR3),
        .dr7 = hv->get_reg(v, REG_DR7),
    };
    for (unsigned i = 0; i < NR_TASK_GPRS; i++) {
        r->gpr[i] = v->gpr[i];
    }
    for (unsigned i = 0; i < ARRAY_SIZE(r->pdptr); i++) {
        r->pdptr[i] = v->pdptr[i];
        r->pdpte[i] = hv->get_reg(v, REG_PDPTE0 + i);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(r->seg); i++) {
        hv->get_seg(v, (enum seg_reg)i, &r->seg[i]);
    }
}

static void put_back(struct vcpu *v, const struct registers *r)
{
    v->rip = r->rip;
    hv->set_reg(v, REG_RSP, r->rsp);
    hv->set_reg(v, REG_RFLAGS, r->rflags);
    hv->set_reg(v, REG_CR0, r->cr0);
    hv->set_reg(v, REG_CR3, r->cr3);
    hv->set_reg(v, REG_DR7, r->dr7);
    for (unsigned i = 0; i < NR_TASK_GPRS; i++) {
        v->gpr[i] = r->gpr[i];
    }
    for (unsigned i = 0; i < ARRAY_SIZE(r->pdptr); i++) {
        v->pdptr[i] = r->pdptr[i];
        hv->set_reg(v, REG_PDPTE0 + i, r->pdpte[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(r->seg); i++) {
        hv->set_seg(v, (enum seg_reg)i, &r->seg[i]);
    }
}

/* --- the new task --- */

static void read_state(const struct task *t, struct tss_state *s)
{
    const struct format *f = t->new_format;
    unsigned field = f->first + 2u;
    bool wide = f->bytes == 4;

    *s = (struct tss_state){.ip = get(&t->load, f->first * f->bytes, f->bytes),
                            .flags = get(&t->load, (f->first + 1u) * f->bytes, f->bytes)};
    s->flags = (s->flags & FLAGS_TASK) | (uint32_t)RFLAGS_FIXED1;
    s->flags |= is_nested(t) ? (uint32_t)RFLAGS_NT : 0;
    for (unsigned i = 0; i < NR_TASK_GPRS; i++, field++) {
        s->gpr[i] = get(&t->load, field * f->bytes, f->bytes);
    }
    for (unsigned i = 0; i < f->segs; i++, field++) {
        s->seg[i] = (uint16_t)get(&t->load, field * f->bytes, 2);
    }
    s->ldt = (uint16_t)get(&t->load, field * f->bytes, 2);
    s->cr3 = wide ? get(&t->load, FIELD_CR3 * f->bytes, f->bytes) : 0;
    s->trap = wide && (get(&t->load, (field + 1) * f->bytes, 2) & 1);
}

static bool is_virtual(const struct tss_state *s)
{
    return (s->flags & RFLAGS_VM) != 0;
}

/*
 * Every segment as it is until its descriptor is loaded, and stays if that faults: a selector without a
 * segment, but in a state that the processor can enter, at the privilege level of the new task.
 */
static void set_selectors(struct vcpu *v, const struct tss_state *s)
{
    unsigned cpl = is_virtual(s) ? 3 : s->seg[SEG_CS] & SELECTOR_RPL;
    const struct segment no_ldt = {.selector = s->ldt};

    hv->set_seg(v, SEG_LDTR, &no_ldt);
    for (enum seg_reg i = SEG_ES; i <= SEG_GS; i++) {
        struct segment seg = {.selector = s->seg[i]};

        if (is_virtual(s)) {
            seg = (struct segment){.selector = s->seg[i],
                                   .attr = 0xf3,
                                   .limit = 0xffff,
                                   .base = (uint32_t)s->seg[i] << 4};
        } else if (i == SEG_CS) {
            seg.attr = (uint16_t)(0xc9b | cpl << 5);
            seg.limit = UINT32_MAX;
        } else if (i == SEG_SS) {
            seg.attr = (uint16_t)(cpl << 5);
            seg.selector = (uint16_t)((seg.selector & ~SELECTOR_RPL) | cpl);
        }
        hv->set_seg(v, i, &seg);
    }
}

static enum hv_err load_segments(const struct task *t, const struct tss_state *s)
{
    static const uint8_t data[] = {SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    enum hv_err err = segment_load_system(&t->e, SEG_LDTR, s->ldt);
    struct segment cs;

    if (err || is_virtual(s)) {
        return err;
    }
    err = segment_code(&t->e, s->seg[SEG_CS], &cs);
    if (!err) {
        hv->set_seg(t->e.v, SEG_CS, &cs);
    }
    for (unsigned i = 0; !err && i < ARRAY_SIZE(data); i++) {
        err = segment_load(&t->e, (enum seg_reg)data[i], s->seg[data[i]]);
    }
    return err;
}

/* The new task's first moments: its segments, and what an exception's delivery leaves on its stack. */
static enum hv_err begin(const struct task *t, const struct tss_state *s)
{
    struct segment cs;
    uint64_t code = t->how->error;
    enum hv_err err = load_segments(t, s);

    if (!err && t->how->has_error) {
        err = stack_push(&t->e, t->new_format->bytes, &code, 1);
    }
    hv->get_seg(t->e.v, SEG_CS, &cs);
    if (!err && s->ip > cs.limit) {
        err = segment_fault(&t->e, EXC_GP, 0);
    }
    return err;
}

static void set_registers(const struct task *t, const struct tss_state *s)
{
    struct vcpu *v = t->e.v;
    struct segment tr = t->new;

    tr.attr |= TYPE_BUSY;
    hv->set_seg(v, SEG_TR, &tr);
    for (unsigned i = 0; i < NR_TASK_GPRS; i++) {
        v->gpr[i] = s->gpr[i];
    }
    hv->set_reg(v, REG_RSP, s->gpr[GPR_RSP]);
    hv->set_reg(v, REG_RFLAGS, s->flags);
    hv->set_reg(v, REG_CR0, hv->get_reg(v, REG_CR0) | CR0_TS);
    hv->set_reg(v, REG_DR7, hv->get_reg(v, REG_DR7) & ~(uint64_t)DR7_LOCAL);
    v->rip = s->ip;
    set_selectors(v, s);
}

/* *switched: the new task runs, with a fault if HV_EFAULT. Else nothing has changed. */
static enum hv_err load(struct task *t, const struct tss_state *s, bool *switched)
{
    struct vcpu *v = t->e.v;
    struct registers before;

    keep(v, &before);
    if ((before.cr0 & CR0_PG) && t->new_format->bytes == 4) {
        enum hv_err err = cr_write(v, 3, s->cr3);

        if (err) {
            return err == HV_EPERM ? segment_fault(&t->e, EXC_GP, 0) : err;
        }
    }
    t->e.refusal = EXC_TS;
    set_registers(t, s);
    enum hv_err err = begin(t, s);
    *switched = err == HV_OK || err == HV_EFAULT;
    if (!*switched) {
        put_back(v, &before);
    }
    return err;
}

/* Other processors may be looking at the descriptors. */
static void commit(const struct task *t)
{
    uint8_t *mark = byte_of(&t->mark, 0), *unmark = byte_of(&t->unmark, 0);

    if (is_nested(t)) {
        put(&t->link, 0, t->old.selector, 2);
    }
    if (unmark != NULL) {
        __atomic_fetch_and(unmark, (uint8_t)~TYPE_BUSY, __ATOMIC_RELAXED);
    }
    if (mark != NULL) {
        __atomic_fetch_or(mark, (uint8_t)TYPE_BUSY, __ATOMIC_RELAXED);
    }
    hv->clear_shadow(t->e.v);
}

static enum hv_err switch_task(struct task *t, uint32_t ip, struct tss_state *s, bool *switched)
{
    enum hv_err err = find(t);

    if (!err) {
        err = pin_all(t);
    }
    if (!err) {
        save(t, ip);
        read_state(t, s);
        err = load(t, s, switched);
    }
    if (*switched) {
        commit(t);
    }
    release_all(t);
    return err;
}

/* NMIs are blocked until an IRET, also by way of a task. A backend without hv_emulation
 * sees to that itself. */
static void block_nmi(struct vcpu *v, bool by_nmi, bool returns)
{
    if (hv->emulation != NULL && (by_nmi || returns)) {
        hv->emulation->block(v, BLOCK_NMI, by_nmi);
    }
}

enum hv_err emul_task_switch(struct vcpu *v, const struct exit_task *how, unsigned insn_len)
{
    const struct insn none = {.mode = (uint8_t)emul_mode_of(v)};
    const struct event delivered = v->interrupted;
    bool external = how->reason == TASK_GATE && !how->by_insn, switched = false;
    struct task t = {.e = {.v = v, .in = &none, .all = true, .external = external}, .how = how};
    struct tss_state s = {0};

    if (hv->get_reg(v, REG_EFER) & EFER_LMA) {
        return segment_fault(&t.e, EXC_GP, how->selector & SELECTOR_ERROR);
    }
    /* An exception and a fault on the way to its task combine; an interrupt that faults is lost. */
    if (delivered.type != EVENT_EXCEPTION) {
        v->interrupted.type = EVENT_NONE;
    }
    hv->get_seg(v, SEG_TR, &t.old);
    t.old_format = format_of(&t.old);
    enum hv_err err = switch_task(&t, (uint32_t)(v->rip + insn_len), &s, &switched);
    if (err && err != HV_EFAULT) {
        v->interrupted = delivered; /* begins again */
        return err;
    }
    if (switched) {
        block_nmi(v, external && delivered.type == EVENT_NMI, how->reason == TASK_IRET);
    }
    if (!err) {
        v->interrupted.type = EVENT_NONE;
    }
    if (!err && s.trap) {
        hv->set_reg(v, REG_DR6, hv->get_reg(v, REG_DR6) | DR6_TASK);
        vcpu_inject_exception(v, EXC_DB, false, 0);
    }
    return err;
}

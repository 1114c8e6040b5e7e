/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See segment.h. In real mode a load sets the base and keeps limit and attributes: that is what "big real
 * mode" lives on.
 */
#include "kernel/emul/segment.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"

#define DESCRIPTOR_BYTES 8u
#define TYPE_LDT 2u
#define TYPE_TSS_FREE 1u /* 16-bit; 9: the others */
#define TYPE_TSS_BUSY 2u /* this bit */

bool segment_is_real(const struct emul *e)
{
    return !(hv->get_reg(e->v, REG_CR0) & CR0_PE) ||
           (hv->get_reg(e->v, REG_RFLAGS) & RFLAGS_VM) != 0;
}

enum hv_err segment_fault(const struct emul *e, uint8_t vector, uint32_t error)
{
    bool has_error = (EXC_WITH_ERROR >> vector & 1) && (hv->get_reg(e->v, REG_CR0) & CR0_PE);

    vcpu_inject_exception(e->v, vector, has_error, has_error ? error | e->external : 0);
    return HV_EFAULT;
}

/* The selector cannot be loaded. */
static enum hv_err refuse(const struct emul *e, uint32_t error)
{
    return segment_fault(e, e->refusal ? e->refusal : EXC_GP, error);
}

/* --- descriptors --- */

static void unpack(uint64_t raw, uint16_t selector, struct segment *out)
{
    const uint64_t granular = BIT(55);
    /* Attributes as in the descriptor; the limit in bytes. */
    uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000));

    *out = (struct segment){
        .selector = selector,
        .attr = (uint16_t)((raw >> 40 & 0xff) | (raw >> 44 & 0xf00)),
        .limit = raw & granular ? limit << 12 | 0xfff : limit,
        .base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000),
    };
}

static bool is_long(const struct emul *e)
{
    return (hv->get_reg(e->v, REG_EFER) & EFER_LMA) != 0;
}

enum hv_err segment_locate(const struct emul *e, uint16_t selector, gva_t *at)
{
    uint32_t offset = selector & ~(SELECTOR_RPL | SELECTOR_LOCAL);
    struct segment table;

    hv->get_seg(e->v, selector & SELECTOR_LOCAL ? SEG_LDTR : SEG_GDTR, &table);
    bool there = !(selector & SELECTOR_LOCAL) || (table.attr & SEG_P);
    if (!there || offset + DESCRIPTOR_BYTES - 1 > table.limit) {
        return refuse(e, selector & SELECTOR_ERROR);
    }
    *at = GVA(is_long(e) ? table.base + offset : (uint32_t)(table.base + offset));
    return HV_OK;
}

static enum hv_err access(const struct emul *e, gva_t at, bool write, uint64_t *raw)
{
    struct operand o;
    enum hv_err err = operand_resolve_linear(e, at, DESCRIPTOR_BYTES,
                                             GVA_SUPERVISOR | (write ? GVA_WRITE : GVA_READ), &o);

    if (!err) {
        err = operand_access(e, &o, write, raw);
        operand_release(e, &o);
    }
    return err;
}

/* Set bits of the type in memory, where they are not. */
static enum hv_err mark(const struct emul *e, gva_t at, uint64_t raw, uint64_t type_bits)
{
    uint64_t marked = raw | type_bits << 40;

    return marked == raw ? HV_OK : access(e, at, true, &marked);
}

enum hv_err segment_fetch(const struct emul *e, uint16_t selector, gva_t *at, uint64_t *raw,
                          struct segment *out)
{
    enum hv_err err = segment_locate(e, selector, at);

    if (!err) {
        err = access(e, *at, false, raw);
    }
    if (!err) {
        unpack(*raw, selector, out);
    }
    return err;
}

/* --- real mode --- */

static void load_real(const struct emul *e, enum seg_reg seg, uint16_t selector,
                      struct segment *out)
{
    hv->get_seg(e->v, seg, out);
    if (!(out->attr & SEG_P)) {
        *out = (struct segment){.attr = 0x93, .limit = 0xffff};
    }
    out->selector = selector;
    out->base = (uint32_t)selector << 4;
}

/* --- data and stack --- */

/* Manual: "MOV—Move", protected-mode exceptions. */
static enum hv_err check_data(const struct emul *e, enum seg_reg seg, const struct segment *s)
{
    unsigned cpl = vcpu_cpl(e->v), rpl = s->selector & SELECTOR_RPL, dpl = SEG_DPL(s->attr);
    uint32_t error = s->selector & SELECTOR_ERROR;
    bool code = (s->attr & SEG_CODE) != 0, wide = (s->attr & SEG_WRITABLE) != 0;
    bool conforming = code && (s->attr & SEG_CONFORMING);
    bool allowed = (s->attr & SEG_S) != 0;

    if (seg == SEG_SS) {
        allowed = allowed && !code && wide && rpl == cpl && dpl == cpl;
    } else {
        allowed = allowed && (!code || wide) && (conforming || (rpl <= dpl && cpl <= dpl));
    }
    if (!allowed) {
        return refuse(e, error);
    }
    if (!(s->attr & SEG_P)) {
        return segment_fault(e, seg == SEG_SS ? EXC_SS : EXC_NP, error);
    }
    return HV_OK;
}

enum hv_err segment_load(const struct emul *e, enum seg_reg seg, uint16_t selector)
{
    struct segment s;
    uint64_t raw;
    gva_t at;

    if (segment_is_real(e)) {
        load_real(e, seg, selector, &s);
        hv->set_seg(e->v, seg, &s);
        return HV_OK;
    }
    if (!(selector & ~SELECTOR_RPL)) {
        if (seg == SEG_SS && e->in->mode != EMUL_64) {
            return refuse(e, 0);
        }
        /* Unusable but for its privilege level, which SS has still. */
        s = (struct segment){.selector = selector,
                             .attr = (uint16_t)(seg == SEG_SS ? vcpu_cpl(e->v) << 5 : 0)};
        hv->set_seg(e->v, seg, &s);
        return HV_OK;
    }
    enum hv_err err = segment_fetch(e, selector, &at, &raw, &s);
    if (!err) {
        err = check_data(e, seg, &s);
    }
    if (!err) {
        err = mark(e, at, raw, SEG_ACCESSED);
    }
    if (!err) {
        s.attr |= SEG_ACCESSED;
        hv->set_seg(e->v, seg, &s);
    }
    return err;
}

/* --- code --- */

enum hv_err segment_code(const struct emul *e, uint16_t selector, struct segment *out)
{
    uint32_t error = selector & SELECTOR_ERROR;
    uint64_t raw;
    gva_t at;

    if (segment_is_real(e)) {
        load_real(e, SEG_CS, selector, out);
        return HV_OK;
    }
    if (!error) {
        return refuse(e, 0);
    }
    enum hv_err err = segment_fetch(e, selector, &at, &raw, out);
    if (err) {
        return err;
    }
    unsigned cpl = vcpu_cpl(e->v), rpl = selector & SELECTOR_RPL, dpl = SEG_DPL(out->attr);
    bool code = (out->attr & SEG_S) && (out->attr & SEG_CODE);
    bool conforming = (out->attr & SEG_CONFORMING) != 0;
    if (!(out->attr & SEG_S) && (out->attr & SEG_P) && !e->refusal) {
        return HV_ENOTSUP;
    }
    if (!code || (conforming ? dpl > cpl : rpl > cpl || dpl != cpl)) {
        return refuse(e, error);
    }
    if (!(out->attr & SEG_P)) {
        return segment_fault(e, EXC_NP, error);
    }
    err = mark(e, at, raw, SEG_ACCESSED);
    out->attr |= SEG_ACCESSED;
    out->selector = (uint16_t)((selector & ~SELECTOR_RPL) | cpl);
    return err;
}

/* --- LLDT, LTR --- */

enum hv_err segment_load_system(const struct emul *e, enum seg_reg seg, uint16_t selector)
{
    uint32_t error = selector & SELECTOR_ERROR;
    struct segment s;
    uint64_t raw, high = 0;
    gva_t at;

    if (!error && seg == SEG_LDTR) {
        s = (struct segment){.selector = selector};
        hv->set_seg(e->v, seg, &s);
        return HV_OK;
    }
    if (!error || (selector & SELECTOR_LOCAL)) {
        return refuse(e, error);
    }
    enum hv_err err = segment_fetch(e, selector, &at, &raw, &s);
    if (!err && is_long(e)) {
        err = access(e, GVA(at.a + DESCRIPTOR_BYTES), false, &high);
        s.base |= high << 32;
    }
    if (err) {
        return err;
    }
    unsigned type = s.attr & 0xf;
    bool fits = seg == SEG_LDTR ? type == TYPE_LDT : (type & 7) == TYPE_TSS_FREE;
    if ((s.attr & SEG_S) || !fits) {
        return refuse(e, error);
    }
    if (!(s.attr & SEG_P)) {
        return segment_fault(e, e->refusal ? e->refusal : EXC_NP, error);
    }
    if (seg == SEG_TR) {
        err = mark(e, at, raw, TYPE_TSS_BUSY);
        s.attr |= TYPE_TSS_BUSY;
    }
    if (!err) {
        hv->set_seg(e->v, seg, &s);
    }
    return err;
}

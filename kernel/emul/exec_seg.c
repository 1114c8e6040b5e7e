/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Instructions that load and store segment and descriptor-table registers, for code that the processor
 * cannot run (step.c). See exec.h.
 */
#include "arch/x86_64/regs.h"
#include "kernel/emul/exec.h"
#include "kernel/emul/segment.h"
#include "kernel/vm/vm.h"

/* What loads SS holds events off until the next instruction is done. */
static enum hv_err load(const struct emul *e, enum seg_reg seg, uint16_t selector)
{
    enum hv_err err = segment_load(e, seg, selector);

    return !err && seg == SEG_SS ? exec_done_in_shadow(e) : err;
}

static enum hv_err move_to(const struct emul *e)
{
    enum seg_reg seg = (enum seg_reg)(e->in->reg & 7);
    uint64_t selector = 0;
    struct operand o;
    enum hv_err err = operand_resolve_rm(e, 0, 2, false, &o);

    if (!err) {
        err = operand_access(e, &o, false, &selector);
        operand_release(e, &o);
    }
    return err ? err : load(e, seg, (uint16_t)selector);
}

static enum hv_err push(const struct emul *e, enum seg_reg seg)
{
    unsigned size = stack_size(e);
    struct segment s;

    hv->get_seg(e->v, seg, &s);
    uint64_t value = s.selector;
    return stack_push(e, size, &value, 1);
}

static enum hv_err pop(const struct emul *e, enum seg_reg seg)
{
    unsigned size = stack_size(e);
    uint64_t value = 0;
    enum hv_err err = stack_peek(e, size, &value, 1);

    if (!err) {
        err = segment_load(e, seg, (uint16_t)value);
    }
    if (err) {
        return err;
    }
    stack_drop(e, size);
    return seg == SEG_SS ? exec_done_in_shadow(e) : HV_OK;
}

/* LES, LDS, LSS, LFS, LGS: offset, then selector. */
static enum hv_err load_pointer(const struct emul *e, enum seg_reg seg)
{
    unsigned size = e->in->operand_bytes;
    uint64_t offset = 0, selector = 0;
    enum hv_err err = exec_pointer(e, size, &offset, &selector);

    if (!err) {
        err = segment_load(e, seg, (uint16_t)selector);
    }
    if (!err) {
        operand_reg_set(e, e->in->reg, size, offset);
    }
    return err;
}

/* --- descriptor tables --- */

static enum hv_err load_table(const struct emul *e, enum seg_reg seg)
{
    bool whole = e->in->mode == EMUL_64;
    struct segment s = {.attr = 0};
    uint64_t limit = 0, base = 0;
    struct operand at_limit, at_base;
    enum hv_err err = operand_resolve(e, operand_ref(e, 0), 2, false, &at_limit);

    if (err) {
        return err;
    }
    err = operand_resolve(e, operand_ref(e, 2), whole ? 8 : 4, false, &at_base);
    if (!err) {
        err = operand_access(e, &at_limit, false, &limit);
        err = err ? err : operand_access(e, &at_base, false, &base);
        operand_release(e, &at_base);
    }
    operand_release(e, &at_limit);
    if (err) {
        return err;
    }
    s.limit = (uint32_t)limit;
    s.base = e->in->operand_bytes == 2 && !whole ? base & 0xffffff : base;
    hv->set_seg(e->v, seg, &s);
    return HV_OK;
}

static enum hv_err store_table(const struct emul *e, enum seg_reg seg)
{
    bool whole = e->in->mode == EMUL_64;
    struct operand at_limit, at_base;
    struct segment s;
    enum hv_err err = operand_resolve(e, operand_ref(e, 0), 2, true, &at_limit);

    if (err) {
        return err;
    }
    err = operand_resolve(e, operand_ref(e, 2), whole ? 8 : 4, true, &at_base);
    if (!err) {
        hv->get_seg(e->v, seg, &s);
        uint64_t limit = s.limit, base = s.base;
        err = operand_access(e, &at_limit, true, &limit);
        err = err ? err : operand_access(e, &at_base, true, &base);
        operand_release(e, &at_base);
    }
    operand_release(e, &at_limit);
    return err;
}

static enum hv_err table(const struct emul *e)
{
    unsigned group = e->in->reg & 7;
    enum seg_reg seg = group & 1 ? SEG_IDTR : SEG_GDTR;

    if (e->in->mod == 3 || group > 3) {
        return HV_ENOTSUP;
    }
    if (group < 2) {
        return store_table(e, seg);
    }
    return vcpu_cpl(e->v) ? segment_fault(e, EXC_GP, 0) : load_table(e, seg);
}

/* SLDT, STR, LLDT, LTR. */
static enum hv_err system_segment(const struct emul *e)
{
    unsigned group = e->in->reg & 7;
    enum seg_reg seg = group & 1 ? SEG_TR : SEG_LDTR;
    unsigned size = e->in->mod == 3 && group < 2 ? e->in->operand_bytes : 2;
    uint64_t selector = 0;
    struct operand o;
    struct segment s;

    if (group > 3) {
        return HV_ENOTSUP;
    }
    if (segment_is_real(e)) {
        return segment_fault(e, EXC_UD, 0);
    }
    if (group >= 2 && vcpu_cpl(e->v)) {
        return segment_fault(e, EXC_GP, 0);
    }
    enum hv_err err = operand_resolve_rm(e, 0, size, group < 2, &o);
    if (err) {
        return err;
    }
    hv->get_seg(e->v, seg, &s);
    selector = s.selector;
    err = operand_access(e, &o, group < 2, &selector);
    operand_release(e, &o);
    return err || group < 2 ? err : segment_load_system(e, seg, (uint16_t)selector);
}

enum hv_err exec_seg(const struct emul *e)
{
    switch (e->in->opcode) {
    case 0x06:
    case 0x0e:
    case 0x16:
    case 0x1e:
        return push(e, (enum seg_reg)(e->in->opcode >> 3));
    case 0x07:
    case 0x17:
    case 0x1f:
        return pop(e, (enum seg_reg)(e->in->opcode >> 3));
    case 0x0fa0:
    case 0x0fa8:
        return push(e, e->in->opcode & 8 ? SEG_GS : SEG_FS);
    case 0x0fa1:
    case 0x0fa9:
        return pop(e, e->in->opcode & 8 ? SEG_GS : SEG_FS);
    case 0x8e:
        return move_to(e);
    case 0xc4:
        return load_pointer(e, SEG_ES);
    case 0xc5:
        return load_pointer(e, SEG_DS);
    case 0x0fb2:
        return load_pointer(e, SEG_SS);
    case 0x0fb4:
    case 0x0fb5:
        return load_pointer(e, e->in->opcode & 1 ? SEG_GS : SEG_FS);
    case 0x0f00:
        return system_segment(e);
    case 0x0f01:
        return table(e);
    default:
        return HV_ENOTSUP;
    }
}

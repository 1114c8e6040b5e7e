/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control transfers and the flags that belong to them, for code that the processor cannot run (step.c).
 * See exec.h. A target is checked before anything is pushed or popped; whatever moves RIP itself answers
 * HV_EBUSY. Transfers stay at one privilege level. Manual: "Control Transfer Instructions".
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/regs.h"
#include "kernel/emul/alu.h"
#include "kernel/emul/exec.h"
#include "kernel/emul/segment.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/vm.h"

#define RFLAGS_IOPL_SHIFT 12

static uint64_t flags_get(const struct emul *e)
{
    return hv->get_reg(e->v, REG_RFLAGS);
}

static uint64_t next_rip(const struct emul *e)
{
    return (e->v->rip + e->in->length) & (e->in->mode == EMUL_64 ? UINT64_MAX : UINT32_MAX);
}

/* Near branches in 64-bit code are always 64 bits wide. */
static unsigned branch_bytes(const struct emul *e)
{
    return e->in->mode == EMUL_64 ? 8 : e->in->operand_bytes;
}

/* May RIP be that, in this code segment? */
static enum hv_err check_target(const struct emul *e, const struct segment *cs, uint64_t rip)
{
    bool fits = e->in->mode == EMUL_64 ? is_canonical(rip) : rip <= cs->limit;

    return fits ? HV_OK : segment_fault(e, EXC_GP, 0);
}

/* RIP is there; a debug exception follows if TF was set when the instruction began. */
static enum hv_err arrive(const struct emul *e, uint64_t rip, uint64_t old_flags)
{
    e->v->rip = rip;
    (void)hv->advance(e->v, 0);
    if (old_flags & RFLAGS_TF) {
        (void)insn_single_step(e->v);
    }
    return HV_EBUSY;
}

static enum hv_err near_check(const struct emul *e, uint64_t *rip)
{
    struct segment cs;

    *rip &= size_mask(branch_bytes(e));
    hv->get_seg(e->v, SEG_CS, &cs);
    return check_target(e, &cs, *rip);
}

static enum hv_err jump(const struct emul *e, uint64_t rip)
{
    enum hv_err err = near_check(e, &rip);

    return err ? err : arrive(e, rip, flags_get(e));
}

static enum hv_err jump_relative(const struct emul *e, bool taken)
{
    return taken ? jump(e, next_rip(e) + (uint64_t)e->in->imm) : HV_OK;
}

static enum hv_err call(const struct emul *e, uint64_t rip)
{
    uint64_t back = next_rip(e);
    enum hv_err err = near_check(e, &rip);

    if (!err) {
        err = stack_push(e, branch_bytes(e), &back, 1);
    }
    return err ? err : arrive(e, rip, flags_get(e));
}

static enum hv_err ret(const struct emul *e, unsigned extra)
{
    uint64_t rip = 0;
    enum hv_err err = stack_peek(e, branch_bytes(e), &rip, 1);

    if (!err) {
        err = near_check(e, &rip);
    }
    if (err) {
        return err;
    }
    stack_drop(e, branch_bytes(e) + extra);
    return arrive(e, rip, flags_get(e));
}

/* LOOPNE, LOOPE, LOOP, JCXZ. */
static enum hv_err loop(const struct emul *e)
{
    unsigned width = e->in->address_bytes;
    uint64_t count = operand_reg_get(e, GPR_RCX, width);
    bool zero = (flags_get(e) & RFLAGS_ZF) != 0;

    if (e->in->opcode == 0xe3) {
        return jump_relative(e, count == 0);
    }
    count = (count - 1) & size_mask(width);
    bool taken = count != 0 && (e->in->opcode == 0xe2 || zero == (e->in->opcode == 0xe1));
    if (taken) {
        uint64_t rip = next_rip(e) + (uint64_t)e->in->imm;
        enum hv_err err = near_check(e, &rip);

        if (err) {
            return err;
        }
    }
    operand_reg_set(e, GPR_RCX, width, count);
    return jump_relative(e, taken);
}

/* --- far --- */

enum hv_err exec_pointer(const struct emul *e, unsigned size, uint64_t *offset, uint64_t *selector)
{
    struct operand at_offset, at_selector;
    enum hv_err err = operand_resolve(e, operand_ref(e, 0), size, false, &at_offset);

    if (err) {
        return err;
    }
    err = operand_resolve(e, operand_ref(e, (int64_t)size), 2, false, &at_selector);
    if (!err) {
        err = operand_access(e, &at_offset, false, offset);
        err = err ? err : operand_access(e, &at_selector, false, selector);
        operand_release(e, &at_selector);
    }
    operand_release(e, &at_offset);
    return err;
}

static enum hv_err far_check(const struct emul *e, uint64_t selector, uint64_t *rip,
                             struct segment *cs)
{
    enum hv_err err = segment_code(e, (uint16_t)selector, cs);

    *rip &= size_mask(e->in->operand_bytes);
    return err ? err : check_target(e, cs, *rip);
}

static enum hv_err far(const struct emul *e, uint64_t selector, uint64_t rip, bool is_call)
{
    struct segment cs, old;
    enum hv_err err = far_check(e, selector, &rip, &cs);

    hv->get_seg(e->v, SEG_CS, &old);
    uint64_t back[2] = {next_rip(e), old.selector};
    if (!err && is_call) {
        err = stack_push(e, e->in->operand_bytes, back, 2);
    }
    if (err) {
        return err;
    }
    hv->set_seg(e->v, SEG_CS, &cs);
    return arrive(e, rip, flags_get(e));
}

static enum hv_err far_memory(const struct emul *e, bool is_call)
{
    uint64_t offset = 0, selector = 0;
    enum hv_err err = e->in->mod == 3 ? segment_fault(e, EXC_UD, 0)
                                      : exec_pointer(e, e->in->operand_bytes, &offset, &selector);

    return err ? err : far(e, selector, offset, is_call);
}

/* Outwards, the stack changes too. */
static bool stays_inside(const struct emul *e, uint64_t selector)
{
    return e->in->mode != EMUL_64 &&
           (segment_is_real(e) || (selector & SELECTOR_RPL) == vcpu_cpl(e->v));
}

static enum hv_err far_return(const struct emul *e, unsigned extra)
{
    unsigned size = e->in->operand_bytes;
    uint64_t top[2] = {0}; /* IP, CS */
    struct segment cs;
    enum hv_err err = stack_peek(e, size, top, 2);

    if (!err && !stays_inside(e, top[1])) {
        err = HV_ENOTSUP;
    }
    if (!err) {
        err = far_check(e, top[1], &top[0], &cs);
    }
    if (err) {
        return err;
    }
    stack_drop(e, 2 * size + extra);
    hv->set_seg(e->v, SEG_CS, &cs);
    return arrive(e, top[0], flags_get(e));
}

/* --- flags --- */

#define FLAGS_STATUS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)
#define FLAGS_IOPL (3ULL << RFLAGS_IOPL_SHIFT)
#define FLAGS_16 (FLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | FLAGS_IOPL | RFLAGS_NT)
#define FLAGS_32 (FLAGS_16 | RFLAGS_AC | RFLAGS_ID)

static bool may_change_if(const struct emul *e)
{
    return vcpu_cpl(e->v) <= (flags_get(e) >> RFLAGS_IOPL_SHIFT & 3);
}

/* What POPF and IRET make of a value from the stack ("POPF", "IRET"). */
static uint64_t flags_from(const struct emul *e, uint64_t value, unsigned size)
{
    uint64_t old = flags_get(e), changes = size == 2 ? FLAGS_16 : FLAGS_32;

    if (vcpu_cpl(e->v) != 0) {
        changes &= ~FLAGS_IOPL;
    }
    if (!may_change_if(e)) {
        changes &= ~RFLAGS_IF;
    }
    return (old & ~(changes | RFLAGS_RF)) | (value & changes);
}

static enum hv_err push_flags(const struct emul *e)
{
    uint64_t value = flags_get(e) & ~(RFLAGS_VM | RFLAGS_RF);

    return stack_push(e, stack_size(e), &value, 1);
}

static enum hv_err pop_flags(const struct emul *e)
{
    unsigned size = stack_size(e);
    uint64_t value = 0, old = flags_get(e);
    enum hv_err err = stack_peek(e, size, &value, 1);

    if (err) {
        return err;
    }
    stack_drop(e, size);
    hv->set_reg(e->v, REG_RFLAGS, flags_from(e, value, size));
    return arrive(e, next_rip(e), old);
}

static enum hv_err set_if(const struct emul *e, bool on)
{
    uint64_t flags = flags_get(e);

    if (!may_change_if(e)) {
        return segment_fault(e, EXC_GP, 0);
    }
    hv->set_reg(e->v, REG_RFLAGS, on ? flags | RFLAGS_IF : flags & ~RFLAGS_IF);
    return on && !(flags & RFLAGS_IF) ? exec_done_in_shadow(e) : HV_OK;
}

enum hv_err exec_done_in_shadow(const struct emul *e)
{
    vcpu_advance(e->v, e->in->length);
    hv->emulation->block(e->v, BLOCK_SHADOW, true);
    return HV_EBUSY;
}

/* --- interrupts --- */

static enum hv_err interrupt(const struct emul *e, uint8_t vector)
{
    const struct exec_interrupt what = {.vector = vector, .soft = true, .rip = next_rip(e)};
    uint64_t flags = flags_get(e);
    enum hv_err err = exec_deliver(e, &what);

    return err ? err : arrive(e, e->v->rip, flags);
}

static enum hv_err iret(const struct emul *e)
{
    unsigned size = e->in->operand_bytes;
    uint64_t top[3] = {0}, old = flags_get(e); /* IP, CS, flags */
    struct segment cs;
    enum hv_err err = stack_peek(e, size, top, 3);
    bool real = segment_is_real(e);

    if (!err && (!stays_inside(e, top[1]) ||
                 (!real && ((old & RFLAGS_NT) || (size == 4 && (top[2] & RFLAGS_VM)))))) {
        err = HV_ENOTSUP;
    }
    if (!err) {
        err = far_check(e, top[1], &top[0], &cs);
    }
    if (err) {
        return err;
    }
    stack_drop(e, 3 * size);
    hv->set_seg(e->v, SEG_CS, &cs);
    hv->set_reg(e->v, REG_RFLAGS,
                flags_from(e, top[2], size) | (size == 4 ? top[2] & RFLAGS_RF : 0));
    hv->emulation->block(e->v, BLOCK_NMI, false);
    e->v->rip = top[0];
    hv->clear_shadow(e->v);
    if (old & RFLAGS_TF) {
        (void)insn_single_step(e->v);
    }
    return HV_EBUSY;
}

/* --- the table --- */

static enum hv_err group5(const struct emul *e)
{
    unsigned group = e->in->reg & 7;
    uint64_t target = 0;
    struct operand o;

    if (group == 3 || group == 5) {
        return far_memory(e, group == 3);
    }
    if (group != 2 && group != 4) {
        return HV_ENOTSUP;
    }
    enum hv_err err = operand_resolve_rm(e, 0, branch_bytes(e), false, &o);
    if (!err) {
        err = operand_access(e, &o, false, &target);
        operand_release(e, &o);
    }
    if (err) {
        return err;
    }
    return group == 2 ? call(e, target) : jump(e, target);
}

enum hv_err exec_flow(const struct emul *e)
{
    const struct insn *in = e->in;
    unsigned imm16 = (unsigned)in->imm & 0xffff;

    switch (in->opcode) {
    case 0x70 ... 0x7f:
    case 0x0f80 ... 0x0f8f:
        return jump_relative(e, alu_condition(in->opcode & 15, flags_get(e)));
    case 0xe0 ... 0xe3:
        return loop(e);
    case 0xe8:
        return call(e, next_rip(e) + (uint64_t)in->imm);
    case 0xe9:
    case 0xeb:
        return jump_relative(e, true);
    case 0xc2:
        return ret(e, imm16);
    case 0xc3:
        return ret(e, 0);
    case 0xff:
        return group5(e);
    case 0x9a:
        return far(e, in->imm2, (uint64_t)in->imm, true);
    case 0xea:
        return far(e, in->imm2, (uint64_t)in->imm, false);
    case 0xca:
        return far_return(e, imm16);
    case 0xcb:
        return far_return(e, 0);
    case 0x9c:
        return push_flags(e);
    case 0x9d:
        return pop_flags(e);
    case 0xcc:
        return interrupt(e, EXC_BP);
    case 0xcd:
        return interrupt(e, (uint8_t)in->imm);
    case 0xce:
        return flags_get(e) & RFLAGS_OF ? interrupt(e, EXC_OF) : HV_OK;
    case 0xcf:
        return iret(e);
    case 0xfa:
    case 0xfb:
        return set_if(e, in->opcode == 0xfb);
    default:
        return HV_ENOTSUP;
    }
}

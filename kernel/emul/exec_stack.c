/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PUSH and POP. See exec.h. All memory operands are resolved before the first effect, and RSP changes
 * last; any operand may be what exited, so all are walked. Manual: "PUSH", "POP".
 */
#include "kernel/emul/exec.h"
#include "kernel/vm/vm.h"

#define SS_BIG BIT(10)

struct stack {
    const struct emul *e;
    unsigned width, size; /* bytes: of the stack pointer, of what is moved */
    struct operand slot;  /* on the stack */
};

unsigned stack_size(const struct emul *e)
{
    unsigned size = e->in->operand_bytes;

    return e->in->mode == EMUL_64 && size == 4 ? 8 : size;
}

static unsigned stack_width(const struct emul *e)
{
    struct segment ss;

    if (e->in->mode == EMUL_64) {
        return 8;
    }
    hv->get_seg(e->v, SEG_SS, &ss);
    return ss.attr & SS_BIG ? 4 : 2;
}

static uint64_t stack_pointer(const struct stack *s)
{
    return operand_reg_get(s->e, GPR_RSP, s->width);
}

static enum hv_err resolve_slot(struct stack *s, uint64_t pointer, bool write)
{
    const struct mem_ref ref = {.seg = SEG_SS, .offset = pointer & size_mask(s->width)};

    return operand_resolve(s->e, ref, s->size, write, &s->slot);
}

static enum hv_err push(struct stack *s, const uint64_t *value, const struct operand *from)
{
    uint64_t pointer = stack_pointer(s) - s->size, moved = value ? *value : 0;
    enum hv_err err = resolve_slot(s, pointer, true);

    if (!err && from) {
        err = operand_access(s->e, from, false, &moved);
    }
    if (!err) {
        err = operand_access(s->e, &s->slot, true, &moved);
    }
    if (!err) {
        operand_reg_set(s->e, GPR_RSP, s->width, pointer);
    }
    operand_release(s->e, &s->slot);
    return err;
}

static enum hv_err push_memory(struct stack *s)
{
    struct operand from;
    enum hv_err err = operand_resolve_rm(s->e, 0, s->size, false, &from);

    if (!err) {
        err = push(s, NULL, &from);
        operand_release(s->e, &from);
    }
    return err;
}

static enum hv_err push_value(struct stack *s, uint64_t value)
{
    value &= size_mask(s->size);
    return push(s, &value, NULL);
}

static enum hv_err pop(struct stack *s, const struct operand *to, uint64_t *value)
{
    enum hv_err err = operand_access(s->e, &s->slot, false, value);

    bool moves = !err;
    uint64_t pointer = stack_pointer(s) + s->size;
    if (!err && to && to->is_reg) {
        operand_reg_set(s->e, GPR_RSP, s->width, pointer);
        moves = false; /* it may be RSP that is popped */
    }
    if (!err && to) {
        err = operand_access(s->e, to, true, value);
    }
    if (!err && moves) {
        operand_reg_set(s->e, GPR_RSP, s->width, pointer);
    }
    return err;
}

/* An address by RSP is that after the pop. */
static enum hv_err pop_memory(struct stack *s)
{
    int64_t extra = s->e->in->base == GPR_RSP ? (int64_t)s->size : 0;
    enum hv_err err = resolve_slot(s, stack_pointer(s), false);
    uint64_t value = 0;
    struct operand to;

    if (err) {
        return err;
    }
    err = operand_resolve_rm(s->e, extra, s->size, true, &to);
    if (!err) {
        err = pop(s, &to, &value);
        operand_release(s->e, &to);
    }
    operand_release(s->e, &s->slot);
    return err;
}

static enum hv_err pop_register(struct stack *s, unsigned reg)
{
    enum hv_err err = resolve_slot(s, stack_pointer(s), false);
    uint64_t value = 0;

    if (!err) {
        err = pop(s, NULL, &value);
        operand_release(s->e, &s->slot);
    }
    if (!err) {
        operand_reg_set(s->e, reg, s->size, value);
    }
    return err;
}

enum hv_err exec_stack(const struct emul *e)
{
    const struct insn *in = e->in;
    struct stack s = {.e = e, .width = stack_width(e), .size = stack_size(e)};
    unsigned reg = (in->opcode & 7u) | (in->rex & 1 ? 8 : 0);
    bool memory = in->has_modrm && (in->mod != 3 || e->all);

    switch (in->opcode) {
    case 0x50 ... 0x57:
        return push_value(&s, operand_reg_get(e, reg, s.size));
    case 0x58 ... 0x5f:
        return pop_register(&s, reg);
    case 0x68:
    case 0x6a:
        return push_value(&s, (uint64_t)in->imm);
    case 0x8f:
        return memory && (in->reg & 7) == 0 ? pop_memory(&s) : HV_ENOTSUP;
    case 0xff:
        return memory && (in->reg & 7) == 6 ? push_memory(&s) : HV_ENOTSUP;
    default:
        return HV_ENOTSUP;
    }
}

/* --- several at once --- */

static void release_slots(const struct emul *e, struct operand *slots, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        operand_release(e, &slots[i]);
    }
}

/* values[i] is at `pointer` + i * size. */
static enum hv_err move_values(const struct emul *e, unsigned size, uint64_t pointer, bool write,
                               uint64_t *values, unsigned nr)
{
    struct operand slots[STACK_VALUES] = {{.pinned = false}};
    unsigned width = stack_width(e);
    enum hv_err err = HV_OK;

    for (unsigned n = 0; !err && n < nr; n++) {
        unsigned i = write ? nr - 1 - n : n; /* as the processor goes, and faults */
        const struct mem_ref ref = {.seg = SEG_SS,
                                    .offset = (pointer + i * size) & size_mask(width)};

        err = operand_resolve(e, ref, size, write, &slots[i]);
    }
    for (unsigned i = 0; !err && i < nr; i++) {
        err = operand_access(e, &slots[i], write, &values[i]);
    }
    release_slots(e, slots, nr);
    return err;
}

enum hv_err stack_push(const struct emul *e, unsigned size, uint64_t *values, unsigned nr)
{
    unsigned width = stack_width(e);
    uint64_t pointer = operand_reg_get(e, GPR_RSP, width) - (uint64_t)nr * size;
    enum hv_err err = move_values(e, size, pointer, true, values, nr);

    if (!err) {
        operand_reg_set(e, GPR_RSP, width, pointer);
    }
    return err;
}

enum hv_err stack_peek(const struct emul *e, unsigned size, uint64_t *values, unsigned nr)
{
    return move_values(e, size, operand_reg_get(e, GPR_RSP, stack_width(e)), false, values, nr);
}

void stack_drop(const struct emul *e, unsigned bytes)
{
    unsigned width = stack_width(e);

    operand_reg_set(e, GPR_RSP, width, operand_reg_get(e, GPR_RSP, width) + bytes);
}

/* --- all registers; frames --- */

/* Highest register first in memory order: DI is on top. */
static enum hv_err push_all(const struct emul *e, unsigned size)
{
    uint64_t values[8];

    for (unsigned i = 0; i < 8; i++) {
        values[i] = operand_reg_get(e, 7 - i, size);
    }
    return stack_push(e, size, values, 8);
}

static enum hv_err pop_all(const struct emul *e, unsigned size)
{
    uint64_t values[8];
    enum hv_err err = stack_peek(e, size, values, 8);

    if (err) {
        return err;
    }
    for (unsigned i = 0; i < 8; i++) {
        if (7 - i != GPR_RSP) {
            operand_reg_set(e, 7 - i, size, values[i]);
        }
    }
    stack_drop(e, 8 * size);
    return HV_OK;
}

/* ENTER without nesting. */
static enum hv_err enter(const struct emul *e, unsigned size)
{
    uint64_t frame = operand_reg_get(e, GPR_RBP, size);
    enum hv_err err = e->in->imm2 & 31 ? HV_ENOTSUP : stack_push(e, size, &frame, 1);

    if (!err) {
        operand_reg_set(e, GPR_RBP, size, operand_reg_get(e, GPR_RSP, size));
        stack_drop(e, 0u - ((unsigned)e->in->imm & 0xffff));
    }
    return err;
}

static enum hv_err leave(const struct emul *e, unsigned size)
{
    unsigned width = stack_width(e);
    uint64_t old = operand_reg_get(e, GPR_RSP, width), frame = 0;

    operand_reg_set(e, GPR_RSP, width, operand_reg_get(e, GPR_RBP, width));
    enum hv_err err = stack_peek(e, size, &frame, 1);
    if (err) {
        operand_reg_set(e, GPR_RSP, width, old);
        return err;
    }
    stack_drop(e, size);
    operand_reg_set(e, GPR_RBP, size, frame);
    return HV_OK;
}

enum hv_err exec_frame(const struct emul *e)
{
    unsigned size = stack_size(e);

    switch (e->in->opcode) {
    case 0x60:
        return push_all(e, size);
    case 0x61:
        return pop_all(e, size);
    case 0xc8:
        return enter(e, size);
    case 0xc9:
        return leave(e, size);
    default:
        return HV_ENOTSUP;
    }
}

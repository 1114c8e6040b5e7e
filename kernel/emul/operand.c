/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registers, effective addresses and memory of emulated instructions. See operand.h.
 */
#include "kernel/emul/operand.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"

/* --- registers --- */

static uint64_t gpr_get(struct vcpu *v, unsigned reg)
{
    return reg == GPR_RSP ? hv->get_reg(v, REG_RSP) : v->gpr[reg & 15];
}

static void gpr_set(struct vcpu *v, unsigned reg, uint64_t value)
{
    if (reg == GPR_RSP) {
        hv->set_reg(v, REG_RSP, value);
    } else {
        v->gpr[reg & 15] = value;
    }
}

static bool is_high_byte(const struct emul *e, unsigned reg, unsigned size)
{
    return size == 1 && !e->in->rex && reg >= 4 && reg < 8;
}

uint64_t operand_reg_get(const struct emul *e, unsigned reg, unsigned size)
{
    if (is_high_byte(e, reg, size)) {
        return (gpr_get(e->v, reg - 4) >> 8) & 0xff;
    }
    return gpr_get(e->v, reg) & size_mask(size);
}

void operand_reg_set(const struct emul *e, unsigned reg, unsigned size, uint64_t value)
{
    value &= size_mask(size);
    if (is_high_byte(e, reg, size)) {
        uint64_t old = gpr_get(e->v, reg - 4);

        gpr_set(e->v, reg - 4, (old & ~0xff00ull) | value << 8);
    } else if (size >= 4) {
        gpr_set(e->v, reg, value);
    } else {
        gpr_set(e->v, reg, (gpr_get(e->v, reg) & ~size_mask(size)) | value);
    }
}

/* --- addresses --- */

gva_t segment_linear(const struct emul *e, unsigned seg, uint64_t offset)
{
    struct segment s;
    bool flat = e->in->mode == EMUL_64 && seg != SEG_FS && seg != SEG_GS;

    if (flat) {
        return GVA(offset);
    }
    hv->get_seg(e->v, (enum seg_reg)seg, &s);
    uint64_t linear = s.base + offset;
    return GVA(e->in->mode == EMUL_64 ? linear : (uint32_t)linear);
}

static unsigned default_segment(const struct insn *in)
{
    bool stack = in->base == GPR_RSP || in->base == GPR_RBP;

    return stack ? SEG_SS : SEG_DS;
}

gva_t operand_linear(const struct emul *e, int64_t extra)
{
    const struct insn *in = e->in;
    uint64_t offset = (uint64_t)in->disp + (uint64_t)extra;

    if (in->base == INSN_BASE_RIP) {
        offset += e->v->rip + in->length;
    } else if (in->base != INSN_NO_REG) {
        offset += gpr_get(e->v, in->base);
    }
    if (in->index != INSN_NO_REG) {
        offset += gpr_get(e->v, in->index) << in->scale;
    }
    offset &= size_mask(in->address_bytes);
    return segment_linear(e, in->seg != INSN_NO_SEG ? in->seg : default_segment(in), offset);
}

/* --- memory --- */

enum hv_err operand_resolve(const struct emul *e, gva_t gva, unsigned size, bool write,
                            struct operand *out)
{
    unsigned first = MIN(size, (unsigned)(PAGE_SIZE - (gva.a & ~PAGE_MASK)));
    uint32_t access = write ? GVA_WRITE : GVA_READ;
    enum hv_err err;

    if (e->fast) {
        return HV_EAGAIN;
    }
    out->size = size;
    out->first = first;
    err = guestmem_translate(e->v, gva, access, false, &out->part[0]);
    if (!err && first < size) {
        gva_t second = GVA(gva.a + first);

        if (e->in->mode != EMUL_64) {
            second.a = (uint32_t)second.a;
        }
        err = guestmem_translate(e->v, second, access, false, &out->part[1]);
    }
    return err;
}

enum hv_err operand_resolve_exit(const struct emul *e, gva_t gva, gpa_t gpa, unsigned size,
                                 bool write, struct operand *out)
{
    uint64_t offset = gva.a & ~PAGE_MASK;

    if (unlikely(offset + size > PAGE_SIZE)) {
        return operand_resolve(e, gva, size, write, out);
    }
    if (unlikely(offset != (gpa.a & ~PAGE_MASK))) {
        return HV_EBUSY;
    }
    *out = (struct operand){.part = {gpa, gpa}, .size = size, .first = size};
    return HV_OK;
}

static enum hv_err ram_access(struct vm *vm, gpa_t gpa, unsigned size, bool write, uint64_t *value)
{
    if (write) {
        return guestmem_write(vm, gpa, value, size);
    }
    *value = 0;
    return guestmem_read(vm, gpa, value, size);
}

/* One part: 1 to 8 bytes within a page. The bus takes powers of two. */
static enum hv_err part_access(const struct emul *e, gpa_t gpa, unsigned size, bool write,
                               uint64_t *value)
{
    struct vcpu *v = e->v;

    if (vlapic_covers(v->lapic, gpa)) {
        return vlapic_mmio(v->lapic, (uint32_t)(gpa.a & ~PAGE_MASK), size, write, value);
    }
    /* On the fast path the exit came for this address, so it is not RAM. */
    if (!e->fast && guestmem_is_ram(v->vm, gpa, size)) {
        return ram_access(v->vm, gpa, size, write, value);
    }
    if ((size & (size - 1)) == 0) {
        return bus_mmio(v->vm->bus, v, gpa, size, write, value);
    }
    uint64_t result = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t byte = (*value >> (8 * i)) & 0xff;
        enum hv_err err = bus_mmio(v->vm->bus, v, GPA(gpa.a + i), 1, write, &byte);

        if (err) {
            return err;
        }
        result |= (byte & 0xff) << (8 * i);
    }
    *value = write ? *value : result;
    return HV_OK;
}

enum hv_err operand_access(const struct emul *e, const struct operand *o, bool write,
                           uint64_t *value)
{
    uint64_t low = write ? *value & size_mask(o->first) : 0, high = 0;
    enum hv_err err = part_access(e, o->part[0], o->first, write, &low);

    if (!err && o->first < o->size) {
        high = write ? *value >> (8 * o->first) : 0;
        err = part_access(e, o->part[1], o->size - o->first, write, &high);
    }
    if (!err && !write) {
        *value = low & size_mask(o->first);
        if (o->first < o->size) {
            *value |= (high & size_mask(o->size - o->first)) << (8 * o->first);
        }
    }
    return err;
}

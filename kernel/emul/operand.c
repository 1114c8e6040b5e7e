/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registers, effective addresses and memory of emulated instructions. See operand.h.
 */
#include "kernel/emul/operand.h"

#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/string.h"
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

static unsigned default_segment(const struct insn *in)
{
    bool stack = in->base == GPR_RSP || in->base == GPR_RBP;

    return stack ? SEG_SS : SEG_DS;
}

struct mem_ref operand_ref(const struct emul *e, int64_t extra)
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
    unsigned seg = in->seg != INSN_NO_SEG ? in->seg : default_segment(in);
    return (struct mem_ref){.seg = (uint8_t)seg, .offset = offset & size_mask(in->address_bytes)};
}

static gva_t linear(const struct emul *e, const struct segment *s, uint64_t offset)
{
    uint64_t address = s->base + offset;

    return GVA(e->in->mode == EMUL_64 ? address : (uint32_t)address);
}

/* Base and limits of all segments but FS and GS are gone in 64-bit mode. */
static void segment_of_ref(const struct emul *e, struct mem_ref ref, struct segment *s)
{
    if (e->in->mode == EMUL_64 && ref.seg != SEG_FS && ref.seg != SEG_GS) {
        *s = (struct segment){.base = 0};
    } else {
        hv->get_seg(e->v, (enum seg_reg)ref.seg, s);
    }
}

gva_t operand_linear(const struct emul *e, struct mem_ref ref)
{
    struct segment s;

    segment_of_ref(e, ref, &s);
    return linear(e, &s, ref.offset);
}

enum hv_err operand_segment_fault(const struct emul *e, unsigned seg)
{
    bool has_error = (hv->get_reg(e->v, REG_CR0) & CR0_PE) != 0;

    vcpu_inject_exception(e->v, seg == SEG_SS ? EXC_SS : EXC_GP, has_error, 0);
    return HV_EFAULT;
}

/* Attributes of a segment (struct segment). Manual: "Segment-Descriptor Types". */
#define SEG_TYPE_WRITE BIT(1) /* data: writable; code: readable */
#define SEG_TYPE_DOWN BIT(2)  /* data: expands down */
#define SEG_TYPE_CODE BIT(3)
#define SEG_PRESENT BIT(7)
#define SEG_BIG BIT(10)

static bool type_allows(const struct segment *s, bool write)
{
    if (!(s->attr & SEG_PRESENT)) {
        return false;
    }
    bool code = (s->attr & SEG_TYPE_CODE) != 0, bit = (s->attr & SEG_TYPE_WRITE) != 0;

    return write ? !code && bit : !code || bit;
}

static bool limit_allows(const struct segment *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;

    if ((s->attr & (SEG_TYPE_CODE | SEG_TYPE_DOWN)) == SEG_TYPE_DOWN) {
        return offset > s->limit && last <= (s->attr & SEG_BIG ? 0xffffffffu : 0xffffu);
    }
    return last <= s->limit;
}

/* Manual: "Limit Checking", "Type Checking", "Canonical Addressing". */
static bool segment_allows(const struct emul *e, const struct segment *s, struct mem_ref ref,
                           unsigned size, bool write)
{
    if (e->in->mode == EMUL_64) {
        uint64_t first = s->base + ref.offset;

        return is_canonical(first) && is_canonical(first + size - 1);
    }
    /* Real and virtual-8086 mode know no types. */
    bool typed =
        (hv->get_reg(e->v, REG_CR0) & CR0_PE) && !(hv->get_reg(e->v, REG_RFLAGS) & RFLAGS_VM);

    return (!typed || type_allows(s, write)) && limit_allows(s, ref.offset, size);
}

/* --- memory --- */

static enum hv_err pin_part(const struct emul *e, struct operand *o, unsigned i, bool write)
{
    enum hv_err err = HV_ENOENT;
    void *page;

    if (!vlapic_covers(e->v->lapic, o->part[i])) {
        err = guestmem_pin_by(e->v, o->part[i], write, &page);
    }
    if (!err) {
        o->ram[i] = (char *)page + (o->part[i].a & ~PAGE_MASK);
        o->pinned = true;
    }
    return err == HV_ENOENT ? HV_OK : err;
}

enum hv_err operand_resolve_linear(const struct emul *e, gva_t gva, unsigned size, uint32_t access,
                                   struct operand *out)
{
    bool write = (access & GVA_WRITE) != 0;

    *out = (struct operand){.size = size, .first = size};
    out->first = MIN(size, (unsigned)(PAGE_SIZE - (gva.a & ~PAGE_MASK)));
    enum hv_err err = guestmem_translate(e->v, gva, access, false, &out->part[0]);
    if (!err && out->first < size) {
        uint64_t next = gva.a + out->first;

        gva = GVA(e->in->mode == EMUL_64 ? next : (uint32_t)next);
        err = guestmem_translate(e->v, gva, access, false, &out->part[1]);
    }
    if (!err) {
        err = pin_part(e, out, 0, write);
    }
    if (!err && out->first < size) {
        err = pin_part(e, out, 1, write);
    }
    if (err) {
        operand_release(e, out);
    }
    return err;
}

enum hv_err operand_resolve(const struct emul *e, struct mem_ref ref, unsigned size, bool write,
                            struct operand *out)
{
    struct segment s;

    *out = (struct operand){.size = size, .first = size};
    if (e->fast) {
        return HV_EAGAIN;
    }
    segment_of_ref(e, ref, &s);
    if (!segment_allows(e, &s, ref, size, write)) {
        return operand_segment_fault(e, ref.seg);
    }
    return operand_resolve_linear(e, linear(e, &s, ref.offset), size, write ? GVA_WRITE : GVA_READ,
                                  out);
}

enum hv_err operand_resolve_rm(const struct emul *e, int64_t extra, unsigned size, bool write,
                               struct operand *out)
{
    const struct insn *in = e->in;

    if (!in->has_modrm || in->mod != 3) {
        return operand_resolve(e, operand_ref(e, extra), size, write, out);
    }
    *out = (struct operand){.size = size, .first = size, .is_reg = true, .reg = in->rm};
    return e->all ? HV_OK : HV_ENOTSUP;
}

enum hv_err operand_resolve_exit(const struct emul *e, int64_t extra, gpa_t gpa, unsigned size,
                                 bool write, struct operand *out)
{
    struct segment s;

    if (unlikely(e->all)) {
        return operand_resolve_rm(e, extra, size, write, out);
    }
    struct mem_ref ref = operand_ref(e, extra);
    if (unlikely(e->ram || (write && e->reads))) {
        return operand_resolve(e, ref, size, write, out);
    }
    segment_of_ref(e, ref, &s);
    uint64_t offset = linear(e, &s, ref.offset).a & ~PAGE_MASK;
    if (unlikely(offset + size > PAGE_SIZE)) {
        return operand_resolve(e, ref, size, write, out);
    }
    if (unlikely(offset != (gpa.a & ~PAGE_MASK))) {
        return HV_EBUSY;
    }
    *out = (struct operand){.part = {gpa, gpa}, .size = size, .first = size};
    return HV_OK;
}

void operand_release(const struct emul *e, struct operand *o)
{
    if (likely(!o->pinned)) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (o->ram[i]) {
            guestmem_unpin(e->v->vm, o->part[i], (char *)o->ram[i] - (o->part[i].a & ~PAGE_MASK));
            o->ram[i] = NULL;
        }
    }
    o->pinned = false;
}

/* Aligned words in one access: other vCPUs may be looking. */
static void ram_write(void *ram, unsigned size, uint64_t value)
{
    if ((uintptr_t)ram & (size - 1)) {
        memcpy(ram, &value, size);
    } else if (size == 8) {
        __atomic_store_n((uint64_t *)ram, value, __ATOMIC_RELAXED);
    } else if (size == 4) {
        __atomic_store_n((uint32_t *)ram, (uint32_t)value, __ATOMIC_RELAXED);
    } else if (size == 2) {
        __atomic_store_n((uint16_t *)ram, (uint16_t)value, __ATOMIC_RELAXED);
    } else {
        memcpy(ram, &value, size);
    }
}

static void ram_access(void *ram, unsigned size, bool write, uint64_t *value)
{
    if (write) {
        ram_write(ram, size, *value);
    } else {
        *value = 0;
        memcpy(value, ram, size);
    }
}

/* One part: 1 to 8 bytes within a page. The bus takes powers of two. */
static enum hv_err part_access(const struct emul *e, gpa_t gpa, void *ram, unsigned size,
                               bool write, uint64_t *value)
{
    struct vcpu *v = e->v;

    if (unlikely(ram)) {
        ram_access(ram, size, write, value);
        return HV_OK;
    }
    if (vlapic_covers(v->lapic, gpa)) {
        return vlapic_mmio(v->lapic, (uint32_t)(gpa.a & ~PAGE_MASK), size, write, value);
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

    if (unlikely(o->is_reg)) {
        if (write) {
            operand_reg_set(e, o->reg, o->size, *value);
        } else {
            *value = operand_reg_get(e, o->reg, o->size);
        }
        return HV_OK;
    }
    enum hv_err err = part_access(e, o->part[0], o->ram[0], o->first, write, &low);

    if (!err && o->first < o->size) {
        high = write ? *value >> (8 * o->first) : 0;
        err = part_access(e, o->part[1], o->ram[1], o->size - o->first, write, &high);
    }
    if (!err && !write) {
        *value = low & size_mask(o->first);
        if (o->first < o->size) {
            *value |= (high & size_mask(o->size - o->first)) << (8 * o->first);
        }
    }
    return err;
}

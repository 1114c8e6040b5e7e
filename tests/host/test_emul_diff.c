/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator against the processor that the test runs on: random encodings and operands of every form
 * that it claims, in 64-, 32- and 16-bit mode, executed natively on one copy of the arena and emulated
 * on the other; registers, flags, memory and the fault, if there is one, must be alike. Pages without
 * rights and segments with limits make faults; operands cross pages, of RAM and of devices.
 *
 * 16-bit code differs from 32-bit code in what the prefixes 66 and 67 mean, so the processor is given the
 * 32-bit form of what the emulator executes as 16-bit code.
 *
 * What cannot be compared here: INS and OUTS (user space may not), real and virtual-8086 mode, FS (the C
 * library's); those are in test_emul.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "arch/x86_64/regs.h"
#include "kernel/lib/rng.h"
#include "mm/p2m.h"
#include "tests/host/emulenv.h"
#include "tests/host/emulforms.h"
#include "tests/host/fakevm.h"
#include "tests/host/nativecpu.h"

#define CASES 1200000u /* unless the environment says BALLAST_CASES */
#define NONE 0xffu
#define OPCODE_CMPS 0xa6

static struct rng rng;
static unsigned cases = CASES;
static bool old_modes; /* this kernel lets us run them */
static struct vcpu *const v = &fake.vcpu[0];
static unsigned compared[MAX_FORMS][3], faulted[MAX_FORMS];

/* --- a random case --- */

struct random_case {
    const struct emul_form *f;
    enum emul_mode mode;
    struct native_regs regs;
    struct segment seg[6];
    uint64_t target; /* linear address of the ModRM operand, behind what a bit number adds */
    uint8_t insn[15];
    unsigned len, operand, address, rex, override, reg;
    unsigned prefixes; /* bytes of them, REX not included */
    unsigned base, index, scale, disp_at, disp_len;
    bool rip_relative;
    bool step; /* by emul_step */
    bool register_form;
    int64_t disp, extra; /* extra: what the instruction adds to the address */
};

static uint64_t mask(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : BIT(8 * bytes) - 1;
}

static uint64_t random_value(void)
{
    static const uint64_t corners[] = {0,         1,          0x7f,       0x80,       0xff,
                                       0x7fff,    0x8000,     0x7fffffff, 0x80000000, 0xffffffff,
                                       INT64_MAX, 1ull << 63, UINT64_MAX};
    if (rng_below(&rng, 3) == 0) {
        return corners[rng_below(&rng, ARRAY_SIZE(corners))];
    }
    return rng_next(&rng) >> rng_below(&rng, 64);
}

static bool one_in(unsigned n)
{
    return rng_below(&rng, n) == 0;
}

/* Around the arena's page boundaries, often right at one. */
static uint64_t random_place(void)
{
    uint64_t boundary = (uint64_t)env.native + 4096 * (1 + rng_below(&rng, 4));

    return one_in(2) ? boundary - 16 + rng_below(&rng, 24) : boundary - 350 + rng_below(&rng, 700);
}

static void put(struct random_case *c, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        c->insn[c->len++] = (uint8_t)(value >> (8 * i));
    }
}

static void set_low(uint64_t *reg, unsigned bytes, uint64_t value)
{
    *reg = (*reg & ~mask(bytes)) | (value & mask(bytes));
}

static unsigned memory_bytes(const struct random_case *c)
{
    unsigned n = c->f->mem ? c->f->mem : c->operand;

    return c->f->mem == 4 && c->operand == 2 ? 2 : n;
}

static void make_segment_registers(struct random_case *c)
{
    for (unsigned i = 0; i < 6; i++) {
        if (c->mode == EMUL_64) {
            c->seg[i] = (struct segment){.selector = i == SEG_CS   ? 0x33
                                                     : i == SEG_SS ? 0x2b
                                                                   : 0,
                                         .attr = i == SEG_CS ? 0x2fb : DATA | BIG};
        } else {
            unsigned n = (unsigned)rng_below(&rng, i == SEG_SS ? NR_WRITABLE_DATA : NR_EMUL_DATA);
            c->seg[i] = emul_data[one_in(2) ? (one_in(2) ? DATA_SMALL : DATA_FLAT) : n];
        }
        c->regs.seg[i] = c->seg[i].selector;
    }
    if (c->mode != EMUL_64) {
        c->seg[SEG_CS] = (struct segment){.selector = 7,
                                          .attr = c->mode == EMUL_32 ? 0x4fb : 0xfb,
                                          .limit = 0xffff,
                                          .base = (uint64_t)env.native - 4096};
        c->seg[SEG_FS] = (struct segment){.attr = 0};
    }
}

static void make_override(struct random_case *c)
{
    static const uint8_t prefix[6] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    unsigned seg = (unsigned)rng_below(&rng, 6);

    c->override = NONE;
    if (!one_in(8) || seg == SEG_FS || c->f->special & (S_PLAIN | S_OPREG | S_ACC)) {
        return;
    }
    put(c, prefix[seg], 1);
    if (c->mode != EMUL_64) {
        c->override = seg;
    } else if (seg == SEG_GS) {
        c->override = seg;
        c->seg[SEG_GS].base = rng_next(&rng) >> (one_in(2) ? 40 : 18);
        native_gs_base(c->seg[SEG_GS].base);
    }
}

/* The operand's size does not depend on prefixes. */
static bool is_fixed(const struct emul_form *f)
{
    return (f->special & S_NARROW) || f->mem == 8;
}

static void make_prefixes(struct random_case *c)
{
    const struct emul_form *f = c->f;
    bool narrow = c->mode == EMUL_16;

    c->address = c->mode == EMUL_64 ? 8 : c->mode == EMUL_32 ? 4 : 2;
    make_override(c);
    if (one_in(4) && !is_fixed(f) && !(f->special & S_WIDE)) {
        put(c, 0x66, 1);
        narrow = !narrow;
    }
    narrow = narrow && !is_fixed(f);
    c->operand = narrow ? 2 : 4;
    if (one_in(8)) {
        put(c, 0x67, 1);
        c->address = c->address == 4 ? 2 : 4;
    }
    if ((f->special & S_STRING) && one_in(2)) {
        put(c, one_in(3) ? 0xf2 : 0xf3, 1);
    }
    if ((f->special & S_LOCK) && !c->register_form && one_in(8)) {
        put(c, 0xf0, 1);
    }
    c->prefixes = c->len;
    if (c->mode == EMUL_64 && (one_in(2) || f->special & S_WIDE)) {
        c->rex = 0x40 | (unsigned)rng_below(&rng, 16);
        c->rex = f->mem == 8 || (f->special & S_NARROW && f->mem) ? c->rex & ~8u : c->rex;
        c->rex &= f->special & (S_NO_64) ? ~8u : ~0u;
        c->rex |= f->special & S_WIDE ? 8 : 0;
        c->rex &= f->special & S_SEG ? ~4u : ~0u;
        put(c, c->rex, 1);
        c->operand = c->rex & 8 ? 8 : c->operand;
    }
    if (c->mode == EMUL_64 && (f->special & S_STACK) && c->operand == 4) {
        c->operand = 8;
    }
}

/* Base, index and displacement of a random ModRM byte and what follows. */
static void make_modrm(struct random_case *c)
{
    static const uint8_t base16[8] = {3, 3, 5, 5, 6, 7, 5, 3}, index16[4] = {6, 7, 6, 7};
    unsigned mod = (unsigned)rng_below(&rng, 3), rm = (unsigned)rng_below(&rng, 8);
    unsigned field = c->f->group >= 0 ? (unsigned)c->f->group
                                      : (unsigned)rng_below(&rng, c->f->special & S_SEG ? 6 : 8);
    unsigned word = c->address == 2 ? 2 : 4;

    mod = c->register_form ? 3 : mod;
    c->reg = field | (c->rex & 4 ? 8 : 0);
    c->disp_len = mod == 1 ? 1 : mod == 2 ? word : 0;
    put(c, mod << 6 | field << 3 | rm, 1);
    if (mod == 3) {
        return;
    }
    if (c->address == 2) {
        c->base = base16[rm];
        c->index = rm < 4 ? index16[rm] : NONE;
        if (mod == 0 && rm == 6) {
            c->base = NONE;
            c->disp_len = 2;
        }
    } else if (rm == 4) {
        unsigned sib = (unsigned)rng_below(&rng, 256);
        put(c, sib, 1);
        c->scale = sib >> 6;
        c->index = (sib >> 3 & 7) | (c->rex & 2 ? 8 : 0);
        c->index = c->index == 4 ? NONE : c->index;
        c->base = (sib & 7) | (c->rex & 1 ? 8 : 0);
        if ((sib & 7) == 5 && mod == 0) {
            c->base = NONE;
            c->disp_len = 4;
        }
    } else {
        c->base = rm | (c->rex & 1 ? 8 : 0);
        if (rm == 5 && mod == 0) {
            c->base = NONE;
            c->disp_len = 4;
            c->rip_relative = c->mode == EMUL_64;
        }
    }
    c->disp_at = c->len;
    bool near = (c->f->special & S_STACK) && c->base == GPR_RSP;
    c->disp = (int64_t)rng_below(&rng, 256) - 128;
    if (!near && c->disp_len > 1) {
        c->disp = c->disp_len == 2 ? (int16_t)rng_next(&rng) : (int32_t)rng_next(&rng);
    }
    c->disp = c->disp_len ? c->disp : 0;
    if (near && c->index != NONE) {
        c->regs.gpr[c->index] = rng_below(&rng, 64);
    }
    put(c, (uint64_t)c->disp, c->disp_len);
}

static uint64_t effective(const struct random_case *c)
{
    uint64_t offset = (uint64_t)(c->disp + c->extra);

    offset += c->base != NONE ? c->regs.gpr[c->base] : 0;
    offset += c->index != NONE ? c->regs.gpr[c->index] << c->scale : 0;
    return offset & mask(c->address);
}

/* A bit number moves the address by whole operands. */
static void make_bit_number(struct random_case *c)
{
    int64_t number = (int64_t)rng_below(&rng, 4096) - 2048;
    int64_t words = number >> (c->operand == 8 ? 6 : c->operand == 4 ? 5 : 4);

    set_low(&c->regs.gpr[c->reg], c->operand, (uint64_t)number);
    c->extra += words * (int64_t)c->operand;
}

/* Change a register or the displacement so that the operand is at the target; false: cannot. */
static bool aim(struct random_case *c)
{
    bool stack = c->base == GPR_RSP || c->base == GPR_RBP;
    unsigned seg = c->override != NONE ? c->override : stack ? SEG_SS : SEG_DS;
    uint64_t want = c->target - c->seg[seg].base;

    if ((want & mask(c->address)) != want || (c->base != NONE && c->base == c->index)) {
        return false;
    }
    if ((c->f->special & S_BIT) && (c->reg == c->base || c->reg == c->index)) {
        return false;
    }
    uint64_t delta = (want - effective(c)) & mask(c->address);
    if (c->base != NONE) {
        set_low(&c->regs.gpr[c->base], c->address, c->regs.gpr[c->base] + delta);
    } else if (c->index != NONE && c->scale == 0) {
        set_low(&c->regs.gpr[c->index], c->address, c->regs.gpr[c->index] + delta);
    } else if (c->disp_len >= 2) {
        unsigned shift = 64 - 8 * c->disp_len;
        c->disp = (int64_t)((uint64_t)(c->disp + (int64_t)delta) << shift) >> shift;
        memcpy(c->insn + c->disp_at, &c->disp, c->disp_len);
    }
    return effective(c) == want;
}

static bool make_operands(struct random_case *c)
{
    const struct emul_form *f = c->f;
    unsigned reg = (unsigned)rng_below(&rng, 8);
    unsigned imm = f->imm == 4 && c->operand == 2 ? 2 : f->imm == 8 ? c->operand : f->imm;
    unsigned add = f->special & S_CC ? (unsigned)rng_below(&rng, 16)
                   : f->special & S_OPREG || (f->special & S_PLAIN && !f->imm) ? reg
                                                                               : 0;

    c->base = c->index = NONE;
    if (f->opcode > 0xff) {
        put(c, 0x0f, 1);
    }
    put(c, (f->opcode & 0xff) + add, 1);
    if (f->special & S_DIRECT) {
        unsigned seg = c->override != NONE ? c->override : SEG_DS;
        uint64_t offset = c->target - c->seg[seg].base;
        put(c, offset, c->address);
        return (offset & mask(c->address)) == offset;
    }
    if (f->special & S_NO_MODRM) {
        put(c, rng_next(&rng), imm);
        return true;
    }
    make_modrm(c);
    /* POP has moved RSP when it makes the address. */
    c->extra = f->opcode == 0x8f && c->base == GPR_RSP ? (int64_t)c->operand : 0;
    put(c, f->special & S_COUNT ? rng_below(&rng, 17) : rng_next(&rng), imm);
    if (f->special & S_COUNT) {
        set_low(&c->regs.gpr[GPR_RCX], 1, rng_below(&rng, 17));
    }
    if (c->register_form) {
        return true;
    }
    if (c->rip_relative) {
        c->extra += (int64_t)(native_rip(NATIVE_64) + c->len);
    }
    if (f->special & S_BIT) {
        make_bit_number(c);
    }
    return aim(c) && c->len <= 15;
}

/* String and stack registers point into the arena, so that nothing else is touched. */
static void make_pointers(struct random_case *c)
{
    unsigned seg = c->override != NONE ? c->override : SEG_DS;
    uint64_t source = random_place(), destination = random_place();

    if (c->f->special & S_STRING) {
        set_low(&c->regs.gpr[GPR_RSI], c->address, source - c->seg[seg].base);
        set_low(&c->regs.gpr[GPR_RDI], c->address, destination - c->seg[SEG_ES].base);
        set_low(&c->regs.gpr[GPR_RCX], c->address, rng_below(&rng, one_in(8) ? 150 : 20));
        c->regs.flags |= one_in(2) ? RFLAGS_DF : 0;
    }
    if (c->f->special & S_STACK) {
        c->regs.gpr[GPR_RSP] = random_place() - c->seg[SEG_SS].base;
    }
    if (c->f->special & S_FRAME) {
        c->regs.gpr[GPR_RBP] = random_place() - c->seg[SEG_SS].base;
    }
    if (c->f->special & S_TABLE) {
        set_low(&c->regs.gpr[GPR_RBX], c->address, source - c->seg[seg].base);
    }
}

/* XLAT's. */
static uint64_t table_entry(const struct random_case *c)
{
    return (c->regs.gpr[GPR_RBX] + (c->regs.gpr[GPR_RAX] & 0xff)) & mask(c->address);
}

static unsigned stack_width(const struct random_case *c)
{
    return c->mode == EMUL_64 ? 8 : c->seg[SEG_SS].attr & BIG ? 4 : 2;
}

static uint64_t stack_top(const struct random_case *c, const struct native_regs *regs)
{
    return c->seg[SEG_SS].base + (regs->gpr[GPR_RSP] & mask(stack_width(c)));
}

/* Do all pointers that were not aimed stay inside the arena? (16-bit registers cannot say everything.) */
static bool pointers_hit(const struct random_case *c)
{
    unsigned seg = c->override != NONE ? c->override : SEG_DS;
    uint64_t at[5], start = (uint64_t)env.native + 2048, room = ARENA_BYTES - 4096;
    unsigned n = 0;

    if (c->f->special & S_STRING) {
        at[n++] = c->seg[seg].base + (c->regs.gpr[GPR_RSI] & mask(c->address));
        at[n++] = c->seg[SEG_ES].base + (c->regs.gpr[GPR_RDI] & mask(c->address));
    }
    if (c->f->special & S_STACK) {
        unsigned width = stack_width(c);

        at[n++] = stack_top(c, &c->regs);
        if (c->f->special & S_FRAME) {
            at[n++] = c->seg[SEG_SS].base + (c->regs.gpr[GPR_RBP] & mask(width));
        }
    }
    if (c->f->special & S_TABLE) {
        at[n++] = c->seg[seg].base + table_entry(c);
    }
    for (unsigned i = 0; i < n; i++) {
        if (at[i] - start >= room) {
            return false;
        }
    }
    return true;
}

/* The count may have been an address as well. */
static bool count_defined(const struct random_case *c)
{
    return !(c->f->special & S_COUNT) || c->operand > 2 || (c->regs.gpr[GPR_RCX] & 31) <= 16;
}

static bool make_case(struct random_case *c)
{
    const struct emul_form *f = &emul_forms[rng_below(&rng, nr_emul_forms)];

    *c = (struct random_case){.f = f, .mode = EMUL_64, .target = random_place()};
    if (old_modes && !(f->special & S_LONG) && (one_in(2) || (f->special & S_OLD))) {
        c->mode = one_in(2) ? EMUL_16 : EMUL_32;
    }
    if (c->mode == EMUL_64 && (f->special & S_OLD)) {
        return false;
    }
    c->step = f->special & S_STEP || (one_in(2) && !(f->special & (S_WIDE | S_EXIT)));
    c->register_form = c->step && one_in(2) && !(f->special & (S_MEMORY | S_NO_MODRM));
    if ((f->special & S_WIDE) && !one_in(8)) {
        c->target &= ~15ull;
    }
    for (unsigned i = 0; i < 16; i++) {
        c->regs.gpr[i] = random_value();
    }
    c->regs.flags =
        0x202 |
        (rng_next(&rng) & (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF));
    make_segment_registers(c);
    make_prefixes(c);
    make_pointers(c);
    if (c->operand == 2 && (f->special & S_NO_16)) {
        return false;
    }
    return make_operands(c) && pointers_hit(c) && count_defined(c);
}

/* --- running it --- */

static void load_vcpu(const struct random_case *c)
{
    emulenv_vcpu(c->mode);
    memcpy(v->gpr, c->regs.gpr, sizeof v->gpr);
    memcpy(fake.segs[0], c->seg, sizeof c->seg);
    fake.regs[0][REG_RSP] = c->regs.gpr[GPR_RSP];
    fake.regs[0][REG_RFLAGS] = c->regs.flags;
    v->rip = native_rip(c->mode == EMUL_64 ? NATIVE_64 : NATIVE_32);
}

static void show(const struct random_case *c, const char *what)
{
    static const char *const modes[] = {"16", "32", "64"};

    print_error("%s, %s-bit: %s:", c->f->name, modes[c->mode], what);
    for (unsigned i = 0; i < c->len; i++) {
        print_error(" %02x", c->insn[i]);
    }
    print_error("; target %llx, error %u\n", (unsigned long long)c->target, fake.exception.vector);
}

static void fail_case(const struct random_case *c, const char *what, uint64_t got, uint64_t want)
{
    show(c, what);
    print_error("emulated %llx, processor %llx\n", (unsigned long long)got,
                (unsigned long long)want);
    fail();
}

static bool is_partial(const struct random_case *c, const struct native_regs *native)
{
    return (c->f->special & S_PARTIAL) && native->vector != NATIVE_NO_FAULT;
}

/* A string instruction with addresses of 32 bits in 64-bit mode that has done nothing, since its count is
 * zero or it faults: some processors clear the upper halves of its registers. */
static bool is_vague_string(const struct random_case *c, const struct native_regs *native)
{
    return (c->f->special & S_STRING) && c->address == 4 &&
           ((uint32_t)c->regs.gpr[GPR_RCX] == 0 || native->vector != NATIVE_NO_FAULT);
}

static void compare_registers(const struct random_case *c, const struct native_regs *want)
{
    uint64_t width = c->mode == EMUL_64 && !is_vague_string(c, want) ? UINT64_MAX : UINT32_MAX;

    v->gpr[GPR_RSP] = fake.regs[0][REG_RSP];
    for (unsigned i = 0; i < (c->mode == EMUL_64 ? 16 : 8) && !is_partial(c, want); i++) {
        if ((v->gpr[i] ^ want->gpr[i]) & width) {
            char what[32];
            snprintf(what, sizeof what, "register %u", i);
            fail_case(c, what, v->gpr[i], want->gpr[i]);
        }
    }
    uint64_t flags =
        (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF | RFLAGS_DF) &
        ~c->f->undefined;
    /* Processors differ in the flags of a comparison that faults behind its first iteration. */
    bool vague = want->vector != NATIVE_NO_FAULT && want->gpr[GPR_RCX] != c->regs.gpr[GPR_RCX];
    if (!vague && (fake.regs[0][REG_RFLAGS] ^ want->flags) & flags) {
        fail_case(c, "flags", fake.regs[0][REG_RFLAGS], want->flags);
    }
}

/* An address in either operand of CMPS? */
static bool is_operand_of_cmps(const struct random_case *c, const struct native_regs *at,
                               uint64_t cr2)
{
    unsigned seg = c->override != NONE ? c->override : SEG_DS;
    uint64_t source = c->seg[seg].base + (at->gpr[GPR_RSI] & mask(c->address));
    uint64_t destination = c->seg[SEG_ES].base + (at->gpr[GPR_RDI] & mask(c->address));
    unsigned bytes = memory_bytes(c);

    return cr2 - source < bytes || cr2 - destination < bytes;
}

/* CMPS reads two operands, and the manuals leave open which of them faults first: if both do, processor
 * and emulator may each name another one. */
static bool may_differ(const struct random_case *c, unsigned vector, const struct native_regs *want)
{
    return (c->f->opcode & ~1u) == OPCODE_CMPS && vector != NATIVE_NO_FAULT &&
           want->vector != NATIVE_NO_FAULT &&
           (vector != EXC_PF || is_operand_of_cmps(c, want, fake.regs[0][REG_CR2])) &&
           (want->vector != EXC_PF || is_operand_of_cmps(c, want, want->cr2));
}

static void compare_fault(const struct random_case *c, const struct native_regs *want)
{
    unsigned vector = fake.exception.count ? fake.exception.vector : NATIVE_NO_FAULT;
    bool vague = may_differ(c, vector, want);

    if ((vector != want->vector && !vague) || fake.exception.count > 1) {
        fail_case(c, "vector", vector, want->vector);
    }
    if (vector == EXC_PF && fake.regs[0][REG_CR2] != want->cr2 && !vague) {
        fail_case(c, "CR2", fake.regs[0][REG_CR2], want->cr2);
    }
    if (vector == EXC_PF && ((fake.exception.error ^ want->error) & 2)) {
        fail_case(c, "error code", fake.exception.error, want->error);
    }
    if (vector != NATIVE_NO_FAULT && fake.skipped) {
        fail_case(c, "stepped over a fault", fake.skipped, 0);
    }
}

/* Random bytes around an address; few different ones, so that comparisons of strings go on. */
static void fill_around(uint64_t at)
{
    uint64_t few = one_in(2) ? 0x0101010101010101u : rng_next(&rng);

    for (uint64_t p = (at - 24) & ~7ull; p < at + 40; p += 8) {
        uint64_t offset = p - (uint64_t)env.native, value = one_in(4) ? random_value() : few;
        if (offset < ARENA_BYTES && (env.rights[offset / 4096] & GVA_WRITE)) {
            memcpy(env.native + offset, &value, 8);
            memcpy(env.memory + offset, &value, 8);
        }
    }
}

static bool crosses(const struct random_case *c)
{
    return !c->register_form && (c->target & 4095) + memory_bytes(c) > 4096;
}

/* Would the processor have come to the device at all? A single operand that faults does not. */
static bool exits(const struct random_case *c, const struct native_regs *native)
{
    bool misaligned = (c->f->special & S_WIDE) && (c->target & 15) && native->vector == EXC_GP;

    return native->vector == NATIVE_NO_FAULT || c->step || (c->f->special & S_FULL) || crosses(c) ||
           misaligned;
}

/* The same in 32-bit code: where 16-bit code has a size prefix, this has none, and the other way round.
 * Returns the length. */
static unsigned as_32(const struct random_case *c, uint8_t out[15 + 2])
{
    bool operand = is_fixed(c->f), address = false;
    unsigned n = 0;

    for (unsigned i = 0; i < c->prefixes; i++) {
        operand |= c->insn[i] == 0x66;
        address |= c->insn[i] == 0x67;
    }
    if (!operand) {
        out[n++] = 0x66;
    }
    if (!address) {
        out[n++] = 0x67;
    }
    for (unsigned i = 0; i < c->len; i++) {
        if (i >= c->prefixes || (c->insn[i] != 0x66 && c->insn[i] != 0x67)) {
            out[n++] = c->insn[i];
        }
    }
    return n;
}

static void execute_natively(const struct random_case *c, struct native_regs *regs)
{
    uint8_t translated[17];

    *regs = c->regs;
    if (c->mode == EMUL_16) {
        unsigned len = as_32(c, translated);
        native_run(NATIVE_32, regs, translated, len);
    } else {
        native_run(c->mode == EMUL_64 ? NATIVE_64 : NATIVE_32, regs, c->insn, c->len);
    }
}

/* BSF and BSR of zero: what becomes of the register is undefined. */
static bool is_scan_of_zero(const struct random_case *c, const struct native_regs *native)
{
    return (c->f->opcode & ~1u) == 0x0fbc && (native->flags & RFLAGS_ZF);
}

/* Does the part of a pushed selector's slot that not every processor writes lie in another page? */
static bool is_torn_selector(const struct random_case *c)
{
    uint64_t at = stack_top(c, &c->regs) - c->operand;

    return (c->f->special & S_SELECTOR) && (at & 4095) + c->operand > 4096;
}

/* What PUSH of a segment register puts above the selector: zero, as the emulator does and older
 * processors, or nothing, as newer ones do ("PUSH", Description). */
static void forgive_above_selector(const struct random_case *c, const struct native_regs *native)
{
    uint64_t at = stack_top(c, native) - (uint64_t)env.native;

    for (unsigned i = 2; i < c->operand && at + i < ARENA_BYTES; i++) {
        if (env.memory[at + i] == 0) {
            env.memory[at + i] = env.native[at + i];
        }
    }
}

/* True if there was something to compare. */
static bool run_case(void)
{
    struct random_case c;
    char text[64] = "";

    if (!make_case(&c) || is_torn_selector(&c)) {
        return false;
    }
    fill_around(c.target);
    if (c.f->special & S_FULL) {
        fill_around(c.regs.gpr[GPR_RSI]);
        fill_around(c.regs.gpr[GPR_RDI]);
    }
    struct native_regs native;
    execute_natively(&c, &native);
    if (!exits(&c, &native) || is_scan_of_zero(&c, &native)) {
        return false;
    }
    for (unsigned i = 0; i < ARENA_PAGES; i++) {
        env.ram[i] = (c.step || (c.f->special & S_FULL) || crosses(&c)) && one_in(2);
    }
    load_vcpu(&c);
    emulenv_insn(c.insn, c.len);
    struct exit_memory mem = {.gpa = GPA(c.target), .access = P2M_READ};
    struct vm_exit exit = {.kind = EXIT_NONE};
    enum hv_err err = HV_OK;
    for (unsigned i = 0; i < 8 && !err && !fake.skipped && !fake.exception.count; i++) {
        err = c.step ? emul_step(v, &exit, text, sizeof text)
                     : emul_mmio(v, &mem, false, text, sizeof text);
    }
    if (native.vector == NATIVE_NO_FAULT ? err || fake.skipped != c.len : err != HV_EFAULT) {
        show(&c, text);
        fail_case(&c, "result", err, native.vector);
    }
    compare_fault(&c, &native);
    compare_registers(&c, &native);
    assert_int_equal(env.pins, 0);
    if (is_partial(&c, &native)) {
        memcpy(env.memory + 4096, env.native + 4096, 2 * 4096);
    }
    if ((c.f->special & S_SELECTOR) && native.vector == NATIVE_NO_FAULT) {
        forgive_above_selector(&c, &native);
    }
    if (memcmp(env.native + 4096, env.memory + 4096, 3 * 4096)) {
        fail_case(&c, "memory", 0, 0);
    }
    compared[c.f - emul_forms][c.mode]++;
    faulted[c.f - emul_forms] += native.vector != NATIVE_NO_FAULT;
    return true;
}

static void test_against_processor(void **state)
{
    (void)state;
    native_catch_faults();
    for (unsigned i = 0; i < cases;) {
        i += run_case();
    }
    for (unsigned f = 0; f < nr_emul_forms; f++) {
        for (unsigned mode = EMUL_16; mode <= EMUL_64; mode++) {
            bool possible = mode == EMUL_64 ? !(emul_forms[f].special & S_OLD)
                                            : old_modes && !(emul_forms[f].special & S_LONG);
            if (possible && compared[f][mode] < cases / 12000) {
                print_error("%s: %u cases in mode %u\n", emul_forms[f].name, compared[f][mode],
                            mode);
                fail();
            }
        }
        if ((emul_forms[f].special & S_FULL) && !faulted[f] && cases >= CASES) {
            print_error("%s never faulted\n", emul_forms[f].name);
            fail();
        }
    }
}

static void test_old_modes(void **state)
{
    (void)state;
    if (!old_modes) {
        print_message("no local descriptor table here: 16- and 32-bit code was not run\n");
        skip();
    }
}

int main(void)
{
    static const uint8_t rights[ARENA_PAGES] = {0, GVA_READ | GVA_WRITE, GVA_READ | GVA_WRITE,
                                                GVA_READ, 0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_processor),
        cmocka_unit_test(test_old_modes),
    };
    const char *seed = getenv("BALLAST_SEED");
    uint64_t number = seed ? strtoull(seed, NULL, 0) : 0xe301;

    if (!emulenv_init()) {
        return 1;
    }
    cases = getenv("BALLAST_CASES") ? (unsigned)atoi(getenv("BALLAST_CASES")) : cases;
    printf("seed %llu\n", (unsigned long long)number);
    rng_seed(&rng, number);
    for (unsigned i = 0; i < ARENA_BYTES; i++) {
        env.native[i] = env.memory[i] = (uint8_t)rng_next(&rng);
    }
    for (unsigned i = 0; i < ARENA_PAGES; i++) {
        int prot =
            (rights[i] & GVA_READ ? PROT_READ : 0) | (rights[i] & GVA_WRITE ? PROT_WRITE : 0);
        env.rights[i] = rights[i];
        if (mprotect(env.native + 4096 * i, 4096, prot)) {
            return 1;
        }
    }
    old_modes = native_init(env.native - 4096);
    if (old_modes) {
        emulforms_make_segments(env.native - 4096);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

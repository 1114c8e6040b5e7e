/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator against the processor that the test runs on: random operands for every form that it
 * claims, executed natively on one buffer and emulated on another through the bus; registers, flags
 * and memory must end alike. Then what the processor cannot show here: 16- and 32-bit modes, faults,
 * slices of REP, the fast path's rules, control registers.
 *
 * Guest-virtual, guest-physical and the test's own addresses are the same numbers; the bus maps the
 * native buffer's addresses to the emulated one.
 */
#include "kernel/emul/emul.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/guestmem.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "tests/host/fakevm.h"

#define BUF_BYTES 8192
#define ROUNDS 300000

static struct rng rng;
static uint8_t *native, *emulated; /* page-aligned; the guest's addresses are native's */
static uint8_t *code;
static uint8_t insn[15];
static unsigned insn_len;
static uint64_t fault_page = UINT64_MAX; /* translation of this page faults; 0: of every page */
static unsigned bus_calls;
static bool bus_again;

/* --- surroundings --- */

unsigned env_cpu(void)
{
    return 0;
}

unsigned env_nr_cpus(void)
{
    return 1;
}

enum hv_err guestmem_fetch(struct vcpu *v, bool fast, uint8_t bytes[15], unsigned *got)
{
    (void)v;
    (void)fast;
    memset(bytes, 0, 15);
    memcpy(bytes, insn, insn_len);
    *got = insn_len;
    return HV_OK;
}

enum hv_err guestmem_translate(struct vcpu *v, gva_t gva, uint32_t access, bool fast, gpa_t *out)
{
    assert_false(fast);
    if (gva.a >> 12 == fault_page || fault_page == 0) {
        vcpu_inject_exception(v, EXC_PF, true, access & GVA_WRITE ? 2 : 0);
        return HV_EFAULT;
    }
    *out = GPA(gva.a);
    return HV_OK;
}

bool guestmem_is_ram(struct vm *vm, gpa_t gpa, uint64_t len)
{
    (void)vm;
    (void)gpa;
    (void)len;
    return false;
}

enum hv_err guestmem_read(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
    (void)vm, (void)gpa, (void)dst, (void)len;
    return HV_ENOENT;
}

enum hv_err guestmem_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
    (void)vm, (void)gpa, (void)src, (void)len;
    return HV_ENOENT;
}

bool vlapic_covers(const struct vlapic *a, gpa_t gpa)
{
    (void)a, (void)gpa;
    return false;
}

enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value)
{
    (void)a, (void)offset, (void)size, (void)write, (void)value;
    return HV_OK;
}

enum hv_err bus_mmio(struct bus *b, struct vcpu *v, gpa_t gpa, unsigned size, bool write,
                     uint64_t *value)
{
    uint64_t offset = gpa.a - (uint64_t)native;

    (void)b, (void)v;
    bus_calls++;
    if (bus_again) {
        return HV_EAGAIN;
    }
    assert_true(offset + size <= BUF_BYTES);
    assert_true(size == 1 || size == 2 || size == 4 || size == 8);
    if (write) {
        memcpy(emulated + offset, value, size);
    } else {
        *value = UINT64_MAX; /* only the low bytes count */
        memcpy(value, emulated + offset, size);
    }
    return HV_OK;
}

static uint8_t port_log[256];
static unsigned port_count;

enum hv_err bus_port(struct bus *b, struct vcpu *v, uint16_t port, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b, (void)v;
    assert_int_equal(port, 0x1234);
    if (write) {
        memcpy(port_log + port_count, value, size);
    } else {
        *value = 0xa5a5a5a500000000u | port_count;
    }
    port_count += size;
    return HV_OK;
}

/* --- native execution --- */

struct regs {
    uint64_t gpr[16], flags;
};

/* Load registers and flags from *r, call `fn` (the instruction and a RET), store them again. */
void run_native(struct regs *r, void *fn);
__asm__(".text\n"
        ".globl run_native\n"
        "run_native:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "push %rdi; push %rsi\n"
        "mov %rdi, %rax\n"
        "push 128(%rax); popfq\n"
        "mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 40(%rax), %rbp\n"
        "mov 48(%rax), %rsi; mov 56(%rax), %rdi; mov 64(%rax), %r8; mov 72(%rax), %r9\n"
        "mov 80(%rax), %r10; mov 88(%rax), %r11; mov 96(%rax), %r12; mov 104(%rax), %r13\n"
        "mov 112(%rax), %r14; mov 120(%rax), %r15; mov (%rax), %rax\n"
        "call *(%rsp)\n"
        "pushfq; cld; push %rax\n"
        "mov 24(%rsp), %rax\n"
        "mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rbp, 40(%rax)\n"
        "mov %rsi, 48(%rax); mov %rdi, 56(%rax); mov %r8, 64(%rax); mov %r9, 72(%rax)\n"
        "mov %r10, 80(%rax); mov %r11, 88(%rax); mov %r12, 96(%rax); mov %r13, 104(%rax)\n"
        "mov %r14, 112(%rax); mov %r15, 120(%rax)\n"
        "pop %rcx; mov %rcx, (%rax); pop %rcx; mov %rcx, 128(%rax)\n"
        "pop %rsi; pop %rdi\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");

/* --- one random case --- */

struct form {
    const char *name;
    uint16_t opcode;
    int8_t group;       /* ModRM.reg as opcode extension, -1: a register */
    uint8_t imm;        /* 0: none, 1: byte, 4: up to four bytes by operand size */
    uint64_t undefined; /* flags that the manual leaves open */
    uint8_t special;    /* S_* */
};

#define S_BIT_REGISTER 1 /* the register's bit number moves the address */
#define S_DIRECT 2       /* moffs, no ModRM */
#define S_STRING 4       /* no ModRM */

#define LOGIC RFLAGS_AF
#define BITS (RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF | RFLAGS_ZF)

#define ALU_FORMS(name, base, undef)                                                    \
    {name " Eb,Gb", base, -1, 0, undef, 0}, {name " Ev,Gv", base + 1, -1, 0, undef, 0}, \
        {name " Gb,Eb", base + 2, -1, 0, undef, 0},                                     \
    {                                                                                   \
        name " Gv,Ev", base + 3, -1, 0, undef, 0                                        \
    }

#define GROUP1(n, undef)                                                            \
    {"group1 Eb,Ib", 0x80, n, 1, undef, 0}, {"group1 Ev,Iz", 0x81, n, 4, undef, 0}, \
    {                                                                               \
        "group1 Ev,Ib", 0x83, n, 1, undef, 0                                        \
    }

static const struct form forms[] = {
    {"mov Eb,Gb", 0x88, -1, 0, 0, 0},
    {"mov Ev,Gv", 0x89, -1, 0, 0, 0},
    {"mov Gb,Eb", 0x8a, -1, 0, 0, 0},
    {"mov Gv,Ev", 0x8b, -1, 0, 0, 0},
    {"mov Eb,Ib", 0xc6, 0, 1, 0, 0},
    {"mov Ev,Iz", 0xc7, 0, 4, 0, 0},
    {"mov AL,Ob", 0xa0, -1, 0, 0, S_DIRECT},
    {"mov rAX,Ov", 0xa1, -1, 0, 0, S_DIRECT},
    {"mov Ob,AL", 0xa2, -1, 0, 0, S_DIRECT},
    {"mov Ov,rAX", 0xa3, -1, 0, 0, S_DIRECT},
    {"movzx Gv,Eb", 0x0fb6, -1, 0, 0, 0},
    {"movzx Gv,Ew", 0x0fb7, -1, 0, 0, 0},
    {"movsx Gv,Eb", 0x0fbe, -1, 0, 0, 0},
    {"movsx Gv,Ew", 0x0fbf, -1, 0, 0, 0},
    {"movsxd Gv,Ed", 0x63, -1, 0, 0, 0},
    ALU_FORMS("add", 0x00, 0),
    ALU_FORMS("or", 0x08, LOGIC),
    ALU_FORMS("adc", 0x10, 0),
    ALU_FORMS("sbb", 0x18, 0),
    ALU_FORMS("and", 0x20, LOGIC),
    ALU_FORMS("sub", 0x28, 0),
    ALU_FORMS("xor", 0x30, LOGIC),
    ALU_FORMS("cmp", 0x38, 0),
    GROUP1(0, 0),
    GROUP1(1, LOGIC),
    GROUP1(2, 0),
    GROUP1(3, 0),
    GROUP1(4, LOGIC),
    GROUP1(5, 0),
    GROUP1(6, LOGIC),
    GROUP1(7, 0),
    {"test Eb,Gb", 0x84, -1, 0, LOGIC, 0},
    {"test Ev,Gv", 0x85, -1, 0, LOGIC, 0},
    {"test Eb,Ib", 0xf6, 0, 1, LOGIC, 0},
    {"test Ev,Iz", 0xf7, 0, 4, LOGIC, 0},
    {"not Eb", 0xf6, 2, 0, 0, 0},
    {"not Ev", 0xf7, 2, 0, 0, 0},
    {"neg Eb", 0xf6, 3, 0, 0, 0},
    {"neg Ev", 0xf7, 3, 0, 0, 0},
    {"inc Eb", 0xfe, 0, 0, 0, 0},
    {"inc Ev", 0xff, 0, 0, 0, 0},
    {"dec Eb", 0xfe, 1, 0, 0, 0},
    {"dec Ev", 0xff, 1, 0, 0, 0},
    {"xchg Eb,Gb", 0x86, -1, 0, 0, 0},
    {"xchg Ev,Gv", 0x87, -1, 0, 0, 0},
    {"cmpxchg Eb,Gb", 0x0fb0, -1, 0, 0, 0},
    {"cmpxchg Ev,Gv", 0x0fb1, -1, 0, 0, 0},
    {"xadd Eb,Gb", 0x0fc0, -1, 0, 0, 0},
    {"xadd Ev,Gv", 0x0fc1, -1, 0, 0, 0},
    {"bt Ev,Gv", 0x0fa3, -1, 0, BITS, S_BIT_REGISTER},
    {"bts Ev,Gv", 0x0fab, -1, 0, BITS, S_BIT_REGISTER},
    {"btr Ev,Gv", 0x0fb3, -1, 0, BITS, S_BIT_REGISTER},
    {"btc Ev,Gv", 0x0fbb, -1, 0, BITS, S_BIT_REGISTER},
    {"bt Ev,Ib", 0x0fba, 4, 1, BITS, 0},
    {"bts Ev,Ib", 0x0fba, 5, 1, BITS, 0},
    {"btr Ev,Ib", 0x0fba, 6, 1, BITS, 0},
    {"btc Ev,Ib", 0x0fba, 7, 1, BITS, 0},
    {"movs b", 0xa4, -1, 0, 0, S_STRING},
    {"movs v", 0xa5, -1, 0, 0, S_STRING},
    {"stos b", 0xaa, -1, 0, 0, S_STRING},
    {"stos v", 0xab, -1, 0, 0, S_STRING},
    {"lods b", 0xac, -1, 0, 0, S_STRING},
    {"lods v", 0xad, -1, 0, 0, S_STRING},
};

static struct vcpu *const v = &fake.vcpu[0];

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

static void put(uint8_t byte)
{
    insn[insn_len++] = byte;
}

/* Sometimes at the page's end, so that operands cross it. */
static uint64_t random_target(void)
{
    uint64_t offset = rng_below(&rng, 4) ? 512 + rng_below(&rng, BUF_BYTES - 1024)
                                         : 4096 - 8 + rng_below(&rng, 8);
    return (uint64_t)native + offset;
}

struct random_case {
    struct regs regs;
    uint64_t target;   /* what ModRM addresses */
    uint64_t reported; /* what the exit would say */
};

/* A bit number up to 2048 bits either way moves the address by whole operands. */
static void make_bit_number(struct random_case *c, unsigned reg, unsigned operand)
{
    int64_t number = (int64_t)rng_below(&rng, 4096) - 2048;
    int64_t words = number >> (operand == 8 ? 6 : operand == 4 ? 5 : 4);

    c->regs.gpr[reg] = (uint64_t)number;
    c->reported = c->target + (uint64_t)(words * (int64_t)operand);
}

static void make_prefixes(const struct form *f, unsigned *operand_bytes, unsigned *rex)
{
    *operand_bytes = 4;
    *rex = 0;
    bool movsxd = f->opcode == 0x63;
    if (!movsxd && rng_below(&rng, 4) == 0) {
        put(0x66);
        *operand_bytes = 2;
    }
    if (f->special & S_STRING && rng_below(&rng, 2)) {
        put(rng_below(&rng, 4) ? 0xf3 : 0xf2);
    }
    if (rng_below(&rng, 2)) {
        *rex = 0x40 | (rng_below(&rng, 2) ? 8 : 0) | (rng_below(&rng, 2) ? 4 : 0);
        if (*rex & 8) {
            *operand_bytes = 8;
        }
    }
}

static void make_modrm(const struct form *f, struct random_case *c, unsigned rex, unsigned operand)
{
    unsigned reg = f->group >= 0 ? (unsigned)f->group : (unsigned)rng_below(&rng, 8);
    unsigned full = reg | (f->group < 0 && (rex & 4) ? 8 : 0);
    unsigned base = GPR_RBX;
    int64_t disp = (int64_t)rng_below(&rng, 256) - 128;
    if (f->group < 0 && full == GPR_RSP) {
        reg = GPR_RDX; /* the stub's stack pointer is no operand */
        full = reg | (rex & 4 ? 8 : 0);
    }
    if (f->group < 0 && full == base) {
        base = GPR_RDI;
    }
    if (f->special & S_BIT_REGISTER) {
        make_bit_number(c, full, operand);
    }
    if (rng_below(&rng, 2)) {
        c->regs.gpr[base] = c->target - (uint64_t)disp;
        put((uint8_t)(0x40 | (reg & 7) << 3 | base));
        put((uint8_t)disp);
        return;
    }
    /* [base + r9 * scale + disp32] */
    unsigned scale = (unsigned)rng_below(&rng, 4);
    unsigned index = full == GPR_R8 + 1 ? GPR_R8 + 2 : GPR_R8 + 1;
    disp = (int64_t)(int32_t)rng_next(&rng);
    c->regs.gpr[index] = rng_next(&rng) >> 20;
    c->regs.gpr[base] = c->target - (uint64_t)disp - (c->regs.gpr[index] << scale);
    put((uint8_t)(0x80 | (reg & 7) << 3 | 4));
    put((uint8_t)(scale << 6 | (index & 7) << 3 | base));
    for (int i = 0; i < 4; i++) {
        put((uint8_t)(disp >> (8 * i)));
    }
}

static void make_case(const struct form *f, struct random_case *c)
{
    unsigned operand, rex;
    *c = (struct random_case){.target = random_target()};
    c->reported = c->target;
    for (int i = 0; i < 16; i++) {
        c->regs.gpr[i] = random_value();
    }
    c->regs.flags =
        0x202 |
        (rng_next(&rng) & (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF));
    insn_len = 0;
    make_prefixes(f, &operand, &rex);
    bool sib = !(f->special & (S_DIRECT | S_STRING));
    if (sib && !rex) {
        /* Half of these get no REX and so reach AH to BH; the indexed form needs one. */
        rex = rng_below(&rng, 2) ? 0x40 : 0;
    }
    if (rex) {
        put((uint8_t)(rex | (sib ? 2 : 0)));
    }
    if (f->opcode > 0xff) {
        put(0x0f);
    }
    put((uint8_t)f->opcode);
    if (f->special & S_DIRECT) {
        for (int i = 0; i < 8; i++) {
            put((uint8_t)(c->target >> (8 * i)));
        }
    } else if (f->special & S_STRING) {
        c->regs.gpr[GPR_RSI] = (uint64_t)native + 3000 + rng_below(&rng, 2000);
        c->regs.gpr[GPR_RDI] = (uint64_t)native + 3000 + rng_below(&rng, 2000);
        c->regs.gpr[GPR_RCX] = rng_below(&rng, 64);
        c->regs.flags |= rng_below(&rng, 2) ? RFLAGS_DF : 0;
    } else if (!rex) {
        /* Without REX only legacy registers: byte registers 4 to 7 are AH to BH. */
        unsigned reg = f->group >= 0 ? (unsigned)f->group : (unsigned)rng_below(&rng, 8);
        bool bytes = !(f->opcode & 1) && !(f->special & S_BIT_REGISTER) && f->opcode != 0x0fbe &&
                     f->opcode != 0x0fb6 && f->opcode != 0x0fba;
        if (f->group < 0 && (reg == GPR_RDI || (reg == GPR_RSP && !bytes))) {
            reg = GPR_RDX;
        }
        if (f->special & S_BIT_REGISTER) {
            make_bit_number(c, reg, operand);
        }
        c->regs.gpr[GPR_RDI] = c->target;
        put((uint8_t)(reg << 3 | GPR_RDI));
    } else {
        make_modrm(f, c, rex, operand);
    }
    if (f->imm == 1) {
        put((uint8_t)rng_next(&rng));
    } else if (f->imm == 4) {
        for (unsigned i = 0; i < (operand == 2 ? 2u : 4u); i++) {
            put((uint8_t)rng_next(&rng));
        }
    }
}

static void load_vcpu(const struct regs *r)
{
    fakevm_reset(1);
    memcpy(v->gpr, r->gpr, sizeof v->gpr);
    fake.regs[0][REG_RSP] = 0x5555;
    fake.regs[0][REG_RFLAGS] = r->flags;
    fake.regs[0][REG_EFER] = EFER_LMA;
    fake.segs[0][SEG_CS].attr = 0x29b;
    v->rip = 0x1000;
}

static void compare(const struct form *f, const struct regs *want)
{
    for (unsigned i = 0; i < 16; i++) {
        if (i != GPR_RSP && v->gpr[i] != want->gpr[i]) {
            print_error("%s: register %u: %llx, processor %llx\n", f->name, i,
                        (unsigned long long)v->gpr[i], (unsigned long long)want->gpr[i]);
            fail();
        }
    }
    uint64_t mask =
        (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF | RFLAGS_DF) &
        ~f->undefined;
    if ((fake.regs[0][REG_RFLAGS] ^ want->flags) & mask) {
        print_error("%s: flags %llx, processor %llx\n", f->name,
                    (unsigned long long)fake.regs[0][REG_RFLAGS], (unsigned long long)want->flags);
        fail();
    }
    assert_int_equal(fake.regs[0][REG_RSP], 0x5555);
    if (memcmp(native, emulated, BUF_BYTES)) {
        print_error("%s: memory differs\n", f->name);
        fail();
    }
}

static void show_case(const struct form *f)
{
    print_error("%s:", f->name);
    for (unsigned i = 0; i < insn_len; i++) {
        print_error(" %02x", insn[i]);
    }
    print_error("\n");
}

static void run_case(const struct form *f)
{
    struct random_case c;
    char text[64] = "";
    make_case(f, &c);
    load_vcpu(&c.regs);
    for (int i = 0; i < BUF_BYTES; i += 8) {
        uint64_t value = i % 512 ? 0x0101010101010101ull * (unsigned)i : random_value();
        memcpy(native + i, &value, 8);
    }
    uint64_t value = random_value();
    memcpy((void *)c.target, &value, 8);
    memcpy(emulated, native, BUF_BYTES);
    memcpy(code, insn, insn_len);
    code[insn_len] = 0xc3;

    struct exit_memory mem = {.gpa = GPA(c.reported), .access = P2M_READ};
    enum hv_err err = emul_mmio(v, &mem, false, text, sizeof text);
    if (err || fake.skipped != insn_len) {
        show_case(f);
        print_error("error %d, stepped %u, %s\n", err, fake.skipped, text);
        fail();
    }
    run_native(&c.regs, code);
    compare(f, &c.regs);
}

static void test_against_processor(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        run_case(&forms[rng_below(&rng, ARRAY_SIZE(forms))]);
    }
}

/* --- what the processor here does not show --- */

static enum hv_err emulate(const char *bytes, unsigned len, gpa_t gpa, bool fast)
{
    char text[64];
    struct exit_memory mem = {.gpa = gpa, .access = P2M_READ};

    memcpy(insn, bytes, len);
    insn_len = len;
    bus_calls = 0;
    fake.skipped = 0;
    return emul_mmio(v, &mem, fast, text, sizeof text);
}

static void fresh(enum emul_mode mode)
{
    static const struct regs zero;

    load_vcpu(&zero);
    memset(emulated, 0, BUF_BYTES);
    fault_page = UINT64_MAX;
    if (mode != EMUL_64) {
        fake.regs[0][REG_EFER] = 0;
        fake.segs[0][SEG_CS].attr = mode == EMUL_32 ? 0x49b : 0x9b;
    }
}

static void test_old_modes(void **state)
{
    (void)state;
    /* Segment bases carry the addresses, which are beyond 32 bits here: only offsets are checked, by
     * the page offset that the exit gives. */
    fresh(EMUL_32);
    assert_int_equal(emul_mode_of(v), EMUL_32);
    fake.segs[0][SEG_DS].base = 0x1000;
    v->gpr[GPR_RBX] = 0xffffffff00000010ull; /* the upper half is not there in 32-bit mode */
    v->gpr[GPR_RCX] = 0x11223344;
    assert_int_equal(emulate("\x89\x4b\x04", 3, GPA((uint64_t)native + 0x14), false), HV_OK);
    assert_int_equal(*(uint32_t *)(emulated + 0x14), 0x11223344);
    fresh(EMUL_16);
    assert_int_equal(emul_mode_of(v), EMUL_16);
    v->gpr[GPR_RBP] = 0xfff8; /* mov [bp+di+0x10], ax: wraps at 64 KiB, through SS */
    v->gpr[GPR_RDI] = 0x8;
    v->gpr[GPR_RAX] = 0xabcd;
    fake.segs[0][SEG_SS].base = 0x100;
    assert_int_equal(emulate("\x89\x43\x10", 3, GPA((uint64_t)native + 0x110), false), HV_OK);
    assert_int_equal(*(uint16_t *)(emulated + 0x110), 0xabcd);
    assert_int_equal(fake.skipped, 3);
}

static void test_changed_bytes(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RAX] = (uint64_t)native + 8;
    assert_int_equal(emulate("\x89\x08", 2, GPA((uint64_t)native + 16), false), HV_OK);
    assert_int_equal(bus_calls, 0); /* not the instruction that exited: run on */
    assert_int_equal(fake.skipped, 0);
    assert_int_equal(emulate("\x0f\x28\x00", 3, GPA((uint64_t)native + 8), false), HV_ENOTSUP);
    assert_int_equal(emulate("\xff\xff\xff", 3, GPA((uint64_t)native + 8), false), HV_ENOTSUP);
    struct exit_memory mem = {.gpa = GPA(0), .access = P2M_EXEC};
    char text[64];
    assert_int_equal(emul_mmio(v, &mem, false, text, sizeof text), HV_ENOTSUP);
}

static void test_fast_path(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RAX] = (uint64_t)native + 8;
    /* Not decoded yet: again, off the fast path; then it is in the cache. */
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)native + 8), true), HV_EAGAIN);
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)native + 8), false), HV_OK);
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)native + 8), true), HV_OK);
    assert_int_equal(fake.skipped, 6);
    /* A device that says "again" leaves everything as it was. */
    bus_again = true;
    v->gpr[GPR_RDX] = 77;
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)native + 8), true), HV_EAGAIN);
    bus_again = false;
    assert_int_equal(v->gpr[GPR_RDX], 77);
    assert_int_equal(fake.skipped, 0);
    /* Read-modify-write and strings never run there. */
    assert_int_equal(emulate("\x01\x08", 2, GPA((uint64_t)native + 8), false), HV_OK);
    assert_int_equal(emulate("\x01\x08", 2, GPA((uint64_t)native + 8), true), HV_EAGAIN);
    assert_int_equal(bus_calls, 0);
}

static void test_slices_and_faults(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RDI] = (uint64_t)native;
    v->gpr[GPR_RCX] = 200;
    v->gpr[GPR_RAX] = 0xee;
    unsigned entries = 0;
    do { /* rep stosb */
        assert_int_equal(emulate("\xf3\xaa", 2, GPA((uint64_t)native), false), HV_OK);
        assert_true(bus_calls <= 64);
        entries++;
    } while (!fake.skipped);
    assert_true(entries > 1);
    assert_int_equal(v->gpr[GPR_RCX], 0);
    assert_int_equal(v->gpr[GPR_RDI], (uint64_t)native + 200);
    assert_int_equal(emulated[199], 0xee);
    assert_int_equal(emulated[200], 0);
    /* A fault in the middle: what was done is committed, the rest is left. */
    fresh(EMUL_64);
    fault_page = ((uint64_t)native >> 12) + 1;
    v->gpr[GPR_RDI] = (uint64_t)native + 4096 - 16;
    v->gpr[GPR_RSI] = (uint64_t)native;
    v->gpr[GPR_RCX] = 10;
    assert_int_equal(emulate("\xf3\xa5", 2, GPA((uint64_t)native), false), HV_EFAULT);
    assert_int_equal(v->gpr[GPR_RCX], 6);
    assert_int_equal(v->gpr[GPR_RSI], (uint64_t)native + 16);
    assert_int_equal(fake.exception.vector, EXC_PF);
    assert_int_equal(fake.skipped, 0);
    /* A store over two pages, the second of which faults, writes nothing. */
    v->gpr[GPR_RAX] = (uint64_t)native + 4094;
    assert_int_equal(emulate("\x89\x08", 2, GPA((uint64_t)native + 4094), false), HV_EFAULT);
    assert_int_equal(bus_calls, 0);
    fault_page = UINT64_MAX;
}

static enum hv_err string_io(const char *bytes, unsigned len, bool in, bool fast)
{
    struct exit_port port = {.port = 0x1234, .in = in, .string = true};
    char text[64];

    memcpy(insn, bytes, len);
    insn_len = len;
    fake.skipped = 0;
    return emul_string_io(v, &port, fast, text, sizeof text);
}

static void test_string_io(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RSI] = (uint64_t)native;
    v->gpr[GPR_RCX] = 5;
    memcpy(emulated, "hello", 5);
    assert_int_equal(string_io("\xf3\x6e", 2, false, true), HV_EAGAIN);
    assert_int_equal(string_io("\xf3\x6e", 2, false, false), HV_OK);
    assert_memory_equal(port_log, "hello", 5);
    assert_int_equal(fake.skipped, 2);
    fresh(EMUL_64);
    port_count = 0;
    fake.regs[0][REG_RFLAGS] = RFLAGS_DF;
    v->gpr[GPR_RDI] = (uint64_t)native + 64;
    v->gpr[GPR_RCX] = 3;
    assert_int_equal(string_io("\xf3\x6d", 2, true, false), HV_OK); /* insd, downwards */
    assert_int_equal(*(uint32_t *)(emulated + 64), 0);
    assert_int_equal(*(uint32_t *)(emulated + 56), 8);
    assert_int_equal(v->gpr[GPR_RDI], (uint64_t)native + 52);
    /* The exit was an IN, the bytes say OUT: somebody changed them. */
    port_count = 0;
    assert_int_equal(string_io("\xf3\x6e", 2, true, false), HV_OK);
    assert_int_equal(port_count, 0);
    assert_int_equal(fake.skipped, 0);
}

static enum hv_err decode_cr(const char *bytes, unsigned len, struct exit_cr *cr, uint8_t *n,
                             uint64_t *value)
{
    memcpy(insn, bytes, len);
    insn_len = len;
    return emul_decode_cr(v, cr, false, n, value);
}

static void test_control_registers(void **state)
{
    (void)state;
    struct exit_cr cr;
    uint64_t value = 0;
    uint8_t n;
    fresh(EMUL_64);
    assert_int_equal(decode_cr("\x41\x0f\x22\xdd", 4, &cr, &n, &value), HV_OK); /* cr3 = r13 */
    assert_true(cr.decoded && cr.write);
    assert_int_equal(cr.cr, 3);
    assert_int_equal(cr.gpr, 13);
    assert_int_equal(n, 4);
    assert_int_equal(decode_cr("\x44\x0f\x20\xc1", 4, &cr, &n, &value), HV_OK); /* rcx = cr8 */
    assert_true(cr.decoded && !cr.write);
    assert_int_equal(cr.cr, 8);
    assert_int_equal(cr.gpr, 1);
    fake.regs[0][REG_CR0] = CR0_PE | CR0_TS | CR0_PG;
    assert_int_equal(decode_cr("\x0f\x06", 2, &cr, &n, &value), HV_OK); /* clts */
    assert_true(!cr.decoded && cr.write);
    assert_int_equal(value, CR0_PE | CR0_PG);
    v->gpr[GPR_RBX] = 0xfff2;
    assert_int_equal(decode_cr("\x0f\x01\xf3", 3, &cr, &n, &value), HV_OK); /* lmsw bx */
    assert_int_equal(value, CR0_PE | CR0_MP | CR0_PG);
    assert_int_equal(decode_cr("\x0f\x01\xe1", 3, &cr, &n, &value), HV_OK); /* smsw ecx */
    assert_true(!cr.decoded && !cr.write);
    assert_int_equal(v->gpr[GPR_RCX], (uint32_t)(CR0_PE | CR0_TS | CR0_PG));
    assert_int_equal(decode_cr("\x90", 1, &cr, &n, &value), HV_ENOTSUP);
    fresh(EMUL_32);
    assert_int_equal(decode_cr("\xf0\x0f\x22\xc0", 4, &cr, &n, &value), HV_OK);
    assert_int_equal(cr.cr, 8);
}

/* Random bytes as instructions: no crash, no access outside (the bus asserts its range). */
static void test_random_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        struct exit_memory mem = {.gpa = GPA((uint64_t)native + rng_below(&rng, 4096)),
                                  .access = P2M_READ};
        char text[64];
        fresh((enum emul_mode)rng_below(&rng, 3));
        for (unsigned r = 0; r < 16; r++) {
            v->gpr[r] = mem.gpa.a;
        }
        v->gpr[GPR_RCX] = rng_below(&rng, 100);
        insn_len = (unsigned)rng_below(&rng, 16);
        for (unsigned j = 0; j < insn_len; j++) {
            insn[j] = (uint8_t)rng_next(&rng);
        }
        fault_page = 0; /* nothing but what the exit reported is translated */
        (void)!emul_mmio(v, &mem, rng_below(&rng, 2), text, sizeof text);
    }
    fault_page = UINT64_MAX;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_processor), cmocka_unit_test(test_old_modes),
        cmocka_unit_test(test_changed_bytes),     cmocka_unit_test(test_fast_path),
        cmocka_unit_test(test_slices_and_faults), cmocka_unit_test(test_string_io),
        cmocka_unit_test(test_control_registers), cmocka_unit_test(test_random_bytes),
    };
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    native = mmap(NULL, BUF_BYTES, prot, flags, -1, 0);
    emulated = mmap(NULL, BUF_BYTES, prot, flags, -1, 0);
    code = mmap(NULL, 4096, prot | PROT_EXEC, flags, -1, 0);
    rng_seed(&rng, 0xe301);
    if (native == MAP_FAILED || emulated == MAP_FAILED || code == MAP_FAILED || emul_init()) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

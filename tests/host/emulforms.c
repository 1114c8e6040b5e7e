/* SPDX-License-Identifier: BSD-2-Clause */
/* See emulforms.h. */
#include "tests/host/emulforms.h"

#include "arch/x86_64/regs.h"
#include "tests/host/nativecpu.h"

#define LOGIC RFLAGS_AF
#define BITS (RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF | RFLAGS_ZF)

#define ALU_FORMS(name, base, undef, lock)                \
    {name " Eb,Gb", base, -1, 0, 1, undef, lock},         \
        {name " Ev,Gv", base + 1, -1, 0, 0, undef, lock}, \
        {name " Gb,Eb", base + 2, -1, 0, 1, undef, 0},    \
    {                                                     \
        name " Gv,Ev", base + 3, -1, 0, 0, undef, 0       \
    }

#define GROUP1(n, undef, lock)                                                                  \
    {"group1 Eb,Ib", 0x80, n, 1, 1, undef, lock}, {"group1 Ev,Iz", 0x81, n, 4, 0, undef, lock}, \
    {                                                                                           \
        "group1 Ev,Ib", 0x83, n, 1, 0, undef, lock                                              \
    }

#define PRODUCT (RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF)
#define QUOTIENT (PRODUCT | RFLAGS_CF | RFLAGS_OF)
#define DECIMAL (RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF)
#define SCALED (RFLAGS_OF | RFLAGS_AF | RFLAGS_CF)

/* By 1, by a number, by CL; OF is defined for 1 alone. */
#define SHIFTS(name, n, undef)                            \
    {name " Eb,1", 0xd0, n, 0, 1, RFLAGS_AF, S_STEP},     \
        {name " Ev,1", 0xd1, n, 0, 0, RFLAGS_AF, S_STEP}, \
        {name " Eb,Ib", 0xc0, n, 1, 1, undef, S_STEP},    \
        {name " Ev,Ib", 0xc1, n, 1, 0, undef, S_STEP},    \
        {name " Eb,CL", 0xd2, n, 0, 1, undef, S_STEP},    \
    {                                                     \
        name " Ev,CL", 0xd3, n, 0, 0, undef, S_STEP       \
    }

#define ACCUMULATOR(name, op, undef)                            \
    {name " AL,Ib", op, -1, 1, 1, undef, S_STEP | S_ACC},       \
    {                                                           \
        name " rAX,Iz", op + 1, -1, 4, 0, undef, S_STEP | S_ACC \
    }

const struct emul_form emul_forms[] = {
    {"mov Eb,Gb", 0x88, -1, 0, 1, 0, 0},
    {"mov Ev,Gv", 0x89, -1, 0, 0, 0, 0},
    {"mov Gb,Eb", 0x8a, -1, 0, 1, 0, 0},
    {"mov Gv,Ev", 0x8b, -1, 0, 0, 0, 0},
    {"mov Ew,Sw", 0x8c, -1, 0, 2, 0, S_SEG},
    {"mov Eb,Ib", 0xc6, 0, 1, 1, 0, 0},
    {"mov Ev,Iz", 0xc7, 0, 4, 0, 0, 0},
    {"mov AL,Ob", 0xa0, -1, 0, 1, 0, S_DIRECT},
    {"mov rAX,Ov", 0xa1, -1, 0, 0, 0, S_DIRECT},
    {"mov Ob,AL", 0xa2, -1, 0, 1, 0, S_DIRECT},
    {"mov Ov,rAX", 0xa3, -1, 0, 0, 0, S_DIRECT},
    {"movzx Gv,Eb", 0x0fb6, -1, 0, 1, 0, 0},
    {"movzx Gv,Ew", 0x0fb7, -1, 0, 2, 0, 0},
    {"movsx Gv,Eb", 0x0fbe, -1, 0, 1, 0, 0},
    {"movsx Gv,Ew", 0x0fbf, -1, 0, 2, 0, 0},
    {"movsxd Gv,Ed", 0x63, -1, 0, 4, 0, S_LONG | S_EXIT},
    {"movnti Ey,Gy", 0x0fc3, -1, 0, 0, 0, S_NARROW | S_MEMORY},
    ALU_FORMS("add", 0x00, 0, S_LOCK),
    ALU_FORMS("or", 0x08, LOGIC, S_LOCK),
    ALU_FORMS("adc", 0x10, 0, S_LOCK),
    ALU_FORMS("sbb", 0x18, 0, S_LOCK),
    ALU_FORMS("and", 0x20, LOGIC, S_LOCK),
    ALU_FORMS("sub", 0x28, 0, S_LOCK),
    ALU_FORMS("xor", 0x30, LOGIC, S_LOCK),
    ALU_FORMS("cmp", 0x38, 0, 0),
    GROUP1(0, 0, S_LOCK),
    GROUP1(1, LOGIC, S_LOCK),
    GROUP1(2, 0, S_LOCK),
    GROUP1(3, 0, S_LOCK),
    GROUP1(4, LOGIC, S_LOCK),
    GROUP1(5, 0, S_LOCK),
    GROUP1(6, LOGIC, S_LOCK),
    GROUP1(7, 0, 0),
    {"test Eb,Gb", 0x84, -1, 0, 1, LOGIC, 0},
    {"test Ev,Gv", 0x85, -1, 0, 0, LOGIC, 0},
    {"test Eb,Ib", 0xf6, 0, 1, 1, LOGIC, 0},
    {"test Ev,Iz", 0xf7, 0, 4, 0, LOGIC, 0},
    {"test Eb,Ib again", 0xf6, 1, 1, 1, LOGIC, 0},
    {"test Ev,Iz again", 0xf7, 1, 4, 0, LOGIC, 0},
    {"not Eb", 0xf6, 2, 0, 1, 0, S_LOCK},
    {"not Ev", 0xf7, 2, 0, 0, 0, S_LOCK},
    {"neg Eb", 0xf6, 3, 0, 1, 0, S_LOCK},
    {"neg Ev", 0xf7, 3, 0, 0, 0, S_LOCK},
    {"inc Eb", 0xfe, 0, 0, 1, 0, S_LOCK},
    {"inc Ev", 0xff, 0, 0, 0, 0, S_LOCK},
    {"dec Eb", 0xfe, 1, 0, 1, 0, S_LOCK},
    {"dec Ev", 0xff, 1, 0, 0, 0, S_LOCK},
    {"xchg Eb,Gb", 0x86, -1, 0, 1, 0, S_LOCK},
    {"xchg Ev,Gv", 0x87, -1, 0, 0, 0, S_LOCK},
    {"cmpxchg Eb,Gb", 0x0fb0, -1, 0, 1, 0, S_LOCK},
    {"cmpxchg Ev,Gv", 0x0fb1, -1, 0, 0, 0, S_LOCK},
    {"cmpxchg8b", 0x0fc7, 1, 0, 8, 0, S_LOCK | S_MEMORY},
    {"cmpxchg16b", 0x0fc7, 1, 0, 16, 0, S_LOCK | S_WIDE | S_LONG | S_MEMORY},
    {"xadd Eb,Gb", 0x0fc0, -1, 0, 1, 0, S_LOCK},
    {"xadd Ev,Gv", 0x0fc1, -1, 0, 0, 0, S_LOCK},
    {"bt Ev,Gv", 0x0fa3, -1, 0, 0, BITS, S_BIT},
    {"bts Ev,Gv", 0x0fab, -1, 0, 0, BITS, S_BIT | S_LOCK},
    {"btr Ev,Gv", 0x0fb3, -1, 0, 0, BITS, S_BIT | S_LOCK},
    {"btc Ev,Gv", 0x0fbb, -1, 0, 0, BITS, S_BIT | S_LOCK},
    {"bt Ev,Ib", 0x0fba, 4, 1, 0, BITS, 0},
    {"bts Ev,Ib", 0x0fba, 5, 1, 0, BITS, S_LOCK},
    {"btr Ev,Ib", 0x0fba, 6, 1, 0, BITS, S_LOCK},
    {"btc Ev,Ib", 0x0fba, 7, 1, 0, BITS, S_LOCK},
    {"movs b", 0xa4, -1, 0, 1, 0, S_STRING},
    {"movs v", 0xa5, -1, 0, 0, 0, S_STRING},
    {"cmps b", OPCODE_CMPS, -1, 0, 1, 0, S_STRING},
    {"cmps v", OPCODE_CMPS + 1, -1, 0, 0, 0, S_STRING},
    {"stos b", 0xaa, -1, 0, 1, 0, S_STRING},
    {"stos v", 0xab, -1, 0, 0, 0, S_STRING},
    {"lods b", 0xac, -1, 0, 1, 0, S_STRING},
    {"lods v", 0xad, -1, 0, 0, 0, S_STRING},
    {"scas b", 0xae, -1, 0, 1, 0, S_STRING},
    {"scas v", 0xaf, -1, 0, 0, 0, S_STRING},
    {"push Ev", 0xff, 6, 0, 0, 0, S_STACK},
    {"pop Ev", 0x8f, 0, 0, 0, 0, S_STACK},
    {"push r", 0x50, -1, 0, 0, 0, S_STACK | S_PLAIN},
    {"pop r", 0x58, -1, 0, 0, 0, S_STACK | S_PLAIN},
    {"push Iz", 0x68, -1, 4, 0, 0, S_STACK | S_PLAIN},
    {"push Ib", 0x6a, -1, 1, 0, 0, S_STACK | S_PLAIN},
    {"prefetchnta", 0x0f18, 0, 0, 1, 0, S_MEMORY | S_EXIT},
    {"prefetcht0", 0x0f18, 1, 0, 1, 0, S_MEMORY | S_EXIT},
    {"prefetcht1", 0x0f18, 2, 0, 1, 0, S_MEMORY | S_EXIT},
    {"prefetcht2", 0x0f18, 3, 0, 1, 0, S_MEMORY | S_EXIT},
    {"prefetchw", 0x0f0d, 1, 0, 1, 0, S_MEMORY | S_EXIT},
    {"clflush", 0x0fae, 7, 0, 1, 0, S_NARROW | S_MEMORY | S_EXIT},
    /* What follows is for code that is emulated throughout. */
    SHIFTS("rol", 0, RFLAGS_OF),
    SHIFTS("ror", 1, RFLAGS_OF),
    SHIFTS("rcl", 2, RFLAGS_OF),
    SHIFTS("rcr", 3, RFLAGS_OF),
    SHIFTS("shl", 4, RFLAGS_OF | RFLAGS_CF | RFLAGS_AF),
    SHIFTS("shr", 5, RFLAGS_OF | RFLAGS_CF | RFLAGS_AF),
    SHIFTS("sal", 6, RFLAGS_OF | RFLAGS_CF | RFLAGS_AF),
    SHIFTS("sar", 7, RFLAGS_OF | RFLAGS_AF),
    {"shld Ib", 0x0fa4, -1, 1, 0, RFLAGS_OF | RFLAGS_AF, S_STEP | S_COUNT},
    {"shld CL", 0x0fa5, -1, 0, 0, RFLAGS_OF | RFLAGS_AF, S_STEP | S_COUNT},
    {"shrd Ib", 0x0fac, -1, 1, 0, RFLAGS_OF | RFLAGS_AF, S_STEP | S_COUNT},
    {"shrd CL", 0x0fad, -1, 0, 0, RFLAGS_OF | RFLAGS_AF, S_STEP | S_COUNT},
    {"mul Eb", 0xf6, 4, 0, 1, PRODUCT, S_STEP},
    {"mul Ev", 0xf7, 4, 0, 0, PRODUCT, S_STEP},
    {"imul Eb", 0xf6, 5, 0, 1, PRODUCT, S_STEP},
    {"imul Ev", 0xf7, 5, 0, 0, PRODUCT, S_STEP},
    {"imul Gv,Ev", 0x0faf, -1, 0, 0, PRODUCT, S_STEP},
    {"imul Gv,Ev,Iz", 0x69, -1, 4, 0, PRODUCT, S_STEP},
    {"imul Gv,Ev,Ib", 0x6b, -1, 1, 0, PRODUCT, S_STEP},
    {"div Eb", 0xf6, 6, 0, 1, QUOTIENT, S_STEP},
    {"div Ev", 0xf7, 6, 0, 0, QUOTIENT, S_STEP | S_NO_64},
    {"idiv Eb", 0xf6, 7, 0, 1, QUOTIENT, S_STEP},
    {"idiv Ev", 0xf7, 7, 0, 0, QUOTIENT, S_STEP | S_NO_64},
    {"setcc Eb", 0x0f90, 0, 0, 1, 0, S_STEP | S_CC},
    {"cmovcc Gv,Ev", 0x0f40, -1, 0, 0, 0, S_STEP | S_CC},
    {"bsf Gv,Ev", 0x0fbc, -1, 0, 0, QUOTIENT & ~RFLAGS_ZF, S_STEP},
    {"bsr Gv,Ev", 0x0fbd, -1, 0, 0, QUOTIENT & ~RFLAGS_ZF, S_STEP},
    {"lea Gv,M", 0x8d, -1, 0, 1, 0, S_STEP | S_MEMORY},
    {"nop Ev", 0x0f1f, 0, 0, 1, 0, S_STEP},
    {"bswap", 0x0fc8, -1, 0, 0, 0, S_STEP | S_OPREG | S_NO_16},
    {"xchg r,rAX", 0x90, -1, 0, 0, 0, S_STEP | S_OPREG},
    {"mov r,Ib", 0xb0, -1, 1, 1, 0, S_STEP | S_OPREG},
    {"mov r,Iv", 0xb8, -1, 8, 0, 0, S_STEP | S_OPREG},
    {"inc r", 0x40, -1, 0, 0, 0, S_STEP | S_OPREG | S_OLD},
    {"dec r", 0x48, -1, 0, 0, 0, S_STEP | S_OPREG | S_OLD},
    ACCUMULATOR("add", 0x04, 0),
    ACCUMULATOR("or", 0x0c, LOGIC),
    ACCUMULATOR("adc", 0x14, 0),
    ACCUMULATOR("sbb", 0x1c, 0),
    ACCUMULATOR("and", 0x24, LOGIC),
    ACCUMULATOR("sub", 0x2c, 0),
    ACCUMULATOR("xor", 0x34, LOGIC),
    ACCUMULATOR("cmp", 0x3c, 0),
    ACCUMULATOR("test", 0xa8, LOGIC),
    {"cbw", 0x98, -1, 0, 0, 0, S_STEP | S_ACC},
    {"cwd", 0x99, -1, 0, 0, 0, S_STEP | S_ACC},
    {"sahf", 0x9e, -1, 0, 0, 0, S_STEP | S_ACC},
    {"lahf", 0x9f, -1, 0, 0, 0, S_STEP | S_ACC},
    {"cmc", 0xf5, -1, 0, 0, 0, S_STEP | S_ACC},
    {"clc", 0xf8, -1, 0, 0, 0, S_STEP | S_ACC},
    {"stc", 0xf9, -1, 0, 0, 0, S_STEP | S_ACC},
    {"cld", 0xfc, -1, 0, 0, 0, S_STEP | S_ACC},
    {"std", 0xfd, -1, 0, 0, 0, S_STEP | S_ACC},
    {"daa", 0x27, -1, 0, 0, RFLAGS_OF, S_STEP | S_ACC | S_OLD},
    {"das", 0x2f, -1, 0, 0, RFLAGS_OF, S_STEP | S_ACC | S_OLD},
    {"aaa", 0x37, -1, 0, 0, DECIMAL, S_STEP | S_ACC | S_OLD},
    {"aas", 0x3f, -1, 0, 0, DECIMAL, S_STEP | S_ACC | S_OLD},
    {"aam", 0xd4, -1, 1, 1, SCALED, S_STEP | S_ACC | S_OLD},
    {"aad", 0xd5, -1, 1, 1, SCALED, S_STEP | S_ACC | S_OLD},
    {"pusha", 0x60, -1, 0, 0, 0, S_PARTIAL | S_STEP | S_STACK | S_ACC | S_OLD},
    {"popa", 0x61, -1, 0, 0, 0, S_PARTIAL | S_STEP | S_STACK | S_ACC | S_OLD},
    {"push DS", 0x1e, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC | S_SELECTOR | S_OLD},
    {"push ES", 0x06, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC | S_SELECTOR | S_OLD},
    {"push SS", 0x16, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC | S_SELECTOR | S_OLD},
    {"push FS", 0x0fa0, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC | S_SELECTOR},
    {"push GS", 0x0fa8, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC | S_SELECTOR},
    {"pushf", 0x9c, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC},
    {"leave", 0xc9, -1, 0, 0, 0, S_STEP | S_STACK | S_ACC | S_FRAME},
    {"xlat", 0xd7, -1, 0, 1, 0, S_STEP | S_ACC | S_TABLE},
};
const unsigned nr_emul_forms = ARRAY_SIZE(emul_forms);

#define READ_ONLY 0xf1u
#define DOWN 0xf7u

struct segment emul_data[NR_EMUL_DATA] = {
    {.attr = DATA | BIG, .limit = UINT32_MAX},           /* flat */
    {.attr = DATA | BIG, .limit = 0xffff},               /* all of it */
    {.attr = DATA | BIG, .limit = 0x2fff, .base = 4096}, /* up to a boundary of pages */
    {.attr = DOWN | BIG, .limit = 0x2fff},               /* from one on */
    {.attr = DATA, .limit = 0xffff}, /* 16-bit ones: not every kernel has them */
    {.attr = DOWN, .limit = 0x2fff},
    {.attr = READ_ONLY | BIG, .limit = 0xffff},
};

void emulforms_make_segments(uint8_t *code)
{
    /* What this kernel does not make is replaced. */
    for (unsigned i = 0; i < NR_EMUL_DATA; i++) {
        struct segment *s = &emul_data[i];

        s->base += i == DATA_FLAT ? 0 : (uint64_t)code;
        s->selector = native_segment(NATIVE_FIRST_DATA + i, (uint32_t)s->base, s->limit, s->attr);
        if (s->selector == 0) {
            *s = emul_data[DATA_SMALL];
        }
    }
}

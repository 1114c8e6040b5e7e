/* SPDX-License-Identifier: BSD-2-Clause */
/* Instruction lengths and raw operands against a table of encodings; random bytes; the cache. */
#include "kernel/emul/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/lib/rng.h"
#include "mm/env.h"
#include "mm/slab.h"

unsigned env_cpu(void)
{
    return 0;
}

unsigned env_nr_cpus(void)
{
    return 1;
}

void *kmalloc(size_t size, uint32_t owner)
{
    (void)owner;
    return calloc(1, size);
}

void kfree(void *ptr)
{
    free(ptr);
}

struct encoding {
    enum emul_mode mode;
    unsigned length;
    uint8_t bytes[16];
};

static const struct encoding encodings[] = {
    {EMUL_64, 2, {0x0f, 0xa2}},                                      /* cpuid */
    {EMUL_64, 3, {0x66, 0x0f, 0xa2}},                                /* with a prefix */
    {EMUL_64, 2, {0x0f, 0x32}},                                      /* rdmsr */
    {EMUL_64, 3, {0x0f, 0x01, 0xf9}},                                /* rdtscp */
    {EMUL_64, 3, {0x0f, 0x01, 0xd9}},                                /* vmmcall */
    {EMUL_64, 3, {0x0f, 0x01, 0xd1}},                                /* xsetbv */
    {EMUL_64, 3, {0x0f, 0x01, 0x38}},                                /* invlpg [rax] */
    {EMUL_64, 1, {0xf4}},                                            /* hlt */
    {EMUL_64, 2, {0xf3, 0x90}},                                      /* pause */
    {EMUL_64, 1, {0xec}},                                            /* in al, dx */
    {EMUL_64, 2, {0xe4, 0x21}},                                      /* in al, 0x21 */
    {EMUL_64, 2, {0xf3, 0x6e}},                                      /* rep outsb */
    {EMUL_64, 3, {0x0f, 0x22, 0xc0}},                                /* mov cr0, rax */
    {EMUL_64, 4, {0x44, 0x0f, 0x22, 0xc0}},                          /* mov cr8, rax */
    {EMUL_16, 4, {0xf0, 0x0f, 0x22, 0xc0}},                          /* lock mov cr0 = cr8 */
    {EMUL_64, 2, {0x89, 0x08}},                                      /* mov [rax], ecx */
    {EMUL_64, 7, {0x8b, 0x04, 0x25, 0, 3, 0xe0, 0xfe}},              /* mov eax, [0xfee00300] */
    {EMUL_64, 10, {0xc7, 0x80, 0xb0, 0, 0, 0, 1, 2, 3, 4}},          /* mov dword [rax+b0], imm */
    {EMUL_64, 9, {0xa1, 1, 2, 3, 4, 5, 6, 7, 8}},                    /* mov eax, moffs64 */
    {EMUL_32, 5, {0xa1, 1, 2, 3, 4}},                                /* mov eax, moffs32 */
    {EMUL_16, 3, {0xa1, 1, 2}},                                      /* mov ax, moffs16 */
    {EMUL_16, 6, {0xc7, 0x06, 0x34, 0x12, 0x78, 0x56}},              /* mov word [1234], 5678 */
    {EMUL_64, 4, {0xf3, 0x48, 0xa5, 0}},                             /* rep movsq: 3 */
    {EMUL_64, 11, {0x66, 0x41, 0xc7, 0x84, 0x24, 8, 0, 0, 0, 1, 2}}, /* mov word [r12+8], imm */
    {EMUL_64, 10, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}},             /* mov rax, imm64 */
    {EMUL_64, 6, {0x66, 0x0f, 0x38, 0x82, 0x04, 0x24}},              /* invpcid rax, [rsp] */
    {EMUL_64, 6, {0x66, 0x0f, 0x3a, 0x0f, 0xc1, 4}},                 /* palignr xmm0, xmm1, 4 */
    {EMUL_64, 4, {0x0f, 0x0f, 0xc1, 0x9e}},                          /* pfadd mm0, mm1 */
    /* What the bytes of vector extensions' prefixes were, and mostly still are. */
    {EMUL_32, 2, {0xc5, 0x00}},       /* lds eax, [eax] */
    {EMUL_16, 3, {0xc4, 0x47, 0x02}}, /* les ax, [bx+2] */
    {EMUL_32, 2, {0x62, 0x00}},       /* bound eax, [eax] */
    {EMUL_64, 2, {0x8f, 0x00}},       /* pop [rax] */
};

static void test_lengths(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(encodings); i++) {
        const struct encoding *e = &encodings[i];
        unsigned want = e->bytes[0] == 0xf3 && e->bytes[1] == 0x48 ? 3 : e->length;
        struct insn in;
        assert_int_equal(emul_length(e->bytes, 15, e->mode), want);
        assert_int_equal(emul_length(e->bytes, want, e->mode), want);
        assert_int_equal(emul_length(e->bytes, want - 1, e->mode), 0);
        assert_true(decode_insn(e->bytes, 15, e->mode, &in));
        assert_int_equal(in.length, want);
    }
    assert_int_equal(emul_length((const uint8_t *)"\x06\x00\x00", 3, EMUL_64), 0); /* push es */
    assert_int_equal(emul_length(encodings[0].bytes, 0, EMUL_64), 0);
    /* VEX, EVEX and XOP themselves: not in our tables (tools/zydis_prune.py) */
    assert_int_equal(emul_length((const uint8_t *)"\xc5\xf8\x10\x04\x24", 5, EMUL_64), 0);
    assert_int_equal(emul_length((const uint8_t *)"\x62\xf1\x7c\x48\x10\x00", 6, EMUL_64), 0);
    assert_int_equal(emul_length((const uint8_t *)"\x8f\xe9\x78\x80\xc1", 5, EMUL_64), 0);
}

static void test_operands(void **state)
{
    (void)state;
    struct insn in;
    /* mov [r12+r13*4-8], r9w with gs: */
    static const uint8_t a[15] = {0x65, 0x66, 0x47, 0x89, 0x4c, 0xac, 0xf8};
    assert_true(decode_insn(a, 15, EMUL_64, &in));
    assert_int_equal(in.opcode, 0x89);
    assert_int_equal(in.operand_bytes, 2);
    assert_int_equal(in.address_bytes, 8);
    assert_int_equal(in.seg, SEG_GS);
    assert_int_equal(in.reg, 9);
    assert_int_equal(in.base, 12);
    assert_int_equal(in.index, 13);
    assert_int_equal(in.scale, 2);
    assert_int_equal(in.disp, -8);
    /* mov al, [rip+0x11223344] */
    static const uint8_t b[15] = {0x8a, 0x05, 0x44, 0x33, 0x22, 0x11};
    assert_true(decode_insn(b, 15, EMUL_64, &in));
    assert_int_equal(in.base, INSN_BASE_RIP);
    assert_int_equal(in.disp, 0x11223344);
    assert_true(decode_insn(b, 15, EMUL_32, &in));
    assert_int_equal(in.base, INSN_NO_REG);
    /* mov byte [bp+di+5], 0xff in 16-bit mode */
    static const uint8_t c[15] = {0xc6, 0x43, 0x05, 0xff};
    assert_true(decode_insn(c, 15, EMUL_16, &in));
    assert_int_equal(in.base, GPR_RBP);
    assert_int_equal(in.index, GPR_RDI);
    assert_int_equal(in.address_bytes, 2);
    assert_int_equal(in.imm, -1);
    /* the direct form's address */
    static const uint8_t d[15] = {0xa3, 1, 0, 0, 0, 0, 0, 0, 0x80};
    assert_true(decode_insn(d, 15, EMUL_64, &in));
    assert_int_equal((uint64_t)in.disp, 0x8000000000000001);
    assert_false(in.has_modrm);
    /* [rsp] has a SIB byte without index; [rbp] none without displacement */
    static const uint8_t e[15] = {0x8b, 0x04, 0x24};
    assert_true(decode_insn(e, 15, EMUL_64, &in));
    assert_int_equal(in.base, GPR_RSP);
    assert_int_equal(in.index, INSN_NO_REG);
}

static void test_cache(void **state)
{
    (void)state;
    struct insn in, again;
    static const uint8_t bytes[15] = {0x8b, 0x88, 0x90, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    assert_false(decode_cached(bytes, 15, EMUL_64, &in));
    assert_true(decode_insn(bytes, 15, EMUL_64, &in));
    assert_true(decode_cached(bytes, 15, EMUL_64, &again));
    assert_memory_equal(&in, &again, sizeof in);
    assert_false(decode_cached(bytes, 15, EMUL_32, &again));
    assert_false(decode_cached(bytes, 14, EMUL_64, &again));
}

/* Whatever the bytes are: no crash, a length within what was given, cached and fresh alike. */
static void test_random(void **state)
{
    (void)state;
    static const uint8_t starts[] = {0x0f, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x48, 0x41,
                                     0xc4, 0xc5, 0x62, 0x8f, 0x65, 0x2e, 0xd9, 0xff};
    struct rng rng;
    unsigned found = 0;
    rng_seed(&rng, 17);
    for (int i = 0; i < 400000; i++) {
        uint8_t bytes[15];
        for (int j = 0; j < 15; j++) {
            bytes[j] = (uint8_t)rng_next(&rng);
        }
        for (int j = 0; j < 3 && rng_below(&rng, 2); j++) {
            bytes[j] = starts[rng_below(&rng, sizeof starts)];
        }
        unsigned len = (unsigned)rng_below(&rng, 16);
        enum emul_mode mode = (enum emul_mode)rng_below(&rng, 3);
        uint8_t *tight = malloc(len + !len); /* the sanitizer guards its end */
        memcpy(tight, bytes, len);
        unsigned n = emul_length(tight, len, mode);
        struct insn in;
        assert_true(n <= len);
        found += n > 0;
        assert_int_equal(emul_length(tight, len, mode), n);
        if (decode_insn(tight, len, mode, &in)) {
            assert_int_equal(in.length, n);
            assert_true(in.base < 16 || in.base >= INSN_BASE_RIP);
            assert_true(in.index < 16 || in.index == INSN_NO_REG);
            assert_true(in.operand_bytes == 2 || in.operand_bytes == 4 || in.operand_bytes == 8);
            assert_true(in.address_bytes == 2 || in.address_bytes == 4 || in.address_bytes == 8);
        }
        free(tight);
    }
    assert_true(found > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_random),
    };
    if (emul_init() != HV_OK) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest page-table walker against a naive one, mode by mode, over random tables in 64 pages,
 * random registers and random accesses: result, address, error code, and accessed and dirty bits.
 */
#include "mm/gwalk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/lib/rng.h"

#define PAGES 64
#define PHYS_BITS 40
#define ROUNDS 400000

static uint8_t memory[PAGES][4096] __attribute__((aligned(4096)));
static uint8_t naive_memory[PAGES][4096] __attribute__((aligned(4096)));
static struct rng rng;

static void *peek(void *ctx, gfn_t gfn)
{
    (void)ctx;
    return gfn.n < PAGES ? memory[gfn.n] : NULL;
}

/* --- the naive walker --- */

struct naive {
    enum hv_err err;
    uint64_t gpa;
    uint32_t error;
};

struct step {
    uint64_t at;    /* address of the entry */
    uint64_t value; /* as read */
    int bytes;
};

static bool load(uint64_t at, int bytes, uint64_t *out)
{
    *out = 0;
    if (at / 4096 >= PAGES) {
        return false;
    }
    memcpy(out, &naive_memory[at / 4096][at % 4096], (size_t)bytes);
    return true;
}

static uint32_t code(const struct gwalk_request *r, uint32_t bits)
{
    if (r->access & GWALK_WRITE) {
        bits |= 2;
    }
    if (r->access & GWALK_USER) {
        bits |= 4;
    }
    if ((r->access & GWALK_EXEC) && ((r->paging->efer >> 11 & 1) || (r->paging->cr4 >> 20 & 1))) {
        bits |= 16;
    }
    return bits;
}

static struct naive fails(const struct gwalk_request *r, uint32_t bits)
{
    return (struct naive){HV_EFAULT, 0, code(r, bits)};
}

static struct naive conclude(const struct gwalk_request *r, bool w, bool u, bool nx, uint64_t gpa,
                             struct step *steps, int n)
{
    bool wp = r->paging->cr0 >> 16 & 1, smep = r->paging->cr4 >> 20 & 1,
         smap = r->paging->cr4 >> 21 & 1;
    bool bad = false;
    if (r->access & GWALK_USER) {
        bad = !u;
        bad |= (r->access & GWALK_WRITE) && !w;
        bad |= (r->access & GWALK_EXEC) && nx;
    } else if (r->access & GWALK_EXEC) {
        bad = nx || (u && smep);
    } else {
        bad = u && smap && !(r->access & GWALK_AC);
        bad |= (r->access & GWALK_WRITE) && !w && wp;
    }
    if (bad) {
        return fails(r, 1);
    }
    for (int i = 0; i < n && (r->access & GWALK_SET_AD); i++) {
        uint64_t v = steps[i].value | 0x20;
        if (i == n - 1 && (r->access & GWALK_WRITE)) {
            v |= 0x40;
        }
        memcpy(&naive_memory[steps[i].at / 4096][steps[i].at % 4096], &v, (size_t)steps[i].bytes);
    }
    return (struct naive){HV_OK, gpa, 0};
}

static struct naive naive_32(const struct gwalk_request *r)
{
    uint32_t va = (uint32_t)r->gva.a;
    bool pse = r->paging->cr4 >> 4 & 1;
    struct step s[2] = {{.at = (r->paging->cr3 & 0xfffff000) + (va >> 22) * 4, .bytes = 4}};
    if (!load(s[0].at, 4, &s[0].value)) {
        return (struct naive){.err = HV_EAGAIN};
    }
    uint64_t e = s[0].value;
    if (!(e & 1)) {
        return fails(r, 0);
    }
    if (pse && (e & 0x80)) {
        if (e & (1 << 21)) {
            return fails(r, 9);
        }
        uint64_t gpa = (e & 0xffc00000) | (e >> 13 & 0xff) << 32 | (va & 0x3fffff);
        return conclude(r, e & 2, e & 4, false, gpa, s, 1);
    }
    s[1] = (struct step){.at = (e & 0xfffff000) + (va >> 12 & 0x3ff) * 4, .bytes = 4};
    if (!load(s[1].at, 4, &s[1].value)) {
        return (struct naive){.err = HV_EAGAIN};
    }
    uint64_t p = s[1].value;
    if (!(p & 1)) {
        return fails(r, 0);
    }
    return conclude(r, e & p & 2, e & p & 4, false, (p & 0xfffff000) | (va & 0xfff), s, 2);
}

/* The levels that PAE and long mode have alike, from the page directory down. */
static struct naive naive_64_tail(const struct gwalk_request *r, uint64_t va, uint64_t table,
                                  uint64_t and_bits, bool nx, uint64_t reserved, struct step *s,
                                  int n)
{
    for (int level = 1; level >= 0; level--) {
        int shift = 12 + 9 * level;
        s[n] = (struct step){.at = table + (va >> shift & 511) * 8, .bytes = 8};
        if (!load(s[n].at, 8, &s[n].value)) {
            return (struct naive){.err = HV_EAGAIN};
        }
        uint64_t e = s[n++].value;
        if (!(e & 1)) {
            return fails(r, 0);
        }
        bool leaf = level == 0 || (e & 0x80);
        if ((e & reserved) || (leaf && level == 1 && (e & 0x1fe000))) {
            return fails(r, 9);
        }
        and_bits &= e;
        nx |= e >> 63;
        if (leaf) {
            uint64_t mask = (1ull << shift) - 1;
            uint64_t gpa = (e & 0xffffffffff000 & ~mask) | (va & mask);
            return conclude(r, and_bits & 2, and_bits & 4, nx, gpa, s, n);
        }
        table = e & 0xffffffffff000;
    }
    return (struct naive){.err = HV_EINVAL};
}

static uint64_t high_reserved(const struct gwalk_request *r)
{
    uint64_t bits = 0;
    for (int i = PHYS_BITS; i < 52; i++) {
        bits |= 1ull << i;
    }
    return bits | (r->paging->efer >> 11 & 1 ? 0 : 1ull << 63);
}

static struct naive naive_pae(const struct gwalk_request *r)
{
    uint32_t va = (uint32_t)r->gva.a;
    struct step s[3];
    uint64_t pdpte;
    if (!load((r->paging->cr3 & 0xffffffe0) + (va >> 30) * 8, 8, &pdpte)) {
        return (struct naive){.err = HV_EAGAIN};
    }
    if (!(pdpte & 1)) {
        return fails(r, 0);
    }
    if (pdpte & (high_reserved(r) | 0xfff0000000000000 | 0x1e6)) {
        return fails(r, 9);
    }
    return naive_64_tail(r, va, pdpte & 0xffffffffff000, 6, false,
                         high_reserved(r) | 0x7ff0000000000000, s, 0);
}

static struct naive naive_long(const struct gwalk_request *r)
{
    uint64_t va = r->gva.a, table = r->paging->cr3 & 0xffffffffff000, and_bits = 6;
    struct step s[4];
    bool nx = false;
    int n = 0;
    for (int level = 3; level >= 2; level--) {
        s[n] = (struct step){.at = table + (va >> (12 + 9 * level) & 511) * 8, .bytes = 8};
        if (!load(s[n].at, 8, &s[n].value)) {
            return (struct naive){.err = HV_EAGAIN};
        }
        uint64_t e = s[n++].value;
        if (!(e & 1)) {
            return fails(r, 0);
        }
        if (e & high_reserved(r)) {
            return fails(r, 9);
        }
        and_bits &= e;
        nx |= e >> 63;
        if (e & 0x80) {
            if (level == 3 || !r->page1gb || (e & 0x3fffe000)) {
                return fails(r, 9);
            }
            uint64_t gpa = (e & 0xfffffc0000000) | (va & 0x3fffffff);
            return conclude(r, and_bits & 2, and_bits & 4, nx, gpa, s, n);
        }
        table = e & 0xffffffffff000;
    }
    return naive_64_tail(r, va, table, and_bits, nx, high_reserved(r), s, n);
}

static struct naive naive_walk(const struct gwalk_request *r)
{
    if (!(r->paging->cr0 >> 31 & 1)) {
        return (struct naive){HV_OK, (uint32_t)r->gva.a, 0};
    }
    if (r->paging->efer >> 10 & 1) {
        return naive_long(r);
    }
    return r->paging->cr4 >> 5 & 1 ? naive_pae(r) : naive_32(r);
}

/* --- random worlds --- */

static bool one_in(uint64_t n)
{
    return rng_below(&rng, n) == 0;
}

/* An entry that mostly works: the interesting cases are those deep in the walk. */
static uint64_t random_entry(int bytes)
{
    uint64_t e = rng_below(&rng, PAGES + 1) << 12 | 0x7;
    e |= rng_next(&rng) & 0x60;
    if (one_in(6)) {
        e |= 0x80; /* large */
        if (!one_in(4)) {
            e &= ~0x3ffff000ull;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (one_in(12)) {
            e &= ~(1ull << i);
        }
    }
    if (bytes == 8 && one_in(10)) {
        e |= 1ull << 63;
    }
    if (one_in(20)) {
        e ^= 1ull << rng_below(&rng, (uint64_t)bytes * 8);
    }
    return e;
}

#define PDPT_PAGES 4 /* in PAE mode these hold mostly good top-level entries */

static void fill(int bytes, bool pae)
{
    for (int p = 0; p < PAGES; p++) {
        for (int i = 0; i < 4096 / bytes; i++) {
            uint64_t e = random_entry(bytes);
            if (pae && p < PDPT_PAGES && !one_in(8)) {
                e &= ~0x80000000000001e6ull;
            }
            memcpy(&memory[p][i * bytes], &e, (size_t)bytes);
        }
    }
    memcpy(naive_memory, memory, sizeof memory);
}

static void random_registers(struct guest_paging *pg, enum gwalk_mode mode)
{
    *pg = (struct guest_paging){.cr3 = rng_below(&rng, PAGES) << 12};
    pg->cr0 = (mode == GWALK_NONE ? 0 : 1ull << 31) | (rng_next(&rng) & (1 << 16));
    pg->cr4 = rng_next(&rng) & (1 << 20 | 1 << 21);
    pg->efer = rng_next(&rng) & (1 << 11);
    if (mode == GWALK_PSE) {
        pg->cr4 |= 1 << 4;
    }
    if (mode == GWALK_PAE || mode == GWALK_LONG4) {
        pg->cr4 |= 1 << 5;
    }
    if (mode == GWALK_PAE) {
        pg->cr3 = rng_below(&rng, PDPT_PAGES * 128) << 5;
    }
    if (mode == GWALK_LONG4) {
        pg->efer |= 1 << 10;
    }
}

static uint32_t random_access(void)
{
    uint32_t access = (uint32_t)rng_next(&rng) & (GWALK_USER | GWALK_AC | GWALK_SET_AD);
    switch (rng_below(&rng, 3)) {
    case 0:
        return access | GWALK_WRITE;
    case 1:
        return access | GWALK_EXEC;
    default:
        return access;
    }
}

static void against_naive(enum gwalk_mode mode)
{
    uint64_t seen[3] = {0};
    fill(mode == GWALK_32 || mode == GWALK_PSE ? 4 : 8, mode == GWALK_PAE);
    for (int i = 0; i < ROUNDS / 5; i++) {
        struct guest_paging pg;
        random_registers(&pg, mode);
        assert_int_equal(gwalk_mode(&pg), mode);
        struct gwalk_request req = {.paging = &pg,
                                    .gva = GVA(rng_next(&rng)),
                                    .access = random_access(),
                                    .phys_bits = PHYS_BITS,
                                    .page1gb = one_in(2),
                                    .peek = peek};
        struct gwalk_result res = {.error = 0};
        struct naive want = naive_walk(&req);
        enum hv_err err = gwalk(&req, &res);
        assert_int_equal(err, want.err);
        if (err == HV_OK) {
            assert_int_equal(res.gpa.a, want.gpa);
            seen[0]++;
        } else if (err == HV_EFAULT) {
            assert_int_equal(res.error, want.error);
            seen[1]++;
        } else {
            assert_int_equal(err, HV_EAGAIN);
            assert_true(res.table.n >= PAGES);
            seen[2]++;
        }
    }
    assert_memory_equal(memory, naive_memory, sizeof memory);
    assert_true(seen[0] > 100);
    assert_true(mode == GWALK_NONE || seen[1] > 100);
}

static void test_modes(void **state)
{
    (void)state;
    for (enum gwalk_mode m = GWALK_NONE; m < NR_GWALK_MODES; m++) {
        against_naive(m);
    }
}

static void test_page_sizes(void **state)
{
    (void)state;
    struct guest_paging pg = {.cr0 = 1ull << 31, .cr3 = 0x1000, .cr4 = 1 << 5, .efer = 1 << 10};
    struct gwalk_request req = {
        .paging = &pg, .phys_bits = PHYS_BITS, .page1gb = true, .peek = peek};
    struct gwalk_result res;
    memset(memory, 0, sizeof memory);
    *(uint64_t *)&memory[1][0] = 0x2007;
    *(uint64_t *)&memory[2][0] = 0x3007;
    *(uint64_t *)&memory[2][8] = 0x40000087;
    *(uint64_t *)&memory[3][0] = 0x4007;
    *(uint64_t *)&memory[3][8] = 0x800087;
    *(uint64_t *)&memory[4][8] = 0x9007;
    req.gva = GVA(0x1234);
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(res.gpa.a, 0x9234);
    assert_int_equal(res.page_shift, 12);
    req.gva = GVA(0x234567);
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(res.gpa.a, 0x834567);
    assert_int_equal(res.page_shift, 21);
    req.gva = GVA(0x40000123);
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(res.gpa.a, 0x40000123);
    assert_int_equal(res.page_shift, 30);
    /* A processor without such pages knows PS there as reserved; 2 MiB it has all the same. */
    req.page1gb = false;
    req.access = GWALK_WRITE | GWALK_USER;
    assert_int_equal(gwalk(&req, &res), HV_EFAULT);
    assert_int_equal(res.error, 0xf); /* P, W, U, RSVD */
    req.access = 0;
    assert_int_equal(gwalk(&req, &res), HV_EFAULT);
    assert_int_equal(res.error, 0x9);
    req.gva = GVA(0x234567);
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(res.page_shift, 21);
}

static unsigned owned;
static bool may_own;

static void *own(void *ctx, void *slot)
{
    (void)ctx;
    owned++;
    return may_own ? slot : NULL;
}

/* Tables are asked for to be written only where a bit is missing. */
static void test_owning(void **state)
{
    (void)state;
    struct guest_paging pg = {.cr0 = 1ull << 31, .cr3 = 0x1000, .cr4 = 1 << 5, .efer = 1 << 10};
    struct gwalk_request req = {.paging = &pg,
                                .gva = GVA(0x1234),
                                .access = GWALK_SET_AD,
                                .phys_bits = PHYS_BITS,
                                .peek = peek,
                                .own = own};
    struct gwalk_result res;

    memset(memory, 0, sizeof memory);
    *(uint64_t *)&memory[1][0] = 0x2027;
    *(uint64_t *)&memory[2][0] = 0x3027;
    *(uint64_t *)&memory[3][0] = 0x4027;
    *(uint64_t *)&memory[4][8] = 0x9007;
    assert_int_equal(gwalk(&req, &res), HV_EAGAIN);
    assert_int_equal(owned, 1);
    assert_int_equal(*(uint64_t *)&memory[4][8], 0x9007);
    may_own = true;
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(owned, 2);
    assert_int_equal(*(uint64_t *)&memory[4][8], 0x9027);
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(owned, 2);
    req.access |= GWALK_WRITE;
    assert_int_equal(gwalk(&req, &res), HV_OK);
    assert_int_equal(owned, 3);
    assert_int_equal(*(uint64_t *)&memory[4][8], 0x9067);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_page_sizes),
        cmocka_unit_test(test_owning),
    };
    rng_seed(&rng, 0x9a1c);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame allocator against a map of owners by frame.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/buddy_internal.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "tests/host/env.h"

#define BASE MFN(0x300)
#define NR_FRAMES 16384ull
#define MAX_BLOCKS 512

struct block {
    mfn_t mfn;
    unsigned order;
    enum frame_use use;
    uint32_t owner;
};

struct model {
    struct block blocks[MAX_BLOCKS];
    unsigned nr;
    uint8_t taken[NR_FRAMES]; /* 1 where a block lies */
    uint64_t frames;
};

static void model_mark(struct model *m, mfn_t mfn, unsigned order, uint8_t taken)
{
    for (uint64_t i = 0; i < BIT(order); i++) {
        uint64_t at = mfn.n + i - BASE.n;

        assert_true(at < NR_FRAMES);
        assert_int_equal(m->taken[at], !taken);
        m->taken[at] = taken;
    }
    m->frames += taken ? BIT(order) : -BIT(order);
}

static void model_check(const struct model *m)
{
    struct buddy_stats stats;
    uint64_t used[NR_FRAME_USES] = {0};

    buddy_stats(&stats);
    assert_int_equal(stats.free, env_idle_frames() - m->frames);
    for (unsigned i = 0; i < m->nr; i++) {
        used[m->blocks[i].use] += BIT(m->blocks[i].order);
        assert_int_equal(frame_head(m->blocks[i].mfn).n, m->blocks[i].mfn.n);
    }
    for (unsigned use = FRAME_GUEST; use < NR_FRAME_USES; use++) {
        assert_int_equal(stats.used[use], used[use]);
    }
    assert_true(mm_audit());
}

static void model_check_owners(const struct model *m)
{
    for (uint32_t owner = 1; owner <= 4; owner++) {
        uint64_t counted[NR_FRAME_USES];
        uint64_t expected[NR_FRAME_USES] = {0};

        for (unsigned i = 0; i < m->nr; i++) {
            if (m->blocks[i].owner == owner) {
                expected[m->blocks[i].use] += BIT(m->blocks[i].order);
            }
        }
        buddy_count_owner(owner, counted);
        assert_memory_equal(counted, expected, sizeof(counted));
    }
}

static void model_alloc(struct model *m, struct rng *rng)
{
    struct block *b = &m->blocks[m->nr];
    unsigned order = rng_below(rng, 3) ? 0 : (unsigned)rng_below(rng, 11);
    uint32_t flags = rng_below(rng, 4) == 0 ? BUDDY_ZERO : 0;

    b->order = order;
    b->use = FRAME_GUEST + (enum frame_use)rng_below(rng, 4);
    b->owner = 1 + (uint32_t)rng_below(rng, 4);
    flags |= rng_below(rng, 8) == 0 ? BUDDY_LOW : 0;
    if (m->nr == MAX_BLOCKS || buddy_alloc(order, b->use, b->owner, flags, &b->mfn) != HV_OK) {
        return;
    }
    assert_true(IS_ALIGNED(b->mfn.n, BIT(order)));
    model_mark(m, b->mfn, order, 1);
    for (uint64_t i = 0; i < BIT(order) && (flags & BUDDY_ZERO); i++) {
        static const char zero[PAGE_SIZE];

        assert_memory_equal(env_frame_ptr(mfn_add(b->mfn, i)), zero, PAGE_SIZE);
    }
    memset(env_frame_ptr(b->mfn), 0xa5, PAGE_SIZE);
    m->nr++;
}

/* Free a block, or an aligned part of it: what stays becomes smaller blocks. */
static void model_free(struct model *m, struct rng *rng)
{
    struct block *b;
    struct block whole;
    mfn_t part;
    unsigned order;

    if (m->nr == 0) {
        return;
    }
    b = &m->blocks[rng_below(rng, m->nr)];
    whole = *b;
    order = rng_below(rng, 2) ? whole.order : (unsigned)rng_below(rng, whole.order + 1);
    if (m->nr + whole.order - order > MAX_BLOCKS) {
        order = whole.order;
    }
    part = mfn_add(whole.mfn, rng_below(rng, BIT(whole.order - order)) << order);
    *b = m->blocks[--m->nr];
    for (unsigned have = whole.order; have > order; have--) {
        mfn_t half = mfn_add(whole.mfn, BIT(have - 1));
        struct block rest = whole;

        rest.order = have - 1;
        rest.mfn = part.n >= half.n ? whole.mfn : half;
        whole.mfn = part.n >= half.n ? half : whole.mfn;
        m->blocks[m->nr++] = rest;
    }
    model_mark(m, part, order, 0);
    buddy_free(part, order);
}

static void random_operations(void **state)
{
    static struct model m;
    struct rng rng;

    (void)state;
    memset(&m, 0, sizeof(m));
    rng_seed(&rng, env_seed("buddy: random operations"));
    env_start(BASE, NR_FRAMES, 3);
    for (unsigned step = 0; step < 20000; step++) {
        env_set_cpu((unsigned)rng_below(&rng, 3));
        if (rng_below(&rng, 2)) {
            model_alloc(&m, &rng);
        } else {
            model_free(&m, &rng);
        }
        if (step % 256 == 0) {
            model_check(&m);
            model_check_owners(&m);
        }
    }
    while (m.nr != 0) {
        model_free(&m, &rng);
    }
    env_stop();
}

static void exhaustion_returns_everything(void **state)
{
    static mfn_t taken[NR_FRAMES];
    struct buddy_stats before;
    struct buddy_stats after;
    uint64_t nr = 0;
    mfn_t big;

    (void)state;
    env_start(BASE, NR_FRAMES, 2);
    buddy_stats(&before);
    while (buddy_alloc(0, FRAME_GUEST, 1, 0, &taken[nr]) == HV_OK) {
        env_set_cpu(nr++ & 1);
    }
    assert_int_equal(nr, env_idle_frames());
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, BUDDY_FAST, &big), HV_EAGAIN);
    assert_int_equal(buddy_alloc(3, FRAME_GUEST, 1, 0, &big), HV_ENOMEM);
    for (uint64_t i = 0; i < nr; i++) {
        buddy_free(taken[i], 0);
    }
    /* Frames in the caches are found for a larger block. */
    assert_int_equal(buddy_alloc(12, FRAME_GUEST, 1, 0, &big), HV_OK);
    buddy_free(big, 12);
    buddy_stats(&after);
    while (buddy_alloc(13, FRAME_GUEST, 1, 0, &big) == HV_OK) {
        taken[--nr] = big;
    }
    buddy_stats(&after);
    assert_true(after.free < BIT(13));
    while (nr != env_idle_frames()) {
        buddy_free(taken[nr++], 13);
    }
    env_stop();
}

static void fast_path_never_waits(void **state)
{
    mfn_t mfn[2 * 64];
    mfn_t other;
    unsigned nr = 0;

    (void)state;
    env_start(BASE, NR_FRAMES, 2);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, 0, &mfn[nr++]), HV_OK);
    /* From here the shared lock is somebody else's: the cache serves until it is empty. */
    spin_lock(&buddy_state.lock);
    while (buddy_alloc(0, FRAME_GUEST, 1, BUDDY_FAST, &mfn[nr]) == HV_OK) {
        nr++;
    }
    assert_in_range(nr, 2, 64);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, BUDDY_FAST, &other), HV_EAGAIN);
    spin_unlock(&buddy_state.lock);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, BUDDY_FAST, &mfn[nr++]), HV_OK);
    assert_int_equal(buddy_alloc(9, FRAME_GUEST, 1, BUDDY_FAST, &other), HV_EAGAIN);
    /* A cache that is being drained. */
    buddy_caches[0].busy = true;
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, BUDDY_FAST, &other), HV_EAGAIN);
    buddy_caches[0].busy = false;
    while (nr != 0) {
        buddy_free(mfn[--nr], 0);
    }
    env_stop();
}

static void low_memory_on_request(void **state)
{
    mfn_t mfn;
    mfn_t low;

    (void)state;
    env_start(MFN(LOW_FRAMES - 8192), 12288, 1);
    assert_int_equal(buddy_alloc(4, FRAME_HOST, OWNER_HOST, 0, &mfn), HV_OK);
    assert_true(mfn.n >= LOW_FRAMES);
    assert_int_equal(buddy_alloc(0, FRAME_HOST, OWNER_HOST, BUDDY_LOW, &low), HV_OK);
    assert_true(low.n < LOW_FRAMES);
    buddy_free(low, 0);
    assert_int_equal(buddy_alloc(9, FRAME_HOST, OWNER_HOST, BUDDY_LOW, &low), HV_OK);
    assert_true(low.n < LOW_FRAMES);
    buddy_free(low, 9);
    buddy_free(mfn, 4);
    env_stop();
}

static void exact_blocks(void **state)
{
    mfn_t taken;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(buddy_alloc_at(MFN(0x1200), 9, FRAME_GUEST, 1), HV_OK);
    assert_int_equal(buddy_alloc_at(MFN(0x1200), 9, FRAME_GUEST, 1), HV_EBUSY);
    assert_int_equal(buddy_alloc_at(MFN(0x1201), 0, FRAME_GUEST, 1), HV_EBUSY);
    assert_int_equal(buddy_alloc_at(MFN(0x1201), 9, FRAME_GUEST, 1), HV_EBUSY);
    assert_int_equal(buddy_alloc_at(MFN(0x10000000), 0, FRAME_GUEST, 1), HV_EBUSY);
    assert_int_equal(buddy_alloc_at(MFN(0), 0, FRAME_GUEST, 1), HV_EBUSY);
    assert_true(mm_audit());
    /* A cached frame is free, but not in the lists. */
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, 0, &taken), HV_OK);
    buddy_free(taken, 0);
    assert_int_equal(buddy_alloc_at(taken, 0, FRAME_GUEST, 1), HV_EBUSY);
    buddy_free(MFN(0x1200), 9);
    env_stop();
}

static void gigabytes_set_aside(void **state)
{
    struct buddy_stats stats;
    static mfn_t taken[2048];
    unsigned nr = 0;
    mfn_t base;
    mfn_t second;

    (void)state;
    env_start(MFN(GIB(5) >> PAGE_SHIFT), GIB(3) >> PAGE_SHIFT, 1);
    test_env.lazy_clear = true;
    buddy_stats(&stats);
    assert_int_equal(stats.free_blocks[ORDER_1G], 2);
    assert_int_equal(buddy_set_aside(&base), HV_OK);
    assert_true(IS_ALIGNED(base.n, BIT(ORDER_1G)));
    buddy_stats(&stats);
    assert_int_equal(stats.free, env_idle_frames());
    assert_int_equal(buddy_alloc_at(mfn_add(base, 5 * 512), ORDER_2M, FRAME_GUEST, 1), HV_OK);
    /* Others come to the pieces only when nothing else is left. */
    assert_int_equal(buddy_set_aside(&second), HV_OK);
    while (buddy_alloc(ORDER_2M, FRAME_GUEST, 2, 0, &taken[nr]) == HV_OK) {
        bool aside = taken[nr].n - base.n < BIT(ORDER_1G) || taken[nr].n - second.n < BIT(ORDER_1G);

        assert_int_equal(aside, nr >= 496); /* of the third, the frame table took 32 MiB */
        nr++;
    }
    assert_int_equal(nr, 496 + 511 + 512);
    assert_true(mm_audit());
    while (nr != 0) {
        buddy_free(taken[--nr], ORDER_2M);
    }
    buddy_free(mfn_add(base, 5 * 512), ORDER_2M);
    buddy_end_aside(base);
    buddy_end_aside(second);
    buddy_stats(&stats);
    assert_int_equal(stats.free_blocks[ORDER_1G], 2);
    /* Whole gigabytes are made of what was set aside, if need be. */
    assert_int_equal(buddy_set_aside(&base), HV_OK);
    assert_int_equal(buddy_set_aside(&second), HV_OK);
    assert_int_equal(buddy_set_aside(&taken[0]), HV_ENOMEM);
    assert_int_equal(buddy_alloc(ORDER_1G, FRAME_GUEST, 1, 0, &taken[0]), HV_OK);
    buddy_free(taken[0], ORDER_1G);
    env_stop();
}

static void misuse_panics(void **state)
{
    mfn_t mfn;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(buddy_alloc(2, FRAME_GUEST, 1, 0, &mfn), HV_OK);
    ENV_EXPECT_PANIC(buddy_free(mfn, 3));
    buddy_free(mfn, 2);
    ENV_EXPECT_PANIC(buddy_free(mfn, 2));
    ENV_EXPECT_PANIC(buddy_free(mfn_add(mfn, 1), 0));
    ENV_EXPECT_PANIC(buddy_free(MFN(1), 0));
    env_stop();
}

static void audit_sees_damage(void **state)
{
    mfn_t mfn;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, 1, 0, &mfn), HV_OK);
    test_env.quiet = 1;
    frame_of(mfn)->use = FRAME_VIEW;
    assert_false(mm_audit());
    frame_of(mfn)->use = FRAME_GUEST;
    assert_false(mm_audit_gone(1));
    test_env.quiet = 0;
    buddy_free(mfn, 0);
    assert_true(mm_audit_gone(1));
    env_stop();
}

static uint64_t retired(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.used[FRAME_RETIRED];
}

/* Nothing but this test brings a retired frame back. */
static void revive(mfn_t mfn)
{
    assert_int_equal(frame_of(mfn)->use, FRAME_RETIRED);
    buddy_free(mfn, 0);
}

static void bad_frames_retire(void **state)
{
    struct buddy_holder holder;
    mfn_t cached, block;

    (void)state;
    env_start(BASE, NR_FRAMES, 2);
    assert_int_equal(buddy_retire(MFN(1), &holder), HV_ENOENT);
    assert_int_equal(buddy_retire(MFN(1ull << 40), &holder), HV_ENOENT);
    /* In a list, and in another processor's cache. */
    assert_int_equal(buddy_retire(MFN(0x1234), &holder), HV_OK);
    assert_int_equal(buddy_retire(MFN(0x1234), &holder), HV_ENOENT);
    assert_int_equal(buddy_alloc(0, FRAME_VM, 2, 0, &cached), HV_OK);
    buddy_free(cached, 0);
    env_set_cpu(1);
    assert_int_equal(buddy_retire(cached, &holder), HV_OK);
    assert_int_equal(retired(), 2);
    assert_true(mm_audit());
    /* In use: it stays with its user, and what is around it is freed without it. */
    assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 3, 0, &block), HV_OK);
    frame_of(block)->gfn = 0x800;
    mfn_t bad[] = {mfn_add(block, 77), mfn_add(block, 78), mfn_add(block, 511), block};
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(buddy_retire(bad[i], &holder), HV_EBUSY);
            assert_int_equal(holder.use, FRAME_GUEST);
            assert_int_equal(holder.owner, 3);
            assert_int_equal(holder.gfn.n, 0x800 + (bad[i].n - block.n));
        }
    }
    assert_int_equal(retired(), 2);
    buddy_free(mfn_add(block, 77), 0);
    assert_int_equal(retired(), 3);
    assert_true(mm_audit());
    for (uint64_t i = 0; i < 512; i++) {
        if (i != 77) {
            buddy_free(mfn_add(block, i), 0);
        }
    }
    assert_int_equal(retired(), 6);
    assert_true(mm_audit_gone(3));
    revive(MFN(0x1234));
    revive(cached);
    for (unsigned i = 0; i < 4; i++) {
        revive(bad[i]);
    }
    env_set_cpu(0);
    env_stop();
}

/* Random bad frames in blocks that are freed whole; they are never handed out again. */
static void bad_frames_in_blocks(void **state)
{
    enum { BLOCKS = 12, BAD = 60 };
    static mfn_t singles[NR_FRAMES];
    struct buddy_holder holder;
    mfn_t block[BLOCKS], bad[BAD + 5];
    struct rng rng;
    unsigned nr = 0, nr_singles = 0;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    rng_seed(&rng, env_seed("bad frames"));
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 1, 0, &block[i]), HV_OK);
    }
    while (nr < BAD) {
        bad[nr] = mfn_add(block[rng_below(&rng, BLOCKS)], rng_below(&rng, 512));
        unsigned same = 0;
        while (bad[same].n != bad[nr].n) {
            same++;
        }
        assert_int_equal(buddy_retire(bad[nr], &holder), HV_EBUSY);
        nr += same == nr;
    }
    /* More than fit wait in vain, and change nothing. */
    for (uint64_t i = 0, refused = 0; refused == 0; i++) {
        enum hv_err err = buddy_retire(mfn_add(block[0], i), &holder);

        refused += err == HV_ENOMEM;
        if (err == HV_EBUSY && frame_of(block[0])->use == FRAME_GUEST) {
            bool known = false;
            for (unsigned k = 0; k < nr; k++) {
                known |= bad[k].n == block[0].n + i;
            }
            if (!known) {
                bad[nr++] = mfn_add(block[0], i);
            }
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        buddy_free(block[i], ORDER_2M);
        assert_true(mm_audit());
    }
    assert_int_equal(retired(), nr);
    while (buddy_alloc(0, FRAME_GUEST, 1, 0, &singles[nr_singles]) == HV_OK) {
        for (unsigned i = 0; i < nr; i++) {
            assert_true(singles[nr_singles].n != bad[i].n);
        }
        nr_singles++;
    }
    assert_int_equal(nr_singles, env_idle_frames() - nr);
    while (nr_singles > 0) {
        buddy_free(singles[--nr_singles], 0);
    }
    for (unsigned i = 0; i < nr; i++) {
        revive(bad[i]);
    }
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),     cmocka_unit_test(exhaustion_returns_everything),
        cmocka_unit_test(fast_path_never_waits), cmocka_unit_test(low_memory_on_request),
        cmocka_unit_test(exact_blocks),          cmocka_unit_test(gigabytes_set_aside),
        cmocka_unit_test(misuse_panics),         cmocka_unit_test(audit_sees_damage),
        cmocka_unit_test(bad_frames_retire),     cmocka_unit_test(bad_frames_in_blocks),
    };

    return cmocka_run_group_tests_name("buddy", tests, NULL, NULL);
}

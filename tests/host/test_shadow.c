/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shadow view against a naive model of the guest's paging (refguest.c).
 *
 * Model processors run a random guest: it edits random page tables by writes through its own address
 * space, flushes as the manual wants, switches address spaces and modes of protection, and accesses
 * addresses; the host drops, protects, ages, watches and takes away pages meanwhile. The processors
 * (shadowenv.h) keep every translation that they ever read from the shadow tables until they are told to
 * flush. Each access must get what the model says: the page, or the fault with its code; and set the accessed
 * and dirty bits that the model says and no others.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/share/cow.h"
#include "tests/host/env.h"
#include "tests/host/shadowenv.h"

#define WINDOW_PAGES 512u /* gfns that the guest maps to itself, to write to its tables */
#define FIRST_POOL 64u    /* gfns of the tables that are edited; below: those that stay */
#define PER_LEVEL 4u

static uint64_t below(uint64_t n)
{
    return rng_below(&shadowenv.rng, n);
}

static bool percent(unsigned p)
{
    return below(100) < p;
}

/* ---- The guest's address spaces ---- */

/* Addresses that are used are all combinations of few indices. */
static const unsigned top_index[][2] = {
    [REF_32] = {0, 513}, [REF_PSE] = {0, 513}, [REF_PAE] = {0, 2}, [REF_LONG] = {0, 300}};

static unsigned top_level(void)
{
    return shadowenv.mode == REF_LONG ? 3 : shadowenv.mode == REF_PAE ? 2 : 1;
}

static unsigned index_at(unsigned level, unsigned choice)
{
    static const unsigned low[] = {0, 1, 255, 511, 512, 1023};
    static const unsigned mid[] = {0, 7};

    if (level == top_level()) {
        return top_index[shadowenv.mode][choice % 2];
    }
    if (level == 0) {
        return low[choice % (shadowenv_is_wide() ? 4 : 6)];
    }
    return mid[choice % 2];
}

static uint64_t make_gva(unsigned n)
{
    unsigned bits = shadowenv_is_wide() ? 9 : 10;
    uint64_t gva = 0;

    for (unsigned level = 0; level <= top_level(); level++) {
        gva |= (uint64_t)index_at(level, n) << (12 + bits * level);
        n /= level == 0 ? (shadowenv_is_wide() ? 4 : 6) : 2;
    }
    return shadowenv.mode == REF_LONG ? (uint64_t)((int64_t)(gva << 16) >> 16) : gva;
}

static uint64_t pool(unsigned level, unsigned i)
{
    return FIRST_POOL + level * PER_LEVEL + i;
}

/* Where the guest sees its first gfns. */
static uint64_t window(void)
{
    switch (shadowenv.mode) {
    case REF_LONG:
        return 0xffff800000000000ull;
    case REF_PAE:
        return 0xc0000000ull;
    case REF_NONE:
        return 0;
    default:
        return 0xffc00000ull;
    }
}

#define RW_SUPERVISOR 0x63u /* present, writable, accessed, dirty */

/* The window in a root: through tables that stay as they are, by small or large pages. */
static void make_window(uint64_t root, bool large)
{
    unsigned bits = shadowenv_is_wide() ? 9 : 10;
    uint64_t va = window();
    uint64_t table = root;
    uint64_t at = 1 + below(2) * 8; /* two sets of gfns for these tables */

    for (unsigned level = top_level(); level > 0; level--) {
        unsigned index = (unsigned)(va >> (12 + bits * level)) & ((1u << bits) - 1);

        if (level == 1 && large && shadowenv.mode != REF_32) {
            shadowenv_poke(table, index, RW_SUPERVISOR | 0x80);
            return;
        }
        shadowenv_poke(table, index,
                       at << 12 | (shadowenv.mode == REF_PAE && level == 2 ? 1 : RW_SUPERVISOR));
        table = at++;
    }
    for (unsigned i = 0; i < WINDOW_PAGES; i++) {
        shadowenv_poke(table, i, (uint64_t)i << 12 | RW_SUPERVISOR);
    }
}

static uint64_t large_frame(unsigned level)
{
    if (level == 2) {
        return 0;
    }
    return shadowenv_is_wide() ? below(12) << 21 : below(6) << 22;
}

static uint64_t random_entry(unsigned level)
{
    bool wide = shadowenv_is_wide();
    unsigned often = level == 0 ? 80 : 94; /* rights of all levels go together */
    uint64_t e = (percent(often + 5) ? 1 : 0) | (percent(often) ? 2 : 0) |
                 (percent(often) ? 4 : 0) | (percent(60) ? 0x20 : 0) | (percent(60) ? 0x40 : 0) |
                 (below(8) << 9);
    bool leaf = level == 0;

    if (shadowenv.mode == REF_PAE && level == 2) {
        return (e & 1) | pool(1, (unsigned)below(PER_LEVEL)) << 12;
    }
    if (wide && percent(level == 0 ? 15 : 4)) {
        e |= BIT(63);
    }
    if (wide && percent(1)) {
        e |= BIT(45);
    }
    if (level > 0 && level < 3 && percent(25)) {
        e |= 0x80;
        leaf = shadowenv.mode != REF_32;
    }
    if (!leaf) {
        unsigned child = percent(6) ? (unsigned)below(top_level() + 1) : level - 1;

        return e | pool(child, (unsigned)below(PER_LEVEL)) << 12;
    }
    if (level > 0) {
        return e | large_frame(level) | (percent(3) ? BIT(shadowenv.mode == REF_PSE ? 21 : 13) : 0);
    }
    if (percent(5)) {
        return e | (RAM_PAGES + below(64)) << 12;
    }
    return e | (percent(10) ? pool((unsigned)below(top_level()), (unsigned)below(PER_LEVEL))
                            : 512 + below(RAM_PAGES - 512))
                   << 12;
}

/* ---- What the guest does ---- */

static void walk(const struct shadowenv_cpu *c, uint64_t gva, struct ref_access a,
                 struct ref_result *out)
{
    ref_guest_walk(&c->paging, gva, a, shadowenv_read_entry, out);
}

/* Mark every address that goes through this entry now as one that the processor must flush. */
static void mark_stale(uint64_t gfn, unsigned index)
{
    for (unsigned n = 0; n < shadowenv.nr_cpus; n++) {
        for (unsigned g = 0; g < NR_GVAS; g++) {
            struct ref_result r;

            walk(&shadowenv.cpus[n], shadowenv.gvas[g], (struct ref_access){.ac = true}, &r);
            for (unsigned i = 0; i < r.nr; i++) {
                if (r.step[i].table >> 12 == gfn && r.step[i].index == index) {
                    uint8_t owed = r.fault && !(r.error & 1) ? STALE_TABLES : STALE_PAGE;

                    shadowenv.cpus[n].stale[g] = MAX(shadowenv.cpus[n].stale[g], owed);
                }
            }
        }
    }
}

/* The guest writes to one of its tables. */
static void edit(struct shadowenv_cpu *c)
{
    unsigned level = (unsigned)below(top_level() + 1);
    uint64_t gfn = pool(level, (unsigned)below(PER_LEVEL));
    unsigned index = index_at(level, (unsigned)below(6));
    uint64_t was = shadowenv_read_entry(gfn << 12, index, shadowenv_is_wide());
    uint64_t entry = percent(30) ? was ^ (2ull << below(6)) : random_entry(level);
    struct shadow_fault f;
    mfn_t mfn;

    /* From not present to present nothing has to be flushed. */
    if ((was & 1) || (shadowenv.mode == REF_PAE && level == 2)) {
        mark_stale(gfn, index);
    }
    if (percent(5)) {
        /* A device writes to it: it pins the page, and writes a while later. */
        shadowenv_poke(gfn, index, entry);
        return;
    }
    assert_int_equal(shadowenv_touch(c, window() + (gfn << 12),
                                     (struct ref_access){.write = true, .ac = true}, &mfn, &f),
                     DONE);
    char *page = env_frame_ptr(mfn);
    assert_ptr_equal(page, shadowenv_guest_page(gfn));
    if (shadowenv_is_wide()) {
        ((uint64_t *)page)[index] = entry;
    } else {
        ((uint32_t *)page)[index] = (uint32_t)entry;
    }
    shadowenv.seen.edits++;
}

/* The guest looks at, and the model with it. */
static void access_once(struct shadowenv_cpu *c)
{
    unsigned g = (unsigned)below(NR_GVAS);
    uint64_t gva = shadowenv.gvas[g];
    struct ref_access a = {.write = percent(40), .user = percent(50), .ac = percent(50)};
    struct ref_result want, after;
    struct shadow_fault f = {.error = 0};
    struct p2m_entry e;
    mfn_t mfn = MFN_NONE;

    if (!a.write) {
        a.exec = percent(30);
    }
    if (a.user) {
        a.ac = false;
    }
    if (c->stale[g] != 0) {
        if (percent(50)) {
            return;
        }
        if (c->stale[g] == STALE_TABLES) {
            shadowenv_invlpg(c, (unsigned)below(NR_GVAS));
        } else if (percent(95)) {
            shadowenv_invlpg(c, g);
        } else {
            shadowenv_load(c);
        }
    }
    walk(c, gva, a, &want);
    enum shadowenv_outcome got = shadowenv_touch(c, gva, a, &mfn, &f);
    walk(c, gva, a, &after);
    shadowenv.seen.accesses++;
    if (want.fault) {
        shadowenv.seen.faults++;
        assert_int_equal(got, FAULT);
        assert_int_equal(f.error, want.error);
        assert_memory_equal(&want, &after, sizeof(want));
        return;
    }
    assert_int_not_equal(got, FAULT);
    p2m_query(shadowenv.p2m, GFN(want.gpa >> 12), &e);
    if (got == DEVICE || got == EMULATE) {
        assert_int_equal(f.gpa.a & PAGE_MASK, want.gpa & PAGE_MASK);
        assert_true(got == EMULATE || e.state == P2M_HOLE);
        shadowenv.seen.devices += got == DEVICE;
        shadowenv.seen.emulated += got == EMULATE;
        assert_true(got == DEVICE || (!c->paging.wp && c->paging.smap && a.write && !a.user));
    } else {
        assert_int_equal(mfn.n, e.mfn.n);
        assert_true(!a.write || e.writable);
    }
    for (unsigned i = 0; i < want.nr; i++) {
        bool loaded = want.step[i].table == ~0ull;
        uint64_t set = loaded ? 0 : 0x20;

        /* A table that leads to itself has one entry in two places. */
        for (unsigned j = i; j < want.nr; j++) {
            if (j + 1 == want.nr && a.write && want.step[i].table == want.step[j].table &&
                want.step[i].index == want.step[j].index) {
                set |= 0x40;
            }
        }
        assert_int_equal(after.step[i].entry, want.step[i].entry | set);
    }
}

/* ---- The host ---- */

static void host_event(void)
{
    gfn_t gfn = GFN(percent(30) ? FIRST_POOL + below(16) : below(RAM_PAGES));
    struct flush_batch batch;
    enum view_watch how;
    struct p2m_entry e;

    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    switch (below(6)) {
    case 0:
        shadowenv.view->ops->drop(shadowenv.view, gfn, 1 + below(600), &batch);
        break;
    case 1:
        (void)shadowenv.view->ops->age(shadowenv.view, gfn, &batch);
        break;
    case 2:
        if (shadowenv.view->ops->watch(shadowenv.view, gfn, percent(50), &batch, &how) == HV_OK) {
            (void)shadowenv.view->ops->watched(shadowenv.view, gfn, how);
            flush_batch_commit(&batch);
            if (how == WATCH_PIECE) {
                shadowenv.view->ops->unwatch(shadowenv.view, gfn, &batch);
            }
        }
        break;
    case 3:
        /* As if it were to be shared: the next write makes it plainly private again. */
        p2m_query(shadowenv.p2m, gfn, &e);
        if (cow_nominate(shadowenv.p2m, gfn, &e, &batch)) {
            flush_batch_commit(&batch);
            shadowenv_check_no_writer(e.mfn);
            shadowenv.seen.nominated++;
        }
        break;
    case 4:
        (void)shadowenv_move_frame(gfn, &batch);
        break;
    default:
        shadow_tidy(shadowenv.view);
        break;
    }
    flush_batch_commit(&batch);
}

/* ---- Runs ---- */

static void start(enum ref_mode m, unsigned cpus_wanted, bool large, uint64_t overhead)
{
    shadowenv_start(m, cpus_wanted, large, overhead);
    for (unsigned i = 0; i < NR_GVAS; i++) {
        shadowenv.gvas[i] = m == REF_NONE ? below(RAM_PAGES + 64) << 12 : make_gva(i);
    }
}

static void build_tables(void)
{
    for (unsigned level = 0; level <= top_level(); level++) {
        for (unsigned i = 0; i < PER_LEVEL; i++) {
            for (unsigned choice = 0; choice < 6; choice++) {
                shadowenv_poke(pool(level, i), index_at(level, choice), random_entry(level));
            }
            if (level == top_level()) {
                make_window(pool(level, i), percent(50));
            }
        }
    }
}

static void new_settings(struct shadowenv_cpu *c)
{
    c->paging = (struct ref_paging){
        .mode = shadowenv.mode,
        .cr3 = shadowenv.mode == REF_NONE ? 0 : pool(top_level(), (unsigned)below(PER_LEVEL)) << 12,
        .wp = percent(60),
        .smep = percent(40),
        .smap = percent(40),
        .nxe = shadowenv_is_wide() && percent(70),
        .page1gb = shadowenv.page1gb,
    };
}

static void walk_randomly(unsigned steps)
{
    if (shadowenv.mode != REF_NONE) {
        build_tables();
    }
    for (unsigned i = 0; i < shadowenv.nr_cpus; i++) {
        shadowenv.cpus[i].cpu.id = i + 3;
        new_settings(&shadowenv.cpus[i]);
        shadowenv_load(&shadowenv.cpus[i]);
    }
    for (unsigned i = 0; i < steps; i++) {
        struct shadowenv_cpu *c = &shadowenv.cpus[below(shadowenv.nr_cpus)];
        unsigned what = (unsigned)below(1000);

        if (what < 150 && shadowenv.mode != REF_NONE) {
            edit(c);
        } else if (what < 153 && shadowenv.mode != REF_NONE) {
            c->paging.cr3 = pool(top_level(), (unsigned)below(PER_LEVEL)) << 12;
            shadowenv_load(c);
        } else if (what < 156) {
            new_settings(c);
            shadowenv_load(c);
        } else if (what < 176) {
            host_event();
        } else {
            access_once(c);
        }
        if (i % 4096 == 0) {
            assert_true(shadowenv.view->ops->audit(shadowenv.view));
        }
    }
}

static void run(enum ref_mode m, unsigned steps)
{
    static const uint64_t limits[] = {100000, 60};

    /* The last two: large pages, on a processor that must not execute from them. */
    for (unsigned i = 0; i < 10; i++) {
        rng_seed(&shadowenv.rng, env_seed("shadow") * 1000 + m * 16 + i);
        shadowenv.page1gb = ((i ^ i >> 1 ^ i >> 2) & 1) != 0;
        start(m, i & 1 ? 2 : 1, (i & 2) != 0 || i >= 8, limits[i >> 2 & 1]);
        test_env.small_code = i >= 8;
        walk_randomly(steps);
        printf("mode %d cpus %u: %llu accesses, %llu faults, %llu hidden, %llu devices, "
               "%llu emulated, %llu edits, %llu invlpg, %llu loads\n",
               m, shadowenv.nr_cpus, (unsigned long long)shadowenv.seen.accesses,
               (unsigned long long)shadowenv.seen.faults, (unsigned long long)shadowenv.seen.hidden,
               (unsigned long long)shadowenv.seen.devices,
               (unsigned long long)shadowenv.seen.emulated,
               (unsigned long long)shadowenv.seen.edits, (unsigned long long)shadowenv.seen.invlpgs,
               (unsigned long long)shadowenv.seen.loads);
        shadowenv_stop();
    }
}

#define STEPS 12000u

static void oracle_unpaged(void **state)
{
    (void)state;
    run(REF_NONE, STEPS);
}

static void oracle_32(void **state)
{
    (void)state;
    run(REF_32, STEPS);
}

static void oracle_pse(void **state)
{
    (void)state;
    run(REF_PSE, STEPS);
}

static void oracle_pae(void **state)
{
    (void)state;
    run(REF_PAE, STEPS);
}

static void oracle_long(void **state)
{
    (void)state;
    run(REF_LONG, STEPS);
}

/* Allocations that fail leave everything whole; the slow path makes room by evicting. */
static void scarcity(void **state)
{
    uint64_t failures = 0;

    (void)state;
    for (unsigned n = 0; n < 40; n++) {
        rng_seed(&shadowenv.rng, env_seed("shadow scarcity") * 100 + n);
        start((enum ref_mode)(REF_32 + n % 4), 1, true, 100000);
        build_tables();
        shadowenv.cpus[0].cpu.id = 0;
        new_settings(&shadowenv.cpus[0]);
        shadowenv_load(&shadowenv.cpus[0]);
        rng_seed(&test_env.rng, n + 1);
        test_env.fail_site = "shadow.frame";
        shadowenv.scarce = true;
        for (unsigned i = 0; i < 200; i++) {
            test_env.fail_rate = i % 3 ? 2 : 0;
            access_once(&shadowenv.cpus[0]);
        }
        shadowenv.scarce = false;
        failures += test_env.failures;
        test_env.fail_rate = 0;
        shadowenv_stop();
    }
    assert_true(failures > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oracle_unpaged), cmocka_unit_test(oracle_32),
        cmocka_unit_test(oracle_pse),     cmocka_unit_test(oracle_pae),
        cmocka_unit_test(oracle_long),    cmocka_unit_test(scarcity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

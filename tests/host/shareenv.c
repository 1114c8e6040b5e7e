/* SPDX-License-Identifier: BSD-2-Clause */
/* See shareenv.h. */
#include "tests/host/shareenv.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/pt/fmt_x86.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"

struct shareenv shareenv;
static struct tlbguest_entry tlb[NR_VMS][NR_CPUS * NR_ALIASES * PAGES];

static unsigned number(const struct tlbguest *vm)
{
    return (unsigned)(vm - shareenv.vms);
}

static bool is_ram(uint64_t gfn)
{
    return gfn < 0x10 || gfn >= HOLE;
}

/* Mostly one of few, so that they meet. */
static uint64_t any_page(void)
{
    switch (rng_below(&shareenv.rng, 6)) {
    case 0:
        return rng_below(&shareenv.rng, PAGES);
    case 1:
    case 2:
        return 600 + rng_below(&shareenv.rng, 30); /* where there are large pages, too */
    default:
        return HOLE + rng_below(&shareenv.rng, 50);
    }
}

/* ---- The guests ---- */

void shareenv_fill(uint64_t *page, uint64_t pattern, uint64_t first)
{
    for (unsigned i = 0; i < WORDS; i++) {
        page[i] = pattern;
    }
    page[0] = first;
}

void shareenv_check_contents(const struct tlbguest *vm, uint64_t gfn, const uint64_t *page)
{
    unsigned nr = number(vm);

    if (page[0] != shareenv.first[nr][gfn]) {
        fail_msg("VM %u page %#llx begins with %#llx, not %#llx", nr, (unsigned long long)gfn,
                 (unsigned long long)page[0], (unsigned long long)shareenv.first[nr][gfn]);
    }
    for (unsigned i = 1; i < WORDS; i++) {
        if (page[i] != shareenv.pattern[nr][gfn]) {
            fail_msg("VM %u page %#llx word %u is %#llx, not %#llx", nr, (unsigned long long)gfn, i,
                     (unsigned long long)page[i], (unsigned long long)shareenv.pattern[nr][gfn]);
        }
    }
}

enum hv_err shareenv_fault(struct tlbguest *vm, gfn_t gfn, uint32_t access)
{
    enum hv_err err = vm->view->ops->fault(vm->view, gfn_gpa(gfn), access | P2M_FAST);

    return err == HV_EAGAIN ? vm->view->ops->fault(vm->view, gfn_gpa(gfn), access) : err;
}

void shareenv_write_page(struct tlbguest *vm, uint64_t gfn, uint64_t *page)
{
    uint64_t *first = &shareenv.first[number(vm)][gfn];
    uint64_t *pattern = &shareenv.pattern[number(vm)][gfn];
    uint64_t next = rng_below(&shareenv.rng, NR_PATTERNS);

    if (rng_below(&shareenv.rng, 3) == 0) {
        *first = rng_below(&shareenv.rng, 2) ? rng_next(&shareenv.rng) : *pattern;
        page[0] = *first;
    } else {
        *pattern = *first = next * 0x0101010101010101ull;
        shareenv_fill(page, *pattern, *first);
    }
}

static void check_error(uint64_t gfn, enum hv_err err)
{
    assert_true(err == (is_ram(gfn) ? HV_ENOMEM : HV_ENOENT));
    assert_true(err == HV_ENOENT || test_env.fail_rate != 0);
}

static const struct tlbguest_rules rules = {.vms = shareenv.vms,
                                            .nr_vms = NR_VMS,
                                            .nr_cpus = NR_CPUS,
                                            .nr_aliases = NR_ALIASES,
                                            .nr_pages = PAGES,
                                            .rng = &shareenv.rng,
                                            .any_page = any_page,
                                            .check_contents = shareenv_check_contents,
                                            .write_page = shareenv_write_page,
                                            .fault = shareenv_fault,
                                            .check_error = check_error,
                                            .late_looks = 30,
                                            .late_writes = 1};

/* Guests run between the slices of a scan. */
static void relax_hook(void)
{
    if (tlbguest_depth != 0 || (shareenv.joining && rng_below(&shareenv.rng, 32) != 0)) {
        return;
    }
    tlbguest_depth++;
    for (unsigned k = rng_below(&shareenv.rng, 4); k > 0; k--) {
        tlbguest_step(&shareenv.vms[rng_below(&shareenv.rng, NR_VMS)],
                      rng_below(&shareenv.rng, 3) != 0);
    }
    tlbguest_depth--;
}

void shareenv_pin_step(struct tlbguest *vm)
{
    uint64_t gfn = any_page();
    void **pin = &shareenv.pin[number(vm)][gfn];
    bool write = rng_below(&shareenv.rng, 2);
    void *page;

    if (*pin != NULL) {
        p2m_put(vm->p2m, GFN(gfn), *pin);
        *pin = NULL;
        return;
    }
    if (p2m_get(vm->p2m, GFN(gfn), write ? P2M_WRITE : P2M_READ, &page) != HV_OK) {
        return;
    }
    shareenv_check_contents(vm, gfn, page);
    if (write) {
        shareenv_write_page(vm, gfn, page);
    }
    if (rng_below(&shareenv.rng, 4) == 0) {
        *pin = page;
    } else {
        p2m_put(vm->p2m, GFN(gfn), page);
    }
}

static void unpin_all(struct tlbguest *vm)
{
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        void **pin = &shareenv.pin[number(vm)][gfn];

        if (*pin != NULL) {
            p2m_put(vm->p2m, GFN(gfn), *pin);
            *pin = NULL;
        }
    }
}

/* ---- The machine ---- */

void shareenv_create(unsigned nr, uint32_t salt, bool large_pages)
{
    const struct p2m_config cfg = {
        .owner = nr + 1, .max_order = ORDER_2M, .large_pages = large_pages, .salt = salt};
    struct tlbguest *vm = &shareenv.vms[nr];

    *vm = (struct tlbguest){.tlb = tlb[nr]};
    tlbguest_forget(vm);
    memset(shareenv.pattern[nr], 0, sizeof(shareenv.pattern[nr]));
    memset(shareenv.first[nr], 0, sizeof(shareenv.first[nr]));
    memset(shareenv.pin[nr], 0, sizeof(shareenv.pin[nr]));
    assert_int_equal(p2m_create(&cfg, &vm->p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(0), 0x10), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(HOLE), PAGES - HOLE), HV_OK);
    assert_int_equal(nested_create(vm->p2m, &fmt_x86_npt, nr + 1, &vm->view), HV_OK);
    share_join(vm->p2m);
    assert_int_not_equal(share_member(vm->p2m), 0);
}

void shareenv_destroy(unsigned nr)
{
    p2m_destroy(shareenv.vms[nr].p2m);
    shareenv.vms[nr].p2m = NULL;
    assert_true(mm_audit_gone(nr + 1));
}

void shareenv_start(unsigned nr_cpus, bool large_pages)
{
    env_start(BASE, NR_FRAMES, nr_cpus);
    tlbguest_start(&rules);
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    share_seed(rng_next(&shareenv.rng));
    test_env.on_flush = tlbguest_flush;
    test_env.on_relax = relax_hook;
    for (unsigned i = 0; i < NR_VMS; i++) {
        shareenv_create(i, i < 2 ? 100 : 200 + i, large_pages);
    }
}

void shareenv_stop(void)
{
    test_env.on_relax = NULL;
    for (unsigned i = 0; i < NR_VMS; i++) {
        unpin_all(&shareenv.vms[i]);
        shareenv_destroy(i);
    }
    share_fini();
    env_stop();
}

void shareenv_check_all(void)
{
    static uint32_t salt_of[0x200 + NR_FRAMES];
    uint64_t shared = 0, zero = 0;
    struct share_stats stats;
    struct share_recount recount;
    void (*relax)(void) = test_env.on_relax;
    uint64_t fail_rate = test_env.fail_rate;
    int64_t fail_after = test_env.fail_after;

    test_env.on_relax = NULL;
    test_env.fail_rate = 0;
    test_env.fail_after = -1;
    memset(salt_of, 0, sizeof(salt_of));
    assert_true(share_audit(&recount));
    assert_true(recount.certain);
    assert_true(mm_audit());
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct p2m_counters count;
        uint32_t salt = i < 2 ? 100 : 200 + i;

        assert_true(p2m_audit(shareenv.vms[i].p2m));
        assert_true(shareenv.vms[i].view->ops->audit(shareenv.vms[i].view));
        p2m_counters(shareenv.vms[i].p2m, &count);
        assert_int_equal(count.granted, count.consumed + count.shared + count.zero);
        shared += count.shared;
        zero += count.zero;
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            struct p2m_entry e;

            p2m_query(shareenv.vms[i].p2m, GFN(gfn), &e);
            if (mfn_valid(e.mfn)) {
                shareenv_check_contents(&shareenv.vms[i], gfn, env_frame_ptr(e.mfn));
            } else if (e.state == P2M_UNTOUCHED) {
                assert_true(shareenv.pattern[i][gfn] == 0 && shareenv.first[i][gfn] == 0);
            }
            if (e.state == P2M_SHARED) {
                assert_true(salt_of[e.mfn.n] == 0 || salt_of[e.mfn.n] == salt);
                salt_of[e.mfn.n] = salt;
            }
        }
    }
    share_stats(&stats);
    assert_int_equal(stats.pages, shared + zero);
    assert_int_equal(stats.zero, zero);
    test_env.on_relax = relax;
    test_env.fail_rate = fail_rate;
    test_env.fail_after = fail_after;
}

/* ---- One thing at a time ---- */

void shareenv_write_pattern(unsigned nr, uint64_t gfn, uint64_t pattern)
{
    enum hv_err err;
    uint64_t *page = tlbguest_translate(&shareenv.vms[nr], gfn, true, &err);

    assert_non_null(page);
    shareenv.pattern[nr][gfn] = shareenv.first[nr][gfn] = pattern;
    shareenv_fill(page, pattern, pattern);
}

void shareenv_quiet_start(unsigned nr_cpus)
{
    rng_seed(&shareenv.rng, 1);
    shareenv_start(nr_cpus, false);
    test_env.on_relax = NULL;
    tlbguest_depth = TLBGUEST_MUTE; /* no writes inside flushes */
}

void shareenv_quiet_stop(void)
{
    tlbguest_depth = 0;
    shareenv_stop();
}

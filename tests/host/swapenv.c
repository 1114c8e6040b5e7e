/* SPDX-License-Identifier: BSD-2-Clause */
/* See swapenv.h. */
#include "tests/host/swapenv.h"

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
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/slots.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"

struct swapenv swapenv = {.nr_slots = NR_SLOTS};
static struct tlbguest_entry tlb[NR_VMS][NR_CPUS * PAGES];

static unsigned number(const struct tlbguest *vm)
{
    return (unsigned)(vm - swapenv.vms);
}

/* ---- Contents ---- */

void swapenv_make(uint64_t *page, uint64_t contents)
{
    static const unsigned random_words[NR_KINDS] = {0, 0, 60, 200, WORDS};
    enum swapenv_kind kind = contents % NR_KINDS;
    struct rng r;

    rng_seed(&r, contents);
    memset(page, 0, PAGE_SIZE);
    if (kind == KIND_FILLED) {
        uint64_t word = (contents & 0xffffffff) | 1;

        for (unsigned i = 0; i < WORDS; i++) {
            page[i] = word << 32 | word;
        }
    }
    for (unsigned i = 0; i < random_words[kind]; i++) {
        page[i] = rng_next(&r);
    }
}

static bool has(const void *page, uint64_t contents)
{
    uint64_t expected[WORDS];

    swapenv_make(expected, contents);
    return memcmp(expected, page, PAGE_SIZE) == 0;
}

void swapenv_check_contents(const struct tlbguest *vm, uint64_t gfn, const uint64_t *page)
{
    uint64_t contents = swapenv.contents[number(vm)][gfn];

    if (!has(page, contents)) {
        fail_msg("VM %u page %#llx has lost its contents %#llx (kind %u)", number(vm),
                 (unsigned long long)gfn, (unsigned long long)contents,
                 (unsigned)(contents % NR_KINDS));
    }
}

static void write_page(struct tlbguest *vm, uint64_t gfn, uint64_t *page)
{
    uint64_t contents =
        rng_below(&swapenv.rng, 4000) * (rng_below(&swapenv.rng, 4) != 0 ? 1 : NR_KINDS);

    swapenv.contents[number(vm)][gfn] = contents;
    swapenv_make(page, contents);
}

/* ---- The guests ---- */

void swapenv_woken(struct p2m *p)
{
    (void)p;
    __atomic_fetch_add(&swapenv.nr_wakes, 1, __ATOMIC_RELAXED);
}

void swapenv_all_woken(void)
{
    swapenv.nr_wakes_of_all++;
}

void swapenv_let_store_work(void)
{
    (void)faultstore_serve(&swapenv.store, 1 + rng_below(&swapenv.rng, 4));
    if (rng_below(&swapenv.rng, 2)) {
        swap_reap();
    }
}

/* Until there is an answer, as a vCPU does. */
static enum hv_err fault(struct tlbguest *vm, gfn_t gfn, uint32_t access)
{
    for (unsigned i = 0; i < 1000; i++) {
        enum hv_err err = vm->view->ops->fault(vm->view, gfn_gpa(gfn), access | P2M_FAST);

        if (err == HV_EAGAIN) {
            err = vm->view->ops->fault(vm->view, gfn_gpa(gfn), access);
        }
        if (err == HV_EAGAIN) {
            swapenv_let_store_work();
            continue;
        }
        if (err == HV_EIO) {
            struct swap_failure why;

            assert_true(swap_error(vm->p2m, gfn, &why));
            assert_true(swapenv.errors && why.slot < NR_SLOTS && why.why != NULL);
            swapenv.nr_eio++;
            if (i < 3) {
                continue; /* vm NAME resume */
            }
        }
        return err;
    }
    fail_msg("gfn %#llx never comes", (unsigned long long)gfn.n);
    return HV_EAGAIN;
}

static uint64_t any_page(void)
{
    return rng_below(&swapenv.rng, 3) != 0 ? rng_below(&swapenv.rng, 96)
                                           : rng_below(&swapenv.rng, PAGES);
}

static void check_error(uint64_t gfn, enum hv_err err)
{
    (void)gfn;
    assert_true(err == HV_EIO || (err == HV_ENOMEM && test_env.fail_rate != 0));
}

static const struct tlbguest_rules rules = {.vms = swapenv.vms,
                                            .nr_vms = NR_VMS,
                                            .nr_cpus = NR_CPUS,
                                            .nr_aliases = 1,
                                            .nr_pages = PAGES,
                                            .rng = &swapenv.rng,
                                            .any_page = any_page,
                                            .check_contents = swapenv_check_contents,
                                            .write_page = write_page,
                                            .fault = fault,
                                            .check_error = check_error,
                                            .late_looks = 20,
                                            .late_writes = 4};

void swapenv_quiet_flush_hook(struct flush_domain *d)
{
    (void)d;
    for (unsigned i = 0; i < NR_VMS; i++) {
        tlbguest_forget(&swapenv.vms[i]);
    }
}

/* The guests go on, on every processor, while translations that were removed may wait for a flush. */
static void relax_hook(void)
{
    unsigned cpu = env_cpu();

    if (tlbguest_depth != 0 || rng_below(&swapenv.rng, 4) != 0) {
        return;
    }
    tlbguest_depth++;
    env_set_cpu((unsigned)rng_below(&swapenv.rng, test_env.nr_cpus));
    tlbguest_step(&swapenv.vms[rng_below(&swapenv.rng, NR_VMS)], rng_below(&swapenv.rng, 3) == 0);
    env_set_cpu(cpu);
    tlbguest_depth--;
}

void swapenv_pin_step(struct tlbguest *vm)
{
    uint64_t gfn = any_page();
    void **pin = &swapenv.pin[number(vm)][gfn];
    bool write = rng_below(&swapenv.rng, 2);
    enum hv_err err = HV_EAGAIN;
    void *page;

    if (*pin != NULL) {
        p2m_put(vm->p2m, GFN(gfn), *pin);
        *pin = NULL;
        return;
    }
    for (unsigned i = 0; i < 1000 && err == HV_EAGAIN; i++) {
        err = p2m_get(vm->p2m, GFN(gfn), write ? P2M_WRITE : P2M_READ, &page);
        if (err == HV_EAGAIN) {
            swapenv_let_store_work();
        }
    }
    if (err != HV_OK) {
        assert_true((err == HV_EIO && swapenv.errors) ||
                    (err == HV_ENOMEM && test_env.fail_rate != 0));
        return;
    }
    swapenv_check_contents(vm, gfn, page);
    if (write) {
        write_page(vm, gfn, page);
    }
    if (write && rng_below(&swapenv.rng, 4) == 0) {
        *pin = page;
    } else {
        p2m_put(vm->p2m, GFN(gfn), page);
    }
}

/* ---- The machine ---- */

static void create(unsigned nr, bool large_pages)
{
    const struct p2m_config cfg = {
        .owner = nr + 1, .max_order = ORDER_2M, .large_pages = large_pages, .salt = 7};
    struct tlbguest *vm = &swapenv.vms[nr];

    *vm = (struct tlbguest){.tlb = tlb[nr]};
    tlbguest_forget(vm);
    memset(swapenv.contents[nr], 0, sizeof(swapenv.contents[nr]));
    memset(swapenv.pin[nr], 0, sizeof(swapenv.pin[nr]));
    assert_int_equal(p2m_create(&cfg, &vm->p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(0), PAGES), HV_OK);
    assert_int_equal(nested_create(vm->p2m, &fmt_x86_npt, nr + 1, &vm->view), HV_OK);
    share_join(vm->p2m);
}

static void destroy(unsigned nr)
{
    p2m_destroy(swapenv.vms[nr].p2m);
    swapenv.vms[nr].p2m = NULL;
    assert_true(mm_audit_gone(nr + 1));
    assert_int_equal(slots_owned(nr + 1), 0);
}

void swapenv_start_with(const struct swap_config *cfg, unsigned nr_cpus, bool large_pages)
{
    env_start(BASE, NR_FRAMES, nr_cpus);
    tlbguest_start(&rules);
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    share_seed(rng_next(&swapenv.rng));
    assert_int_equal(swap_init(cfg), HV_OK);
    test_env.on_flush = tlbguest_flush;
    test_env.on_relax = relax_hook;
    swapenv.errors = false;
    swapenv.how = (struct swap_how){.compress = true, .zip_pct = 10, .share = true};
    for (unsigned i = 0; i < NR_VMS; i++) {
        create(i, large_pages);
    }
}

void swapenv_start(unsigned nr_cpus, bool large_pages, bool encrypt)
{
    static const uint8_t key[CRYPT_KEY_BYTES] = {1, 2, 3, [20] = 9};
    const struct swap_config cfg = {.store = &swapenv.store.store,
                                    .encrypt = encrypt,
                                    .seed = rng_next(&swapenv.rng),
                                    .read_along = 16,
                                    .wake = swapenv_woken,
                                    .wake_all = swapenv_all_woken};

    crypt_set_key(key);
    faultstore_start(&swapenv.store, swapenv.nr_slots, rng_next(&swapenv.rng));
    swapenv_start_with(&cfg, nr_cpus, large_pages);
}

void swapenv_drain(void)
{
    struct swap_stats s;

    do {
        (void)faultstore_serve(&swapenv.store, 100);
        swap_reap();
        swap_stats(&s);
    } while (s.writes != 0 || s.reads != 0);
}

void swapenv_stop(void)
{
    test_env.on_relax = NULL;
    for (unsigned i = 0; i < NR_VMS; i++) {
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            if (swapenv.pin[i][gfn] != NULL) {
                p2m_put(swapenv.vms[i].p2m, GFN(gfn), swapenv.pin[i][gfn]);
            }
        }
        swapenv_drain();
        destroy(i);
    }
    assert_true(slots_audit());
    swap_fini();
    share_fini();
    env_stop();
    if (swapenv.store.data != NULL) {
        faultstore_stop(&swapenv.store);
        swapenv.store.data = NULL;
    }
}

void swapenv_check_all(bool touch)
{
    void (*relax)(void) = test_env.on_relax;
    uint64_t fail_rate = test_env.fail_rate, swapped = 0;
    struct slots_stats s;

    test_env.on_relax = NULL;
    test_env.fail_rate = 0;
    swapenv_drain();
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct p2m_counters count;

        assert_true(p2m_audit(swapenv.vms[i].p2m));
        assert_true(swapenv.vms[i].view->ops->audit(swapenv.vms[i].view));
        p2m_counters(swapenv.vms[i].p2m, &count);
        assert_int_equal(count.incoming, 0);
        assert_int_equal(slots_owned(i + 1), count.swapped);
        for (uint64_t gfn = 0; touch && gfn < PAGES; gfn++) {
            enum hv_err err = HV_OK;
            uint64_t *page = tlbguest_translate(&swapenv.vms[i], gfn, false, &err);

            if (page != NULL) {
                swapenv_check_contents(&swapenv.vms[i], gfn, page);
            } else {
                assert_true(swapenv.errors && err == HV_EIO);
            }
        }
        p2m_counters(swapenv.vms[i].p2m, &count);
        swapped += count.swapped;
    }
    slots_stats(&s);
    assert_int_equal(s.used, swapped);
    assert_true(slots_audit());
    assert_true(mm_audit());
    test_env.on_relax = relax;
    test_env.fail_rate = fail_rate;
}

/* ---- One thing at a time ---- */

void swapenv_quiet_start_with(unsigned nr_cpus, bool large_pages, bool encrypt)
{
    rng_seed(&swapenv.rng, 3);
    swapenv_start(nr_cpus, large_pages, encrypt);
    test_env.on_relax = NULL;
    test_env.on_flush = swapenv_quiet_flush_hook;
    swapenv.how.share = false;
}

void swapenv_quiet_start(void)
{
    swapenv_quiet_start_with(1, false, true);
}

void swapenv_put(unsigned nr, uint64_t gfn, uint64_t contents)
{
    enum hv_err err;
    uint64_t *page = tlbguest_translate(&swapenv.vms[nr], gfn, true, &err);

    assert_non_null(page);
    swapenv.contents[nr][gfn] = contents;
    swapenv_make(page, contents);
}

void swapenv_expect(unsigned nr, uint64_t gfn)
{
    enum hv_err err;
    uint64_t *page = tlbguest_translate(&swapenv.vms[nr], gfn, false, &err);

    assert_non_null(page);
    swapenv_check_contents(&swapenv.vms[nr], gfn, page);
}

void swapenv_fill_pages(enum swapenv_kind kind, uint64_t first, uint64_t nr)
{
    for (uint64_t gfn = first; gfn < first + nr; gfn++) {
        swapenv_put(0, gfn, gfn * NR_KINDS + kind);
    }
}

void swapenv_take_all(void)
{
    struct swap_step done;
    enum hv_err err;

    do {
        err = swap_out(swapenv.vms[0].p2m, UINT64_MAX, &swapenv.how, &done);
        swapenv_drain();
    } while (err != HV_ENOENT);
}

void swapenv_count_pages(struct p2m_counters *count)
{
    p2m_counters(swapenv.vms[0].p2m, count);
}

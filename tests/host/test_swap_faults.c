/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Swapping to a store that is full, fails, forgets, flips bits, is gone or was never there (swapenv.h): a VM gets to
 * see what it wrote or an error, and other VMs notice nothing.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/slots.h"
#include "tests/host/env.h"
#include "tests/host/swapenv.h"

/* A bad slot is retired, the page goes elsewhere; a full store leaves pages where they are. */
static void bad_slots(void **state)
{
    struct p2m_counters count;
    struct slots_stats s;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    test_env.quiet = true;
    swapenv_fill_pages(KIND_RANDOM, 0, 64);
    swapenv.store.bad_write[3] = swapenv.store.bad_write[40] = true;
    swapenv_take_all();
    slots_stats(&s);
    swapenv_count_pages(&count);
    assert_int_equal(s.bad, 2);
    assert_int_equal(count.swapped, 64);
    for (uint64_t i = 0; i < NR_SLOTS; i++) {
        swapenv.store.bad_write[i] = true;
    }
    swapenv.errors = true;
    swapenv_check_all(true); /* all back */
    for (unsigned i = 0; i < 10; i++) {
        struct swap_step done;

        (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
        swapenv_drain();
    }
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 0);
    swapenv_check_all(true);
    swapenv_stop();
}

static enum hv_err populate(uint64_t gfn)
{
    enum hv_err err = HV_EAGAIN;
    struct p2m_entry e;

    for (unsigned i = 0; i < 3 && err == HV_EAGAIN; i++) {
        err = p2m_populate(swapenv.vms[0].p2m, GFN(gfn), P2M_READ, &e);
    }
    return err;
}

/* A page that cannot be read says so once per attempt, with its slot, and comes when the disk is well
 * again; one that comes back damaged likewise. */
static void bad_reads(void **state)
{
    struct swap_failure why;
    struct p2m_entry e;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    test_env.quiet = true;
    swapenv_fill_pages(KIND_RANDOM, 0, 8);
    swapenv_take_all();
    p2m_query(swapenv.vms[0].p2m, GFN(5), &e);
    assert_int_equal(e.state, P2M_SWAPPED);
    swapenv.store.fail_read = 2; /* the run, and the page alone */
    assert_int_equal(populate(5), HV_EIO);
    assert_true(swap_error(swapenv.vms[0].p2m, GFN(5), &why));
    assert_string_equal(why.why, "the disk reports an error");
    assert_string_equal(why.store, "faultstore");
    faultstore_slot(&swapenv.store, why.slot)[77] ^= 4;
    assert_int_equal(populate(5), HV_EIO);
    assert_true(swap_error(swapenv.vms[0].p2m, GFN(5), &why));
    assert_non_null(strstr(why.why, "checksum"));
    faultstore_slot(&swapenv.store, why.slot)[77] ^= 4;
    swapenv_expect(0, 5);
    /* Who hears of the failure only now has no reason to stop. */
    assert_false(swap_error(swapenv.vms[0].p2m, GFN(5), &why));
    /* What another slot holds is no better. */
    swapenv_take_all();
    p2m_query(swapenv.vms[0].p2m, GFN(5), &e);
    swapenv.store.fail_read = 2;
    assert_int_equal(populate(5), HV_EIO);
    assert_true(swap_error(swapenv.vms[0].p2m, GFN(5), &why));
    memcpy(faultstore_slot(&swapenv.store, why.slot), faultstore_slot(&swapenv.store, why.slot ^ 1),
           PAGE_SIZE);
    assert_int_equal(populate(5), HV_EIO);
    swapenv_stop();
}

/* A disk that lost a write gives what the slot held in its last use: that is refused, be it encrypted or not. Pages
 * that did not change meanwhile were encrypted anew all the same. */
static void old_contents_are_refused(void **state)
{
    enum { USED = 16, CHANGED = 8 };
    static uint8_t old[USED][PAGE_SIZE], now[USED][PAGE_SIZE];
    struct swap_failure why;

    (void)state;
    for (unsigned encrypt = 0; encrypt < 2; encrypt++) {
        swapenv.nr_slots = USED; /* so that each is used again */
        swapenv_quiet_start_with(1, false, encrypt);
        swapenv.nr_slots = NR_SLOTS;
        swapenv.how.compress = false;
        test_env.quiet = true;
        swapenv_fill_pages(KIND_RANDOM, 0, USED);
        swapenv_take_all();
        memcpy(old, faultstore_slot(&swapenv.store, 0), sizeof(old));
        for (uint64_t gfn = 0; gfn < USED; gfn++) {
            swapenv_expect(0, gfn);
        }
        swapenv_fill_pages(KIND_HALF, 0, encrypt ? CHANGED : USED);
        swapenv_take_all();
        memcpy(now, faultstore_slot(&swapenv.store, 0), sizeof(now));
        memcpy(faultstore_slot(&swapenv.store, 0), old, sizeof(old));
        for (uint64_t gfn = 0; gfn < USED; gfn++) {
            assert_int_equal(populate(gfn), HV_EIO);
            assert_true(swap_error(swapenv.vms[0].p2m, GFN(gfn), &why));
            assert_non_null(strstr(why.why, "checksum"));
        }
        memcpy(faultstore_slot(&swapenv.store, 0), now, sizeof(now));
        swapenv.errors = true; /* each says once more that it could not be read */
        swapenv_check_all(true);
        swapenv_stop();
    }
}

/* A slot's sum holds for this use of it only. */
static void sums_are_of_one_use(void **state)
{
    uint64_t slot;
    unsigned nr;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(slots_init(1), HV_OK);
    slot = slots_take(1, 1, &nr);
    assert_int_equal(nr, 1);
    slots_fill(slot, GFN(5), 0x1234);
    assert_true(slots_check(slot, 0x1234));
    assert_false(slots_check(slot, 0x1235));
    slots_free(slot);
    assert_int_equal(slots_take(1, 1, &nr), slot);
    assert_false(slots_check(slot, 0x1234));
    slots_fill(slot, GFN(5), 0x1234);
    assert_true(slots_check(slot, 0x1234));
    slots_free(slot);
    slots_fini();
    env_stop();
}

/* Without the disk what is in memory stays in reach, and nothing more leaves but into the cache. */
static void disk_gone(void **state)
{
    struct p2m_counters count;
    struct swap_stats s;

    (void)state;
    swapenv_quiet_start();
    test_env.quiet = true;
    swapenv_fill_pages(KIND_RANDOM, 0, 40);
    swapenv_take_all();
    swapenv_fill_pages(KIND_RANDOM, 40, 40);
    swapenv_fill_pages(KIND_HALF, 80, 40);
    swap_stats(&s);
    assert_true(swap_has_store() && !s.gone);
    swapenv.store.gone = true;
    swapenv.errors = true;
    swap_stats(&s);
    assert_true(!swap_has_store() && s.gone);
    assert_string_equal(s.store, "faultstore");
    assert_int_equal(populate(0), HV_EIO);
    for (unsigned i = 0; i < 40; i++) {
        struct swap_step done;

        (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
        swapenv_drain();
    }
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 40);
    assert_int_equal(count.compressed, 40);
    for (uint64_t gfn = 40; gfn < 120; gfn++) {
        swapenv_expect(0, gfn);
    }
    swapenv_stop();
}

/* Nothing but the cache. */
static void no_store(void **state)
{
    const struct swap_config cfg = {
        .seed = 1, .wake = swapenv_woken, .wake_all = swapenv_all_woken};
    struct p2m_counters count;
    struct swap_stats s;

    (void)state;
    rng_seed(&swapenv.rng, 3);
    swapenv_start_with(&cfg, 1, false);
    swap_stats(&s);
    assert_true(!swap_has_store() && s.store == NULL && !s.gone);
    test_env.on_relax = NULL;
    test_env.on_flush = swapenv_quiet_flush_hook;
    swapenv.how.zip_pct = 1; /* a bound that nothing can be moved out of holds new pages back */
    swapenv_fill_pages(KIND_HALF, 0, 200);
    swapenv_fill_pages(KIND_RANDOM, 200, 20);
    for (unsigned i = 0; i < 40; i++) {
        struct swap_step done;

        (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
    }
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 0);
    assert_true(count.compressed > 0 && count.zip_frames <= 11 + SWAP_BATCH / 2);
    swapenv_check_all(true);
    swapenv_stop();
}

/* Every allocation of set-up fails in turn. */
static void set_up_fails(void **state)
{
    static const struct {
        const char *site;
        int64_t times;
    } sites[] = {{"slots.table", 1},
                 {"swap.batch", 4},
                 {"swap.copy", 40},
                 {"swap.spare", 64},
                 {"swap.reads", 1}};
    const struct swap_config cfg = {
        .store = &swapenv.store.store, .wake = swapenv_woken, .wake_all = swapenv_all_woken};
    struct buddy_stats before, now;

    (void)state;
    faultstore_start(&swapenv.store, NR_SLOTS, 1);
    env_start(BASE, NR_FRAMES, 1);
    buddy_stats(&before);
    for (unsigned i = 0; i < ARRAY_SIZE(sites); i++) {
        for (int64_t after = 0; after < sites[i].times; after++) {
            test_env.fail_site = sites[i].site;
            test_env.fail_after = after;
            assert_int_equal(swap_init(&cfg), HV_ENOMEM);
            buddy_stats(&now);
            assert_int_equal(now.used[FRAME_HOST], before.used[FRAME_HOST]);
        }
    }
    test_env.fail_after = -1;
    env_stop();
    faultstore_stop(&swapenv.store);
    swapenv.store.data = NULL;
}

/* A full store keeps what it has; pages stay in memory, and leave when there is room again. */
static void store_full(void **state)
{
    struct p2m_counters count;

    (void)state;
    swapenv.nr_slots = 100;
    swapenv_quiet_start();
    swapenv.nr_slots = NR_SLOTS;
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, 300);
    for (unsigned i = 0; i < 40; i++) {
        struct swap_step done;

        (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
        swapenv_drain();
    }
    swapenv_count_pages(&count);
    assert_true(count.swapped == 100 && count.consumed == 200);
    swapenv_check_all(true);
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 0);
    for (unsigned i = 0; i < 10; i++) {
        struct swap_step done;

        (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
        swapenv_drain();
    }
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 100);
    swapenv_check_all(true);
    swapenv_stop();
}

/* One run through everything: out, all in, some renewed, out, in. Returns the pages out of reach. */
static uint64_t run_through(void)
{
    uint64_t lost = 0;

    swapenv_fill_pages(KIND_RANDOM, 0, 24);
    swapenv_fill_pages(KIND_HALF, 24, 24);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 8; i++) {
            struct swap_step done;

            (void)!swap_out(swapenv.vms[0].p2m, 16, &swapenv.how, &done);
            swapenv_drain();
        }
        for (uint64_t gfn = 0; gfn < 48; gfn++) {
            enum hv_err err = HV_OK;
            uint64_t *page = tlbguest_translate(&swapenv.vms[0], gfn, gfn % 3 == round, &err);

            if (page == NULL) {
                assert_int_equal(err, HV_EIO);
                lost++;
                continue;
            }
            swapenv_check_contents(&swapenv.vms[0], gfn, page);
            if (gfn % 3 == round) {
                swapenv.contents[0][gfn] = (gfn + 100) * NR_KINDS + KIND_RANDOM;
                swapenv_make(page, swapenv.contents[0][gfn]);
            }
        }
    }
    return lost;
}

/* Each request of a run fails in each way, once and for four in a row. What a VM gets to see is what it
 * wrote or an error; an error that does not last loses nothing; the other VM notices nothing. */
static void faults_at_every_step(void **state)
{
    static const uint64_t in_a_row[] = {1, 4};
    uint64_t steps = 0, lost[FAULT_GONE + 1] = {0}, noticed[FAULT_GONE + 1] = {0};

    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(in_a_row); k++) {
        for (unsigned fault = FAULT_NONE; fault <= FAULT_GONE; fault++) {
            for (uint64_t at = 0; at < (fault == FAULT_NONE ? 1 : steps); at++) {
                swapenv_quiet_start();
                test_env.quiet = true;
                swapenv.errors = true;
                swapenv.how.compress = at % 2;
                swapenv.how.zip_pct = 1;
                for (uint64_t gfn = 0; gfn < 16; gfn++) {
                    swapenv_put(1, gfn, gfn * NR_KINDS + KIND_RANDOM);
                }
                swapenv.store.fault = fault;
                swapenv.store.fault_at = at;
                swapenv.store.nr_faults = in_a_row[k];
                lost[fault] += run_through();
                noticed[fault] += swapenv.store.failures;
                if (fault == FAULT_NONE) {
                    steps = swapenv.store.reads + swapenv.store.writes;
                }
                swapenv.store.fault = FAULT_NONE;
                swapenv.store.gone = false;
                for (uint64_t gfn = 0; gfn < 16; gfn++) {
                    swapenv_expect(1, gfn);
                }
                swapenv_check_all(true);
                swapenv_stop();
            }
        }
    }
    printf(
        "%llu requests; pages out of reach: %llu by errors, %llu flipped, %llu lost, %llu gone\n",
        (unsigned long long)steps, (unsigned long long)lost[FAULT_ERROR],
        (unsigned long long)lost[FAULT_FLIP], (unsigned long long)lost[FAULT_LOST],
        (unsigned long long)lost[FAULT_GONE]);
    assert_true(steps > 20 && lost[FAULT_NONE] == 0);
    assert_true(noticed[FAULT_ERROR] != 0 && noticed[FAULT_GONE] != 0);
    assert_true(lost[FAULT_LOST] != 0 && lost[FAULT_FLIP] != 0 && lost[FAULT_GONE] != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_slots),
        cmocka_unit_test(bad_reads),
        cmocka_unit_test(old_contents_are_refused),
        cmocka_unit_test(sums_are_of_one_use),
        cmocka_unit_test(disk_gone),
        cmocka_unit_test(no_store),
        cmocka_unit_test(set_up_fails),
        cmocka_unit_test(store_full),
        cmocka_unit_test(faults_at_every_step),
    };

    return cmocka_run_group_tests_name("swap faults", tests, NULL, NULL);
}

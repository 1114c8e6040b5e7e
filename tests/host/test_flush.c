/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flush batches: nothing is free before the flush, everything after it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/flush.h"
#include "tests/host/env.h"

#define BASE MFN(0x100)
#define NR_FRAMES 4096ull
#define VM 3u

static struct flush_domain domain;
static uint64_t owned_at_flush;

static uint64_t owned(void)
{
    uint64_t count[NR_FRAME_USES];

    buddy_count_owner(VM, count);
    return count[FRAME_GUEST] + count[FRAME_VIEW];
}

static void note_owned(struct flush_domain *d)
{
    assert_ptr_equal(d, &domain);
    owned_at_flush = owned();
}

static void start(struct flush_batch *batch)
{
    env_start(BASE, NR_FRAMES, 2);
    test_env.on_flush = note_owned;
    flush_domain_init(&domain, NULL);
    flush_batch_init(batch, &domain);
}

static void frames_wait_for_the_flush(void **state)
{
    struct flush_batch batch;
    mfn_t table, small, large;

    (void)state;
    start(&batch);
    assert_int_equal(buddy_alloc(0, FRAME_VIEW, VM, 0, &table), HV_OK);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, VM, 0, &small), HV_OK);
    assert_int_equal(buddy_alloc(9, FRAME_GUEST, VM, 0, &large), HV_OK);
    flush_batch_free(&batch, table, 0);
    flush_batch_free(&batch, small, 0);
    /* Part of a block only. */
    flush_batch_free(&batch, mfn_add(large, 4), 2);
    assert_int_equal(batch.nr, 3);
    assert_int_equal(owned(), 514);
    assert_true(mm_audit());
    flush_batch_commit(&batch);
    assert_int_equal(owned_at_flush, 514);
    assert_int_equal(owned(), 508);
    assert_int_equal(test_env.flushes, 1);
    assert_int_equal(domain.flushes, 1);
    /* What is left of the large block: frames 0-3, and a half of each size beyond the part. */
    buddy_free(large, 2);
    for (unsigned order = 3; order < 9; order++) {
        buddy_free(mfn_add(large, BIT(order)), order);
    }
    assert_true(mm_audit_gone(VM));
    env_stop();
}

static void flushes_only_when_needed(void **state)
{
    struct flush_batch batch;

    (void)state;
    start(&batch);
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 0);
    flush_batch_touch(&batch);
    flush_batch_commit(&batch);
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 1);
    env_stop();
}

static void nobody_to_flush(void **state)
{
    struct flush_batch batch;
    mfn_t mfn;

    (void)state;
    start(&batch);
    flush_batch_init(&batch, NULL);
    assert_int_equal(buddy_alloc(0, FRAME_VIEW, VM, 0, &mfn), HV_OK);
    flush_batch_free(&batch, mfn, 0);
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 0);
    assert_true(mm_audit_gone(VM));
    env_stop();
}

/* The stamp catches a flush that did not happen. */
static void forgotten_flush_panics(void **state)
{
    struct flush_batch batch;
    mfn_t mfn;

    (void)state;
    start(&batch);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, VM, 0, &mfn), HV_OK);
    flush_batch_free(&batch, mfn, 0);
    test_env.broken_flush = true;
    ENV_EXPECT_PANIC(flush_batch_commit(&batch));
    test_env.broken_flush = false;
    flush_batch_commit(&batch);
    env_stop();
}

/* Who finds its change made by somebody who has not flushed yet must wait for a flush as well. */
static void change_of_another_is_waited_for(void **state)
{
    struct flush_batch batch, other;

    (void)state;
    start(&batch);
    flush_batch_init(&other, &domain);
    flush_batch_join(&batch);
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 0);
    flush_batch_touch(&other);
    flush_batch_join(&batch);
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 1);
    flush_batch_commit(&other);
    assert_int_equal(test_env.flushes, 2);
    assert_int_equal(domain.pending, 0);
    flush_batch_join(&batch);
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 2);
    env_stop();
}

/* What was removed while a flush was under way is not what that flush was for. */
static uint64_t removed_meanwhile;

static void remove_meanwhile(struct flush_domain *d)
{
    removed_meanwhile = d->epoch;
}

static void only_later_flushes_count(void **state)
{
    struct flush_batch batch;
    uint64_t before;

    (void)state;
    start(&batch);
    before = domain.epoch;
    assert_false(flush_has_passed(&domain, before));
    test_env.on_flush = remove_meanwhile;
    flush_now(&domain);
    assert_true(flush_has_passed(&domain, before));
    assert_false(flush_has_passed(&domain, removed_meanwhile));
    test_env.on_flush = NULL;
    flush_local(&domain);
    assert_true(flush_has_passed(&domain, removed_meanwhile));
    env_stop();
}

/* A frame that waits is nobody's to free. */
static void freeing_twice_panics(void **state)
{
    struct flush_batch batch;
    mfn_t mfn;

    (void)state;
    start(&batch);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, VM, 0, &mfn), HV_OK);
    flush_batch_free(&batch, mfn, 0);
    ENV_EXPECT_PANIC(flush_batch_free(&batch, mfn, 0));
    ENV_EXPECT_PANIC(buddy_free(mfn, 0));
    flush_batch_commit(&batch);
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_wait_for_the_flush),
        cmocka_unit_test(flushes_only_when_needed),
        cmocka_unit_test(nobody_to_flush),
        cmocka_unit_test(forgotten_flush_panics),
        cmocka_unit_test(freeing_twice_panics),
        cmocka_unit_test(change_of_another_is_waited_for),
        cmocka_unit_test(only_later_flushes_count),
    };

    return cmocka_run_group_tests_name("flush", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Small objects against a list of what was handed out.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/slab.h"
#include "tests/host/env.h"

#define BASE MFN(0x100)
#define NR_FRAMES 8192ull
#define MAX_OBJECTS 1500

struct object {
    unsigned char *ptr;
    size_t size;
    uint32_t owner;
    unsigned char mark;
};

static struct object objects[MAX_OBJECTS];
static unsigned nr_objects;

static void object_alloc(struct rng *rng)
{
    struct object *o = &objects[nr_objects];

    o->size = 1 + (size_t)rng_below(rng, rng_below(rng, 10) ? 400 : 20000);
    o->owner = (uint32_t)rng_below(rng, 3) * 64; /* all in one bucket */
    o->mark = (unsigned char)(1 + rng_below(rng, 255));
    o->ptr = nr_objects < MAX_OBJECTS ? kmalloc(o->size, o->owner) : NULL;
    if (o->ptr == NULL) {
        return;
    }
    assert_true(IS_ALIGNED((uintptr_t)o->ptr, 16));
    assert_true(o->size < PAGE_SIZE || IS_ALIGNED((uintptr_t)o->ptr, PAGE_SIZE));
    for (size_t i = 0; i < o->size; i++) {
        assert_int_equal(o->ptr[i], 0);
    }
    memset(o->ptr, o->mark, o->size);
    nr_objects++;
}

static void object_free(struct rng *rng)
{
    struct object *o = &objects[rng_below(rng, nr_objects)];

    for (size_t i = 0; i < o->size; i++) {
        assert_int_equal(o->ptr[i], o->mark);
    }
    kfree(o->ptr);
    *o = objects[--nr_objects];
}

static void random_operations(void **state)
{
    struct rng rng;
    uint64_t counted[NR_FRAME_USES];

    (void)state;
    rng_seed(&rng, env_seed("slab: random operations"));
    env_start(BASE, NR_FRAMES, 2);
    rng_seed(&test_env.rng, rng_next(&rng));
    test_env.fail_rate = 50;
    for (unsigned step = 0; step < 30000; step++) {
        env_set_cpu((unsigned)rng_below(&rng, 2));
        if (nr_objects == 0 || rng_below(&rng, 100) < 52) {
            object_alloc(&rng);
        } else {
            object_free(&rng);
        }
        if (step % 512 == 0) {
            assert_true(mm_audit());
            buddy_count_owner(64, counted);
            assert_int_equal(kmalloc_bytes(64), counted[FRAME_VM] * PAGE_SIZE);
        }
    }
    assert_true(test_env.failures > 0);
    while (nr_objects != 0) {
        object_free(&rng);
    }
    assert_true(mm_audit_gone(64));
    assert_int_equal(kmalloc_bytes(64), 0);
    assert_int_equal(kmalloc_bytes(OWNER_HOST), 0);
    env_stop();
}

static void scarcity_is_null(void **state)
{
    static void *taken[NR_FRAMES];
    unsigned nr = 0;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_null(kmalloc(GIB(2), 1));
    assert_null(kmalloc(MIB(64), 1));
    while ((taken[nr] = kmalloc(4096, 1)) != NULL) {
        nr++;
    }
    assert_int_equal(nr, env_idle_frames());
    assert_null(kmalloc(16, 1));
    while (nr != 0) {
        kfree(taken[--nr]);
    }
    kfree(NULL);
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),
        cmocka_unit_test(scarcity_is_null),
    };

    return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}

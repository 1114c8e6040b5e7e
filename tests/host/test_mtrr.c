/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory types by machine address, from values of the MTRRs.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86_64/mtrr.h"

#define MASK(size) (~((uint64_t)(size)-1) & ((1ull << 40) - 1))

static struct mtrr_state state_of(uint8_t default_type)
{
    return (struct mtrr_state){.enabled = true, .default_type = default_type};
}

static void add(struct mtrr_state *s, uint64_t base, uint64_t size, uint8_t type)
{
    s->range[s->nr_ranges].base = base;
    s->range[s->nr_ranges].mask = MASK(size);
    s->range[s->nr_ranges++].type = type;
}

static void test_disabled(void **state)
{
    struct mtrr_state s = {.default_type = MTRR_WB};

    (void)state;
    assert_int_equal(mtrr_state_type(&s, 0x100000, PAGE_SIZE), MTRR_UC);
}

static void test_variable(void **state)
{
    struct mtrr_state s = state_of(MTRR_UC);

    (void)state;
    add(&s, 0, GIB(2), MTRR_WB);
    add(&s, GIB(1), MIB(2), MTRR_UC);
    add(&s, GIB(4), GIB(1), MTRR_WB);
    add(&s, GIB(4) + MIB(4), MIB(4), MTRR_WT);
    add(&s, GIB(4) + MIB(64), MIB(1), MTRR_WC);
    assert_int_equal(mtrr_state_type(&s, 0, GIB(1)), MTRR_WB);
    assert_int_equal(mtrr_state_type(&s, GIB(1), PAGE_SIZE), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, GIB(1), MIB(2)), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, GIB(1) + MIB(2), MIB(2)), MTRR_WB);
    /* Cut by a smaller range of another type. */
    assert_int_equal(mtrr_state_type(&s, GIB(1), GIB(1)), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, GIB(4) + MIB(4), MIB(2)), MTRR_WT);
    assert_int_equal(mtrr_state_type(&s, GIB(4), MIB(4)), MTRR_WB);
    assert_int_equal(mtrr_state_type(&s, GIB(4), GIB(1)), MTRR_UC);
    /* WB and WC together are undefined. */
    assert_int_equal(mtrr_state_type(&s, GIB(4) + MIB(64), PAGE_SIZE), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, GIB(8), MIB(2)), MTRR_UC);
}

static void test_fixed(void **state)
{
    struct mtrr_state s = state_of(MTRR_WB);

    (void)state;
    s.fixed_enabled = true;
    memset(s.fixed, MTRR_WB, sizeof(s.fixed));
    s.fixed[8 + 8] = MTRR_UC;     /* 0xa0000, 16 KiB */
    s.fixed[24 + 0x20] = MTRR_WP; /* 0xe0000, 4 KiB */
    assert_int_equal(mtrr_state_type(&s, 0x9f000, PAGE_SIZE), MTRR_WB);
    assert_int_equal(mtrr_state_type(&s, 0xa0000, PAGE_SIZE), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, 0xa3000, PAGE_SIZE), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, 0xa4000, PAGE_SIZE), MTRR_WB);
    assert_int_equal(mtrr_state_type(&s, 0xe0000, PAGE_SIZE), MTRR_WP);
    assert_int_equal(mtrr_state_type(&s, 0, MIB(2)), MTRR_UC);
    assert_int_equal(mtrr_state_type(&s, MIB(2), MIB(2)), MTRR_WB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_variable),
        cmocka_unit_test(test_fixed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

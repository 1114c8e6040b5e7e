/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who may start: the arithmetic and its words.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "kernel/vm/admission.h"

static char why[ADMISSION_TEXT_MAX];

static struct admission_host host = {
    .memory = MIB(1000),
    .swap = MIB(500),
    .others = {.min = MIB(300), .max = MIB(600), .overhead = MIB(10)},
};

static enum hv_err check(uint64_t min, uint64_t max, uint64_t overhead)
{
    const struct admission_claim c = {.min = MIB(min), .max = MIB(max), .overhead = MIB(overhead)};

    memset(why, 0, sizeof why);
    return admission_check(&host, &c, why);
}

static void mins_must_fit(void **state)
{
    (void)state;
    assert_int_equal(check(680, 880, 10), HV_OK);
    assert_int_equal(check(681, 880, 10), HV_ENOMEM);
    assert_string_equal(why,
                        "its min of 681 MB and overhead of 10 MB do not fit: with the 310 MB "
                        "that are guaranteed to others 1001 MB are needed, and the machine has "
                        "1000 MB for VMs");
    assert_int_equal(check(680, 880, 11), HV_ENOMEM);
    /* Whatever the operator says. */
    host.unbacked = true;
    assert_int_equal(check(681, 880, 10), HV_ENOMEM);
    host.unbacked = false;
}

/* A max that counts as min is called what the operator wrote. */
static void unswapped_must_fit(void **state)
{
    struct admission_claim c = {
        .min = MIB(681), .max = MIB(681), .overhead = MIB(10), .unswapped = true};

    (void)state;
    assert_int_equal(admission_check(&host, &c, why), HV_ENOMEM);
    assert_string_equal(why,
                        "its max (its min, for swap = off) of 681 MB and overhead of 10 MB do not "
                        "fit: with the 310 MB that are guaranteed to others 1001 MB are needed, "
                        "and the machine has 1000 MB for VMs");
    c.min = c.max = MIB(680);
    assert_int_equal(admission_check(&host, &c, why), HV_OK);
}

static void maxs_must_be_backed(void **state)
{
    (void)state;
    assert_int_equal(check(0, 880, 10), HV_OK);
    assert_int_equal(check(0, 881, 10), HV_ENOMEM);
    assert_non_null(strstr(why, "max of 881 MB and overhead of 10 MB all VMs may need 1501 MB; the "
                                "machine has 1000 MB for VMs and 500 MB of swap, so 1 MB lack"));
    host.unbacked = true;
    assert_int_equal(check(0, 88100, 10), HV_OK);
    host.unbacked = false;
    host.swap = MIB(501);
    assert_int_equal(check(0, 881, 10), HV_OK);
    host.swap = MIB(500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mins_must_fit),
        cmocka_unit_test(unswapped_must_fit),
        cmocka_unit_test(maxs_must_be_backed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

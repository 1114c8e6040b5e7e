/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is dropped between guests, for processors as their makers describe them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "arch/x86_64/mitigate.h"

#define INTEL .vendor = CPU_VENDOR_INTEL, .family = 6
#define MD_CLEAR (1u << 10)
#define IBPB (1u << 26)
#define L1D_FLUSH (1u << 28)
#define NEW_MICROCODE (MD_CLEAR | IBPB | L1D_FLUSH)
#define RTM (1u << 11)

static const struct {
    const char *name;
    struct mitigate_facts facts;
    struct mitigate_plan plan; /* predictors, L1 data, buffers; small code */
} cases[] = {
    {"Skylake",
     {INTEL, .model = 0x55, .l7_ebx = RTM, .l7_edx = NEW_MICROCODE},
     {MITIGATE_ACTIVE, MITIGATE_ACTIVE, MITIGATE_ACTIVE, true}},
    {"Skylake as it left the factory",
     {INTEL, .model = 0x55, .l7_ebx = RTM},
     {MITIGATE_NO_MEANS, MITIGATE_NO_MEANS, MITIGATE_NO_MEANS, true}},
    {"Skylake beneath a hypervisor that flushes",
     {INTEL, .model = 0x55, .l7_edx = NEW_MICROCODE, .arch_caps = BIT(3)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_ACTIVE, true}},
    {"Cascade Lake without TSX: RDCL_NO, MDS_NO",
     {INTEL, .model = 0x55, .l7_edx = NEW_MICROCODE, .arch_caps = BIT(0) | BIT(5)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_NOT_NEEDED, true}},
    {"Cascade Lake with TSX: TAA",
     {INTEL, .model = 0x55, .l7_ebx = RTM, .l7_edx = NEW_MICROCODE, .arch_caps = BIT(0) | BIT(5)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_ACTIVE, true}},
    {"TAA_NO",
     {INTEL, .model = 0x8f, .l7_ebx = RTM, .l7_edx = NEW_MICROCODE,
      .arch_caps = BIT(0) | BIT(5) | BIT(6) | BIT(8)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_NOT_NEEDED, false}},
    {"Ice Lake: MMIO stale data by FB_CLEAR",
     {INTEL, .model = 0x6a, .l7_edx = NEW_MICROCODE,
      .arch_caps = BIT(0) | BIT(5) | BIT(6) | BIT(8) | BIT(17)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_ACTIVE, false}},
    {"FB_CLEAR, but none of the three flaws",
     {INTEL, .model = 0x8f, .l7_edx = NEW_MICROCODE,
      .arch_caps = BIT(0) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(17)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_NOT_NEEDED, false}},
    {"Alder Lake's small cores: RFDS_CLEAR",
     {INTEL, .model = 0x97, .l7_edx = IBPB,
      .arch_caps = BIT(0) | BIT(5) | BIT(6) | BIT(8) | BIT(28)},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_ACTIVE, false}},
    {"Goldmont: neither L1TF nor MDS",
     {INTEL, .model = 0x5c, .l7_edx = IBPB},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_NOT_NEEDED, false}},
    {"Silvermont: MDS alone",
     {INTEL, .model = 0x37, .l7_edx = MD_CLEAR | IBPB},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_ACTIVE, false}},
    {"Zen with IBPB",
     {.vendor = CPU_VENDOR_AMD, .family = 0x17, .model = 1, .ext8_ebx = 1u << 12},
     {MITIGATE_ACTIVE, MITIGATE_NOT_NEEDED, MITIGATE_NOT_NEEDED, false}},
    {"Zen without",
     {.vendor = CPU_VENDOR_AMD, .family = 0x17, .model = 1},
     {MITIGATE_NO_MEANS, MITIGATE_NOT_NEEDED, MITIGATE_NOT_NEEDED, false}},
};

static void test_plans(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct mitigate_plan *want = &cases[i].plan;
        struct mitigate_plan got;

        mitigate_decide(&cases[i].facts, &got);
        if (got.predictors != want->predictors || got.l1_data != want->l1_data ||
            got.buffers != want->buffers || got.small_code != want->small_code) {
            fail_msg("%s: %d %d %d %d instead of %d %d %d %d", cases[i].name, got.predictors,
                     got.l1_data, got.buffers, got.small_code, want->predictors, want->l1_data,
                     want->buffers, want->small_code);
        }
    }
}

/* What ran before guest 3, and what is dropped then. */
static void test_entries(void **state)
{
    static const struct {
        struct mitigate_cpu before;
        struct mitigate_flushes want; /* predictors, L1 data, buffers */
    } entries[] = {
        {{0, false}, {true, true, true}}, {{3, false}, {false, false, false}},
        {{3, true}, {false, true, true}}, {{4, false}, {true, true, true}},
        {{4, true}, {true, true, true}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
        for (unsigned has = 0; has < 8; has++) {
            const struct mitigate_plan plan = {
                .predictors = has & 1 ? MITIGATE_ACTIVE : MITIGATE_NO_MEANS,
                .l1_data = has & 2 ? MITIGATE_ACTIVE : MITIGATE_NOT_NEEDED,
                .buffers = has & 4 ? MITIGATE_ACTIVE : MITIGATE_NOT_NEEDED,
            };
            struct mitigate_cpu c = entries[i].before;
            struct mitigate_flushes got = mitigate_at_entry(&plan, &c, 3);

            assert_int_equal(got.predictors, entries[i].want.predictors && (has & 1));
            assert_int_equal(got.l1_data, entries[i].want.l1_data && (has & 2));
            assert_int_equal(got.buffers, entries[i].want.buffers && (has & 4));
            got = mitigate_at_entry(&plan, &c, 3);
            assert_false(got.predictors || got.l1_data || got.buffers);
        }
    }
}

/* A thread that worked for guest 3 leaves; which guest is then entered without dropping anything. */
static void test_leaves(void **state)
{
    static const struct mitigate_plan plan = {MITIGATE_ACTIVE, MITIGATE_ACTIVE, MITIGATE_ACTIVE,
                                              false};
    static const struct {
        struct mitigate_cpu before;
        bool clean3, clean4;
    } leaves[] = {
        {{0, false}, false, false}, {{3, false}, true, false}, {{3, true}, false, false},
        {{4, false}, false, false}, {{4, true}, false, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
        for (uint32_t next = 3; next <= 4; next++) {
            struct mitigate_cpu c = leaves[i].before;
            struct mitigate_flushes got;

            mitigate_at_leave(&c, 3);
            assert_int_equal(c.vm, leaves[i].before.vm); /* it is no entry */
            got = mitigate_at_entry(&plan, &c, next);
            assert_int_equal(got.predictors, leaves[i].before.vm != next);
            assert_int_equal(got.l1_data, !(next == 3 ? leaves[i].clean3 : leaves[i].clean4));
            assert_int_equal(got.buffers, got.l1_data);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plans), cmocka_unit_test(test_entries),
                                       cmocka_unit_test(test_leaves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rules for writes to control registers: what each refuses and what it lets pass.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/vm/cr_rules.h"

#define OFFERED (CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_MCE)

static const struct cr_state real = {.cr0 = CR0_ET, .cr4_offered = OFFERED, .phys_bits = 40};
static const struct cr_state long64 = {
    .cr0 = CR0_PE | CR0_PG | CR0_ET,
    .cr4 = CR4_PAE,
    .cr3 = 0x1000,
    .efer = EFER_LME | EFER_LMA,
    .code64 = true,
    .cr4_offered = OFFERED,
    .phys_bits = 40,
};

static void test_cr0(void **state)
{
    struct cr_state s = real;

    (void)state;
    assert_true(cr_rules_cr0(&s, CR0_PE));
    assert_true(cr_rules_cr0(&s, CR0_PE | CR0_PG));
    assert_true(cr_rules_cr0(&s, CR0_CD | CR0_NW));
    assert_false(cr_rules_cr0(&s, CR0_PG));
    assert_false(cr_rules_cr0(&s, CR0_NW));
    assert_false(cr_rules_cr0(&s, BIT(32)));
    s.efer = EFER_LME;
    assert_false(cr_rules_cr0(&s, CR0_PE | CR0_PG));
    s.cr4 = CR4_PAE;
    assert_true(cr_rules_cr0(&s, CR0_PE | CR0_PG));
    s.task16 = true;
    assert_false(cr_rules_cr0(&s, CR0_PE | CR0_PG));
    s.task16 = false;
    s.code64 = true;
    assert_false(cr_rules_cr0(&s, CR0_PE | CR0_PG));
    s = long64;
    assert_false(cr_rules_cr0(&s, CR0_PE));
    s.code64 = false;
    assert_true(cr_rules_cr0(&s, CR0_PE));
    s.cr4 |= CR4_PCIDE;
    assert_false(cr_rules_cr0(&s, CR0_PE));
}

static void test_cr3(void **state)
{
    struct cr_state s = long64;

    (void)state;
    assert_true(cr_rules_cr3(&s, 0x7000));
    assert_false(cr_rules_cr3(&s, BIT(40)));
    assert_false(cr_rules_cr3(&s, BIT(63) | 0x7000));
    s.cr4 |= CR4_PCIDE;
    assert_true(cr_rules_cr3(&s, BIT(63) | 0x7000));
    assert_true(cr_rules_cr3(&real, UINT64_MAX));
}

static void test_cr4(void **state)
{
    struct cr_state s = long64;

    (void)state;
    assert_true(cr_rules_cr4(&s, CR4_PAE | CR4_PGE | CR4_MCE));
    assert_false(cr_rules_cr4(&s, CR4_PAE | CR4_VMXE));
    assert_false(cr_rules_cr4(&s, CR4_PGE));
    assert_true(cr_rules_cr4(&s, CR4_PAE | CR4_PCIDE));
    s.cr3 |= 1;
    assert_false(cr_rules_cr4(&s, CR4_PAE | CR4_PCIDE));
    s = real;
    assert_true(cr_rules_cr4(&s, 0));
    assert_false(cr_rules_cr4(&s, CR4_PCIDE));
}

static void test_kept(void **state)
{
    struct cr_state s = long64;

    (void)state;
    assert_int_equal(cr_rules_kept(&s, 0, CR0_PE | BIT(7)), CR0_PE | CR0_ET);
    assert_int_equal(cr_rules_kept(&s, 3, 0x5000), 0x5000);
    s.cr4 |= CR4_PCIDE;
    assert_int_equal(cr_rules_kept(&s, 3, BIT(63) | 0x5001), 0x5001);
    assert_int_equal(cr_rules_kept(&s, 4, CR4_PAE), CR4_PAE);
}

static void test_pdptes(void **state)
{
    (void)state;
    assert_int_equal(cr_rules_pdpt(0xabcdef3f), 0xabcdef20);
    assert_true(cr_rules_pdpte(&real, 0));
    assert_true(cr_rules_pdpte(&real, 0x1e6));
    assert_true(cr_rules_pdpte(&real, 0x5001));
    assert_false(cr_rules_pdpte(&real, 0x5003));
    assert_false(cr_rules_pdpte(&real, BIT(40) | 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cr0),  cmocka_unit_test(test_cr3),    cmocka_unit_test(test_cr4),
        cmocka_unit_test(test_kept), cmocka_unit_test(test_pdptes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

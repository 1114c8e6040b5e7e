/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The SVM entry doctor: a VMCB as it is set up for a new vCPU may be entered; then each rule is
 * broken once, and the broken rule is named, with its field and the manual's section.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "svm/svm_doctor.h"

static const struct svm_limits limits = {
    .phys_bits = 40,
    .nr_asids = 16,
    .cr4_reserved = CR4_VMXE,
    .efer_reserved = BIT(40),
};

static struct vmcb m;
static unsigned reports;
static char last[256];

static void report(void *arg, const char *field, uint64_t value, const char *rule,
                   const char *section)
{
    (void)arg;
    (void)value;
    assert_non_null(section);
    reports++;
    snprintf(last, sizeof(last), "%s: %s", field, rule);
}

static unsigned check(void)
{
    reports = 0;
    last[0] = '\0';
    unsigned violations = svm_doctor_check(&m, &limits, report, NULL);

    assert_int_equal(violations, reports);
    return violations;
}

/* A vCPU in 64-bit mode. */
static void set_up(void)
{
    const struct vmcb_config cfg = {.iopm_pa = 0x10000, .msrpm_pa = 0x20000};

    vmcb_init(&m, &cfg);
    m.ctl.ncr3 = 0x30000;
    m.save.efer |= EFER_LME | EFER_LMA;
    m.save.cr0 |= CR0_PE | CR0_PG;
    m.save.cr4 = CR4_PAE;
    m.save.cs.attr = 0x29b;
}

static void test_sound(void **state)
{
    const struct vmcb_config cfg = {.iopm_pa = 0x10000, .msrpm_pa = 0x20000};

    (void)state;
    vmcb_init(&m, &cfg);
    m.ctl.ncr3 = 0x30000;
    assert_int_equal(check(), 0); /* as vcpu_init leaves it */
    set_up();
    assert_int_equal(check(), 0);
    m.ctl.event_inj = EVINJ_VALID | EVINJ_TYPE_INTR << EVINJ_TYPE_SHIFT | 0x40;
    assert_int_equal(check(), 0);
}

/* What flushes translations behind the shadow tables' back is not left to the guest. */
static void test_flushes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        const struct vmcb_config cfg = {.software_mmu = (i & 1) != 0, .invpcid = (i & 2) != 0};

        vmcb_init(&m, &cfg);
        assert_int_equal(m.ctl.intercept3, i == 3 ? ICEPT3_INVPCID : 0);
        assert_int_equal((m.ctl.intercept1 & ICEPT1_INVLPG) != 0, cfg.software_mmu);
    }
}

#define BREAK(change, says)                  \
    do {                                     \
        set_up();                            \
        change;                              \
        assert_int_equal(check(), 1);        \
        assert_non_null(strstr(last, says)); \
    } while (0)

static void test_registers(void **state)
{
    (void)state;
    BREAK(m.save.cr0 |= CR0_NW, "CR0: NW");
    BREAK(m.save.cr0 |= BIT(32), "CR0: bits 63:32");
    BREAK(m.save.cr3 = BIT(40), "CR3: bits above");
    BREAK(m.save.cr4 |= CR4_VMXE, "CR4: reserved");
    BREAK(m.save.cr4 |= CR4_CET, "CR4: CET");
    BREAK(m.save.dr6 |= BIT(32), "DR6");
    BREAK(m.save.dr7 |= BIT(63), "DR7");
    BREAK(m.save.efer &= ~EFER_SVME, "EFER: SVME");
    BREAK(m.save.efer |= BIT(40), "EFER: reserved");
    BREAK(m.save.cr4 &= ~CR4_PAE, "CR4: PAE");
    BREAK(m.save.cr0 &= ~CR0_PE, "CR0: PE");
    BREAK(m.save.cs.attr |= 0x400, "CS attributes");
}

static void test_controls(void **state)
{
    (void)state;
    BREAK(m.ctl.intercept2 &= (uint32_t)~ICEPT2_VMRUN, "VMRUN intercept");
    BREAK(m.ctl.msrpm_pa = BIT(40) - 0x1000, "MSRPM_BASE_PA");
    BREAK(m.ctl.iopm_pa = BIT(40) - 0x2000, "IOPM_BASE_PA");
    BREAK(m.ctl.asid = 0, "ASID: not 0");
    BREAK(m.ctl.asid = 16, "ASID: below");
    BREAK(m.ctl.ncr3 = 0, "N_CR3");
    BREAK(m.ctl.ncr3 = BIT(40), "N_CR3");
    BREAK(m.save.pat = 0x0007040600070402, "G_PAT");
    BREAK(m.ctl.event_inj = EVINJ_VALID | 1 << EVINJ_TYPE_SHIFT, "EVENTINJ: a defined");
    BREAK(m.ctl.event_inj = EVINJ_VALID | EVINJ_TYPE_EXCEPTION << EVINJ_TYPE_SHIFT | 2,
          "EVENTINJ: an exception");
    BREAK(m.ctl.event_inj = EVINJ_VALID | EVINJ_TYPE_EXCEPTION << EVINJ_TYPE_SHIFT | 32,
          "EVENTINJ: an exception");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_flushes),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_controls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

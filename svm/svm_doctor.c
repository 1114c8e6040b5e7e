/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See svm_doctor.h. Every rule is one call of doctor_expect(): field, value, what must hold, where the
 * manual says so.
 */
#include "svm/svm_doctor.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"

#define IOPM_BYTES 0x3000u
#define MSRPM_BYTES 0x2000u

static const char consistency[] = "Canonicalization and Consistency Checks";
static const char injection[] = "Event Injection";
static const char nested[] = "Nested Paging";

static void check_control_registers(struct doctor *d, const struct vmcb_save *s,
                                    const struct svm_limits *l)
{
    doctor_expect(d, (s->cr0 & CR0_CD) || !(s->cr0 & CR0_NW), "CR0", s->cr0,
                  "NW may not be set while CD is clear", consistency);
    doctor_expect(d, (s->cr0 >> 32) == 0, "CR0", s->cr0, "bits 63:32 are zero", consistency);
    doctor_expect(d, (s->cr3 >> l->phys_bits) == 0, "CR3", s->cr3,
                  "bits above the physical address size are zero", consistency);
    doctor_expect(d, (s->cr4 & l->cr4_reserved) == 0, "CR4", s->cr4, "reserved bits are zero",
                  consistency);
    doctor_expect(d, !(s->cr4 & CR4_CET) || (s->cr0 & CR0_WP), "CR4", s->cr4,
                  "CET is set only with CR0.WP", consistency);
    doctor_expect(d, (s->dr6 >> 32) == 0, "DR6", s->dr6, "bits 63:32 are zero", consistency);
    doctor_expect(d, (s->dr7 >> 32) == 0, "DR7", s->dr7, "bits 63:32 are zero", consistency);
}

static void check_long_mode(struct doctor *d, const struct vmcb_save *s, const struct svm_limits *l)
{
    const uint16_t attr_long = 0x200, attr_default = 0x400;
    bool paged_long = (s->efer & EFER_LME) && (s->cr0 & CR0_PG);

    doctor_expect(d, (s->efer & EFER_SVME) != 0, "EFER", s->efer, "SVME is set", consistency);
    doctor_expect(d, (s->efer & l->efer_reserved) == 0, "EFER", s->efer, "reserved bits are zero",
                  consistency);
    doctor_expect(d, !paged_long || (s->cr4 & CR4_PAE), "CR4", s->cr4,
                  "PAE is set when EFER.LME and CR0.PG are", consistency);
    doctor_expect(d, !paged_long || (s->cr0 & CR0_PE), "CR0", s->cr0,
                  "PE is set when EFER.LME and CR0.PG are", consistency);
    doctor_expect(d,
                  !(paged_long && (s->cr4 & CR4_PAE) && (s->cs.attr & attr_long) &&
                    (s->cs.attr & attr_default)),
                  "CS attributes", s->cs.attr, "L and D are not both set in long mode",
                  consistency);
}

static void check_intercepts(struct doctor *d, const struct vmcb_control *c,
                             const struct svm_limits *l)
{
    uint64_t limit = BIT(l->phys_bits);

    doctor_expect(d, (c->intercept2 & ICEPT2_VMRUN) != 0, "intercepts", c->intercept2,
                  "the VMRUN intercept is set", consistency);
    doctor_expect(d, c->msrpm_pa <= limit - MSRPM_BYTES, "MSRPM_BASE_PA", c->msrpm_pa,
                  "the map ends within the physical address space", consistency);
    doctor_expect(d, c->iopm_pa <= limit - IOPM_BYTES, "IOPM_BASE_PA", c->iopm_pa,
                  "the map ends within the physical address space", consistency);
    doctor_expect(d, c->asid != 0, "guest ASID", c->asid, "not 0, which is the host's",
                  consistency);
    doctor_expect(d, c->asid < l->nr_asids, "guest ASID", c->asid, "below the number of ASIDs",
                  consistency);
}

static void check_nested(struct doctor *d, const struct vmcb *m, const struct svm_limits *l)
{
    if (!(m->ctl.np_control & NPCTL_ENABLE)) {
        return;
    }
    doctor_expect(d, m->ctl.ncr3 != 0 && (m->ctl.ncr3 >> l->phys_bits) == 0, "N_CR3", m->ctl.ncr3,
                  "a table below the physical address size", nested);
    doctor_expect(d, pat_is_valid(m->save.pat), "G_PAT", m->save.pat,
                  "each byte is a memory type (0, 1, 4-7)", nested);
}

static void check_injection(struct doctor *d, const struct vmcb_control *c)
{
    uint64_t word = c->event_inj;
    unsigned type = (word >> EVINJ_TYPE_SHIFT) & EVINJ_TYPE_MASK;
    unsigned vector = word & EVINJ_VECTOR;

    if (!(word & EVINJ_VALID)) {
        return;
    }
    doctor_expect(d, type != 1 && type < 5, "EVENTINJ", word, "a defined event type", injection);
    doctor_expect(d, type != EVINJ_TYPE_EXCEPTION || (vector < 32 && vector != EXC_NMI), "EVENTINJ",
                  word, "an exception's vector is below 32 and not 2", injection);
}

#define FIELD(name, member)                                                        \
    {                                                                              \
        name, offsetof(struct vmcb, member), sizeof(((struct vmcb *)NULL)->member) \
    }
const struct doctor_field svm_doctor_fields[SVM_DOCTOR_FIELDS] = {
    FIELD("intercepts", ctl.intercept2),
    FIELD("iopm", ctl.iopm_pa),
    FIELD("msrpm", ctl.msrpm_pa),
    FIELD("asid", ctl.asid),
    FIELD("eventinj", ctl.event_inj),
    FIELD("ncr3", ctl.ncr3),
    FIELD("efer", save.efer),
    FIELD("cr0", save.cr0),
    FIELD("cr3", save.cr3),
    FIELD("cr4", save.cr4),
    FIELD("dr6", save.dr6),
    FIELD("dr7", save.dr7),
    FIELD("pat", save.pat),
    FIELD("cs-attributes", save.cs.attr),
};

unsigned svm_doctor_check(const struct vmcb *m, const struct svm_limits *limits,
                          doctor_report_t report, void *arg)
{
    struct doctor d = {.report = report, .arg = arg};

    check_control_registers(&d, &m->save, limits);
    check_long_mode(&d, &m->save, limits);
    check_intercepts(&d, &m->ctl, limits);
    check_nested(&d, m, limits);
    check_injection(&d, &m->ctl);
    return d.violations;
}

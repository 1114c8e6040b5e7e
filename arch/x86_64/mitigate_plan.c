/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which side channels between guests a processor has, and what it offers against them. Pure; callers:
 * mitigate.c, host tests.
 *
 * A processor that denies a flaw in IA32_ARCH_CAPABILITIES does not have it. Older ones do not know
 * that register: for them the models without the flaw are listed, as their maker names them; a model
 * that is not known has it.
 */
#include "arch/x86_64/mitigate.h"

/* CPUID leaf 7 */
#define L7_EBX_RTM BIT(11)
#define L7_EDX_MD_CLEAR BIT(10)
#define L7_EDX_IBPB BIT(26)
#define L7_EDX_L1D_FLUSH BIT(28)
/* CPUID leaf 80000008H */
#define EXT8_EBX_IBPB BIT(12)
/* IA32_ARCH_CAPABILITIES */
#define CAPS_RDCL_NO BIT(0)
#define CAPS_SKIP_L1D_FLUSH BIT(3) /* a hypervisor beneath us does it */
#define CAPS_MDS_NO BIT(5)
#define CAPS_PSCHANGE_MC_NO BIT(6)
#define CAPS_TAA_NO BIT(8)
#define CAPS_SBDR_SSDP_NO BIT(13)
#define CAPS_FBSDP_NO BIT(14)
#define CAPS_PSDP_NO BIT(15)
#define CAPS_FB_CLEAR BIT(17)
#define CAPS_RFDS_NO BIT(27)
#define CAPS_RFDS_CLEAR BIT(28)

#define NO_L1TF 1u
#define NO_MDS 2u
#define NO_PSCHANGE 4u
#define NO_FLAW (NO_L1TF | NO_MDS | NO_PSCHANGE)

/* Of family 6. None of them has the third flaw. */
static const struct {
    uint8_t model, lacks;
} known[] = {
    /* In order: no speculation at all. */
    {0x1c, NO_L1TF | NO_MDS},                                            /* Atom: Bonnell */
    {0x26, NO_L1TF | NO_MDS}, {0x27, NO_L1TF | NO_MDS},                  /* Saltwell */
    {0x35, NO_L1TF | NO_MDS}, {0x36, NO_L1TF | NO_MDS}, {0x37, NO_L1TF}, /* Silvermont */
    {0x4a, NO_L1TF},          {0x4d, NO_L1TF},          {0x5a, NO_L1TF},
    {0x4c, NO_L1TF},                                    /* Airmont */
    {0x75, NO_L1TF},          {0x57, NO_L1TF},          /* Xeon Phi */
    {0x85, NO_L1TF},          {0x5c, NO_L1TF | NO_MDS}, /* Goldmont */
    {0x5f, NO_L1TF | NO_MDS}, {0x7a, NO_L1TF | NO_MDS}, /* Goldmont Plus */
    {0x86, NO_L1TF | NO_MDS},                           /* Tremont */
    {0x96, NO_L1TF | NO_MDS}, {0x9c, NO_L1TF | NO_MDS},
};

/* The flaws that the model does not have. */
static unsigned model_lacks(const struct mitigate_facts *f)
{
    if (f->vendor != CPU_VENDOR_INTEL || f->family != 6) {
        return NO_FLAW;
    }
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i].model == f->model) {
            return known[i].lacks | NO_PSCHANGE;
        }
    }
    return 0;
}

static enum mitigate_state state(bool flaw, bool means)
{
    return !flaw ? MITIGATE_NOT_NEEDED : means ? MITIGATE_ACTIVE : MITIGATE_NO_MEANS;
}

static bool has_ibpb(const struct mitigate_facts *f)
{
    return (f->l7_edx & L7_EDX_IBPB) || (f->ext8_ebx & EXT8_EBX_IBPB);
}

void mitigate_decide(const struct mitigate_facts *f, struct mitigate_plan *plan)
{
    const uint64_t no_mmio = CAPS_SBDR_SSDP_NO | CAPS_FBSDP_NO | CAPS_PSDP_NO;
    unsigned lacks = model_lacks(f);
    bool l1tf = !(lacks & NO_L1TF) && !(f->arch_caps & (CAPS_RDCL_NO | CAPS_SKIP_L1D_FLUSH));
    bool mds = !(lacks & NO_MDS) && !(f->arch_caps & CAPS_MDS_NO);
    bool taa = !(lacks & NO_MDS) && (f->l7_ebx & L7_EBX_RTM) && !(f->arch_caps & CAPS_TAA_NO);
    /* For these two only a processor that offers the means says that it has the flaw. */
    bool mmio = (f->arch_caps & CAPS_FB_CLEAR) && (f->arch_caps & no_mmio) != no_mmio;
    bool rfds = (f->arch_caps & CAPS_RFDS_CLEAR) && !(f->arch_caps & CAPS_RFDS_NO);

    plan->predictors = state(true, has_ibpb(f));
    plan->l1_data = state(l1tf, (f->l7_edx & L7_EDX_L1D_FLUSH) != 0);
    plan->buffers = state(mds || taa || mmio || rfds,
                          (f->l7_edx & L7_EDX_MD_CLEAR) || (!mds && !taa && (mmio || rfds)));
    plan->small_code = !(lacks & NO_PSCHANGE) && !(f->arch_caps & CAPS_PSCHANGE_MC_NO);
}

struct mitigate_flushes mitigate_at_entry(const struct mitigate_plan *plan, struct mitigate_cpu *c,
                                          uint32_t vm)
{
    bool other = c->vm != vm;

    if (!other && !c->served) {
        return (struct mitigate_flushes){0};
    }
    *c = (struct mitigate_cpu){.vm = vm};
    return (struct mitigate_flushes){
        /* The host's threads train no guest's predictors. */
        .predictors = other && plan->predictors == MITIGATE_ACTIVE,
        .l1_data = plan->l1_data == MITIGATE_ACTIVE,
        .buffers = plan->buffers == MITIGATE_ACTIVE,
    };
}

void mitigate_at_leave(struct mitigate_cpu *c, uint32_t vm)
{
    c->served |= c->vm != vm;
}

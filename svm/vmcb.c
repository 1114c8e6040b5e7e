/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Setting up a VMCB, in sections. Everything is intercepted that the guest must not do to the host;
 * with nested paging that leaves its control registers, page tables, descriptor tables, debug
 * registers and the TSC to it. Called by svm.c; pure, so that the host tests can check the result.
 */
#include "svm/vmcb.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"

/* Between pauses closer than this many cycles the filter counts; after so many it exits. */
#define PAUSE_COUNT 3000
#define PAUSE_THRESHOLD 128

static void init_intercepts(struct vmcb_control *c, const struct vmcb_config *cfg)
{
    /* The host's own events, and what would end the processor. */
    c->intercept1 =
        (uint32_t)(ICEPT1_INTR | ICEPT1_NMI | ICEPT1_SMI | ICEPT1_INIT | ICEPT1_SHUTDOWN);
    /* What the hypervisor answers. */
    c->intercept1 |= (uint32_t)(ICEPT1_CPUID | ICEPT1_HLT | ICEPT1_IOIO | ICEPT1_MSR |
                                ICEPT1_RDPMC | ICEPT1_INVD | ICEPT1_INVLPGA);
    /* A VMCB without the VMRUN intercept is refused; the others of the extension become #UD. */
    c->intercept2 = (uint32_t)(ICEPT2_VMRUN | ICEPT2_VMMCALL | ICEPT2_VMLOAD | ICEPT2_VMSAVE |
                               ICEPT2_STGI | ICEPT2_CLGI | ICEPT2_SKINIT | ICEPT2_WBINVD |
                               ICEPT2_MONITOR | ICEPT2_MWAIT | ICEPT2_XSETBV);
    if (cfg->rdpru) {
        c->intercept2 |= (uint32_t)ICEPT2_RDPRU;
    }
    /*
     * #DB and #AC: a guest can build an endless stream of either inside one instruction, during
     * which no interrupt is taken (CVE-2015-5307, CVE-2015-8104). #MC is the host's.
     */
    c->exceptions = (uint32_t)(BIT(EXC_DB) | BIT(EXC_AC) | BIT(EXC_MC));
    if (cfg->software_mmu) {
        c->cr_read = (uint16_t)ICEPT_CR_PAGING;
        c->cr_write = (uint16_t)ICEPT_CR_PAGING;
        c->exceptions |= (uint32_t)BIT(EXC_PF);
        c->intercept1 |= (uint32_t)(ICEPT1_INVLPG | ICEPT1_TASK_SWITCH);
        if (cfg->invpcid) {
            c->intercept3 |= (uint32_t)ICEPT3_INVPCID; /* CPUID denies it: #UD */
        }
    }
    if (cfg->pause) {
        c->intercept1 |= (uint32_t)ICEPT1_PAUSE;
        if (cfg->pause_filter) {
            c->pause_count = PAUSE_COUNT;
            c->pause_threshold = PAUSE_THRESHOLD;
        }
    }
}

void vmcb_init(struct vmcb *m, const struct vmcb_config *cfg)
{
    memset(m, 0, sizeof(*m));
    init_intercepts(&m->ctl, cfg);
    m->ctl.iopm_pa = cfg->iopm_pa;
    m->ctl.msrpm_pa = cfg->msrpm_pa;
    m->ctl.np_control = cfg->software_mmu ? 0 : (uint64_t)NPCTL_ENABLE;
    m->ctl.asid = 1; /* tag.c gives the real one; 0 is the host's and refused */
    vmcb_clear(m);
}

void vmcb_clear(struct vmcb *m)
{
    memset(&m->save, 0, sizeof(m->save));
    m->save.efer = EFER_SVME; /* VMRUN demands it; the guest is shown 0 */
    m->ctl.int_control = (uint32_t)INTCTL_MASKING;
    m->ctl.int_state = 0;
    m->ctl.event_inj = 0;
    m->ctl.exit_int_info = 0;
    m->ctl.intercept1 &= (uint32_t) ~(ICEPT1_VINTR | ICEPT1_IRET);
    m->ctl.cr_write &= (uint16_t)~ICEPT_CR_TPR;
    m->ctl.clean = 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a vCPU's entry drops of the processor's cached translations ("TLB Control"). Common code decides
 * when (kernel/vm/tag.c); every translation, nested or not, carries the ASID.
 */
#include "kernel/lib/mutant.h"
#include "svm/svm.h"

void svm_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all)
{
    struct vmcb *m = svm_vmcb(v);

    m->ctl.asid = tag;
    m->ctl.tlb_control = MUTANT(svm_no_tlb_control) ? TLB_KEEP
                         : flush_all                ? TLB_FLUSH_ALL
                         : flush                    ? TLB_FLUSH_ASID
                                                    : TLB_KEEP;
    if (!MUTANT(svm_asid_kept_clean)) {
        svm_dirty(m, CLEAN_ASID);
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a vCPU's entry drops of the processor's cached translations ("Operations that Invalidate Cached
 * Mappings"). Common code decides when (kernel/vm/tag.c); here is what that takes, by the types of INVEPT
 * and INVVPID that the processor has.
 */
#include "kernel/lib/mutant.h"
#include "vmx/vmx.h"

/* Everything derived from v's nested tables, under whatever tag. */
static void flush_nested(struct vcpu *v, bool all)
{
    if (MUTANT(vmx_no_invept)) {
        return;
    }
    if (!all && (vmx_caps.ept_vpid & EPTCAP_INVEPT_SINGLE)) {
        vmx_invept(INV_SINGLE, vmx_get(v, VC_EPTP));
    } else {
        vmx_invept(INV_ALL, 0);
    }
}

void vmx_flush_due(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_of(v);

    if (likely(!(s->dirty & VMX_FLUSH_LINEAR))) {
        return;
    }
    s->dirty &= ~VMX_FLUSH_LINEAR;
    if (hv_caps.nr_tags == 0 || MUTANT(vmx_no_invvpid)) {
        return; /* every entry flushes */
    }
    if (vmx_caps.ept_vpid & EPTCAP_INVVPID_SINGLE) {
        vmx_invvpid(INV_SINGLE, (uint32_t)vmx_get(v, VC_VPID));
    } else {
        vmx_invvpid(INV_ALL, 0);
    }
}

/*
 * Translations of nested tables alone carry no tag, only the root. So a vCPU that comes to this
 * processor with a new tag may still meet stale ones: its first entry flushes them too. A vCPU that
 * keeps its tag flushes nothing. With the software MMU all translations are linear: a new tag has none.
 */
void vmx_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all)
{
    if (hv_caps.nr_tags != 0) {
        vmx_set(v, VC_VPID, tag);
    }
    if (hv_caps.nr_tags != 0 && !(vmx_caps.ept_vpid & EPTCAP_INVVPID_ALL)) {
        vmx_of(v)->dirty |= VMX_FLUSH_LINEAR; /* tag by tag, as they are given again */
    } else if (hv_caps.nr_tags != 0 && flush_all && !MUTANT(vmx_no_invvpid_all)) {
        vmx_invvpid(INV_ALL, 0);
    }
    if (!vmx_of(v)->software) {
        flush_nested(v, flush_all);
    } else if (flush) {
        vmx_of(v)->dirty |= VMX_FLUSH_LINEAR;
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The software MMU's share of a vCPU: its page faults, INVLPG, and the root of its shadow tables, which
 * follows CR0, CR3, CR4 and EFER. What is to be done the view decides (mm/shadow/shadow.h); here its
 * answers become events, device accesses, waits and flushes. Callers: the exit table, cr.c, msr.c, the
 * run loop. Owner thread.
 *
 * While VCPU_REQ_MMU is set the root is out of date, and the vCPU does not enter.
 */
#include "arch/x86_64/regs.h"
#include "kernel/emul/emul.h"
#include "kernel/lib/mutant.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/overwrite.h"
#include "kernel/vm/swapping.h"
#include "mm/gwalk.h"
#include "mm/p2m.h"
#include "mm/shadow/shadow.h"

_Static_assert(VM_MAX_VCPUS <= SHADOW_MAX_CPUS, "a view has room for each vCPU");

/* Drop the vCPU's translations before its next entry: no tag is good (tag.c). */
static inline void drop_translations(struct vcpu *v)
{
    if (!MUTANT(softmmu_no_flush)) {
        __atomic_store_n(&v->flushed_epoch, 0, __ATOMIC_RELEASE);
    }
}

/* ---- The root ---- */

static enum hv_err load_root(struct vcpu *v, const struct guest_paging *paging, bool fast)
{
    hpa_t root;
    enum hv_err err = shadow_load(v->vm->view, &v->shadow, paging, fast, &root);

    if (likely(err == HV_OK)) {
        hv->set_root(v, root);
    }
    /* What failed may have traced tables before, and an event may be delivered before it is tried again. */
    drop_translations(v);
    return err;
}

void softmmu_reset(struct vcpu *v)
{
    /* The view may be another one by now: nothing is let go. */
    v->shadow = (struct shadow_cpu){.id = v->id};
    softmmu_stale(v);
}

void softmmu_stale(struct vcpu *v)
{
    __atomic_fetch_or(&v->request, VCPU_REQ_MMU, __ATOMIC_RELAXED);
}

enum hv_err softmmu_cr3(struct vcpu *v, uint64_t value)
{
    hpa_t root;

    if (likely(shadow_switch(v->vm->view, &v->shadow, value, &root))) {
        hv->set_root(v, root);
        drop_translations(v);
    } else {
        struct guest_paging paging = v->shadow.paging;

        paging.cr3 = value;
        enum hv_err err = load_root(v, &paging, vcpu_in_section(v));
        if (err != HV_OK) {
            return err;
        }
    }
    hv->set_reg(v, REG_CR3, value);
    return HV_OK;
}

void softmmu_changed(struct vcpu *v)
{
    struct guest_paging paging;

    vcpu_paging(v, &paging);
    if (!vcpu_in_section(v) || load_root(v, &paging, true) != HV_OK) {
        softmmu_stale(v);
    }
}

bool softmmu_ready(struct vcpu *v)
{
    shadow_tidy(v->vm->view);
    if (!(__atomic_load_n(&v->request, __ATOMIC_RELAXED) & VCPU_REQ_MMU)) {
        return true;
    }
    struct guest_paging paging;
    vcpu_paging(v, &paging);
    if (load_root(v, &paging, false) != HV_OK) {
        memwait_or_stop(v, MEMWAIT_NO_GPA);
        return false;
    }
    __atomic_fetch_and(&v->request, ~VCPU_REQ_MMU, __ATOMIC_RELAXED);
    return true;
}

/* ---- INVLPG ---- */

/* The usual encoding, [reg] in 64-bit code: 0F 01 /7, maybe with REX.B. */
static bool quick_invlpg(struct vcpu *v, struct vm_exit *exit)
{
    uint32_t word;
    unsigned rex = 0;
    const uint8_t *at = vcpu_code(v, sizeof(word));

    if (at == NULL) {
        return false;
    }
    memcpy(&word, at, sizeof(word));
    if ((word & 0xff) == 0x41) {
        rex = 8;
        word >>= 8;
    }
    unsigned modrm = word >> 16 & 0xff, rm = modrm & 7;
    if ((word & 0xffff) != 0x010f || (modrm & 0xf8) != 0x38 || rm == 4 || rm == 5) {
        return false;
    }
    exit->invlpg.gva = GVA(v->gpr[rm | rex]);
    exit->insn_len = rex != 0 ? 4 : 3;
    return true;
}

enum exit_action softmmu_invlpg(struct vcpu *v, struct vm_exit *exit)
{
    bool fast = vcpu_in_section(v);
    enum hv_err err = HV_OK;

    if (!(exit->invlpg.decoded && exit->insn_len != 0) && !(fast && quick_invlpg(v, exit))) {
        err = emul_decode_invlpg(v, fast, &exit->insn_len, &exit->invlpg.gva);
    }
    if (err == HV_OK) {
        err = shadow_invlpg(v->vm->view, &v->shadow, exit->invlpg.gva, fast);
    }
    if (unlikely(err != HV_OK)) {
        return exit_again(v, err);
    }
    drop_translations(v);
    return exit_done(v, exit->insn_len);
}

/* ---- Faults ---- */

static uint32_t access_of(struct vcpu *v, uint32_t error)
{
    uint32_t access = (error & PFEC_W ? GWALK_WRITE : 0) | (error & PFEC_I ? GWALK_EXEC : 0);

    if (error & PFEC_U) {
        return access | GWALK_USER;
    }
    /* An access by the processor itself, from user mode, knows no AC. */
    if ((v->shadow.paging.cr4 & CR4_SMAP) && (hv->get_reg(v, REG_RFLAGS) & RFLAGS_AC) &&
        vcpu_cpl(v) != 3) {
        access |= GWALK_AC;
    }
    return access;
}

/* The guest is due the fault. */
static enum exit_action true_fault(struct vcpu *v, const struct shadow_fault *f)
{
    bool nested = unlikely(v->interrupted.type != EVENT_NONE);

    if (nested && v->interrupted.type != EVENT_EXCEPTION) {
        /* An interrupt whose delivery faults is gone, as on hardware. */
        v->interrupted.type = EVENT_NONE;
    }
    const struct event pf = {
        .type = EVENT_EXCEPTION, .vector = EXC_PF, .has_error = true, .error = f->error};

    hv->set_reg(v, REG_CR2, f->gva.a);
    /* The frequent case: nothing else is to be delivered. */
    if (likely(!nested && v->pending_exception.type == EVENT_NONE && hv->inject(v, &pf) == HV_OK)) {
        return ACT_RESUME;
    }
    vcpu_inject_exception(v, EXC_PF, true, f->error);
    /* Delivery may fault again and again without an instruction in between: let others in. */
    return nested ? ACT_LEAVE : ACT_RESUME;
}

/* Off the fast path, and before the view asks for the page: one that is overwritten as a whole stays away. */
static bool overwrites(struct vcpu *v, const struct exit_page_fault *pf, uint32_t how)
{
    return (pf->error & PFEC_W) && overwrite_may_begin(v, how) && overwrite_linear(v, pf->gva);
}

enum exit_action softmmu_fault(struct vcpu *v, struct vm_exit *exit)
{
    bool fast = vcpu_in_section(v);
    struct shadow_fault f = {.gva = exit->pf.gva,
                             .access = access_of(v, exit->pf.error),
                             .how = fast ? memwait_access_fast() : memwait_access(v)};
    const struct exit_page_fault pf = exit->pf;

    if (!fast && overwrites(v, &pf, f.how)) {
        memwait_served(v, true);
        return ACT_LEAVE;
    }
    enum hv_err err = shadow_fault(v->vm->view, &v->shadow, &f);

    if (likely(err == HV_OK)) {
        return ACT_RESUME;
    }
    if (err == HV_EFAULT) {
        return true_fault(v, &f);
    }
    if (err == HV_ENOENT || err == HV_EPERM) {
        enum exit_action action;

        exit->mem = (struct exit_memory){
            .gpa = f.gpa,
            .access = pf.error & PFEC_W   ? P2M_WRITE
                      : pf.error & PFEC_I ? P2M_EXEC
                                          : P2M_READ,
            .ram = err == HV_EPERM,
        };
        action = fault_device(v, exit, fast);
        if (action == ACT_SLOW) {
            exit->pf = pf; /* the slow path starts over */
        }
        return action;
    }
    return fast ? ACT_SLOW : fault_failed(v, gfn_gpa(f.gfn), err);
}

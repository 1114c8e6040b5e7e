/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shadow view: tables that translate guest-virtual to machine addresses, walked by the processor
 * in place of the guest's own, on processors without nested paging and by choice of the operator.
 * Like every view a cache: of the guest's page tables and of the p2m. Beside the operations of
 * mm/view.h, which take guest frames, it has these, which take the guest's linear addresses and
 * paging registers. docs/shadow.md has the picture.
 *
 * The processor runs the guest with CR0.PG, CR0.WP and CR4.PAE set, whatever the guest believes: on
 * four-level tables while the guest is in long mode, on three-level (PAE) tables otherwise, paging
 * off included.
 *
 * All functions take the view's lock. With `fast` they only try it, allocate nothing that waits, and
 * answer HV_EAGAIN with nothing done where that does not do; then the caller comes again off the
 * fast path. A vCPU's own thread calls; after shadow_load, shadow_invlpg and shadow_fault the
 * processor may hold stale translations of *this* vCPU: each says when the caller has to drop them
 * before the next entry. Other vCPUs are the guest's business, as on hardware; what the p2m takes
 * away is flushed everywhere by its batches.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"
#include "mm/view.h"

struct shadow_page;

#define SHADOW_MAX_CPUS 16u

/* Where a guest table was found, good while the p2m's word for it is unchanged. */
struct shadow_peek {
    uint64_t key; /* gfn + 1 */
    const uint64_t *word;
    uint64_t seq;
    void *page;
};
#define SHADOW_NR_PEEKS 16u

/* A guest processor's place in the view. Its thread owns it. Zero: has none. */
struct shadow_cpu {
    unsigned id;                /* below SHADOW_MAX_CPUS; set by the owner, before the first load */
    struct guest_paging paging; /* as of the last shadow_load */
    struct shadow_page *root[4]; /* the top tables in use, held; PAE: one for each GiB */
    struct shadow_peek peek[SHADOW_NR_PEEKS]; /* by gfn; under the view's lock */
};

struct shadow_config {
    uint32_t owner;
    unsigned max_order; /* of leaves, as far as the p2m has blocks that large */
    unsigned phys_bits; /* the guest's physical address width */
    bool page1gb;       /* the guest was offered pages of 1 GiB */
    bool nx;            /* the processor has execute-disable, and it is on while the guest runs */
    uint64_t nr_gfns;   /* the guest has no RAM from this gfn on */
    uint64_t overhead_frames; /* what tables and their records may take */
    uint64_t seed; /* random: where tables are looked for is nothing that a guest can arrange */
};

/* An empty view, p2m's from now on (p2m_set_view); its destroy is an operation of mm/view.h. HV_ENOMEM. */
enum hv_err shadow_create(struct p2m *p2m, const struct shadow_config *cfg,
                          struct view **out) __must_check;

/*
 * The guest loaded CR3 or changed a paging register (any bit of CR0, CR4, EFER that a walk looks at,
 * CR4.PGE included): `paging` is what holds now, with `pdptr` as the guest's move to CR3 (or CR0, CR4)
 * loaded them. *root is what the processor's CR3 gets: the address of a four-level table, or of four
 * PAE entries below 4 GiB. What the guest changed in its tables until now counts from here on. The
 * caller drops all of this vCPU's translations before it enters, also after an error: tables may be traced
 * by then. HV_EAGAIN with `fast` only, HV_ENOMEM.
 */
enum hv_err shadow_load(struct view *v, struct shadow_cpu *cpu, const struct guest_paging *paging,
                        bool fast, hpa_t *root) __must_check;
/* The frequent case of it: nothing but CR3 changes, and a four-level table is loaded already. False: not
 * now, or not a table that is known; shadow_load it then. */
bool shadow_switch(struct view *v, struct shadow_cpu *cpu, uint64_t cr3, hpa_t *root);
/* Let go of the tables in use, before the view goes. Not on the fast path. */
void shadow_unload(struct view *v, struct shadow_cpu *cpu);

/* INVLPG of a canonical gva. The caller drops this vCPU's translations of it; all of them, if the vCPU is
 * the only one (env_flush_is_local): upper tables may be traced from now on. HV_EAGAIN with `fast` only. */
enum hv_err shadow_invlpg(struct view *v, struct shadow_cpu *cpu, gva_t gva,
                          bool fast) __must_check;

struct shadow_fault {
    gva_t gva;       /* in: CR2 as the processor would set it */
    uint32_t access; /* in: GWALK_WRITE, GWALK_EXEC, GWALK_USER, GWALK_AC (mm/gwalk.h) */
    uint32_t
        how; /* in: P2M_FAST, or P2M_VCPU; P2M_LINE (mm/p2m.h): for the pages that are wanted */
    uint32_t error; /* HV_EFAULT: the guest's error code */
    gpa_t gpa;      /* HV_ENOENT, HV_EPERM: what gva leads to */
    gfn_t gfn;      /* HV_EAGAIN, HV_EIO, HV_ENOMEM off the fast path: the page that is wanted */
};

/*
 * A page fault of the guest.
 * HV_OK: a hidden fault, mapped: enter again (an event whose delivery was cut short is repeated).
 * HV_EFAULT: a true fault: the guest gets #PF with f->error and CR2 = f->gva.
 * HV_ENOENT: nobody's RAM at f->gpa: a device access, emulate it (emul_mmio).
 * HV_EPERM: RAM at f->gpa that the guest may access so, but that cannot be mapped so (supervisor writes to
 * user pages with CR0.WP clear and CR4.SMAP set): emulate the instruction.
 * HV_EAGAIN: on the fast path (P2M_FAST): come again off it. Without: a page is on its way from the store: wait for
 * f->gfn (swapping_wait) and enter again. HV_ENOMEM, HV_EIO: as p2m_populate, for f->gfn.
 */
enum hv_err shadow_fault(struct view *v, struct shadow_cpu *cpu,
                         struct shadow_fault *f) __must_check;

/* Work that was put off until no vCPU waits for it: tables that are to be traced or to go. Off the fast
 * path, no lock held; flushes. Cheap when there is none. */
void shadow_tidy(struct view *v);
/* Is there any? One load. */
bool shadow_is_untidy(const struct view *v);

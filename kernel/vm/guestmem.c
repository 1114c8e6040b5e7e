/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory by address. Two ways to a page: p2m_peek on the fast path, where nothing can take the
 * page away before the vCPU leaves it; p2m_get and p2m_put, a pin, everywhere else. What a vCPU does by
 * itself queues up for frames (memwait.h): else a guest would get them by instructions that are emulated.
 * The guest's page tables are walked by mm/gwalk.c over one or the other.
 */
#include "kernel/vm/guestmem.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/salt.h"
#include "kernel/vm/swapping.h"
#include "kernel/vm/vm.h"
#include "mm/env.h"
#include "mm/gwalk.h"
#include "mm/p2m.h"
#include "mm/share/born.h"

#define INSN_BYTES 15u
#define RELAX_PAGES 16u /* copied between two looks at who else wants the processor */
#define WALK_RETRIES 16 /* how often other vCPUs may change an entry under our walk */

/* --- by guest-physical address --- */

enum op { OP_READ, OP_WRITE, OP_ZERO };

static void page_op(enum op op, char *page, void *dst, const void *src, size_t n)
{
    switch (op) {
    case OP_READ:
        memcpy(dst, page, n);
        break;
    case OP_WRITE:
        memcpy(page, src, n);
        break;
    case OP_ZERO:
        memset(page, 0, n);
        break;
    }
}

/* p2m_get that waits for a page that is on its way. One that cannot be read back pauses the VM. v: whose access
 * it is, so that the wait counts as its own; NULL: a device's or the loader's. */
static enum hv_err get_page(struct vm *vm, struct vcpu *v, gfn_t gfn, uint32_t access, void **page)
{
    for (;;) {
        enum hv_err err = p2m_get(vm->p2m, gfn, access, page);

        if (err == HV_EIO) {
            swapping_failed(vm, gfn);
            return HV_EAGAIN;
        }
        if (err != HV_EAGAIN) {
            return err;
        }
        swapping_wait(vm, v, gfn);
    }
}

/* Images are long, and a guest that resets itself has them loaded as often as it likes. */
static void relax_after(gfn_t gfn)
{
    if (gfn.n % RELAX_PAGES == 0) {
        env_relax();
    }
}

/* v: as for get_page. */
static enum hv_err for_pages(struct vm *vm, struct vcpu *v, gpa_t gpa, size_t len, enum op op,
                             void *dst, const void *src)
{
    uint32_t access = (v != NULL ? memwait_access(v) : 0) | (op == OP_READ ? P2M_READ : P2M_WRITE);
    size_t done = 0;

    if (gpa.a + len < gpa.a) {
        return HV_ENOENT;
    }
    while (done < len) {
        gpa_t at = GPA(gpa.a + done);
        size_t offset = at.a & ~PAGE_MASK, n = MIN(len - done, PAGE_SIZE - offset);
        void *page;
        enum hv_err err = get_page(vm, v, gpa_gfn(at), access, &page);

        if (err) {
            return err;
        }
        page_op(op, (char *)page + offset, (char *)dst + done, (const char *)src + done, n);
        p2m_put(vm->p2m, gpa_gfn(at), page);
        done += n;
        relax_after(gpa_gfn(at));
    }
    return HV_OK;
}

enum hv_err guestmem_read(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
    return for_pages(vm, NULL, gpa, len, OP_READ, dst, dst);
}

enum hv_err guestmem_read_by(struct vcpu *v, gpa_t gpa, void *dst, size_t len)
{
    return for_pages(v->vm, v, gpa, len, OP_READ, dst, dst);
}

enum hv_err guestmem_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
    return for_pages(vm, NULL, gpa, len, OP_WRITE, NULL, src);
}

enum hv_err guestmem_pin(struct vm *vm, gpa_t gpa, uint32_t access, void **page)
{
    return p2m_get(vm->p2m, gpa_gfn(gpa), access, page);
}

enum hv_err guestmem_pin_by(struct vcpu *v, gpa_t gpa, bool write, void **page)
{
    return guestmem_pin(v->vm, gpa, memwait_access(v) | (write ? P2M_WRITE : P2M_READ), page);
}

void guestmem_unpin(struct vm *vm, gpa_t gpa, void *page)
{
    p2m_put(vm->p2m, gpa_gfn(gpa), page);
}

bool guestmem_shares(struct vm *vm)
{
    return salt_is_common(salt_of(vm));
}

enum hv_err guestmem_share(struct vm *vm, gpa_t gpa, const void *page)
{
    relax_after(gpa_gfn(gpa));
    return born_page(vm->p2m, gpa_gfn(gpa), page);
}

bool guestmem_is_ram(struct vm *vm, gpa_t gpa, uint64_t len)
{
    gfn_t gfn = gpa_gfn(gpa);
    gfn_t end = gpa_gfn(GPA(gpa.a + len + PAGE_SIZE - 1));

    if (gpa.a + len < gpa.a || gpa.a + len + PAGE_SIZE - 1 < gpa.a) {
        return false;
    }
    while (gfn.n < end.n) {
        struct p2m_entry e;

        p2m_query(vm->p2m, gfn, &e);
        if (e.state == P2M_HOLE) {
            return false;
        }
        gfn.n = ALIGN_DOWN(gfn.n, BIT(e.order)) + BIT(e.order);
    }
    return true;
}

/* --- walking the guest's tables --- */

static void *peek_fast(void *ctx, gfn_t gfn)
{
    /* Such a walk writes no accessed bits. */
    return (void *)(uintptr_t)p2m_peek(ctx, gfn);
}

/* Tables pinned by a walk off the fast path: for reading, and those whose accessed bits it sets for
 * writing as well. */
struct pinned_tables {
    struct vcpu *v;
    uint32_t how; /* flags for p2m_get beside the access */
    gfn_t gfn[8];
    void *page[8];
    unsigned nr;
    enum hv_err err; /* why the last one could not be had */
};

static void *pin_table(struct pinned_tables *t, gfn_t gfn, uint32_t access)
{
    void *page = NULL;

    t->err = t->nr < ARRAY_SIZE(t->gfn) ? get_page(t->v->vm, t->v, gfn, access | t->how, &page)
                                        : HV_ERANGE;
    if (t->err) {
        return NULL;
    }
    t->gfn[t->nr] = gfn;
    t->page[t->nr++] = page;
    return page;
}

static void *peek_pinned(void *ctx, gfn_t gfn)
{
    return pin_table(ctx, gfn, P2M_READ);
}

static void *own_pinned(void *ctx, void *slot)
{
    struct pinned_tables *t = ctx;
    uintptr_t offset = (uintptr_t)slot & ~PAGE_MASK;

    for (unsigned i = 0; i < t->nr; i++) {
        if ((uintptr_t)t->page[i] == (uintptr_t)slot - offset) {
            char *page = pin_table(t, t->gfn[i], P2M_WRITE | P2M_WALK);

            /* Two tables of this walk may share a frame: once they do not, the walk finds the right one. */
            return page != NULL && page == t->page[i] ? page + offset : NULL;
        }
    }
    return NULL;
}

/* One walk with pins. HV_EAGAIN with *retry: an entry changed; walk again. */
static enum hv_err walk_pinned(struct vcpu *v, struct gwalk_request *req, struct gwalk_result *res,
                               bool *retry)
{
    struct pinned_tables t = {.v = v, .how = memwait_access(v)};

    req->peek = peek_pinned;
    req->own = own_pinned;
    req->ctx = &t;
    enum hv_err err = gwalk(req, res);
    while (t.nr > 0) {
        t.nr--;
        p2m_put(v->vm->p2m, t.gfn[t.nr], t.page[t.nr]);
    }
    *retry = err == HV_EAGAIN && t.err == HV_OK;
    if (err == HV_EAGAIN && t.err == HV_ENOENT) {
        /* A table where no RAM is: it reads as all ones, whose reserved bits fault. */
        res->error = (uint32_t)(PFEC_P | PFEC_RSVD);
        return HV_EFAULT;
    }
    return err == HV_EAGAIN && t.err ? t.err : err;
}

static enum hv_err walk_slow(struct vcpu *v, struct gwalk_request *req, struct gwalk_result *res)
{
    bool retry = true;
    enum hv_err err = HV_EAGAIN;

    for (unsigned i = 0; retry && i < WALK_RETRIES; i++) {
        err = walk_pinned(v, req, res, &retry);
    }
    return err;
}

static void inject_page_fault(struct vcpu *v, uint64_t gva, uint32_t error)
{
    hv->set_reg(v, REG_CR2, gva);
    vcpu_inject_exception(v, EXC_PF, true, error);
}

static uint32_t walk_access(struct vcpu *v, uint32_t access)
{
    uint32_t flags = (access & GVA_WRITE ? GWALK_WRITE : 0) | (access & GVA_EXEC ? GWALK_EXEC : 0);

    if (access & GVA_SUPERVISOR) {
        return flags;
    }
    if (vcpu_cpl(v) == 3) {
        return flags | GWALK_USER;
    }
    return flags | (hv->get_reg(v, REG_RFLAGS) & RFLAGS_AC ? GWALK_AC : 0);
}

/* Have the page in memory before anything happens that cannot be done again. */
static enum hv_err bring(struct vcpu *v, gpa_t gpa, uint32_t access)
{
    uint32_t how = memwait_access(v) | (access & GVA_WRITE ? P2M_WRITE : P2M_READ);
    void *page;
    enum hv_err err;

    if (!guestmem_is_ram(v->vm, gpa, 1)) {
        return HV_OK;
    }
    err = get_page(v->vm, v, gpa_gfn(gpa), how, &page);
    if (err == HV_OK) {
        p2m_put(v->vm->p2m, gpa_gfn(gpa), page);
    }
    return err;
}

enum hv_err guestmem_translate(struct vcpu *v, gva_t gva, uint32_t access, bool fast, gpa_t *out)
{
    struct guest_paging pg;
    struct gwalk_result res;
    enum hv_err err;

    vcpu_paging(v, &pg);
    if (gwalk_mode(&pg) == GWALK_LONG4 && !is_canonical(gva.a)) {
        if (!fast) {
            vcpu_inject_gp(v);
        }
        return HV_EFAULT;
    }
    struct gwalk_request req = {.paging = &pg,
                                .gva = gva,
                                .access = walk_access(v, access),
                                .phys_bits = cpu_features.phys_bits,
                                .page1gb = v->vm->page1gb,
                                .loaded_pdptr = v->vm->software_mmu,
                                .peek = peek_fast,
                                .ctx = v->vm->p2m};
    if (fast) {
        err = gwalk(&req, &res);
    } else {
        req.access |= GWALK_SET_AD;
        err = walk_slow(v, &req, &res);
        if (err == HV_EFAULT) {
            inject_page_fault(v, gva.a, res.error);
        } else if (err == HV_OK && !(access & GVA_AWAY)) {
            err = bring(v, res.gpa, access);
        }
    }
    if (!err) {
        *out = res.gpa;
    }
    return err;
}

/* --- instruction bytes --- */

static uint64_t linear_rip(struct vcpu *v, const struct guest_paging *pg)
{
    struct segment cs;

    hv->get_seg(v, SEG_CS, &cs);
    bool is64 = (pg->efer & EFER_LMA) && (cs.attr & BIT(9));
    return is64 ? v->rip : (uint32_t)(cs.base + v->rip);
}

/* `len` bytes from `gva` on, all in one page. HV_EFAULT: *error is the page fault's code. */
static inline __attribute__((always_inline)) enum hv_err fetch_page(struct vcpu *v,
                                                                    const struct guest_paging *pg,
                                                                    bool fast, uint64_t gva,
                                                                    uint8_t *dst, unsigned len,
                                                                    uint32_t *error)
{
    struct gwalk_result res;
    struct gwalk_request req = {.paging = pg,
                                .gva = GVA(gva),
                                .access = GWALK_AC,
                                .phys_bits = cpu_features.phys_bits,
                                .page1gb = v->vm->page1gb,
                                .loaded_pdptr = v->vm->software_mmu,
                                .peek = peek_fast,
                                .ctx = v->vm->p2m};
    enum hv_err err = likely(fast) ? gwalk(&req, &res) : walk_slow(v, &req, &res);

    if (unlikely(err)) {
        *error = res.error;
        return err;
    }
    if (!fast) {
        return guestmem_read_by(v, res.gpa, dst, len);
    }
    const char *page = p2m_peek(v->vm->p2m, gpa_gfn(res.gpa));
    if (unlikely(!page)) {
        return HV_EAGAIN;
    }
    memcpy(dst, page + (res.gpa.a & ~PAGE_MASK), len);
    return HV_OK;
}

enum hv_err guestmem_fetch(struct vcpu *v, bool fast, uint8_t bytes[15], unsigned *got)
{
    struct guest_paging pg;
    uint32_t error = 0;

    vcpu_paging(v, &pg);
    uint64_t gva = linear_rip(v, &pg);
    unsigned here = (unsigned)(PAGE_SIZE - (gva & ~PAGE_MASK));
    if (likely(fast && here >= INSN_BYTES)) {
        *got = INSN_BYTES;
        return fetch_page(v, &pg, true, gva, bytes, INSN_BYTES, &error);
    }
    here = MIN(here, INSN_BYTES);
    memset(bytes, 0, INSN_BYTES);
    *got = here;
    enum hv_err err = fetch_page(v, &pg, fast, gva, bytes, here, &error);
    if (err == HV_EFAULT && !fast) {
        inject_page_fault(v, gva, error | (uint32_t)(pg.efer & EFER_NXE ? PFEC_I : 0));
    }
    if (err || here == INSN_BYTES) {
        return err;
    }
    /* The instruction may end where the page does: what follows need not be there. */
    err = fetch_page(v, &pg, fast, gva + here, bytes + here, INSN_BYTES - here, &error);
    if (!err) {
        *got = INSN_BYTES;
    }
    return err == HV_EFAULT || err == HV_ENOENT ? HV_OK : err;
}

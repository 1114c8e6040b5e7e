/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * REP STOS and REP MOVS over a whole page that is away; see overwrite.h. As many iterations as fill the
 * page are carried out here, into a fresh frame that takes the place of what was there; the registers
 * tell the guest how far it has come, as after any interrupt between two iterations ("REP/REPE/REPZ/
 * REPNE/REPNZ"). So nobody ever sees a half of the page. No view, nested or shadow, has anything of a page
 * that is away, and none watches it as a guest's table. Anything out of the ordinary goes the long way:
 * other modes than 64-bit, prefixes, decrements, breakpoints, overlapping moves.
 */
#include "kernel/vm/overwrite.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"
#include "kernel/vm/backend.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/reclaim/swap.h"
#include "mm/view.h"

#define PREFIX_REP 0xf3u
#define REX_W 0x48u
#define DR7_ENABLES 0xffu

struct overwrite {
    struct vcpu *v;
    bool moves; /* MOVS, else STOS */
    unsigned size;
    gpa_t to;
    enum hv_err err; /* of reading the source */
};

/* F3 [REX] AA, AB, A4 or A5, where REX says no more than the size. */
static bool decode(const uint8_t *b, struct overwrite *o)
{
    bool wide = b[1] == REX_W;
    uint8_t op = wide ? b[2] : b[1];

    o->moves = (op & 0xfe) == 0xa4;
    o->size = !(op & 1) ? 1 : wide ? 8 : 4;
    return b[0] == PREFIX_REP && (o->moves || (op & 0xfe) == 0xaa);
}

static bool is_plain(struct vcpu *v)
{
    struct guest_paging paging;
    struct segment cs;

    vcpu_paging(v, &paging);
    hv->get_seg(v, SEG_CS, &cs);
    return (paging.efer & EFER_LMA) && (cs.attr & BIT(9)) &&
           !(hv->get_reg(v, REG_RFLAGS) & (RFLAGS_DF | RFLAGS_TF)) &&
           !(hv->get_reg(v, REG_DR7) & DR7_ENABLES);
}

/* The page's part of the source, which may lie in two pages. */
static enum hv_err read_source(struct overwrite *o, char *page)
{
    uint64_t from = o->v->gpr[GPR_RSI];
    size_t done = 0;

    while (done < PAGE_SIZE) {
        size_t n = MIN(PAGE_SIZE - done, PAGE_SIZE - ((from + done) & ~PAGE_MASK));
        gpa_t at;
        enum hv_err err = guestmem_translate(o->v, GVA(from + done), GVA_READ, false, &at);

        if (err == HV_OK && gpa_gfn(at).n == gpa_gfn(o->to).n) {
            err = HV_EINVAL; /* the page by another address */
        }
        if (err == HV_OK) {
            err = guestmem_read_by(o->v, at, page + done, n);
        }
        if (err != HV_OK) {
            return err;
        }
        done += n;
    }
    return HV_OK;
}

static void fill_page(struct overwrite *o, char *page)
{
    for (unsigned i = 0; i < PAGE_SIZE; i += o->size) {
        memcpy(page + i, &o->v->gpr[GPR_RAX], o->size);
    }
}

static enum hv_err fill(void *arg, void *page)
{
    struct overwrite *o = arg;

    if (o->moves) {
        return read_source(o, page);
    }
    fill_page(o, page);
    return HV_OK;
}

static void advance(const struct overwrite *o)
{
    uint64_t *gpr = o->v->gpr;

    gpr[GPR_RDI] += PAGE_SIZE;
    gpr[GPR_RSI] += o->moves ? PAGE_SIZE : 0;
    gpr[GPR_RCX] -= PAGE_SIZE / o->size;
}

/* The source's last part faults: up to there the guest has to come by single iterations. */
static bool source_ends(const struct overwrite *o)
{
    gpa_t at;

    return guestmem_translate(o->v, GVA(o->v->gpr[GPR_RSI] + PAGE_SIZE - 1), GVA_READ, true, &at) ==
           HV_EFAULT;
}

/* The instruction at RIP: does it fill all of the page at RDI? o->to is where that is. HV_EINVAL: it does not;
 * HV_EFAULT: the guest has a fault; or as of guestmem_fetch. */
static enum hv_err look(struct overwrite *o)
{
    struct vcpu *v = o->v;
    const uint64_t *gpr = v->gpr;
    uint8_t bytes[15];
    unsigned got;

    if ((gpr[GPR_RDI] & ~PAGE_MASK) != 0 || !is_plain(v)) {
        return HV_EINVAL;
    }
    enum hv_err err = guestmem_fetch(v, false, bytes, &got);
    if (err != HV_OK) {
        return err;
    }
    if (got < 3 || !decode(bytes, o) || gpr[GPR_RCX] < PAGE_SIZE / o->size ||
        (o->moves && (gpr[GPR_RSI] - gpr[GPR_RDI] + PAGE_SIZE < 2 * PAGE_SIZE || source_ends(o)))) {
        return HV_EINVAL;
    }
    return guestmem_translate(v, GVA(gpr[GPR_RDI]), GVA_WRITE | GVA_AWAY, false, &o->to);
}

/* The guest runs on if this page is done, or has its fault. */
static bool carry_out(struct overwrite *o)
{
    enum hv_err err = swap_overwrite(o->v->vm->p2m, gpa_gfn(o->to), fill, o);

    if (err == HV_OK) {
        advance(o);
    }
    return err == HV_OK || err == HV_EFAULT;
}

bool overwrite_page(struct vcpu *v, gpa_t gpa)
{
    struct overwrite o = {.v = v};

    if ((gpa.a & ~PAGE_MASK) != 0 || !swap_is_away(v->vm->p2m, gpa_gfn(gpa))) {
        return false;
    }
    enum hv_err err = look(&o);
    if (err != HV_OK) {
        return err == HV_EFAULT;
    }
    return o.to.a == gpa.a && carry_out(&o);
}

bool overwrite_linear(struct vcpu *v, gva_t gva)
{
    struct overwrite o = {.v = v};

    if (gva.a != v->gpr[GPR_RDI]) {
        return false;
    }
    enum hv_err err = look(&o);
    return err == HV_OK ? carry_out(&o) : err == HV_EFAULT;
}

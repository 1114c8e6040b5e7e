/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stepping over the instruction that exited. Where the processor does not tell its length, the bytes
 * at RIP do: the exit says what the instruction was, so only the encoding's length is open. Nearly
 * all are written without prefixes; those are recognised by one comparison, the rest is decoded.
 * Callers: exit handlers; the emulator uses vcpu_advance.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/emul/emul.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "mm/gwalk.h"
#include "mm/p2m.h"

#define INSN_MAX 15u

struct encoding {
    uint32_t bytes, mask; /* little-endian, as fetched */
    uint8_t len;
};

#define TWO(a, b)                 \
    {                             \
        (a) | (b) << 8, 0xffff, 2 \
    }
#define THREE(a, b, c)                          \
    {                                           \
        (a) | (b) << 8 | (c) << 16, 0xffffff, 3 \
    }

/* The usual encodings of each kind; {0} ends a row early. */
static const struct encoding usual[NR_EXIT_KINDS][2] = {
    [EXIT_CPUID] = {TWO(0x0f, 0xa2)},
    [EXIT_MSR] = {TWO(0x0f, 0x30), TWO(0x0f, 0x32)},
    [EXIT_HLT] = {{0xf4, 0xff, 1}},
    [EXIT_PAUSE] = {TWO(0xf3, 0x90)},
    [EXIT_RDTSC] = {TWO(0x0f, 0x31), THREE(0x0f, 0x01, 0xf9)},
    [EXIT_RDPMC] = {TWO(0x0f, 0x33)},
    [EXIT_XSETBV] = {THREE(0x0f, 0x01, 0xd1)},
    [EXIT_WBINVD] = {TWO(0x0f, 0x09), TWO(0x0f, 0x08)},
};

static unsigned usual_length(enum exit_kind kind, uint32_t word)
{
    for (unsigned i = 0; i < ARRAY_SIZE(usual[kind]); i++) {
        const struct encoding *e = &usual[kind][i];

        if ((word & e->mask) == e->bytes) {
            return e->len; /* 0 in an unused place */
        }
    }
    return 0;
}

/* ---- The walk to the code, remembered ---- */

/*
 * A guest that exits often does so from few pages. A walk is kept with the entries it read, and holds
 * as long as these are in place and nothing was flushed: frames behind the pointers are freed only
 * after a flush, which every section notices before its next entry.
 */
static inline bool walk_holds(const struct vcpu *v, const struct fetch_walk *w,
                              const struct code_state *c)
{
    if (w->page != c->rip >> PAGE_SHIFT || w->cr3 != c->cr3 || w->epoch != v->flushed_epoch) {
        return false;
    }
    for (unsigned level = w->leaf; level < ARRAY_SIZE(w->slot); level++) {
        if (__atomic_load_n(w->slot[level], __ATOMIC_RELAXED) != w->entry[level]) {
            return false;
        }
    }
    return true;
}

static void *peek(void *ctx, gfn_t gfn)
{
    return (void *)(uintptr_t)p2m_peek(ctx, gfn); /* the walk only reads */
}

/* Rights do not matter: the processor has fetched from there. */
static __attribute__((noinline)) bool walk_again(struct vcpu *v, struct fetch_walk *w,
                                                 const struct code_state *c)
{
    const struct guest_paging paging = {.cr0 = CR0_PE | CR0_PG | CR0_WP,
                                        .cr3 = c->cr3,
                                        .cr4 = CR4_PAE,
                                        .efer = EFER_LME | EFER_LMA | EFER_NXE};
    const struct gwalk_request req = {.paging = &paging,
                                      .gva = GVA(c->rip & PAGE_MASK),
                                      .phys_bits = cpu_features.phys_bits,
                                      .page1gb = v->vm->page1gb,
                                      .peek = peek,
                                      .ctx = v->vm->p2m};
    struct gwalk_result res;

    w->epoch = 0;
    if (gwalk(&req, &res) != HV_OK) {
        return false;
    }
    w->host = p2m_peek(v->vm->p2m, gpa_gfn(res.gpa));
    if (w->host == NULL) {
        return false;
    }
    w->leaf = res.leaf_level;
    for (unsigned level = res.leaf_level; level < ARRAY_SIZE(res.slot); level++) {
        w->slot[level] = res.slot[level];
        w->entry[level] = res.entry[level];
    }
    w->page = c->rip >> PAGE_SHIFT;
    w->cr3 = c->cr3;
    w->epoch = v->flushed_epoch;
    return true;
}

/* On the fast path, for 64-bit code whose page is reachable and holds all of it. */
static inline const uint8_t *code(struct vcpu *v, unsigned len)
{
    struct code_state c;

    if (unlikely(!hv->code_state(v, &c) || (c.rip & ~PAGE_MASK) > PAGE_SIZE - len)) {
        return NULL;
    }
    struct fetch_walk *w = &v->fetch[(c.rip >> PAGE_SHIFT ^ c.cr3 >> PAGE_SHIFT) % NR_FETCH_WALKS];
    if (unlikely(!walk_holds(v, w, &c)) && !walk_again(v, w, &c)) {
        return NULL;
    }
    return w->host + (c.rip & ~PAGE_MASK);
}

const uint8_t *vcpu_code(struct vcpu *v, unsigned len)
{
    return code(v, len);
}

/* 0 if it is not one of the usual encodings or not reachable. */
static inline unsigned length_fast(struct vcpu *v, enum exit_kind kind)
{
    uint32_t word;
    const uint8_t *at = code(v, sizeof(word));

    if (unlikely(at == NULL)) {
        return 0;
    }
    memcpy(&word, at, sizeof(word));
    return usual_length(kind, word);
}

static __attribute__((noinline)) enum hv_err length_by_decoding(struct vcpu *v,
                                                                struct vm_exit *exit)
{
    uint8_t bytes[INSN_MAX];
    unsigned got;
    enum hv_err err = guestmem_fetch(v, vcpu_in_section(v), bytes, &got);

    if (err != HV_OK) {
        return err;
    }
    unsigned len = emul_length(bytes, got, emul_mode_of(v));
    if (len == 0) {
        /* Another vCPU has put something else there. */
        vcpu_inject_ud(v);
        return HV_EFAULT;
    }
    exit->insn_len = (uint8_t)len;
    return HV_OK;
}

enum hv_err vcpu_length(struct vcpu *v, struct vm_exit *exit)
{
    if (exit->insn_len != 0) {
        return HV_OK;
    }
    if (likely(vcpu_in_section(v))) {
        exit->insn_len = (uint8_t)length_fast(v, exit->kind);
        if (likely(exit->insn_len != 0)) {
            return HV_OK;
        }
    }
    return length_by_decoding(v, exit);
}

enum exit_action insn_single_step(struct vcpu *v)
{
    hv->set_reg(v, REG_DR6, hv->get_reg(v, REG_DR6) | DR6_BS);
    vcpu_inject_exception(v, EXC_DB, false, 0);
    return ACT_RESUME;
}

void vcpu_advance(struct vcpu *v, unsigned len)
{
    if (unlikely(hv->advance(v, len))) {
        (void)insn_single_step(v);
    }
}

enum hv_err vcpu_skip(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_length(v, exit);

    if (likely(err == HV_OK)) {
        (void)exit_done(v, exit->insn_len);
    }
    return err;
}

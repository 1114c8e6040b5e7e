/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stepping over the instruction that exited. Where the processor does not tell its length, the bytes
 * at RIP do: the exit says what the instruction was, so only the encoding's length is open. Nearly
 * all are written without prefixes; those are recognised by one comparison, the rest is decoded.
 * Callers: exit handlers; the emulator uses vcpu_advance.
 */
#include "arch/x86_64/regs.h"
#include "kernel/emul/emul.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"

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

static unsigned usual_length(enum exit_kind kind, const uint8_t bytes[INSN_MAX], unsigned got)
{
    uint32_t word;

    memcpy(&word, bytes, sizeof(word));
    for (unsigned i = 0; i < ARRAY_SIZE(usual[kind]); i++) {
        const struct encoding *e = &usual[kind][i];

        if ((word & e->mask) == e->bytes && e->len <= got) {
            return e->len;
        }
    }
    return 0;
}

enum hv_err vcpu_length(struct vcpu *v, struct vm_exit *exit)
{
    uint8_t bytes[INSN_MAX + 1];
    unsigned got;

    if (exit->insn_len != 0) {
        return HV_OK;
    }
    enum hv_err err = guestmem_fetch(v, v->in_guest != 0, bytes, &got);
    if (unlikely(err != HV_OK)) {
        return err;
    }
    unsigned len = usual_length(exit->kind, bytes, got);
    if (unlikely(len == 0)) {
        len = emul_length(bytes, got, emul_mode_of(v));
    }
    if (unlikely(len == 0)) {
        /* Another vCPU has put something else there. */
        vcpu_inject_ud(v);
        return HV_EFAULT;
    }
    exit->insn_len = (uint8_t)len;
    return HV_OK;
}

void vcpu_advance(struct vcpu *v, unsigned len)
{
    if (unlikely(hv->advance(v, len))) {
        hv->set_reg(v, REG_DR6, hv->get_reg(v, REG_DR6) | BIT(14)); /* BS: single step */
        vcpu_inject_exception(v, EXC_DB, false, 0);
    }
}

enum hv_err vcpu_skip(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_length(v, exit);

    if (likely(err == HV_OK)) {
        vcpu_advance(v, exit->insn_len);
    }
    return err;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See cr_rules.h. Each function is true if the value may be written.
 */
#include "kernel/vm/cr_rules.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"

#define CR3_PCID_BITS 0xfffULL
#define CR3_NO_FLUSH BIT(63)

static bool long_mode(const struct cr_state *s)
{
    return (s->efer & EFER_LME) && (s->cr0 & CR0_PG);
}

bool cr_rules_cr0(const struct cr_state *s, uint64_t value)
{
    bool on = (value & CR0_PG) && !(s->cr0 & CR0_PG);
    bool off = !(value & CR0_PG) && (s->cr0 & CR0_PG);

    if (value >> 32 != 0) {
        return false;
    }
    if ((value & CR0_PG) && !(value & CR0_PE)) {
        return false;
    }
    if ((value & CR0_NW) && !(value & CR0_CD)) {
        return false;
    }
    if (on && (s->efer & EFER_LME) && (!(s->cr4 & CR4_PAE) || s->code64 || s->task16)) {
        return false;
    }
    return !(off && ((s->cr4 & CR4_PCIDE) || (long_mode(s) && s->code64)));
}

bool cr_rules_cr3(const struct cr_state *s, uint64_t value)
{
    if (s->cr4 & CR4_PCIDE) {
        value &= ~CR3_NO_FLUSH;
    }
    return !long_mode(s) || value >> s->phys_bits == 0;
}

bool cr_rules_cr4(const struct cr_state *s, uint64_t value)
{
    bool pcid_on = (value & CR4_PCIDE) && !(s->cr4 & CR4_PCIDE);

    if (value & ~s->cr4_offered) {
        return false;
    }
    if (long_mode(s) && !(value & CR4_PAE)) {
        return false;
    }
    return !pcid_on || (long_mode(s) && !(s->cr3 & CR3_PCID_BITS));
}

bool cr_rules_write(const struct cr_state *s, unsigned cr, uint64_t value)
{
    switch (cr) {
    case 0:
        return cr_rules_cr0(s, value);
    case 3:
        return cr_rules_cr3(s, value);
    default:
        return cr_rules_cr4(s, value);
    }
}

uint64_t cr_rules_kept(const struct cr_state *s, unsigned cr, uint64_t value)
{
    const uint64_t cr0_known =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;

    if (cr == 0) {
        return (value & cr0_known) | CR0_ET;
    }
    return cr == 3 && (s->cr4 & CR4_PCIDE) ? value & ~CR3_NO_FLUSH : value;
}

uint64_t cr_rules_pdpt(uint64_t cr3)
{
    return cr3 & 0xffffffe0;
}

bool cr_rules_pdpte(const struct cr_state *s, uint64_t entry)
{
    const uint64_t present = 1, reserved = 0x1e6;

    return !(entry & present) || (!(entry & reserved) && entry >> s->phys_bits == 0);
}

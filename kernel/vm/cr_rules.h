/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When a MOV to a control register is a general-protection fault ("Mode Switching", "Control
 * Registers"). Pure.
 */
#pragma once

#include "kernel/lib/types.h"

/* The guest's state before the write. */
struct cr_state {
    uint64_t cr0, cr3, cr4, efer;
    bool code64;          /* CS.L */
    bool task16;          /* TR has a 16-bit TSS, which "Activating IA-32e Mode" forbids */
    uint64_t cr4_offered; /* bits that the guest's processor has */
    unsigned phys_bits;
};

/* May the guest write this value? */
bool cr_rules_cr0(const struct cr_state *s, uint64_t value);
bool cr_rules_cr3(const struct cr_state *s, uint64_t value);
bool cr_rules_cr4(const struct cr_state *s, uint64_t value);
/* One of these three, by number. */
bool cr_rules_write(const struct cr_state *s, unsigned cr, uint64_t value);
/* What the register holds after an allowed write: unknown bits of CR0 and the no-flush bit of CR3 do
 * not stay. */
uint64_t cr_rules_kept(const struct cr_state *s, unsigned cr, uint64_t value);

/* "PAE Paging": where CR3 says the four entries are, and whether one may be loaded. */
uint64_t cr_rules_pdpt(uint64_t cr3);
bool cr_rules_pdpte(const struct cr_state *s, uint64_t entry);

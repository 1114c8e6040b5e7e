/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each VM is owed (Waldspurger, OSDI 2002, "Share-Based Allocation", "Reclaiming Idle Memory").
 *
 * Every VM claims memory in proportion to its shares: x = mu * S. The part of the claim that it uses,
 * up to its A active pages, counts in full; what lies idle above is taxed:
 *
 *     P = x                    for x <= A
 *     P = A + (1 - tau)(x - A) for x >  A        and then  min <= P <= max
 *
 * With lambda = (1 - tau) mu the second line is the paper's equilibrium P = lambda S + tau A; in the
 * first the VM is wholly active, and P is proportional to its shares alone. mu is chosen so that all P
 * add up to what there is. With a progressive tax (Mem.IdleTaxType 1) idle pages up to as many as are
 * active are taxed at half the rate, those beyond at the full one.
 *
 * Integers only: results add up exactly, and each is within two pages of the real solution. Pure.
 * Callers: reclaim.c, tests.
 */
#pragma once

#include "kernel/lib/types.h"

enum tax_type { TAX_FLAT, TAX_PROGRESSIVE }; /* Mem.IdleTaxType */

#define TAX_MAX_PCT 99u
#define TAX_MAX_PAGES BIT(40)
#define TAX_MAX_SHARES BIT(32)

struct tax_claim {
    uint64_t min, max; /* pages, min <= max < TAX_MAX_PAGES */
    uint64_t shares;   /* < TAX_MAX_SHARES; 0: nothing above min */
    uint64_t active;   /* pages */
    uint64_t target;   /* result */
};

/*
 * Divide `available` pages. Fills target of all claims: they add up to `available`, but for two cases:
 * all mins together are more (each gets its min), all maxs of VMs with shares and the mins of the
 * others are less (each of the former gets its max). Returns what they add up to.
 */
uint64_t tax_solve(struct tax_claim *claims, unsigned nr, uint64_t available, unsigned tax_pct,
                   enum tax_type type);

/* Shares per page, weighed by idleness, of a VM that has `pages`: who has least gives first. In
 * 2^-20 shares per page; UINT64_MAX without pages. For tests of the solver. */
uint64_t tax_price(const struct tax_claim *c, uint64_t pages, unsigned tax_pct, enum tax_type type);

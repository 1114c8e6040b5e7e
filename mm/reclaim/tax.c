/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The division of memory by shares and idleness; see tax.h.
 *
 * What a VM gets grows with mu and never jumps, so the largest mu whose sum still fits is found by
 * bisection, in pages per share with MU_BITS binary places. These are so many that a last step of mu
 * moves nobody's claim by more than a page; the pages that this step would be too many for are handed
 * out singly, in the order of the claims.
 */
#include "mm/reclaim/tax.h"

#define MU_BITS 36u
#define MU_TOP ((mu_t)1 << (MU_BITS + 47))

typedef unsigned __int128 mu_t; /* pages per share, with MU_BITS binary places */

/* What is left of x claimed pages, rounded down once. The bracket of the progressive tax ends where as
 * many idle pages are left as active ones. */
static uint64_t after_tax(uint64_t x, uint64_t active, unsigned tax_pct, enum tax_type type)
{
    const uint64_t full = 100 - tax_pct, half = 200 - tax_pct;
    uint64_t idle;

    if (x <= active) {
        return x;
    }
    idle = x - active;
    if (type == TAX_FLAT) {
        return active + idle * full / 100;
    }
    if (idle * half <= active * 200) {
        return active + idle * half / 200;
    }
    return 2 * active + (idle * half - active * 200) * full / (100 * half);
}

/* What c gets at mu. */
static uint64_t portion(const struct tax_claim *c, mu_t mu, unsigned tax_pct, enum tax_type type)
{
    mu_t claim = (c->shares * mu) >> MU_BITS;
    /* Beyond this every rate gives more than any max. */
    uint64_t x = claim < TAX_MAX_PAGES * 200 ? (uint64_t)claim : TAX_MAX_PAGES * 200;
    uint64_t pages = after_tax(x, MIN(c->active, c->max), tax_pct, type);

    return c->shares == 0 ? c->min : MIN(MAX(pages, c->min), c->max);
}

static uint64_t sum_at(const struct tax_claim *claims, unsigned nr, mu_t mu, unsigned tax_pct,
                       enum tax_type type)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < nr; i++) {
        sum += portion(&claims[i], mu, tax_pct, type);
    }
    return sum;
}

/* The largest mu whose sum is not above `available`; 0 if there is none. */
static mu_t find_mu(const struct tax_claim *claims, unsigned nr, uint64_t available,
                    unsigned tax_pct, enum tax_type type)
{
    mu_t mu = 0;

    for (mu_t step = MU_TOP; step != 0; step >>= 1) {
        if (sum_at(claims, nr, mu | step, tax_pct, type) <= available) {
            mu |= step;
        }
    }
    return mu;
}

uint64_t tax_solve(struct tax_claim *claims, unsigned nr, uint64_t available, unsigned tax_pct,
                   enum tax_type type)
{
    uint64_t sum = 0;
    mu_t mu;

    tax_pct = MIN(tax_pct, TAX_MAX_PCT);
    mu = find_mu(claims, nr, available, tax_pct, type);
    for (unsigned i = 0; i < nr; i++) {
        claims[i].target = portion(&claims[i], mu, tax_pct, type);
        sum += claims[i].target;
    }
    for (unsigned i = 0; i < nr && sum < available; i++) {
        uint64_t more = portion(&claims[i], mu + 1, tax_pct, type) - claims[i].target;

        more = MIN(more, available - sum);
        claims[i].target += more;
        sum += more;
    }
    return sum;
}

uint64_t tax_price(const struct tax_claim *c, uint64_t pages, unsigned tax_pct, enum tax_type type)
{
    const uint64_t full = 100 - MIN(tax_pct, TAX_MAX_PCT), half = 200 - MIN(tax_pct, TAX_MAX_PCT);
    uint64_t active = MIN(c->active, pages);
    uint64_t idle = pages - active;
    uint64_t lightly = type == TAX_FLAT ? 0 : MIN(idle, active);
    uint64_t claim = active + lightly * 200 / half + (idle - lightly) * 100 / full;

    return claim == 0 ? UINT64_MAX : (c->shares << 20) / claim;
}

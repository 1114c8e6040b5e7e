/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the vendors' entry doctors share: a rule is one call of doctor_expect. Pure but for the
 * reporting callback.
 */
#pragma once

#include "kernel/lib/types.h"

/* Called once per violation. `section` is a title of the vendor's manual. */
typedef void (*doctor_report_t)(void *arg, const char *field, uint64_t value, const char *rule,
                                const char *section);

struct doctor {
    doctor_report_t report;
    void *arg;
    unsigned violations;
};

/* `rule` must hold for `field`. */
static inline void doctor_expect(struct doctor *d, bool holds, const char *field, uint64_t value,
                                 const char *rule, const char *section)
{
    if (!holds) {
        d->violations++;
        d->report(d->arg, field, value, rule, section);
    }
}

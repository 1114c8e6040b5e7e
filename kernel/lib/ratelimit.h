/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A token bucket for log lines about what guests do: a burst, then a line now and then. The count of
 * what was held back goes with the next line. Approximate on purpose when several processors use one
 * limiter at once: no lock, nothing worse than a line more or less. Pure.
 */
#pragma once

#include "kernel/lib/types.h"

struct ratelimit {
    uint64_t interval; /* in the caller's unit of time: one more line each interval */
    uint32_t burst;
    uint32_t tokens;     /* atomic */
    uint32_t suppressed; /* atomic: held back since the last line */
    uint64_t last;       /* atomic: when tokens were last added */
};

static inline void ratelimit_init(struct ratelimit *r, uint32_t burst, uint64_t interval)
{
    *r = (struct ratelimit){.interval = interval, .burst = burst, .tokens = burst};
}

/* True if ratelimit_take would say yes now. */
static inline bool ratelimit_ready(const struct ratelimit *r, uint64_t now)
{
    return __atomic_load_n(&r->tokens, __ATOMIC_RELAXED) > 0 ||
           now - __atomic_load_n(&r->last, __ATOMIC_RELAXED) >= r->interval;
}

/* Count an event that is not logged. */
static inline void ratelimit_suppress(struct ratelimit *r)
{
    __atomic_fetch_add(&r->suppressed, 1, __ATOMIC_RELAXED);
}

/* May a line be written now? *suppressed: how many were held back before it. */
static inline bool ratelimit_take(struct ratelimit *r, uint64_t now, uint32_t *suppressed)
{
    if (now - __atomic_load_n(&r->last, __ATOMIC_RELAXED) >= r->interval) {
        uint32_t tokens = __atomic_load_n(&r->tokens, __ATOMIC_RELAXED);

        __atomic_store_n(&r->last, now, __ATOMIC_RELAXED);
        __atomic_store_n(&r->tokens, MIN(tokens + 1, r->burst), __ATOMIC_RELAXED);
    }
    uint32_t tokens = __atomic_load_n(&r->tokens, __ATOMIC_RELAXED);
    if (tokens == 0) {
        ratelimit_suppress(r);
        return false;
    }
    __atomic_store_n(&r->tokens, tokens - 1, __ATOMIC_RELAXED);
    *suppressed = __atomic_exchange_n(&r->suppressed, 0, __ATOMIC_RELAXED);
    return true;
}

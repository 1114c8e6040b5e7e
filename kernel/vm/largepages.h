/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When large pages break and when they come back: the level of memory decides (mm/reclaim/policy.h). Where
 * that does not ask for breaking them, first touches get large frames, and small pages are joined while
 * there is plenty; else large pages are split, coldest first, and what is in them is shared.
 */
#pragma once

#include "kernel/lib/types.h"

/* Called once a second by the sharing thread. */
void largepages_tick(void);

/* Somebody looks at how long large pages have not been used: note it for the next seconds, though memory
 * is plentiful. */
void largepages_watch(void);

struct largepages_state {
    bool high;         /* enough memory is free */
    uint64_t min_free; /* frames below which it is not */
    uint64_t split, joined;
    uint64_t compacted, moved; /* blocks emptied, pages moved for them */
};
/* Numbers that move on while they are read. */
void largepages_state(struct largepages_state *out);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The states of machine memory, as data. A table is a list of levels, the roomiest first; each says
 * from how little free memory on it holds, which state it belongs to and what is done there. Two
 * tables: the one of ESX's early papers, and that of ESXi 6 with a state more and a sliding scale.
 *
 * Memory falls to a lower level at once, by as many levels as it takes. It climbs one level at a look,
 * when the level's threshold is exceeded by a quarter and no fall was less than a dwell time ago: so it
 * cannot oscillate faster than that. Pure: numbers in, numbers out. Callers: reclaim.c, tests.
 */
#pragma once

#include "kernel/lib/types.h"

enum mem_state { MEM_HIGH, MEM_CLEAR, MEM_SOFT, MEM_HARD, MEM_LOW, NR_MEM_STATES };
enum mem_states { MEM_STATES_CLASSIC, MEM_STATES_ESX6, NR_MEM_STATES_TABLES }; /* Mem.States */

/* What is done at a level. */
#define MEM_DO_BREAK 0x01u   /* break large pages, give out none; untouched memory reads as zero */
#define MEM_DO_SHARE 0x02u   /* scan VMs that owe memory at once */
#define MEM_DO_BALLOON 0x04u /* ask guests' balloon drivers */
#define MEM_DO_PAGE_DEAF 0x08u /* compress and swap VMs whose guests cannot be asked */
#define MEM_DO_COMPRESS 0x10u  /* compress */
#define MEM_DO_SWAP 0x20u      /* swap */
#define MEM_DO_BLOCK 0x40u     /* VMs above their target wait */

struct mem_level {
    enum mem_state state;
    unsigned below; /* this level holds below so many thousandths of minFree; the first: anything */
    unsigned actions;
};

struct mem_table {
    const char *name;
    unsigned nr;
    struct mem_level level[8];
};
extern const struct mem_table policy_tables[NR_MEM_STATES_TABLES];

/* "high", "clear", ... */
const char *policy_state_name(enum mem_state s);

/* minFree of a machine with `total` frames: `pct` (Mem.MemMinFreePct) percent of it; 0: the table's own
 * rule, 6 % (classic) or the sliding scale: 6 % of the first 4 GiB, 4 % up to 12, 2 % up to 28, 1 % of
 * the rest (esx6). */
uint64_t policy_min_free(enum mem_states table, uint64_t total, unsigned pct);

struct policy {
    enum mem_states table;
    unsigned level;
    uint64_t min_free;  /* frames */
    uint64_t fallen_ns; /* when it fell last; 0: never */
};

struct policy_change {
    enum mem_state from, to;
    bool fell;                /* memory got shorter */
    uint64_t free, threshold; /* frames: what was free, and what that fell below or climbed above */
};

/* The roomiest level; min_free by policy_min_free. */
void policy_init(struct policy *p, enum mem_states table, uint64_t min_free);
/* Another table or scale: the level that `free` has in it, without hysteresis. */
void policy_reset(struct policy *p, enum mem_states table, uint64_t min_free, uint64_t free);
/*
 * Look at `free` frames at now_ns. True: the level is another one now; *out says from where to where
 * (the states may be the same where a table has two levels of one).
 */
bool policy_look(struct policy *p, uint64_t free, uint64_t now_ns, uint64_t dwell_ns,
                 struct policy_change *out);
enum mem_state policy_state(const struct policy *p);
unsigned policy_actions(const struct policy *p);
/* What must be free to climb from level `level` into the one above it, in frames. */
uint64_t policy_climb_at(const struct policy *p, unsigned level);
/* What reclaim aims at: to climb out of the roomiest level at which memory is taken. */
uint64_t policy_goal(const struct policy *p);
/* VMs below their target are handed memory back while more than this is free: a little less than what
 * makes those above theirs give, so that memory moves from the ones to the others. */
uint64_t policy_lend_above(const struct policy *p);

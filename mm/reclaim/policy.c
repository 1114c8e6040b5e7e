/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tables of memory states and the steps between their levels; see policy.h.
 */
#include "mm/reclaim/policy.h"

#define PER_MILLE 1000u
#define STANDARD_PCT 6u
#define CLIMB_PCT 125u /* of a level's threshold: free memory that ends the level */
#define LEND_PCT 90u   /* of the threshold below which guests are asked */

#define FROM_GUESTS (MEM_DO_SHARE | MEM_DO_BALLOON)
#define BY_FORCE (MEM_DO_COMPRESS | MEM_DO_SWAP)

const struct mem_table policy_tables[NR_MEM_STATES_TABLES] = {
    /* 6, 4 and 2 % of memory, at the standard scale. Below high only those are paged who cannot be
     * asked (Waldspurger, "Reallocation"). */
    [MEM_STATES_CLASSIC] =
        {
            .name = "classic",
            .nr = 4,
            .level =
                {
                    {MEM_HIGH, 0, 0},
                    {MEM_SOFT, 1000, MEM_DO_BREAK | FROM_GUESTS | MEM_DO_PAGE_DEAF},
                    {MEM_HARD, 667, MEM_DO_BREAK | FROM_GUESTS | BY_FORCE},
                    {MEM_LOW, 333, MEM_DO_BREAK | FROM_GUESTS | BY_FORCE | MEM_DO_BLOCK},
                },
        },
    /* ESXi 6: large pages break while memory is still called high; ballooning stops at hard. */
    [MEM_STATES_ESX6] =
        {
            .name = "esx6",
            .nr = 6,
            .level =
                {
                    {MEM_HIGH, 0, 0},
                    {MEM_HIGH, 4000, MEM_DO_BREAK},
                    {MEM_CLEAR, 1000, MEM_DO_BREAK | MEM_DO_SHARE},
                    {MEM_SOFT, 640, MEM_DO_BREAK | FROM_GUESTS},
                    {MEM_HARD, 320, MEM_DO_BREAK | MEM_DO_SHARE | BY_FORCE},
                    {MEM_LOW, 160, MEM_DO_BREAK | BY_FORCE | MEM_DO_BLOCK},
                },
        },
};

const char *policy_state_name(enum mem_state s)
{
    static const char *const names[] = {"high", "clear", "soft", "hard", "low"};

    return s < NR_MEM_STATES ? names[s] : "?";
}

/* ---- The scale ---- */

uint64_t policy_min_free(enum mem_states table, uint64_t total, unsigned pct)
{
    static const struct {
        uint64_t upto; /* frames */
        unsigned pct;
    } scale[] = {{GIB(4) >> PAGE_SHIFT, 6},
                 {GIB(12) >> PAGE_SHIFT, 4},
                 {GIB(28) >> PAGE_SHIFT, 2},
                 {UINT64_MAX, 1}};
    uint64_t sum = 0, from = 0;

    if (pct != 0 || table == MEM_STATES_CLASSIC) {
        return total * (pct != 0 ? pct : STANDARD_PCT) / 100;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(scale) && from < total; i++) {
        uint64_t upto = MIN(total, scale[i].upto);

        sum += (upto - from) * scale[i].pct;
        from = upto;
    }
    return sum / 100;
}

static const struct mem_table *table_of(const struct policy *p)
{
    return &policy_tables[p->table];
}

/* Below how many free frames it holds. */
static uint64_t fall_at(const struct policy *p, unsigned level)
{
    return p->min_free * table_of(p)->level[level].below / PER_MILLE;
}

uint64_t policy_climb_at(const struct policy *p, unsigned level)
{
    return fall_at(p, level) * CLIMB_PCT / 100;
}

/* The roomiest level at which one of `actions` is done. */
static unsigned first_level(const struct policy *p, unsigned actions)
{
    unsigned level = 0;

    while (level + 1 < table_of(p)->nr && !(table_of(p)->level[level].actions & actions)) {
        level++;
    }
    return level;
}

uint64_t policy_goal(const struct policy *p)
{
    return policy_climb_at(p, first_level(p, ~MEM_DO_BREAK));
}

uint64_t policy_lend_above(const struct policy *p)
{
    return fall_at(p, first_level(p, MEM_DO_BALLOON)) * LEND_PCT / 100;
}

/* ---- The steps ---- */

/* The level of so much free memory. */
static unsigned level_of(const struct policy *p, uint64_t free)
{
    unsigned level = 0;

    while (level + 1 < table_of(p)->nr && free < fall_at(p, level + 1)) {
        level++;
    }
    return level;
}

void policy_init(struct policy *p, enum mem_states table, uint64_t min_free)
{
    *p = (struct policy){.table = table, .min_free = min_free};
}

void policy_reset(struct policy *p, enum mem_states table, uint64_t min_free, uint64_t free)
{
    p->table = table;
    p->min_free = min_free;
    p->level = level_of(p, free);
}

static void describe(const struct policy *p, unsigned to, uint64_t threshold, uint64_t free,
                     struct policy_change *out)
{
    *out = (struct policy_change){
        .from = policy_state(p),
        .to = table_of(p)->level[to].state,
        .fell = to > p->level,
        .free = free,
        .threshold = threshold,
    };
}

bool policy_look(struct policy *p, uint64_t free, uint64_t now_ns, uint64_t dwell_ns,
                 struct policy_change *out)
{
    unsigned level = level_of(p, free);

    if (level > p->level) {
        describe(p, level, fall_at(p, level), free, out);
        p->level = level;
        p->fallen_ns = now_ns;
        return true;
    }
    if (p->level == 0 || free < policy_climb_at(p, p->level) ||
        (p->fallen_ns != 0 && now_ns - p->fallen_ns < dwell_ns)) {
        return false;
    }
    describe(p, p->level - 1, policy_climb_at(p, p->level), free, out);
    p->level--;
    return true;
}

enum mem_state policy_state(const struct policy *p)
{
    return table_of(p)->level[p->level].state;
}

unsigned policy_actions(const struct policy *p)
{
    return table_of(p)->level[p->level].actions;
}

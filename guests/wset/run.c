/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine of working-set scripts; see wset.h. A page's first word says which page it is and what it
 * was filled with, the second how often it was written; the rest is its content. Whoever touches a page
 * compares the first word and one other with what they must be.
 */
#include "guests/wset/wset.h"

#define WORDS (WSET_PAGE / sizeof(uint64_t))
#define HALF_NOISE (WORDS * 2 / 5)
#define SLICE 64U /* pages between two looks at the clock */
#define SAME_SEED 0x5eed0f5a3eUL
#define HOT_PART 10U  /* a tenth of the pages */
#define HOT_SHARE 90U /* gets so many of a hundred touches */

struct run {
    const struct wset_env *env;
    struct wset_report report;
    uint64_t start_ns, next_report_ns;
    uint64_t filled; /* pages from the first on that have contents */
    uint64_t rng, cursor;
    enum wset_content content;
    enum wset_access access;
    uint64_t rate, work;
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdUL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53UL;
    return x ^ (x >> 33);
}

static uint64_t draw(struct run *r, uint64_t below)
{
    r->rng += 0x9e3779b97f4a7c15UL;
    return mix(r->rng) % below;
}

/* ---- Contents ---- */

static uint64_t seed_of(const struct run *r, enum wset_content c)
{
    return c == WSET_SAME ? SAME_SEED : mix(r->env->seed + 1);
}

static uint64_t tag(const struct run *r, uint64_t index, enum wset_content c)
{
    return c == WSET_ZERO ? 0 : (mix(seed_of(r, c) ^ index) & ~7UL) | (uint64_t)c;
}

static uint64_t expected(const struct run *r, uint64_t index, uint64_t w, enum wset_content c)
{
    if (c == WSET_ZERO || c == WSET_LIGHT || (c == WSET_HALF && w >= HALF_NOISE)) {
        return 0;
    }
    return mix(seed_of(r, c) + index * WORDS + w);
}

static void fill(struct run *r, uint64_t index)
{
    volatile uint64_t *p = r->env->page(index);

    for (uint64_t w = 2; w < WORDS; w++) {
        p[w] = expected(r, index, w, r->content);
    }
    p[1] = 0;
    p[0] = tag(r, index, r->content);
}

/* The content that the first word tells of, if it can be this page's. */
static bool content_of(const struct run *r, uint64_t index, uint64_t first, enum wset_content *out)
{
    for (enum wset_content c = WSET_LIGHT; c <= WSET_ZERO; c++) {
        if (first == tag(r, index, c)) {
            *out = c;
            return true;
        }
    }
    return false;
}

static void touch(struct run *r, uint64_t index)
{
    volatile uint64_t *p = r->env->page(index);
    uint64_t w = 2 + draw(r, WORDS - 2), first = p[0];
    enum wset_content c;

    r->report.touched++;
    for (uint64_t i = 0; i < r->work; i++) {
        __asm__ volatile("");
    }
    if (r->env->read_only) {
        return;
    }
    if (!content_of(r, index, first, &c) || p[w] != expected(r, index, w, c)) {
        r->report.bad++;
    } else if (r->access == WSET_WRITE && c != WSET_ZERO && c != WSET_SAME) {
        p[1] = p[1] + 1;
    }
}

/* ---- Time ---- */

static uint64_t now(const struct run *r)
{
    return r->env->now_ns() - r->start_ns;
}

static void report(struct run *r)
{
    r->report.time_ns = now(r);
    r->env->report(&r->report);
    r->next_report_ns = r->report.time_ns + WSET_SECOND_NS;
}

static void look_around(struct run *r)
{
    r->env->between();
    if (now(r) >= r->next_report_ns) {
        report(r);
    }
}

static void rest(struct run *r, uint64_t until)
{
    while (now(r) < until) {
        uint64_t next = r->next_report_ns < until ? r->next_report_ns : until;

        r->env->sleep_until(r->start_ns + next);
        look_around(r);
    }
}

/* ---- Steps ---- */

static bool resize(struct run *r, uint64_t pages)
{
    if (!r->env->resize(pages)) {
        return false;
    }
    r->report.size = pages;
    if (r->filled > pages) {
        r->filled = pages;
    }
    while (r->filled < pages && !r->env->read_only) {
        fill(r, r->filled++);
        r->report.touched++;
        if (r->filled % SLICE == 0) {
            look_around(r);
        }
    }
    return true;
}

static uint64_t next_page(struct run *r, enum wset_pattern pattern)
{
    uint64_t size = r->report.size;

    if (pattern == WSET_LINEAR) {
        r->cursor = r->cursor + 1 < size ? r->cursor + 1 : 0;
        return r->cursor;
    }
    if (pattern == WSET_HOT && size >= HOT_PART && draw(r, 100) < HOT_SHARE) {
        return draw(r, size / HOT_PART);
    }
    return draw(r, size);
}

static bool run_touch(struct run *r, const struct wset_step *s)
{
    uint64_t begin = now(r), done = 0;

    if (!resize(r, s->number)) {
        return false;
    }
    while (now(r) - begin < s->time_ns && r->report.size) {
        for (unsigned i = 0; i < SLICE; i++) {
            touch(r, next_page(r, (enum wset_pattern)s->choice));
        }
        done += SLICE;
        if (r->rate) {
            uint64_t due = begin + done * WSET_SECOND_NS / r->rate;

            rest(r, due < begin + s->time_ns ? due : begin + s->time_ns);
        }
        look_around(r);
    }
    return true;
}

/* False: the script ends here. */
static bool run_step(struct run *r, const struct wset_step *s)
{
    switch (s->verb) {
    case WSET_TOUCH:
        return run_touch(r, s);
    case WSET_SHRINK:
        return resize(r,
                      r->report.size - (s->number < r->report.size ? s->number : r->report.size));
    case WSET_SLEEP:
        rest(r, now(r) + s->time_ns);
        break;
    case WSET_FILL:
        r->content = (enum wset_content)s->choice;
        break;
    case WSET_MODE:
        r->access = (enum wset_access)s->choice;
        break;
    case WSET_RATE:
        r->rate = s->number;
        break;
    case WSET_WORK:
        r->work = s->number;
        break;
    case WSET_LOOP:
        break;
    }
    return true;
}

bool wset_run(const struct wset_script *s, const struct wset_env *env)
{
    struct run r = {.env = env, .rng = env->seed, .start_ns = env->now_ns()};
    uint64_t rounds = 0;

    for (r.report.step = 0; r.report.step < s->nr; r.report.step++) {
        const struct wset_step *step = &s->steps[r.report.step];

        if (step->verb == WSET_LOOP) {
            if (step->number == 0 || ++rounds < step->number) {
                r.report.step = (unsigned)-1; /* from the first again */
            } else {
                rounds = 0;
            }
            look_around(&r);
            continue;
        }
        if (!run_step(&r, step)) {
            report(&r);
            return false;
        }
        report(&r);
    }
    return true;
}

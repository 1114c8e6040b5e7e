/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser of working-set scripts; see wset.h.
 */
#include "guests/wset/wset.h"

#define NONE 0xffU

struct reader {
    const char *at;
    const char *why;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '_';
}

static bool is_end(char c)
{
    return c == 0 || c == ';';
}

static void skip(struct reader *r)
{
    while (is_blank(*r->at)) {
        r->at++;
    }
}

/* Is the next word `word`? Then step over it. */
static bool take(struct reader *r, const char *word)
{
    const char *p = r->at;

    while (*word && *p == *word) {
        p++;
        word++;
    }
    if (*word || !(is_blank(*p) || is_end(*p))) {
        return false;
    }
    r->at = p;
    skip(r);
    return true;
}

/* The index of the word among `words` (NULL ends them), or NONE. */
static unsigned choose(struct reader *r, const char *const *words)
{
    for (unsigned i = 0; words[i]; i++) {
        if (take(r, words[i])) {
            return i;
        }
    }
    return NONE;
}

static bool number(struct reader *r, uint64_t *out)
{
    const char *start = r->at;
    uint64_t n = 0;

    while (*r->at >= '0' && *r->at <= '9') {
        if (n > UINT64_MAX / 4096) {
            return false;
        }
        n = n * 10 + (uint64_t)(*r->at++ - '0');
    }
    *out = n;
    return r->at != start;
}

/* A number with one of the units; `scales` has a factor for each, and one for none. */
static bool scaled(struct reader *r, const char *const *units, const uint64_t *scales,
                   uint64_t *out)
{
    const char *start = r->at;
    unsigned unit;

    if (!number(r, out)) {
        r->at = start;
        return false;
    }
    if (is_blank(*r->at) || is_end(*r->at)) {
        skip(r);
        unit = 0;
        while (units[unit]) {
            unit++;
        }
    } else {
        unit = choose(r, units);
    }
    if (unit == NONE || scales[unit] == 0 || *out > UINT64_MAX / scales[unit]) {
        r->at = start;
        return false;
    }
    *out *= scales[unit];
    return true;
}

static bool size(struct reader *r, uint64_t *pages)
{
    static const char *const units[] = {"K", "M", "G", 0};
    static const uint64_t scales[] = {1UL << 10, 1UL << 20, 1UL << 30, 1UL << 20};

    r->why = "a size: 100M, 64K, 1G";
    if (!scaled(r, units, scales, pages)) {
        return false;
    }
    *pages /= WSET_PAGE;
    return true;
}

static bool time(struct reader *r, uint64_t *ns)
{
    static const char *const units[] = {"ms", "s", "m", 0};
    static const uint64_t scales[] = {1000000, WSET_SECOND_NS, 60 * WSET_SECOND_NS, WSET_SECOND_NS};

    r->why = "a time: 5s, 200ms, 1m";
    return scaled(r, units, scales, ns);
}

static bool word(struct reader *r, const char *const *words, const char *why, unsigned *out)
{
    r->why = why;
    *out = choose(r, words);
    return *out != NONE;
}

/* touch SIZE [PATTERN] [TIME] */
static bool touch(struct reader *r, struct wset_step *s)
{
    static const char *const patterns[] = {"linear", "random", "hot", 0};

    if (!size(r, &s->number)) {
        return false;
    }
    s->choice = choose(r, patterns);
    if (s->choice == NONE) {
        s->choice = WSET_LINEAR;
    }
    if (is_end(*r->at)) {
        return true;
    }
    bool good = time(r, &s->time_ns);

    r->why = "linear, random, hot, or a time: 5s, 200ms, 1m";
    return good;
}

static bool step(struct reader *r, struct wset_step *s)
{
    static const char *const verbs[] = {"touch", "shrink", "sleep", "fill", "mode",
                                        "rate",  "work",   "loop",  0};
    static const char *const contents[] = {"light", "unique", "half", "same", "zero", 0};
    static const char *const accesses[] = {"write", "read", 0};
    unsigned verb;

    if (!word(r, verbs, "touch, shrink, sleep, fill, mode, rate, work, loop", &verb)) {
        return false;
    }
    *s = (struct wset_step){.verb = (enum wset_verb)verb};
    switch (s->verb) {
    case WSET_TOUCH:
        return touch(r, s);
    case WSET_SHRINK:
        return size(r, &s->number);
    case WSET_SLEEP:
        return time(r, &s->time_ns);
    case WSET_FILL:
        return word(r, contents, "light, unique, half, same, zero", &s->choice);
    case WSET_MODE:
        return word(r, accesses, "write, read", &s->choice);
    case WSET_RATE:
        r->why = "pages a second";
        return number(r, &s->number);
    case WSET_WORK:
        r->why = "rounds of a loop";
        return number(r, &s->number);
    case WSET_LOOP:
        r->why = "how often";
        return is_end(*r->at) || number(r, &s->number);
    }
    return false;
}

bool wset_parse(const char *text, struct wset_script *out, const char **where, const char **why)
{
    struct reader r = {.at = text};
    bool good = true;

    out->nr = 0;
    skip(&r);
    while (good && *r.at) {
        if (out->nr == WSET_MAX_STEPS) {
            r.why = "no more than 32 steps";
            good = false;
            break;
        }
        good = step(&r, &out->steps[out->nr++]);
        if (!good) {
            break;
        }
        skip(&r);
        if (!is_end(*r.at)) {
            r.why = "a semicolon, or the end";
            good = false;
        } else if (*r.at == ';') {
            r.at++;
            skip(&r);
        }
    }
    if (good && out->nr == 0) {
        r.why = "a step: touch, shrink, sleep, fill, mode, rate, work, loop";
        good = false;
    }
    *where = r.at;
    *why = r.why;
    return good;
}

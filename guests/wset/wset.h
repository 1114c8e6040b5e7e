/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A working set by script: the language (docs/wset.md) and its engine, for the small guest and for the Linux
 * program alike. Freestanding. The owner of the memory says where a page is and how time passes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WSET_PAGE 4096UL
#define WSET_MAX_STEPS 32
#define WSET_SECOND_NS 1000000000UL

enum wset_verb {
    WSET_TOUCH,  /* size, pattern, time */
    WSET_SHRINK, /* by size */
    WSET_SLEEP,  /* time */
    WSET_FILL,   /* content */
    WSET_MODE,   /* access */
    WSET_RATE,   /* pages a second; 0: as many as can be */
    WSET_WORK,   /* rounds of a loop at each touch */
    WSET_LOOP    /* count; 0: for ever */
};
enum wset_pattern { WSET_LINEAR, WSET_RANDOM, WSET_HOT };
enum wset_content { WSET_LIGHT, WSET_UNIQUE, WSET_HALF, WSET_SAME, WSET_ZERO };
enum wset_access { WSET_WRITE, WSET_READ };

struct wset_step {
    enum wset_verb verb;
    unsigned choice; /* enum wset_pattern, wset_content, wset_access */
    uint64_t number; /* pages, pages a second, rounds */
    uint64_t time_ns;
};

struct wset_script {
    struct wset_step steps[WSET_MAX_STEPS];
    unsigned nr;
};

/* Reads a script; blanks may be written as `_`. False: `why` (a constant text) says what was expected at
 * *where. */
bool wset_parse(const char *text, struct wset_script *out, const char **where, const char **why);

struct wset_report {
    uint64_t time_ns; /* since the run began */
    uint64_t size;    /* pages of the working set */
    uint64_t touched; /* pages touched so far */
    uint64_t bad;     /* of these, found changed */
    unsigned step;
};

struct wset_env {
    uint64_t (*now_ns)(void);
    /* Let time pass until then. */
    void (*sleep_until)(uint64_t ns);
    /* Called often while pages are touched. */
    void (*between)(void);
    /* The area has this many pages from now on; what is cut off is given back, what is new reads as zero
     * or as it was left. False: there is not so much. */
    bool (*resize)(uint64_t pages);
    volatile uint64_t *(*page)(uint64_t index);
    void (*report)(const struct wset_report *r);
    bool read_only; /* the area's contents are somebody else's: nothing is filled or checked */
    uint64_t seed;  /* of contents, but for `fill same` */
};

/* Runs the script to its end. False: it asked for more memory than there is. */
bool wset_run(const struct wset_script *s, const struct wset_env *env);

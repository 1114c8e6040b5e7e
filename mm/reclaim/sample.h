/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much of its memory does a VM use? Every sampling period of VM time (Mem.SamplePeriod) it loses
 * the translations, or the accessed bits, of Mem.SampleSize randomly chosen pages that it was granted;
 * how many of them it touches within a period estimates what part it uses.
 *
 * The samples are spread over the period in SAMPLE_GROUPS groups; each is watched for one whole period,
 * then counted and replaced by a new one. Only the view is changed: of a large page the view spells out
 * the 4 KiB pieces while one of them is watched, and joins them again after; the p2m stays as it is.
 * A watched page that is touched costs its guest one fault that finds everything in place (method
 * `fault`), or nothing (method `abit`).
 *
 * Three averages of the fraction, and their maximum, so that a rise shows at once and a fall slowly:
 *
 *     fast    moves by 1/6 of the difference for each group:    84 % of it within a period
 *     slow    by 1/64 for each group:                           15 % of it within a period
 *     next    fast, moved by 84 % towards the part of the pages now being watched that was touched so
 *             far: what fast may become within the next period, known before that is over
 *
 * Callers: reclaim.c, tests. One thread at a time per VM; estimates may be read at any time.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct p2m;
struct sample;

#define SAMPLE_GROUPS 10u
#define SAMPLE_MAX_SIZE 480u
#define SAMPLE_ONE 65536u /* estimates are in these: all of the memory */

enum sample_method { SAMPLE_AUTO, SAMPLE_FAULT, SAMPLE_ABIT }; /* Mem.SampleMethod */

struct sample_options {
    unsigned size;      /* pages watched at a time, 0 .. SAMPLE_MAX_SIZE; 0: none, estimates stay */
    uint64_t period_ns; /* of VM time */
    enum sample_method method; /* auto: accessed bits where the view has them */
    unsigned min_pct;          /* Mem.SampleActivePctMin: estimates are not below */
};

/* Fractions of the granted memory, in 1/SAMPLE_ONE. Before the first period is over: all of it. */
struct sample_estimate {
    unsigned active; /* the maximum of these three, and of the floor */
    unsigned slow, fast, next;
    bool known; /* a whole period has been sampled */
};

struct sample_stats {
    uint64_t watched, touched; /* samples completed; of these, touched */
    uint64_t lost;             /* pages that were no longer granted when their period was over */
    uint64_t splits;           /* large pages spelt out in the view for a sample */
    uint64_t periods;
};

/* HV_ENOMEM. p has its view. */
enum hv_err sample_create(struct p2m *p, uint64_t seed, struct sample **out) __must_check;
/* The view is put back as it was. */
void sample_destroy(struct sample *s);
/* Time has come to vm_time_ns, which never goes back: complete and replace the samples that are due.
 * At most one flush. Sleeps; no lock held. */
void sample_tick(struct sample *s, const struct sample_options *o, uint64_t vm_time_ns);
void sample_estimate(const struct sample *s, struct sample_estimate *out);
void sample_stats(const struct sample *s, struct sample_stats *out);

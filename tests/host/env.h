/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The surroundings of mm/ on the host: machine memory is an array, processors are numbers, flushes
 * are counted, allocations fail on demand. One environment at a time.
 */
#pragma once

#include <setjmp.h>

#include "kernel/lib/rng.h"
#include "mm/flush.h"
#include "mm/types.h"

struct test_env {
    unsigned nr_cpus;
    uint64_t flushes;
    uint64_t relaxes;
    uint64_t saw_contents; /* calls of env_saw_contents */
    bool lazy_clear;       /* clearing does nothing: fresh arrays are zero already */
    bool broken_flush;     /* env_flush_guest forgets to do anything */
    bool small_code;       /* no code in large leaves */
    unsigned memory_type;  /* of all RAM, enum pt_type */
    void (*on_flush)(struct flush_domain *d);
    void (*on_relax)(void);
    const char *fail_site; /* only this site fails; NULL: any */
    int64_t fail_after;    /* allocations that still succeed; negative: all */
    uint64_t fail_rate;    /* one in so many fails at random; 0: none */
    uint64_t failures;     /* allocations refused so far */
    struct rng rng;
    jmp_buf *panic; /* where a panic that the test expects goes; NULL: abort */
    unsigned quiet; /* logged lines are not shown */
    uint64_t logged;
    uint64_t notes;  /* lines of env_note so far */
    char noted[256]; /* the last of them */
};
extern struct test_env test_env;

/* This thread's processor. */
void env_set_cpu(unsigned cpu);

/*
 * A machine whose RAM is the frames [base, base + nr), given to the allocator but for the frame
 * table, which lies in its first frames. Frames below base are reserved. Resets test_env.
 */
void env_start(mfn_t base, uint64_t nr, unsigned nr_cpus);
/* Everything that was allocated is free again (audited); the machine goes away. */
void env_stop(void);
/* Frames that are free in an idle machine. */
uint64_t env_idle_frames(void);

/* The seed of this run: BALLAST_SEED of the environment, or the default; shown once per test. */
uint64_t env_seed(const char *test);

/* Run `statement` and fail the test unless it panics. No lock may be held there. */
#define ENV_EXPECT_PANIC(statement)                    \
    do {                                               \
        jmp_buf env_jump_;                             \
        test_env.panic = &env_jump_;                   \
        if (setjmp(env_jump_) == 0) {                  \
            statement;                                 \
            test_env.panic = NULL;                     \
            fail_msg("did not panic: %s", #statement); \
        }                                              \
        test_env.panic = NULL;                         \
    } while (0)

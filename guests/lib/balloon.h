/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A memory balloon driver for small guests, over VMware's interface (port 0x5670). The guest lends it
 * a pool of pages; each tick it asks how much of it to give up, and does so, or takes pages back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BALLOON_START = 0,
    BALLOON_GET_TARGET = 1,
    BALLOON_LOCK = 2,
    BALLOON_UNLOCK = 3,
    BALLOON_GUEST_ID = 4,
    BALLOON_BATCHED_LOCK = 6,
    BALLOON_BATCHED_UNLOCK = 7,
    BALLOON_BATCHED_2M_LOCK = 8,
    BALLOON_BATCHED_2M_UNLOCK = 9,
    BALLOON_DOORBELL_SET = 10,
};

enum {
    BALLOON_OK = 0,
    BALLOON_BAD_COMMAND = 1,
    BALLOON_INVALID = 2,
    BALLOON_LOCKED = 3,
    BALLOON_NOT_LOCKED = 4,
    BALLOON_PINNED = 5,
    BALLOON_NOT_NEEDED = 6,
    BALLOON_RESET = 7,
    BALLOON_BUSY = 8,
};
#define BALLOON_OK_CAPABILITIES 0x03000000UL

#define BALLOON_CAN_BASIC 0x02UL
#define BALLOON_CAN_BATCHED 0x04UL
#define BALLOON_CAN_2M 0x08UL
#define BALLOON_CAN_ALL 0x3eUL /* what Linux asks for: with wake-ups and 64-bit targets */

#define BALLOON_BATCH 512U
#define BALLOON_REGION 512UL /* pages of 2 MiB */

struct balloon_reply {
    uint64_t status, result, capabilities; /* RAX, RBX, RCX */
};

/* One command. */
struct balloon_reply balloon_call(uint64_t command, uint64_t arg1, uint64_t arg2);

/* One batched command on the given page numbers; their statuses come back in place. Returns the
 * status of the whole. */
uint64_t balloon_batch(uint64_t command, uint64_t *pfns, uint8_t *statuses, size_t nr);

/*
 * The driver. `out` has a byte for each page of the pool (base: aligned to 2 MiB), true while it is given
 * up. `back` is told of each page that comes back: its contents are gone.
 */
struct balloon {
    uint64_t base, nr_pages;
    uint64_t in_use; /* pages from the first on that are not given up; set by balloon_need */
    bool *out;
    void (*back)(uint64_t page);
    uint64_t want;         /* capabilities to ask for */
    uint64_t capabilities; /* granted */
    uint64_t size, target; /* pages */
    uint64_t refused, resets;
    bool started;
};

/* False: nobody answers. */
bool balloon_start(struct balloon *b);
/* End: everything comes back. */
void balloon_stop(struct balloon *b);
/* Ask for the target, then give up or take back, 2 MiB at a time where both sides can. */
void balloon_tick(struct balloon *b);
/* The guest needs the first `pages` pages of the pool itself: they come back if they are given up, and
 * stay. */
void balloon_need(struct balloon *b, uint64_t pages);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where pages go when they leave machine memory: an array of slots of 4 KiB on something slow. The
 * swap area on a disk or the RAM disk provides it (kernel/drivers/swaparea.h), the host tests'
 * fault-injecting one too (tests/host/faultstore.h); mm/reclaim uses it. What the slots hold, whose it
 * is and whether it is what was written is the caller's business: a store keeps no checksums, and what
 * it holds is of no value after a restart.
 *
 * Contract:
 *  - A request is the caller's memory, reserved in advance: submitting allocates nothing and never
 *    fails. It, its list of frames and the frames belong to the store until `done` is called, which
 *    happens exactly once, also when the disk hangs (within a minute) or is gone (at once).
 *  - store_submit is called from a thread that holds no lock. `done` comes in thread context on any
 *    processor, possibly before store_submit has returned, in any order, without a lock. It may submit
 *    again (the same request too) and wake threads; it does not sleep, and never waits for another
 *    request.
 *  - Two requests in flight that touch one slot, one of them writing, have no defined result. A read
 *    submitted after a write's `done` sees what was written; no flush is needed for that.
 *  - Reads overtake queued writes, but a write is never held up for ever.
 *  - The disk is asked again (retries, resets) before an error is reported. After a failed write the
 *    slots hold anything, also of a part of the run; after a failed read the frames do.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/lib/list.h"
#include "mm/types.h"

#define STORE_RUN_MAX 32u       /* slots (frames) of one request */
#define STORE_PRIVATE_BYTES 192 /* of each request, for the store */

enum store_op { STORE_READ, STORE_WRITE, STORE_FLUSH };

struct store;

struct store_request {
    enum store_op op;
    uint32_t nr;         /* slots, 1 .. STORE_RUN_MAX; flush: 0 */
    uint64_t slot;       /* first; slot + nr <= store->nr_slots */
    const mfn_t *frames; /* nr of them, one per slot, anywhere in RAM */
    /* With `result` filled in:
     *  HV_OK      all of the run is done;
     *  HV_EIO     the disk failed part of it: single slots tell which;
     *  HV_ENOENT  the disk is gone, and nothing will succeed any more. */
    void (*done)(struct store_request *r);
    void *arg; /* the caller's */
    enum hv_err result;

    struct store *store; /* set by store_submit */
    struct list node;    /* the owner's while the request is not submitted, else the store's */
    uint64_t priv[STORE_PRIVATE_BYTES / 8];
};

struct store_ops {
    void (*submit)(struct store *s, struct store_request *r);
    /* Is the disk known to be gone, whoever found out? Never back to no. Any thread, any locks. */
    bool (*gone)(const struct store *s);
};

struct store {
    const struct store_ops *ops;
    uint64_t nr_slots;
    char name[32]; /* "nvme0p2", for messages */
};

static inline bool store_gone(const struct store *s)
{
    return s->ops->gone(s);
}

static inline void store_submit(struct store *s, struct store_request *r)
{
    r->store = s;
    s->ops->submit(s, r);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A swap store in memory that fails on demand (mm/reclaim/store.h), for host tests. Requests wait
 * until the test lets them be served, in an order drawn by its seed, or are served at once. Used by one
 * thread.
 */
#pragma once

#include "kernel/lib/rng.h"
#include "mm/reclaim/store.h"

/* What happens to one request. */
enum store_fault {
    FAULT_NONE,
    FAULT_ERROR, /* it fails */
    FAULT_FLIP,  /* it has a bit flipped, and says HV_OK */
    FAULT_LOST,  /* a write that says HV_OK writes nothing */
    FAULT_GONE,  /* the disk is pulled */
};

struct faultstore {
    struct store store;
    uint8_t *data;       /* nr_slots pages */
    bool *bad_read;      /* per slot: reading it fails */
    bool *bad_write;     /* likewise writing */
    bool deferred;       /* requests wait for faultstore_serve; else served within submit */
    bool gone;           /* the disk was pulled: everything fails at once */
    uint64_t fail_read;  /* this many further reads fail (any slot) */
    uint64_t fail_write; /* likewise writes */
    uint64_t fail_rate;  /* one request in so many fails at random; 0: none */
    uint64_t flip_rate;  /* one read in so many has a bit flipped, and says HV_OK; 0: none */
    enum store_fault
        fault; /* strikes requests [fault_at, fault_at + nr_faults) of all that are served */
    uint64_t fault_at, nr_faults;
    struct list waiting; /* store_request.node */
    uint64_t nr_waiting;
    uint64_t reads, writes, flushes, failures; /* requests served */
    uint64_t slots_read, slots_written;
    struct rng rng;
};

void faultstore_start(struct faultstore *f, uint64_t nr_slots, uint64_t seed);
void faultstore_stop(struct faultstore *f); /* nothing may wait */
/* Serve up to `max` waiting requests (those that their completions submit count too); returns how
 * many were served. */
uint64_t faultstore_serve(struct faultstore *f, uint64_t max);
/* The 4 KiB of a slot. */
uint8_t *faultstore_slot(struct faultstore *f, uint64_t slot);

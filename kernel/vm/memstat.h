/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The numbers about memory that screen and telemetry show, gathered in one place: esxtop's names and
 * definitions. Sizes are of the moment, rates and averages of the last tick, which the telemetry thread
 * gives once a second. A table says of each number of a VM how it is called and in which unit it is.
 */
#pragma once

#include "kernel/vm/config.h"
#include "mm/types.h"

struct vm;

/* Numbers of a VM that grow, whose growth per second is shown. */
enum memstat_count {
    COUNT_SWAPPED_IN,
    COUNT_SWAPPED_OUT,
    COUNT_ZIPPED,
    COUNT_UNZIPPED,
    COUNT_SCANNED,
    COUNT_MERGED,
    COUNT_BROKEN,
    COUNT_FAULTS,
    COUNT_STALLED_NS,
    NR_MEMSTAT_COUNTS
};

/* What the last tick saw of a VM; part of struct vm, guarded by memstat.c's lock. */
struct memstat_past {
    uint64_t time_ns; /* 0: no tick yet */
    uint64_t count[NR_MEMSTAT_COUNTS];
    uint64_t rate[NR_MEMSTAT_COUNTS]; /* per second */
};

struct memstat_vm {
    char name[CONFIG_NAME_MAX];
    uint64_t memsz, grant, cnsm, min, max, shares; /* pages; shares */
    uint64_t sztgt, tchd, active, active_slow, active_fast,
        active_next;                                     /* pages; 1/1000 of grant */
    uint64_t mctl, mctlsz, mctltgt, mctlmax;             /* 0 or 1; pages */
    uint64_t swcur, swtgt, swr, sww;                     /* pages; pages/s */
    uint64_t cachesz, cacheusd, zipped, zip, unzip;      /* pages; the last two: pages/s */
    uint64_t latency;                                    /* 1/1000 of its vCPUs' time */
    uint64_t shrd, shrdsvd, zero, cowh, large_shareable; /* pages */
    uint64_t scan, merge, broken, faults;                /* pages/s */
    uint64_t large_1g, large_2m, small_4k;               /* pages of that size */
    uint64_t overhead;                                   /* bytes */
};

struct memstat_host {
    uint64_t time_ns, vms;
    uint64_t overcommit[3];           /* 1/1000, averages over 1, 5 and 15 minutes */
    uint64_t total, vmk, other, free; /* frames: PMEM */
    uint64_t guest, overhead, retired, small_bytes;
    uint64_t managed, min_free, reserved, unreserved; /* frames: VMKMEM */
    const char *state;                                /* "high", "clear", ... */
    uint64_t split, joined, compacted;                /* 2 MiB pages; blocks */
    uint64_t waiting, waits;                      /* vCPUs that wait for memory now; waits so far */
    uint64_t shared, common, saving, zero;        /* pages; frames: PSHARE */
    uint64_t swap_curr, swap_tgt, swap_r, swap_w; /* pages; pages/s */
    uint64_t zipped, zip_saved;
    uint64_t balloon_curr, balloon_tgt, balloon_max;
    uint64_t table_bytes, table_at, index_bytes, index_max_bytes;
    uint64_t total_high, free_high;
};

enum memstat_unit {
    UNIT_PAGES,     /* screen: MB with a decimal; telemetry: KiB */
    UNIT_RATE,      /* pages a second; screen: MB with two decimals; telemetry: KiB */
    UNIT_BYTES,     /* screen: KB; telemetry: KiB */
    UNIT_NUMBER,    /* as it is */
    UNIT_PER_MILLE, /* screen and telemetry: percent with a decimal */
    UNIT_FLAG       /* screen: Y or N; telemetry: 0 or 1 */
};

struct memstat_field {
    const char *title; /* esxtop's name, on the screen */
    const char *key;   /* in telemetry (docs/telemetry.md) */
    enum memstat_unit unit;
    unsigned width; /* columns for the number */
    size_t offset;  /* of the uint64_t in struct memstat_vm */
    bool adds_up;   /* the sum over all VMs means something */
};
#define NR_MEMSTAT_FIELDS 39u
extern const struct memstat_field memstat_fields[NR_MEMSTAT_FIELDS];

static inline uint64_t *memstat_value(struct memstat_vm *vm, const struct memstat_field *f)
{
    return (uint64_t *)((char *)vm + f->offset);
}

/* A second has passed: new rates and averages. Telemetry's thread only; no lock held. */
void memstat_tick(void);
/* A VM's numbers now. Thread context, no lock held. */
void memstat_of_vm(struct vm *vm, struct memstat_vm *out);
/* The host's, with the sums over all VMs. Thread context, no lock held. */
void memstat_of_host(struct memstat_host *out);

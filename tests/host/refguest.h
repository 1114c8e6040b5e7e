/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A naive model of a processor's paging in every mode, written from the manual and sharing nothing
 * with mm/gwalk.c: which entries a linear address goes through, and what an access gets.
 */
#pragma once

#include "kernel/lib/types.h"

enum ref_mode { REF_NONE, REF_32, REF_PSE, REF_PAE, REF_LONG, NR_REF_MODES };

struct ref_paging {
    enum ref_mode mode;
    uint64_t cr3, pdptr[4];
    bool wp, smep, smap, nxe;
    bool page1gb; /* the processor has pages of 1 GiB */
};

struct ref_access {
    bool write, user, exec, ac;
};

/* One entry on the way, from the top. */
struct ref_step {
    uint64_t table; /* guest-physical address of the table; ~0: a loaded top-level entry */
    unsigned index;
    uint64_t entry;
};

struct ref_result {
    unsigned nr; /* steps taken, the one that failed included */
    struct ref_step step[4];
    bool fault;
    uint32_t error;
    uint64_t gpa;
};

/* What entry `index` of a table holds; ~0: no RAM there. */
typedef uint64_t (*ref_read_t)(uint64_t table, unsigned index, bool wide);

void ref_guest_walk(const struct ref_paging *p, uint64_t gva, struct ref_access a, ref_read_t read,
                    struct ref_result *out);

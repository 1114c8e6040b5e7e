/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compression and swapping as the host runs them: set-up, the thread that takes what VMs owe, vCPUs
 * that wait for a page, pages that cannot be read back, numbers for the screens. The mechanism is
 * mm/reclaim/swap.h.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct p2m;
struct vcpu;
struct vm;

/* Reserve what taking pages needs, and take the swap area into use as soon as there is one. Before the
 * first VM is built, after the seed of randomness is known. `encrypt`: the option swap.encrypt. */
void swapping_init(bool encrypt);
/* Start the thread. */
void swapping_start(void);
/* What encrypts pages on their way to the area: "AES-NI", "AES-tables" (a processor without AES instructions),
 * or "unencrypted". After swapping_init. */
const char *swapping_encryption(void);

/* p is to come down by so many pages: the thread sees to it. Replaces what it owed before. */
void swapping_order(struct p2m *p, uint64_t pages);
/* What p still owes. */
uint64_t swapping_owed(struct p2m *p);
/* Nothing could be taken of p at the last attempt: it is all away, pinned, or there is no place for it. */
bool swapping_is_dry(struct p2m *p);
/* Can anything be taken from p by compressing or swapping? */
bool swapping_possible(struct p2m *p);
/* Frames that became free by this thread's work since boot. */
uint64_t swapping_taken(void);

/* Take `pages` from vm now, whatever memory there is; *taken: as many left, or are on their way. HV_ENOENT:
 * it takes no part. Long; the caller's thread gives way meanwhile. */
enum hv_err swapping_force(struct vm *vm, uint64_t pages, uint64_t *taken) __must_check;

/* A thread of vm's (v; NULL: another thread) got HV_EAGAIN for gfn: sleep until it may go on, or somebody
 * wants something of it. No lock held. */
void swapping_wait(struct vm *vm, struct vcpu *v, gfn_t gfn);
/* It got HV_EIO: the VM is paused with the reason on the console; `vm NAME resume` tries again. Unless the page has
 * come since, for another thread that wanted it: then this one may go on. */
void swapping_failed(struct vm *vm, gfn_t gfn);

struct swapping_numbers { /* of a VM, in pages */
    uint64_t owed;        /* that it is to come down by */
    uint64_t cache_max;   /* that its cache may have (CACHESZ) */
};
/* Zeros if it takes no part. Any thread. */
void swapping_numbers(struct vm *vm, struct swapping_numbers *out);

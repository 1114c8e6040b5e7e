/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything that mm/ asks of its surroundings. The kernel implements it once (arch/x86_64/mm_env.c,
 * kernel/vm/flush.c); the host tests implement it once more (tests/host/env.c) with arrays, seeded
 * randomness, recorded flushes and failures on demand.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/lib/spinlock.h"
#include "mm/types.h"

struct flush_domain;

/* Pointer through which the frame's 4 KiB can be read and written. Frames of one allocated block
 * are contiguous behind it. Never NULL for RAM. */
void *env_frame_ptr(mfn_t mfn);
/* The inverse, for a pointer obtained from env_frame_ptr. */
mfn_t env_ptr_frame(const void *ptr);

/* Number of this processor, 0 .. env_nr_cpus()-1. Stable until the caller may sleep. */
unsigned env_cpu(void);
unsigned env_nr_cpus(void);

/*
 * Make every processor that may hold translations of `d` (see mm/flush.h) drop them: when this
 * returns, no processor uses a translation, nor a lockless p2m or table pointer, that it obtained
 * before the call. Waits for other processors: the caller holds no lock that a guest fault path
 * takes, and is not on the guest fast path. For flush_now (mm/flush.c) alone, which notes afterwards how
 * far flushes have been `completed`; whoever else called this would leave that behind.
 */
void env_flush_guest(struct flush_domain *d);

/* All RAM is write-back memory: no need to ask for types. */
bool env_memory_is_wb(void);
/* The type (enum pt_type) of the RAM at [pa, pa + size); pa is a multiple of size, a power of two. */
unsigned env_memory_type(hpa_t pa, uint64_t size);

/* May guests execute from leaves larger than 4 KiB? Not on a processor that a guest could stop so
 * (arch/x86_64/mitigate.h). Constant once guests may run. */
bool env_large_code(void);

/* Is the calling vCPU the only one of its VM, d's owner? Then nobody has to be waited for, and
 * env_flush_local is all that a flush takes: the vCPU drops its translations before it runs on. On the
 * fast path. env_flush_local is for flush_local (mm/flush.c) alone, as above. */
bool env_flush_is_local(const struct flush_domain *d);
void env_flush_local(struct flush_domain *d);

/* The calling thread has had a VM's contents in its hands that may not be its own: what they left in the
 * processor's caches must be gone before a guest runs there. Any context. */
void env_saw_contents(void);

/* Nanoseconds since boot; monotonic, same on all processors. */
uint64_t env_now_ns(void);

/* Let interrupts and other threads in; called between slices of long work. Never on the fast path
 * and never with a lock held. */
void env_relax(void);

/* One line into the log (no newline needed): something is wrong; something that is worth knowing. */
void env_log(const char *fmt, ...) __printf_like(1, 2);
void env_note(const char *fmt, ...) __printf_like(1, 2);
/* A broken invariant of our own. */
void env_panic(const char *fmt, ...) __printf_like(1, 2) __noreturn;

/* Failure injection: false makes the named allocation site fail. Always true in the kernel unless
 * the `fail=` host option asks for it. `site` is a string literal; the image has a list of all. */
#define env_may_allocate(site)                                                                   \
    ({                                                                                           \
        static const char *const env_site __attribute__((used, section("fail_sites"))) = (site); \
        env_site_may_allocate(env_site);                                                         \
    })
bool env_site_may_allocate(const char *site);

/* Between these the caller may use vector and AES registers: thread context, no sleeping, no nesting,
 * not on the guest fast path. */
void env_vector_begin(void);
void env_vector_end(void);

/* Zero or copy whole 4 KiB frames with the cheapest instruction sequence for general registers. */
void env_clear_page(void *page);
/* `nr` contiguous frames at once, at most 16 (64 KiB). */
void env_clear_pages(void *first, unsigned nr);
void env_copy_page(void *dst, const void *src);

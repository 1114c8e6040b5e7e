/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The list of disks, and the thread of each. The thread sleeps while its queue is idle; while requests
 * are in flight, an interrupt wakes it, and a timer that makes up for interrupts that do not come: every
 * POLL_SAFETY_NS where they are expected, else from POLL_MIN_NS on, doubled with every look in vain.
 * The list is filled at boot and constant afterwards.
 */
#include "kernel/drivers/blk.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/clock.h"
#include "kernel/drivers/ahci.h"
#include "kernel/drivers/blk_queue.h"
#include "kernel/drivers/ide.h"
#include "kernel/drivers/nvme.h"
#include "kernel/drivers/pci.h"
#include "kernel/drivers/virtio_blk.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/timer.h"
#include "mm/env.h"
#include "mm/frame.h"

#define POLL_MIN_NS 50000ull
#define POLL_MAX_NS 2000000ull
#define POLL_SAFETY_NS 20000000ull
#define LOST_INTERRUPTS_MAX 4u /* in a row: then they are not waited for any more */

static struct blk_disk *disks[BLK_DISKS_MAX];
static unsigned nr_disks;

unsigned blk_count(void)
{
    return nr_disks;
}

struct blk_disk *blk_disk(unsigned index)
{
    return disks[index];
}

void blk_interrupt(void *disk)
{
    struct blk_disk *d = disk;

    __atomic_store_n(&d->fired, true, __ATOMIC_RELEASE);
    if (d->thread != NULL) {
        thread_wake(d->thread);
    }
}

/* ---- The thread ---- */

struct alarm {
    struct timer timer;
    struct thread *thread;
};

static void ring(struct timer *t)
{
    thread_wake(container_of(t, struct alarm, timer)->thread);
}

/* What a look at the device says about its interrupts. */
static void judge_interrupts(struct blk_disk *d, unsigned nr_done, bool fired, unsigned *lost)
{
    if (nr_done == 0) {
        return;
    }
    d->queue.stats.interrupts += fired;
    d->queue.stats.polls += !fired;
    if (!d->interrupts) {
        return;
    }
    *lost = fired ? 0 : *lost + 1;
    if (*lost == LOST_INTERRUPTS_MAX) {
        log_warn("disk %s: its interrupts (%s) do not arrive; polling", d->name, d->irq);
        d->interrupts = false;
    }
}

static void serve(void *arg)
{
    struct blk_disk *d = arg;
    struct alarm alarm = {.thread = d->thread};
    uint64_t poll_ns = POLL_MIN_NS;
    unsigned lost = 0;
    bool timed_out = false;

    timer_init(&alarm.timer, ring);
    for (;;) {
        bool fired = __atomic_exchange_n(&d->fired, false, __ATOMIC_ACQUIRE);
        unsigned nr_done = blkq_run(d, clock_now_ns());

        /* Something found by chance, while submitting, says nothing. */
        if (fired || timed_out) {
            judge_interrupts(d, nr_done, fired, &lost);
        }
        timed_out = false;
        if (nr_done != 0) {
            poll_ns = POLL_MIN_NS;
            sched_yield();
            continue;
        }
        if (blkq_idle(d)) {
            thread_block();
            continue;
        }
        uint64_t ns = d->interrupts ? POLL_SAFETY_NS : poll_ns;
        uint64_t until = rdtsc() + clock_ns_to_tsc(ns);

        timer_arm(&alarm.timer, until);
        thread_block();
        timer_cancel(&alarm.timer);
        timed_out = rdtsc() >= until;
        poll_ns = timed_out ? MIN(2 * poll_ns, POLL_MAX_NS) : poll_ns;
    }
}

void blk_submit(struct blk_disk *d, struct blk_request *r)
{
    blkq_submit(d, r);
    thread_wake(d->thread);
}

struct waiter {
    struct blk_request request;
    struct thread *thread;
    bool done; /* atomic */
};

static void wake_waiter(struct blk_request *r)
{
    struct waiter *w = container_of(r, struct waiter, request);
    struct thread *t = w->thread;

    __atomic_store_n(&w->done, true, __ATOMIC_RELEASE); /* w is gone from here on */
    thread_wake(t);
}

enum hv_err blk_io(struct blk_disk *d, enum blk_op op, uint64_t sector, const mfn_t *frames,
                   uint32_t nr_frames)
{
    struct waiter w = {.request = {.op = op,
                                   .nr_frames = nr_frames,
                                   .sector = sector,
                                   .frames = frames,
                                   .done = wake_waiter},
                       .thread = thread_current()};

    blk_submit(d, &w.request);
    while (!__atomic_load_n(&w.done, __ATOMIC_ACQUIRE)) {
        thread_block();
    }
    return w.request.result;
}

/* ---- The list ---- */

/* Printable and without blanks around: identification strings are the device's. */
static void tidy(char *s)
{
    size_t n = strlen(s);
    size_t skip = 0;

    for (size_t i = 0; i < n; i++) {
        s[i] = char_is_print(s[i]) ? s[i] : '?';
    }
    while (n > 0 && s[n - 1] == ' ') {
        s[--n] = '\0';
    }
    while (s[skip] == ' ') {
        skip++;
    }
    memmove(s, s + skip, n + 1 - skip);
}

static enum hv_err get_bounce_frames(struct blk_disk *d)
{
    if (d->reach == 0 || d->reach >= frame_nr) {
        d->reach = 0;
        return HV_OK;
    }
    for (unsigned i = 0; i < BLK_RUN_MAX; i++) {
        if (buddy_alloc(0, FRAME_HOST, OWNER_HOST, BUDDY_LOW, &d->queue.bounce[i]) != HV_OK) {
            return HV_ENOMEM;
        }
    }
    return HV_OK;
}

void *blk_dma_alloc(uint64_t bytes, uint64_t *pa)
{
    unsigned order = 0;
    mfn_t mfn;

    while (PAGE_SIZE << order < bytes) {
        order++;
    }
    if (buddy_alloc(order, FRAME_HOST, OWNER_HOST, BUDDY_LOW, &mfn) != HV_OK) {
        return NULL;
    }
    *pa = mfn_hpa(mfn).a;
    return memset(env_frame_ptr(mfn), 0, PAGE_SIZE << order);
}

void blk_dma_free(void *page)
{
    buddy_free(env_ptr_frame(page), 0);
}

bool blk_wait(bool (*ready)(const void *arg), const void *arg, unsigned ms)
{
    uint64_t end = clock_now_ns() + ms * 1000000ull;

    while (!ready(arg)) {
        if (clock_now_ns() >= end) {
            return ready(arg);
        }
        thread_sleep_ns(20000);
    }
    return true;
}

enum hv_err blk_add(struct blk_disk *d, const char *kind)
{
    unsigned number = 0;
    size_t n = strlen(kind);

    for (unsigned i = 0; i < nr_disks; i++) {
        number += str_starts(disks[i]->name, kind) && char_is_digit(disks[i]->name[n]);
    }
    scnprintf(d->name, sizeof(d->name), "%s%u", kind, number);
    tidy(d->model);
    tidy(d->serial);
    if (nr_disks == BLK_DISKS_MAX || get_bounce_frames(d) != HV_OK) {
        log_error("disk %s: left out: too many, or no memory", d->name);
        return HV_ENOMEM;
    }
    blkq_init(d);
    /* Guests sleep on its work. */
    if (thread_create(d->name, serve, d, 4 * WEIGHT_NORMAL, OWNER_HOST, &d->thread) != HV_OK) {
        log_error("disk %s: no memory for its thread", d->name);
        return HV_ENOMEM;
    }
    disks[nr_disks++] = d;
    thread_start(d->thread);
    log_info("disk %s: %llu MiB, %s%s%s, %s", d->name,
             (unsigned long long)(d->nr_sectors * BLK_SECTOR >> 20), d->model,
             d->serial[0] != '\0' ? ", serial " : "", d->serial, d->irq);
    return HV_OK;
}

static bool probe(const struct pci_dev *d, void *arg)
{
    (void)arg;
    if (virtio_blk_match(d)) {
        virtio_blk_probe(d);
    } else if (d->class_code != PCI_CLASS_STORAGE) {
        return true;
    } else if (d->subclass == PCI_SUBCLASS_NVM) {
        nvme_probe(d);
    } else if (d->subclass == PCI_SUBCLASS_SATA && d->prog_if == 1) {
        ahci_probe(d);
    } else if (d->subclass == PCI_SUBCLASS_IDE) {
        ide_probe(d);
    }
    return true;
}

void blk_init(void)
{
    pci_for_each(probe, NULL);
    if (nr_disks != 0 && acpi_active_iommus() != 0) {
        log_warn("the firmware left an IOMMU active: disks may fail");
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One-shot timers, a queue per processor driven by the local APIC timer. Callbacks run in interrupt
 * context on the processor that armed the timer.
 */
#pragma once

#include "kernel/lib/list.h"
#include "kernel/lib/types.h"

struct timer {
    uint64_t deadline_tsc;
    void (*fn)(struct timer *t);
    unsigned cpu;     /* whose queue's lock guards it (atomic; written under that lock) */
    bool armed;       /* written under the queue lock (atomic) */
    uint32_t running; /* callbacks in progress (atomic) */
    struct list node; /* queue lock */
};

/* Boot processor, after lapic_timer_calibrate: empty queues, vector installed. */
void timer_setup(void);

/* Not armed. */
void timer_init(struct timer *t, void (*fn)(struct timer *t));
/* (Re)arm on this processor for TSC value `deadline_tsc` (past: at once). Any context, also with
 * interrupts or GIF off, and from the callback: costs a few tens of instructions when the queue is
 * short. */
void timer_arm(struct timer *t, uint64_t deadline_tsc);
/* After return the callback is not running and will not run, and the timer may be freed (never
 * before). Any processor; not from the callback itself, nor holding a lock that it takes. */
void timer_cancel(struct timer *t);

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
    unsigned cpu;   /* queue it is in */
    bool armed;     /* queue lock */
    struct list node;
};

void timer_init(struct timer *t, void (*fn)(struct timer *t));
/* (Re)arm on this processor for TSC value `deadline_tsc`. Any context, also with interrupts or GIF
 * off: costs a few tens of instructions when the queue is short. */
void timer_arm(struct timer *t, uint64_t deadline_tsc);
/* After return the callback is not running and will not run. Not from the callback itself. */
void timer_cancel(struct timer *t);

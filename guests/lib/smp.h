/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting a guest's other processors by INIT and SIPI, and where they meet. */
#pragma once

#include <stdint.h>

/* What an application processor runs; index counts from 0 in order of arrival. It must not return. */
typedef void (*smp_fn)(uint32_t index);

/*
 * Starts all other processors at fn and waits until `expected` have arrived or `ticks` of the time
 * stamp counter have passed. Returns how many have arrived. The local APIC must be enabled.
 */
uint32_t smp_start(smp_fn fn, uint32_t expected, uint64_t ticks);

/* Start-up messages to a processor that has been sent INIT: it runs the same function again. */
void smp_again(uint32_t dest);

/* Where a number of processors meet; all zero to begin with, and usable again as soon as they go on. */
struct smp_barrier {
    uint32_t arrived, sense; /* atomic */
};

/* Returns once `nr` processors have called it; what each wrote before, all see behind it. */
void smp_barrier_wait(struct smp_barrier *b, uint32_t nr);

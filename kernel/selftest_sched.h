/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scheduler's self-test on the machine itself: `selftest=sched` on the host command line.
 */
#pragma once

#include "kernel/lib/types.h"

/* Obey `selftest=` of the host command line; an unknown word is reported and ignored. */
void selftest_run(const char *cmdline);

/* Run all cases on all processors; a line `selftest sched: PASS|FAIL name` each, and a last one that
 * counts them. True if all passed. A thread that may sleep, after smp_start. Takes some seconds. */
bool selftest_sched(void);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What swapping costs, measured on the machine itself: `bench=swap` on the host command line.
 */
#pragma once

/* A thread that may sleep, with swapping set up and a store in use. Caller: bench_run. */
void bench_swap(void);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vCPUs that wait for machine memory, in order. They hold nothing and block nobody else; requests
 * (pause, destroy, interrupts) end their wait at once. One thread serves them: it looks for memory
 * and wakes as many as there are frames, the one that has waited longest first.
 */
#pragma once

#include "kernel/lib/types.h"

struct vcpu;

#define MEMWAIT_TICK_NS 10000000u

/* Wait for memory, off the fast path; the caller tries again afterwards. False: it has waited so long
 * that there is no hope. */
bool memwait_wait(struct vcpu *v) __must_check;
/* v got what it wanted: its next wait counts from the beginning. */
void memwait_done(struct vcpu *v);

/* The server's, which runs every MEMWAIT_TICK_NS while anybody is waiting: first say that it is
 * there; is anybody waiting; wake who can go on. */
void memwait_serving(void);
bool memwait_pending(void);
void memwait_serve(void);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What kernel/sched/sched.c (processors) and kernel/sched/thread.c (threads) share.
 */
#pragma once

#include "kernel/sched/sched.h"

/* Lay out t, without a stack yet, as a NEW thread of processor `cpu`. */
void thread_lay_out(struct thread *t, const char *name, uint32_t weight, unsigned cpu);
/* First words of t's new stack, so that the switcher's return enters sched_thread_entry. */
void thread_lay_out_stack(struct thread *t);
/* Put t into the list that thread_for_each walks. */
void thread_enlist(struct thread *t);

/* Give the processor away for ever: the last act of thread_exit. */
void sched_leave_for_ever(void) __noreturn;
/* t, which is NEW, becomes runnable. */
void sched_admit(struct thread *t);
/* True if t was never started, or is dead and its last processor is done with it. */
bool sched_is_gone(const struct thread *t);
/* Called in the new thread's context after its first switch, by sched_thread_entry. */
void sched_thread_main(void) __noreturn;
/* Completes a switch in the context of the thread that got the processor; interrupts off. */
void sched_finish_switch(void);

/* A thread has died: wake those who wait in thread_join. */
void thread_announce_death(void);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloons of VMs for policy and operator: targets in, numbers out. What a balloon is:
 * mm/reclaim/balloon.h. Thread context, no lock held, any time.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/reclaim/balloon.h"

struct vm;
struct reclaim_means;

/* Ballooning as one of the reclaimer's means (mm/reclaim/reclaim.h). */
extern const struct reclaim_means ballooning_means;

/* Limits from options and configuration as they are now (Mem.CtlMaxPercent, maxmemctl). */
void ballooning_set_limits(struct vm *vm);
/* The policy's target, pages; counts while the operator has set none. */
void ballooning_set_target(struct vm *vm, uint64_t pages);
/* The operator's target, and the end of it. HV_ERANGE: more than *most, which the limits allow; nothing
 * changes. */
enum hv_err ballooning_set_by_hand(struct vm *vm, uint64_t pages, uint64_t *most) __must_check;
void ballooning_set_auto(struct vm *vm);
/* The host sees that the guest suffers: give some back, and rest. */
void ballooning_note_distress(struct vm *vm);
void ballooning_state(struct vm *vm, struct balloon_state *out);

/* How guests' reports of free pages are treated, by the options as they are now. */
struct ballooning_reports {
    unsigned order;    /* ranges of fewer than 2^order pages are left alone */
    uint64_t delay_ns; /* before the pages are discarded */
};
void ballooning_report_rules(struct ballooning_reports *out);

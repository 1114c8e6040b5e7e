/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See ballooning.h. Limits are computed anew whenever somebody looks, so that a changed option counts
 * at once. Callers: the shell, the balancing thread, the balloon's device.
 */
#include "kernel/vm/ballooning.h"

#include "arch/x86_64/clock.h"
#include "kernel/options.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"
#include "mm/view.h"

static uint64_t ram_of(const struct vm *vm)
{
    return vm->config.memory_bytes >> PAGE_SHIFT;
}

static uint64_t most_of(const struct vm *vm)
{
    uint64_t own =
        vm->config.have_maxmemctl ? vm->config.maxmemctl_bytes >> PAGE_SHIFT : UINT64_MAX;

    return balloon_most(ram_of(vm), options_get(OPT_CTL_MAX_PERCENT), own);
}

static uint64_t size_of(struct vm *vm)
{
    struct p2m_counters count;
    struct view_stats view;

    vm_memory_counters(vm, &count, &view);
    return count.ballooned;
}

void ballooning_set_limits(struct vm *vm)
{
    balloon_set_limits(vm->balloon, ram_of(vm), most_of(vm));
}

void ballooning_set_target(struct vm *vm, uint64_t pages)
{
    balloon_set_target(vm->balloon, pages);
}

enum hv_err ballooning_set_by_hand(struct vm *vm, uint64_t pages, uint64_t *most)
{
    *most = most_of(vm);
    if (pages > *most) {
        return HV_ERANGE;
    }
    ballooning_set_limits(vm);
    balloon_set_by_hand(vm->balloon, pages);
    return HV_OK;
}

void ballooning_set_auto(struct vm *vm)
{
    balloon_set_auto(vm->balloon);
}

void ballooning_note_distress(struct vm *vm)
{
    balloon_note_distress(vm->balloon, size_of(vm), clock_now_ns());
}

void ballooning_state(struct vm *vm, struct balloon_state *out)
{
    ballooning_set_limits(vm);
    balloon_read(vm->balloon, size_of(vm), clock_now_ns(), out);
}

void ballooning_report_rules(struct ballooning_reports *out)
{
    out->order = (unsigned)options_get(OPT_PAGE_REPORT_ORDER);
    out->delay_ns = options_get(OPT_PAGE_REPORT_DELAY) * 1000000;
}

/* ---- As the reclaimer's means ---- */

/* Why a VM's balloon gives nothing; NULL: it gives. */
static const char *refusal(const struct balloon_state *s)
{
    if (s->driver == BALLOON_NO_DRIVER) {
        return "it has no balloon driver";
    }
    if (s->silent) {
        return "its balloon driver does not answer";
    }
    if (s->distrusted) {
        return "its balloon driver is not believed";
    }
    if (s->relieved) {
        return "its guest has no memory to spare";
    }
    if (s->by_hand) {
        return "its balloon is set by hand";
    }
    return s->size >= s->max ? "its balloon is full" : NULL;
}

/* The driver works by itself, once a second: the order only moves its target. */
static void order(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a)
{
    struct vm *vm = p2m_flush_domain(p)->owner;
    struct balloon_state s;

    ballooning_state(vm, &s);
    if (o->excess == 0) {
        ballooning_set_target(vm, s.size - MIN(s.size, o->room));
        return;
    }
    ballooning_set_target(vm, s.size + o->excess);
    a->why = refusal(&s);
    a->deaf = !s.present || s.size >= s.max;
    if (a->why == NULL) {
        a->pending = MIN(o->excess, s.max - s.size);
    }
}

const struct reclaim_means ballooning_means = {
    .name = "balloon",
    .action = MEM_DO_BALLOON,
    .order = order,
};

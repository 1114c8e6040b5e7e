/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Admission control; see admission.h. One admission at a time: the lock is a flag that is waited for,
 * because the sums are taken from the list of VMs.
 */
#include "kernel/vm/admission.h"

#include "arch/x86_64/irqflags.h"
#include "kernel/devices/devices.h"
#include "kernel/lib/printf.h"
#include "kernel/log.h"
#include "kernel/sched/wait.h"
#include "kernel/vm/balance.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"
#include "mm/reclaim/swap.h"
#include "mm/view.h"

static bool allow_unbacked; /* constant after boot */
static struct waitq turn = {SPINLOCK_INIT(RANK_WAITQ, "admission"), LIST_INIT(turn.waiters)};
static bool busy; /* atomic */

void admission_init(bool unbacked)
{
    allow_unbacked = unbacked;
}

/* ---- Sums ---- */

/* What the VM has, and what its tables and the copies of its disk may still come to. */
static uint64_t overhead_of(struct vm *vm)
{
    struct p2m_counters p;
    struct view_stats view;
    uint64_t tree = admission_tree_tables(vm->config.memory_bytes), view_max, to_come;

    vm_memory_counters(vm, &p, &view);
    view_max = view.tables_max != 0 ? view.tables_max : tree;
    to_come = tree - MIN(tree, p.overhead) + view_max - MIN(view_max, view.tables) +
              devices_frames_to_come(vm);
    return vm_overhead_bytes(vm) + to_come * PAGE_SIZE;
}

/* The claim that it has with these keys. */
static struct admission_claim claim_with(struct vm *vm, uint64_t min, uint64_t max)
{
    return (struct admission_claim){
        .min = config_guaranteed(&vm->config, min, max),
        .max = max,
        .overhead = overhead_of(vm),
        .unswapped = vm->config.swap == SWAP_OFF,
    };
}

static struct admission_claim claim_of(struct vm *vm)
{
    return claim_with(vm, vm->config.min_bytes, vm->config.max_bytes);
}

struct sums {
    const struct vm *but; /* not this one */
    struct admission_claim all;
};

static bool add(struct vm *vm, void *arg)
{
    struct sums *sum = arg;
    struct admission_claim c = {0};
    struct p2m_counters p;
    struct view_stats view;

    if (vm == sum->but) {
        return true;
    }
    if (__atomic_load_n(&vm->admitted, __ATOMIC_RELAXED)) {
        c = claim_of(vm);
    } else {
        vm_memory_counters(vm, &p, &view);
        c.max = p.consumed * PAGE_SIZE;
        c.overhead = vm_overhead_bytes(vm);
    }
    sum->all.min += c.min;
    sum->all.max += c.max;
    sum->all.overhead += c.overhead;
    return true;
}

static struct admission_host host_without(const struct vm *vm)
{
    struct sums sums = {.but = vm};
    struct buddy_stats b;
    struct swap_stats s;
    uint64_t own;

    buddy_stats(&b);
    swap_stats(&s);
    vm_for_each(add, &sums);
    own = b.used[FRAME_HOST] + b.used[FRAME_RETIRED] + reclaim_min_free();
    return (struct admission_host){
        .memory = (b.total - MIN(b.total, own)) * PAGE_SIZE,
        .swap = s.gone ? 0 : (s.slots - MIN(s.slots, s.bad)) * PAGE_SIZE,
        .unbacked = allow_unbacked,
        .others = sums.all,
    };
}

static bool try_take_turn(void)
{
    return !__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE);
}

static void take_turn(void)
{
    waitq_wait(&turn, try_take_turn());
}

static void end_turn(void)
{
    __atomic_store_n(&busy, false, __ATOMIC_RELEASE);
    waitq_wake_all(&turn);
}

/* ---- Starting and ending ---- */

enum hv_err admission_begin(struct vm *vm)
{
    char why[ADMISSION_TEXT_MAX];
    enum hv_err err;

    take_turn();
    const struct admission_host host = host_without(vm);
    const struct admission_claim claim = claim_of(vm);

    err = admission_check(&host, &claim, why);
    if (err == HV_OK) {
        __atomic_store_n(&vm->admitted, true, __ATOMIC_RELAXED);
    }
    end_turn();
    if (err != HV_OK) {
        log_error("vm %s: refused: %s", vm->config.name, why);
    }
    return err;
}

void admission_end(struct vm *vm)
{
    __atomic_store_n(&vm->admitted, false, __ATOMIC_RELAXED);
}

enum hv_err admission_change(struct vm *vm, uint64_t min, uint64_t max, uint64_t shares,
                             char why[ADMISSION_TEXT_MAX])
{
    struct vm_config *cfg = &vm->config;
    enum hv_err err = HV_OK;

    if (min > max || max > cfg->memory_bytes) {
        scnprintf(why, ADMISSION_TEXT_MAX, "accepted: min <= max <= memory");
        return HV_ERANGE;
    }
    take_turn();
    if (__atomic_load_n(&vm->admitted, __ATOMIC_RELAXED)) {
        const struct admission_host host = host_without(vm);
        const struct admission_claim claim = claim_with(vm, min, max);

        err = admission_check(&host, &claim, why);
    }
    if (err == HV_OK) {
        cfg->min_bytes = min;
        cfg->max_bytes = max;
        cfg->shares_kind = SHARES_NUMBER;
        cfg->shares = shares;
    }
    end_turn();
    if (err == HV_OK) {
        balance_change(vm);
    }
    return err;
}

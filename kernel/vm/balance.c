/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balancing thread; see balance.h. It looks at free memory ten times a second, a hundred times while
 * somebody waits for memory. Once a second it samples and gives orders; it balances before that when
 * the period is over, VMs came or went, an option changed or the level of memory did.
 *
 * A VM's clock for sampling is the time that it has run, less the time for which it was blocked: a
 * paused VM is not idle.
 */
#include "kernel/vm/balance.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/lib/random.h"
#include "kernel/log.h"
#include "kernel/options.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/means.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"

#define SECOND_NS 1000000000ull
#define TICK_NS 100000000ull
#define DISTRESS_PAGES 64u /* brought back within a second: the guest misses what it gave up */

static struct thread *worker; /* set once (atomic) */
static uint64_t ticked_ns;    /* guests' clocks stand at; the thread's */

static struct reclaim_options options_now(void)
{
    return (struct reclaim_options){
        .states = (enum mem_states)options_get(OPT_MEM_STATES),
        .min_free_pct = (unsigned)options_get(OPT_MEM_MIN_FREE_PCT),
        .balance_ns = options_get(OPT_BALANCE_PERIOD) * SECOND_NS,
        .tax_pct = (unsigned)options_get(OPT_IDLE_TAX),
        .tax_type = (enum tax_type)options_get(OPT_IDLE_TAX_TYPE),
        .sample =
            {
                .size = (unsigned)options_get(OPT_SAMPLE_SIZE),
                .period_ns = options_get(OPT_SAMPLE_PERIOD) * SECOND_NS,
                .method = (enum sample_method)options_get(OPT_SAMPLE_METHOD),
                .min_pct = (unsigned)options_get(OPT_SAMPLE_ACTIVE_PCT_MIN),
            },
    };
}

/* ---- Guests ---- */

/* The host brings back what its guest gave away elsewhere: it is short of memory. */
static void look_for_distress(struct vm *vm, struct p2m *p)
{
    struct p2m_counters c;
    uint64_t back;

    p2m_counters(p, &c);
    back = c.swapped_in + c.unzipped;
    if (c.ballooned != 0 && back >= vm->brought_back + DISTRESS_PAGES) {
        ballooning_note_distress(vm);
    }
    vm->brought_back = back;
}

/* vm stays while its p2m takes part. Once a second. */
static void guest(struct p2m *p, struct reclaim_guest *out)
{
    struct vm *vm = p2m_flush_domain(p)->owner;
    enum vm_state state = __atomic_load_n(&vm->state, __ATOMIC_RELAXED);
    uint64_t now = clock_now_ns();

    if (state == VM_RUNNING && !reclaim_is_blocked(p)) {
        vm->sampled_ns += MIN(now - ticked_ns, 2 * SECOND_NS);
        look_for_distress(vm, p);
    }
    out->time_ns = vm->sampled_ns;
    out->runs = state == VM_RUNNING || state == VM_PAUSED;
}

/* Pages that it is never asked to come below: what admission has set aside for it. */
static uint64_t guaranteed(const struct vm_config *cfg)
{
    return config_guaranteed(cfg, cfg->min_bytes, cfg->max_bytes) >> PAGE_SHIFT;
}

enum hv_err balance_join(struct vm *vm, struct p2m *p)
{
    struct rng rng;

    random_stream(&rng, "sample", vm->config.name);
    const struct reclaim_setup setup = {
        .name = vm->config.name,
        .memory = vm->config.memory_bytes >> PAGE_SHIFT,
        .min = guaranteed(&vm->config),
        .max = vm->config.max_bytes >> PAGE_SHIFT,
        .shares = config_shares(&vm->config),
        .seed = rng_next(&rng),
    };

    return reclaim_join(p, &setup);
}

void balance_change(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);

    if (vm->p2m != NULL) {
        reclaim_change(vm->p2m, guaranteed(&vm->config), vm->config.max_bytes >> PAGE_SHIFT,
                       config_shares(&vm->config));
    }
    spin_unlock_irqrestore(&vm->lock, flags);
    balance_wake();
}

/* ---- The thread ---- */

struct due {
    uint64_t options, generation;   /* options_changes, reclaim_generation as of the last balance */
    uint64_t balance_ns, second_ns; /* when they are due */
};

/* Why targets are to be computed now; NULL: they are not. */
static const char *cause_of(struct due *d, uint64_t options, bool stepped, uint64_t now)
{
    uint64_t generation = reclaim_generation();
    const char *cause = NULL;

    if (d->options != options) {
        cause = "an option was changed";
    } else if (d->generation != generation) {
        cause = "a VM came, went or was changed";
    } else if (stepped) {
        cause = "the state of memory changed";
    } else if (now >= d->balance_ns) {
        cause = "the balance period was over";
    }
    d->options = options;
    d->generation = generation;
    return cause;
}

static void tick(struct due *d)
{
    uint64_t changes = options_changes(), now = clock_now_ns();
    const struct reclaim_options o = options_now();
    bool stepped = reclaim_look(&o);
    bool second = now >= d->second_ns;

    if (second) {
        reclaim_sample(&o, guest);
        ticked_ns = now;
        d->second_ns = now + SECOND_NS;
    }
    const char *cause = cause_of(d, changes, stepped, now);

    if (cause != NULL) {
        reclaim_balance(&o, cause);
        d->balance_ns = now + o.balance_ns;
    }
    if (second || cause != NULL || (reclaim_actions() & MEM_DO_BLOCK) || memwait_pending()) {
        reclaim_carry();
    }
}

static void balance_main(void *unused)
{
    struct due due = {.second_ns = 0};

    (void)unused;
    ticked_ns = clock_now_ns();
    for (;;) {
        uint64_t nap = TICK_NS;

        tick(&due);
        if (memwait_pending()) {
            memwait_serve();
            if (!reclaim_has_hope(SECOND_NS)) {
                (void)sharing_scan_all();
            }
            nap = MEMWAIT_TICK_NS;
        }
        thread_sleep_ns(nap);
    }
}

void balance_wake(void)
{
    struct thread *t = __atomic_load_n(&worker, __ATOMIC_ACQUIRE);

    if (t != NULL) {
        thread_wake(t);
    }
}

void balance_init(void)
{
    struct reclaim_options o = options_now();

    means_register();
    (void)reclaim_look(&o);
}

void balance_start(void)
{
    struct thread *t;

    if (thread_create("balance", balance_main, NULL, WEIGHT_NORMAL, OWNER_HOST, &t) != HV_OK) {
        log_error("balance: no memory for its thread: no memory moves between VMs");
        return;
    }
    memwait_serving();
    __atomic_store_n(&worker, t, __ATOMIC_RELEASE);
    thread_start(t);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The swapping thread and who waits for it; see swapping.h. The thread sleeps while nobody owes
 * anything and nothing is under way: orders and the store's completions wake it. vCPUs wait in queues by
 * VM: a read that ends wakes its VM's.
 */
#include "kernel/vm/swapping.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/drivers/swaparea.h"
#include "kernel/lib/random.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/options.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/store.h"
#include "mm/reclaim/swap.h"
#include "mm/share/index.h"
#include "mm/share/share.h"

#define NR_QUEUES 16u
#define READ_ALONG_SHIFT 5u /* neighbours are read along while 1/32 of memory is free */
#define SECOND_NS 1000000000ull

static struct waitq queues[NR_QUEUES];
static struct thread *worker; /* set once (atomic) */
static bool encrypting;       /* constant after swapping_init */
static uint64_t taken;        /* atomic */

/* By member of mm/share; `owner` tells whether the entry is this member's. */
static struct account {
    uint32_t owner;
    uint64_t owed; /* atomic */
    bool dry;      /* atomic */
} accounts[INDEX_MAX_MEMBERS];

/* ---- Set-up ---- */

static struct waitq *queue_of(uint32_t owner)
{
    return &queues[owner % NR_QUEUES];
}

static void wake(struct p2m *p)
{
    struct thread *t = __atomic_load_n(&worker, __ATOMIC_ACQUIRE);

    if (p != NULL) {
        waitq_wake_all(queue_of(p2m_owner(p)));
    }
    if (t != NULL) {
        thread_wake(t);
    }
}

static void wake_all(void)
{
    for (unsigned i = 0; i < NR_QUEUES; i++) {
        waitq_wake_all(&queues[i]);
    }
}

/* From the processor, not from the run's seed: it is a secret, and no run depends on it. */
static void draw_key(void)
{
    uint8_t key[CRYPT_KEY_BYTES];
    struct rng rng;

    if (!cpu_features.rdrand) {
        log_warn("swap: the processor has no RDRAND: its time stamp counter alone makes the key");
    }
    random_stream(&rng, "swap key", "");
    for (unsigned i = 0; i < sizeof(key); i += sizeof(uint64_t)) {
        uint64_t word = cpu_entropy() ^ rng_next(&rng);

        memcpy(key + i, &word, sizeof(word));
    }
    crypt_set_key(key);
    memset(key, 0, sizeof(key));
    __asm__ volatile("" ::"r"(key) : "memory");
}

const char *swapping_encryption(void)
{
    return !encrypting ? "unencrypted" : cpu_features.aes ? "AES-NI" : "AES-tables";
}

static void use_store(struct store *s)
{
    uint64_t nr = swap_add_store(s);

    if (nr == 0) {
        log_error("swap: no memory for the table of %s's slots: it is not used", s->name);
    } else {
        log_info("swap: pages go to %s: %llu slots of 4 KiB%s, %s", s->name, (unsigned long long)nr,
                 nr < s->nr_slots ? ", for want of memory for a larger table" : "",
                 swapping_encryption());
    }
}

void swapping_init(bool encrypt)
{
    struct rng rng;

    for (unsigned i = 0; i < NR_QUEUES; i++) {
        waitq_init(&queues[i]);
    }
    encrypting = encrypt;
    random_stream(&rng, "swap", "");
    const struct swap_config cfg = {
        .encrypt = encrypt,
        .seed = rng_next(&rng),
        .read_along = buddy_total_frames() >> READ_ALONG_SHIFT,
        .wake = wake,
        .wake_all = wake_all,
    };
    if (encrypt) {
        draw_key();
    }
    if (swap_init(&cfg) != HV_OK) {
        log_error("swap: no memory to reserve: pages are neither compressed nor swapped");
        return;
    }
    swaparea_listen(use_store);
}

/* ---- Taking ---- */

static struct swap_how how_now(bool urgent)
{
    return (struct swap_how){
        .compress = options_get(OPT_MEM_ZIP_ENABLE) != 0,
        .zip_pct = (unsigned)options_get(OPT_MEM_ZIP_MAX_PCT),
        .share = options_get(OPT_SHARE_SCAN_GHZ) != 0,
        .urgent = urgent,
    };
}

void swapping_order(struct p2m *p, uint64_t pages)
{
    unsigned member = share_member(p);

    if (member != 0) {
        if (accounts[member].owner != p2m_owner(p)) {
            __atomic_store_n(&accounts[member].dry, false, __ATOMIC_RELAXED);
        }
        accounts[member].owner = p2m_owner(p);
        __atomic_store_n(&accounts[member].owed, pages, __ATOMIC_RELEASE);
        if (pages != 0) {
            wake(NULL);
        }
    }
}

uint64_t swapping_owed(struct p2m *p)
{
    unsigned member = share_member(p);

    return member != 0 && accounts[member].owner == p2m_owner(p)
               ? __atomic_load_n(&accounts[member].owed, __ATOMIC_RELAXED)
               : 0;
}

bool swapping_is_dry(struct p2m *p)
{
    unsigned member = share_member(p);

    return member != 0 && accounts[member].owner == p2m_owner(p) &&
           __atomic_load_n(&accounts[member].dry, __ATOMIC_RELAXED);
}

uint64_t swapping_taken(void)
{
    return __atomic_load_n(&taken, __ATOMIC_RELAXED);
}

static void pay(struct p2m *p, uint64_t pages)
{
    uint64_t *owed = &accounts[share_member(p)].owed;
    uint64_t was = __atomic_load_n(owed, __ATOMIC_RELAXED);

    while (!__atomic_compare_exchange_n(owed, &was, was - MIN(was, pages), true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {}
}

static void reap(void)
{
    __atomic_fetch_add(&taken, swap_reap(), __ATOMIC_RELAXED);
}

/* What a round of batches came to. */
enum round {
    ROUND_IDLE,  /* nobody owes anything that can be taken */
    ROUND_TAKEN, /* there may be more */
    ROUND_WAIT   /* what there is is under way */
};

/* Reads go before writes, unless somebody waits for what the writes set free. */
static enum round take_from(struct p2m *p)
{
    struct swap_how how = how_now(memwait_pending());
    struct swap_step step;
    uint64_t owed = swapping_owed(p);
    enum hv_err err;

    if (owed == 0) {
        return ROUND_IDLE;
    }
    err = swap_out(p, owed, &how, &step);
    __atomic_fetch_add(&taken, step.freed, __ATOMIC_RELAXED);
    __atomic_store_n(&accounts[share_member(p)].dry, err == HV_ENOENT, __ATOMIC_RELAXED);
    pay(p, err == HV_ENOENT ? owed : step.freed + step.started);
    if (err == HV_EAGAIN) {
        return ROUND_WAIT;
    }
    return err == HV_OK ? ROUND_TAKEN : ROUND_IDLE;
}

/* A batch of every VM that owes any. */
static enum round take_turns(void)
{
    enum round all = ROUND_IDLE;
    unsigned member;

    for (struct p2m *p = share_next(0); p != NULL; p = share_next(member)) {
        member = share_member(p);
        all = MAX(all, take_from(p));
        share_release(member);
    }
    return all;
}

static void swapping_main(void *unused)
{
    (void)unused;
    for (;;) {
        uint64_t before = swapping_taken();

        reap();
        enum round round = take_turns();

        if (swapping_taken() != before && memwait_pending()) {
            memwait_serve();
        }
        if (round == ROUND_TAKEN) {
            sched_yield();
        } else {
            thread_block();
        }
    }
}

void swapping_start(void)
{
    struct thread *t;

    if (thread_create("swap", swapping_main, NULL, WEIGHT_NORMAL, OWNER_HOST, &t) != HV_OK) {
        log_error("swap: no memory for its thread: pages are taken by command only");
        return;
    }
    __atomic_store_n(&worker, t, __ATOMIC_RELEASE);
    thread_start(t);
}

bool swapping_possible(struct p2m *p)
{
    return share_member(p) != 0 && swap_possible(p) &&
           (swap_has_store() || options_get(OPT_MEM_ZIP_ENABLE) != 0);
}

/* ---- At the operator's word ---- */

enum hv_err swapping_force(struct vm *vm, uint64_t pages, uint64_t *done)
{
    const struct swap_how how = how_now(true);
    unsigned member;
    struct p2m *p = sharing_hold(vm, &member);
    enum hv_err err = HV_OK;

    *done = 0;
    if (p == NULL) {
        return HV_ENOENT;
    }
    while (*done < pages && err != HV_ENOENT) {
        struct swap_step step;

        err = swap_out(p, pages - *done, &how, &step);
        *done += step.freed + step.started;
        if (err == HV_EAGAIN) {
            thread_sleep_ns(SECOND_NS / 1000);
        }
    }
    share_release(member);
    return HV_OK;
}

/* ---- Waiting ---- */

void swapping_wait(struct vm *vm, struct vcpu *v, gfn_t gfn)
{
    struct waitq *q = queue_of(vm->id);
    uint64_t start = clock_now_ns();

    waitq_prepare(q);
    if (!swap_may_retry(vm->p2m, gfn)) {
        /* A request of its last section wakes nobody, and its thread may not look at it before the page is there
         * (guestmem.c). The queue's lock was the fence (vcpu_request). */
        if (v != NULL && (__atomic_load_n(&v->request, __ATOMIC_RELAXED) & VCPU_REQ_THREAD)) {
            thread_sleep_ns(SECOND_NS / 1000);
        } else {
            thread_block();
        }
    }
    waitq_finish(q);
    if (v != NULL) {
        __atomic_fetch_add(&v->stalled_ns, clock_now_ns() - start, __ATOMIC_RELAXED);
    }
}

void swapping_failed(struct vm *vm, gfn_t gfn)
{
    struct swap_failure why;

    if (swap_error(vm->p2m, gfn, &why)) {
        vm_pause_request(vm,
                         "guest page 0x%llx cannot be read back from slot %llu of %s: %s; `vm %s "
                         "resume` tries again",
                         (unsigned long long)gfn_gpa(gfn).a, (unsigned long long)why.slot,
                         why.store, why.why, vm->config.name);
    }
}

/* ---- Numbers ---- */

void swapping_numbers(struct vm *vm, struct swapping_numbers *out)
{
    unsigned member;
    struct p2m *p = sharing_hold(vm, &member);
    struct p2m_counters count;

    *out = (struct swapping_numbers){0};
    if (p == NULL) {
        return;
    }
    p2m_counters(p, &count);
    out->owed = swapping_owed(p);
    out->cache_max = count.ram * options_get(OPT_MEM_ZIP_MAX_PCT) / 100;
    share_release(member);
}

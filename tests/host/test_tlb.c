/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Translations against TLBs that forget nothing. The kernel's own run loop, tags, flushes, fault path,
 * nested view and p2m run here on model processors; vCPUs move between them, while operators drop,
 * write-protect, age and take away pages at random. A model TLB keeps each translation, and each
 * table on the way to one, by processor and tag, until it is told to flush.
 *
 * What is checked at every access: once a flush is complete, nothing is used that was read from the
 * tables before the change it was for; and no translation or table leads to a frame that is not the
 * VM's. And a flush ends, though guests spin without leaving guest mode by themselves.
 *
 * A model cache, one for each processor, knows whose data is in it, by guests and by threads that work for
 * them, until it is told to drop it: no guest runs where another's is.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/fpu.h"
#include "arch/x86_64/mitigate.h"
#include "arch/x86_64/smp.h"
#include "kernel/emul/emul.h"
#include "kernel/vm/doctor.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/overwrite.h"
#include "kernel/vm/swapping.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m_internal.h" /* pages are taken away as reclaim does it */
#include "mm/pt/fmt_x86.h"
#include "mm/pt/pt.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/lockstep.h"
#include "tests/host/tagenv.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define WINDOW 1536u /* gfns of a VM: three large pages */
#define NR_HOT 12u   /* of them are accessed mostly */
#define NR_VMS 2u
#define VCPUS_PER_VM 2u
#define NR_VCPUS (NR_VMS * VCPUS_PER_VM)
#define NR_OPERATORS 2u
#define NR_GUEST_CPUS 3u
#define OPERATOR_CPU NR_GUEST_CPUS
#define NR_CPUS (NR_GUEST_CPUS + 1)
#define MAX_TAGS 7u
#define OPERATIONS 1000u  /* per operator */
#define KICK_BOUND 20000u /* turns that a flush may wait; a vCPU in its section gets far fewer */

/* One translation, or the table of 4 KiB leaves for a large page's range. */
struct cached {
    bool valid, writable;
    mfn_t mfn;
    uint64_t at; /* when it was read from the tables */
};
struct tlb {
    struct cached page[WINDOW], table[WINDOW >> ORDER_2M];
};

static bool taken[NR_GUEST_CPUS]; /* a vCPU's thread runs there */
static bool kicked[NR_CPUS];
static struct tlb tlb[NR_GUEST_CPUS][MAX_TAGS + 1];
static struct {
    struct mitigate_cpu last;
    uint32_t contents; /* a bit for each VM whose data is there, by its number */
} cache[NR_GUEST_CPUS];
static struct vm vms[NR_VMS];
static struct thread threads[NR_VCPUS];
static unsigned operators_left;
static struct rng rng;

/* Time is counted in changes. Older translations than these may not be used (to write). */
static uint64_t now;
static uint64_t oldest[NR_VMS][WINDOW], oldest_write[NR_VMS][WINDOW];

static struct {
    uint64_t hits, walks, kicks, moves, full_flushes, late_fills, passers;
} seen;

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "tlb: %s (actor %u)\n", what, lockstep_self());
        abort();
    }
}

/* ---- Processors and threads ---- */

/* Wait for a processor of those that run guests. */
static void get_cpu(void)
{
    for (;;) {
        unsigned cpu = (unsigned)rng_below(&rng, NR_GUEST_CPUS);

        if (!taken[cpu]) {
            seen.moves += cpu != env_cpu();
            taken[cpu] = true;
            env_set_cpu(cpu);
            return;
        }
        lockstep_turn();
    }
}

static void put_cpu(void)
{
    run_switch_out(&threads[lockstep_self()]);
    taken[env_cpu()] = false;
    this_cpu()->need_resched = false;
}

/* Not under its own name, which the C library uses. */
void __wrap_sched_yield(void);
void __wrap_sched_yield(void)
{
    if (rng_below(&rng, 4) != 0) {
        put_cpu();
        lockstep_turn();
        get_cpu();
    }
}

void thread_block(void)
{
    __wrap_sched_yield();
}

void thread_sleep_ns(uint64_t ns)
{
    (void)ns;
    __wrap_sched_yield();
}

void smp_kick(unsigned cpu)
{
    lockstep_turn();
    kicked[cpu] = true;
    seen.kicks++;
}

static __thread unsigned waited;

void smp_relax(void)
{
    check(++waited < KICK_BOUND, "a flush waits for a guest that nobody kicks");
    lockstep_turn();
}

static void commit(struct flush_batch *batch)
{
    waited = 0;
    flush_batch_commit(batch);
}

/* ---- What the run loop asks of its surroundings ---- */

void fpu_load(struct fpu_state *st)
{
    (void)st;
}

void fpu_save(struct fpu_state *st)
{
    (void)st;
}

void msr_load(struct vcpu *v)
{
    (void)v;
}

void mitigate_switch(uint32_t vm)
{
    static const struct mitigate_plan plan = {MITIGATE_ACTIVE, MITIGATE_ACTIVE, MITIGATE_ACTIVE,
                                              false};

    if (mitigate_at_entry(&plan, &cache[env_cpu()].last, vm).l1_data) {
        cache[env_cpu()].contents = 0;
    }
}

void mitigate_left(uint32_t vm)
{
    seen.passers += cache[env_cpu()].last.vm != vm && (cache[env_cpu()].contents & BIT(vm));
    mitigate_at_leave(&cache[env_cpu()].last, vm);
}

bool softmmu_ready(struct vcpu *v)
{
    (void)v;
    return true;
}

void memwait_or_stop(struct vcpu *v, uint64_t gpa)
{
    (void)v, (void)gpa;
    fail_msg("no memory");
}

unsigned memwait_nr_in_line;

uint32_t memwait_access(struct vcpu *v)
{
    (void)v;
    return P2M_VCPU;
}

void memwait_served(struct vcpu *v, bool to_the_end)
{
    (void)v, (void)to_the_end;
}

void swapping_wait(struct vm *vm, struct vcpu *v, gfn_t gfn)
{
    (void)vm, (void)v, (void)gfn;
}

bool overwrite_page(struct vcpu *v, gpa_t gpa)
{
    (void)v, (void)gpa;
    return false;
}

void swapping_failed(struct vm *vm, gfn_t gfn)
{
    (void)vm, (void)gfn;
    fail_msg("no store");
}

enum exit_action exit_again(struct vcpu *v, enum hv_err err)
{
    (void)v, (void)err;
    fail_msg("no device");
    return ACT_LEAVE;
}

void doctor_first_entry(struct vcpu *v)
{
    (void)v;
}

bool event_prepare(struct vcpu *v)
{
    lockstep_turn();
    return !(v->request & VCPU_REQ_STOP) && rng_below(&rng, 16) != 0;
}

bool event_wakes(struct vcpu *v)
{
    (void)v;
    return true;
}

void vcpu_init_signal(struct vcpu *v)
{
    (void)v;
}

void vcpu_inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error)
{
    (void)v;
    (void)vector;
    (void)has_error;
    (void)error;
    check(false, "an exception for the guest");
}

void vm_stop_request(struct vm *vm, enum stop_reason reason, uint32_t code, const char *fmt, ...)
{
    (void)vm;
    (void)reason;
    (void)code;
    check(false, fmt);
}

enum hv_err emul_mmio(struct vcpu *v, const struct exit_memory *mem, bool fast, char *text,
                      size_t text_len)
{
    (void)v;
    (void)mem;
    (void)fast;
    (void)text;
    (void)text_len;
    check(false, "RAM taken for a device");
    return HV_EINVAL;
}

/* Between what the p2m says and the view's lock, anything may happen. */
enum hv_err __real_p2m_populate(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *out);
enum hv_err __wrap_p2m_populate(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *out);
enum hv_err __wrap_p2m_populate(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *out)
{
    enum hv_err err = __real_p2m_populate(p, gfn, access, out);

    lockstep_turn();
    seen.late_fills += err == HV_OK && !p2m_same(out);
    return err;
}

/* The VM's data comes into the cache of the processor that this thread runs on. */
static void touch_data(const struct vcpu *v)
{
    cache[env_cpu()].contents |= (uint32_t)BIT(v->vm->id);
}

/* Faults come one after another on a thread; each may wait for flushes anew. The work may go on on other
 * processors, some of which the thread leaves again before it enters the guest. */
static enum exit_action memory_slow(struct vcpu *v, struct vm_exit *exit)
{
    waited = 0;
    touch_data(v);
    while (rng_below(&rng, 4) == 0) {
        __wrap_sched_yield();
        touch_data(v);
    }
    return fault_slow(v, exit);
}

static enum exit_action leave(struct vcpu *v, struct vm_exit *exit)
{
    (void)v;
    (void)exit;
    return ACT_LEAVE;
}

static enum exit_action resume(struct vcpu *v, struct vm_exit *exit)
{
    (void)v;
    (void)exit;
    return ACT_RESUME;
}

const struct exit_handlers exit_table[NR_EXIT_KINDS] = {
    [EXIT_MEMORY] = {fault_fast, memory_slow},
    [EXIT_INTERRUPT] = {leave, leave},
    [EXIT_CPUID] = {resume, resume},
    [EXIT_PAUSE] = {leave, leave},
};

/* ---- The vendor: guests on model hardware ---- */

/* The frame is the VM's own, or waits for the flush that makes this use of it legal. */
static bool is_own(const struct vcpu *v, mfn_t mfn, enum frame_use use)
{
    const struct frame *f = frame_of(frame_head(mfn));

    return f->use == use && f->owner == v->vm->id;
}

static void check_page(const struct vcpu *v, uint64_t gfn, const struct cached *c)
{
    const struct frame *f = frame_of(frame_head(c->mfn));

    check(c->at >= oldest[tagenv_vm(v)][gfn], "a translation outlived its flush");
    check(is_own(v, c->mfn, FRAME_GUEST), "a translation leads to somebody else's frame");
    check((f->order & FRAME_PENDING) || f->gfn + (c->mfn.n - frame_mfn(f).n) == gfn,
          "a translation leads to another page of the VM");
}

/* The processor's walk from the root. Nothing there: an invalid entry. A table of 4 KiB leaves is
 * remembered. Bits: present, writable, accessed, large. */
static struct cached walk(const struct vcpu *v, struct tlb *t, uint64_t gfn)
{
    struct cached *known = &t->table[gfn >> ORDER_2M];
    uint64_t *table, *entry;
    hpa_t root;

    seen.walks++;
    if (known->valid) {
        check(is_own(v, known->mfn, FRAME_VIEW), "a walk reads a table that is none any more");
        table = env_frame_ptr(known->mfn);
    } else {
        check(v->vm->view->ops->root(v->vm->view, &root) == HV_OK, "no root");
        table = env_frame_ptr(hpa_mfn(root));
        for (unsigned level = 3; level > 0; level--) {
            entry = &table[(gfn >> (9 * level)) & 511];
            if (!(*entry & 1)) {
                return (struct cached){0};
            }
            *entry |= 0x20;
            if (*entry & 0x80) {
                mfn_t block = hpa_mfn(HPA(*entry & 0x000fffffffe00000ull));

                return (struct cached){true, (*entry & 2) != 0, mfn_add(block, gfn & 511), now};
            }
            table = env_frame_ptr(hpa_mfn(HPA(*entry & 0x000ffffffffff000ull)));
        }
        *known = (struct cached){true, true, env_ptr_frame(table), now};
    }
    entry = &table[gfn & 511];
    if (!(*entry & 1)) {
        /* A fault drops what led to it. */
        *known = (struct cached){0};
        return (struct cached){0};
    }
    *entry |= 0x20;
    return (struct cached){true, (*entry & 2) != 0, hpa_mfn(HPA(*entry & 0x000ffffffffff000ull)),
                           now};
}

/* One access of the guest. False: it faults. */
static bool guest_access(const struct vcpu *v, struct tlb *t, uint64_t gfn, bool write)
{
    struct cached *c = &t->page[gfn];

    check(!(cache[env_cpu()].contents & ~BIT(v->vm->id)), "another guest's data is in the cache");
    touch_data(v);
    if (!c->valid || (write && !c->writable)) {
        *c = walk(v, t, gfn);
        if (!c->valid || (write && !c->writable)) {
            *c = (struct cached){0};
            t->table[gfn >> ORDER_2M] = (struct cached){0};
            return false;
        }
    } else {
        seen.hits++;
    }
    check_page(v, gfn, c);
    check(!write || c->at >= oldest_write[tagenv_vm(v)][gfn], "a write after its protection");
    return true;
}

static uint64_t pick_gfn(void)
{
    if (rng_below(&rng, 8) == 0) {
        return rng_below(&rng, WINDOW);
    }
    return rng_below(&rng, NR_HOT) * (WINDOW / NR_HOT);
}

/* A kick is on its way for a while. */
static bool kick_arrives(unsigned cpu)
{
    return kicked[cpu] && rng_below(&rng, 4) == 0;
}

static void fake_run(struct vcpu *v, struct vm_exit *exit)
{
    unsigned i = tagenv_number(v), cpu = env_cpu();
    struct tlb *mine = &tlb[cpu][tagenv_key(i)];
    bool spins = rng_below(&rng, 6) == 0;

    tagenv_flush(i, tlb[cpu], sizeof(tlb[cpu]), mine, sizeof(*mine));
    for (unsigned left = (unsigned)rng_below(&rng, 40); !kick_arrives(cpu); lockstep_turn()) {
        uint64_t gfn = pick_gfn();
        bool write = rng_below(&rng, 2) != 0;

        if (left > 0 && !guest_access(v, mine, gfn, write)) {
            exit->kind = EXIT_MEMORY;
            exit->mem =
                (struct exit_memory){gfn_gpa(GFN(gfn)), write ? P2M_WRITE : P2M_READ, false, false};
            return;
        }
        if (left == 0 && !spins) {
            exit->kind = rng_below(&rng, 2) ? EXIT_CPUID : EXIT_PAUSE;
            return;
        }
        left -= left > 0;
    }
    exit->kind = EXIT_INTERRUPT;
}

static void fake_section_begin(struct vcpu *v)
{
    (void)v;
    lockstep_turn();
}

/* Interrupts that came inside the section are taken. */
static void fake_section_end(struct vcpu *v)
{
    (void)v;
    kicked[env_cpu()] = false;
    this_cpu()->need_resched |= rng_below(&rng, 3) == 0;
}

static void fake_load(struct vcpu *v)
{
    (void)v;
}

static void fake_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all)
{
    tagenv_set_tag(v, tag, flush, flush_all);
    lockstep_turn();
}

static const struct hv_backend backend = {
    .name = "fake",
    .vcpu_load = fake_load,
    .vcpu_put = fake_load,
    .section_begin = fake_section_begin,
    .section_end = fake_section_end,
    .run = fake_run,
    .set_tag = fake_set_tag,
};
static const struct tagenv_machine machine = {&backend, NR_CPUS, NR_VMS, NR_VCPUS, NULL};

/* ---- Operators ---- */

/* The flush for a change of `nr` pages at `at` is complete. */
static void forget_before(uint64_t *limit, uint64_t first, uint64_t nr, uint64_t at)
{
    for (uint64_t i = first; i < first + nr && i < WINDOW; i++) {
        limit[i] = MAX(limit[i], at);
    }
}

static void drop_or_protect(unsigned vm, uint64_t first, uint64_t nr, bool protect)
{
    struct view *view = vms[vm].view;
    struct flush_batch batch;
    uint64_t at;

    flush_batch_init(&batch, vms[vm].flush);
    (protect ? view->ops->protect : view->ops->drop)(view, GFN(first), nr, &batch);
    at = ++now;
    commit(&batch);
    forget_before(protect ? oldest_write[vm] : oldest[vm], first, nr, at);
}

/* A use after the flush shows in the tables again, so no translation from before is used. */
static void age(unsigned vm, uint64_t gfn)
{
    struct view *view = vms[vm].view;
    struct flush_batch batch;
    uint64_t at;
    bool used;

    flush_batch_init(&batch, vms[vm].flush);
    used = view->ops->age(view, GFN(gfn), &batch);
    at = ++now;
    commit(&batch);
    if (used) {
        forget_before(oldest[vm], gfn, 1, at);
    }
}

/* The page becomes untouched again, and its frames free: as reclaim does it. */
static void evict(unsigned vm, uint64_t gfn)
{
    struct p2m *p = vms[vm].p2m;
    struct flush_batch batch;
    struct p2m_entry e;
    uint64_t first = 0, nr = 0, at;

    flush_batch_init(&batch, vms[vm].flush);
    spin_lock(&p->lock);
    p2m_query(p, GFN(gfn), &e);
    if (e.state == P2M_PRIVATE) {
        first = ALIGN_DOWN(gfn, BIT(e.order));
        nr = BIT(e.order);
        word_store((uint64_t *)e.word, word_next(e.seq, P2M_UNTOUCHED, MFN(0)));
        p->count.granted -= nr;
        p->count.consumed -= nr;
        if (e.order == ORDER_2M) {
            p->count.large_2m--;
            frame_of(node_of(e.word))->refs--;
        }
        p->view->ops->drop(p->view, GFN(first), nr, &batch);
        flush_batch_free(&batch, MFN(ALIGN_DOWN(e.mfn.n, nr)), e.order);
    }
    spin_unlock(&p->lock);
    at = ++now;
    commit(&batch);
    forget_before(oldest[vm], first, nr, at);
}

static void operate(void)
{
    unsigned vm = (unsigned)rng_below(&rng, NR_VMS);
    uint64_t gfn = pick_gfn();

    switch (rng_below(&rng, 8)) {
    case 0:
        drop_or_protect(vm, 0, WINDOW, false);
        break;
    case 1:
        drop_or_protect(vm, gfn, 1 + rng_below(&rng, 16), false);
        break;
    case 2:
    case 3:
        drop_or_protect(vm, gfn, 1 + rng_below(&rng, 600), true);
        break;
    case 4:
        age(vm, gfn);
        break;
    default:
        evict(vm, gfn);
        break;
    }
}

static void operator_thread(void)
{
    env_set_cpu(OPERATOR_CPU);
    for (unsigned n = 0; n < OPERATIONS; n++) {
        operate();
        for (uint64_t rest = rng_below(&rng, 30); rest > 0; rest--) {
            lockstep_turn();
        }
    }
    if (--operators_left == 0) {
        for (unsigned i = 0; i < NR_VCPUS; i++) {
            __atomic_fetch_or(&tagenv.vcpus[i].request, VCPU_REQ_STOP, __ATOMIC_SEQ_CST);
        }
        memset(kicked, 1, sizeof(kicked));
    }
}

static void vcpu_thread(unsigned i)
{
    get_cpu();
    run_vcpu(&tagenv.vcpus[i]);
    put_cpu();
}

static void actor(unsigned i)
{
    if (i < NR_VCPUS) {
        vcpu_thread(i);
    } else {
        operator_thread();
    }
}

/* ---- The tests ---- */

static void build_vm(unsigned i, bool large_pages)
{
    struct vm *vm = &vms[i];
    const struct p2m_config cfg = {
        .owner = i + 1, .vm = vm, .large_pages = large_pages, .max_order = ORDER_2M};

    vm->id = i + 1;
    vm->nr_vcpus = VCPUS_PER_VM;
    assert_int_equal(p2m_create(&cfg, &vm->p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(0), WINDOW), HV_OK);
    assert_int_equal(nested_create(vm->p2m, &fmt_x86_npt, vm->id, &vm->view), HV_OK);
    vm->flush = p2m_flush_domain(vm->p2m);
    for (unsigned n = 0; n < VCPUS_PER_VM; n++) {
        unsigned number = i + n * NR_VMS;
        struct vcpu *v = &tagenv.vcpus[number];

        v->vm = vm;
        v->id = n;
        v->thread = &threads[number];
        threads[number].arg = v;
        vm->vcpus[n] = v;
    }
}

static void start(uint32_t nr_tags, bool flush_by_tag)
{
    tagenv_start(&machine, nr_tags, flush_by_tag);
    memset(taken, 0, sizeof(taken));
    memset(kicked, 0, sizeof(kicked));
    memset(tlb, 0, sizeof(tlb));
    memset(cache, 0, sizeof(cache));
    memset(vms, 0, sizeof(vms));
    memset(oldest, 0, sizeof(oldest));
    memset(oldest_write, 0, sizeof(oldest_write));
    env_start(BASE, NR_FRAMES, NR_CPUS);
    for (unsigned i = 0; i < NR_VMS; i++) {
        build_vm(i, i % 2 != 0);
    }
    operators_left = NR_OPERATORS;
}

static void stop(void)
{
    seen.full_flushes += tagenv.nr_full_flushes;
    for (unsigned i = 0; i < NR_VMS; i++) {
        assert_true(vms[i].view->ops->audit(vms[i].view));
        assert_true(p2m_audit(vms[i].p2m));
        p2m_destroy(vms[i].p2m);
        assert_true(mm_audit_gone(vms[i].id));
    }
    env_stop();
}

static void nothing_stale_is_used(void **state)
{
    static const struct {
        uint32_t nr_tags;
        bool flush_by_tag;
    } machines[] = {{MAX_TAGS, true}, {3, true}, {3, false}, {0, false}};

    (void)state;
    rng_seed(&rng, env_seed("tlb: nothing stale is used"));
    for (unsigned m = 0; m < ARRAY_SIZE(machines); m++) {
        start(machines[m].nr_tags, machines[m].flush_by_tag);
        lockstep_run(NR_VCPUS + NR_OPERATORS, actor, &rng);
        stop();
    }
    printf("%llu hits, %llu walks, %llu kicks, %llu moves, %llu flushes of all, %llu late fills, "
           "%llu in passing\n",
           (unsigned long long)seen.hits, (unsigned long long)seen.walks,
           (unsigned long long)seen.kicks, (unsigned long long)seen.moves,
           (unsigned long long)seen.full_flushes, (unsigned long long)seen.late_fills,
           (unsigned long long)seen.passers);
    /* It all happened. */
    assert_true(seen.hits > 10000 && seen.walks > 10000 && seen.kicks > 1000);
    assert_true(seen.moves > 1000 && seen.full_flushes > 100 && seen.late_fills > 5);
    assert_true(seen.passers > 30);
}

/* ---- The page-table engine alone, all its operations ---- */

#define PT_OWNER 5u
#define PT_STEPS 30000u

static struct pt pt;
static struct flush_domain pt_domain;
static uint64_t flushed_at; /* the epoch that the TLBs have seen */
static struct tlb pt_tlb[NR_CPUS];
static struct page {
    uint64_t pa;
    bool present, writable;
} pages[WINDOW];

/* A VM without processors: the TLBs here notice the flush by its epoch. */
static void pt_commit_batch(struct flush_batch *batch)
{
    flush_batch_commit(batch);
    if (pt_domain.epoch != flushed_at) {
        memset(pt_tlb, 0, sizeof(pt_tlb));
        flushed_at = pt_domain.epoch;
    }
}

/* What the walk by cached tables gives must be what was asked for, in permissions too. */
static void pt_read(struct tlb *t, uint64_t gfn)
{
    struct cached *c = &t->page[gfn], *table = &t->table[gfn >> ORDER_2M];
    struct pt_leaf leaf;

    if (table->valid) {
        assert_int_equal(frame_of(table->mfn)->use, FRAME_VIEW);
        assert_int_equal(frame_of(table->mfn)->owner, PT_OWNER);
    }
    if (!c->valid && pt_lookup(&pt, gfn << PAGE_SHIFT, &leaf)) {
        uint64_t *slot = pt_slot(&pt, gfn << PAGE_SHIFT, leaf.order / ORDER_2M);

        *slot |= pt.fmt->accessed;
        *c = (struct cached){true, (leaf.attr.perm & PT_W) != 0,
                             mfn_add(hpa_mfn(leaf.pa), gfn & (BIT(leaf.order) - 1)), 0};
        if (leaf.order == ORDER_4K) {
            *table = (struct cached){true, true, env_ptr_frame(slot), 0};
        }
    }
    assert_true(!c->valid || pages[gfn].present);
    if (c->valid) {
        assert_int_equal(c->mfn.n << PAGE_SHIFT, pages[gfn].pa);
        assert_true(pages[gfn].writable || !c->writable);
    }
}

static void pt_model(uint64_t first, uint64_t nr, uint64_t pa, bool present, bool writable)
{
    for (uint64_t i = 0; i < nr; i++) {
        pages[first + i] = (struct page){pa + i * PAGE_SIZE, present, present && writable};
    }
}

/* A use after the flush is seen by the next look. */
static void pt_age_step(uint64_t gfn, struct flush_batch *batch)
{
    (void)pt_age(&pt, gfn << PAGE_SHIFT, ORDER_4K, batch);
    pt_commit_batch(batch);
    pt_read(&pt_tlb[0], gfn);
    if (pages[gfn].present) {
        assert_true(pt_age(&pt, gfn << PAGE_SHIFT, ORDER_4K, batch));
    }
}

static void pt_step(struct flush_batch *batch)
{
    uint64_t first = rng_below(&rng, 3) << ORDER_2M, nr = BIT(ORDER_2M);
    uint64_t pa = GIB(1) + (rng_below(&rng, 8) << (PAGE_SHIFT + ORDER_2M));
    bool writable = rng_below(&rng, 2) != 0;
    struct pt_attr attr = {PT_R | PT_X | (writable ? PT_W : 0), PT_WB, false};

    if (rng_below(&rng, 3) != 0) {
        first += rng_below(&rng, nr);
        nr = MIN(1 + rng_below(&rng, 64), WINDOW - first);
        pa += (first & 511) << PAGE_SHIFT;
    }
    switch (rng_below(&rng, 8)) {
    case 0:
    case 1:
        assert_int_equal(pt_map(&pt, first << PAGE_SHIFT, HPA(pa), nr << PAGE_SHIFT, attr, batch),
                         HV_OK);
        pt_model(first, nr, pa, true, writable);
        break;
    case 2:
        if (pages[first].present) {
            assert_int_equal(pt_split(&pt, first << PAGE_SHIFT, ORDER_4K, batch), HV_OK);
        }
        break;
    case 3:
        (void)pt_merge(&pt, first << PAGE_SHIFT, ORDER_2M, batch);
        break;
    case 4:
    case 5:
        /* Whole large pages: smaller ranges take what reaches beyond them along. */
        first = ALIGN_DOWN(first, BIT(ORDER_2M));
        if (writable) {
            pt_unmap(&pt, first << PAGE_SHIFT, PAGE_SIZE << ORDER_2M, batch);
            pt_model(first, BIT(ORDER_2M), 0, false, false);
        } else {
            pt_protect(&pt, first << PAGE_SHIFT, PAGE_SIZE << ORDER_2M, PT_R | PT_X, batch);
            for (uint64_t i = first; i < first + BIT(ORDER_2M); i++) {
                pages[i].writable = false;
            }
        }
        break;
    default:
        pt_age_step(first, batch);
        break;
    }
    pt_commit_batch(batch);
}

static void every_table_change_is_flushed(void **state)
{
    struct flush_batch batch;

    (void)state;
    rng_seed(&rng, env_seed("tlb: every table change is flushed"));
    env_start(BASE, NR_FRAMES, NR_CPUS);
    memset(pages, 0, sizeof(pages));
    memset(pt_tlb, 0, sizeof(pt_tlb));
    flush_domain_init(&pt_domain, NULL);
    flushed_at = pt_domain.epoch;
    flush_batch_init(&batch, &pt_domain);
    assert_int_equal(pt_create(&pt, &fmt_x86_npt, ORDER_2M, FRAME_VIEW, PT_OWNER), HV_OK);
    for (unsigned step = 0; step < PT_STEPS; step++) {
        pt_step(&batch);
        for (unsigned n = 0; n < 8; n++) {
            pt_read(&pt_tlb[rng_below(&rng, NR_CPUS)], rng_below(&rng, WINDOW));
        }
    }
    assert_true(pt_audit(&pt) && pt_domain.flushes > 1000);
    pt_destroy(&pt, &batch);
    pt_commit_batch(&batch);
    assert_true(mm_audit_gone(PT_OWNER));
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_stale_is_used),
        cmocka_unit_test(every_table_change_is_flushed),
    };

    return cmocka_run_group_tests_name("tlb", tests, NULL, NULL);
}

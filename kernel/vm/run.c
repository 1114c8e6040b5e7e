/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The body of a vCPU's thread: what is pending, the guest, what it exited for.
 *
 * Inside a section (see backend.h) interrupts are held off, nothing sleeps, and the processor cannot
 * change. in_guest covers the whole section, so that flushes and requests from other processors
 * know to kick; a kick ends the entry after it with EXIT_INTERRUPT, and is taken when the section
 * ends.
 */
#include "arch/x86_64/clock.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/mitigate.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/mutant.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"

/* Make this processor hold v's state: cheap while it does. Nothing of ours runs in between that
 * could move the thread. */
static void load(struct vcpu *v)
{
    struct cpu *cpu = this_cpu();

    fpu_load(v->fpu);
    if (!MUTANT(no_mitigate_at_entry)) {
        mitigate_switch(v->vm->id);
    }
    if (v->loaded) {
        return;
    }
    v->loaded = true;
    if (cpu->loaded_vcpu != v || v->cpu != cpu->id || v->was_reset || v->set_unloaded) {
        bool first = v->was_reset;

        v->was_reset = v->set_unloaded = false;
        __atomic_store_n(&v->cpu, cpu->id, __ATOMIC_RELAXED);
        cpu->loaded_vcpu = v;
        msr_load(v);
        hv->vcpu_load(v);
        if (first) {
            doctor_first_entry(v);
        }
    }
}

static void put(struct vcpu *v)
{
    uint64_t flags = irq_save();

    if (v->loaded) {
        v->loaded = false;
        fpu_save(v->fpu);
        hv->vcpu_put(v);
    }
    irq_restore(flags);
}

void run_switch_out(struct thread *t)
{
    struct vcpu *v = t->arg;

    put(v);
    if (!MUTANT(no_mitigate_at_leave)) {
        mitigate_left(v->vm->id);
    }
}

/* Fast handlers take far less than 2^32 ticks. */
static inline uint32_t rdtsc_low(void)
{
    uint32_t low;

    __asm__ volatile("rdtsc" : "=a"(low)::"rdx", "memory");
    return low;
}

/* The exit at `start` goes on outside the section. */
static void note_exit(struct vcpu *v, uint32_t start)
{
    uint64_t now = rdtsc();

    v->exit_tsc = now - ((uint32_t)now - start);
}

static enum exit_action run_section(struct vcpu *v, struct vm_exit *exit)
{
    const struct flush_domain *flush = v->vm->flush;
    void (*const run)(struct vcpu *, struct vm_exit *) = hv->run;
    enum exit_action action = ACT_LEAVE;

    hv->section_begin(v);
    __atomic_store_n(&v->in_guest, 1, __ATOMIC_SEQ_CST);
    tag_check(v);
    /* The requests may have been taken in by whoever woke the vCPU: look at events once. */
    if (!event_prepare(v)) {
        goto out;
    }
    for (;;) {
        uint64_t epoch = __atomic_load_n(&flush->epoch, __ATOMIC_ACQUIRE);

        if (unlikely(epoch != v->flushed_epoch) && !MUTANT(no_epoch_at_entry)) {
            tag_assign(v, epoch);
        }
        if (DOCTOR_EVERY_ENTRY && !doctor_is_sound(v)) {
            *exit = (struct vm_exit){.kind = EXIT_ENTRY_FAILED};
            action = ACT_SLOW;
            note_exit(v, rdtsc_low());
            break;
        }
        run(v, exit);

        uint32_t start = rdtsc_low();
        struct exit_stats *stats = &v->exits[exit->kind];
        stats->count++;
        action = exit_table[exit->kind].fast(v, exit);
        if (action != ACT_RESUME) {
            note_exit(v, start);
            break;
        }
        if (unlikely(__atomic_load_n(&v->request, __ATOMIC_RELAXED)) && !event_prepare(v)) {
            action = ACT_LEAVE;
            note_exit(v, start);
            break;
        }
        stats->ticks += rdtsc_low() - start;
    }
out:
    hv->section_end(v);
    __atomic_store_n(&v->in_guest, 0, __ATOMIC_RELEASE);
    return action;
}

/* INIT and SIPI ("MP Initialization"). False: the VM wants its vCPUs to stop. */
static bool handle_requests(struct vcpu *v)
{
    uint32_t request = __atomic_load_n(&v->request, __ATOMIC_ACQUIRE);

    if (request & VCPU_REQ_STOP) {
        return false;
    }
    if (unlikely(request & (VCPU_REQ_INIT | VCPU_REQ_SIPI))) {
        request =
            __atomic_fetch_and(&v->request, ~(VCPU_REQ_INIT | VCPU_REQ_SIPI), __ATOMIC_SEQ_CST);
        if (request & VCPU_REQ_INIT) {
            put(v);
            vcpu_init_signal(v);
        }
        if ((request & VCPU_REQ_SIPI) && v->wait_sipi) {
            uint8_t page = __atomic_load_n(&v->sipi_vector, __ATOMIC_RELAXED);
            struct segment cs;

            hv->get_seg(v, SEG_CS, &cs);
            cs.selector = (uint16_t)(page << 8);
            cs.base = (uint64_t)page << 12;
            hv->set_seg(v, SEG_CS, &cs);
            v->rip = 0;
            v->wait_sipi = false;
        }
    }
    return true;
}

/* True if the guest has something to do. */
static bool runnable(struct vcpu *v)
{
    if (unlikely(v->wait_sipi)) {
        return false;
    }
    if (v->halted && event_wakes(v)) {
        v->halted = false;
    }
    return !v->halted;
}

/*
 * Nothing to do; but the loads that say so may have passed the store that ended the last section. Whoever
 * asks for v when that is seen wakes the thread, whoever asks before has left a bit or a vector: look again
 * behind a fence, and one of the two sees the other (vcpu_request).
 */
static bool may_sleep(struct vcpu *v)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return !(__atomic_load_n(&v->request, __ATOMIC_RELAXED) & VCPU_REQ_THREAD) && !runnable(v);
}

static void dispatch_slow(struct vcpu *v, struct vm_exit *exit, enum exit_action action)
{
    if (action == ACT_SLOW) {
        action = exit_table[exit->kind].slow(v, exit);
        memwait_served(v, action == ACT_RESUME);
    }
    v->exits[exit->kind].ticks += rdtsc() - v->exit_tsc;
    if (action == ACT_YIELD || sched_need_resched()) {
        sched_yield();
    }
}

void run_vcpu(struct vcpu *v)
{
    struct vm_exit exit = {.kind = EXIT_NONE};

    while (handle_requests(v)) {
        if (!runnable(v)) {
            if (may_sleep(v)) {
                thread_block();
            }
            continue;
        }
        if (unlikely(v->vm->software_mmu) && !softmmu_ready(v)) {
            continue;
        }
        load(v);
        v->exit_tsc = rdtsc();
        exit.kind = EXIT_NONE;
        dispatch_slow(v, &exit, run_section(v, &exit));
    }
    put(v);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of processors, and the lock-rank checker's view of them. The table grows while smp.c
 * starts processors and is constant afterwards.
 */
#include "arch/x86_64/percpu.h"

#include "arch/x86_64/irqflags.h"
#include "kernel/lib/lockrank.h"
#include "kernel/log.h"
#include "kernel/panic.h"

static struct cpu boot_cpu = {.online = true};
static struct cpu *cpus[MAX_CPUS] = {&boot_cpu}; /* written before nr_online counts them */
static unsigned nr_online = 1;                   /* atomic */

void percpu_add(struct cpu *cpu)
{
    cpus[cpu->id] = cpu;
    __atomic_store_n(&nr_online, cpu->id + 1, __ATOMIC_RELEASE);
}

unsigned nr_cpus(void)
{
    return __atomic_load_n(&nr_online, __ATOMIC_ACQUIRE);
}

struct cpu *cpu_by_id(unsigned id)
{
    return cpus[id];
}

#ifdef BALLAST_DEBUG

uint32_t *lockrank_held(void)
{
    struct cpu *cpu = this_cpu();

    /* A panic takes what locks it must, whatever is held. */
    return cpu && !panic_active() ? &cpu->lock_ranks : NULL;
}

bool lockrank_interruptible(void)
{
    return irq_enabled();
}

void lockrank_broken(const char *name, const char *rank, const char *held)
{
    if (held == NULL) {
        panic("lock \"%s\" (rank %s) taken with interrupts on", name, rank);
    }
    panic("lock \"%s\" (rank %s) taken while holding one of rank %s", name, rank, held);
}

#endif

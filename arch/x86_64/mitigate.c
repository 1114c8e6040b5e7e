/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Carrying out what mitigate_plan.c decides; see mitigate.h.
 */
#include "arch/x86_64/mitigate.h"

#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/desc.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"

#define L7_EDX_ARCH_CAPABILITIES BIT(29)
#define PRED_CMD_IBPB 1u
#define FLUSH_CMD_L1D 1u

static struct mitigate_plan plan; /* constant after mitigate_init */
static struct {
    _Alignas(64) struct mitigate_cpu last; /* each processor its own line */
} cpus[MAX_CPUS];

static void read_facts(struct mitigate_facts *f)
{
    *f = (struct mitigate_facts){
        .vendor = cpu_features.vendor,
        .family = cpu_features.family,
        .model = cpu_features.model,
    };
    if (cpu_features.max_basic >= CPUID_STRUCTURED) {
        struct cpuid c = cpuid(CPUID_STRUCTURED, 0);

        f->l7_ebx = c.ebx;
        f->l7_edx = c.edx;
    }
    if (cpu_features.max_extended >= CPUID_ADDRESS_SIZES) {
        f->ext8_ebx = cpuid(CPUID_ADDRESS_SIZES, 0).ebx;
    }
    if ((f->l7_edx & L7_EDX_ARCH_CAPABILITIES) &&
        !rdmsr_safe(MSR_ARCH_CAPABILITIES, &f->arch_caps)) {
        f->arch_caps = 0;
    }
}

const char *mitigate_state_name(enum mitigate_state s)
{
    static const char *const names[] = {
        [MITIGATE_NOT_NEEDED] = "not needed",
        [MITIGATE_ACTIVE] = "flushed",
        [MITIGATE_NO_MEANS] = "open: no means in this microcode",
    };

    return names[s];
}

/* Emulated processors may promise a register that they do not have. */
static void try_command(enum mitigate_state *s, uint32_t msr, uint64_t value)
{
    if (*s == MITIGATE_ACTIVE && !wrmsr_safe(msr, value)) {
        *s = MITIGATE_NO_MEANS;
    }
}

void mitigate_init(void)
{
    struct mitigate_facts facts;

    read_facts(&facts);
    mitigate_decide(&facts, &plan);
    try_command(&plan.predictors, MSR_PRED_CMD, PRED_CMD_IBPB);
    try_command(&plan.l1_data, MSR_FLUSH_CMD, FLUSH_CMD_L1D);
}

const struct mitigate_plan *mitigate_plan(void)
{
    return &plan;
}

void mitigate_switch(uint32_t vm)
{
    static const uint16_t selector = SEL_DATA;
    const struct mitigate_flushes todo = mitigate_at_entry(&plan, &cpus[this_cpu()->id].last, vm);

    if (todo.predictors) {
        wrmsr(MSR_PRED_CMD, PRED_CMD_IBPB);
    }
    if (todo.l1_data) {
        wrmsr(MSR_FLUSH_CMD, FLUSH_CMD_L1D);
    }
    if (todo.buffers) {
        __asm__ volatile("verw %0" ::"m"(selector) : "cc");
    }
}

void mitigate_left(uint32_t vm)
{
    mitigate_at_leave(&cpus[this_cpu()->id].last, vm);
}

void mitigate_served(void)
{
    cpus[this_cpu()->id].last.served = true;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared by the files of the local APIC: vlapic.c (priorities and life cycle), vlapic_regs.c (the
 * register faces), vlapic_timer.c and vlapic_ipi.c.
 */
#pragma once

#include "kernel/devices/vlapic.h"
#include "kernel/sched/timer.h"
#include "kernel/vm/vm.h"

#define APIC_DEFAULT_BASE 0xfee00000ull
#define APIC_BASE_ADDR_MASK 0x000ffffffffff000ull

/* Register offsets in the xAPIC page; an x2APIC MSR is 0x800 plus the offset divided by 16. */
enum apic_reg {
    APIC_ID = 0x020,
    APIC_VERSION = 0x030,
    APIC_TPR = 0x080,
    APIC_APR = 0x090,
    APIC_PPR = 0x0a0,
    APIC_EOI = 0x0b0,
    APIC_RRD = 0x0c0,
    APIC_LDR = 0x0d0,
    APIC_DFR = 0x0e0,
    APIC_SVR = 0x0f0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_THERMAL = 0x330,
    APIC_LVT_PERF = 0x340,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
    APIC_SELF_IPI = 0x3f0
};

#define NR_LVTS 6
#define LVT_TIMER 0u
#define LVT_LINT0 3u
#define LVT_LINT1 4u
#define LVT_ERROR 5u
#define LVT_MASKED BIT(16)
#define LVT_DELIVERY(lvt) (((lvt) >> 8) & 7)
#define LVT_NMI 0x400u
#define LVT_EXTINT 0x700u
#define APIC_VERSION_VALUE (0x14u | ((NR_LVTS - 1u) << 16))
#define SVR_ENABLED BIT(8)
#define ESR_SEND_ILLEGAL 0x20u
#define ESR_RECEIVE_ILLEGAL 0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

/* Delivery modes of messages and local vector table entries. */
enum delivery {
    DELIVER_FIXED = 0,
    DELIVER_LOWEST = 1,
    DELIVER_NMI = 4,
    DELIVER_INIT = 5,
    DELIVER_SIPI = 6,
    DELIVER_EXTINT = 7
};

enum apic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

struct vlapic {
    /* Written from anywhere, atomically. */
    uint64_t irr[4];
    uint64_t tmr[4];
    uint32_t timer_expired; /* the host timer fired: look at the deadline */
    uint32_t esr_pending;   /* errors since the guest last wrote ESR */

    /* The vCPU thread's. Others read base_msr, svr, ldr, dfr and lvt to route messages. */
    struct vcpu *v;
    uint64_t base_msr;
    uint64_t isr[4];
    int isr_top; /* highest vector in service, -1: none */
    uint8_t tpr;
    uint32_t svr, ldr, dfr, esr;
    uint64_t icr;
    uint32_t lvt[NR_LVTS];

    /* Timer: the vCPU thread's but for `timer`. */
    uint64_t deadline;       /* host TSC of the next expiry, 0: disarmed */
    uint64_t guest_deadline; /* as the guest wrote it (TSC-deadline mode), 0: disarmed */
    uint64_t period;         /* host TSC ticks of the whole count */
    uint32_t initial_count, divide;
    struct timer timer;
};

static inline bool apic_x2(const struct vlapic *a)
{
    return (a->base_msr & BIT(10)) != 0;
}

static inline bool apic_hw_enabled(const struct vlapic *a)
{
    return (a->base_msr & BIT(11)) != 0;
}

static inline bool apic_sw_enabled(const struct vlapic *a)
{
    return (a->svr & SVR_ENABLED) != 0;
}

/* The logical destination: in x2APIC mode a function of the ID. */
static inline uint32_t apic_ldr(const struct vlapic *a)
{
    uint32_t id = a->v->id;

    if (apic_x2(a)) {
        return ((id >> 4) << 16) | (1u << (id & 15));
    }
    return __atomic_load_n(&a->ldr, __ATOMIC_RELAXED);
}

/* The owner's interrupt state changed while it is outside the guest: look again before entry. */
static inline void apic_recheck(struct vlapic *a)
{
    __atomic_fetch_or(&a->v->request, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
}

/* vlapic.c */
int apic_highest(const uint64_t map[4]); /* highest set bit of 256, or -1 */
uint8_t apic_ppr(struct vlapic *a);      /* processor priority */
void apic_eoi(struct vlapic *a);
void apic_error(struct vlapic *a, uint32_t bit);         /* any context */
void apic_raise_self(struct vlapic *a, unsigned vector); /* owner: no kick needed */

/* vlapic_ipi.c: act on the interrupt command `icr` (x2APIC layout: destination in the upper half). */
void apic_send(struct vlapic *a, uint64_t icr);

/* vlapic_timer.c; all by the owner thread but apic_timer_init/stop. */
void apic_timer_init(struct vlapic *a);
void apic_timer_stop(struct vlapic *a); /* may wait: not on the fast path */
void apic_timer_reset(struct vlapic *a);
void apic_timer_service(struct vlapic *a); /* raise what has expired, arm what comes next */
void apic_timer_set_count(struct vlapic *a, uint32_t count);
uint32_t apic_timer_count(struct vlapic *a); /* current count */
void apic_timer_set_divide(struct vlapic *a, uint32_t divide);
void apic_timer_set_deadline(struct vlapic *a, uint64_t guest_tsc);
uint64_t apic_timer_deadline(struct vlapic *a);
void apic_timer_lvt_changed(struct vlapic *a, uint32_t old_lvt);

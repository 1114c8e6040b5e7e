/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtual processors: building them, resetting them, their threads, and how others get their
 * attention. A thread lives as long as its VM; while the VM does not run it waits in
 * life_vcpu_enter.
 */
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "arch/x86_64/smp.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"
#include "mm/slab.h"
#include "mm/view.h"

_Static_assert(offsetof(struct vcpu, gpr) == 0, "kernel/vm/gpr.inc: gpr");
_Static_assert(offsetof(struct vcpu, rip) == 0x80, "kernel/vm/gpr.inc: rip");
_Static_assert(offsetof(struct vcpu, vendor) == 0x90, "kernel/vm/gpr.inc: vendor");

static void vcpu_main(void *arg)
{
    struct vcpu *v = arg;

    while (life_vcpu_enter(v)) {
        run_vcpu(v);
        life_vcpu_leave(v);
    }
}

void vcpu_destroy(struct vcpu *v)
{
    if (v == NULL) {
        return;
    }
    /* Its timer first: it wakes the thread. */
    if (v->lapic != NULL) {
        vlapic_destroy(v);
    }
    if (v->thread != NULL) {
        thread_join(v->thread);
    }
    hv->vcpu_fini(v);
    fpu_free(v->fpu);
    kfree(v);
}

enum hv_err vcpu_create(struct vm *vm, unsigned id)
{
    struct vcpu *v = kmalloc(sizeof(*v), vm->id);
    char name[sizeof(v->thread->name)];

    __atomic_store_n(&vm->vcpus[id], v, __ATOMIC_RELEASE);
    if (v == NULL) {
        return HV_ENOMEM;
    }
    v->vm = vm;
    v->id = id;
    v->cpu = UINT32_MAX;
    v->tag_cpu = UINT32_MAX;
    v->fpu = fpu_alloc(vm->id);
    if (v->fpu == NULL) {
        return HV_ENOMEM;
    }
    enum hv_err err = vlapic_create(v);
    if (err == HV_OK) {
        err = hv->vcpu_init(v);
    }
    if (err == HV_OK) {
        snprintf(name, sizeof(name), "%s/%u", vm->config.name, id);
        err = thread_create(name, vcpu_main, v, vm->config.cpu_shares, vm->id, &v->thread);
    }
    if (err == HV_OK) {
        v->thread->switch_out = run_switch_out;
    }
    return err;
}

/* "Processor State After Reset" */
static void reset_segments(struct vcpu *v)
{
    const struct segment data = {.attr = 0x93, .limit = 0xffff};
    const struct segment code = {
        .selector = 0xf000, .attr = 0x9b, .limit = 0xffff, .base = 0xffff0000};
    const struct segment ldt = {.attr = 0x82, .limit = 0xffff};
    /* A busy 32-bit TSS: some refuse long mode with a 16-bit one. */
    const struct segment tss = {.attr = 0x8b, .limit = 0xffff};
    const struct segment table = {.limit = 0xffff};

    for (enum seg_reg seg = SEG_ES; seg < SEG_LDTR; seg++) {
        hv->set_seg(v, seg, seg == SEG_CS ? &code : &data);
    }
    hv->set_seg(v, SEG_LDTR, &ldt);
    hv->set_seg(v, SEG_TR, &tss);
    hv->set_seg(v, SEG_GDTR, &table);
    hv->set_seg(v, SEG_IDTR, &table);
}

static void reset_processor(struct vcpu *v)
{
    static const struct {
        enum hv_reg reg;
        uint64_t value;
    } values[] = {
        {REG_RFLAGS, RFLAGS_FIXED1},
        {REG_CR4, 0},
        {REG_EFER, 0},
        {REG_CR0, CR0_ET}, /* caches on: off they would only slow the guest down */
        {REG_CR2, 0},
        {REG_CR3, 0},
        {REG_DR0, 0},
        {REG_DR0 + 1, 0},
        {REG_DR0 + 2, 0},
        {REG_DR0 + 3, 0},
        {REG_DR6, DR6_RESET},
        {REG_DR7, DR7_RESET},
        {REG_TPR, 0},
    };

    hv->vcpu_clear(v);
    reset_segments(v);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        hv->set_reg(v, values[i].reg, values[i].value);
    }
    (void)hv->set_msr(v, MSR_PAT, PAT_RESET);
    v->rip = 0xfff0;
    memset(v->gpr, 0, sizeof(v->gpr));
    v->gpr[GPR_RDX] = cpuid(CPUID_FEATURES, 0).eax; /* the processor's signature */
}

/* What INIT and power-on have in common. */
static void reset_registers(struct vcpu *v)
{
    hpa_t root;

    reset_processor(v);
    v->was_reset = true;
    v->pending_exception.type = EVENT_NONE;
    v->interrupted.type = EVENT_NONE;
    v->nmi_pending = false;
    v->irq_window = false;
    v->tpr_trap = false;
    v->halted = false;
    v->wait_sipi = v->id != 0;
    v->memory_wait.since_ns = 0;
    /* What the processor keeps under its tag comes from tables that are not in use any more. */
    __atomic_store_n(&v->flushed_epoch, 0, __ATOMIC_RELEASE);
    if (v->vm->software_mmu) {
        softmmu_stale(v);
    } else if (v->vm->view->ops->root(v->vm->view, &root) == HV_OK) {
        hv->set_root(v, root);
    }
    hv->set_tsc_offset(v, v->guest_tsc_offset);
}

void vcpu_init_signal(struct vcpu *v)
{
    vlapic_init_signal(v);
    reset_registers(v);
}

void vcpu_reset(struct vcpu *v)
{
    v->guest_tsc_offset = v->vm->tsc_offset;
    msr_reset(v);
    fpu_reset(v->fpu);
    reset_registers(v);
    vlapic_reset(v);
    memset(v->fetch, 0, sizeof(v->fetch));
    __atomic_fetch_and(&v->request, VCPU_REQ_STOP, __ATOMIC_RELAXED);
    if (v->vm->software_mmu) {
        softmmu_reset(v);
    }
}

/*
 *     request: leave a bit ; full fence ; look at in_guest
 *     section: in_guest = 1 ; full fence ; look at the bits         (run_section)
 *     sleep:   in_guest = 0 ; full fence ; look at the bits         (may_sleep; memwait.c's sleep; swapping_wait)
 */
void vcpu_request(struct vcpu *v, uint32_t bits)
{
    __atomic_fetch_or(&v->request, bits, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST)) {
        unsigned cpu = __atomic_load_n(&v->cpu, __ATOMIC_RELAXED);

        if (cpu != this_cpu()->id) {
            smp_kick(cpu);
        }
    } else {
        /* Its own thread too: this may be an interrupt between its last look and its sleep. */
        thread_wake(v->thread);
    }
}

uint64_t vcpu_guest_tsc(const struct vcpu *v)
{
    return rdtsc() + v->guest_tsc_offset;
}

void vcpu_paging(struct vcpu *v, struct guest_paging *out)
{
    out->cr0 = hv->get_reg(v, REG_CR0);
    out->cr3 = hv->get_reg(v, REG_CR3);
    out->cr4 = hv->get_reg(v, REG_CR4);
    out->efer = hv->get_reg(v, REG_EFER);
    for (unsigned i = 0; i < ARRAY_SIZE(out->pdptr); i++) {
        out->pdptr[i] = v->pdptr[i];
    }
}

unsigned vcpu_cpl(struct vcpu *v)
{
    struct segment ss;

    hv->get_seg(v, SEG_SS, &ss);
    return (ss.attr >> 5) & 3;
}

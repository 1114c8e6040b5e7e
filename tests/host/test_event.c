/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the next entry delivers (kernel/vm/event.c) on both vendors' control blocks (svm_event.c,
 * vmx_event.c): the order of events, what holds each off, and that what must wait gets an exit as soon as
 * it need wait no longer, and none before: one that comes again and again would stop the guest.
 * (How exceptions combine and what was cut short are common code: one vendor.)
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/devices/vpic.h"
#include "kernel/vm/exit.h"
#include "svm/svm.h"
#include "vmx/vmx.h"

const struct hv_backend *hv;
static struct vm vm;
static struct vcpu vcpu, *const v = &vcpu;
static struct vmcb vmcb;
static struct svm_vcpu svm_vcpu = {.vmcb = &vmcb};
static struct vmx_vcpu vmx_vcpu;
static int pending_vector, accepted, extint_vector;
static bool lint0_open;
static unsigned stops;
static uint64_t cr0;

/* ---- What event.c asks ---- */

int vlapic_pending(struct vlapic *a)
{
    (void)a;
    return pending_vector;
}

int vlapic_blocked(struct vlapic *a)
{
    (void)a;
    return -1;
}

void vlapic_accept(struct vlapic *a, unsigned vector)
{
    (void)a;
    assert_int_equal(vector, pending_vector);
    accepted = (int)vector;
    pending_vector = -1;
}

bool vlapic_takes_extint(const struct vlapic *a)
{
    (void)a;
    return lint0_open;
}

int vpic_acknowledge(struct vm *of)
{
    int vector = extint_vector;

    extint_vector = -1;
    of->intr = 0;
    return vector;
}

void vm_stop_request(struct vm *of, enum stop_reason reason, uint32_t code, const char *fmt, ...)
{
    (void)of, (void)code, (void)fmt;
    assert_int_equal(reason, STOP_TRIPLE_FAULT);
    stops++;
}

/* ---- The vendors ---- */

uint64_t vmx_fetch(struct vcpu *u, enum vmx_copy what)
{
    (void)u;
    fail_msg("field %u was never set", what);
    return 0;
}

static uint64_t get_reg(struct vcpu *u, enum hv_reg reg)
{
    (void)u;
    assert_int_equal(reg, REG_CR0);
    return cr0;
}

static const struct hv_backend svm = {.get_reg = get_reg,
                                      .inject = svm_inject,
                                      .can_take = svm_can_take,
                                      .window = svm_window,
                                      .trap_tpr = svm_trap_tpr,
                                      .clear_shadow = svm_clear_shadow};
static const struct hv_backend vmx = {.get_reg = get_reg,
                                      .inject = vmx_inject,
                                      .can_take = vmx_can_take,
                                      .window = vmx_window,
                                      .trap_tpr = vmx_trap_tpr,
                                      .clear_shadow = vmx_clear_shadow};

static bool on_svm(void)
{
    return hv == &svm;
}

static void fresh(const struct hv_backend *backend)
{
    hv = backend;
    vcpu = (struct vcpu){.vm = &vm, .vendor = on_svm() ? (void *)&svm_vcpu : (void *)&vmx_vcpu};
    vmcb = (struct vmcb){0};
    svm_vcpu = (struct svm_vcpu){.vmcb = &vmcb};
    vmx_vcpu = (struct vmx_vcpu){.valid = ~0ull};
    pending_vector = accepted = extint_vector = -1;
    vm.intr = 0;
    lint0_open = false;
    stops = 0;
    cr0 = CR0_PE;
    v->rip = 0x1000;
}

static void set_if(bool on)
{
    uint64_t flags = on ? RFLAGS_IF | 2 : 2;

    vmcb.save.rflags = flags;
    vmx_vcpu.copy[VC_RFLAGS] = flags;
}

/* `by`: what the VMCS tells apart. */
static void set_shadow(uint64_t by)
{
    vmcb.ctl.int_state = by ? INTSTATE_SHADOW : 0;
    vmx_vcpu.copy[VC_INTERRUPTIBILITY] = by;
}

_Static_assert(EVINJ_VALID == EVENT_VALID && EVINJ_ERROR_VALID == EVENT_HAS_ERROR,
               "one word for both");

/* What the next entry delivers: its vector, or -1. The entry takes it. */
static int enter(void)
{
    uint64_t word = on_svm() ? vmcb.ctl.event_inj : vmx_vcpu.copy[VC_ENTRY_EVENT];
    bool any = (word & EVINJ_VALID) != 0;

    assert_true(on_svm() || any == vmx_vcpu.event_queued);
    if (any && !on_svm() && (word >> EVENT_TYPE_SHIFT & 7) == EVENT_TYPE_NMI) {
        vmx_vcpu.copy[VC_INTERRUPTIBILITY] |= BLOCKED_BY_NMI; /* as the processor */
    }
    vmcb.ctl.event_inj = 0;
    vmx_vcpu.copy[VC_ENTRY_EVENT] = 0;
    vmx_vcpu.event_queued = false;
    return any ? (int)(word & 0xff) : -1;
}

/* An entry's vector, or -1. */
static int next(void)
{
    assert_true(event_prepare(v));
    return enter();
}

static bool irq_window(void)
{
    return on_svm() ? (vmcb.ctl.int_control & INTCTL_IRQ) != 0
                    : (vmx_vcpu.copy[VC_PROC_CTL] & PROC_IRQ_WINDOW) != 0;
}

/* Something will tell when NMIs can be taken. */
static bool nmi_window(void)
{
    return on_svm() ? irq_window() || (vmcb.ctl.intercept1 & (uint32_t)ICEPT1_IRET) != 0
                    : (vmx_vcpu.copy[VC_PROC_CTL] & PROC_NMI_WINDOW) != 0;
}

#define FOR_BOTH(vendor)                                                                           \
    for (const struct hv_backend *const *vendor = (const struct hv_backend *[]){&svm, &vmx, NULL}; \
         *vendor; vendor++)

/* ---- Order ---- */

static void test_order(void **state)
{
    (void)state;
    FOR_BOTH(vendor)
    {
        fresh(*vendor);
        set_if(true);
        v->interrupted = (struct event){.type = EVENT_INTERRUPT, .vector = 0x55};
        v->pending_exception = (struct event){.type = EVENT_EXCEPTION, .vector = EXC_DB};
        v->request = VCPU_REQ_NMI | VCPU_REQ_EVENT;
        pending_vector = 0x31;
        extint_vector = 0x28;
        lint0_open = true;
        vm.intr = 1;
        assert_int_equal(next(), 0x55);
        assert_int_equal(next(), EXC_DB);
        assert_int_equal(next(), EXC_NMI);
        assert_int_equal(next(), 0x28); /* the 8259s' know no priority */
        assert_true(irq_window());
        assert_int_equal(accepted, -1);
        assert_int_equal(next(), 0x31);
        assert_int_equal(accepted, 0x31);
        assert_false(irq_window());
        assert_int_equal(next(), -1);
        assert_int_equal(v->request, 0);
    }
}

/* Nothing is delivered to a vCPU that is to leave the loop, and nothing lost. */
static void test_leaving(void **state)
{
    static const uint32_t reasons[] = {VCPU_REQ_STOP, VCPU_REQ_INIT, VCPU_REQ_SIPI, VCPU_REQ_MMU};

    (void)state;
    FOR_BOTH(vendor)
    {
        for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++) {
            fresh(*vendor);
            set_if(true);
            pending_vector = 0x31;
            v->request = reasons[i] | VCPU_REQ_NMI;
            assert_false(event_prepare(v));
            assert_int_equal(enter(), -1);
            v->request &= ~reasons[i];
            assert_int_equal(next(), EXC_NMI);
            assert_int_equal(next(), 0x31);
        }
    }
}

/* ---- What holds events off ---- */

static void test_interrupt_waits(void **state)
{
    (void)state;
    FOR_BOTH(vendor)
    {
        fresh(*vendor);
        set_if(false);
        pending_vector = 0x31;
        assert_int_equal(next(), -1);
        assert_true(irq_window());
        assert_false(event_wakes(v));
        set_if(true);
        set_shadow(BLOCKED_BY_STI);
        assert_int_equal(next(), -1);
        assert_true(irq_window());
        set_shadow(0);
        assert_true(event_wakes(v));
        assert_int_equal(next(), 0x31);
        assert_false(irq_window());

        /* HLT behind STI: the exit's emulation ends the shadow. */
        set_shadow(BLOCKED_BY_STI);
        pending_vector = 0x32;
        hv->clear_shadow(v);
        assert_true(event_wakes(v));
        assert_int_equal(next(), 0x32);
    }
}

/* STI's shadow holds NMIs back on AMD only, whose VMCB does not tell the shadows apart. */
static void test_nmi_in_shadow(void **state)
{
    static const uint64_t shadows[] = {BLOCKED_BY_STI, BLOCKED_BY_MOV_SS};

    (void)state;
    FOR_BOTH(vendor)
    {
        for (unsigned i = 0; i < ARRAY_SIZE(shadows); i++) {
            fresh(*vendor);
            bool waits = on_svm() || shadows[i] == BLOCKED_BY_MOV_SS;
            set_if(true);
            set_shadow(shadows[i]);
            v->request = VCPU_REQ_NMI;
            assert_int_equal(event_wakes(v), !waits);
            assert_int_equal(next(), waits ? -1 : EXC_NMI);
            assert_int_equal(v->nmi_pending, waits);
            if (waits) {
                assert_true(nmi_window());
                set_shadow(0);
                assert_int_equal(next(), EXC_NMI);
            }
            /* An event that is delivered ends the shadow it was delivered in. */
            assert_int_equal(vmx_vcpu.copy[VC_INTERRUPTIBILITY] & BLOCKED_SHADOW, 0);
        }
    }
}

static void test_nmi_in_nmi_vmx(void **state)
{
    (void)state;
    fresh(&vmx);
    set_if(true);
    v->request = VCPU_REQ_NMI;
    assert_int_equal(next(), EXC_NMI);
    assert_false(nmi_window());
    v->request = VCPU_REQ_NMI;
    assert_int_equal(next(), -1);
    assert_true(nmi_window());
    assert_false(event_wakes(v));
    vmx_vcpu.copy[VC_INTERRUPTIBILITY] = 0; /* IRET */
    assert_int_equal(next(), EXC_NMI);
    assert_false(nmi_window());

    /* An NMI whose delivery an exit cut short begins again, though NMIs are blocked. */
    v->interrupted = (struct event){.type = EVENT_NMI, .vector = EXC_NMI};
    assert_int_equal(next(), EXC_NMI);
    /* The IRET that unblocked NMIs faulted, and is to be executed again: blocked until then. */
    vmx_vcpu.copy[VC_INTERRUPTIBILITY] = 0;
    vmx_event_nmi_unblocked(v);
    v->request = VCPU_REQ_NMI;
    assert_int_equal(next(), -1);
    assert_true(nmi_window());
}

/* SVM has no blocking of its own: an intercepted IRET begins the end of it. */
static void test_nmi_in_nmi_svm(void **state)
{
    (void)state;
    for (unsigned enabled = 0; enabled < 2; enabled++) {
        fresh(&svm);
        v->request = VCPU_REQ_NMI;
        assert_int_equal(next(), EXC_NMI);
        assert_true(vmcb.ctl.intercept1 & (uint32_t)ICEPT1_IRET);
        v->request = VCPU_REQ_NMI;
        assert_int_equal(next(), -1);
        assert_true(nmi_window());
        assert_false(irq_window()); /* it would open inside the handler */

        /* At the IRET: with interrupts off the window opens behind it at the soonest; with interrupts on
         * it would open here, before it, and again. */
        v->rip = 0x2000;
        set_if(enabled);
        svm_event_iret(v);
        assert_false(vmcb.ctl.intercept1 & (uint32_t)ICEPT1_IRET);
        assert_int_equal(next(), -1);
        assert_int_equal(irq_window(), !enabled);
        assert_false(event_wakes(v));
        assert_int_equal(next(), -1); /* an exit before it was executed */

        v->rip = 0x1000;
        assert_int_equal(next(), EXC_NMI);
        assert_false(irq_window());
    }
}

/* The V_IRQ window serves two; it closes when neither needs it. */
static void test_shared_window(void **state)
{
    (void)state;
    fresh(&svm);
    set_if(true);
    set_shadow(BLOCKED_BY_MOV_SS);
    v->request = VCPU_REQ_NMI;
    pending_vector = 0x31;
    assert_int_equal(next(), -1);
    assert_true(irq_window());
    assert_true(vmcb.ctl.intercept1 & (uint32_t)ICEPT1_VINTR);
    set_shadow(0);
    assert_int_equal(next(), EXC_NMI);
    assert_true(irq_window());
    assert_int_equal(next(), 0x31);
    assert_false(irq_window());
    assert_false(vmcb.ctl.intercept1 & (uint32_t)ICEPT1_VINTR);
}

/* ---- Exceptions that meet ---- */

static void test_double_faults(void **state)
{
    static const struct {
        uint8_t first, second;
        int becomes; /* vector; -1: the VM stops */
    } cases[] = {
        {EXC_DB, EXC_GP, EXC_GP}, {EXC_GP, EXC_DB, EXC_DB}, {EXC_GP, EXC_NP, EXC_DF},
        {EXC_GP, EXC_PF, EXC_PF}, {EXC_PF, EXC_GP, EXC_DF}, {EXC_PF, EXC_PF, EXC_DF},
        {EXC_PF, EXC_UD, EXC_UD}, {EXC_DF, EXC_GP, -1},     {EXC_DF, EXC_PF, -1},
        {EXC_DF, EXC_DB, EXC_DB}, {EXC_DE, EXC_TS, EXC_DF}, {EXC_BP, EXC_PF, EXC_PF},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        for (unsigned queued = 0; queued < 2; queued++) {
            struct event first = {.type = EVENT_EXCEPTION, .vector = cases[i].first};

            fresh(&svm);
            *(queued ? &v->pending_exception : &v->interrupted) = first;
            vcpu_inject_exception(v, cases[i].second, cases[i].second == EXC_PF, 0x12);
            assert_int_equal(stops, cases[i].becomes < 0);
            if (cases[i].becomes < 0) {
                continue;
            }
            assert_true(event_prepare(v));
            assert_int_equal(vmcb.ctl.event_inj & EVINJ_VECTOR, cases[i].becomes);
            if (cases[i].becomes == EXC_DF) {
                assert_true(vmcb.ctl.event_inj & EVINJ_ERROR_VALID);
                assert_int_equal(vmcb.ctl.event_inj >> EVINJ_ERROR_SHIFT, 0);
            } else if (cases[i].becomes == EXC_PF) {
                assert_int_equal(vmcb.ctl.event_inj >> EVINJ_ERROR_SHIFT, 0x12);
            }
            enter();
            assert_int_equal(next(), -1);
        }
    }
    /* An interrupt that was cut short goes first; its fault will be met again. */
    fresh(&svm);
    v->interrupted = (struct event){.type = EVENT_INTERRUPT, .vector = 0x55};
    vcpu_inject_exception(v, EXC_GP, true, 0);
    assert_int_equal(next(), 0x55);
    assert_int_equal(next(), -1);
}

/* Real mode knows no error codes. */
static void test_error_codes(void **state)
{
    (void)state;
    FOR_BOTH(vendor)
    {
        for (unsigned real = 0; real < 2; real++) {
            fresh(*vendor);
            cr0 = real ? 0 : CR0_PE;
            vcpu_inject_exception(v, EXC_GP, true, 0x10);
            assert_true(event_prepare(v));
            uint64_t word = on_svm() ? vmcb.ctl.event_inj : vmx_vcpu.copy[VC_ENTRY_EVENT];
            assert_int_equal((word & EVINJ_ERROR_VALID) != 0, !real);
            assert_int_equal(enter(), EXC_GP);
        }
    }
}

/* What an exit says that it cut short. */
static void test_cut_short(void **state)
{
    static const struct {
        uint64_t word;
        enum event_type type;
        uint8_t vector;
        bool has_error;
    } cases[] = {
        {0x55, EVENT_NONE, 0, false}, /* not valid */
        {EVENT_VALID | 0x55, EVENT_INTERRUPT, 0x55, false},
        {EVENT_VALID | 2 << 8 | EXC_NMI, EVENT_NMI, EXC_NMI, false},
        {EVENT_VALID | 1 << 11 | 3 << 8 | EXC_GP, EVENT_EXCEPTION, EXC_GP, true},
        {EVENT_VALID | 3 << 8 | EXC_DB, EVENT_EXCEPTION, EXC_DB, false},
        /* INT n, INT3, INTO, INT1: executed again. */
        {EVENT_VALID | 4 << 8 | 0x80, EVENT_NONE, 0, false},
        {EVENT_VALID | 6 << 8 | EXC_BP, EVENT_NONE, 0, false},
        {EVENT_VALID | 3 << 8 | EXC_BP, EVENT_NONE, 0, false},
        {EVENT_VALID | 3 << 8 | EXC_OF, EVENT_NONE, 0, false},
        {EVENT_VALID | 5 << 8 | EXC_DB, EVENT_NONE, 0, false},
        /* QEMU's word for an interrupt. */
        {EVENT_VALID | 3 << 8 | 0x55, EVENT_INTERRUPT, 0x55, false},
    };

    (void)state;
    fresh(&vmx);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        v->interrupted = (struct event){0};
        vcpu_event_cut_short(v, cases[i].word, 0x1234);
        assert_int_equal(v->interrupted.type, cases[i].type);
        if (cases[i].type != EVENT_NONE) {
            assert_int_equal(v->interrupted.vector, cases[i].vector);
            assert_int_equal(v->interrupted.has_error, cases[i].has_error);
            assert_int_equal(v->interrupted.error, cases[i].has_error ? 0x1234 : 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),           cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_interrupt_waits), cmocka_unit_test(test_nmi_in_shadow),
        cmocka_unit_test(test_nmi_in_nmi_vmx),  cmocka_unit_test(test_nmi_in_nmi_svm),
        cmocka_unit_test(test_shared_window),   cmocka_unit_test(test_double_faults),
        cmocka_unit_test(test_error_codes),     cmocka_unit_test(test_cut_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

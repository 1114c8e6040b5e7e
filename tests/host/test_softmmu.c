/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The software MMU's share of a vCPU, with a view that answers as it is told: what each answer becomes,
 * and that no translation outlives a load of CR3 or an INVLPG.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "arch/x86_64/regs.h"
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/overwrite.h"
#include "kernel/vm/softmmu_regs.h"
#include "mm/gwalk.h"
#include "mm/p2m.h"
#include "tests/host/fakevm.h"

static struct view view;
static struct vcpu *v;
static struct {
    enum hv_err load, invlpg, fault; /* what the view says */
    uint32_t error;
    gpa_t gpa;
    uint64_t gva, access, how; /* what it was asked */
    uint32_t word;             /* code at RIP; 0: not reachable */
    hpa_t root;
    unsigned injected, waits, devices, failures;
    bool ram, known, overwrites;
    unsigned asked, served; /* of overwriting */
} now;

enum hv_err shadow_load(struct view *w, struct shadow_cpu *cpu, const struct guest_paging *paging,
                        bool fast, hpa_t *root)
{
    (void)w, (void)fast;
    if (now.load == HV_OK) {
        cpu->paging = *paging;
        *root = HPA(paging->cr3 + 0x100000);
    }
    return now.load;
}

bool shadow_switch(struct view *w, struct shadow_cpu *cpu, uint64_t cr3, hpa_t *root)
{
    (void)w, (void)cpu;
    *root = HPA(cr3 + 0x200000);
    return now.known;
}

enum hv_err shadow_invlpg(struct view *w, struct shadow_cpu *cpu, gva_t gva, bool fast)
{
    (void)w, (void)cpu, (void)fast;
    now.gva = gva.a;
    return now.invlpg;
}

enum hv_err shadow_fault(struct view *w, struct shadow_cpu *cpu, struct shadow_fault *f)
{
    (void)w, (void)cpu;
    now.gva = f->gva.a;
    now.access = f->access;
    now.how = f->how;
    f->error = now.error;
    f->gpa = now.gpa;
    f->gfn = GFN(77);
    return now.fault;
}

void shadow_tidy(struct view *w)
{
    (void)w;
}

const uint8_t *vcpu_code(struct vcpu *u, unsigned len)
{
    (void)u;
    assert_true(len <= sizeof now.word);
    return now.word != 0 ? (const uint8_t *)&now.word : NULL;
}

enum hv_err emul_decode_invlpg(struct vcpu *u, bool fast, uint8_t *insn_len, gva_t *gva)
{
    (void)u;
    *insn_len = 7;
    *gva = GVA(0x7000);
    return fast ? HV_EAGAIN : HV_OK;
}

enum exit_action fault_device(struct vcpu *u, struct vm_exit *exit, bool fast)
{
    (void)u, (void)fast;
    now.devices++;
    now.ram = exit->mem.ram;
    assert_int_equal(exit->mem.gpa.a, now.gpa.a);
    return ACT_RESUME;
}

enum exit_action fault_failed(struct vcpu *u, gpa_t gpa, enum hv_err err)
{
    (void)u;
    now.failures++;
    assert_int_equal(gpa.a, 77 * PAGE_SIZE);
    assert_int_equal(err, now.fault);
    return ACT_LEAVE;
}

unsigned memwait_nr_in_line;

uint32_t memwait_access(struct vcpu *u)
{
    (void)u;
    return memwait_nr_in_line != 0 ? P2M_VCPU | P2M_LINE : P2M_VCPU;
}

void memwait_served(struct vcpu *u, bool to_the_end)
{
    (void)u;
    now.served += to_the_end;
}

bool overwrite_linear(struct vcpu *u, gva_t gva)
{
    assert_false(vcpu_in_section(u));
    assert_int_equal(gva.a, 0x1234);
    now.asked++;
    return now.overwrites;
}

void memwait_or_stop(struct vcpu *u, uint64_t gpa)
{
    (void)u, (void)gpa;
    now.waits++;
}

enum exit_action exit_again(struct vcpu *u, enum hv_err err)
{
    (void)err;
    return vcpu_in_section(u) ? ACT_SLOW : ACT_LEAVE;
}

enum exit_action insn_single_step(struct vcpu *u)
{
    (void)u;
    return ACT_RESUME;
}

void vcpu_paging(struct vcpu *u, struct guest_paging *out)
{
    *out = (struct guest_paging){.cr3 = hv->get_reg(u, REG_CR3), .cr4 = hv->get_reg(u, REG_CR4)};
}

static void set_root(struct vcpu *u, hpa_t root)
{
    (void)u;
    now.root = root;
}

static enum hv_err inject(struct vcpu *u, const struct event *ev)
{
    (void)u;
    assert_int_equal(ev->vector, EXC_PF);
    assert_int_equal(ev->error, now.error);
    now.injected++;
    return HV_OK;
}

static struct hv_backend backend;

static void begin(bool section)
{
    fakevm_reset(1);
    if (hv != &backend) {
        backend = *hv;
        backend.set_root = set_root;
        backend.inject = inject;
        hv = &backend;
    }
    v = &fake.vcpu[0];
    fake.vm.view = &view;
    fake.vm.software_mmu = true;
    v->in_guest = section;
    v->plain_step = true;
    v->flushed_epoch = 5;
    now = (typeof(now)){.load = HV_OK};
}

static void cr3_loads(void **state)
{
    (void)state;
    begin(true);
    assert_int_equal(softmmu_cr3(v, 0x5000), HV_OK);
    assert_int_equal(now.root.a, 0x105000);
    assert_int_equal(fake.regs[0][REG_CR3], 0x5000);
    assert_int_equal(v->flushed_epoch, 0);
    begin(true);
    now.load = HV_EAGAIN;
    assert_int_equal(softmmu_cr3(v, 0x5000), HV_EAGAIN);
    assert_int_equal(fake.regs[0][REG_CR3], 0);
    assert_int_equal(v->flushed_epoch, 0); /* what the view has traced counts on it */
    v->flushed_epoch = 5;
    now.known = true;
    assert_int_equal(softmmu_cr3(v, 0x5000), HV_OK);
    assert_int_equal(now.root.a, 0x205000);
    assert_int_equal(fake.regs[0][REG_CR3], 0x5000);
    assert_int_equal(v->flushed_epoch, 0);
}

static void changed_and_ready(void **state)
{
    (void)state;
    begin(true);
    softmmu_changed(v);
    assert_int_equal(v->request & VCPU_REQ_MMU, 0);
    assert_int_equal(v->flushed_epoch, 0);
    now.load = HV_EAGAIN;
    softmmu_changed(v);
    assert_int_not_equal(v->request & VCPU_REQ_MMU, 0);
    v->in_guest = 0;
    now.load = HV_ENOMEM;
    assert_false(softmmu_ready(v));
    assert_int_equal(now.waits, 1);
    now.load = HV_OK;
    assert_true(softmmu_ready(v));
    assert_int_equal(v->request & VCPU_REQ_MMU, 0);
    softmmu_reset(v);
    assert_int_not_equal(v->request & VCPU_REQ_MMU, 0);
}

static void invlpg_forms(void **state)
{
    struct vm_exit exit = {.kind = EXIT_INVLPG};

    (void)state;
    begin(true);
    v->gpr[GPR_RDI] = 0xabc000;
    now.word = 0x3f010f; /* invlpg [rdi] */
    assert_int_equal(softmmu_invlpg(v, &exit), ACT_RESUME);
    assert_int_equal(now.gva, 0xabc000);
    assert_int_equal(v->rip, 3);
    assert_int_equal(v->flushed_epoch, 0);

    begin(true);
    v->gpr[GPR_R8 + 7] = 0xdef000;
    now.word = 0x3f010f41; /* invlpg [r15] */
    exit = (struct vm_exit){.kind = EXIT_INVLPG};
    assert_int_equal(softmmu_invlpg(v, &exit), ACT_RESUME);
    assert_int_equal(now.gva, 0xdef000);
    assert_int_equal(v->rip, 4);

    /* A displacement: by the decoder, off the fast path. */
    begin(true);
    now.word = 0x7f010f;
    exit = (struct vm_exit){.kind = EXIT_INVLPG};
    assert_int_equal(softmmu_invlpg(v, &exit), ACT_SLOW);
    v->in_guest = 0;
    assert_int_equal(softmmu_invlpg(v, &exit), ACT_RESUME);
    assert_int_equal(now.gva, 0x7000);
    assert_int_equal(v->rip, 7);
}

static enum exit_action fault(uint32_t error)
{
    struct vm_exit exit = {.kind = EXIT_PAGE_FAULT, .pf = {GVA(0x1234), error}};

    return softmmu_fault(v, &exit);
}

static void faults(void **state)
{
    (void)state;
    begin(true);
    assert_int_equal(fault(PFEC_W | PFEC_U), ACT_RESUME);
    assert_int_equal(now.access, GWALK_WRITE | GWALK_USER);
    assert_int_equal(now.how, P2M_FAST);
    now.fault = HV_EFAULT;
    now.error = 6;
    assert_int_equal(fault(PFEC_I), ACT_RESUME);
    assert_int_equal(now.access, GWALK_EXEC);
    assert_int_equal(now.injected, 1);
    assert_int_equal(fake.regs[0][REG_CR2], 0x1234);

    /* While an interrupt was delivered: that one is gone, and others are let in. */
    v->interrupted.type = EVENT_INTERRUPT;
    assert_int_equal(fault(0), ACT_LEAVE);
    assert_int_equal(v->interrupted.type, EVENT_NONE);
    assert_int_equal(fake.exception.count, 1);
    assert_int_equal(fake.exception.error, 6);

    v->shadow.paging.cr4 = CR4_SMAP;
    fake.regs[0][REG_RFLAGS] = RFLAGS_AC;
    now.fault = HV_OK;
    (void)fault(PFEC_W);
    assert_int_equal(now.access, GWALK_WRITE | GWALK_AC);

    /* Whoever waits for frames comes first. */
    memwait_nr_in_line = 1;
    (void)fault(0);
    assert_int_equal(now.how, P2M_FAST | P2M_LINE);
    v->in_guest = 0;
    (void)fault(0);
    assert_int_equal(now.how, P2M_VCPU | P2M_LINE);
    memwait_nr_in_line = 0;
    v->in_guest = 1;

    now.gpa = GPA(0xfee00000);
    now.fault = HV_ENOENT;
    assert_int_equal(fault(PFEC_W), ACT_RESUME);
    assert_false(now.ram);
    now.fault = HV_EPERM;
    assert_int_equal(fault(PFEC_W), ACT_RESUME);
    assert_true(now.ram);
    assert_int_equal(now.devices, 2);

    now.fault = HV_EAGAIN;
    assert_int_equal(fault(0), ACT_SLOW);
    v->in_guest = 0;
    assert_int_equal(fault(0), ACT_LEAVE);
    now.fault = HV_ENOMEM;
    assert_int_equal(fault(0), ACT_LEAVE);
    assert_int_equal(now.failures, 2);
}

/* Only off the fast path, for writes by an instruction, when nobody else comes first. */
static void overwritten(void **state)
{
    (void)state;
    begin(true);
    now.overwrites = true;
    now.fault = HV_EAGAIN;
    assert_int_equal(fault(PFEC_W), ACT_SLOW);
    v->in_guest = 0;
    assert_int_equal(fault(PFEC_U), ACT_LEAVE);
    v->interrupted.type = EVENT_INTERRUPT;
    assert_int_equal(fault(PFEC_W), ACT_LEAVE);
    v->interrupted.type = EVENT_NONE;
    memwait_nr_in_line = 1;
    assert_int_equal(fault(PFEC_W), ACT_LEAVE);
    memwait_nr_in_line = 0;
    assert_true(now.asked == 0 && now.failures == 3);
    /* Done: the page is not asked for. */
    assert_int_equal(fault(PFEC_W), ACT_LEAVE);
    assert_true(now.asked == 1 && now.served == 1 && now.failures == 3);
    now.overwrites = false;
    assert_int_equal(fault(PFEC_W | PFEC_P), ACT_LEAVE);
    assert_true(now.asked == 2 && now.served == 1 && now.failures == 4);
}

/* The contract of backend.h, bit by bit. */
static void processor_registers(void **state)
{
    const uint64_t never = CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_PKE | CR4_CET;
    const uint64_t walk = CR4_SMEP | CR4_SMAP;

    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t cr0 = CR0_PE | CR0_TS | CR0_CD | CR0_NW | (i & 1 ? CR0_PG : 0);
        uint64_t efer = EFER_SCE | (i & 2 ? EFER_LME : 0);
        uint64_t cr4 = CR4_OSFXSR | (i & 4 ? never | walk : 0);
        struct softmmu_regs r = softmmu_regs(cr0, cr4, efer, (i & 8) != 0);

        assert_int_equal(r.cr0, CR0_PE | CR0_TS | CR0_PG | CR0_WP);
        assert_int_equal(r.cr4, CR4_OSFXSR | CR4_PAE | ((i & 5) == 5 ? walk : 0));
        assert_int_equal(r.efer, EFER_SCE | ((i & 3) == 3 ? EFER_LME | EFER_LMA : 0) |
                                     (i & 8 ? EFER_NXE : 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cr3_loads),    cmocka_unit_test(changed_and_ready),
        cmocka_unit_test(invlpg_forms), cmocka_unit_test(faults),
        cmocka_unit_test(overwritten),  cmocka_unit_test(processor_registers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

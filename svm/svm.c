/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The SVM back-end: probing, switching the extension on and off, life of the vendor's structures,
 * the fast-path section and one entry. Policy lives in kernel/vm.
 *
 * A section is the stretch in which the guest's FS, GS, TR, LDTR and system-call MSRs are in the
 * processor. It runs with GIF clear and IF set: a pending interrupt ends VMRUN at once and is taken
 * after STGI. While TR is the guest's, an IDT with interrupt stacks would take them from guest
 * memory, so the IDT without them is loaded first and exchanged last.
 */
#include "svm/svm.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/desc.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/pt/fmt_x86.h"
#include "mm/slab.h"
#include "svm/svm_doctor.h"

#define CPUID_SVM_RDPRU 4u /* leaf 80000008H, EBX */

static struct svm_limits limits; /* for the doctor; every processor writes the same */

/* ---- Probe and per-processor switch ---- */

static enum hv_err missing(struct backend_caps *caps, const char *what)
{
    str_copy(caps->missing, sizeof(caps->missing), what);
    return HV_ENOTSUP;
}

static enum hv_err svm_probe(struct backend_caps *caps)
{
    const struct cpu_features *f = &cpu_features;
    uint64_t vm_cr;

    caps->name = "SVM";
    caps->present = f->svm;
    if (!f->svm) {
        return missing(caps, "SVM: CPUID 80000001H does not offer it (AMD processors: switch on "
                             "\"SVM Mode\" or \"Virtualization\" in the firmware)");
    }
    /* Emulators of early processors have no VM_CR: then nothing can have switched SVM off. */
    if (rdmsr_safe(MSR_VM_CR, &vm_cr) && (vm_cr & VM_CR_SVMDIS)) {
        return missing(caps, "SVM: switched off by firmware (VM_CR.SVMDIS): switch on \"SVM Mode\" "
                             "in the firmware's CPU options");
    }
    if (f->nr_asids < 2) {
        return missing(caps, "SVM is there, but offers no ASID for guests (CPUID 8000000AH EBX)");
    }
    caps->nr_tags = f->nr_asids - 1;
    caps->nested_paging = f->npt;
    caps->nested_max_order = f->page1gb ? ORDER_1G : ORDER_2M;
    caps->software_mmu = true;
    caps->next_rip = f->nrips;
    caps->decode_assists = f->decode_assists;
    caps->flush_by_tag = f->flush_by_asid;
    caps->clean_bits = f->vmcb_clean;
    caps->pause_filter = f->pause_filter;
    caps->unrestricted = true;
    caps->nested_format = &fmt_x86_npt;
    return HV_OK;
}

static void svm_cpu_disable(void)
{
    struct cpu *cpu = this_cpu();
    struct svm_cpu *s = cpu->vendor;

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME);
    cpu->vendor = NULL;
    if (s != NULL) {
        kfree(s->hsave);
        kfree(s->host);
        kfree(s);
    }
}

static enum hv_err svm_cpu_enable(void)
{
    struct cpu *cpu = this_cpu();
    struct svm_cpu *s = kmalloc(sizeof(*s), OWNER_HOST);

    cpu->vendor = s;
    if (s == NULL) {
        return HV_ENOMEM;
    }
    s->hsave = kmalloc(PAGE_SIZE, OWNER_HOST);
    s->host = kmalloc(PAGE_SIZE, OWNER_HOST);
    if (s->hsave == NULL || s->host == NULL) {
        kfree(s->hsave);
        kfree(s->host);
        kfree(s);
        cpu->vendor = NULL;
        return HV_ENOMEM;
    }
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, virt_to_phys(s->hsave).a);
    /* The host never changes what VMSAVE stores: once is enough. */
    s->host_pa = virt_to_phys(s->host).a;
    svm_vmsave(s->host_pa);
    limits = (struct svm_limits){
        .phys_bits = cpu_features.phys_bits,
        .nr_asids = cpu_features.nr_asids,
        .cr4_reserved = ~(BIT(25) - 1) | BIT(15) | BIT(19) | CR4_VMXE | CR4_SMXE | CR4_PKS,
        .efer_reserved = ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_SVME | EFER_LMSLE |
                           EFER_FFXSR | EFER_TCE | BIT(17) | BIT(18) | BIT(20) | BIT(21)),
    };
    return HV_OK;
}

/* ---- Life cycle ---- */

static void svm_vm_fini(struct vm *vm)
{
    struct svm_vm *s = vm->vendor;

    if (s != NULL) {
        svm_bitmap_destroy(s);
        kfree(s);
        vm->vendor = NULL;
    }
}

static enum hv_err svm_vm_init(struct vm *vm)
{
    struct svm_vm *s = kmalloc(sizeof(*s), vm->id);

    vm->vendor = s;
    if (s == NULL) {
        return HV_ENOMEM;
    }
    enum hv_err err = svm_bitmap_create(s, vm->id);
    if (err != HV_OK) {
        svm_vm_fini(vm);
    }
    return err;
}

static void svm_vcpu_fini(struct vcpu *v)
{
    struct svm_vcpu *s = v->vendor;

    if (s != NULL) {
        kfree(s->vmcb);
        kfree(s);
        v->vendor = NULL;
    }
}

static void svm_vcpu_clear(struct vcpu *v)
{
    struct svm_vcpu *s = svm_of(v);

    vmcb_clear(s->vmcb);
    s->irq_window = false;
    s->nmi_window = false;
    s->nmi_masked = false;
    s->after_iret = false;
    memset(&s->guest, 0, sizeof(s->guest));
}

static enum hv_err svm_vcpu_init(struct vcpu *v)
{
    const struct svm_vm *maps = v->vm->vendor;
    struct svm_vcpu *s = kmalloc(sizeof(*s), v->vm->id);

    v->vendor = s;
    if (s == NULL) {
        return HV_ENOMEM;
    }
    s->vmcb = kmalloc(sizeof(struct vmcb), v->vm->id);
    if (s->vmcb == NULL) {
        svm_vcpu_fini(v);
        return HV_ENOMEM;
    }
    s->vmcb_pa = virt_to_phys(s->vmcb).a;
    s->cpu = UINT32_MAX;

    const struct vmcb_config cfg = {
        .iopm_pa = virt_to_phys(maps->iopm).a,
        .msrpm_pa = virt_to_phys(maps->msrpm).a,
        /* A lone vCPU that pauses waits for a device, not for another vCPU. */
        .pause = v->vm->config.vcpus > 1,
        .pause_filter = hv_caps.pause_filter,
        .software_mmu = v->vm->software_mmu,
        .rdpru = (cpuid(CPUID_ADDRESS_SIZES, 0).ebx >> CPUID_SVM_RDPRU) & 1,
        .invpcid = cpu_features.invpcid,
    };
    vmcb_init(s->vmcb, &cfg);
    svm_vcpu_clear(v);
    return HV_OK;
}

/* The VMCB holds DR6 and DR7 alone; the host uses none. */
static void svm_vcpu_load(struct vcpu *v)
{
    struct svm_vcpu *s = svm_of(v);

    svm_drs_load(s);
    if (s->cpu != v->cpu) {
        s->cpu = v->cpu;
        s->vmcb->ctl.clean = 0;
    }
}

static void svm_vcpu_put(struct vcpu *v)
{
    svm_drs_save(svm_of(v));
}

/* ---- Running ---- */

static void svm_section_begin(struct vcpu *v)
{
    struct svm_vcpu *s = svm_of(v);

    __asm__ volatile("clgi\n"
                     "lidt %0" ::"m"(*desc_idt_noist())
                     : "memory");
    svm_vmload(s->vmcb_pa);
    /* VMRUN does it as well; but Bochs 2.7's leaves there what another vCPU had. */
    write_cr2(s->vmcb->save.cr2);
    s->in_section = true;
}

static void svm_section_end(struct vcpu *v)
{
    struct svm_vcpu *s = svm_of(v);
    const struct svm_cpu *c = this_cpu()->vendor;

    svm_vmsave(s->vmcb_pa);
    s->in_section = false;
    svm_vmload(c->host_pa);
    __asm__ volatile("lidt %0\n"
                     "stgi" ::"m"(*desc_idt_full())
                     : "memory");
}

/* Offsets known to svm_entry.asm. */
_Static_assert(offsetof(struct svm_vcpu, vmcb) == 0, "svm_entry.asm: vmcb");
_Static_assert(offsetof(struct svm_vcpu, vmcb_pa) == 8, "svm_entry.asm: vmcb_pa");

static void svm_set_root(struct vcpu *v, hpa_t root)
{
    struct vmcb *m = svm_vmcb(v);

    if (v->vm->software_mmu) {
        m->save.cr3 = root.a;
        svm_dirty(m, CLEAN_CR);
        return;
    }
    m->ctl.ncr3 = root.a;
    svm_dirty(m, CLEAN_NP);
}

static void svm_set_tsc_offset(struct vcpu *v, uint64_t offset)
{
    struct vmcb *m = svm_vmcb(v);

    m->ctl.tsc_offset = offset;
    svm_dirty(m, CLEAN_INTERCEPTS);
}

/* ---- Explaining ---- */

static unsigned svm_check(struct vcpu *v, doctor_report_t report, void *arg)
{
    return svm_doctor_check(svm_vmcb(v), &limits, report, arg);
}

static void svm_poke(struct vcpu *v, const struct doctor_field *field, uint64_t value)
{
    struct vmcb *m = svm_vmcb(v);

    memcpy((uint8_t *)m + field->at, &value, field->bytes);
    m->ctl.clean = 0;
}

static void svm_dump(struct vcpu *v)
{
    const struct vmcb_save *s = &svm_vmcb(v)->save;
    const struct vmcb_control *c = &svm_vmcb(v)->ctl;

    log_error("vm %s: vcpu %u: rip %04x:%#llx rsp %#llx flags %#llx cpl %u", v->vm->config.name,
              v->id, s->cs.selector, (unsigned long long)v->rip, (unsigned long long)s->rsp,
              (unsigned long long)s->rflags, s->cpl);
    log_error("  cr0 %#llx cr2 %#llx cr3 %#llx cr4 %#llx efer %#llx", (unsigned long long)s->cr0,
              (unsigned long long)s->cr2, (unsigned long long)s->cr3, (unsigned long long)s->cr4,
              (unsigned long long)s->efer);
    log_error("  exit %#llx info %#llx %#llx event %#llx", (unsigned long long)c->exit_code,
              (unsigned long long)c->exit_info1, (unsigned long long)c->exit_info2,
              (unsigned long long)c->exit_int_info);
}

const struct hv_backend svm_backend = {
    .name = "SVM",
    .probe = svm_probe,
    .cpu_enable = svm_cpu_enable,
    .cpu_disable = svm_cpu_disable,
    .vm_init = svm_vm_init,
    .vm_fini = svm_vm_fini,
    .vcpu_init = svm_vcpu_init,
    .vcpu_fini = svm_vcpu_fini,
    .vcpu_clear = svm_vcpu_clear,
    .vcpu_load = svm_vcpu_load,
    .vcpu_put = svm_vcpu_put,
    .section_begin = svm_section_begin,
    .section_end = svm_section_end,
    .run = svm_run,
    .get_reg = svm_get_reg,
    .set_reg = svm_set_reg,
    .get_seg = svm_get_seg,
    .set_seg = svm_set_seg,
    .get_msr = svm_get_msr,
    .set_msr = svm_set_msr,
    .inject = svm_inject,
    .can_take = svm_can_take,
    .window = svm_window,
    .trap_tpr = svm_trap_tpr,
    .clear_shadow = svm_clear_shadow,
    .advance = svm_advance,
    .code_state = svm_code_state,
    .set_root = svm_set_root,
    .set_tag = svm_set_tag,
    .set_tsc_offset = svm_set_tsc_offset,
    .direct_msr = svm_direct_msr,
    .check = svm_check,
    .fields = svm_doctor_fields,
    .nr_fields = SVM_DOCTOR_FIELDS,
    .poke = svm_poke,
    .dump = svm_dump,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VMX back-end: probing, switching the extension on and off, life of the vendor's structures,
 * moving vCPUs between processors, the fast-path section. Policy lives in kernel/vm.
 *
 * A section is the stretch with interrupts off in which the vCPU's VMCS is the current one: a pending
 * interrupt ends the entry at once and is taken when the section ends.
 */
#include "vmx/vmx.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "arch/x86_64/smp.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/pt/fmt_ept.h"
#include "mm/slab.h"
#include "vmx/vmx_doctor.h"

#define MAX_VPID 0xffffu

struct vmx_caps vmx_caps;

/* ---- Probe and per-processor switch ---- */

static enum hv_err missing(struct backend_caps *caps, const char *what)
{
    str_copy(caps->missing, sizeof(caps->missing), what);
    return HV_ENOTSUP;
}

static enum hv_err vmx_probe(struct backend_caps *caps)
{
    caps->name = "VMX";
    caps->present = cpu_features.vmx;
    if (!cpu_features.vmx) {
        return missing(caps, "VMX: CPUID 1 does not offer it (Intel processors: switch on \"Intel "
                             "Virtualization Technology\" in the firmware)");
    }
    uint64_t control = rdmsr(MSR_FEATURE_CONTROL);
    if ((control & FEATURE_CONTROL_LOCK) && !(control & FEATURE_CONTROL_VMX)) {
        return missing(caps, "VMX: switched off by firmware (IA32_FEATURE_CONTROL): switch on "
                             "\"Intel Virtualization Technology\" in the firmware");
    }
    vmx_caps_read(&vmx_caps);
    const char *what = vmx_caps_missing(&vmx_caps);
    if (what != NULL) {
        return missing(caps, what);
    }
    const struct vmx_controls *c = &vmx_caps.chosen;
    bool ad = vmx_has(vmx_caps.ept_vpid, EPTCAP_AD);
    caps->nr_tags = vmx_has(c->proc2, PROC2_VPID) ? MAX_VPID : 0;
    caps->nested_paging = vmx_has(c->proc2, PROC2_EPT);
    caps->software_mmu = vmx_caps_software(&vmx_caps);
    caps->nested_max_order = vmx_has(vmx_caps.ept_vpid, EPTCAP_1G) ? ORDER_1G : ORDER_2M;
    caps->next_rip = true;
    caps->decode_assists = true;
    caps->flush_by_tag = true;
    caps->pause_filter = vmx_has(vmx_caps.proc2.may, PROC2_PAUSE_LOOP);
    caps->unrestricted = vmx_has(c->proc2, PROC2_UNRESTRICTED);
    caps->nested_format = ad ? &fmt_ept_ad : &fmt_ept;
    return HV_OK;
}

static void vmx_cpu_disable(void)
{
    struct cpu *cpu = this_cpu();
    struct vmx_cpu *c = cpu->vendor;

    vmx_off();
    write_cr4(read_cr4() & ~CR4_VMXE);
    cpu->vendor = NULL;
    if (c != NULL) {
        kfree(c->vmxon);
        kfree(c);
    }
}

/* "Enabling and Entering VMX Operation" */
static enum hv_err enter_operation(const struct vmx_cpu *c)
{
    uint64_t control = rdmsr(MSR_FEATURE_CONTROL);

    if (!(control & FEATURE_CONTROL_LOCK)) {
        wrmsr(MSR_FEATURE_CONTROL, control | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX);
    }
    write_cr0((read_cr0() | vmx_caps.cr0.must) & vmx_caps.cr0.may);
    write_cr4((read_cr4() | vmx_caps.cr4.must) & vmx_caps.cr4.may);
    return vmx_on(virt_to_phys(c->vmxon).a) ? HV_OK : HV_ENOTSUP;
}

static enum hv_err vmx_cpu_enable(void)
{
    struct cpu *cpu = this_cpu();
    struct vmx_cpu *c = kmalloc(sizeof(*c), OWNER_HOST);

    if (c == NULL) {
        return HV_ENOMEM;
    }
    c->vmxon = kmalloc(PAGE_SIZE, OWNER_HOST);
    if (c->vmxon == NULL) {
        kfree(c);
        return HV_ENOMEM;
    }
    *(uint32_t *)c->vmxon = vmx_caps.revision;
    enum hv_err err = enter_operation(c);
    if (err != HV_OK) {
        kfree(c->vmxon);
        kfree(c);
        return err;
    }
    cpu->vendor = c;
    return HV_OK;
}

/* ---- Where a VMCS is ---- */

bool vmx_is_current(const struct vcpu *v)
{
    const struct vmx_cpu *c = this_cpu()->vendor;

    return c->current == vmx_of(v);
}

/* On the processor where the VMCS is active, interrupts off. */
static void clear_here(void *arg)
{
    struct vmx_vcpu *s = arg;
    struct vmx_cpu *c = this_cpu()->vendor;

    vmcs_clear(s->vmcs_pa);
    s->launched = false;
    s->cpu = VMX_NO_CPU;
    if (c->current == s) {
        c->current = NULL;
    }
}

void vmx_release(struct vmx_vcpu *s)
{
    if (s->cpu == VMX_NO_CPU) {
        return;
    }
    if (s->cpu == this_cpu()->id) {
        uint64_t flags = irq_save();

        clear_here(s);
        irq_restore(flags);
    } else {
        smp_call(s->cpu, clear_here, s);
    }
}

void vmx_bind(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_of(v);
    struct cpu *cpu = this_cpu();
    struct vmx_cpu *c = cpu->vendor;

    if (s->cpu != cpu->id) {
        vmx_release(s);
    }
    uint64_t flags = irq_save();
    vmcs_load(s->vmcs_pa);
    c->current = s;
    s->cpu = cpu->id;
    if (!s->built) {
        s->built = true;
        vmcs_build(v);
    }
    if (s->host_cpu != cpu->id) {
        s->host_cpu = cpu->id;
        vmcs_set_host();
    }
    irq_restore(flags);
}

/* Offsets known to vmx_entry.asm. */
_Static_assert(offsetof(struct vmx_vcpu, dirty) == 0x00, "vmx_entry.asm: dirty");
_Static_assert(offsetof(struct vmx_vcpu, rip) == 0x08, "vmx_entry.asm: rip");
_Static_assert(offsetof(struct vmx_vcpu, host_rsp) == 0x10, "vmx_entry.asm: host_rsp");
_Static_assert(offsetof(struct vmx_vcpu, launched) == 0x18, "vmx_entry.asm: launched");

/* ---- Life cycle ---- */

static void vmx_vm_fini(struct vm *vm)
{
    struct vmx_vm *m = vm->vendor;

    if (m != NULL) {
        vmx_bitmap_destroy(m);
        kfree(m);
        vm->vendor = NULL;
    }
}

static enum hv_err vmx_vm_init(struct vm *vm)
{
    struct vmx_vm *m = kmalloc(sizeof(*m), vm->id);

    vm->vendor = m;
    if (m == NULL) {
        return HV_ENOMEM;
    }
    enum hv_err err = vmx_bitmap_create(m, vm->id);
    if (err != HV_OK) {
        vmx_vm_fini(vm);
    }
    return err;
}

static void vmx_vcpu_fini(struct vcpu *v)
{
    struct vmx_vcpu *s = v->vendor;

    if (s != NULL) {
        vmx_release(s);
        kfree(s->vmcs);
        kfree(s->apic_page);
        kfree(s->msrs);
        kfree(s);
        v->vendor = NULL;
    }
}

static enum hv_err vmx_vcpu_init(struct vcpu *v)
{
    struct vmx_vcpu *s = kmalloc(sizeof(*s), v->vm->id);
    bool by_list = !vmx_has(vmx_caps.chosen.entry, ENTRY_LOAD_EFER);

    v->vendor = s;
    if (s == NULL) {
        return HV_ENOMEM;
    }
    s->cpu = s->host_cpu = VMX_NO_CPU;
    vmx_regs_init(s, v->vm);
    s->vmcs = kmalloc(PAGE_SIZE, v->vm->id);
    s->apic_page = kmalloc(PAGE_SIZE, v->vm->id);
    s->msrs = by_list ? kmalloc(2 * sizeof(*s->msrs), v->vm->id) : NULL;
    if (s->vmcs == NULL || s->apic_page == NULL || (by_list && s->msrs == NULL)) {
        vmx_vcpu_fini(v);
        return HV_ENOMEM;
    }
    *(uint32_t *)s->vmcs = vmx_caps.revision;
    s->vmcs_pa = virt_to_phys(s->vmcs).a;
    vmcs_clear(s->vmcs_pa); /* "initialise implementation-specific information" */
    s->rip = ~0ULL;         /* not written yet */
    s->copy[VC_VPID] = 1;   /* kernel/vm/tag.c gives the real one; 0 is refused */
    vmx_clear_regs(v);
    return HV_OK;
}

static void vmx_vcpu_load(struct vcpu *v)
{
    vmx_bind(v);
    vmx_live_load(&vmx_of(v)->live);
}

static void vmx_vcpu_put(struct vcpu *v)
{
    vmx_live_save(&vmx_of(v)->live);
}

/* ---- Sections ---- */

static void vmx_section_begin(struct vcpu *v)
{
    irq_disable();
    while (unlikely(!vmx_is_current(v))) {
        /* Somebody looked at another vCPU's registers on this processor. */
        irq_enable();
        vmx_bind(v);
        irq_disable();
    }
    vmx_of(v)->dirty |= VMX_NEW_SECTION;
}

static void vmx_section_end(struct vcpu *v)
{
    (void)v;
    irq_enable();
}

static void vmx_set_root(struct vcpu *v, hpa_t root)
{
    uint64_t ad = vmx_has(vmx_caps.ept_vpid, EPTCAP_AD) ? EPTP_AD : 0;
    struct vmx_vcpu *s = vmx_of(v);

    if (s->software) {
        vmx_set(v, VC_CR3, root.a);
        return;
    }
    vmx_set(v, VC_EPTP, root.a | EPTP_TYPE_WB | EPTP_WALK_4 | ad);
}

static void vmx_set_tsc_offset(struct vcpu *v, uint64_t offset)
{
    vmx_set(v, VC_TSC_OFFSET, offset);
}

/* ---- Explaining ---- */

static uint64_t read_field(void *arg, uint32_t field)
{
    (void)arg;
    return vmcs_read(field);
}

/* Make the VMCS hold what the next entry will find. */
static void settle(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_of(v);
    uint64_t entry_does =
        VMX_FLUSH_LINEAR | VMX_NEW_SECTION | (s->event_queued ? BIT(VC_ENTRY_EVENT) : 0);
    uint64_t left = s->dirty & entry_does;

    if (!vmx_is_current(v)) {
        vmx_bind(v);
    }
    vmx_write_back(v);
    s->dirty = left;
    vmcs_write(VMCS_GUEST_RIP, v->rip);
    s->rip = v->rip;
}

static unsigned vmx_check(struct vcpu *v, doctor_report_t report, void *arg)
{
    /* A state that is not to be entered: emulated until it can be. */
    if (vmx_of(v)->emulated && !vmx_enterable(v)) {
        return 0;
    }
    settle(v);
    return vmx_doctor_check(&vmx_caps, read_field, report, arg);
}

static void vmx_poke(struct vcpu *v, const struct doctor_field *field, uint64_t value)
{
    settle(v);
    vmcs_write(field->at, value);
}

/* A copy, or the VMCS if that takes nothing more; for dumps from anywhere. */
static unsigned long long peek(struct vcpu *v, enum vmx_copy what)
{
    const struct vmx_vcpu *s = vmx_of(v);

    return (s->valid >> what & 1) || !vmx_is_current(v) ? s->copy[what] : vmx_get(v, what);
}

static void vmx_dump(struct vcpu *v)
{
    const struct vmx_vcpu *s = vmx_of(v);

    log_error("vm %s: vcpu %u: rip %04llx:%#llx rsp %#llx flags %#llx", v->vm->config.name, v->id,
              peek(v, VC_SELECTOR + SEG_CS), (unsigned long long)v->rip, peek(v, VC_RSP),
              peek(v, VC_RFLAGS));
    log_error("  cr0 %#llx (guest's %#llx) cr3 %#llx cr4 %#llx (guest's %#llx) efer %#llx",
              peek(v, VC_CR0), peek(v, VC_CR0_SHADOW), peek(v, VC_CR3), peek(v, VC_CR4),
              peek(v, VC_CR4_SHADOW), (unsigned long long)s->efer);
    if (vmx_is_current(v)) {
        log_error("  exit %#llx qualification %#llx gpa %#llx event %#llx",
                  (unsigned long long)vmcs_read(VMCS_EXIT_REASON),
                  (unsigned long long)vmcs_read(VMCS_QUALIFICATION),
                  (unsigned long long)vmx_exit_gpa(v),
                  (unsigned long long)vmcs_read(VMCS_VECTORING));
    }
}

const struct hv_backend vmx_backend = {
    .name = "VMX",
    .probe = vmx_probe,
    .cpu_enable = vmx_cpu_enable,
    .cpu_disable = vmx_cpu_disable,
    .vm_init = vmx_vm_init,
    .vm_fini = vmx_vm_fini,
    .vcpu_init = vmx_vcpu_init,
    .vcpu_fini = vmx_vcpu_fini,
    .vcpu_clear = vmx_clear_regs,
    .vcpu_load = vmx_vcpu_load,
    .vcpu_put = vmx_vcpu_put,
    .section_begin = vmx_section_begin,
    .section_end = vmx_section_end,
    .run = vmx_run,
    .get_reg = vmx_get_reg,
    .set_reg = vmx_set_reg,
    .get_seg = vmx_get_seg,
    .set_seg = vmx_set_seg,
    .get_msr = vmx_get_msr,
    .set_msr = vmx_set_msr,
    .inject = vmx_inject,
    .can_take = vmx_can_take,
    .window = vmx_window,
    .trap_tpr = vmx_trap_tpr,
    .clear_shadow = vmx_clear_shadow,
    .advance = vmx_advance,
    .code_state = vmx_code_state,
    .set_root = vmx_set_root,
    .set_tag = vmx_set_tag,
    .set_tsc_offset = vmx_set_tsc_offset,
    .direct_msr = vmx_direct_msr,
    .check = vmx_check,
    .fields = vmx_doctor_fields,
    .nr_fields = VMX_DOCTOR_FIELDS,
    .poke = vmx_poke,
    .emulation = &vmx_emulation,
    .dump = vmx_dump,
};

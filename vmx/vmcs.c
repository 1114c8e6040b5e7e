/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Setting up a VMCS, in sections. What the guest must not do to the host exits; with nested paging
 * its page tables, descriptor tables, debug registers and the TSC are its own. Fields that change
 * later have copies (vmx.h) and are written from there. Called by vmx_bind, the VMCS being current.
 */
#include "vmx/vmcs.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/desc.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/log.h"
#include "vmx/vmx.h"

/* Between pauses closer than GAP ticks a loop counts; after WINDOW ticks of it the guest exits. */
#define PLE_GAP 128
#define PLE_WINDOW 4096

void vmcs_failed(const char *insn, uint64_t operand)
{
    panic("%s %#llx failed", insn, (unsigned long long)operand);
}

void vmcs_wind_timer(void)
{
    const uint64_t per_second = 1000;

    if (vmx_has(vmx_caps.chosen.pin, PIN_TIMER)) {
        vmcs_write(VMCS_GUEST_TIMER,
                   MAX(clock_tsc_hz() / per_second >> vmx_caps.timer_shift, 1ULL));
    }
}

static void build_controls(const struct vcpu *v)
{
    const struct vmx_controls *c = &vmx_caps.chosen;

    bool software = vmx_of(v)->software;

    vmcs_write(VMCS_PIN_CTL, c->pin);
    vmcs_write(VMCS_EXIT_CTL, c->exit);
    vmcs_wind_timer();
    uint64_t proc2 = c->proc2;
    if (software) {
        proc2 &= ~(PROC2_EPT | PROC2_UNRESTRICTED | PROC2_INVPCID);
    }
    /* A lone vCPU that pauses waits for a device, not for another vCPU. */
    if (v->vm->config.vcpus > 1 && (vmx_caps.proc2.may & PROC2_PAUSE_LOOP)) {
        proc2 |= PROC2_PAUSE_LOOP;
        vmcs_write(VMCS_PLE_GAP, PLE_GAP);
        vmcs_write(VMCS_PLE_WINDOW, PLE_WINDOW);
    }
    if (vmx_has(c->proc, PROC_SECONDARY)) {
        vmcs_write(VMCS_PROC2_CTL, proc2);
    }
    /*
     * #DB and #AC: a guest can build an endless stream of either inside one instruction, during
     * which no interrupt is taken (CVE-2015-5307, CVE-2015-8104). #MC is the host's. With the software
     * MMU any page fault may be one that the guest is not to see.
     */
    vmcs_write(VMCS_EXCEPTIONS,
               BIT(EXC_DB) | BIT(EXC_AC) | BIT(EXC_MC) | (software ? BIT(EXC_PF) : 0));
    vmcs_write(VMCS_PF_MASK, 0);
    vmcs_write(VMCS_PF_MATCH, 0);
    vmcs_write(VMCS_CR3_TARGETS, 0);
}

static void build_addresses(const struct vcpu *v)
{
    const struct vmx_vm *maps = v->vm->vendor;
    const struct vmx_vcpu *s = vmx_of(v);
    uint64_t io = virt_to_phys(maps->io_map).a;

    vmcs_write(VMCS_IO_BITMAP_A, io);
    vmcs_write(VMCS_IO_BITMAP_B, io + PAGE_SIZE);
    vmcs_write(VMCS_MSR_BITMAP, virt_to_phys(maps->msr_map).a);
    if (vmx_has(vmx_caps.chosen.proc, PROC_TPR_SHADOW)) {
        vmcs_write(VMCS_VIRTUAL_APIC, virt_to_phys(s->apic_page).a);
        vmcs_write(VMCS_TPR_THRESHOLD, 0);
    }
    vmcs_write(VMCS_LINK, UINT64_MAX);

    uint64_t count = 0;
    if (s->msrs != NULL) {
        uint64_t pa = virt_to_phys(s->msrs).a;

        s->msrs[1] = (struct vmx_msr_entry){.index = MSR_EFER, .value = rdmsr(MSR_EFER)};
        vmcs_write(VMCS_ENTRY_MSR_LOAD, pa);
        vmcs_write(VMCS_EXIT_MSR_LOAD, pa + sizeof(s->msrs[0]));
        count = 1;
    }
    vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, count);
    vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, count);
    vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 0);
}

/* What of the guest never changes: the register masks and what it cannot reach. */
static void build_guest(const struct vcpu *v)
{
    const struct vmx_vcpu *s = vmx_of(v);

    vmcs_write(VMCS_CR0_MASK, vmx_cr0_mask(s));
    if (s->software && vmx_has(vmx_caps.chosen.entry, ENTRY_LOAD_PAT)) {
        vmcs_write(VMCS_GUEST_PAT, rdmsr(MSR_PAT)); /* our tables are walked with it */
    }
    vmcs_write(VMCS_GUEST_ACTIVITY, 0);
    vmcs_write(VMCS_GUEST_DEBUGCTL, 0);
}

static void build_host(void)
{
    vmcs_write(VMCS_HOST_CR0, read_cr0());
    vmcs_write(VMCS_HOST_CR3, read_cr3());
    vmcs_write(VMCS_HOST_CR4, read_cr4());
    vmcs_write(VMCS_HOST_ES, SEL_DATA);
    vmcs_write(VMCS_HOST_CS, SEL_CODE);
    vmcs_write(VMCS_HOST_SS, SEL_DATA);
    vmcs_write(VMCS_HOST_DS, SEL_DATA);
    vmcs_write(VMCS_HOST_FS, 0);
    vmcs_write(VMCS_HOST_GS, 0);
    vmcs_write(VMCS_HOST_TR, SEL_TSS);
    vmcs_write(VMCS_HOST_FS_BASE, 0);
    vmcs_write(VMCS_HOST_GS_BASE, 0);
    vmcs_write(VMCS_HOST_IDTR_BASE, desc_idt_full()->base);
    vmcs_write(VMCS_HOST_SYSENTER_CS, 0);
    vmcs_write(VMCS_HOST_SYSENTER_ESP, 0);
    vmcs_write(VMCS_HOST_SYSENTER_EIP, 0);
    vmcs_write(VMCS_HOST_RIP, (uint64_t)vmx_host_entry);
    if (vmx_has(vmx_caps.chosen.exit, EXITC_LOAD_EFER)) {
        vmcs_write(VMCS_HOST_EFER, rdmsr(MSR_EFER));
    }
    if (vmx_has(vmx_caps.chosen.exit, EXITC_LOAD_PAT)) {
        vmcs_write(VMCS_HOST_PAT, rdmsr(MSR_PAT));
    }
}

void vmcs_build(const struct vcpu *v)
{
    build_controls(v);
    build_addresses(v);
    build_guest(v);
    build_host();
}

void vmcs_set_host(void)
{
    const struct cpu *cpu = this_cpu();

    vmcs_write(VMCS_HOST_TR_BASE, desc_tss_base(cpu));
    vmcs_write(VMCS_HOST_GDTR_BASE, desc_gdt_base(cpu));
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See vmx_doctor.h. Every rule is one call of expect(): field, what must hold, where the manual says
 * so. Rules about controls that this code never uses (SMM, posted interrupts, processor trace) are
 * left out: the allowed-settings rules catch them.
 */
#include "vmx/vmx_doctor.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "vmx/vmx_doctor_rules.h"

static const char in_controls[] = "Checks on VMX Controls";
static const char in_host_regs[] = "Checks on Host Control Registers, MSRs, and SSP";
static const char in_host_segs[] = "Checks on Host Segment and Descriptor-Table Registers";
static const char in_virtual_tlb[] = "Details of Virtual TLB Operation";
static const char in_host_size[] = "Checks Related to Address-Space Size";

static bool page_of_ours(const struct vmx_checks *c, uint64_t address)
{
    return IS_ALIGNED(address, PAGE_SIZE) && physical(c, address);
}

/* ---- Controls ---- */

static void check_allowed(struct vmx_checks *c)
{
    const struct vmx_caps *caps = c->caps;
    const char *rule = "only bits that the capability MSR allows, and all that it demands";
    uint64_t pin = get(c, VMCS_PIN_CTL);

    expect(c, permitted(&caps->pin, pin), "pin-based controls", pin, rule, in_controls);
    expect(c, permitted(&caps->proc, c->proc), "processor-based controls", c->proc, rule,
           in_controls);
    expect(c, permitted(&caps->proc2, c->proc2), "secondary controls", c->proc2, rule, in_controls);
    expect(c, permitted(&caps->exit, c->exit), "VM-exit controls", c->exit, rule, in_controls);
    expect(c, permitted(&caps->entry, c->entry), "VM-entry controls", c->entry, rule, in_controls);
    expect(c, (pin & PIN_NMI) || !(pin & PIN_VIRTUAL_NMI), "pin-based controls", pin,
           "virtual NMIs need NMI exiting", in_controls);
    expect(c, (pin & PIN_VIRTUAL_NMI) || !(c->proc & PROC_NMI_WINDOW), "processor-based controls",
           c->proc, "NMI-window exiting needs virtual NMIs", in_controls);
    expect(c, (pin & PIN_TIMER) || !(c->exit & EXITC_SAVE_TIMER), "VM-exit controls", c->exit,
           "the preemption timer is saved only where it runs", in_controls);
}

static void check_addresses(struct vmx_checks *c)
{
    static const struct {
        uint32_t field;
        uint64_t control;
        const char *name;
    } pages[] = {
        {VMCS_IO_BITMAP_A, PROC_IO_BITMAPS, "I/O bitmap A"},
        {VMCS_IO_BITMAP_B, PROC_IO_BITMAPS, "I/O bitmap B"},
        {VMCS_MSR_BITMAP, PROC_MSR_BITMAP, "MSR bitmap"},
        {VMCS_VIRTUAL_APIC, PROC_TPR_SHADOW, "virtual-APIC page"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        if (c->proc & pages[i].control) {
            uint64_t address = get(c, pages[i].field);

            expect(c, page_of_ours(c, address), pages[i].name, address,
                   "a page within the physical address width", in_controls);
        }
    }
    uint64_t targets = get(c, VMCS_CR3_TARGETS);
    expect(c, targets <= 4, "CR3-target count", targets, "at most 4", in_controls);
    if (c->proc & PROC_TPR_SHADOW) {
        uint64_t threshold = get(c, VMCS_TPR_THRESHOLD);

        expect(c, threshold >> 4 == 0, "TPR threshold", threshold, "bits 31:4 are zero",
               in_controls);
    }
}

static void check_msr_lists(struct vmx_checks *c)
{
    static const struct {
        uint32_t field, count;
        const char *name;
    } lists[] = {
        {VMCS_ENTRY_MSR_LOAD, VMCS_ENTRY_MSR_LOAD_COUNT, "VM-entry MSR-load address"},
        {VMCS_EXIT_MSR_LOAD, VMCS_EXIT_MSR_LOAD_COUNT, "VM-exit MSR-load address"},
        {VMCS_EXIT_MSR_STORE, VMCS_EXIT_MSR_STORE_COUNT, "VM-exit MSR-store address"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lists); i++) {
        if (get(c, lists[i].count) != 0) {
            uint64_t list = get(c, lists[i].field);

            expect(c, IS_ALIGNED(list, 16ULL) && physical(c, list), lists[i].name, list,
                   "16-byte aligned, within the physical address width", in_controls);
        }
    }
}

static void check_nested(struct vmx_checks *c)
{
    const uint64_t type = 7, walk = 7 << 3, reserved = 0xf80;

    if (c->proc2 & PROC2_VPID) {
        uint64_t vpid = get(c, VMCS_VPID);

        expect(c, vpid != 0, "VPID", vpid, "not 0, which is the host's", in_controls);
    }
    expect(c, !c->unrestricted || (c->proc2 & PROC2_EPT), "secondary controls", c->proc2,
           "unrestricted guest needs EPT", in_controls);
    if (!(c->proc2 & PROC2_EPT)) {
        return;
    }
    uint64_t eptp = get(c, VMCS_EPTP);
    expect(c, (eptp & type) == EPTP_TYPE_WB || (eptp & type) == 0, "EPTP", eptp,
           "memory type is write-back or uncacheable", in_controls);
    expect(c, (eptp & walk) == EPTP_WALK_4, "EPTP", eptp, "a page walk of 4 levels", in_controls);
    expect(c, !(eptp & EPTP_AD) || (c->caps->ept_vpid & EPTCAP_AD), "EPTP", eptp,
           "accessed and dirty flags only where the processor has them", in_controls);
    expect(c, (eptp & reserved) == 0 && physical(c, eptp) && eptp >> 12 != 0, "EPTP", eptp,
           "a table within the physical address width, reserved bits clear", in_controls);
}

/*
 * Without nested tables the processor walks ours in place of the guest's (the manual's "virtual TLB"): the
 * entry works without any of this, and the guest would then reach whatever its own tables name.
 */
static void check_software_mmu(struct vmx_checks *c)
{
    const uint64_t exits = PROC_CR3_LOAD | PROC_CR3_STORE | PROC_INVLPG;
    const uint64_t cr0_ours = CR0_PE | CR0_PG | CR0_WP;
    const uint64_t cr4_ours =
        CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE;

    if (c->proc2 & PROC2_EPT) {
        return;
    }
    uint64_t exceptions = get(c, VMCS_EXCEPTIONS), mask = get(c, VMCS_PF_MASK);
    expect(c, (exceptions & BIT(EXC_PF)) && mask == 0 && get(c, VMCS_PF_MATCH) == 0,
           "exception bitmap", exceptions, "all page faults exit", in_virtual_tlb);
    expect(c, (c->proc & exits) == exits, "processor-based controls", c->proc,
           "MOV to and from CR3 and INVLPG exit", in_virtual_tlb);
    uint64_t targets = get(c, VMCS_CR3_TARGETS);
    expect(c, targets == 0, "CR3-target count", targets,
           "0: no guest's CR3 gets into the processor", in_virtual_tlb);
    uint64_t cr0_mask = get(c, VMCS_CR0_MASK), cr4_mask = get(c, VMCS_CR4_MASK);
    expect(c, (cr0_mask & cr0_ours) == cr0_ours, "CR0 guest/host mask", cr0_mask,
           "PE, PG and WP exit", in_virtual_tlb);
    expect(c, (cr4_mask & cr4_ours) == cr4_ours, "CR4 guest/host mask", cr4_mask,
           "what a walk looks at exits", in_virtual_tlb);
    expect(c, (c->cr0 & CR0_PG) && (c->cr0 & CR0_WP), "CR0", c->cr0, "PG and WP are set",
           in_virtual_tlb);
    expect(c, (c->cr4 & (CR4_PAE | CR4_PGE | CR4_PCIDE)) == CR4_PAE, "CR4", c->cr4,
           "PAE is set, PGE and PCIDE are clear", in_virtual_tlb);
    uint64_t cr3 = get(c, VMCS_GUEST_CR3);
    expect(c, c->ia32e ? IS_ALIGNED(cr3, PAGE_SIZE) : IS_ALIGNED(cr3, 32ULL) && cr3 >> 32 == 0,
           "CR3", cr3, "a table of ours: a page, or four PAE entries below 4 GiB", in_virtual_tlb);
}

static void check_event(struct vmx_checks *c)
{
    const uint64_t reserved = 0x7ffff000;
    uint64_t word = c->event;
    unsigned type = word >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK, vector = word & EVENT_VECTOR;
    bool hard = type == EVENT_TYPE_HARD_EXCEPTION;
    const char *name = "VM-entry interruption information";

    if (!(word & EVENT_VALID)) {
        return;
    }
    expect(c, type != 1 && type != 7, name, word, "a defined event type", in_controls);
    expect(c, type != EVENT_TYPE_NMI || vector == EXC_NMI, name, word, "an NMI has vector 2",
           in_controls);
    expect(c, !hard || vector < 32, name, word, "an exception's vector is below 32", in_controls);
    bool error = hard && vector < 32 && (EXC_WITH_ERROR >> vector & 1) &&
                 (!c->unrestricted || (c->cr0 & CR0_PE));
    expect(c, ((word & EVENT_HAS_ERROR) != 0) == error, name, word,
           "an error code for exceptions that have one, in protected mode, and no other",
           in_controls);
    expect(c, (word & reserved) == 0, name, word, "reserved bits are zero", in_controls);
    if (word & EVENT_HAS_ERROR) {
        uint64_t code = get(c, VMCS_ENTRY_ERROR);

        expect(c, code >> 16 == 0, "VM-entry exception error code", code, "bits 31:16 are zero",
               in_controls);
    }
    if (type >= EVENT_TYPE_SOFT_INT) {
        uint64_t len = get(c, VMCS_ENTRY_LENGTH);

        expect(c, len >= 1 && len <= 15, "VM-entry instruction length", len,
               "1 to 15 for software interrupts and exceptions", in_controls);
    }
}

/* ---- Host ---- */

static void check_host_registers(struct vmx_checks *c)
{
    static const struct {
        uint32_t field;
        const char *name;
    } addresses[] = {
        {VMCS_HOST_FS_BASE, "host FS base"},
        {VMCS_HOST_GS_BASE, "host GS base"},
        {VMCS_HOST_TR_BASE, "host TR base"},
        {VMCS_HOST_GDTR_BASE, "host GDTR base"},
        {VMCS_HOST_IDTR_BASE, "host IDTR base"},
        {VMCS_HOST_SYSENTER_ESP, "host SYSENTER_ESP"},
        {VMCS_HOST_SYSENTER_EIP, "host SYSENTER_EIP"},
        {VMCS_HOST_RIP, "host RIP"},
    };
    uint64_t cr0 = get(c, VMCS_HOST_CR0), cr3 = get(c, VMCS_HOST_CR3), cr4 = get(c, VMCS_HOST_CR4);

    expect(c, permitted(&c->caps->cr0, cr0), "host CR0", cr0, "as IA32_VMX_CR0_FIXED0/1 demand",
           in_host_regs);
    expect(c, permitted(&c->caps->cr4, cr4), "host CR4", cr4, "as IA32_VMX_CR4_FIXED0/1 demand",
           in_host_regs);
    expect(c, physical(c, cr3), "host CR3", cr3, "within the physical address width", in_host_regs);
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        uint64_t address = get(c, addresses[i].field);

        expect(c, is_canonical(address), addresses[i].name, address, "canonical", in_host_segs);
    }
    if (c->exit & EXITC_LOAD_PAT) {
        uint64_t pat = get(c, VMCS_HOST_PAT);

        expect(c, pat_is_valid(pat), "host PAT", pat, "each byte is a memory type (0, 1, 4-7)",
               in_host_regs);
    }
    expect(c, (c->exit & EXITC_HOST_64) != 0, "VM-exit controls", c->exit,
           "the host is 64-bit: its address-space size is set", in_host_size);
    expect(c, (cr4 & CR4_PAE) != 0, "host CR4", cr4, "PAE is set", in_host_size);
    if (c->exit & EXITC_LOAD_EFER) {
        uint64_t efer = get(c, VMCS_HOST_EFER);

        expect(c, (efer & EFER_LMA) && (efer & EFER_LME), "host EFER", efer,
               "LMA and LME as the host's address-space size", in_host_regs);
        expect(c, (efer & ~EFER_KNOWN) == 0, "host EFER", efer, "reserved bits are zero",
               in_host_regs);
    }
}

static void check_host_selectors(struct vmx_checks *c)
{
    const uint64_t table_or_rpl = 7;

    for (uint32_t field = VMCS_HOST_ES; field <= VMCS_HOST_TR; field += 2) {
        uint64_t selector = get(c, field);

        expect(c, (selector & table_or_rpl) == 0, "host selector", selector, "TI and RPL are zero",
               in_host_segs);
        expect(c, selector != 0 || (field != VMCS_HOST_CS && field != VMCS_HOST_TR),
               "host selector", selector, "CS and TR are not null", in_host_segs);
    }
}

const struct doctor_field vmx_doctor_fields[VMX_DOCTOR_FIELDS] = {
    {"pin", VMCS_PIN_CTL, 4},
    {"proc", VMCS_PROC_CTL, 4},
    {"exit", VMCS_EXIT_CTL, 4},
    {"entry", VMCS_ENTRY_CTL, 4},
    {"event", VMCS_ENTRY_EVENT, 4},
    {"eptp", VMCS_EPTP, 8},
    {"link", VMCS_LINK, 8},
    {"host-cr0", VMCS_HOST_CR0, 8},
    {"host-cr4", VMCS_HOST_CR4, 8},
    {"host-cs", VMCS_HOST_CS, 2},
    {"host-rip", VMCS_HOST_RIP, 8},
    {"cr0", VMCS_GUEST_CR0, 8},
    {"cr4", VMCS_GUEST_CR4, 8},
    {"rflags", VMCS_GUEST_RFLAGS, 8},
    {"cs-rights", VMCS_GUEST_ES_RIGHTS + 2, 4},
    {"tr-rights", VMCS_GUEST_ES_RIGHTS + 14, 4},
};

unsigned vmx_doctor_check(const struct vmx_caps *caps, vmx_doctor_read_t read,
                          doctor_report_t report, void *arg)
{
    struct vmx_checks c = {.doctor = {.report = report, .arg = arg}, .caps = caps, .read = read};

    c.proc = get(&c, VMCS_PROC_CTL);
    c.proc2 = (c.proc & PROC_SECONDARY) ? get(&c, VMCS_PROC2_CTL) : 0;
    c.exit = get(&c, VMCS_EXIT_CTL);
    c.entry = get(&c, VMCS_ENTRY_CTL);
    c.event = get(&c, VMCS_ENTRY_EVENT);
    c.cr0 = get(&c, VMCS_GUEST_CR0);
    c.cr4 = get(&c, VMCS_GUEST_CR4);
    c.rflags = get(&c, VMCS_GUEST_RFLAGS);
    c.unrestricted = (c.proc2 & PROC2_UNRESTRICTED) != 0;
    c.ia32e = (c.entry & ENTRY_IA32E) != 0;
    c.virtual_8086 = (c.rflags & RFLAGS_VM) != 0;

    check_allowed(&c);
    check_addresses(&c);
    check_msr_lists(&c);
    check_nested(&c);
    check_software_mmu(&c);
    check_event(&c);
    check_host_registers(&c);
    check_host_selectors(&c);
    vmx_doctor_guest(&c);
    return c.doctor.violations;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See vmx_doctor.h. Every rule is one call of expect(): field, what must hold, where the manual says
 * so. Rules about controls that this code never uses (SMM, posted interrupts, processor trace) are
 * left out: the allowed-settings rules catch them.
 */
#include "vmx/vmx_doctor.h"

#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "vmx/vmcs.h"

static const char in_controls[] = "Checks on VMX Controls";
static const char in_host_regs[] = "Checks on Host Control Registers, MSRs, and SSP";
static const char in_host_segs[] = "Checks on Host Segment and Descriptor-Table Registers";
static const char in_host_size[] = "Checks Related to Address-Space Size";
static const char in_guest_regs[] = "Checks on Guest Control Registers, Debug Registers, and MSRs";
static const char in_guest_segs[] = "Checks on Guest Segment Registers";
static const char in_guest_tables[] = "Checks on Guest Descriptor-Table Registers";
static const char in_guest_rip[] = "Checks on Guest RIP, RFLAGS, and SSP";
static const char in_guest_rest[] = "Checks on Guest Non-Register State";

struct checks {
    struct doctor doctor;
    const struct vmx_caps *caps;
    vmx_doctor_read_t read;
    /* What many rules ask for. */
    uint64_t proc, proc2, exit, entry, cr0, cr4, rflags;
    bool unrestricted, ia32e, virtual_8086;
};

static uint64_t get(struct checks *c, uint32_t field)
{
    return c->read(c->doctor.arg, field);
}

static void expect(struct checks *c, bool holds, const char *field, uint64_t value,
                   const char *rule, const char *section)
{
    doctor_expect(&c->doctor, holds, field, value, rule, section);
}

static bool canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

static bool physical(const struct checks *c, uint64_t address)
{
    return address >> c->caps->phys_bits == 0;
}

static bool page_of_ours(const struct checks *c, uint64_t address)
{
    return IS_ALIGNED(address, PAGE_SIZE) && physical(c, address);
}

static bool permitted(const struct vmx_allowed *a, uint64_t value)
{
    return (value & a->must) == a->must && (value & ~a->may) == 0;
}

static bool valid_pat(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++) {
        uint8_t type = (uint8_t)(pat >> (8 * i));

        if (type == 2 || type == 3 || type > 7) {
            return false;
        }
    }
    return true;
}

/* ---- Controls ---- */

static void check_allowed(struct checks *c)
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
}

static void check_addresses(struct checks *c)
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
    if (get(c, VMCS_ENTRY_MSR_LOAD_COUNT) != 0) {
        uint64_t list = get(c, VMCS_ENTRY_MSR_LOAD);

        expect(c, IS_ALIGNED(list, 16ULL) && physical(c, list), "VM-entry MSR-load address", list,
               "16-byte aligned, within the physical address width", in_controls);
    }
    if (get(c, VMCS_EXIT_MSR_LOAD_COUNT) != 0) {
        uint64_t list = get(c, VMCS_EXIT_MSR_LOAD);

        expect(c, IS_ALIGNED(list, 16ULL) && physical(c, list), "VM-exit MSR-load address", list,
               "16-byte aligned, within the physical address width", in_controls);
    }
}

static void check_nested(struct checks *c)
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

static bool exception_has_error(unsigned vector)
{
    const uint32_t with_error = BIT(EXC_DF) | BIT(EXC_TS) | BIT(EXC_NP) | BIT(EXC_SS) |
                                BIT(EXC_GP) | BIT(EXC_PF) | BIT(EXC_AC);

    return (with_error >> vector & 1) != 0;
}

static void check_event(struct checks *c)
{
    const uint64_t reserved = 0x7ffff000;
    uint64_t word = get(c, VMCS_ENTRY_EVENT);
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
    bool error = hard && vector < 32 && exception_has_error(vector) &&
                 (!c->unrestricted || (c->cr0 & CR0_PE));
    expect(c, ((word & EVENT_HAS_ERROR) != 0) == error, name, word,
           "an error code for exceptions that have one, in protected mode, and no other",
           in_controls);
    expect(c, (word & reserved) == 0, name, word, "reserved bits are zero", in_controls);
    if (type >= EVENT_TYPE_SOFT_INT) {
        uint64_t len = get(c, VMCS_ENTRY_LENGTH);

        expect(c, len >= 1 && len <= 15, "VM-entry instruction length", len,
               "1 to 15 for software interrupts and exceptions", in_controls);
    }
    /* The rest of what an event demands of the guest's state. */
    uint64_t blocked = get(c, VMCS_GUEST_INTERRUPTIBILITY);
    expect(c,
           type != EVENT_TYPE_EXTERNAL || ((c->rflags & RFLAGS_IF) && !(blocked & BLOCKED_SHADOW)),
           name, word, "an external interrupt finds RFLAGS.IF set and no shadow", in_guest_rest);
    expect(c, type != EVENT_TYPE_NMI || !(blocked & (BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI)), name,
           word, "an NMI finds no blocking by MOV SS or NMI", in_guest_rest);
}

/* ---- Host ---- */

static void check_host_registers(struct checks *c)
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

        expect(c, canonical(address), addresses[i].name, address, "canonical", in_host_segs);
    }
    if (c->exit & EXITC_LOAD_PAT) {
        uint64_t pat = get(c, VMCS_HOST_PAT);

        expect(c, valid_pat(pat), "host PAT", pat, "each byte is a memory type (0, 1, 4-7)",
               in_host_regs);
    }
    expect(c, (c->exit & EXITC_HOST_64) != 0, "VM-exit controls", c->exit,
           "the host is 64-bit: its address-space size is set", in_host_size);
    expect(c, (cr4 & CR4_PAE) != 0, "host CR4", cr4, "PAE is set", in_host_size);
    if (c->exit & EXITC_LOAD_EFER) {
        uint64_t efer = get(c, VMCS_HOST_EFER);

        expect(c, (efer & EFER_LMA) && (efer & EFER_LME), "host EFER", efer,
               "LMA and LME as the host's address-space size", in_host_regs);
    }
}

static void check_host_selectors(struct checks *c)
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

/* ---- Guest registers ---- */

static void check_guest_registers(struct checks *c)
{
    struct vmx_allowed cr0 = c->caps->cr0;
    uint64_t cr3 = get(c, VMCS_GUEST_CR3);

    if (c->unrestricted) {
        cr0.must &= ~(CR0_PE | CR0_PG);
    }
    /* NW and CD are not checked. */
    cr0.must &= ~(CR0_NW | CR0_CD);
    cr0.may |= CR0_NW | CR0_CD;
    expect(c, permitted(&cr0, c->cr0), "CR0", c->cr0, "as IA32_VMX_CR0_FIXED0/1 demand",
           in_guest_regs);
    expect(c, !(c->cr0 & CR0_PG) || (c->cr0 & CR0_PE), "CR0", c->cr0, "PE is set where PG is",
           in_guest_regs);
    expect(c, permitted(&c->caps->cr4, c->cr4), "CR4", c->cr4, "as IA32_VMX_CR4_FIXED0/1 demand",
           in_guest_regs);
    expect(c, !c->ia32e || ((c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE)), "VM-entry controls", c->entry,
           "IA-32e mode needs CR0.PG and CR4.PAE", in_guest_regs);
    expect(c, c->ia32e || !(c->cr4 & CR4_PCIDE), "CR4", c->cr4, "PCIDE only in IA-32e mode",
           in_guest_regs);
    expect(c, physical(c, cr3), "CR3", cr3, "within the physical address width", in_guest_regs);
    if (c->entry & ENTRY_LOAD_DEBUG) {
        uint64_t dr7 = get(c, VMCS_GUEST_DR7);

        expect(c, dr7 >> 32 == 0, "DR7", dr7, "bits 63:32 are zero", in_guest_regs);
    }
    uint64_t esp = get(c, VMCS_GUEST_SYSENTER_ESP), eip = get(c, VMCS_GUEST_SYSENTER_EIP);
    expect(c, canonical(esp), "SYSENTER_ESP", esp, "canonical", in_guest_regs);
    expect(c, canonical(eip), "SYSENTER_EIP", eip, "canonical", in_guest_regs);
    if (c->entry & ENTRY_LOAD_PAT) {
        uint64_t pat = get(c, VMCS_GUEST_PAT);

        expect(c, valid_pat(pat), "PAT", pat, "each byte is a memory type (0, 1, 4-7)",
               in_guest_regs);
    }
}

static void check_guest_efer(struct checks *c)
{
    const uint64_t known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

    if (!(c->entry & ENTRY_LOAD_EFER)) {
        return;
    }
    uint64_t efer = get(c, VMCS_GUEST_EFER);
    bool active = (efer & EFER_LMA) != 0;
    expect(c, (efer & ~known) == 0, "EFER", efer, "reserved bits are zero", in_guest_regs);
    expect(c, active == c->ia32e, "EFER", efer, "LMA as the entry control \"IA-32e mode guest\"",
           in_guest_regs);
    expect(c, !(c->cr0 & CR0_PG) || active == ((efer & EFER_LME) != 0), "EFER", efer,
           "LMA equals LME while paging is on", in_guest_regs);
}

static void check_guest_rip(struct checks *c)
{
    uint64_t rip = get(c, VMCS_GUEST_RIP), rights = get(c, VMCS_GUEST_ES_RIGHTS + 2);
    bool code64 = c->ia32e && (rights & RIGHTS_L);
    const uint64_t reserved = ~0x3f7fd7ULL;

    expect(c, code64 || rip >> 32 == 0, "RIP", rip, "bits 63:32 are zero outside 64-bit code",
           in_guest_rip);
    expect(c, !code64 || canonical(rip), "RIP", rip, "canonical", in_guest_rip);
    expect(c, (c->rflags & RFLAGS_FIXED1) && !(c->rflags & reserved), "RFLAGS", c->rflags,
           "bit 1 is set, reserved bits are zero", in_guest_rip);
    expect(c, !c->virtual_8086 || (!c->ia32e && (c->cr0 & CR0_PE)), "RFLAGS", c->rflags,
           "VM only in protected mode outside IA-32e mode", in_guest_rip);
}

/* ---- Guest segments ---- */

struct seg {
    const char *name;
    uint64_t selector, base, limit, rights;
    unsigned type, dpl;
    bool usable;
};

static struct seg get_seg(struct checks *c, const char *name, uint32_t number)
{
    uint64_t rights = get(c, VMCS_GUEST_ES_RIGHTS + 2 * number);

    return (struct seg){
        .name = name,
        .selector = get(c, VMCS_GUEST_ES + 2 * number),
        .base = get(c, VMCS_GUEST_ES_BASE + 2 * number),
        .limit = get(c, VMCS_GUEST_ES_LIMIT + 2 * number),
        .rights = rights,
        .type = rights & RIGHTS_TYPE,
        .dpl = rights >> RIGHTS_DPL_SHIFT & 3,
        .usable = !(rights & RIGHTS_UNUSABLE),
    };
}

/* What every usable segment register has to be. */
static void check_seg_common(struct checks *c, const struct seg *s, bool system)
{
    const uint64_t reserved = 0xfffe0f00, low = 0xfff, high = 0xfff00000;

    expect(c, ((s->rights & RIGHTS_S) == 0) == system, s->name, s->rights,
           system ? "a system segment" : "a code or data segment", in_guest_segs);
    expect(c, (s->rights & RIGHTS_P) != 0, s->name, s->rights, "present", in_guest_segs);
    expect(c, (s->rights & reserved) == 0, s->name, s->rights, "reserved bits are zero",
           in_guest_segs);
    expect(c, (s->limit & low) == low || !(s->rights & RIGHTS_G), s->name, s->limit,
           "a limit that does not end a page is in bytes (G is clear)", in_guest_segs);
    expect(c, !(s->limit & high) || (s->rights & RIGHTS_G), s->name, s->limit,
           "a limit of 1 MiB or more is in pages (G is set)", in_guest_segs);
}

static void check_8086_segs(struct checks *c)
{
    static const char *const names[] = {"ES", "CS", "SS", "DS", "FS", "GS"};

    for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct seg s = get_seg(c, names[i], i);

        expect(c, s.base == s.selector << 4, s.name, s.base, "base is the selector times 16",
               in_guest_segs);
        expect(c, s.limit == 0xffff, s.name, s.limit, "limit is FFFFH", in_guest_segs);
        expect(c, s.rights == 0xf3, s.name, s.rights, "rights are F3H", in_guest_segs);
    }
}

static void check_code_and_stack(struct checks *c)
{
    struct seg cs = get_seg(c, "CS", 1), ss = get_seg(c, "SS", 2);
    const unsigned real_data = 3;
    bool data_code = cs.type == real_data && c->unrestricted;

    check_seg_common(c, &cs, false);
    expect(c, cs.usable, cs.name, cs.rights, "usable", in_guest_segs);
    expect(c, (cs.type & 9) == 9 || data_code, cs.name, cs.rights,
           "accessed code (or, for unrestricted guests, accessed data)", in_guest_segs);
    expect(c, (cs.type != 9 && cs.type != 11) || cs.dpl == ss.dpl, cs.name, cs.rights,
           "DPL of non-conforming code is that of SS", in_guest_segs);
    expect(c, (cs.type != 13 && cs.type != 15) || cs.dpl <= ss.dpl, cs.name, cs.rights,
           "DPL of conforming code is not above that of SS", in_guest_segs);
    expect(c, !data_code || cs.dpl == 0, cs.name, cs.rights, "DPL of a data segment in CS is 0",
           in_guest_segs);
    expect(c, !(c->ia32e && (cs.rights & RIGHTS_L)) || !(cs.rights & RIGHTS_DB), cs.name, cs.rights,
           "L and D are not both set in IA-32e mode", in_guest_segs);
    expect(c, cs.base >> 32 == 0, cs.name, cs.base, "base bits 63:32 are zero", in_guest_segs);

    if (ss.usable) {
        check_seg_common(c, &ss, false);
        expect(c, ss.type == 3 || ss.type == 7, ss.name, ss.rights, "accessed writable data",
               in_guest_segs);
        expect(c, ss.base >> 32 == 0, ss.name, ss.base, "base bits 63:32 are zero", in_guest_segs);
    }
    expect(c, c->unrestricted || ss.dpl == (ss.selector & 3), ss.name, ss.rights,
           "DPL equals the selector's RPL", in_guest_segs);
    expect(c, ((cs.type != 3 && (c->cr0 & CR0_PE))) || ss.dpl == 0, ss.name, ss.rights,
           "DPL is 0 in real mode", in_guest_segs);
}

static void check_data_segs(struct checks *c)
{
    static const struct {
        const char *name;
        uint32_t number;
        bool wide; /* has a 64-bit base */
    } data[] = {{"ES", 0, false}, {"DS", 3, false}, {"FS", 4, true}, {"GS", 5, true}};

    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct seg s = get_seg(c, data[i].name, data[i].number);

        if (data[i].wide) {
            expect(c, canonical(s.base), s.name, s.base, "base is canonical", in_guest_segs);
        }
        if (!s.usable) {
            continue;
        }
        check_seg_common(c, &s, false);
        expect(c, s.type & 1, s.name, s.rights, "accessed", in_guest_segs);
        expect(c, !(s.type & 8) || (s.type & 2), s.name, s.rights, "a code segment is readable",
               in_guest_segs);
        expect(c, data[i].wide || s.base >> 32 == 0, s.name, s.base, "base bits 63:32 are zero",
               in_guest_segs);
        expect(c, c->unrestricted || s.type > 11 || s.dpl >= (s.selector & 3), s.name, s.rights,
               "DPL is not below the selector's RPL", in_guest_segs);
    }
}

static void check_system_segs(struct checks *c)
{
    const uint64_t from_local_table = 4;
    const unsigned busy16 = 3, busy = 11, ldt = 2;
    struct seg tr = get_seg(c, "TR", 7), ldtr = get_seg(c, "LDTR", 6);

    expect(c, tr.usable, tr.name, tr.rights, "usable", in_guest_segs);
    check_seg_common(c, &tr, true);
    expect(c, tr.type == busy || (tr.type == busy16 && !c->ia32e), tr.name, tr.rights,
           "a busy TSS, in IA-32e mode a 64-bit one", in_guest_segs);
    expect(c, !(tr.selector & from_local_table), tr.name, tr.selector, "TI is zero", in_guest_segs);
    expect(c, canonical(tr.base), tr.name, tr.base, "base is canonical", in_guest_segs);
    if (ldtr.usable) {
        check_seg_common(c, &ldtr, true);
        expect(c, ldtr.type == ldt, ldtr.name, ldtr.rights, "a local descriptor table",
               in_guest_segs);
        expect(c, !(ldtr.selector & from_local_table), ldtr.name, ldtr.selector, "TI is zero",
               in_guest_segs);
        expect(c, canonical(ldtr.base), ldtr.name, ldtr.base, "base is canonical", in_guest_segs);
    }
}

static void check_tables(struct checks *c)
{
    static const struct {
        const char *name;
        uint32_t base, limit;
    } tables[] = {{"GDTR", VMCS_GUEST_GDTR_BASE, VMCS_GUEST_GDTR_LIMIT},
                  {"IDTR", VMCS_GUEST_IDTR_BASE, VMCS_GUEST_IDTR_LIMIT}};

    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
        uint64_t base = get(c, tables[i].base), limit = get(c, tables[i].limit);

        expect(c, canonical(base), tables[i].name, base, "base is canonical", in_guest_tables);
        expect(c, limit >> 16 == 0, tables[i].name, limit, "limit bits 31:16 are zero",
               in_guest_tables);
    }
}

/* ---- Rest of the guest's state ---- */

static void check_interruptibility(struct checks *c)
{
    const uint64_t known = BLOCKED_SHADOW | BLOCKED_BY_SMI | BLOCKED_BY_NMI;
    uint64_t blocked = get(c, VMCS_GUEST_INTERRUPTIBILITY);
    const char *name = "interruptibility state";

    expect(c, (blocked & ~known) == 0, name, blocked, "reserved bits are zero", in_guest_rest);
    expect(c, (blocked & BLOCKED_SHADOW) != BLOCKED_SHADOW, name, blocked,
           "not blocked by STI and by MOV SS at once", in_guest_rest);
    expect(c, !(blocked & BLOCKED_BY_STI) || (c->rflags & RFLAGS_IF), name, blocked,
           "blocked by STI only with RFLAGS.IF set", in_guest_rest);
    expect(c, !(blocked & BLOCKED_BY_SMI), name, blocked, "not blocked by SMI outside SMM",
           in_guest_rest);
}

static void check_rest(struct checks *c)
{
    const uint64_t active = 0, last_state = 3, known = 0x1500f;
    uint64_t activity = get(c, VMCS_GUEST_ACTIVITY), blocked = get(c, VMCS_GUEST_INTERRUPTIBILITY);
    uint64_t pending = get(c, VMCS_GUEST_PENDING_DEBUG), link = get(c, VMCS_LINK);

    expect(c, activity <= last_state, "activity state", activity, "a defined state", in_guest_rest);
    expect(c, activity == active || !(blocked & BLOCKED_SHADOW), "activity state", activity,
           "active while a shadow blocks interrupts", in_guest_rest);
    expect(c, (pending & ~known) == 0, "pending debug exceptions", pending,
           "reserved bits are zero", in_guest_rest);
    if (blocked & BLOCKED_SHADOW) {
        expect(c, !(pending & PENDING_DEBUG_BS) == !(c->rflags & RFLAGS_TF),
               "pending debug exceptions", pending, "in a shadow, BS is set exactly with RFLAGS.TF",
               in_guest_rest);
    }
    expect(c, link == UINT64_MAX, "VMCS link pointer", link, "FFFFFFFF_FFFFFFFFH: unused",
           in_guest_rest);
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
    struct checks c = {.doctor = {.report = report, .arg = arg}, .caps = caps, .read = read};

    c.proc = get(&c, VMCS_PROC_CTL);
    c.proc2 = (c.proc & PROC_SECONDARY) ? get(&c, VMCS_PROC2_CTL) : 0;
    c.exit = get(&c, VMCS_EXIT_CTL);
    c.entry = get(&c, VMCS_ENTRY_CTL);
    c.cr0 = get(&c, VMCS_GUEST_CR0);
    c.cr4 = get(&c, VMCS_GUEST_CR4);
    c.rflags = get(&c, VMCS_GUEST_RFLAGS);
    c.unrestricted = (c.proc2 & PROC2_UNRESTRICTED) != 0;
    c.ia32e = (c.entry & ENTRY_IA32E) != 0;
    c.virtual_8086 = (c.rflags & RFLAGS_VM) != 0;

    check_allowed(&c);
    check_addresses(&c);
    check_nested(&c);
    check_event(&c);
    check_host_registers(&c);
    check_host_selectors(&c);
    check_guest_registers(&c);
    check_guest_efer(&c);
    check_guest_rip(&c);
    if (c.virtual_8086) {
        check_8086_segs(&c);
    } else {
        check_code_and_stack(&c);
        check_data_segs(&c);
    }
    check_system_segs(&c);
    check_tables(&c);
    check_interruptibility(&c);
    check_rest(&c);
    return c.doctor.violations;
}

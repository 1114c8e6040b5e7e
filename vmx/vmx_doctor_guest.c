/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VMX entry doctor's rules about the guest's state; see vmx_doctor.h. Called by vmx_doctor.c.
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "vmx/vmx_doctor_rules.h"

static const char in_guest_regs[] = "Checks on Guest Control Registers, Debug Registers, and MSRs";
static const char in_guest_segs[] = "Checks on Guest Segment Registers";
static const char in_guest_tables[] = "Checks on Guest Descriptor-Table Registers";
static const char in_guest_rip[] = "Checks on Guest RIP, RFLAGS, and SSP";
static const char in_guest_rest[] = "Checks on Guest Non-Register State";
static const char in_guest_pdptes[] = "Checks on Guest Page-Directory-Pointer-Table Entries";

/* ---- Guest registers ---- */

static void check_guest_registers(struct vmx_checks *c)
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
    expect(c, !(c->cr4 & CR4_CET) || (c->cr0 & CR0_WP), "CR4", c->cr4, "CET only with CR0.WP",
           in_guest_regs);
    expect(c, c->ia32e || !(c->cr4 & CR4_PCIDE), "CR4", c->cr4, "PCIDE only in IA-32e mode",
           in_guest_regs);
    expect(c, physical(c, cr3), "CR3", cr3, "within the physical address width", in_guest_regs);
    if (c->entry & ENTRY_LOAD_DEBUG) {
        const uint64_t debugctl_known = 0xffc3;
        uint64_t dr7 = get(c, VMCS_GUEST_DR7), debugctl = get(c, VMCS_GUEST_DEBUGCTL);

        expect(c, dr7 >> 32 == 0, "DR7", dr7, "bits 63:32 are zero", in_guest_regs);
        expect(c, (debugctl & ~debugctl_known) == 0, "DEBUGCTL", debugctl, "reserved bits are zero",
               in_guest_regs);
    }
    uint64_t esp = get(c, VMCS_GUEST_SYSENTER_ESP), eip = get(c, VMCS_GUEST_SYSENTER_EIP);
    expect(c, is_canonical(esp), "SYSENTER_ESP", esp, "canonical", in_guest_regs);
    expect(c, is_canonical(eip), "SYSENTER_EIP", eip, "canonical", in_guest_regs);
    if (c->entry & ENTRY_LOAD_PAT) {
        uint64_t pat = get(c, VMCS_GUEST_PAT);

        expect(c, pat_is_valid(pat), "PAT", pat, "each byte is a memory type (0, 1, 4-7)",
               in_guest_regs);
    }
}

static void check_guest_efer(struct vmx_checks *c)
{
    if (!(c->entry & ENTRY_LOAD_EFER)) {
        return;
    }
    uint64_t efer = get(c, VMCS_GUEST_EFER);
    bool active = (efer & EFER_LMA) != 0;
    expect(c, (efer & ~EFER_KNOWN) == 0, "EFER", efer, "reserved bits are zero", in_guest_regs);
    expect(c, active == c->ia32e, "EFER", efer, "LMA as the entry control \"IA-32e mode guest\"",
           in_guest_regs);
    expect(c, !(c->cr0 & CR0_PG) || active == ((efer & EFER_LME) != 0), "EFER", efer,
           "LMA equals LME while paging is on", in_guest_regs);
}

static void check_guest_rip(struct vmx_checks *c)
{
    uint64_t rip = get(c, VMCS_GUEST_RIP), rights = get(c, VMCS_GUEST_ES_RIGHTS + 2);
    bool code64 = c->ia32e && (rights & RIGHTS_L);
    const uint64_t reserved = ~0x3f7fd7ULL;

    expect(c, code64 || rip >> 32 == 0, "RIP", rip, "bits 63:32 are zero outside 64-bit code",
           in_guest_rip);
    expect(c, !code64 || is_canonical(rip), "RIP", rip, "canonical", in_guest_rip);
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

static struct seg get_seg(struct vmx_checks *c, const char *name, uint32_t number)
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
static void check_seg_common(struct vmx_checks *c, const struct seg *s, bool system)
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

static void check_8086_segs(struct vmx_checks *c)
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

static void check_code_and_stack(struct vmx_checks *c)
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
    expect(c, c->unrestricted || (ss.selector & 3) == (cs.selector & 3), ss.name, ss.selector,
           "RPL is that of CS", in_guest_segs);
    expect(c, c->unrestricted || ss.dpl == (ss.selector & 3), ss.name, ss.rights,
           "DPL equals the selector's RPL", in_guest_segs);
    expect(c, ((cs.type != 3 && (c->cr0 & CR0_PE))) || ss.dpl == 0, ss.name, ss.rights,
           "DPL is 0 in real mode", in_guest_segs);
}

static void check_data_segs(struct vmx_checks *c)
{
    static const struct {
        const char *name;
        uint32_t number;
        bool wide; /* has a 64-bit base */
    } data[] = {{"ES", 0, false}, {"DS", 3, false}, {"FS", 4, true}, {"GS", 5, true}};

    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct seg s = get_seg(c, data[i].name, data[i].number);

        if (data[i].wide) {
            expect(c, is_canonical(s.base), s.name, s.base, "base is canonical", in_guest_segs);
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

static void check_system_segs(struct vmx_checks *c)
{
    const uint64_t from_local_table = 4;
    const unsigned busy16 = 3, busy = 11, ldt = 2;
    struct seg tr = get_seg(c, "TR", 7), ldtr = get_seg(c, "LDTR", 6);

    expect(c, tr.usable, tr.name, tr.rights, "usable", in_guest_segs);
    check_seg_common(c, &tr, true);
    expect(c, tr.type == busy || (tr.type == busy16 && !c->ia32e), tr.name, tr.rights,
           "a busy TSS, in IA-32e mode a 64-bit one", in_guest_segs);
    expect(c, !(tr.selector & from_local_table), tr.name, tr.selector, "TI is zero", in_guest_segs);
    expect(c, is_canonical(tr.base), tr.name, tr.base, "base is canonical", in_guest_segs);
    if (ldtr.usable) {
        check_seg_common(c, &ldtr, true);
        expect(c, ldtr.type == ldt, ldtr.name, ldtr.rights, "a local descriptor table",
               in_guest_segs);
        expect(c, !(ldtr.selector & from_local_table), ldtr.name, ldtr.selector, "TI is zero",
               in_guest_segs);
        expect(c, is_canonical(ldtr.base), ldtr.name, ldtr.base, "base is canonical",
               in_guest_segs);
    }
}

static void check_tables(struct vmx_checks *c)
{
    static const struct {
        const char *name;
        uint32_t base, limit;
    } tables[] = {{"GDTR", VMCS_GUEST_GDTR_BASE, VMCS_GUEST_GDTR_LIMIT},
                  {"IDTR", VMCS_GUEST_IDTR_BASE, VMCS_GUEST_IDTR_LIMIT}};

    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
        uint64_t base = get(c, tables[i].base), limit = get(c, tables[i].limit);

        expect(c, is_canonical(base), tables[i].name, base, "base is canonical", in_guest_tables);
        expect(c, limit >> 16 == 0, tables[i].name, limit, "limit bits 31:16 are zero",
               in_guest_tables);
    }
}

/* ---- Rest of the guest's state ---- */

static void check_interruptibility(struct vmx_checks *c)
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

/* What an event to inject demands of the state that it meets. */
static void check_event_accepted(struct vmx_checks *c)
{
    const char *name = "VM-entry interruption information";
    uint64_t blocked = get(c, VMCS_GUEST_INTERRUPTIBILITY);
    uint64_t activity = get(c, VMCS_GUEST_ACTIVITY);
    unsigned type = c->event >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK,
             vector = c->event & EVENT_VECTOR;
    bool hard = type == EVENT_TYPE_HARD_EXCEPTION;
    bool wakes_shutdown = type == EVENT_TYPE_NMI || (hard && vector == EXC_MC);
    bool wakes_hlt = wakes_shutdown || type == EVENT_TYPE_EXTERNAL || (hard && vector == EXC_DB);

    if (!(c->event & EVENT_VALID)) {
        return;
    }
    expect(
        c, type != EVENT_TYPE_EXTERNAL || ((c->rflags & RFLAGS_IF) && !(blocked & BLOCKED_SHADOW)),
        name, c->event, "an external interrupt finds RFLAGS.IF set and no shadow", in_guest_rest);
    expect(c, type != EVENT_TYPE_NMI || !(blocked & (BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI)), name,
           c->event, "an NMI finds no blocking by MOV SS or NMI", in_guest_rest);
    expect(c,
           activity == ACTIVITY_ACTIVE || (activity == ACTIVITY_HLT && wakes_hlt) ||
               (activity == ACTIVITY_SHUTDOWN && wakes_shutdown),
           name, c->event, "only events that end the activity state", in_guest_rest);
}

static void check_rest(struct vmx_checks *c)
{
    const uint64_t known = 0x1500f, branches = BIT(1);
    unsigned ss_dpl = get(c, VMCS_GUEST_ES_RIGHTS + 4) >> RIGHTS_DPL_SHIFT & 3;
    uint64_t activity = get(c, VMCS_GUEST_ACTIVITY), blocked = get(c, VMCS_GUEST_INTERRUPTIBILITY);
    uint64_t pending = get(c, VMCS_GUEST_PENDING_DEBUG), link = get(c, VMCS_LINK);

    expect(c, activity <= ACTIVITY_WAIT_SIPI, "activity state", activity, "a defined state",
           in_guest_rest);
    expect(c, activity == ACTIVITY_ACTIVE || !(blocked & BLOCKED_SHADOW), "activity state",
           activity, "active while a shadow blocks interrupts", in_guest_rest);
    expect(c, (pending & ~known) == 0, "pending debug exceptions", pending,
           "reserved bits are zero", in_guest_rest);
    expect(c, activity != ACTIVITY_HLT || ss_dpl == 0, "activity state", activity,
           "halted only with SS.DPL 0", in_guest_rest);
    if ((blocked & BLOCKED_SHADOW) || activity == ACTIVITY_HLT) {
        bool steps = (c->rflags & RFLAGS_TF) && !(get(c, VMCS_GUEST_DEBUGCTL) & branches);

        expect(c, ((pending & PENDING_DEBUG_BS) != 0) == steps, "pending debug exceptions", pending,
               "in a shadow or halted, BS is set exactly when RFLAGS.TF steps instructions",
               in_guest_rest);
    }
    expect(c, link == UINT64_MAX, "VMCS link pointer", link, "FFFFFFFF_FFFFFFFFH: unused",
           in_guest_rest);
}

/* "PAE Paging": the entries that this entry loads, not those in memory. */
static void check_pdptes(struct vmx_checks *c)
{
    const uint64_t present = 1, reserved = 0x1e6;

    if (!(c->proc2 & PROC2_EPT) || !(c->cr0 & CR0_PG) || !(c->cr4 & CR4_PAE) || c->ia32e) {
        return;
    }
    for (uint32_t field = VMCS_GUEST_PDPTE0; field < VMCS_GUEST_PDPTE0 + 8; field += 2) {
        uint64_t entry = get(c, field);

        expect(c, !(entry & present) || (!(entry & reserved) && physical(c, entry)), "PDPTE", entry,
               "a table within the physical address width, reserved bits clear", in_guest_pdptes);
    }
}

static void check_segments(struct vmx_checks *c)
{
    if (c->virtual_8086) {
        check_8086_segs(c);
    } else {
        check_code_and_stack(c);
        check_data_segs(c);
    }
    check_system_segs(c);
}

static void say_nothing(void *arg, const char *field, uint64_t value, const char *rule,
                        const char *section)
{
    (void)arg, (void)field, (void)value, (void)rule, (void)section;
}

unsigned vmx_doctor_enterable(const struct vmx_caps *caps, vmx_doctor_read_t read, void *arg)
{
    struct vmx_checks c = {
        .doctor = {.report = say_nothing, .arg = arg}, .caps = caps, .read = read};

    c.cr0 = get(&c, VMCS_GUEST_CR0);
    c.rflags = get(&c, VMCS_GUEST_RFLAGS);
    c.ia32e = (get(&c, VMCS_ENTRY_CTL) & ENTRY_IA32E) != 0;
    c.virtual_8086 = (c.rflags & RFLAGS_VM) != 0;
    check_segments(&c);
    check_tables(&c);
    check_guest_rip(&c);
    return c.doctor.violations;
}

void vmx_doctor_guest(struct vmx_checks *c)
{
    check_guest_registers(c);
    check_guest_efer(c);
    check_guest_rip(c);
    check_segments(c);
    check_tables(c);
    check_interruptibility(c);
    check_event_accepted(c);
    check_rest(c);
    check_pdptes(c);
}

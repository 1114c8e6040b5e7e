/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VMX entry doctor: a state that may be entered, then each rule broken once. The broken rule is
 * named, with its field and the manual's section.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "vmx/vmcs.h"
#include "vmx/vmx_doctor.h"

#define NR_FIELDS 0x7000u
#define ALL 0xffffffffull

static uint64_t vmcs[NR_FIELDS];
static unsigned violations;
static char last[256];

static const struct vmx_caps caps = {
    .pin = {PIN_INTERRUPT, ALL},
    .proc = {0, ALL},
    .proc2 = {0, ALL},
    .exit = {0, ALL},
    .entry = {0, ALL & ~(ENTRY_SMM | ENTRY_DUAL_MONITOR)},
    .cr0 = {CR0_PE | CR0_NE | CR0_PG, ALL},
    .cr4 = {CR4_VMXE, 0xffffff},
    .ept_vpid = EPTCAP_WALK_4 | EPTCAP_WB | EPTCAP_UC,
    .phys_bits = 40,
};

static uint64_t read_field(void *arg, uint32_t field)
{
    (void)arg;
    assert_true(field < NR_FIELDS);
    return vmcs[field];
}

static void report(void *arg, const char *field, uint64_t value, const char *rule,
                   const char *section)
{
    (void)arg;
    (void)value;
    assert_non_null(section);
    violations++;
    snprintf(last, sizeof(last), "%s: %s", field, rule);
}

static void set_seg(unsigned number, uint64_t selector, uint64_t base, uint64_t limit,
                    uint64_t rights)
{
    vmcs[VMCS_GUEST_ES + 2 * number] = selector;
    vmcs[VMCS_GUEST_ES_BASE + 2 * number] = base;
    vmcs[VMCS_GUEST_ES_LIMIT + 2 * number] = limit;
    vmcs[VMCS_GUEST_ES_RIGHTS + 2 * number] = rights;
}

/* A 64-bit guest in the middle of its kernel. */
static void good(void)
{
    memset(vmcs, 0, sizeof(vmcs));
    violations = 0;
    last[0] = '\0';
    vmcs[VMCS_PIN_CTL] = PIN_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI;
    vmcs[VMCS_PROC_CTL] =
        PROC_SECONDARY | PROC_IO_BITMAPS | PROC_MSR_BITMAP | PROC_TPR_SHADOW | PROC_HLT;
    vmcs[VMCS_PROC2_CTL] = PROC2_EPT | PROC2_VPID | PROC2_UNRESTRICTED;
    vmcs[VMCS_EXIT_CTL] = EXITC_HOST_64 | EXITC_LOAD_EFER | EXITC_SAVE_EFER | EXITC_LOAD_PAT;
    vmcs[VMCS_ENTRY_CTL] = ENTRY_IA32E | ENTRY_LOAD_EFER | ENTRY_LOAD_PAT | ENTRY_LOAD_DEBUG;
    vmcs[VMCS_IO_BITMAP_A] = 0x1000;
    vmcs[VMCS_IO_BITMAP_B] = 0x2000;
    vmcs[VMCS_MSR_BITMAP] = 0x3000;
    vmcs[VMCS_VIRTUAL_APIC] = 0x4000;
    vmcs[VMCS_VPID] = 1;
    vmcs[VMCS_EPTP] = 0x5000 | EPTP_TYPE_WB | EPTP_WALK_4;
    vmcs[VMCS_LINK] = UINT64_MAX;

    vmcs[VMCS_HOST_CR0] = CR0_PE | CR0_NE | CR0_PG;
    vmcs[VMCS_HOST_CR3] = 0x6000;
    vmcs[VMCS_HOST_CR4] = CR4_VMXE | CR4_PAE;
    vmcs[VMCS_HOST_EFER] = EFER_LMA | EFER_LME | EFER_NXE;
    vmcs[VMCS_HOST_PAT] = 0x0007040600070406;
    vmcs[VMCS_HOST_CS] = 0x08;
    vmcs[VMCS_HOST_SS] = vmcs[VMCS_HOST_DS] = vmcs[VMCS_HOST_ES] = 0x10;
    vmcs[VMCS_HOST_TR] = 0x18;
    vmcs[VMCS_HOST_RIP] = 0xffffffff80200000;

    vmcs[VMCS_GUEST_CR0] = CR0_PE | CR0_NE | CR0_PG | CR0_ET;
    vmcs[VMCS_GUEST_CR3] = 0x7000;
    vmcs[VMCS_GUEST_CR4] = CR4_VMXE | CR4_PAE;
    vmcs[VMCS_GUEST_EFER] = EFER_LMA | EFER_LME;
    vmcs[VMCS_GUEST_PAT] = 0x0007040600070406;
    vmcs[VMCS_GUEST_DR7] = 0x400;
    vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED1 | BIT(9);
    vmcs[VMCS_GUEST_RIP] = 0xffffffff81000000;
    for (unsigned i = 0; i < 6; i++) {
        set_seg(i, 0x18, 0, 0xffffffff, 0xc093);
    }
    set_seg(1, 0x10, 0, 0xffffffff, 0xa09b);
    set_seg(6, 0, 0, 0xffff, 0x82);
    set_seg(7, 0x40, 0, 0x67, 0x8b);
    vmcs[VMCS_GUEST_GDTR_LIMIT] = vmcs[VMCS_GUEST_IDTR_LIMIT] = 0xfff;
}

/* One in 32-bit protected mode with PAE tables. */
static void good_32(void)
{
    good();
    vmcs[VMCS_ENTRY_CTL] &= ~ENTRY_IA32E;
    vmcs[VMCS_GUEST_EFER] = 0;
    vmcs[VMCS_GUEST_RIP] = 0x100000;
    vmcs[VMCS_GUEST_PDPTE0] = 0x8001;
    set_seg(1, 0x10, 0, 0xffffffff, 0xc09b);
}

/* Both with the software MMU. */
static void good_software(bool ia32e)
{
    if (ia32e) {
        good();
    } else {
        good_32();
    }
    vmcs[VMCS_PROC2_CTL] = PROC2_VPID;
    vmcs[VMCS_PROC_CTL] |= PROC_CR3_LOAD | PROC_CR3_STORE | PROC_INVLPG;
    vmcs[VMCS_EXCEPTIONS] = BIT(EXC_PF);
    vmcs[VMCS_CR0_MASK] = CR0_PE | CR0_PG | CR0_WP;
    vmcs[VMCS_CR4_MASK] = UINT64_MAX;
    vmcs[VMCS_GUEST_CR0] |= CR0_WP;
    vmcs[VMCS_GUEST_CR3] = ia32e ? 0x7000 : 0x7020;
    vmcs[VMCS_GUEST_PDPTE0] = UINT64_MAX; /* not loaded from here */
}

/* And one in real mode, as after reset. */
static void good_real(void)
{
    good_32();
    vmcs[VMCS_GUEST_CR0] = CR0_NE | CR0_ET;
    vmcs[VMCS_GUEST_CR4] = CR4_VMXE;
    vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED1;
    vmcs[VMCS_GUEST_RIP] = 0xfff0;
    for (unsigned i = 0; i < 6; i++) {
        set_seg(i, 0, 0, 0xffff, 0x93);
    }
    set_seg(1, 0xf000, 0xffff0000, 0xffff, 0x9b);
}

static unsigned check(void)
{
    violations = 0;
    return vmx_doctor_check(&caps, read_field, report, NULL);
}

static void test_good(void **state)
{
    (void)state;
    good();
    if (check() != 0) {
        fail_msg("%s", last);
    }
    good_32();
    if (check() != 0) {
        fail_msg("32 bits: %s", last);
    }
    good_real();
    if (check() != 0) {
        fail_msg("real mode: %s", last);
    }
    for (unsigned ia32e = 0; ia32e < 2; ia32e++) {
        good_software(ia32e);
        if (check() != 0) {
            fail_msg("software MMU: %s", last);
        }
    }
}

/* A field's new value and a piece of the complaint. */
static const struct {
    uint32_t field;
    uint64_t value;
    const char *complaint;
} broken[] = {
    {VMCS_PIN_CTL, PIN_NMI | PIN_VIRTUAL_NMI, "pin-based controls: only bits"},
    {VMCS_PIN_CTL, PIN_INTERRUPT | PIN_VIRTUAL_NMI, "virtual NMIs need"},
    {VMCS_PROC_CTL, 1ull << 32 | PROC_SECONDARY, "processor-based controls: only"},
    {VMCS_PROC2_CTL, 1ull << 32 | PROC2_EPT, "secondary controls: only"},
    {VMCS_EXIT_CTL, 1ull << 32 | EXITC_HOST_64, "VM-exit controls: only"},
    {VMCS_EXIT_CTL, 0, "address-space size"},
    {VMCS_ENTRY_CTL, ENTRY_IA32E | ENTRY_LOAD_EFER | ENTRY_SMM, "VM-entry controls: only"},
    {VMCS_IO_BITMAP_A, 0x1001, "I/O bitmap A"},
    {VMCS_IO_BITMAP_B, 1ull << 40, "I/O bitmap B"},
    {VMCS_MSR_BITMAP, 0x800, "MSR bitmap"},
    {VMCS_VIRTUAL_APIC, 0x10, "virtual-APIC page"},
    {VMCS_CR3_TARGETS, 5, "CR3-target count"},
    {VMCS_TPR_THRESHOLD, 0x10, "TPR threshold"},
    {VMCS_EXIT_CTL, EXITC_HOST_64 | EXITC_SAVE_TIMER, "the preemption timer is saved"},
    {VMCS_VPID, 0, "VPID"},
    {VMCS_EPTP, 0x5000 | 1 | EPTP_WALK_4, "EPTP: memory type"},
    {VMCS_EPTP, 0x5000 | EPTP_TYPE_WB, "EPTP: a page walk"},
    {VMCS_EPTP, 0x5000 | EPTP_TYPE_WB | EPTP_WALK_4 | EPTP_AD, "EPTP: accessed"},
    {VMCS_EPTP, EPTP_TYPE_WB | EPTP_WALK_4, "EPTP: a table"},
    {VMCS_ENTRY_EVENT, EVENT_VALID | 1 << 8, "a defined event type"},
    {VMCS_ENTRY_EVENT, EVENT_VALID | EVENT_TYPE_NMI << 8 | 3, "an NMI has vector 2"},
    {VMCS_ENTRY_EVENT, EVENT_VALID | EVENT_TYPE_HARD_EXCEPTION << 8 | 32, "below 32"},
    {VMCS_ENTRY_EVENT, EVENT_VALID | EVENT_TYPE_HARD_EXCEPTION << 8 | EXC_GP, "an error code"},
    {VMCS_ENTRY_EVENT, EVENT_VALID | 0x1000 | 0x30, "reserved bits are zero"},
    {VMCS_ENTRY_EVENT, EVENT_VALID | EVENT_TYPE_SOFT_INT << 8 | 0x80, "instruction length"},
    {VMCS_HOST_CR0, CR0_PE | CR0_PG, "host CR0"},
    {VMCS_HOST_CR4, CR4_PAE, "host CR4: as"},
    {VMCS_HOST_CR4, CR4_VMXE, "host CR4: PAE"},
    {VMCS_HOST_CR3, 1ull << 40, "host CR3"},
    {VMCS_HOST_RIP, 1ull << 47, "host RIP"},
    {VMCS_HOST_TR_BASE, 1ull << 62, "host TR base"},
    {VMCS_HOST_GDTR_BASE, 1ull << 62, "host GDTR base"},
    {VMCS_HOST_IDTR_BASE, 1ull << 62, "host IDTR base"},
    {VMCS_HOST_SYSENTER_EIP, 1ull << 62, "host SYSENTER_EIP"},
    {VMCS_HOST_PAT, 2, "host PAT"},
    {VMCS_HOST_EFER, EFER_LMA, "host EFER"},
    {VMCS_HOST_EFER, EFER_LMA | EFER_LME | EFER_SVME, "host EFER: reserved"},
    {VMCS_HOST_DS, 0x13, "host selector: TI and RPL"},
    {VMCS_HOST_TR, 0, "host selector: CS and TR"},
    {VMCS_GUEST_CR0, CR0_PE | CR0_PG, "CR0: as"},
    {VMCS_GUEST_CR0, CR0_NE | CR0_PG, "CR0: PE is set"},
    {VMCS_GUEST_CR4, CR4_PAE, "CR4: as"},
    {VMCS_GUEST_CR4, CR4_VMXE, "IA-32e mode needs"},
    {VMCS_GUEST_CR3, 1ull << 40, "CR3: within"},
    {VMCS_GUEST_DR7, 1ull << 32, "DR7"},
    {VMCS_GUEST_DEBUGCTL, 4, "DEBUGCTL"},
    {VMCS_GUEST_SYSENTER_ESP, 1ull << 62, "SYSENTER_ESP"},
    {VMCS_GUEST_SYSENTER_EIP, 1ull << 62, "SYSENTER_EIP"},
    {VMCS_GUEST_PAT, 0x0300, "PAT: each"},
    {VMCS_GUEST_EFER, EFER_LMA | EFER_LME | EFER_SVME, "EFER: reserved"},
    {VMCS_GUEST_EFER, 0, "EFER: LMA as"},
    {VMCS_GUEST_EFER, EFER_LMA, "LMA equals LME"},
    {VMCS_GUEST_RIP, 1ull << 62, "RIP: canonical"},
    {VMCS_GUEST_RFLAGS, BIT(9), "RFLAGS: bit 1"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa09b | RIGHTS_UNUSABLE, "CS: usable"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa091, "CS: accessed code"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa0fb, "CS: DPL of non-conforming"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa0ff, "CS: DPL of conforming"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xe09b, "CS: L and D"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa01b, "CS: present"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa08b, "CS: a code or data segment"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0xa19b, "CS: reserved bits"},
    {VMCS_GUEST_ES_RIGHTS + 2, 0x209b, "CS: a limit of 1 MiB"},
    {VMCS_GUEST_ES_LIMIT + 2, 0xfffffffe, "CS: a limit that does not end"},
    {VMCS_GUEST_ES_BASE + 2, 1ull << 32, "CS: base bits"},
    {VMCS_GUEST_ES_RIGHTS + 4, 0xc091, "SS: accessed writable"},
    {VMCS_GUEST_ES_BASE + 4, 1ull << 32, "SS: base bits"},
    {VMCS_GUEST_ES_RIGHTS, 0xc092, "ES: accessed"},
    {VMCS_GUEST_ES_RIGHTS, 0xc099, "ES: a code segment is readable"},
    {VMCS_GUEST_ES_BASE + 6, 1ull << 32, "DS: base bits"},
    {VMCS_GUEST_ES_BASE + 8, 1ull << 62, "FS: base is canonical"},
    {VMCS_GUEST_ES_RIGHTS + 14, 0x8b | RIGHTS_UNUSABLE, "TR: usable"},
    {VMCS_GUEST_ES_RIGHTS + 14, 0x83, "TR: a busy TSS"},
    {VMCS_GUEST_ES + 14, 0x44, "TR: TI is zero"},
    {VMCS_GUEST_ES_BASE + 14, 1ull << 62, "TR: base"},
    {VMCS_GUEST_ES_RIGHTS + 12, 0x89, "LDTR: a local"},
    {VMCS_GUEST_ES + 12, 4, "LDTR: TI"},
    {VMCS_GUEST_ES_BASE + 12, 1ull << 62, "LDTR: base"},
    {VMCS_GUEST_GDTR_BASE, 1ull << 62, "GDTR: base"},
    {VMCS_GUEST_IDTR_LIMIT, 0x10000, "IDTR: limit"},
    {VMCS_GUEST_INTERRUPTIBILITY, 0x100, "interruptibility state: reserved"},
    {VMCS_GUEST_INTERRUPTIBILITY, 3, "not blocked by STI and by MOV SS"},
    {VMCS_GUEST_INTERRUPTIBILITY, 4, "not blocked by SMI"},
    {VMCS_GUEST_ACTIVITY, 9, "activity state: a defined"},
    {VMCS_GUEST_PENDING_DEBUG, 0x20, "pending debug exceptions: reserved"},
    {VMCS_LINK, 0, "VMCS link pointer"},
};

static char all[8192];

static void report_all(void *arg, const char *field, uint64_t value, const char *rule,
                       const char *section)
{
    size_t used = strlen(all);

    report(arg, field, value, rule, section);
    snprintf(all + used, sizeof(all) - used, "%s: %s\n", field, rule);
}

/* This rule, and no other. */
static void expect_complaint(const char *complaint)
{
    all[0] = '\0';
    unsigned found = vmx_doctor_check(&caps, read_field, report_all, NULL);

    if (found != 1 || strstr(all, complaint) == NULL) {
        fail_msg("%u complaints instead of \"%s\" alone:\n%s", found, complaint, all);
    }
}

static void test_broken_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        good();
        vmcs[broken[i].field] = broken[i].value;
        expect_complaint(broken[i].complaint);
    }
}

/* Rules about two fields at once. */
static void test_broken_pairs(void **state)
{
    (void)state;
    good_software(true);
    vmcs[VMCS_PROC2_CTL] = PROC2_UNRESTRICTED;
    expect_complaint("unrestricted guest needs EPT");
    good();
    vmcs[VMCS_PROC_CTL] |= PROC_NMI_WINDOW;
    vmcs[VMCS_PIN_CTL] = PIN_INTERRUPT | PIN_NMI;
    expect_complaint("NMI-window exiting needs");
    good();
    vmcs[VMCS_ENTRY_MSR_LOAD_COUNT] = 1;
    vmcs[VMCS_ENTRY_MSR_LOAD] = 8;
    expect_complaint("VM-entry MSR-load address");
    good();
    vmcs[VMCS_EXIT_MSR_LOAD_COUNT] = 1;
    vmcs[VMCS_EXIT_MSR_LOAD] = 8;
    expect_complaint("VM-exit MSR-load address");
    good();
    vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | 0x30;
    vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED1;
    expect_complaint("an external interrupt finds");
    good();
    vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | EVENT_TYPE_NMI << 8 | 2;
    vmcs[VMCS_GUEST_INTERRUPTIBILITY] = BLOCKED_BY_NMI;
    expect_complaint("an NMI finds no blocking");
    good();
    vmcs[VMCS_GUEST_INTERRUPTIBILITY] = BLOCKED_BY_STI;
    vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED1;
    expect_complaint("blocked by STI only");
    good();
    vmcs[VMCS_GUEST_INTERRUPTIBILITY] = BLOCKED_BY_MOV_SS;
    vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_TF;
    expect_complaint("BS is set exactly");
    good();
    vmcs[VMCS_GUEST_INTERRUPTIBILITY] = BLOCKED_BY_MOV_SS;
    vmcs[VMCS_GUEST_ACTIVITY] = 1;
    expect_complaint("active while a shadow");
    good();
    vmcs[VMCS_ENTRY_CTL] &= ~ENTRY_IA32E;
    vmcs[VMCS_GUEST_EFER] = 0;
    expect_complaint("RIP: bits 63:32");
    good_32();
    vmcs[VMCS_GUEST_CR4] |= CR4_PCIDE;
    expect_complaint("PCIDE only");
    good();
    vmcs[VMCS_GUEST_CR4] |= CR4_CET;
    expect_complaint("CET only");
    good_32();
    vmcs[VMCS_GUEST_PDPTE0 + 6] = 0x9003;
    expect_complaint("PDPTE: a table");
    good();
    vmcs[VMCS_EXIT_MSR_STORE_COUNT] = 1;
    vmcs[VMCS_EXIT_MSR_STORE] = 1ull << 40;
    expect_complaint("VM-exit MSR-store address");
    good();
    vmcs[VMCS_ENTRY_EVENT] =
        EVENT_VALID | EVENT_HAS_ERROR | EVENT_TYPE_HARD_EXCEPTION << 8 | EXC_GP;
    vmcs[VMCS_ENTRY_ERROR] = 0x10000;
    expect_complaint("exception error code");
}

static void test_broken_activity(void **state)
{
    const uint64_t hlt = 1, shutdown = 2;

    (void)state;
    good();
    vmcs[VMCS_GUEST_ACTIVITY] = hlt;
    vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | 0x30;
    assert_int_equal(check(), 0);
    vmcs[VMCS_GUEST_ACTIVITY] = shutdown;
    expect_complaint("only events that end");
    good();
    vmcs[VMCS_GUEST_ACTIVITY] = hlt;
    set_seg(1, 0x10, 0, 0xffffffff, 0xa09f);
    set_seg(2, 0x1b, 0, 0xffffffff, 0xc0f3);
    expect_complaint("halted only");
    good();
    vmcs[VMCS_GUEST_ACTIVITY] = hlt;
    vmcs[VMCS_GUEST_PENDING_DEBUG] = PENDING_DEBUG_BS;
    expect_complaint("BS is set exactly");
}

static void test_broken_segments(void **state)
{
    (void)state;
    good();
    vmcs[VMCS_PROC2_CTL] = PROC2_EPT;
    set_seg(1, 0x10, 0, 0xffffffff, 0xa09f);
    set_seg(2, 0x18, 0, 0xffffffff, 0xc0f3);
    expect_complaint("SS: DPL equals");
    good();
    vmcs[VMCS_PROC2_CTL] = PROC2_EPT;
    vmcs[VMCS_GUEST_ES + 2] = 0x11;
    expect_complaint("SS: RPL is that");
    good();
    vmcs[VMCS_PROC2_CTL] = PROC2_EPT;
    vmcs[VMCS_GUEST_ES] = 0x1b;
    expect_complaint("ES: DPL is not below");
    good_32();
    set_seg(1, 0, 0, 0xffff, 0xf3);
    expect_complaint("CS: DPL of a data segment");
    good_real();
    set_seg(1, 0xf000, 0xffff0000, 0xffff, 0x9f);
    set_seg(2, 0, 0, 0xffff, 0xf3);
    expect_complaint("SS: DPL is 0");
}

/* Each rule of the software MMU. */
static void test_broken_software(void **state)
{
    static const struct {
        uint32_t field;
        uint64_t clear, set;
        const char *complaint;
    } breaks[] = {
        {VMCS_EXCEPTIONS, BIT(EXC_PF), 0, "all page faults exit"},
        {VMCS_PF_MASK, 0, 1, "all page faults exit"},
        {VMCS_PF_MATCH, 0, 1, "all page faults exit"},
        {VMCS_PROC_CTL, PROC_CR3_LOAD, 0, "MOV to and from CR3"},
        {VMCS_PROC_CTL, PROC_CR3_STORE, 0, "MOV to and from CR3"},
        {VMCS_PROC_CTL, PROC_INVLPG, 0, "MOV to and from CR3"},
        {VMCS_CR3_TARGETS, 0, 1, "no guest's CR3"},
        {VMCS_CR0_MASK, CR0_WP, 0, "PE, PG and WP exit"},
        {VMCS_CR4_MASK, CR4_SMAP, 0, "what a walk looks at"},
        {VMCS_GUEST_CR0, CR0_WP, 0, "PG and WP are set"},
        {VMCS_GUEST_CR4, 0, CR4_PGE, "PGE and PCIDE are clear"},
        {VMCS_GUEST_CR3, 0, 8, "a table of ours"},
    };

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_SIZE(breaks); i++) {
        const uint32_t field = breaks[i / 2].field;

        good_software(i & 1);
        vmcs[field] = (vmcs[field] & ~breaks[i / 2].clear) | breaks[i / 2].set;
        expect_complaint(breaks[i / 2].complaint);
    }
    good_software(false);
    vmcs[VMCS_GUEST_CR3] = 1ull << 32;
    expect_complaint("below 4 GiB");
}

/* What keeps a guest in emulation: segments, descriptor tables and RIP, and nothing else. */
static void test_enterable(void **state)
{
    static const struct {
        uint32_t field;
        uint64_t value;
    } breaks[] = {
        {VMCS_GUEST_GDTR_LIMIT, 0x10000}, {VMCS_GUEST_IDTR_LIMIT, 0x10000},
        {VMCS_GUEST_GDTR_BASE, BIT(47)},  {VMCS_GUEST_IDTR_BASE, BIT(47)},
        {VMCS_GUEST_RIP, BIT(47)},
    };

    (void)state;
    good_software(false);
    assert_int_equal(vmx_doctor_enterable(&caps, read_field, NULL), 0);
    vmcs[VMCS_GUEST_EFER] = UINT64_MAX;
    vmcs[VMCS_GUEST_CR3] = 8;
    assert_int_equal(vmx_doctor_enterable(&caps, read_field, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
        good_software(false);
        vmcs[breaks[i].field] = breaks[i].value;
        assert_int_equal(vmx_doctor_enterable(&caps, read_field, NULL), 1);
    }
    good_software(false);
    set_seg(2, 0x1003, 0x10030, 0xffff, 0x93); /* real mode's */
    assert_int_not_equal(vmx_doctor_enterable(&caps, read_field, NULL), 0);
}

static void test_virtual_8086(void **state)
{
    (void)state;
    for (unsigned wrong = 0; wrong < 4; wrong++) {
        good_32();
        vmcs[VMCS_GUEST_RIP] = 0x100;
        vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_VM;
        for (unsigned i = 0; i < 6; i++) {
            set_seg(i, 0x1000, 0x10000, 0xffff, 0xf3);
        }
        if (wrong == 0) {
            assert_int_equal(check(), 0);
            continue;
        }
        set_seg(3, 0x1000, wrong == 1 ? 0 : 0x10000, wrong == 2 ? 0xfff : 0xffff,
                wrong == 3 ? 0x93 : 0xf3);
        expect_complaint(wrong == 1   ? "DS: base is the selector"
                         : wrong == 2 ? "DS: limit is FFFFH"
                                      : "DS: rights are F3H");
    }
    set_seg(3, 0x1000, 0x10000, 0xffff, 0xf3);
    vmcs[VMCS_GUEST_CR0] = CR0_NE | CR0_ET;
    expect_complaint("VM only in protected mode");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_broken_fields),
        cmocka_unit_test(test_broken_pairs),
        cmocka_unit_test(test_broken_activity),
        cmocka_unit_test(test_broken_segments),
        cmocka_unit_test(test_virtual_8086),
        cmocka_unit_test(test_broken_software),
        cmocka_unit_test(test_enterable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

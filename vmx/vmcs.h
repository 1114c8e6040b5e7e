/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtual-machine control structure: its fields by encoding, the bits of its controls and exit
 * information, and the instructions that reach it (Intel 64 and IA-32 Architectures Software
 * Developer's Manual, Volume 3, appendices "Field Encoding in VMCS" and "VMX Capability Reporting
 * Facility"). What a field means to us is decided in vmcs.c and vmx_regs.c.
 */
#pragma once

#include "kernel/lib/types.h"

/* By width (16, 64, 32 bits, natural), within that: controls, exit information, guest, host. */
enum vmcs_field {
    /* 16 bits */
    VMCS_VPID = 0x0000,
    VMCS_GUEST_ES = 0x0800, /* CS, SS, DS, FS, GS, LDTR, TR follow in steps of 2 */
    VMCS_HOST_ES = 0x0c00,
    VMCS_HOST_CS = 0x0c02,
    VMCS_HOST_SS = 0x0c04,
    VMCS_HOST_DS = 0x0c06,
    VMCS_HOST_FS = 0x0c08,
    VMCS_HOST_GS = 0x0c0a,
    VMCS_HOST_TR = 0x0c0c,
    /* 64 bits */
    VMCS_IO_BITMAP_A = 0x2000,
    VMCS_IO_BITMAP_B = 0x2002,
    VMCS_MSR_BITMAP = 0x2004,
    VMCS_EXIT_MSR_STORE = 0x2006,
    VMCS_EXIT_MSR_LOAD = 0x2008,
    VMCS_ENTRY_MSR_LOAD = 0x200a,
    VMCS_TSC_OFFSET = 0x2010,
    VMCS_VIRTUAL_APIC = 0x2012,
    VMCS_EPTP = 0x201a,
    VMCS_GUEST_PHYSICAL = 0x2400,
    VMCS_LINK = 0x2800,
    VMCS_GUEST_DEBUGCTL = 0x2802,
    VMCS_GUEST_PAT = 0x2804,
    VMCS_GUEST_EFER = 0x2806,
    VMCS_GUEST_PDPTE0 = 0x280a, /* 1 to 3 follow in steps of 2 */
    VMCS_HOST_PAT = 0x2c00,
    VMCS_HOST_EFER = 0x2c02,
    /* 32 bits */
    VMCS_PIN_CTL = 0x4000,
    VMCS_PROC_CTL = 0x4002,
    VMCS_EXCEPTIONS = 0x4004,
    VMCS_PF_MASK = 0x4006,
    VMCS_PF_MATCH = 0x4008,
    VMCS_CR3_TARGETS = 0x400a,
    VMCS_EXIT_CTL = 0x400c,
    VMCS_EXIT_MSR_STORE_COUNT = 0x400e,
    VMCS_EXIT_MSR_LOAD_COUNT = 0x4010,
    VMCS_ENTRY_CTL = 0x4012,
    VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014,
    VMCS_ENTRY_EVENT = 0x4016,
    VMCS_ENTRY_ERROR = 0x4018,
    VMCS_ENTRY_LENGTH = 0x401a,
    VMCS_TPR_THRESHOLD = 0x401c,
    VMCS_PROC2_CTL = 0x401e,
    VMCS_PLE_GAP = 0x4020,
    VMCS_PLE_WINDOW = 0x4022,
    VMCS_INSTRUCTION_ERROR = 0x4400,
    VMCS_EXIT_REASON = 0x4402,
    VMCS_EXIT_EVENT = 0x4404,
    VMCS_EXIT_EVENT_ERROR = 0x4406,
    VMCS_VECTORING = 0x4408,
    VMCS_VECTORING_ERROR = 0x440a,
    VMCS_EXIT_LENGTH = 0x440c,
    VMCS_EXIT_INSTRUCTION = 0x440e,
    VMCS_GUEST_ES_LIMIT = 0x4800, /* ... TR in steps of 2 */
    VMCS_GUEST_GDTR_LIMIT = 0x4810,
    VMCS_GUEST_IDTR_LIMIT = 0x4812,
    VMCS_GUEST_ES_RIGHTS = 0x4814, /* ... TR in steps of 2 */
    VMCS_GUEST_INTERRUPTIBILITY = 0x4824,
    VMCS_GUEST_ACTIVITY = 0x4826,
    VMCS_GUEST_SYSENTER_CS = 0x482a,
    VMCS_GUEST_TIMER = 0x482e, /* preemption timer */
    VMCS_HOST_SYSENTER_CS = 0x4c00,
    /* natural width */
    VMCS_CR0_MASK = 0x6000,
    VMCS_CR4_MASK = 0x6002,
    VMCS_CR0_SHADOW = 0x6004,
    VMCS_CR4_SHADOW = 0x6006,
    VMCS_QUALIFICATION = 0x6400,
    VMCS_GUEST_LINEAR = 0x640a,
    VMCS_GUEST_CR0 = 0x6800,
    VMCS_GUEST_CR3 = 0x6802,
    VMCS_GUEST_CR4 = 0x6804,
    VMCS_GUEST_ES_BASE = 0x6806, /* ... TR in steps of 2 */
    VMCS_GUEST_GDTR_BASE = 0x6816,
    VMCS_GUEST_IDTR_BASE = 0x6818,
    VMCS_GUEST_DR7 = 0x681a,
    VMCS_GUEST_RSP = 0x681c,
    VMCS_GUEST_RIP = 0x681e,
    VMCS_GUEST_RFLAGS = 0x6820,
    VMCS_GUEST_PENDING_DEBUG = 0x6822,
    VMCS_GUEST_SYSENTER_ESP = 0x6824,
    VMCS_GUEST_SYSENTER_EIP = 0x6826,
    VMCS_HOST_CR0 = 0x6c00,
    VMCS_HOST_CR3 = 0x6c02,
    VMCS_HOST_CR4 = 0x6c04,
    VMCS_HOST_FS_BASE = 0x6c06,
    VMCS_HOST_GS_BASE = 0x6c08,
    VMCS_HOST_TR_BASE = 0x6c0a,
    VMCS_HOST_GDTR_BASE = 0x6c0c,
    VMCS_HOST_IDTR_BASE = 0x6c0e,
    VMCS_HOST_SYSENTER_ESP = 0x6c10,
    VMCS_HOST_SYSENTER_EIP = 0x6c12,
    VMCS_HOST_RSP = 0x6c14, /* vmx_entry.asm writes it */
    VMCS_HOST_RIP = 0x6c16,
};

/* Pin-based controls */
#define PIN_INTERRUPT BIT(0)
#define PIN_NMI BIT(3)
#define PIN_VIRTUAL_NMI BIT(5)
#define PIN_TIMER BIT(6)

/* Primary processor-based controls */
#define PROC_IRQ_WINDOW BIT(2)
#define PROC_TSC_OFFSET BIT(3)
#define PROC_HLT BIT(7)
#define PROC_INVLPG BIT(9)
#define PROC_MWAIT BIT(10)
#define PROC_RDPMC BIT(11)
#define PROC_CR3_LOAD BIT(15)
#define PROC_CR3_STORE BIT(16)
#define PROC_CR8_LOAD BIT(19)
#define PROC_CR8_STORE BIT(20)
#define PROC_TPR_SHADOW BIT(21)
#define PROC_NMI_WINDOW BIT(22)
#define PROC_IO_BITMAPS BIT(25)
#define PROC_MSR_BITMAP BIT(28)
#define PROC_MONITOR BIT(29)
#define PROC_PAUSE BIT(30)
#define PROC_SECONDARY BIT(31)

/* Secondary processor-based controls */
#define PROC2_EPT BIT(1)
#define PROC2_RDTSCP BIT(3)
#define PROC2_X2APIC_MODE BIT(4)
#define PROC2_VPID BIT(5)
#define PROC2_WBINVD BIT(6)
#define PROC2_UNRESTRICTED BIT(7)
#define PROC2_PAUSE_LOOP BIT(10)
#define PROC2_INVPCID BIT(12)

/* VM-exit controls */
#define EXITC_SAVE_DEBUG BIT(2)
#define EXITC_HOST_64 BIT(9)
#define EXITC_ACK_INTERRUPT BIT(15)
#define EXITC_LOAD_PAT BIT(19)
#define EXITC_SAVE_EFER BIT(20)
#define EXITC_LOAD_EFER BIT(21)
#define EXITC_SAVE_TIMER BIT(22)

/* VM-entry controls */
#define ENTRY_LOAD_DEBUG BIT(2)
#define ENTRY_IA32E BIT(9)
#define ENTRY_SMM BIT(10)
#define ENTRY_DUAL_MONITOR BIT(11)
#define ENTRY_LOAD_PAT BIT(14)
#define ENTRY_LOAD_EFER BIT(15)

/* Event words: entry interruption information, exit interruption information, IDT vectoring. */
#define EVENT_VECTOR 0xffu
#define EVENT_TYPE_SHIFT 8
#define EVENT_TYPE_MASK 7u
#define EVENT_TYPE_EXTERNAL 0u
#define EVENT_TYPE_NMI 2u
#define EVENT_TYPE_HARD_EXCEPTION 3u
#define EVENT_TYPE_SOFT_INT 4u
#define EVENT_TYPE_PRIV_EXCEPTION 5u
#define EVENT_TYPE_SOFT_EXCEPTION 6u
#define EVENT_HAS_ERROR BIT(11)
#define EVENT_NMI_UNBLOCKED BIT(12) /* exits only: an IRET had ended NMI blocking */
#define EVENT_VALID BIT(31)
/* Set in every event with an error code and in those of an instruction with a length. */
#define EVENT_NEEDS_MORE (EVENT_HAS_ERROR | (uint64_t)EVENT_TYPE_SOFT_INT << EVENT_TYPE_SHIFT)

/* Interruptibility state */
#define BLOCKED_BY_STI BIT(0)
#define BLOCKED_BY_MOV_SS BIT(1)
#define BLOCKED_BY_SMI BIT(2)
#define BLOCKED_BY_NMI BIT(3)
#define BLOCKED_SHADOW (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)

/* Access rights of a segment: descriptor bits 47:40 low, 55:52 in 15:12. */
#define RIGHTS_TYPE 0xfu
#define RIGHTS_S BIT(4)
#define RIGHTS_DPL_SHIFT 5
#define RIGHTS_P BIT(7)
#define RIGHTS_L BIT(13)
#define RIGHTS_DB BIT(14)
#define RIGHTS_G BIT(15)
#define RIGHTS_UNUSABLE BIT(16)

#define PENDING_DEBUG_BS BIT(14)

/* Basic exit reasons */
#define REASON_EXCEPTION 0u /* or NMI */
#define REASON_INTERRUPT 1u
#define REASON_TRIPLE_FAULT 2u
#define REASON_INIT 3u
#define REASON_SIPI 4u
#define REASON_IO_SMI 5u
#define REASON_SMI 6u
#define REASON_IRQ_WINDOW 7u
#define REASON_NMI_WINDOW 8u
#define REASON_TASK_SWITCH 9u
#define REASON_CPUID 10u
#define REASON_GETSEC 11u
#define REASON_HLT 12u
#define REASON_INVD 13u
#define REASON_INVLPG 14u
#define REASON_RDPMC 15u
#define REASON_RDTSC 16u
#define REASON_RSM 17u
#define REASON_VMCALL 18u
#define REASON_VMCLEAR 19u
#define REASON_VMXON 27u
#define REASON_CR 28u
#define REASON_DR 29u
#define REASON_IO 30u
#define REASON_RDMSR 31u
#define REASON_WRMSR 32u
#define REASON_BAD_GUEST_STATE 33u
#define REASON_BAD_MSR_LOAD 34u
#define REASON_MWAIT 36u
#define REASON_MONITOR 39u
#define REASON_PAUSE 40u
#define REASON_MACHINE_CHECK 41u
#define REASON_TPR_THRESHOLD 43u
#define REASON_GDTR_IDTR 46u
#define REASON_LDTR_TR 47u
#define REASON_EPT_VIOLATION 48u
#define REASON_EPT_MISCONFIG 49u
#define REASON_INVEPT 50u
#define REASON_RDTSCP 51u
#define REASON_TIMER 52u
#define REASON_INVVPID 53u
#define REASON_WBINVD 54u
#define REASON_XSETBV 55u
#define REASON_INVPCID 58u
#define REASON_VMFUNC 59u
#define REASON_ENTRY_FAILURE BIT(31)

/* Qualification of port accesses */
#define QUAL_IO_SIZE 7u /* less one */
#define QUAL_IO_IN BIT(3)
#define QUAL_IO_STRING BIT(4)
#define QUAL_IO_REP BIT(5)
#define QUAL_IO_PORT_SHIFT 16
/* Qualification of control-register accesses */
#define QUAL_CR_NUMBER 0xfu
#define QUAL_CR_TYPE_SHIFT 4
#define QUAL_CR_TYPE_MASK 3u
#define QUAL_CR_TO 0u
#define QUAL_CR_FROM 1u
#define QUAL_CR_CLTS 2u
#define QUAL_CR_LMSW 3u
#define QUAL_CR_GPR_SHIFT 8
#define QUAL_CR_LMSW_SHIFT 16
/* Qualification of EPT violations */
#define QUAL_TASK_REASON 3u /* enum task_reason; selector below */
#define QUAL_TASK_REASON_SHIFT 30

#define QUAL_EPT_READ BIT(0)
#define QUAL_EPT_WRITE BIT(1)
#define QUAL_EPT_FETCH BIT(2)
#define QUAL_EPT_LINEAR BIT(7)     /* a linear address is known */
#define QUAL_EPT_TRANSLATED BIT(8) /* it was its translation, not a page-table access */
#define QUAL_EPT_NMI_UNBLOCKED BIT(12)

/* IA32_VMX_EPT_VPID_CAP */
#define EPTCAP_WALK_4 BIT(6)
#define EPTCAP_UC BIT(8)
#define EPTCAP_WB BIT(14)
#define EPTCAP_2M BIT(16)
#define EPTCAP_1G BIT(17)
#define EPTCAP_INVEPT BIT(20)
#define EPTCAP_AD BIT(21)
#define EPTCAP_INVEPT_SINGLE BIT(25)
#define EPTCAP_INVEPT_ALL BIT(26)
#define EPTCAP_INVVPID BIT(32)
#define EPTCAP_INVVPID_SINGLE BIT(41)
#define EPTCAP_INVVPID_ALL BIT(42)

#define EPTP_TYPE_WB 6u
#define EPTP_WALK_4 (3u << 3)
#define EPTP_AD BIT(6)

#define INV_SINGLE 1ULL
#define INV_ALL 2ULL

/* The instructions. They fail only by mistakes of ours, which the wrappers turn into a panic but for
 * VMLAUNCH and VMRESUME (vmx_entry.asm). */
void vmcs_failed(const char *insn, uint64_t operand) __cold __noreturn;

static inline uint64_t vmcs_read(uint64_t field)
{
    uint64_t value;
    bool failed;

    __asm__ volatile("vmread %2, %0" : "=r"(value), "=@ccbe"(failed) : "r"(field) : "memory");
    if (unlikely(failed)) {
        vmcs_failed("VMREAD", field);
    }
    return value;
}

/* The same without a look at failure: the VMCS is current and has the field. */
static inline uint64_t vmcs_get(uint64_t field)
{
    uint64_t value;

    __asm__ volatile("vmread %1, %0" : "=r"(value) : "r"(field) : "cc");
    return value;
}

static inline void vmcs_write(uint64_t field, uint64_t value)
{
    bool failed;

    __asm__ volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"(field), "r"(value) : "memory");
    if (unlikely(failed)) {
        vmcs_failed("VMWRITE", field);
    }
}

static inline void vmcs_clear(uint64_t pa)
{
    bool failed;

    __asm__ volatile("vmclear %1" : "=@ccbe"(failed) : "m"(pa) : "memory");
    if (unlikely(failed)) {
        vmcs_failed("VMCLEAR", pa);
    }
}

static inline void vmcs_load(uint64_t pa)
{
    bool failed;

    __asm__ volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(pa) : "memory");
    if (unlikely(failed)) {
        vmcs_failed("VMPTRLD", pa);
    }
}

static inline __must_check bool vmx_on(uint64_t pa)
{
    bool failed;

    __asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(pa) : "memory");
    return !failed;
}

static inline void vmx_off(void)
{
    __asm__ volatile("vmxoff" ::: "memory", "cc");
}

struct inv_descriptor {
    uint64_t first, second;
};

#ifdef BALLAST_HOST /* host tests have models of these */
void vmx_invept(uint64_t type, uint64_t eptp);
void vmx_invvpid(uint64_t type, uint32_t vpid);
#else
static inline void vmx_invept(uint64_t type, uint64_t eptp)
{
    struct inv_descriptor d = {eptp, 0};
    bool failed;

    __asm__ volatile("invept %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(type) : "memory");
    if (unlikely(failed)) {
        vmcs_failed("INVEPT", eptp);
    }
}

static inline void vmx_invvpid(uint64_t type, uint32_t vpid)
{
    struct inv_descriptor d = {vpid, 0};
    bool failed;

    __asm__ volatile("invvpid %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(type) : "memory");
    if (unlikely(failed)) {
        vmcs_failed("INVVPID", vpid);
    }
}
#endif

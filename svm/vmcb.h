/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtual machine control block, as the processor lays it out (AMD64 Architecture Programmer's
 * Manual, Volume 2, appendix "Layout of VMCB"), and what of it this code uses. One per vCPU; owned
 * by the vCPU's thread while it runs, by whoever has parked it otherwise.
 */
#pragma once

#include "mm/types.h"

struct vmcb_seg {
    uint16_t selector;
    uint16_t attr; /* as struct segment: descriptor bits 55:52 and 47:40 */
    uint32_t limit;
    uint64_t base;
};

struct vmcb_control {
    uint16_t cr_read, cr_write; /* 0x000 */
    uint16_t dr_read, dr_write;
    uint32_t exceptions;
    uint32_t intercept1;
    uint32_t intercept2; /* 0x010 */
    uint32_t intercept3;
    uint8_t reserved0[0x24];
    uint16_t pause_threshold; /* 0x03c */
    uint16_t pause_count;
    uint64_t iopm_pa; /* 0x040 */
    uint64_t msrpm_pa;
    uint64_t tsc_offset; /* 0x050 */
    uint32_t asid;
    uint32_t tlb_control;
    uint32_t int_control; /* 0x060 */
    uint32_t int_vector;
    uint64_t int_state;
    uint64_t exit_code; /* 0x070 */
    uint64_t exit_info1;
    uint64_t exit_info2;
    uint64_t exit_int_info;
    uint64_t np_control; /* 0x090 */
    uint64_t avic_bar;
    uint64_t ghcb;
    uint64_t event_inj; /* 0x0a8 */
    uint64_t ncr3;
    uint64_t lbr_control;
    uint32_t clean; /* 0x0c0 */
    uint32_t reserved1;
    uint64_t next_rip;
    uint8_t nr_insn_bytes; /* 0x0d0 */
    uint8_t insn_bytes[15];
    uint8_t reserved2[0x320];
};

struct vmcb_save {
    struct vmcb_seg es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr; /* 0x000 */
    uint8_t reserved0[0x2b];
    uint8_t cpl; /* 0x0cb */
    uint8_t reserved1[4];
    uint64_t efer; /* 0x0d0 */
    uint8_t reserved2[0x70];
    uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip; /* 0x148 */
    uint8_t reserved3[0x58];
    uint64_t rsp; /* 0x1d8 */
    uint64_t s_cet, ssp, isst;
    uint64_t rax; /* 0x1f8 */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t cr2; /* 0x240 */
    uint8_t reserved4[0x20];
    uint64_t pat; /* 0x268 */
    uint64_t debugctl;
    uint64_t br_from, br_to, last_excp_from, last_excp_to;
    uint8_t reserved5[0x968];
};

struct vmcb {
    struct vmcb_control ctl;
    struct vmcb_save save;
};

#define VMCB_OFFSET(field, offset) \
    _Static_assert(offsetof(struct vmcb, field) == (offset), "VMCB layout: " #field)
VMCB_OFFSET(ctl.intercept1, 0x00c);
VMCB_OFFSET(ctl.pause_threshold, 0x03c);
VMCB_OFFSET(ctl.iopm_pa, 0x040);
VMCB_OFFSET(ctl.tsc_offset, 0x050);
VMCB_OFFSET(ctl.asid, 0x058);
VMCB_OFFSET(ctl.int_control, 0x060);
VMCB_OFFSET(ctl.int_state, 0x068);
VMCB_OFFSET(ctl.exit_code, 0x070);
VMCB_OFFSET(ctl.exit_int_info, 0x088);
VMCB_OFFSET(ctl.np_control, 0x090);
VMCB_OFFSET(ctl.event_inj, 0x0a8);
VMCB_OFFSET(ctl.ncr3, 0x0b0);
VMCB_OFFSET(ctl.clean, 0x0c0);
VMCB_OFFSET(ctl.next_rip, 0x0c8);
VMCB_OFFSET(ctl.insn_bytes, 0x0d1);
VMCB_OFFSET(save, 0x400);
VMCB_OFFSET(save.tr, 0x490);
VMCB_OFFSET(save.cpl, 0x4cb);
VMCB_OFFSET(save.efer, 0x4d0);
VMCB_OFFSET(save.cr4, 0x548);
VMCB_OFFSET(save.rip, 0x578);
VMCB_OFFSET(save.rsp, 0x5d8);
VMCB_OFFSET(save.rax, 0x5f8);
VMCB_OFFSET(save.star, 0x600);
VMCB_OFFSET(save.cr2, 0x640);
VMCB_OFFSET(save.pat, 0x668);
VMCB_OFFSET(save.last_excp_to, 0x690);
_Static_assert(sizeof(struct vmcb) == 4096, "VMCB size");

/* intercept1 */
#define ICEPT1_INTR BIT(0)
#define ICEPT1_NMI BIT(1)
#define ICEPT1_SMI BIT(2)
#define ICEPT1_INIT BIT(3)
#define ICEPT1_VINTR BIT(4)
#define ICEPT1_RDPMC BIT(15)
#define ICEPT1_CPUID BIT(18)
#define ICEPT1_IRET BIT(20)
#define ICEPT1_INVD BIT(22)
#define ICEPT1_PAUSE BIT(23)
#define ICEPT1_HLT BIT(24)
#define ICEPT1_INVLPG BIT(25)
#define ICEPT1_INVLPGA BIT(26)
#define ICEPT1_IOIO BIT(27)
#define ICEPT1_MSR BIT(28)
#define ICEPT1_TASK_SWITCH BIT(29)
#define ICEPT1_SHUTDOWN BIT(31)

/* cr_read, cr_write: with the software MMU CR0, CR3 and CR4; CR8 at times. */
#define ICEPT_CR_PAGING (BIT(0) | BIT(3) | BIT(4))
#define ICEPT_CR_TPR BIT(8)

/* intercept2 */
#define ICEPT2_VMRUN BIT(0)
#define ICEPT2_VMMCALL BIT(1)
#define ICEPT2_VMLOAD BIT(2)
#define ICEPT2_VMSAVE BIT(3)
#define ICEPT2_STGI BIT(4)
#define ICEPT2_CLGI BIT(5)
#define ICEPT2_SKINIT BIT(6)
#define ICEPT2_WBINVD BIT(9)
#define ICEPT2_MONITOR BIT(10)
#define ICEPT2_MWAIT BIT(11)
#define ICEPT2_XSETBV BIT(13)
#define ICEPT2_RDPRU BIT(14)

/* intercept3 */
#define ICEPT3_INVPCID BIT(2)

/* tlb_control */
#define TLB_KEEP 0u
#define TLB_FLUSH_ALL 1u
#define TLB_FLUSH_ASID 3u

/* int_control */
#define INTCTL_TPR_MASK 0xfu
#define INTCTL_IRQ BIT(8)
#define INTCTL_PRIO_MASK (0xfu << 16)
#define INTCTL_IGNORE_TPR BIT(20)
#define INTCTL_MASKING BIT(24)

#define INTSTATE_SHADOW BIT(0)

#define NPCTL_ENABLE BIT(0)

/* event_inj and exit_int_info */
/* EXITINFO2 of a task switch; an error code below ("Task Switch Intercept") */
#define TASK_BY_IRET BIT(36)
#define TASK_BY_JUMP BIT(38)
#define TASK_HAS_ERROR BIT(44)
#define TASK_RESUME BIT(48)

#define EVINJ_VECTOR 0xffu
#define EVINJ_TYPE_SHIFT 8
#define EVINJ_TYPE_MASK 7u
#define EVINJ_TYPE_INTR 0u
#define EVINJ_TYPE_NMI 2u
#define EVINJ_TYPE_EXCEPTION 3u
#define EVINJ_TYPE_SOFT 4u
#define EVINJ_ERROR_VALID BIT(11)
#define EVINJ_VALID BIT(31)
#define EVINJ_ERROR_SHIFT 32

/* clean: groups of fields that did not change since the last entry ("VMCB Clean Bits"). */
#define CLEAN_INTERCEPTS BIT(0)
#define CLEAN_ASID BIT(2)
#define CLEAN_INT BIT(3)
#define CLEAN_NP BIT(4)
#define CLEAN_CR BIT(5)
#define CLEAN_DR BIT(6)
#define CLEAN_DT BIT(7)
#define CLEAN_SEG BIT(8)
#define CLEAN_CR2 BIT(9)
#define CLEAN_ALL 0x3ffu

/* exit_code. QEMU's TCG stores VMEXIT_INVALID as 32 bits, processors as 64: compare the low half. */
#define VMEXIT_CR_READ(n) (0x000u + (n))
#define VMEXIT_CR_WRITE(n) (0x010u + (n))
#define VMEXIT_DR_READ(n) (0x020u + (n))
#define VMEXIT_DR_WRITE(n) (0x030u + (n))
#define VMEXIT_EXCEPTION(n) (0x040u + (n))
#define VMEXIT_INTR 0x060u
#define VMEXIT_NMI 0x061u
#define VMEXIT_SMI 0x062u
#define VMEXIT_INIT 0x063u
#define VMEXIT_VINTR 0x064u
#define VMEXIT_RDTSC 0x06eu
#define VMEXIT_RDPMC 0x06fu
#define VMEXIT_CPUID 0x072u
#define VMEXIT_IRET 0x074u
#define VMEXIT_INVD 0x076u
#define VMEXIT_PAUSE 0x077u
#define VMEXIT_HLT 0x078u
#define VMEXIT_INVLPG 0x079u
#define VMEXIT_INVLPGA 0x07au
#define VMEXIT_IOIO 0x07bu
#define VMEXIT_MSR 0x07cu
#define VMEXIT_TASK_SWITCH 0x07du
#define VMEXIT_SHUTDOWN 0x07fu
#define VMEXIT_VMRUN 0x080u
#define VMEXIT_VMMCALL 0x081u
#define VMEXIT_VMLOAD 0x082u
#define VMEXIT_VMSAVE 0x083u
#define VMEXIT_STGI 0x084u
#define VMEXIT_CLGI 0x085u
#define VMEXIT_SKINIT 0x086u
#define VMEXIT_RDTSCP 0x087u
#define VMEXIT_WBINVD 0x089u
#define VMEXIT_MONITOR 0x08au
#define VMEXIT_MWAIT 0x08bu
#define VMEXIT_MWAIT_ARMED 0x08cu
#define VMEXIT_XSETBV 0x08du
#define VMEXIT_RDPRU 0x08eu
#define VMEXIT_INVPCID 0x0a2u
#define VMEXIT_NPF 0x400u
#define VMEXIT_INVALID 0xffffffffu

/* exit_info1 of IOIO */
#define IOIO_IN BIT(0)
#define IOIO_STRING BIT(2)
#define IOIO_REP BIT(3)
#define IOIO_SIZE_SHIFT 4 /* one bit each: 1, 2, 4 bytes */
#define IOIO_ADDR_SHIFT 7 /* one bit each: 16, 32, 64 bits */
#define IOIO_SEG_SHIFT 10
#define IOIO_PORT_SHIFT 16

/* exit_info1 of NPF: a page-fault error code with two bits of its own */
#define NPF_WRITE BIT(1)
#define NPF_FETCH BIT(4)
#define NPF_TABLE_WALK BIT(33)

/* exit_info1 of CR accesses with decode assists */
#define CR_ASSIST_VALID BIT(63)
#define CR_ASSIST_GPR 0xfu

struct vmcb_config {
    uint64_t iopm_pa, msrpm_pa;
    bool pause; /* intercept PAUSE */
    bool software_mmu;
    bool pause_filter;
    bool rdpru;   /* the processor has RDPRU */
    bool invpcid; /* it has INVPCID, and so its intercept */
};
/* A VMCB for a new vCPU. */
void vmcb_init(struct vmcb *m, const struct vmcb_config *cfg);
/* Nothing of the guest is left in it. */
void vmcb_clear(struct vmcb *m);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Before and after an entry: the exit reason and its companions into struct vm_exit. A table names
 * the kind; only kinds with operands need code. Beyond reason and RIP only that is read which the
 * kind needs. Called by vmx_run, in a section.
 */
#include "arch/x86_64/regs.h"
#include "mm/p2m.h"
#include "vmx/vmx.h"

/* Exits of instructions that may be stepped over. */
#define INSTRUCTION 0x80u
#define INSN_MAX 15u

/* clang-format off */
static const uint8_t kind_of_reason[REASON_VMFUNC + 1] = { /* EXIT_NONE: not one of ours */
    [REASON_EXCEPTION]     = EXIT_EXCEPTION,
    [REASON_INTERRUPT]     = EXIT_INTERRUPT,
    [REASON_TRIPLE_FAULT]  = EXIT_SHUTDOWN,
    [REASON_INIT]          = EXIT_INIT,
    [REASON_SIPI]          = EXIT_INIT,
    [REASON_IO_SMI]        = EXIT_INTERRUPT,
    [REASON_SMI]           = EXIT_INTERRUPT,
    [REASON_IRQ_WINDOW]    = EXIT_IRQ_WINDOW,
    [REASON_NMI_WINDOW]    = EXIT_NMI_WINDOW,
    [REASON_TASK_SWITCH]   = EXIT_TASK_SWITCH,
    [REASON_CPUID]         = EXIT_CPUID | INSTRUCTION,
    [REASON_GETSEC]        = EXIT_VIRT_INSN,
    [REASON_HLT]           = EXIT_HLT | INSTRUCTION,
    [REASON_INVD]          = EXIT_WBINVD | INSTRUCTION,
    [REASON_INVLPG]        = EXIT_INVLPG | INSTRUCTION,
    [REASON_RDPMC]         = EXIT_RDPMC | INSTRUCTION,
    [REASON_RDTSC]         = EXIT_RDTSC | INSTRUCTION,
    [REASON_RSM]           = EXIT_VIRT_INSN,
    [REASON_VMCALL]        = EXIT_HYPERCALL | INSTRUCTION,
    [REASON_VMCLEAR ... REASON_VMXON] = EXIT_VIRT_INSN,
    [REASON_CR]            = EXIT_CR | INSTRUCTION,
    [REASON_DR]            = EXIT_DR | INSTRUCTION,
    [REASON_IO]            = EXIT_PORT | INSTRUCTION,
    [REASON_RDMSR]         = EXIT_MSR | INSTRUCTION,
    [REASON_WRMSR]         = EXIT_MSR | INSTRUCTION,
    [REASON_MWAIT]         = EXIT_MWAIT | INSTRUCTION,
    [REASON_MONITOR]       = EXIT_MONITOR | INSTRUCTION,
    [REASON_PAUSE]         = EXIT_PAUSE | INSTRUCTION,
    [REASON_EPT_VIOLATION] = EXIT_MEMORY,
    [REASON_INVEPT]        = EXIT_VIRT_INSN,
    [REASON_RDTSCP]        = EXIT_RDTSC | INSTRUCTION,
    [REASON_TIMER]         = EXIT_INTERRUPT,
    [REASON_INVVPID]       = EXIT_VIRT_INSN,
    [REASON_WBINVD]        = EXIT_WBINVD | INSTRUCTION,
    [REASON_XSETBV]        = EXIT_XSETBV | INSTRUCTION,
    [REASON_VMFUNC]        = EXIT_VIRT_INSN,
};
/* clang-format on */

static __attribute__((noinline)) void translate_string_port(uint64_t qualification,
                                                            struct vm_exit *exit)
{
    exit->kind = EXIT_STRING_IO;
    exit->port.string = true;
    exit->port.rep = (qualification & QUAL_IO_REP) != 0;
    exit->port.addr_size = 0;
    exit->port.seg = 0xff;
    if (vmx_caps.string_info) {
        uint64_t info = vmcs_read(VMCS_EXIT_INSTRUCTION);

        exit->port.addr_size = (uint8_t)(2u << (info >> 7 & 7));
        exit->port.seg = info >> 15 & 7;
    }
}

static inline void translate_port(struct vm_exit *exit)
{
    uint64_t qualification = vmcs_get(VMCS_QUALIFICATION);

    exit->kind = EXIT_PORT;
    exit->port.port = (uint16_t)(qualification >> QUAL_IO_PORT_SHIFT);
    exit->port.size = (qualification & QUAL_IO_SIZE) + 1;
    exit->port.in = (qualification & QUAL_IO_IN) != 0;
    exit->port.string = false;
    if (unlikely(qualification & QUAL_IO_STRING)) {
        translate_string_port(qualification, exit);
    }
}

static __attribute__((noinline)) void translate_memory(struct vcpu *v, struct vm_exit *exit)
{
    const uint64_t of_the_insn = QUAL_EPT_LINEAR | QUAL_EPT_TRANSLATED;
    uint64_t q = vmcs_get(VMCS_QUALIFICATION);

    exit->mem.gpa = GPA(vmcs_get(VMCS_GUEST_PHYSICAL));
    /* With accessed and dirty bits on, a walk of guest tables reads and writes. */
    exit->mem.access = (q & QUAL_EPT_WRITE)   ? P2M_WRITE
                       : (q & QUAL_EPT_FETCH) ? P2M_EXEC
                                              : P2M_READ;
    exit->mem.table_walk = (q & of_the_insn) != of_the_insn;
    exit->raw[0] = REASON_EPT_VIOLATION;
    exit->raw[1] = q;
    exit->raw[2] = (q & QUAL_EPT_LINEAR) ? vmcs_get(VMCS_GUEST_LINEAR) : 0;
    if (!vmx_event_interrupted(v) && unlikely(q & QUAL_EPT_NMI_UNBLOCKED)) {
        vmx_event_nmi_unblocked(v);
    }
}

static __attribute__((noinline)) void translate_cr(struct vm_exit *exit)
{
    uint64_t q = vmcs_read(VMCS_QUALIFICATION);
    unsigned type = q >> QUAL_CR_TYPE_SHIFT & QUAL_CR_TYPE_MASK;

    exit->cr = (struct exit_cr){
        .cr = q & QUAL_CR_NUMBER,
        .write = type != QUAL_CR_FROM,
        .decoded = type == QUAL_CR_TO || type == QUAL_CR_FROM,
        .gpr = q >> QUAL_CR_GPR_SHIFT & 0xf,
    };
}

/* An intercepted #DB leaves DR6 and DR7 as they were; what would be there is in the qualification. */
static void note_debug_state(struct vcpu *v)
{
    const uint64_t hits = 0xf, reported = DR6_BS | DR6_BD | hits;
    uint64_t q = vmcs_read(VMCS_QUALIFICATION);

    vmx_set_reg(v, REG_DR6, (vmx_get_reg(v, REG_DR6) & ~hits) | (q & reported));
    if (q & DR6_BD) {
        vmx_set_reg(v, REG_DR7, vmx_get_reg(v, REG_DR7) & ~DR7_GD);
    }
}

static bool is_page_fault(void)
{
    const uint64_t what = EVENT_VECTOR | EVENT_TYPE_MASK << EVENT_TYPE_SHIFT;

    return (vmcs_get(VMCS_EXIT_EVENT) & what) ==
           (EXC_PF | EVENT_TYPE_HARD_EXCEPTION << EVENT_TYPE_SHIFT);
}

/* CR2 is as it was: the address is in the qualification. */
static void translate_page_fault(struct vcpu *v, struct vm_exit *exit)
{
    exit->kind = EXIT_PAGE_FAULT;
    exit->pf = (struct exit_page_fault){.gva = GVA(vmcs_get(VMCS_QUALIFICATION)),
                                        .error = (uint32_t)vmcs_get(VMCS_EXIT_EVENT_ERROR)};
    if (!vmx_event_interrupted(v) && unlikely(vmcs_get(VMCS_EXIT_EVENT) & EVENT_NMI_UNBLOCKED)) {
        vmx_event_nmi_unblocked(v);
    }
}

static void translate_exception(struct vcpu *v, struct vm_exit *exit)
{
    uint64_t word = vmcs_read(VMCS_EXIT_EVENT);
    uint8_t vector = word & EVENT_VECTOR;

    if ((word >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK) == EVENT_TYPE_NMI) {
        /* NMIs are blocked until an IRET: the host's handler runs now and ends that. */
        exit->kind = EXIT_NMI;
        __asm__ volatile("int %0" ::"i"(EXC_NMI) : "memory");
        (void)vmx_event_interrupted(v);
        return;
    }
    if (!vmx_event_interrupted(v) && (word & EVENT_NMI_UNBLOCKED) && vector != EXC_DF) {
        vmx_event_nmi_unblocked(v);
    }
    if (vector == EXC_MC) {
        exit->kind = EXIT_MACHINE_CHECK;
        return;
    }
    if (vector == EXC_DB) {
        note_debug_state(v);
        if ((word >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK) == EVENT_TYPE_PRIV_EXCEPTION) {
            v->rip += vmcs_read(VMCS_EXIT_LENGTH); /* INT1 is a trap */
        }
    }
    exit->exc = (struct exit_exception){
        .vector = vector,
        .has_error = (word & EVENT_HAS_ERROR) != 0,
        .error = (uint32_t)((word & EVENT_HAS_ERROR) ? vmcs_read(VMCS_EXIT_EVENT_ERROR) : 0),
    };
}

/* RF is as the old task is to keep it ("Saving RIP, RSP, RFLAGS, and SSP"). */
static void translate_task(struct vcpu *v, struct vm_exit *exit)
{
    uint64_t q = vmcs_read(VMCS_QUALIFICATION), word = vmcs_read(VMCS_VECTORING);
    unsigned type = word >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK;
    enum task_reason reason = (enum task_reason)(q >> QUAL_TASK_REASON_SHIFT & QUAL_TASK_REASON);
    bool soft = !(word & EVENT_VALID) || type >= EVENT_TYPE_SOFT_INT;
    bool has_error = reason == TASK_GATE && !soft && (word & EVENT_HAS_ERROR);

    (void)vmx_event_interrupted(v);
    exit->task = (struct exit_task){
        .selector = (uint16_t)q,
        .reason = reason,
        .by_insn = reason != TASK_GATE || soft,
        .resume = (vmcs_read(VMCS_GUEST_RFLAGS) & RFLAGS_RF) != 0,
        .has_error = has_error,
        .error = (uint32_t)(has_error ? vmcs_read(VMCS_VECTORING_ERROR) : 0),
    };
    exit->insn_len = (uint8_t)(exit->task.by_insn ? vmcs_read(VMCS_EXIT_LENGTH) : 0);
}

uint64_t vmx_exit_gpa(const struct vcpu *v)
{
    return vmx_of(v)->software ? 0 : vmcs_read(VMCS_GUEST_PHYSICAL);
}

static void translate_rest(struct vcpu *v, uint64_t reason, struct vm_exit *exit)
{
    exit->kind = EXIT_UNKNOWN;
    exit->raw[0] = reason;
    exit->raw[1] = vmcs_read(VMCS_QUALIFICATION);
    exit->raw[2] = vmx_exit_gpa(v);
    if (!(reason & REASON_ENTRY_FAILURE)) {
        (void)vmx_event_interrupted(v);
        return;
    }
    exit->kind = (uint32_t)reason == (REASON_ENTRY_FAILURE | REASON_MACHINE_CHECK)
                     ? EXIT_MACHINE_CHECK
                     : EXIT_ENTRY_FAILED;
    vmx_release(vmx_of(v)); /* a launch that failed here has not launched it */
}

/* Everything that is neither an instruction nor a memory fault. */
static __attribute__((noinline)) void translate(struct vcpu *v, uint64_t reason,
                                                struct vm_exit *exit)
{
    switch (exit->kind) {
    case EXIT_INTERRUPT:
        vmcs_wind_timer();
        break;
    case EXIT_EXCEPTION:
        translate_exception(v, exit);
        break;
    case EXIT_NMI_WINDOW:
        vmx_window(v, WINDOW_NMI, false);
        break;
    case EXIT_TASK_SWITCH:
        translate_task(v, exit);
        break;
    case EXIT_NONE:
        translate_rest(v, reason, exit);
        break;
    default:
        break;
    }
}

/* What an instruction that is stepped over leaves: its length, and whether anything but RIP changes
 * (see vmx_advance). */
static inline void read_step(struct vcpu *v, struct vm_exit *exit)
{
    uint64_t flags = vmcs_get(VMCS_GUEST_RFLAGS), blocked = vmcs_get(VMCS_GUEST_INTERRUPTIBILITY);

    exit->insn_len = (uint8_t)vmcs_get(VMCS_EXIT_LENGTH);
    v->plain_step = !((flags & (RFLAGS_TF | RFLAGS_RF)) | (blocked & BLOCKED_SHADOW) |
                      ((uint32_t)v->rip > UINT32_MAX - INSN_MAX));
}

void vmx_exit(struct vcpu *v, struct vm_exit *exit)
{
    struct vmx_vcpu *s = vmx_of(v);
    uint64_t reason = vmcs_get(VMCS_EXIT_REASON);

    v->rip = s->rip = vmcs_get(VMCS_GUEST_RIP);
    s->valid &= s->stays;
    if (reason == REASON_IO) {
        read_step(v, exit);
        translate_port(exit);
        return;
    }
    uint8_t row = likely(reason < ARRAY_SIZE(kind_of_reason)) ? kind_of_reason[reason] : EXIT_NONE;
    if (row & INSTRUCTION) {
        exit->kind = row & ~INSTRUCTION;
        read_step(v, exit);
        if (exit->kind == EXIT_MSR) {
            exit->msr.index = (uint32_t)v->gpr[GPR_RCX];
            exit->msr.write = reason == REASON_WRMSR;
        } else if (unlikely(exit->kind == EXIT_CR)) {
            translate_cr(exit);
        } else if (unlikely(exit->kind == EXIT_INVLPG)) {
            exit->invlpg =
                (struct exit_invlpg){.decoded = true, .gva = GVA(vmcs_get(VMCS_QUALIFICATION))};
        }
        return;
    }
    exit->kind = row;
    exit->insn_len = 0;
    v->plain_step = false;
    if (likely(row == EXIT_MEMORY)) {
        translate_memory(v, exit);
    } else if (row == EXIT_EXCEPTION && s->software && is_page_fault()) {
        translate_page_fault(v, exit);
    } else if (unlikely(row != EXIT_INTERRUPT || reason == REASON_TIMER)) {
        translate(v, reason, exit);
    }
}

void vmx_refused(struct vcpu *v, struct vm_exit *exit)
{
    struct vmx_vcpu *s = vmx_of(v);

    s->valid &= s->stays;
    v->plain_step = false;
    exit->kind = EXIT_ENTRY_FAILED;
    exit->insn_len = 0;
    exit->raw[0] = vmcs_read(VMCS_INSTRUCTION_ERROR);
    exit->raw[1] = exit->raw[2] = 0;
    vmx_release(s); /* whether it counts as launched is known again */
}

bool vmx_prepare(struct vcpu *v, struct vm_exit *exit)
{
    struct vmx_vcpu *s = vmx_of(v);

    if (unlikely(s->emulated) && !vmx_enterable(v)) {
        /* What is dirty stays so, flushes included. */
        v->plain_step = false;
        exit->kind = EXIT_EMULATE;
        exit->insn_len = 0;
        return false;
    }
    vmx_flush_due(v);
    vmx_write_back(v);
    s->event_queued = false; /* the entry takes it */
    return true;
}

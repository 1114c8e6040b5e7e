/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * EXITCODE and its companions into struct vm_exit. A table names the kind; only kinds with operands
 * need code. svm_run ends here after every VMRUN.
 */
#include "arch/x86_64/regs.h"
#include "mm/p2m.h"
#include "svm/svm.h"

#define INSN_MAX 15u

/* clang-format off */
static const uint8_t kind_of_code[VMEXIT_INVPCID + 1] = { /* EXIT_NONE: not one of ours */
    [VMEXIT_CR_READ(0) ... VMEXIT_CR_WRITE(15)] = EXIT_CR,
    [VMEXIT_DR_READ(0) ... VMEXIT_DR_WRITE(15)] = EXIT_DR,
    [VMEXIT_EXCEPTION(0) ... VMEXIT_EXCEPTION(31)] = EXIT_EXCEPTION,
    [VMEXIT_INTR]        = EXIT_INTERRUPT,
    [VMEXIT_NMI]         = EXIT_NMI,
    [VMEXIT_SMI]         = EXIT_INTERRUPT,
    [VMEXIT_INIT]        = EXIT_INIT,
    [VMEXIT_VINTR]       = EXIT_IRQ_WINDOW,
    [VMEXIT_RDTSC]       = EXIT_RDTSC,
    [VMEXIT_RDPMC]       = EXIT_RDPMC,
    [VMEXIT_CPUID]       = EXIT_CPUID,
    [VMEXIT_IRET]        = EXIT_NMI_WINDOW,
    [VMEXIT_INVD]        = EXIT_WBINVD,
    [VMEXIT_PAUSE]       = EXIT_PAUSE,
    [VMEXIT_HLT]         = EXIT_HLT,
    [VMEXIT_INVLPG]      = EXIT_INVLPG,
    [VMEXIT_INVLPGA]     = EXIT_VIRT_INSN,
    [VMEXIT_IOIO]        = EXIT_PORT,
    [VMEXIT_MSR]         = EXIT_MSR,
    [VMEXIT_TASK_SWITCH] = EXIT_TASK_SWITCH,
    [VMEXIT_SHUTDOWN]    = EXIT_SHUTDOWN,
    [VMEXIT_VMRUN]       = EXIT_VIRT_INSN,
    [VMEXIT_VMMCALL]     = EXIT_HYPERCALL,
    [VMEXIT_VMLOAD]      = EXIT_VIRT_INSN,
    [VMEXIT_VMSAVE]      = EXIT_VIRT_INSN,
    [VMEXIT_STGI]        = EXIT_VIRT_INSN,
    [VMEXIT_CLGI]        = EXIT_VIRT_INSN,
    [VMEXIT_SKINIT]      = EXIT_VIRT_INSN,
    [VMEXIT_RDTSCP]      = EXIT_RDTSC,
    [VMEXIT_WBINVD]      = EXIT_WBINVD,
    [VMEXIT_MONITOR]     = EXIT_MONITOR,
    [VMEXIT_MWAIT]       = EXIT_MWAIT,
    [VMEXIT_MWAIT_ARMED] = EXIT_MWAIT,
    [VMEXIT_XSETBV]      = EXIT_XSETBV,
    [VMEXIT_RDPRU]       = EXIT_VIRT_INSN,
    [VMEXIT_INVPCID]     = EXIT_VIRT_INSN,
};
/* clang-format on */

/* String forms; the segment is reported with decode assists only. */
static __attribute__((noinline)) void translate_string_port(uint32_t info, struct vm_exit *exit)
{
    exit->kind = EXIT_STRING_IO;
    exit->port.string = true;
    exit->port.rep = (info & IOIO_REP) != 0;
    exit->port.addr_size = ((info >> IOIO_ADDR_SHIFT) & 7) * 2;
    exit->port.seg = hv_caps.decode_assists ? (info >> IOIO_SEG_SHIFT) & 7 : 0xff;
}

static inline void translate_port(const struct vmcb *m, uint64_t rip, struct vm_exit *exit)
{
    uint32_t info = (uint32_t)m->ctl.exit_info1;

    exit->kind = EXIT_PORT;
    /* The next RIP comes with every port exit, with or without NRIP save. */
    exit->insn_len = (uint8_t)(m->ctl.exit_info2 - rip);
    exit->port.port = (uint16_t)(info >> IOIO_PORT_SHIFT);
    exit->port.size = (info >> IOIO_SIZE_SHIFT) & 7; /* one-hot bits that are the size itself */
    exit->port.in = info & IOIO_IN;
    if (unlikely(info & IOIO_STRING)) {
        translate_string_port(info, exit);
    }
}

static void translate_memory(const struct vmcb *m, struct vm_exit *exit)
{
    uint64_t info = m->ctl.exit_info1;

    exit->kind = EXIT_MEMORY;
    exit->mem.gpa = GPA(m->ctl.exit_info2);
    exit->mem.access = (info & NPF_WRITE) ? P2M_WRITE : (info & NPF_FETCH) ? P2M_EXEC : P2M_READ;
    exit->mem.table_walk = (info & NPF_TABLE_WALK) != 0;
    exit->insn_len = 0;
    exit->raw[0] = VMEXIT_NPF;
    exit->raw[1] = info;
    exit->raw[2] = m->ctl.exit_info2;
}

static void translate_cr(const struct vmcb *m, uint32_t code, struct vm_exit *exit)
{
    uint64_t info = m->ctl.exit_info1;

    exit->cr = (struct exit_cr){
        .cr = code & 0xf,
        .write = code >= VMEXIT_CR_WRITE(0),
        .decoded = hv_caps.decode_assists && (info & CR_ASSIST_VALID),
        .gpr = info & CR_ASSIST_GPR,
    };
}

static void translate_exception(const struct vmcb *m, uint32_t code, struct vm_exit *exit)
{
    uint8_t vector = (uint8_t)(code - VMEXIT_EXCEPTION(0));

    exit->insn_len = 0;
    if (vector == EXC_MC) {
        exit->kind = EXIT_MACHINE_CHECK;
        return;
    }
    if (vector == EXC_PF) {
        exit->kind = EXIT_PAGE_FAULT;
        exit->pf = (struct exit_page_fault){.gva = GVA(m->ctl.exit_info2),
                                            .error = (uint32_t)m->ctl.exit_info1};
        return;
    }
    exit->exc = (struct exit_exception){
        .vector = vector,
        .has_error = (EXC_WITH_ERROR >> vector) & 1,
        .error = (uint32_t)m->ctl.exit_info1,
    };
}

/* The length of the instruction is for common code to find: next RIP is not said to come with this exit. */
static void translate_task(const struct vmcb *m, struct vm_exit *exit)
{
    uint64_t info = m->ctl.exit_info2, event = m->ctl.exit_int_info;
    unsigned type = event >> EVINJ_TYPE_SHIFT & EVINJ_TYPE_MASK, vector = event & EVINJ_VECTOR;
    bool delivers = (event & EVINJ_VALID) != 0;
    bool soft = type == EVINJ_TYPE_SOFT ||
                (type == EVINJ_TYPE_EXCEPTION && (vector == EXC_BP || vector == EXC_OF));
    enum task_reason reason = info & TASK_BY_IRET   ? TASK_IRET
                              : info & TASK_BY_JUMP ? TASK_JUMP
                              : delivers            ? TASK_GATE
                                                    : TASK_CALL;

    exit->insn_len = 0;
    exit->task = (struct exit_task){
        .selector = (uint16_t)m->ctl.exit_info1,
        .reason = reason,
        .by_insn = reason != TASK_GATE || soft,
        .resume = (info & TASK_RESUME) != 0,
        .has_error = reason == TASK_GATE && (info & TASK_HAS_ERROR),
        .error = (uint32_t)info,
    };
}

static void translate_rest(const struct vmcb *m, uint32_t code, struct vm_exit *exit)
{
    exit->kind = code == VMEXIT_INVALID ? EXIT_ENTRY_FAILED : EXIT_UNKNOWN;
    exit->insn_len = 0;
    exit->raw[0] = m->ctl.exit_code;
    exit->raw[1] = m->ctl.exit_info1;
    exit->raw[2] = m->ctl.exit_info2;
}

static __attribute__((noinline)) void translate_operands(struct vcpu *v, const struct vmcb *m,
                                                         uint32_t code, struct vm_exit *exit)
{
    switch (exit->kind) {
    case EXIT_CR:
        translate_cr(m, code, exit);
        break;
    case EXIT_EXCEPTION:
        translate_exception(m, code, exit);
        break;
    case EXIT_INVLPG:
        exit->invlpg =
            (struct exit_invlpg){.decoded = hv_caps.decode_assists, .gva = GVA(m->ctl.exit_info1)};
        break;
    case EXIT_TASK_SWITCH:
        translate_task(m, exit);
        break;
    case EXIT_NMI_WINDOW:
        exit->insn_len = 0;
        svm_event_iret(v);
        break;
    case EXIT_NONE:
        translate_rest(m, code, exit);
        break;
    default:
        break;
    }
}

/* Kinds that need more than their name and the instruction's length. */
#define KINDS_WITH_OPERANDS                                                         \
    (BIT(EXIT_CR) | BIT(EXIT_INVLPG) | BIT(EXIT_EXCEPTION) | BIT(EXIT_NMI_WINDOW) | \
     BIT(EXIT_TASK_SWITCH) | BIT(EXIT_NONE))

/* No shadow, no trap or resume flag, and RIP does not wrap (see svm_advance). */
static inline bool is_plain_step(const struct vmcb *m)
{
    const uint16_t long_code = 0x200;

    return ((m->ctl.int_state & INTSTATE_SHADOW) | (m->save.rflags & (RFLAGS_TF | RFLAGS_RF)) |
            (~m->save.cs.attr & long_code)) == 0;
}

static inline void translate_code(struct vcpu *v, const struct vmcb *m, struct vm_exit *exit)
{
    uint32_t code = (uint32_t)m->ctl.exit_code;

    if (code == VMEXIT_IOIO) {
        v->plain_step = is_plain_step(m);
        translate_port(m, v->rip, exit);
        return;
    }
    if (unlikely(code >= ARRAY_SIZE(kind_of_code))) {
        v->plain_step = false;
        if (likely(code == VMEXIT_NPF)) {
            translate_memory(m, exit);
        } else {
            translate_rest(m, code, exit);
        }
        return;
    }
    exit->kind = kind_of_code[code];
    v->plain_step = is_plain_step(m);
    /* The field is zero where the processor does not save it: the difference is then huge. */
    uint64_t len = m->ctl.next_rip - v->rip;
    exit->insn_len = len <= INSN_MAX ? (uint8_t)len : 0;
    if (exit->kind == EXIT_MSR) {
        exit->msr.index = (uint32_t)v->gpr[GPR_RCX];
        exit->msr.write = (bool)m->ctl.exit_info1;
    } else if (unlikely(BIT(exit->kind) & KINDS_WITH_OPERANDS)) {
        translate_operands(v, m, code, exit);
    }
}

/* An event was injected, or one's delivery was cut short. */
static __attribute__((noinline)) void exit_with_event(struct vcpu *v, struct vmcb *m,
                                                      struct vm_exit *exit)
{
    svm_event_after_exit(v, m);
    translate_code(v, m, exit);
}

/* Calls come last, so that the frequent ways save no registers. */
void svm_exit(struct vcpu *v, struct vm_exit *exit)
{
    struct vmcb *m = svm_vmcb(v);

    v->rip = m->save.rip;
    v->gpr[GPR_RAX] = m->save.rax;
    m->ctl.tlb_control = TLB_KEEP;
    m->ctl.clean = CLEAN_ALL; /* ignored by processors without clean bits */
    if (unlikely((m->ctl.event_inj | m->ctl.exit_int_info) & EVINJ_VALID)) {
        exit_with_event(v, m, exit);
        return;
    }
    translate_code(v, m, exit);
}

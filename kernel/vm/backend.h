/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vendor interface. A vendor turns hardware exits into one neutral struct vm_exit and neutral
 * requests into hardware state; it holds no policy. One const struct hv_backend per vendor, chosen
 * at boot by backend_select(), the only place of common code that names vendors.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/vm/doctor.h"
#include "mm/types.h"

struct vm;
struct vcpu;
struct pt_format;

/* What the processor offers; `missing` says in words what is lacking when probe fails. */
struct backend_caps {
    const char *name; /* the extension's, for the operator */
    bool present;
    char missing[320];         /* and the firmware option to look at */
    uint32_t nr_tags;          /* ASIDs or VPIDs, tag 0 excluded; 0: no tags */
    bool nested_paging;        /* else every VM has the software MMU (struct vm, software_mmu) */
    unsigned nested_max_order; /* largest page of the nested tables */
    bool software_mmu;         /* guests can run on shadow tables */
    bool next_rip, decode_assists, flush_by_tag, clean_bits, pause_filter, unrestricted;
    const struct pt_format *nested_format;
};

/* Where guests find an identity map of the first 4 GiB, 32-bit tables with 4 MiB pages, on
 * processors that cannot run them with paging off: a page of the firmware area. */
#define BACKEND_IDENTITY_MAP 0xef000u

enum exit_kind {
    EXIT_NONE = 0,
    EXIT_INTERRUPT, /* a host interrupt is pending: leave the fast path and take it */
    EXIT_NMI,       /* a host NMI */
    EXIT_PORT,
    EXIT_STRING_IO,  /* INS, OUTS: exit_port as well */
    EXIT_MEMORY,     /* nested page fault */
    EXIT_PAGE_FAULT, /* the guest's own #PF, with the software MMU */
    EXIT_CPUID,
    EXIT_MSR,
    EXIT_CR, /* move to or from a control register, CLTS, LMSW */
    EXIT_DR,
    EXIT_HLT,
    EXIT_PAUSE,
    EXIT_RDTSC, /* RDTSC or RDTSCP: the length tells which */
    EXIT_RDPMC,
    EXIT_XSETBV,
    EXIT_WBINVD, /* WBINVD, INVD */
    EXIT_INVLPG,
    EXIT_MONITOR,
    EXIT_MWAIT,
    EXIT_HYPERCALL, /* VMMCALL, VMCALL */
    /* What no guest has: virtualisation, SGX, XEND, XTEST, PCONFIG, GETSEC, RSM, INVPCID, RDPRU, UD0 to UD2: #UD. */
    EXIT_VIRT_INSN,
    EXIT_EXCEPTION,  /* an intercepted exception of the guest */
    EXIT_IRQ_WINDOW, /* an interrupt can be delivered now */
    EXIT_NMI_WINDOW, /* an NMI can be delivered now */
    EXIT_TASK_SWITCH,
    EXIT_EMULATE,       /* the processor cannot run the guest's state: hv_emulation */
    EXIT_SHUTDOWN,      /* triple fault */
    EXIT_INIT,          /* a host INIT is pending */
    EXIT_MACHINE_CHECK, /* the host's machine check arrived while the guest ran */
    EXIT_ENTRY_FAILED,  /* the processor refused the state; raw[0] = 0: the entry doctor */
    EXIT_UNKNOWN,
    NR_EXIT_KINDS
};

/* As `vm NAME` prints it. */
const char *exit_kind_name(enum exit_kind kind);

struct exit_port {
    uint16_t port;
    uint8_t size; /* bytes: 1, 2, 4 */
    bool in, string, rep;
    uint8_t addr_size; /* bytes, for string forms: 2, 4, 8; 0: unknown */
    uint8_t seg;       /* enum seg_reg, for OUTS; 0xff: unknown */
};
struct exit_memory {
    gpa_t gpa;
    uint32_t access; /* P2M_READ | P2M_WRITE | P2M_EXEC */
    bool table_walk; /* raised by the processor's walk of guest page tables */
    bool ram;        /* not a device: RAM that cannot be mapped for this access */
};
/* The processor's view of it: the guest may be due another error code (mm/shadow/shadow.h). */
struct exit_page_fault {
    gva_t gva;
    uint32_t error; /* PFEC_P, PFEC_W, PFEC_U, PFEC_I; the processor's, not the guest's */
};
struct exit_invlpg {
    bool decoded; /* gva is valid (the processor told) */
    gva_t gva;
};
struct exit_msr {
    uint32_t index;
    bool write;
};
struct exit_cr {
    uint8_t cr;
    bool write, decoded; /* decoded: gpr is valid (decode assists) */
    uint8_t gpr;
};
/* What led to a task switch; numbers as in the hardware's exit information. */
enum task_reason { TASK_CALL, TASK_IRET, TASK_JUMP, TASK_GATE };
/* The processor has checked that the guest may do this; nothing has happened yet. */
struct exit_task {
    uint16_t selector; /* of the new TSS */
    enum task_reason reason;
    /* An instruction asked for it, which is behind the old task when it goes on. TASK_GATE: INT n, or else
     * an event is being delivered: v->interrupted. */
    bool by_insn;
    bool resume;    /* RF in the flags that the old task keeps */
    bool has_error; /* the new task finds an error code on its stack */
    uint32_t error;
};
struct exit_exception {
    uint8_t vector;
    bool has_error;
    uint32_t error;
};

struct vm_exit {
    enum exit_kind kind;
    uint8_t insn_len; /* 0: hardware did not say; always there for EXIT_PORT */
    union {
        struct exit_port port;
        struct exit_memory mem;
        struct exit_page_fault pf;
        struct exit_invlpg invlpg;
        struct exit_msr msr;
        struct exit_cr cr;
        struct exit_task task;
        struct exit_exception exc;
    };
    uint64_t raw[3]; /* vendor words, for logs only; not filled for the frequent kinds */
};

/* x86 encoding order. */
enum gpr {
    GPR_RAX,
    GPR_RCX,
    GPR_RDX,
    GPR_RBX,
    GPR_RSP,
    GPR_RBP,
    GPR_RSI,
    GPR_RDI,
    GPR_R8,
    NR_GPRS = 16
};

enum hv_reg {
    REG_RSP,
    REG_RFLAGS,
    REG_CR0,
    REG_CR2,
    REG_CR3,
    REG_CR4,
    REG_EFER,
    REG_DR0,
    REG_DR3 = REG_DR0 + 3,
    REG_DR6,
    REG_DR7,
    REG_TPR, /* CR8: bits 7:4 of the task priority */
    /* The four top-level entries of PAE tables, where the processor keeps them in registers. */
    REG_PDPTE0,
    REG_PDPTE3 = REG_PDPTE0 + 3,
    NR_HV_REGS
};

enum seg_reg {
    SEG_ES,
    SEG_CS,
    SEG_SS,
    SEG_DS,
    SEG_FS,
    SEG_GS,
    SEG_LDTR,
    SEG_TR,
    SEG_GDTR,
    SEG_IDTR,
    NR_SEGS
};

/* Neutral segment: attributes as in the low and high bytes of a descriptor (type 3:0, S 4, DPL 6:5,
 * P 7, AVL 8, L 9, D/B 10, G 11); unusable: P clear. */
struct segment {
    uint16_t selector, attr;
    uint32_t limit; /* bytes, expanded */
    uint64_t base;
};

enum event_type { EVENT_NONE, EVENT_INTERRUPT, EVENT_NMI, EVENT_EXCEPTION, EVENT_SOFT_INT };
struct event {
    enum event_type type;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint8_t insn_len; /* for EVENT_SOFT_INT */
};

enum window { WINDOW_IRQ, WINDOW_NMI };

/* What holds events off: an interrupt shadow, up to the end of the next instruction, and NMI blocking. */
enum block { BLOCK_SHADOW, BLOCK_NMI };

/*
 * For processors that cannot run every state that a guest can be in: EXIT_EMULATE tells, and common code
 * executes the guest's instructions until they can (kernel/vm/realmode.c).
 */
struct hv_emulation {
    /* Can the processor run the guest now? */
    bool (*enterable)(struct vcpu *v);
    /* Take back what inject queued and no entry took; false: nothing. */
    bool (*withdraw)(struct vcpu *v, struct event *out);
    void (*block)(struct vcpu *v, enum block what, bool on);
};

/* Where 64-bit code is fetched from, and whose tables lead there. */
struct code_state {
    uint64_t rip, cr3;
};

/*
 * With the software MMU (vm->software_mmu, constant from vm_init on) the guest runs on our tables:
 *   - the processor has CR0.PG, CR0.WP, CR4.PAE and, where it exists, EFER.NXE set always, EFER.LME and
 *     LMA while the guest is in long mode (LME and PG in its own registers); CR0.CD and NW, CR4.PSE, PGE,
 *     PCIDE, PKE and CET never, CR4.SMEP and SMAP not while the guest's paging is off; the other bits are
 *     the guest's, as far as the processor lets it;
 *   - get_reg and set_reg of CR0, CR3, CR4 and EFER deal in the guest's values, which never reach
 *     the processor's CR3: that is set_root's alone. LMA follows LME and PG in get_reg. Common code
 *     calls set_root before the next entry whenever it has changed one of them;
 *   - exits: #PF (EXIT_PAGE_FAULT; CR2 is not changed until the guest is given the fault), reads and
 *     writes of CR0, CR3 and CR4 (EXIT_CR; where the processor offers masks, bits of CR0 and CR4
 *     that no walk looks at may be the guest's), INVLPG (EXIT_INVLPG), MSR EFER, task switches;
 *   - PAT: the processor walks our tables with the host's PAT.
 * CPUID offers such guests neither PCID nor protection keys nor INVPCID.
 */
struct hv_backend {
    const char *name;
    /* Reads only; fills caps; HV_ENOTSUP with caps->missing otherwise. Any processor. */
    enum hv_err (*probe)(struct backend_caps *caps);
    /* Switch the extension on (off) on this processor; balanced. May sleep: no. */
    enum hv_err (*cpu_enable)(void);
    void (*cpu_disable)(void);
    /* Per-VM structures (every port and MSR exits). fini accepts half-built VMs. */
    enum hv_err (*vm_init)(struct vm *vm);
    void (*vm_fini)(struct vm *vm);
    /* Per-vCPU structures, cleared. fini accepts half-built vCPUs. */
    enum hv_err (*vcpu_init)(struct vcpu *v);
    void (*vcpu_fini)(struct vcpu *v);
    /* Nothing of the guest is left. Registers are undefined until set_reg and set_seg say what they are. */
    void (*vcpu_clear)(struct vcpu *v);
    /* Bind to this processor; after put any processor may load. */
    void (*vcpu_load)(struct vcpu *v);
    void (*vcpu_put)(struct vcpu *v);
    /* Enter and leave the fast-path section on this processor: interrupts are held off, and what the
     * guest's registers replace of the host's is exchanged. Between them nothing sleeps, spins or
     * takes interrupts. */
    void (*section_begin)(struct vcpu *v);
    void (*section_end)(struct vcpu *v);
    /* One entry inside a section; fills exit, v->gpr, v->rip and, with VCPU_REQ_EVENT in v->request,
     * v->interrupted; decides nothing. */
    void (*run)(struct vcpu *v, struct vm_exit *exit);
    uint64_t (*get_reg)(struct vcpu *v, enum hv_reg reg);
    void (*set_reg)(struct vcpu *v, enum hv_reg reg, uint64_t value);
    /* FS, GS, TR, LDTR are only current outside a section: get_seg inside one saves them first. */
    void (*get_seg)(struct vcpu *v, enum seg_reg seg, struct segment *out);
    void (*set_seg)(struct vcpu *v, enum seg_reg seg, const struct segment *in);
    /* MSRs kept by hardware state (SYSENTER*, STAR family, FS/GS/KERNEL_GS base, PAT); common code asks for
     * values that WRMSR takes. HV_ENOENT: not one of them. */
    enum hv_err (*get_msr)(struct vcpu *v, uint32_t index, uint64_t *out);
    enum hv_err (*set_msr)(struct vcpu *v, uint32_t index, uint64_t value);
    /* One event per entry; HV_EBUSY if one is queued already. */
    enum hv_err (*inject)(struct vcpu *v, const struct event *ev);
    /* Can an interrupt / NMI be taken at the next entry? (IF, interrupt shadow, NMI blocking) */
    bool (*can_take)(struct vcpu *v, enum window kind);
    /* Exit once that event becomes deliverable. */
    void (*window)(struct vcpu *v, enum window kind, bool on);
    /* Exit (EXIT_CR, CR8) when the guest writes its task priority: something waits for it to fall. */
    void (*trap_tpr)(struct vcpu *v, bool on);
    /* Drop the interrupt shadow (after an instruction was emulated). */
    void (*clear_shadow)(struct vcpu *v);
    /* Step v->rip over an emulated instruction of `len` bytes: wraps outside 64-bit mode, drops the
     * interrupt shadow and RF. True: TF is set, the guest is due a debug exception. */
    bool (*advance)(struct vcpu *v, uint64_t len);
    /* False unless the guest runs 64-bit code on four-level tables. */
    bool (*code_state)(struct vcpu *v, struct code_state *out);
    /* Used from the next entry: the nested tables; with the software MMU what CR3 holds, a four-level
     * table or four PAE entries (below 4 GiB, and their contents may have changed since). */
    void (*set_root)(struct vcpu *v, hpa_t root);
    /* Use this tag from the next entry; flush: nothing stale under it may survive that entry.
     * flush_all: the processor's whole guest TLB (tags recycled). */
    void (*set_tag)(struct vcpu *v, uint32_t tag, bool flush, bool flush_all);
    void (*set_tsc_offset)(struct vcpu *v, uint64_t offset);
    /* The guest reads and writes this MSR, one that get_msr knows, without an exit. Before the first
     * vcpu_init. */
    void (*direct_msr)(struct vm *vm, uint32_t index);
    /* Check the state that the next entry would load in software; `report` (with `arg`) gets what is
     * wrong. Returns the number of violations. v's own thread, sections included. */
    unsigned (*check)(struct vcpu *v, doctor_report_t report, void *arg);
    /* For experiments (kernel/vm/doctor.h): fields by name, and overwriting one of a loaded vCPU. */
    const struct doctor_field *fields;
    size_t nr_fields;
    void (*poke)(struct vcpu *v, const struct doctor_field *field, uint64_t value);
    /* NULL: whatever a guest does, the processor can run it. */
    const struct hv_emulation *emulation;
    /* Registers outside gpr[] to the log; safe in panic. */
    void (*dump)(struct vcpu *v);
};

extern const struct hv_backend *hv; /* the chosen one; constant after backend_select */
extern struct backend_caps hv_caps;

/* Probe the vendors; HV_ENOTSUP with a text of what is missing in hv_caps.missing. */
enum hv_err backend_select(void) __must_check;
/* Switch on for this processor (every processor, after smp_start). */
enum hv_err backend_enable_cpu(void) __must_check;

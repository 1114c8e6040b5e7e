/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtual machines and virtual processors: life cycle and what other rooms may ask of them.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/lib/list.h"
#include "kernel/lib/ratelimit.h"
#include "kernel/lib/spinlock.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/timer.h"
#include "kernel/sched/wait.h"
#include "kernel/vm/backend.h"
#include "kernel/vm/config.h"
#include "kernel/vm/memstat.h"
#include "mm/flush.h"
#include "mm/shadow/shadow.h"
#include "mm/types.h"

#define VM_MAX_VCPUS 16

struct cpuid_table;
struct fpu_state;
struct balloon;
struct p2m;
struct view;
struct vlapic;
struct vioapic;
struct vpic;
struct bus;
struct guestconsole;
struct vuart;
struct vm_devices;

enum vm_state {
    VM_STOPPED, /* built, or ended: registers and memory may be looked at */
    VM_RUNNING,
    VM_PAUSED,
    VM_DYING
};

/* Why a VM stopped, told apart and reported. */
enum stop_reason {
    STOP_NONE = 0,
    STOP_POWEROFF, /* ACPI S5 */
    STOP_RESET,    /* reset register, keyboard controller */
    STOP_TRIPLE_FAULT,
    STOP_DEBUG_EXIT, /* port 0xf4; code in stop_code */
    STOP_ENTRY_FAILED,
    STOP_EMULATION, /* an instruction that cannot be emulated; text in stop_text */
    STOP_NO_MEMORY,
    STOP_OPERATOR,
    STOP_ERROR /* anything else; text in stop_text */
};

struct exit_stats {
    uint64_t count, ticks; /* ticks: TSC from exit to next entry, inside the hypervisor */
};

/* The walk to a page of code that exited, verified at each use; kernel/vm/insn.c. */
#define NR_FETCH_WALKS 8u
struct fetch_walk {
    uint64_t epoch, page, cr3;
    const uint8_t *host;
    unsigned leaf; /* level of the leaf; slots below it are not used */
    const uint64_t *slot[4];
    uint64_t entry[4];
};

struct vcpu {
    /* --- touched on every exit: keep together. Owned by the vCPU's thread. --- */
    uint64_t gpr[NR_GPRS]; /* x86 order; gpr[GPR_RSP] is not used: REG_RSP */
    uint64_t rip;          /* filled at exit, written back at entry */
    struct vm *vm;
    void *vendor; /* the vendor's per-vCPU data (its control block) */
    struct vlapic *lapic;
    uint64_t flushed_epoch; /* flush epoch that this vCPU's tag has seen */
    uint32_t tag;
    unsigned tag_cpu;
    uint64_t tag_generation;
    uint32_t in_guest;              /* atomic: inside a section (kernel/vm/flush.c) */
    uint32_t request;               /* atomic: VCPU_REQ_* bits, looked at before each entry */
    struct event pending_exception; /* to inject at the next entry */
    struct event interrupted;       /* delivery an exit cut short: re-injected first */
    bool nmi_pending;
    bool irq_window, tpr_trap; /* what the backend was last asked for (kernel/vm/event.c) */
    bool plain_step; /* stepping over this exit's instruction changes RIP alone; backend->run */
    bool halted;     /* HLT executed, waiting for an event */
    bool wait_sipi;  /* after INIT (application processors) */
    uint8_t sipi_vector;

    struct fetch_walk fetch[NR_FETCH_WALKS]; /* by low bits of page and address space */

    unsigned id; /* 0 .. vm->nr_vcpus-1; also the APIC id */
    struct thread *thread;
    unsigned cpu;               /* processor it is loaded on (valid while in_guest or loaded) */
    bool loaded;                /* its state is in that processor; the thread's */
    bool was_reset;             /* what the processor still holds of it is void */
    bool set_unloaded;          /* likewise: registers were set while it was not loaded */
    struct fpu_state *fpu;      /* arch/x86_64/fpu.h; also holds the guest's XCR0 */
    uint64_t stalled_ns;        /* asleep, waiting for memory and pages, so far (atomic) */
    struct memory_wait {        /* its last wait for memory (memwait.c) */
        uint64_t since_ns;      /* 0: none */
        uint64_t until_ns;      /* when it ended */
        uint64_t hope_ns;       /* when there was hope last */
        uint64_t gpa, rip, rcx; /* what it was for */
        /* Exits for which it may take frames before others: memwait_serve's, under its lock, while this vCPU
         * is queued; else the thread's. */
        unsigned turn;
        bool turn_used; /* the exit under way has asked for pages as one of them */
    } memory_wait;
    struct shadow_cpu shadow;  /* software MMU only: kernel/vm/softmmu.c */
    uint64_t pdptr[4];         /* likewise: PAE's top-level entries as the guest loaded them */
    uint64_t guest_tsc_offset; /* guest TSC = host TSC + this */
    struct {                   /* kernel/vm/msr.c */
        uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_var[16], misc_enable, tsc_adjust, tsc_aux;
    } msr;

    struct exit_stats exits[NR_EXIT_KINDS];
    uint64_t entries;
    uint64_t exit_tsc;
};

#define VCPU_REQ_STOP 0x1u  /* leave the loop: VM is being paused, stopped or destroyed */
#define VCPU_REQ_EVENT 0x2u /* interrupt state changed: re-evaluate */
#define VCPU_REQ_INIT 0x4u  /* INIT received */
#define VCPU_REQ_SIPI 0x8u  /* start-up message received */
#define VCPU_REQ_NMI 0x10u
#define VCPU_REQ_MMU 0x20u /* the root of the shadow tables is out of date (softmmu.c) */
/* What the thread does between sections: it must not go to sleep over these. */
#define VCPU_REQ_THREAD (VCPU_REQ_STOP | VCPU_REQ_INIT | VCPU_REQ_SIPI)

struct vm {
    uint32_t id; /* 1.. ; owner id in the frame table; never reused while frames remain */
    struct vm_config config;
    struct list node;     /* VM list lock */
    struct spinlock lock; /* RANK_VM: state, stop_*, nr_running */
    enum vm_state state;
    enum stop_reason stop_reason; /* claimed once, by compare-and-swap; then stop_code, stop_text */
    bool stop_described;          /* stop_code and stop_text are there (release) */
    bool ending;                  /* somebody reports the end of this run; vm->lock */
    bool busy;                    /* a life-cycle operation is under way; vm->lock */
    bool used;                    /* ran since its memory was built */
    uint32_t stop_code;
    char stop_text[160];
    unsigned refs;           /* held by vm_find/vm_for_each users; VM list lock */
    struct waitq state_wait; /* state changes */
    unsigned nr_running;     /* vCPU threads inside the run loop; VM lock */

    unsigned nr_vcpus;
    struct vcpu *vcpus[VM_MAX_VCPUS];
    bool
        software_mmu; /* its view is a shadow view (mm/shadow/shadow.h); constant from vm_init on */
    struct p2m *p2m;
    struct view *view;
    struct flush_domain *flush;
    struct balloon *balloon;   /* kernel/vm/ballooning.h; as long as the VM */
    void *vendor;              /* the vendor's per-VM data (bitmaps) */
    struct cpuid_table *cpuid; /* kernel/vm/cpuid.c; constant */
    bool page1gb; /* that offers pages of 1 GiB: how the guest's tables are walked; constant */

    struct bus *bus; /* ports and MMIO: kernel/devices/bus.h */
    struct vioapic *ioapic;
    struct vpic *pic;
    uint32_t intr;              /* atomic: output of the 8259 pair (kernel/devices/vpic.h) */
    uint32_t hpet_is_legacy;    /* atomic: the HPET drives ISA interrupts 0 and 8 */
    struct vm_devices *devices; /* the rest: kernel/devices/devices.h */
    unsigned nr_virtio;         /* kernel/devices/vmmio.h; constant once built */
    struct guestconsole *console;
    uint64_t tsc_offset;   /* common to all vCPUs: guest TSC starts near 0 */
    bool admitted;         /* kernel/vm/admission.h; atomic */
    uint64_t sampled_ns;   /* its clock for sampling; the balancing thread's */
    uint64_t brought_back; /* pages swapped in and decompressed when that looked last; likewise */
    uint64_t started_ns;   /* host clock, of the last start or restart (atomic) */
    struct ratelimit restart_lines; /* of the log, in ns: a guest may reset itself without end */
    struct memstat_past past;       /* kernel/vm/memstat.c; its lock */
};

/* --- life cycle (thread context, no locks held, may sleep) --- */

/* Build a stopped VM from its configuration; nothing is loaded yet. HV_EEXIST: name taken. *out is
 * valid until somebody destroys the VM: no reference goes with it. */
enum hv_err vm_create(const struct vm_config *cfg, struct vm **out) __must_check;
/* Load its images (kernel/vm/loader.h) and start the vCPU threads. From VM_STOPPED only: registers,
 * devices and memory are put back to reset state first. Errors are logged with file and reason. */
enum hv_err vm_start(struct vm *vm) __must_check;
enum hv_err vm_pause(struct vm *vm) __must_check;
enum hv_err vm_resume(struct vm *vm) __must_check;
enum hv_err vm_reset(struct vm *vm) __must_check;
/* Stop, unlink and free everything; audits that no frame of its id remains. The caller holds a
 * reference (vm_find), which is used up, and waits until all others are gone.
 * HV_EBUSY: another thread is destroying it; HV_EIO: the audit found something left (logged). */
enum hv_err vm_destroy(struct vm *vm) __must_check;

/* Ask the VM to stop, from one of its own vCPUs or devices (any context, fast path included).
 * The first reason wins; logs "vm NAME: ..." once. */
void vm_stop_request(struct vm *vm, enum stop_reason reason, uint32_t code, const char *fmt, ...)
    __printf_like(4, 5);

/* Pause the VM, if it runs, because of something that may pass; logs "vm NAME: paused: ...". Any thread,
 * its vCPUs' own too; the vCPUs leave the loop a moment later. */
void vm_pause_request(struct vm *vm, const char *fmt, ...) __printf_like(2, 3);

/* Find by name (NULL if none) and take a reference; walk all VMs with a reference on each. */
struct vm *vm_find(const char *name);
void vm_put(struct vm *vm);
void vm_for_each(bool (*fn)(struct vm *vm, void *arg), void *arg);

/* True once no vCPU will run before the next start: device timers need not go on. Any context. */
static inline bool vm_has_ended(const struct vm *vm)
{
    enum vm_state s = __atomic_load_n(&vm->state, __ATOMIC_RELAXED);

    return s == VM_STOPPED || s == VM_DYING;
}

/* "running", ... */
const char *vm_state_name(enum vm_state s);
/* "hardware": its tables are nested; "software": shadow tables. As `mmu` of ballast.conf calls them. */
static inline const char *vm_mmu_name(const struct vm *vm)
{
    return vm->software_mmu ? "software" : "hardware";
}
/* One line such as "powered off", "triple fault at rip ...", "exited with code 1". */
void vm_describe_stop(const struct vm *vm, char *buf, size_t len);

/* Counters of the VM's p2m and view; also while it is restarted, which replaces both. */
struct p2m_counters;
struct view_stats;
void vm_memory_counters(struct vm *vm, struct p2m_counters *p2m, struct view_stats *view);
/* Recount its memory and tables from scratch; logs disagreements, true if none. May sleep. */
bool vm_audit(struct vm *vm);
/* Drop every translation of its view, which comes back by faults: for experiments and tests. HV_EBUSY:
 * it is being destroyed. May sleep. */
struct vm_dropped {
    uint64_t leaves, tables;          /* translations and tables that the view had */
    uint64_t drop_ticks, flush_ticks; /* TSC: emptying it; flushing all processors, then freeing */
};
enum hv_err vm_drop(struct vm *vm, struct vm_dropped *out) __must_check;
/* Bytes of machine memory the VM costs beyond its guest memory: tables, control blocks, stacks, objects. */
uint64_t vm_overhead_bytes(struct vm *vm);

/* --- vCPU services for devices and facilities --- */

/* Set request bits and make the vCPU notice: wakes it if halted, kicks it if in guest mode.
 * Any context, fast path included. */
void vcpu_request(struct vcpu *v, uint32_t bits);
/* Queue a guest exception for the next entry (#GP(0) and the like). Double faults combine by the
 * manual's rules ("Interrupt 8—Double Fault Exception"). */
void vcpu_inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error);
static inline void vcpu_inject_gp(struct vcpu *v)
{
    vcpu_inject_exception(v, 13, true, 0);
}
static inline void vcpu_inject_ud(struct vcpu *v)
{
    vcpu_inject_exception(v, 6, false, 0);
}
/* An exit cut an event's delivery short: it is delivered again. `word` is how both vendors report it:
 * vector 7:0, type 10:8, error code valid 11, valid 31. Nothing to do without the last. */
void vcpu_event_cut_short(struct vcpu *v, uint64_t word, uint32_t error);
/* Step over the instruction that caused `exit` (length from hardware or by decoding), clearing the
 * interrupt shadow. HV_EAGAIN: bytes not reachable on the fast path; retry off it.
 * HV_EFAULT: a fault was injected instead. */
enum hv_err vcpu_skip(struct vcpu *v, struct vm_exit *exit) __must_check;
/* The length of that instruction, into exit->insn_len, without stepping over it; same results. */
enum hv_err vcpu_length(struct vcpu *v, struct vm_exit *exit) __must_check;
/* Step over `len` bytes; queues the debug exception of a single-stepping guest. */
void vcpu_advance(struct vcpu *v, unsigned len);
/* Guest TSC now. */
uint64_t vcpu_guest_tsc(const struct vcpu *v);
/* The guest's paging registers, by value. */
struct guest_paging;
void vcpu_paging(struct vcpu *v, struct guest_paging *out);
unsigned vcpu_cpl(struct vcpu *v);
/* True between section_begin and section_end; for v's own thread. */
static inline bool vcpu_in_section(const struct vcpu *v)
{
    return __atomic_load_n(&v->in_guest, __ATOMIC_RELAXED) != 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processors: their structures, starting them ("Multiple-Processor (MP) Initialization"), calls
 * across them. They are started one after the other by the boot processor; one that answers too late
 * finds its mailbox withdrawn and parks.
 */
#include "arch/x86_64/smp.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/desc.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irq.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "boot/bootinfo.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define INIT_DELAY_US 10000
#define ANSWER_US 200000 /* from the second startup IPI to the mailbox being taken */
#define ONLINE_US 1000000

/* trampoline.asm */
extern const char trampoline_start[], trampoline_mailbox[], trampoline_end[];

enum mailbox_state { MAILBOX_EMPTY, MAILBOX_ARMED, MAILBOX_TAKEN };

struct mailbox {
    uint64_t entry, stack, arg;
    uint32_t cr3;
    uint32_t state; /* enum mailbox_state; atomic */
    uint32_t far_offset;
    uint16_t far_selector;
    uint16_t gdt_limit;
    uint32_t gdt_base;
    uint32_t padding;
};
_Static_assert(offsetof(struct mailbox, gdt_base) == 40, "as in trampoline.asm");

static uint64_t start_page; /* physical address; 0: none was found */
static uint64_t ap_tsc[2];  /* atomic: go, and the answer; see check_tsc */

/* ---- Starting ---------------------------------------------------------------------------------- */

static bool holds_module(const struct boot_info *info, uint64_t pa)
{
    for (uint32_t i = 0; i < info->nr_modules; i++) {
        const struct boot_module *m = &info->modules[i];
        if (pa < m->base + m->size && m->base < pa + PAGE_SIZE) {
            return true;
        }
    }
    return false;
}

static bool is_usable(const struct boot_info *info, uint64_t pa)
{
    for (uint32_t i = 0; i < info->nr_ranges; i++) {
        const struct boot_range *r = &info->ranges[i];
        if (r->type == BOOT_RANGE_USABLE && r->base <= pa && pa + PAGE_SIZE <= r->base + r->size) {
            return !holds_module(info, pa);
        }
    }
    return false;
}

void smp_reserve_page(const struct boot_info *info)
{
    /* Page 0 belongs to the BIOS; behind LOG_RING_PA lie the log and the BIOS's extended data. */
    for (uint64_t pa = PAGE_SIZE; pa < LOG_RING_PA; pa += PAGE_SIZE) {
        if (is_usable(info, pa)) {
            start_page = pa;
            return;
        }
    }
}

static struct mailbox *mailbox(void)
{
    return (struct mailbox *)((char *)phys_ptr(HPA(start_page)) +
                              (trampoline_mailbox - trampoline_start));
}

#define PTE_TABLE 0x3u /* present, writable */
#define PTE_LARGE_RWX 0x83u

/* Tables for the first steps: the host's, and the first 2 MiB at their own address. They must lie
 * below 4 GiB, for CR3 is loaded in 16-bit code. Freed when all processors have left them. */
static enum hv_err build_tables(mfn_t table[3])
{
    for (unsigned i = 0; i < 3; i++) {
        enum hv_err err = buddy_alloc(0, FRAME_HOST, OWNER_HOST, BUDDY_LOW | BUDDY_ZERO, &table[i]);
        if (err != HV_OK) {
            while (i-- > 0) {
                buddy_free(table[i], 0);
            }
            return err;
        }
    }
    uint64_t *top = mfn_ptr(table[0]);
    memcpy(top, phys_ptr(HPA(read_cr3() & PAGE_MASK)), PAGE_SIZE);
    top[0] = mfn_hpa(table[1]).a | PTE_TABLE;
    *(uint64_t *)mfn_ptr(table[1]) = mfn_hpa(table[2]).a | PTE_TABLE;
    *(uint64_t *)mfn_ptr(table[2]) = PTE_LARGE_RWX;
    return HV_OK;
}

/* First C code of an application processor: on its stack, interrupts off, first tables. */
static void ap_main(struct cpu *cpu) __noreturn;
static void ap_main(struct cpu *cpu)
{
    hostmap_load();
    cpu_init();
    desc_load(cpu);
    lapic_enable();
    cpu->apic_id = lapic_id(); /* another's mailbox may have been taken by a latecomer */
    cpu_mce_init();
    fpu_init_cpu();
    __atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);

    while (__atomic_load_n(&ap_tsc[0], __ATOMIC_ACQUIRE) != cpu->id) {
        __builtin_ia32_pause();
    }
    __atomic_store_n(&ap_tsc[1], rdtsc(), __ATOMIC_RELEASE);
    sched_start_cpu();
    panic("cpu %u has left its idle thread", cpu->id);
}

static void free_cpu(struct cpu *cpu)
{
    for (unsigned i = 0; i < NR_IST; i++) {
        if (cpu->ist_stack[i]) {
            hostmap_stack_free(cpu->ist_stack[i]);
        }
    }
    kfree(cpu->tables);
    kfree(cpu);
}

/* Everything a processor needs before it runs; *stack is the top of its idle thread's. */
static struct cpu *prepare_cpu(unsigned id, const struct acpi_cpu *desc, uint64_t *stack)
{
    struct cpu *cpu = kmalloc(sizeof(*cpu), OWNER_HOST);

    if (!cpu) {
        return NULL;
    }
    cpu->id = id;
    cpu->apic_id = desc->apic_id;
    cpu->acpi_uid = desc->uid;
    for (unsigned i = 0; i < NR_IST; i++) {
        cpu->ist_stack[i] = hostmap_stack_alloc(OWNER_HOST);
        if (!cpu->ist_stack[i]) {
            free_cpu(cpu);
            return NULL;
        }
    }
    *stack = hostmap_stack_alloc(OWNER_HOST);
    if (!*stack || desc_init_cpu(cpu) != HV_OK || sched_init_cpu(cpu) != HV_OK) {
        if (*stack) {
            hostmap_stack_free(*stack);
        }
        free_cpu(cpu);
        return NULL;
    }
    stack_set_anchor(*stack - 1, cpu);
    return cpu;
}

static bool wait_for_state(const struct mailbox *box, uint32_t state, uint64_t us)
{
    for (uint64_t end = clock_now_ns() + us * 1000; clock_now_ns() < end;) {
        if (__atomic_load_n(&box->state, __ATOMIC_ACQUIRE) == state) {
            return true;
        }
        __builtin_ia32_pause();
    }
    return false;
}

/* True once the processor runs our code. */
static bool send_startup(struct mailbox *box, uint32_t apic_id)
{
    unsigned page = (unsigned)(start_page >> PAGE_SHIFT);

    lapic_startup_ipi(apic_id, page);
    if (wait_for_state(box, MAILBOX_TAKEN, 300)) {
        return true;
    }
    lapic_startup_ipi(apic_id, page);
    if (wait_for_state(box, MAILBOX_TAKEN, ANSWER_US)) {
        return true;
    }
    uint32_t armed = MAILBOX_ARMED;
    return !__atomic_compare_exchange_n(&box->state, &armed, MAILBOX_EMPTY, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE);
}

/* Compare the new processor's TSC with ours: it must fall between two readings of ours. */
static void check_tsc(const struct cpu *cpu)
{
    uint64_t before = rdtsc(), theirs;

    __atomic_store_n(&ap_tsc[1], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ap_tsc[0], cpu->id, __ATOMIC_RELEASE);
    while ((theirs = __atomic_load_n(&ap_tsc[1], __ATOMIC_ACQUIRE)) == 0) {
        __builtin_ia32_pause();
    }
    uint64_t after = rdtsc();
    if (theirs < before || theirs > after) {
        uint64_t off = theirs < before ? before - theirs : theirs - after;
        log_warn("cpu %u: its TSC is %s by %llu us", cpu->id, theirs < before ? "behind" : "ahead",
                 (unsigned long long)clock_tsc_to_ns(off) / 1000);
    }
}

/* False: left in an unknown state, on the first tables perhaps. */
static bool start_cpu(const struct acpi_cpu *desc)
{
    struct mailbox *box = mailbox();
    uint64_t stack = 0;
    struct cpu *cpu = prepare_cpu(nr_cpus(), desc, &stack);

    if (!cpu) {
        log_warn("APIC %u: no memory for this processor", desc->apic_id);
        return true;
    }
    box->stack = stack;
    box->arg = (uint64_t)cpu;
    __atomic_store_n(&box->state, MAILBOX_ARMED, __ATOMIC_RELEASE);
    if (!send_startup(box, desc->apic_id)) {
        log_warn("APIC %u: this processor does not start", desc->apic_id);
        hostmap_stack_free(stack);
        free_cpu(cpu);
        return true;
    }
    for (uint64_t end = clock_now_ns() + ONLINE_US * 1000ull;
         !__atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE);) {
        if (clock_now_ns() > end) {
            log_warn("APIC %u: this processor started and went astray", desc->apic_id);
            return false;
        }
        __builtin_ia32_pause();
    }
    percpu_add(cpu);
    check_tsc(cpu);
    return true;
}

static void start_all(unsigned max)
{
    const struct acpi_info *info = acpi_info();
    uint32_t self = lapic_id();
    bool sane = true;
    mfn_t table[3];

    if (start_page == 0 || build_tables(table) != HV_OK) {
        log_warn("no memory below 1 MiB (or 4 GiB) to start processors: one is used");
        return;
    }
    memcpy(phys_ptr(HPA(start_page)), trampoline_start,
           (size_t)(trampoline_end - trampoline_start));
    struct mailbox *box = mailbox();
    box->entry = (uint64_t)ap_main;
    box->cr3 = (uint32_t)mfn_hpa(table[0]).a;
    box->far_offset += (uint32_t)start_page;
    box->gdt_base += (uint32_t)start_page;

    for (unsigned i = 0; i < info->nr_cpus; i++) {
        if (info->cpus[i].apic_id != self) {
            lapic_init_ipi(info->cpus[i].apic_id);
        }
    }
    clock_delay_us(INIT_DELAY_US);
    for (unsigned i = 0; i < info->nr_cpus && nr_cpus() < max && sane; i++) {
        if (info->cpus[i].apic_id != self) {
            sane = start_cpu(&info->cpus[i]);
        }
    }
    for (unsigned i = 0; i < 3 && sane; i++) {
        buddy_free(table[i], 0);
    }
}

/* ---- Calls ------------------------------------------------------------------------------------- */

static struct spinlock call_lock = SPINLOCK_INIT(RANK_CALL, "cross-calls");
static void (*call_fn)(void *arg); /* call_lock; read by the called */
static void *call_arg;             /* likewise */
static unsigned call_pending;      /* processors that have not finished (atomic) */

static void take_call(void *arg)
{
    (void)arg;
    call_fn(call_arg);
    __atomic_fetch_sub(&call_pending, 1, __ATOMIC_RELEASE);
}

/* call_lock held. */
static void send_call(unsigned cpu)
{
    lapic_ipi(cpu_by_id(cpu)->apic_id, VEC_CALL);
}

static void begin_call(void (*fn)(void *arg), void *arg, unsigned nr)
{
    if (!irq_enabled()) {
        panic("a cross-processor call with interrupts off");
    }
    spin_lock(&call_lock);
    call_fn = fn;
    call_arg = arg;
    __atomic_store_n(&call_pending, nr, __ATOMIC_RELEASE);
}

static void finish_call(void)
{
    while (__atomic_load_n(&call_pending, __ATOMIC_ACQUIRE) != 0) {
        __builtin_ia32_pause();
    }
    spin_unlock(&call_lock);
}

void smp_call_others(void (*fn)(void *arg), void *arg)
{
    unsigned nr = nr_cpus();

    if (nr == 1) {
        return;
    }
    begin_call(fn, arg, nr - 1);
    unsigned self = this_cpu()->id;
    for (unsigned i = 0; i < nr; i++) {
        if (i != self) {
            send_call(i);
        }
    }
    finish_call();
}

void smp_call(unsigned cpu, void (*fn)(void *arg), void *arg)
{
    if (cpu == this_cpu()->id) {
        fn(arg);
        return;
    }
    begin_call(fn, arg, 1);
    send_call(cpu);
    finish_call();
}

void smp_kick(unsigned cpu)
{
    if (cpu != this_cpu()->id) {
        lapic_ipi(cpu_by_id(cpu)->apic_id, VEC_KICK);
    }
}

void smp_relax(void)
{
    __builtin_ia32_pause();
}

static void take_kick(void *arg)
{
    (void)arg;
    sched_kicked();
}

void smp_stop_others(void)
{
    unsigned self = this_cpu() ? this_cpu()->id : 0;

    for (unsigned i = 0; i < nr_cpus(); i++) {
        if (i != self) {
            lapic_nmi(cpu_by_id(i)->apic_id);
        }
    }
}

void smp_start(unsigned max)
{
    struct cpu *boot_cpu = cpu_by_id(0);
    const struct acpi_info *info = acpi_info();

    for (unsigned i = 0; i < info->nr_cpus; i++) {
        if (info->cpus[i].apic_id == boot_cpu->apic_id) {
            boot_cpu->acpi_uid = info->cpus[i].uid;
        }
    }
    if (irq_install(VEC_KICK, take_kick, NULL) != HV_OK ||
        irq_install(VEC_CALL, take_call, NULL) != HV_OK) {
        panic("a vector for interprocessor interrupts is taken");
    }
    max = MIN(max, (unsigned)MAX_CPUS);
    if (info->nr_cpus > 1 && max > 1) {
        start_all(max);
    }
}

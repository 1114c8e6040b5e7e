/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The boot sequence, top to bottom. Entered by boot/entry.asm on the boot processor with interrupts
 * off and the early page tables; ends as the boot thread, which has nothing left to do.
 */
#include "kernel/main.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/desc.h"
#include "arch/x86_64/firmware.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/ioapic.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mitigate.h"
#include "arch/x86_64/mm_env.h"
#include "arch/x86_64/mtrr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/pic.h"
#include "arch/x86_64/smp.h"
#include "arch/x86_64/trap.h"
#include "boot/bootinfo.h"
#include "boot/entry.h"
#include "kernel/bench_share.h"
#include "kernel/drivers/blk.h"
#include "kernel/drivers/console.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/machine.h"
#include "kernel/memory.h"
#include "kernel/panic.h"
#include "kernel/sched/sched.h"
#include "kernel/selftest_sched.h"
#include "kernel/shell/shell.h"
#include "kernel/startup.h"
#include "kernel/vm/backend.h"
#include "kernel/vm/badmem.h"
#include "mm/buddy.h"

static struct boot_info boot_info;
/* IST stacks until there is memory for guarded ones. */
static uint8_t early_ist[NR_IST][STACK_SIZE] __aligned(STACK_SIZE);

const struct boot_info *main_boot_info(void)
{
    return &boot_info;
}

/* Loader data is read through the early tables, which end at 4 GiB. */
static const void *map_early(uint64_t pa, uint64_t size)
{
    return pa < BOOT_MAP_LIMIT && size <= BOOT_MAP_LIMIT - pa ? phys_ptr(HPA(pa)) : NULL;
}

static void init_processor(struct cpu *cpu)
{
    cpu_detect();
    if (cpu_missing() != NULL) {
        panic_unusable("this processor lacks %s", cpu_missing());
    }
    firmware_probe();
    cpu_init();
    desc_init();
    for (unsigned i = 0; i < NR_IST; i++) {
        cpu->ist_stack[i] = (uint64_t)early_ist[i] + STACK_SIZE;
    }
    if (desc_init_cpu(cpu) != HV_OK) {
        panic_unusable("no descriptor tables");
    }
    desc_load(cpu);
}

/* `loglevel=` of the host command line. */
static void set_log_level(void)
{
    enum log_level level;
    char word[16];

    if (!parse_option(boot_info.cmdline, "loglevel", word, sizeof(word))) {
        return;
    }
    if (log_level_find(word, &level)) {
        log_set_level(level);
        return;
    }
    log_error("command line: loglevel=%s: accepted: error, warn, info, debug", word);
}

static void read_loader_data(uint64_t magic, uint64_t info_pa)
{
    const struct bootinfo_env env = {map_early};

    if (bootinfo_parse(magic, info_pa, &env, &boot_info) != HV_OK) {
        panic_unusable("the boot loader's data cannot be used: %s",
                       boot_info.error != NULL ? boot_info.error : "unknown reason");
    }
    set_log_level();
    panic_configure(boot_info.cmdline);
    mm_env_configure(boot_info.cmdline);
}

static void init_memory(void)
{
    log_persist(&boot_info);
    smp_reserve_page(&boot_info);
    if (memory_init_low(&boot_info) != HV_OK) {
        panic_unusable("Ballast needs more memory below 4 GiB");
    }
    if (hostmap_init(&boot_info) != HV_OK) {
        panic_unusable("too little memory for the hypervisor's own page tables");
    }
    memory_init_high(&boot_info);
    mtrr_init(&boot_info);
}

/* Stacks with guard pages for traps, and one for the boot thread; returns the latter's top. */
static uint64_t init_stacks(struct cpu *cpu)
{
    uint64_t ist[NR_IST];
    uint64_t top = hostmap_stack_alloc(OWNER_HOST);
    bool ok = top != 0;

    for (unsigned i = 0; i < NR_IST; i++) {
        ist[i] = hostmap_stack_alloc(OWNER_HOST);
        ok = ok && ist[i] != 0;
    }
    if (!ok) {
        panic_unusable("too little memory for stacks");
    }
    for (unsigned i = 0; i < NR_IST; i++) {
        cpu->ist_stack[i] = ist[i];
    }
    desc_set_ist(cpu);
    stack_set_anchor(top - 1, cpu);
    return top;
}

static void init_interrupts_and_time(void)
{
    acpi_init(&boot_info);
    pic_disable();
    if (lapic_init() != HV_OK) {
        panic_unusable("this processor has no local APIC, or it cannot be mapped");
    }
    lapic_enable();
    this_cpu()->apic_id = lapic_id();
    ioapic_init(acpi_info());
    if (clock_init() != HV_OK) {
        panic_unusable("no clock to measure the TSC with");
    }
    lapic_timer_calibrate();
}

static void init_threads_and_processors(void)
{
    char word[16];
    uint64_t max = MAX_CPUS;

    fpu_init_cpu();
    cpu_mce_init();
    sched_init();
    irq_enable();
    sched_start_cpu();
    if (parse_option(boot_info.cmdline, "maxcpus", word, sizeof(word)) &&
        (parse_u64(word, &max) != HV_OK || max == 0 || max > MAX_CPUS)) {
        log_error("command line: maxcpus=%s: accepted: 1 to %u", word, MAX_CPUS);
        max = MAX_CPUS;
    }
    smp_start((unsigned)MIN(max, (uint64_t)MAX_CPUS));
}

static void enable_backend_here(void *arg)
{
    (void)arg;
    if (backend_enable_cpu() != HV_OK) {
        panic("cpu %u: %s cannot be switched on", this_cpu()->id, hv_caps.name);
    }
}

static void init_backend(void)
{
    if (backend_select() != HV_OK) {
        machine_refuse(&boot_info);
    }
    mitigate_init();
    enable_backend_here(NULL);
    smp_call_others(enable_backend_here, NULL);
}

/* The rest, on a guarded stack. */
static void boot_thread(void *arg)
{
    (void)arg;
    init_interrupts_and_time();
    init_threads_and_processors();
    console_init_display(&boot_info);
    init_backend();
    machine_report(&boot_info);
    console_init_input();
    log_start_thread();
    badmem_start();
    selftest_run(boot_info.cmdline);
    blk_init();
    startup_vms(&boot_info);
    bench_run(boot_info.cmdline);
    shell_start(boot_info.cmdline);
    for (;;) {
        thread_block();
    }
}

void kernel_main(uint64_t magic, uint64_t info_pa)
{
    stack_set_anchor((uint64_t)boot_stack, cpu_by_id(0));
    console_early_init();
    log_info("Ballast " BALLAST_VERSION);
    init_processor(this_cpu());
    read_loader_data(magic, info_pa);
    init_memory();
    stack_switch(init_stacks(this_cpu()), boot_thread, NULL);
}

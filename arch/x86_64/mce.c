/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Machine-check architecture ("Machine-Check Architecture", "Error-Reporting Register Banks",
 * "Interpreting the MCA Error Codes"). Bank registers are per processor and touched by it alone. The
 * handler may have interrupted anything, lock holders included: bad memory is only noted here, in
 * slots that are filled and emptied by single atomic operations.
 */
#include "arch/x86_64/mce.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/log.h"
#include "kernel/panic.h"

#define MC_STATUS_DEFERRED BIT(44)           /* AMD: uncorrected, not consumed yet */
#define MC_MISC_MODE(misc) ((misc) >> 6 & 7) /* Intel, "Recoverable Address LSB and Address Mode" */
#define MC_MISC_MODE_PHYSICAL 2u

/* Addresses of bad memory, not yet taken; 0: none (its frame is never ours). Atomic. */
static uint64_t bad_memory[16];

static unsigned nr_banks(void)
{
    uint64_t cap;

    return rdmsr_safe(MSR_MCG_CAP, &cap) ? (unsigned)(cap & MCG_CAP_COUNT) : 0;
}

/* The compound error codes, by their leading bits; the simple ones first. */
static const char *error_kind(uint16_t code)
{
    if (code == 0) {
        return "no error";
    }
    if (code < 0x0008) {
        return code == 0x0001   ? "unclassified"
               : code == 0x0002 ? "microcode ROM parity"
               : code == 0x0003 ? "external"
               : code == 0x0005 ? "internal parity"
                                : "internal";
    }
    code &= (uint16_t)~0x1000; /* correction report filtering */
    if ((code & 0x0800) != 0) {
        return "bus or interconnect";
    }
    if ((code & 0x0400) != 0) {
        return code == 0x0400 ? "internal timer" : "internal unclassified";
    }
    if ((code & 0x0100) != 0) {
        return "cache hierarchy";
    }
    if ((code & 0x0080) != 0) {
        return "memory controller";
    }
    if ((code & 0x0010) != 0) {
        return "TLB";
    }
    return "generic cache hierarchy";
}

struct bank {
    uint64_t status, addr, misc;
};

static void read_bank(unsigned number, struct bank *b)
{
    if ((b->status & MC_STATUS_ADDRV) == 0 || !rdmsr_safe(MSR_MC_ADDR(number), &b->addr)) {
        b->addr = 0;
    }
    if ((b->status & MC_STATUS_MISCV) == 0 || !rdmsr_safe(MSR_MC_MISC(number), &b->misc)) {
        b->misc = 0;
    }
}

static void log_bank(unsigned number, const struct bank *b)
{
    log_error("machine check: cpu %u bank %u: %s %s error%s%s, status 0x%016llx address 0x%llx "
              "misc 0x%llx",
              this_cpu()->id, number, (b->status & MC_STATUS_UC) != 0 ? "uncorrected" : "corrected",
              error_kind((uint16_t)b->status),
              (b->status & MC_STATUS_PCC) != 0 ? ", processor state lost" : "",
              (b->status & MC_STATUS_OVER) != 0 ? ", earlier errors lost" : "",
              (unsigned long long)b->status, (unsigned long long)b->addr,
              (unsigned long long)b->misc);
}

/* Data at a machine address that the bank names are lost, but nothing else. */
static bool lost_memory(const struct bank *b)
{
    bool amd = cpu_features.vendor == CPU_VENDOR_AMD;
    bool lost = (b->status & MC_STATUS_UC) != 0 || (amd && (b->status & MC_STATUS_DEFERRED) != 0);
    /* Memory controller and cache hierarchy errors; bit 12 is correction report filtering. */
    bool memory = (b->status & 0xef80) == 0x0080 || (b->status & 0xef00) == 0x0100;

    return lost && memory && (b->status & MC_STATUS_PCC) == 0 && b->addr != 0 &&
           (amd || MC_MISC_MODE(b->misc) == MC_MISC_MODE_PHYSICAL);
}

static void note_bad_memory(uint64_t addr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bad_memory); i++) {
        uint64_t empty = 0;

        if (__atomic_compare_exchange_n(&bad_memory[i], &empty, addr, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
    log_error("machine check: too many at once: memory at 0x%llx stays in use",
              (unsigned long long)addr);
}

bool mce_take_bad_memory(hpa_t *out)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bad_memory); i++) {
        *out = HPA(__atomic_exchange_n(&bad_memory[i], 0, __ATOMIC_ACQ_REL));
        if (out->a != 0) {
            return true;
        }
    }
    return false;
}

/* Log and clear every valid bank. True if one says that this processor cannot go on. */
static bool scan_banks(bool *found)
{
    bool fatal = false;
    unsigned n = nr_banks();

    *found = false;
    for (unsigned bank = 0; bank < n; bank++) {
        struct bank b;

        if (!rdmsr_safe(MSR_MC_STATUS(bank), &b.status) || (b.status & MC_STATUS_VAL) == 0) {
            continue;
        }
        *found = true;
        read_bank(bank, &b);
        log_bank(bank, &b);
        if (lost_memory(&b)) {
            note_bad_memory(b.addr);
        }
        fatal = fatal || (b.status & MC_STATUS_PCC) != 0;
        if (!wrmsr_safe(MSR_MC_STATUS(bank), 0)) {
            log_warn("machine check: bank %u cannot be cleared", bank);
        }
    }
    return fatal;
}

void mce_init_cpu(void)
{
    uint64_t cap;
    bool found;

    if (!rdmsr_safe(MSR_MCG_CAP, &cap)) {
        return;
    }
    (void)scan_banks(&found);
    if (found) {
        log_warn("cpu %u: the machine checks above happened before this start", this_cpu()->id);
    }
    if ((cap & MCG_CAP_CTL_P) != 0) {
        wrmsr(MSR_MCG_CTL, UINT64_MAX);
    }
    for (unsigned bank = 0; bank < nr_banks(); bank++) {
        /* Some banks do not exist behind some hypervisors although they are counted. */
        if (!wrmsr_safe(MSR_MC_CTL(bank), UINT64_MAX)) {
            log_debug("cpu %u: machine-check bank %u has no control register", this_cpu()->id,
                      bank);
        }
    }
}

void mce_handle(const struct trap_frame *frame)
{
    uint64_t status;
    bool found;

    if (panic_active()) {
        panic_park();
    }
    if (!rdmsr_safe(MSR_MCG_STATUS, &status)) {
        panic_trap(frame, "machine check without machine-check architecture");
    }
    bool fatal = scan_banks(&found);

    if (fatal || (status & MCG_STATUS_RIPV) == 0) {
        panic_trap(frame, "machine check: execution cannot continue (MCG_STATUS 0x%llx)",
                   (unsigned long long)status);
    }
    if (!found) {
        log_error("machine check: cpu %u: no bank reports it", this_cpu()->id);
    }
    /* In progress ends: a second machine check before this write shuts the processor down. */
    wrmsr(MSR_MCG_STATUS, 0);
}

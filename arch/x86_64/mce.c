/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Machine-check architecture ("Machine-Check Architecture", "Error-Reporting Register Banks",
 * "Interpreting the MCA Error Codes"). Bank registers are per processor and touched by it alone.
 */
#include "arch/x86_64/mce.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/log.h"
#include "kernel/panic.h"

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

static void log_bank(unsigned bank, uint64_t status)
{
    uint64_t addr = 0, misc = 0;

    if ((status & MC_STATUS_ADDRV) != 0 && !rdmsr_safe(MSR_MC_ADDR(bank), &addr)) {
        addr = 0;
    }
    if ((status & MC_STATUS_MISCV) != 0 && !rdmsr_safe(MSR_MC_MISC(bank), &misc)) {
        misc = 0;
    }
    log_error("machine check: cpu %u bank %u: %s %s error%s%s, status 0x%016llx address 0x%llx "
              "misc 0x%llx",
              this_cpu()->id, bank, (status & MC_STATUS_UC) != 0 ? "uncorrected" : "corrected",
              error_kind((uint16_t)status),
              (status & MC_STATUS_PCC) != 0 ? ", processor state lost" : "",
              (status & MC_STATUS_OVER) != 0 ? ", earlier errors lost" : "",
              (unsigned long long)status, (unsigned long long)addr, (unsigned long long)misc);
}

/* Log and clear every valid bank. True if one says that this processor cannot go on. */
static bool scan_banks(bool *found)
{
    bool fatal = false;
    unsigned n = nr_banks();

    *found = false;
    for (unsigned bank = 0; bank < n; bank++) {
        uint64_t status;

        if (!rdmsr_safe(MSR_MC_STATUS(bank), &status) || (status & MC_STATUS_VAL) == 0) {
            continue;
        }
        *found = true;
        log_bank(bank, status);
        fatal = fatal || (status & MC_STATUS_PCC) != 0;
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

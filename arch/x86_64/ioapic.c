/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * I/O APIC registers: an index and a data window ("82093AA IOAPIC", register description).
 */
#include "arch/x86_64/ioapic.h"

#include "arch/x86_64/acpi_tables.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "kernel/log.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define IOAPIC_VERSION 0x01u
#define IOAPIC_REDIRECTION(line) (0x10u + 2u * (line))
#define ENTRY_ACTIVE_LOW BIT(13)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)

struct ioapic {
    volatile uint8_t *regs;
    uint32_t gsi_base;
    uint32_t nr_lines;
};

static struct ioapic ioapics[ACPI_MAX_IOAPICS]; /* constant after ioapic_init */
static unsigned nr_ioapics;

static uint32_t read_reg(const struct ioapic *io, uint32_t reg)
{
    mmio_write32(io->regs + REG_SELECT, reg);
    return mmio_read32(io->regs + REG_WINDOW);
}

static void write_entry(const struct ioapic *io, uint32_t line, uint64_t entry)
{
    /* The half with the mask bit goes last when unmasking, so that no half entry is live. */
    mmio_write32(io->regs + REG_SELECT, IOAPIC_REDIRECTION(line) + 1);
    mmio_write32(io->regs + REG_WINDOW, (uint32_t)(entry >> 32));
    mmio_write32(io->regs + REG_SELECT, IOAPIC_REDIRECTION(line));
    mmio_write32(io->regs + REG_WINDOW, (uint32_t)entry);
}

void ioapic_init(const struct acpi_info *info)
{
    for (unsigned i = 0; i < info->nr_ioapics; i++) {
        struct ioapic *io = &ioapics[nr_ioapics];

        io->regs = hostmap_device(HPA(info->ioapics[i].pa), PAGE_SIZE, false);
        if (io->regs == NULL) {
            log_error("ioapic at 0x%llx: cannot be mapped",
                      (unsigned long long)info->ioapics[i].pa);
            continue;
        }
        io->gsi_base = info->ioapics[i].gsi_base;
        io->nr_lines = ((read_reg(io, IOAPIC_VERSION) >> 16) & 0xff) + 1;
        if (read_reg(io, IOAPIC_VERSION) == UINT32_MAX) {
            log_error("ioapic at 0x%llx: does not answer", (unsigned long long)info->ioapics[i].pa);
            continue;
        }
        for (uint32_t line = 0; line < io->nr_lines; line++) {
            write_entry(io, line, ENTRY_MASKED);
        }
        log_debug("ioapic at 0x%llx: interrupts %u to %u", (unsigned long long)info->ioapics[i].pa,
                  io->gsi_base, io->gsi_base + io->nr_lines - 1);
        nr_ioapics++;
    }
}

enum hv_err ioapic_route(uint32_t gsi, unsigned vector, uint32_t apic_id, bool level,
                         bool active_low)
{
    if (apic_id > 0xff) {
        return HV_ERANGE;
    }
    for (unsigned i = 0; i < nr_ioapics; i++) {
        const struct ioapic *io = &ioapics[i];

        if (gsi >= io->gsi_base && gsi - io->gsi_base < io->nr_lines) {
            write_entry(io, gsi - io->gsi_base,
                        vector | (level ? ENTRY_LEVEL : 0) | (active_low ? ENTRY_ACTIVE_LOW : 0) |
                            (uint64_t)apic_id << 56);
            return HV_OK;
        }
    }
    return HV_ENOENT;
}

unsigned ioapic_count(void)
{
    return nr_ioapics;
}

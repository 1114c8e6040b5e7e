/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Access to the ACPI tables in machine memory, and power control. The tables are read once; what is
 * kept (`info`) is constant afterwards.
 */
#include "arch/x86_64/acpi.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/desc.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/regs.h"
#include "boot/bootinfo.h"
#include "kernel/log.h"

static struct acpi_info info;
static const struct boot_info *boot; /* while acpi_init runs */
static unsigned nr_active_iommus;
static volatile uint8_t *reset_mmio; /* mapped early: a panic cannot map */

/* Memory that the physmap covers comes from there; the rest is mapped as device memory. */
static const void *map_table(void *arg, uint64_t pa, uint64_t size)
{
    (void)arg;
    if (pa + size < pa || pa + size > PHYSMAP_SIZE) {
        return NULL;
    }
    if (hostmap_is_ram(HPA(pa), size)) {
        return phys_ptr(HPA(pa));
    }
    for (uint32_t i = 0; i < boot->nr_ranges; i++) {
        const struct boot_range *r = &boot->ranges[i];

        if (r->type == BOOT_RANGE_BAD && pa < r->base + r->size && r->base < pa + size) {
            return NULL;
        }
    }
    return hostmap_device(HPA(pa), size, false);
}

static void report_problem(void *arg, const char *message)
{
    (void)arg;
    log_warn("%s", message);
}

static bool iommu_is_active(unsigned i)
{
    const uint8_t *regs = hostmap_device(HPA(info.iommus[i].pa), PAGE_SIZE, false);

    if (regs == NULL) {
        return false;
    }
    if (info.iommus[i].kind == ACPI_IOMMU_DMAR) {
        return (mmio_read32(regs + 0x1c) & BIT(31)) != 0; /* "Global Status Register": TES */
    }
    return (mmio_read32(regs + 0x18) & BIT(0)) != 0; /* "IOMMU Control Register": IommuEn */
}

void acpi_init(const struct boot_info *boot_info)
{
    struct acpi_source src = {map_table, report_problem, NULL};
    const void *rsdp = boot_info->rsdp;
    size_t size = boot_info->rsdp_size;
    uint64_t pa = boot_info->rsdp_pa;

    boot = boot_info;
    if (size == 0) {
        if (pa == 0 && acpi_find_rsdp(&src, &pa) != HV_OK) {
            pa = 0;
        }
        /* All 36 bytes are read only if the first 20 announce them. */
        rsdp = pa != 0 ? map_table(NULL, pa, 20) : NULL;
        size = rsdp != NULL ? 20 : 0;
        if (rsdp != NULL && ((const uint8_t *)rsdp)[15] >= 2 && map_table(NULL, pa, 36) != NULL) {
            rsdp = map_table(NULL, pa, 36);
            size = 36;
        }
    }
    if (size == 0) {
        log_warn("ACPI: no root pointer found");
    }
    if (acpi_parse(&src, rsdp, size, &info) != HV_OK) {
        log_warn("ACPI: no usable tables: one processor, no I/O APIC, no power-off");
    }
    for (unsigned i = 0; i < info.nr_iommus; i++) {
        nr_active_iommus += iommu_is_active(i) ? 1 : 0;
    }
    if (info.reset.present && info.reset.space == ACPI_SPACE_MEMORY) {
        reset_mmio = hostmap_device(HPA(info.reset.address), 1, false);
    }
    boot = NULL;
}

const struct acpi_info *acpi_info(void)
{
    return &info;
}

void acpi_isa_line(unsigned isa_irq, struct acpi_override *out)
{
    for (unsigned i = 0; i < info.nr_overrides; i++) {
        if (info.overrides[i].isa_irq == isa_irq) {
            *out = info.overrides[i];
            return;
        }
    }
    *out = (struct acpi_override){(uint8_t)isa_irq, isa_irq, false, false};
}

unsigned acpi_active_iommus(void)
{
    return nr_active_iommus;
}

#define PM1_SCI_EN 0x0001u
#define PM1_SLP_TYP_SHIFT 10
#define PM1_SLP_TYP_MASK 0x1c00u
#define PM1_SLP_EN 0x2000u
#define SLEEP_EN 0x20u /* hardware-reduced sleep control register */

static void sleep_write(const struct acpi_register *r, unsigned type)
{
    if (!r->present || r->space != ACPI_SPACE_IO) {
        return;
    }
    uint16_t port = (uint16_t)r->address;
    unsigned v = (inw(port) & ~PM1_SLP_TYP_MASK) | (type << PM1_SLP_TYP_SHIFT & PM1_SLP_TYP_MASK);

    outw(port, (uint16_t)v);
    outw(port, (uint16_t)(v | PM1_SLP_EN));
}

/* "Legacy/ACPI Select and the SCI Interrupt": without ACPI mode the sleep bits may do nothing. */
static void enter_acpi_mode(void)
{
    if (info.smi_cmd == 0 || info.acpi_enable == 0 || !info.pm1a_control.present ||
        (inw((uint16_t)info.pm1a_control.address) & PM1_SCI_EN) != 0) {
        return;
    }
    outb((uint16_t)info.smi_cmd, info.acpi_enable);
    for (unsigned i = 0; i < 3000; i++) {
        if ((inw((uint16_t)info.pm1a_control.address) & PM1_SCI_EN) != 0) {
            return;
        }
        clock_delay_us(100);
    }
}

void acpi_poweroff(void)
{
    uint64_t flags = irq_save();

    if (info.have_s5 && info.hw_reduced && info.sleep_control.present &&
        info.sleep_control.space == ACPI_SPACE_IO) {
        outb((uint16_t)info.sleep_control.address,
             (uint8_t)((info.s5_type_a & 7u) << 2 | SLEEP_EN));
    } else if (info.have_s5) {
        enter_acpi_mode();
        sleep_write(&info.pm1a_control, info.s5_type_a);
        sleep_write(&info.pm1b_control, info.s5_type_b);
    }
    clock_delay_us(100000);

    /* Emulators' own ways, for machines without tables: Bochs, then QEMU new and old. */
    for (const char *p = "Shutdown"; *p != '\0'; p++) {
        outb(0x8900, (uint8_t)*p);
    }
    if (cpu_features.hypervisor) {
        outw(0x604, 0x2000);
        outw(0xb004, 0x2000);
    }
    clock_delay_us(100000);

    irq_restore(flags);
}

/* PCI configuration space of bus 0, as the FADT encodes it: device, function and offset. */
static void reset_by_pci(void)
{
    uint32_t device = (uint32_t)(info.reset.address >> 32) & 0x1f;
    uint32_t function = (uint32_t)(info.reset.address >> 16) & 7;
    uint32_t offset = (uint32_t)info.reset.address & 0xff;

    outl(0xcf8, 0x80000000u | device << 11 | function << 8 | (offset & 0xfc));
    outb((uint16_t)(0xcfc + (offset & 3)), info.reset_value);
}

void acpi_reset(void)
{
    irq_disable();
    if (info.reset.present) {
        if (info.reset.space == ACPI_SPACE_IO) {
            outb((uint16_t)info.reset.address, info.reset_value);
        } else if (info.reset.space == ACPI_SPACE_PCI) {
            reset_by_pci();
        } else if (reset_mmio != NULL) {
            mmio_write8(reset_mmio, info.reset_value);
        }
        clock_delay_us(50000);
    }
    for (unsigned i = 0; i < 1000 && (inb(0x64) & 2) != 0; i++) {
        clock_delay_us(10);
    }
    outb(0x64, 0xfe); /* keyboard controller: pulse the reset line */
    clock_delay_us(50000);
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    clock_delay_us(50000);

    /* No exception can be delivered through an empty table: triple fault. */
    struct desc_ptr none = {0, 0};

    __asm__ volatile("lidt %0; int3" ::"m"(none) : "memory");
    for (;;) {
        cpu_halt();
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Floating pointer and configuration table, one behind the other, in the firmware area's second half
 * behind SMBIOS. Says what the MADT says (acpi_tables.c). Manual: Intel MultiProcessor Specification
 * 1.4, chapter 4 and appendix D. Called when a VM starts.
 */
#include "kernel/devices/mptable.h"

#include "arch/x86_64/cpuid.h"
#include "kernel/devices/checksum.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/vioapic.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"

#define MPTABLE_BASE 0xf8000ull
#define LOCAL_APIC_BASE 0xfee00000u
#define LOCAL_APIC_VERSION 0x14
#define IOAPIC_VERSION 0x11
#define NR_ISA_IRQS 16u

#define CPU_ENABLED 1
#define CPU_BOOT 2
#define IOAPIC_USABLE 1

enum entry_type { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INT, ENTRY_LOCAL_INT };
enum int_type { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTINT };

#define POLARITY_HIGH 1
#define TRIGGER_LEVEL (3 << 2)

struct floating {
    char signature[4];
    uint32_t table;
    uint8_t length, revision, checksum, features[5];
} __packed;
_Static_assert(sizeof(struct floating) == 16, "MP floating pointer");

struct header {
    char signature[4];
    uint16_t length;
    uint8_t revision, checksum;
    char oem_id[8], product_id[12];
    uint32_t oem_table;
    uint16_t oem_size, entries;
    uint32_t lapic;
    uint16_t extended_length;
    uint8_t extended_checksum, reserved;
} __packed;
_Static_assert(sizeof(struct header) == 44, "MP configuration table");

struct processor {
    uint8_t type, apic_id, apic_version, flags;
    uint32_t signature, features;
    uint64_t reserved;
} __packed;

struct bus_entry {
    uint8_t type, id;
    char name[6];
} __packed;

struct ioapic_entry {
    uint8_t type, id, version, flags;
    uint32_t address;
} __packed;

struct interrupt {
    uint8_t type, int_type;
    uint16_t flags;
    uint8_t source_bus, source_irq, dest_id, dest_pin;
} __packed;

struct mptable {
    struct floating floating;
    struct header header;
    struct processor cpu[VM_MAX_VCPUS]; /* as many as there are; the rest follows at once */
    struct rest {
        struct bus_entry bus;
        struct ioapic_entry ioapic;
        struct interrupt isa[NR_ISA_IRQS - 1]; /* all but the cascade */
        struct interrupt local[2];
    } __packed rest;
} __packed;

static void fill_interrupts(struct rest *t, uint8_t ioapic_id)
{
    const uint8_t cascade = 2, all_lapics = 0xff;

    for (uint8_t irq = 0, n = 0; irq < NR_ISA_IRQS; irq++) {
        if (irq == cascade) {
            continue;
        }
        t->isa[n++] = (struct interrupt){
            .type = ENTRY_IO_INT,
            .int_type = INT_VECTORED,
            .flags = irq == ISA_IRQ_SCI ? POLARITY_HIGH | TRIGGER_LEVEL : 0,
            .source_irq = irq,
            .dest_id = ioapic_id,
            .dest_pin = irq == ISA_IRQ_PIT ? IOAPIC_PIN_PIT : irq,
        };
    }
    t->local[0] = (struct interrupt){.type = ENTRY_LOCAL_INT, .int_type = INT_EXTINT};
    t->local[1] = (struct interrupt){
        .type = ENTRY_LOCAL_INT, .int_type = INT_NMI, .dest_id = all_lapics, .dest_pin = 1};
}

static void fill_processors(struct mptable *t, unsigned nr_vcpus)
{
    struct cpuid features = cpuid(CPUID_FEATURES, 0);

    for (unsigned i = 0; i < nr_vcpus; i++) {
        t->cpu[i] = (struct processor){
            .type = ENTRY_PROCESSOR,
            .apic_id = (uint8_t)i,
            .apic_version = LOCAL_APIC_VERSION,
            .flags = i == 0 ? CPU_ENABLED | CPU_BOOT : CPU_ENABLED,
            .signature = features.eax,
            .features = features.edx,
        };
    }
}

enum hv_err mptable_write(struct vm *vm)
{
    struct mptable t;
    struct rest *rest = &t.rest;
    size_t size = offsetof(struct mptable, cpu) + vm->nr_vcpus * sizeof t.cpu[0] + sizeof *rest;
    /* Physical destinations have four bits in old IOAPICs: its ID is none of the processors'. */
    uint8_t ioapic_id = (uint8_t)vm->nr_vcpus;

    memset(&t, 0, sizeof t);
    fill_interrupts(rest, ioapic_id);
    fill_processors(&t, vm->nr_vcpus);
    rest->bus = (struct bus_entry){.type = ENTRY_BUS, .name = {'I', 'S', 'A', ' ', ' ', ' '}};
    rest->ioapic = (struct ioapic_entry){.type = ENTRY_IOAPIC,
                                         .id = ioapic_id,
                                         .version = IOAPIC_VERSION,
                                         .flags = IOAPIC_USABLE,
                                         .address = (uint32_t)VIOAPIC_BASE};
    memmove(&t.cpu[vm->nr_vcpus], rest, sizeof *rest);
    memcpy(t.header.signature, "PCMP", 4);
    t.header.length = (uint16_t)(size - offsetof(struct mptable, header));
    t.header.revision = 4;
    memcpy(t.header.oem_id, "BALLAST ", 8);
    memcpy(t.header.product_id, "VM          ", 12);
    t.header.entries =
        (uint16_t)(2 + ARRAY_SIZE(rest->isa) + ARRAY_SIZE(rest->local) + vm->nr_vcpus);
    t.header.lapic = LOCAL_APIC_BASE;
    t.header.checksum = table_checksum(&t.header, t.header.length);
    memcpy(t.floating.signature, "_MP_", 4);
    t.floating.table = (uint32_t)(MPTABLE_BASE + offsetof(struct mptable, header));
    t.floating.length = 1; /* in units of 16 bytes */
    t.floating.revision = 4;
    t.floating.checksum = table_checksum(&t.floating, sizeof t.floating);
    return guestmem_write(vm, GPA(MPTABLE_BASE), &t, size);
}

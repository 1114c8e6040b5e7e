/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's ACPI tables: RSDP, XSDT, FADT, FACS, MADT, HPET, the DSDT that iasl compiled and, where
 * there are virtio devices, an SSDT with them, one
 * behind the other from GUEST_ACPI_BASE on, in the first half of the firmware area; SMBIOS (smbios.c)
 * and MP tables (mptable.c) have the second and, at its very end, the BIOS (bios.c). The platform is a PC
 * with ACPI's fixed hardware, in ACPI mode from the start: no SMI command. On a hardware-reduced one
 * Linux would do without 8259s and PIT, which `noapic` and `nolapic` need.
 * Manual: ACPI 6.3, "ACPI Software Programming Model"; IA-PC HPET Specification, 3.2.4. Called when a VM starts.
 */
#include "kernel/devices/devices.h"

#include "kernel/devices/acpi_virtio.h"
#include "kernel/devices/bios.h"
#include "kernel/devices/checksum.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/mptable.h"
#include "kernel/devices/platform.h"
#include "kernel/devices/smbios.h"
#include "kernel/devices/vhpet.h"
#include "kernel/devices/vioapic.h"
#include "kernel/devices/vpm.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/vm.h"

#define OEM_ID "BALAST"
#define OEM_TABLE_ID "BALLAST " /* eight bytes, no NUL */
#define CREATOR_ID 0x54534c42u  /* "BLST" */
#define LOCAL_APIC_BASE 0xfee00000u

#define FADT_WBINVD BIT(0)
#define FADT_PROC_C1 BIT(2)
#define FADT_FIXED_BUTTONS_ABSENT (BIT(4) | BIT(5))
#define FADT_NO_CLOCK_WAKE BIT(6)
#define FADT_RESET_REGISTER BIT(10)
#define FADT_BOOT_LEGACY_DEVICES BIT(0)
#define FADT_BOOT_NO_VGA BIT(2)
#define FADT_NO_C2 101 /* worst latencies above 100 and 1000 microseconds: no such states */
#define FADT_NO_C3 1001
#define CMOS_CENTURY 0x32
#define MADT_PCAT_COMPATIBLE 1
#define MADT_ACTIVE_HIGH_LEVEL 0xd
#define HPET_MIN_TICK 5000 /* 50 microseconds */
#define SPACE_IO 1
#define ACCESS_WORD 2

struct sdt_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision, creator_id, creator_revision;
} __packed;
_Static_assert(sizeof(struct sdt_header) == 36, "ACPI table header");

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __packed;
_Static_assert(sizeof(struct rsdp) == 36, "RSDP");

struct xsdt {
    struct sdt_header header;
    uint64_t entry[4]; /* the last one only where there is an SSDT */
} __packed;

/* The same with addresses of 32 bits, for those who know ACPI 1.0 only. */
struct rsdt {
    struct sdt_header header;
    uint32_t entry[4];
} __packed;

struct address {
    uint8_t space, bit_width, bit_offset, access_size;
    uint64_t address;
} __packed;
_Static_assert(sizeof(struct address) == 12, "generic address");

struct fadt {
    struct sdt_header header;
    uint32_t facs, dsdt;
    uint8_t reserved0, profile;
    uint16_t sci;
    uint32_t smi_command;
    uint8_t acpi_enable, acpi_disable, s4_request, pstate_control;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    uint8_t pm1_event_len, pm1_control_len, pm2_control_len, pm_timer_len, gpe0_len, gpe1_len;
    uint8_t gpe1_base, cstate_control;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_flags; /* offset 109 */
    uint8_t reserved;
    uint32_t flags;       /* offset 112 */
    struct address reset; /* offset 116 */
    uint8_t reset_value;
    uint16_t arm_boot_flags;
    uint8_t minor_version;
    uint64_t x_facs, x_dsdt; /* offsets 132, 140 */
    struct address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control;
    struct address x_pm_timer, x_gpe0, x_gpe1;
    struct address sleep_control, sleep_status; /* offsets 244, 256 */
    uint64_t hypervisor;
} __packed;
_Static_assert(sizeof(struct fadt) == 276, "FADT revision 6");
_Static_assert(offsetof(struct fadt, pm1a_event) == 56, "FADT");
_Static_assert(offsetof(struct fadt, boot_flags) == 109, "FADT");
_Static_assert(offsetof(struct fadt, x_pm_timer) == 208, "FADT");
_Static_assert(offsetof(struct fadt, x_dsdt) == 140, "FADT");
_Static_assert(offsetof(struct fadt, sleep_control) == 244, "FADT");

struct madt_lapic {
    uint8_t type, length, uid, apic_id;
    uint32_t flags;
} __packed;

struct madt_ioapic {
    uint8_t type, length, id, reserved;
    uint32_t address, gsi_base;
} __packed;

struct madt_override {
    uint8_t type, length, bus, source;
    uint32_t gsi;
    uint16_t flags;
} __packed;

struct madt_lapic_nmi {
    uint8_t type, length, uid;
    uint16_t flags;
    uint8_t lint;
} __packed;

struct madt {
    struct sdt_header header;
    uint32_t lapic_address, flags;
    struct madt_ioapic ioapic;
    struct madt_override pit, sci;
    struct madt_lapic_nmi nmi;
    struct madt_lapic lapic[VM_MAX_VCPUS];
} __packed;

struct hpet_table {
    struct sdt_header header;
    uint32_t block_id;
    struct address base;
    uint8_t number;
    uint16_t min_tick;
    uint8_t protection;
} __packed;
_Static_assert(sizeof(struct hpet_table) == 56, "HPET description table");

struct facs {
    char signature[4];
    uint32_t length, hardware_signature, waking_vector, global_lock, flags;
    uint64_t x_waking_vector;
    uint8_t version, reserved[31];
} __packed;
_Static_assert(sizeof(struct facs) == 64, "FACS");

struct ssdt {
    struct sdt_header header;
    uint8_t body[ACPI_VIRTIO_MAX];
} __packed;

struct tables {
    struct rsdp rsdp;
    uint8_t pad0[64 - sizeof(struct rsdp)];
    struct facs facs; /* on 64 bytes */
    struct xsdt xsdt;
    uint8_t pad1[128 - sizeof(struct xsdt)];
    struct rsdt rsdt;
    uint8_t pad4[64 - sizeof(struct rsdt)];
    struct fadt fadt;
    uint8_t pad2[320 - sizeof(struct fadt)];
    struct hpet_table hpet;
    uint8_t pad3[64 - sizeof(struct hpet_table)];
    struct madt madt;
} __packed;

#define TABLE_ADDRESS(member) (GUEST_ACPI_BASE + offsetof(struct tables, member))
#define DSDT_ADDRESS (GUEST_ACPI_BASE + ALIGN_UP(sizeof(struct tables), 64))

/* Linked in as iasl made it (build.mk). */
extern const struct sdt_header _binary_dsdt_aml_start;

static void fill_header(struct sdt_header *h, const char *signature, uint8_t revision, size_t len)
{
    memcpy(h->signature, signature, 4);
    h->length = (uint32_t)len;
    h->revision = revision;
    memcpy(h->oem_id, OEM_ID, sizeof h->oem_id);
    memcpy(h->oem_table_id, OEM_TABLE_ID, sizeof h->oem_table_id);
    h->oem_revision = 1;
    h->creator_id = CREATOR_ID;
    h->creator_revision = 1;
}

/* The widest access that the register's length allows. */
static struct address port_address(uint16_t port, unsigned bytes)
{
    return (struct address){.space = SPACE_IO,
                            .bit_width = (uint8_t)(8 * bytes),
                            .access_size = bytes == 1   ? 1
                                           : bytes == 2 ? 2
                                                        : 3,
                            .address = port};
}

static void fill_rsdp(struct rsdp *r)
{
    memcpy(r->signature, "RSD PTR ", sizeof r->signature);
    memcpy(r->oem_id, OEM_ID, sizeof r->oem_id);
    r->revision = 2;
    r->length = sizeof *r;
    r->rsdt = (uint32_t)TABLE_ADDRESS(rsdt);
    r->xsdt = TABLE_ADDRESS(xsdt);
    r->checksum = table_checksum(r, 20); /* the part that revision 0 had */
    r->extended_checksum = table_checksum(r, sizeof *r);
}

/* Behind the DSDT. 0: there is none. */
static uint64_t ssdt_address(const struct ssdt *s)
{
    return s->header.length != 0 ? ALIGN_UP(DSDT_ADDRESS + _binary_dsdt_aml_start.length, 64) : 0;
}

static void fill_ssdt(struct ssdt *s, const struct vm *vm)
{
    size_t bytes = acpi_virtio_body(vm, s->body);

    s->header.length = 0;
    if (bytes != 0) {
        memset(&s->header, 0, sizeof s->header);
        fill_header(&s->header, "SSDT", 2, sizeof s->header + bytes);
        s->header.checksum = table_checksum(s, s->header.length);
    }
}

static void fill_xsdt(struct xsdt *x, const struct ssdt *s)
{
    size_t len = ssdt_address(s) != 0 ? sizeof *x : offsetof(struct xsdt, entry[3]);

    fill_header(&x->header, "XSDT", 1, len);
    x->entry[3] = ssdt_address(s);
    x->entry[0] = TABLE_ADDRESS(fadt);
    x->entry[1] = TABLE_ADDRESS(madt);
    x->entry[2] = TABLE_ADDRESS(hpet);
    x->header.checksum = table_checksum(x, len);
}

static void fill_rsdt(struct rsdt *r, const struct xsdt *x)
{
    size_t nr = (x->header.length - sizeof(x->header)) / sizeof(x->entry[0]);
    size_t len = sizeof(r->header) + nr * sizeof(r->entry[0]);

    fill_header(&r->header, "RSDT", 1, len);
    for (size_t i = 0; i < nr; i++) {
        r->entry[i] = (uint32_t)x->entry[i];
    }
    r->header.checksum = table_checksum(r, len);
}

static void fill_pm_blocks(struct fadt *f)
{
    f->pm1a_event = VPM_EVENT_PORT;
    f->pm1_event_len = VPM_EVENT_LENGTH;
    f->x_pm1a_event = port_address(VPM_EVENT_PORT, VPM_EVENT_LENGTH);
    f->x_pm1a_event.access_size = ACCESS_WORD; /* two registers */
    f->pm1a_control = VPM_CONTROL_PORT;
    f->pm1_control_len = VPM_CONTROL_LENGTH;
    f->x_pm1a_control = port_address(VPM_CONTROL_PORT, VPM_CONTROL_LENGTH);
    f->pm_timer = VPM_TIMER_PORT;
    f->pm_timer_len = VPM_TIMER_LENGTH;
    f->x_pm_timer = port_address(VPM_TIMER_PORT, VPM_TIMER_LENGTH);
}

static void fill_fadt(struct fadt *f)
{
    fill_header(&f->header, "FACP", 6, sizeof *f);
    f->facs = (uint32_t)TABLE_ADDRESS(facs);
    f->x_facs = f->facs; /* both: who compares them wants them equal */
    f->dsdt = (uint32_t)DSDT_ADDRESS;
    f->x_dsdt = DSDT_ADDRESS;
    f->sci = ISA_IRQ_SCI;
    fill_pm_blocks(f);
    f->c2_latency = FADT_NO_C2;
    f->c3_latency = FADT_NO_C3;
    f->century = CMOS_CENTURY;
    f->boot_flags = (uint16_t)(FADT_BOOT_LEGACY_DEVICES | FADT_BOOT_NO_VGA);
    f->flags = (uint32_t)(FADT_WBINVD | FADT_PROC_C1 | FADT_FIXED_BUTTONS_ABSENT |
                          FADT_NO_CLOCK_WAKE | FADT_RESET_REGISTER);
    f->reset = port_address(PLATFORM_RESET_PORT, 1);
    f->reset_value = PLATFORM_RESET_VALUE;
    f->minor_version = 3;
    f->header.checksum = table_checksum(f, sizeof *f);
}

static void fill_facs(struct facs *f)
{
    memcpy(f->signature, "FACS", 4);
    f->length = sizeof *f;
    f->version = 2;
}

static void fill_hpet(struct hpet_table *h)
{
    fill_header(&h->header, "HPET", 1, sizeof *h);
    h->block_id = VHPET_BLOCK_ID;
    h->base = (struct address){.bit_width = 64, .address = VHPET_BASE};
    h->min_tick = HPET_MIN_TICK;
    h->header.checksum = table_checksum(h, sizeof *h);
}

static void fill_madt(struct madt *m, unsigned nr_vcpus)
{
    size_t len = offsetof(struct madt, lapic) + nr_vcpus * sizeof m->lapic[0];

    fill_header(&m->header, "APIC", 3, len);
    m->lapic_address = LOCAL_APIC_BASE;
    m->flags = MADT_PCAT_COMPATIBLE;
    m->pit = (struct madt_override){.type = 2, .length = sizeof m->pit, .gsi = IOAPIC_PIN_PIT};
    m->sci = (struct madt_override){.type = 2,
                                    .length = sizeof m->sci,
                                    .source = ISA_IRQ_SCI,
                                    .gsi = ISA_IRQ_SCI,
                                    .flags = MADT_ACTIVE_HIGH_LEVEL};
    m->nmi = (struct madt_lapic_nmi){.type = 4, .length = sizeof m->nmi, .uid = 0xff, .lint = 1};
    m->ioapic = (struct madt_ioapic){
        .type = 1, .length = sizeof m->ioapic, .address = (uint32_t)VIOAPIC_BASE};
    for (unsigned i = 0; i < nr_vcpus; i++) {
        m->lapic[i] = (struct madt_lapic){
            .length = sizeof m->lapic[0], .uid = (uint8_t)i, .apic_id = (uint8_t)i, .flags = 1};
    }
    m->header.checksum = table_checksum(m, len);
}

enum hv_err acpi_tables_write(struct vm *vm, gpa_t *rsdp)
{
    struct tables t;
    struct ssdt ssdt;
    enum hv_err err;

    memset(&t, 0, sizeof t);
    fill_rsdp(&t.rsdp);
    fill_ssdt(&ssdt, vm);
    fill_xsdt(&t.xsdt, &ssdt);
    fill_rsdt(&t.rsdt, &t.xsdt);
    fill_fadt(&t.fadt);
    fill_facs(&t.facs);
    fill_hpet(&t.hpet);
    fill_madt(&t.madt, vm->nr_vcpus);
    err = guestmem_write(vm, GPA(GUEST_ACPI_BASE), &t, sizeof t);
    if (!err) {
        err = guestmem_write(vm, GPA(DSDT_ADDRESS), &_binary_dsdt_aml_start,
                             _binary_dsdt_aml_start.length);
    }
    if (!err && ssdt.header.length != 0) {
        err = guestmem_write(vm, GPA(ssdt_address(&ssdt)), &ssdt, ssdt.header.length);
    }
    if (!err) {
        err = smbios_write(vm);
    }
    if (!err) {
        err = mptable_write(vm);
    }
    if (!err) {
        err = bios_write(vm);
    }
    *rsdp = GPA(GUEST_ACPI_BASE);
    return err;
}

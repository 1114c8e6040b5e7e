/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's ACPI tables: RSDP, XSDT, FADT, MADT and the DSDT that iasl compiled, one behind the
 * other from GUEST_ACPI_BASE on, in the first half of the firmware area; SMBIOS has the second
 * (smbios.c) and, at its very end, the reset vector. The platform is hardware-reduced: no PM timer, no SCI; sleep and reset are plain ports.
 * Manual: ACPI 6.3, "ACPI Software Programming Model". Called when a VM starts.
 */
#include "kernel/devices/devices.h"

#include "kernel/devices/checksum.h"
#include "kernel/devices/platform.h"
#include "kernel/devices/smbios.h"
#include "kernel/devices/vioapic.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/vm.h"

#define OEM_ID "BALAST"
#define OEM_TABLE_ID "BALLAST " /* eight bytes, no NUL */
#define CREATOR_ID 0x54534c42u  /* "BLST" */
#define LOCAL_APIC_BASE 0xfee00000u
#define RESET_VECTOR 0xffff0ull /* F000:FFF0 */

#define FADT_FIXED_BUTTONS_ABSENT (BIT(4) | BIT(5))
#define FADT_RESET_REGISTER BIT(10)
#define FADT_HW_REDUCED BIT(20)
#define FADT_BOOT_NO_VGA BIT(2)
#define FADT_BOOT_NO_CMOS_CLOCK BIT(5)
#define SPACE_IO 1
#define ACCESS_BYTE 1

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
    uint64_t entry[2];
} __packed;

struct address {
    uint8_t space, bit_width, bit_offset, access_size;
    uint64_t address;
} __packed;
_Static_assert(sizeof(struct address) == 12, "generic address");

struct fadt {
    struct sdt_header header;
    uint8_t legacy[73];  /* zero on hardware-reduced platforms */
    uint16_t boot_flags; /* offset 109 */
    uint8_t reserved;
    uint32_t flags;       /* offset 112 */
    struct address reset; /* offset 116 */
    uint8_t reset_value;
    uint16_t arm_boot_flags;
    uint8_t minor_version;
    uint64_t x_facs, x_dsdt; /* offsets 132, 140 */
    struct address legacy_x[8];
    struct address sleep_control, sleep_status; /* offsets 244, 256 */
    uint64_t hypervisor;
} __packed;
_Static_assert(sizeof(struct fadt) == 276, "FADT revision 6");
_Static_assert(offsetof(struct fadt, boot_flags) == 109, "FADT");
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

struct madt {
    struct sdt_header header;
    uint32_t lapic_address, flags;
    struct madt_ioapic ioapic;
    struct madt_lapic lapic[VM_MAX_VCPUS];
} __packed;

struct tables {
    struct rsdp rsdp;
    uint8_t pad0[64 - sizeof(struct rsdp)];
    struct xsdt xsdt;
    uint8_t pad1[64 - sizeof(struct xsdt)];
    struct fadt fadt;
    uint8_t pad2[320 - sizeof(struct fadt)];
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

static struct address port_address(uint16_t port)
{
    return (struct address){
        .space = SPACE_IO, .bit_width = 8, .access_size = ACCESS_BYTE, .address = port};
}

static void fill_rsdp(struct rsdp *r)
{
    memcpy(r->signature, "RSD PTR ", sizeof r->signature);
    memcpy(r->oem_id, OEM_ID, sizeof r->oem_id);
    r->revision = 2;
    r->length = sizeof *r;
    r->xsdt = TABLE_ADDRESS(xsdt);
    r->checksum = table_checksum(r, 20); /* the part that revision 0 had */
    r->extended_checksum = table_checksum(r, sizeof *r);
}

static void fill_xsdt(struct xsdt *x)
{
    fill_header(&x->header, "XSDT", 1, sizeof *x);
    x->entry[0] = TABLE_ADDRESS(fadt);
    x->entry[1] = TABLE_ADDRESS(madt);
    x->header.checksum = table_checksum(x, sizeof *x);
}

static void fill_fadt(struct fadt *f)
{
    fill_header(&f->header, "FACP", 6, sizeof *f);
    f->boot_flags = (uint16_t)(FADT_BOOT_NO_VGA | FADT_BOOT_NO_CMOS_CLOCK);
    f->flags = (uint32_t)(FADT_FIXED_BUTTONS_ABSENT | FADT_RESET_REGISTER | FADT_HW_REDUCED);
    f->reset = port_address(PLATFORM_RESET_PORT);
    f->reset_value = PLATFORM_RESET_VALUE;
    f->minor_version = 3;
    f->x_dsdt = DSDT_ADDRESS;
    f->sleep_control = port_address(PLATFORM_SLEEP_CONTROL);
    f->sleep_status = port_address(PLATFORM_SLEEP_STATUS);
    f->header.checksum = table_checksum(f, sizeof *f);
}

static void fill_madt(struct madt *m, unsigned nr_vcpus)
{
    size_t len = offsetof(struct madt, lapic) + nr_vcpus * sizeof m->lapic[0];

    fill_header(&m->header, "APIC", 3, len);
    m->lapic_address = LOCAL_APIC_BASE;
    m->ioapic = (struct madt_ioapic){
        .type = 1, .length = sizeof m->ioapic, .address = (uint32_t)VIOAPIC_BASE};
    for (unsigned i = 0; i < nr_vcpus; i++) {
        m->lapic[i] = (struct madt_lapic){
            .length = sizeof m->lapic[0], .uid = (uint8_t)i, .apic_id = (uint8_t)i, .flags = 1};
    }
    m->header.checksum = table_checksum(m, len);
}

/*
 * All the firmware that there is: code at the reset vector which resets the VM through the reset port.
 * Linux on hardware-reduced ACPI without EFI reboots by a jump there.
 */
static enum hv_err write_reset_vector(struct vm *vm)
{
    static const uint8_t code[] = {
        0xba,
        PLATFORM_RESET_PORT & 0xff,
        PLATFORM_RESET_PORT >> 8, /* mov dx, port */
        0xb0,
        PLATFORM_RESET_VALUE, /* mov al, value */
        0xee,                 /* out dx, al */
        0xf4,
        0xeb,
        0xfd, /* hlt; jmp to it */
    };

    return guestmem_write(vm, GPA(RESET_VECTOR), code, sizeof code);
}

enum hv_err acpi_tables_write(struct vm *vm, gpa_t *rsdp)
{
    struct tables t;
    enum hv_err err;

    memset(&t, 0, sizeof t);
    fill_rsdp(&t.rsdp);
    fill_xsdt(&t.xsdt);
    fill_fadt(&t.fadt);
    fill_madt(&t.madt, vm->nr_vcpus);
    err = guestmem_write(vm, GPA(GUEST_ACPI_BASE), &t, sizeof t);
    if (!err) {
        err = guestmem_write(vm, GPA(DSDT_ADDRESS), &_binary_dsdt_aml_start,
                             _binary_dsdt_aml_start.length);
    }
    if (!err) {
        err = smbios_write(vm);
    }
    if (!err) {
        err = write_reset_vector(vm);
    }
    *rsdp = GPA(GUEST_ACPI_BASE);
    return err;
}

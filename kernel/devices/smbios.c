/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SMBIOS 2.8: BIOS, system, enclosure, end. With identity = vmware the system calls itself what
 * VMware's virtual hardware does, including a serial number that begins with "VMware-", which is what
 * guests look for when the CPUID signature is hidden; else it is a Ballast machine. Manual: DMTF
 * DSP0134, "Structure definitions".
 */
#include "kernel/devices/smbios.h"

#include "kernel/devices/checksum.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/random.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"

#define ENTRY_ADDRESS 0xf0000ull
#define TABLE_ADDRESS 0xf0040ull

struct entry_point {
    char anchor[4];
    uint8_t checksum, length, major, minor;
    uint16_t max_structure;
    uint8_t revision, formatted[5];
    char intermediate_anchor[5];
    uint8_t intermediate_checksum;
    uint16_t table_length;
    uint32_t table_address;
    uint16_t nr_structures;
    uint8_t bcd_revision;
} __packed;
_Static_assert(sizeof(struct entry_point) == 0x1f, "SMBIOS entry point");

struct header {
    uint8_t type, length;
    uint16_t handle;
} __packed;

struct bios {
    struct header h;
    uint8_t vendor, version;
    uint16_t segment;
    uint8_t date, rom_size;
    uint64_t characteristics;
    uint8_t extension[2], major, minor, ec_major, ec_minor;
} __packed;
_Static_assert(sizeof(struct bios) == 0x18, "SMBIOS type 0");

struct system {
    struct header h;
    uint8_t manufacturer, product, version, serial;
    uint8_t uuid[16];
    uint8_t wake_up, sku, family;
} __packed;
_Static_assert(sizeof(struct system) == 0x1b, "SMBIOS type 1");

struct enclosure {
    struct header h;
    uint8_t manufacturer, type, version, serial, asset;
    uint8_t boot_state, power_state, thermal_state, security;
} __packed;
_Static_assert(sizeof(struct enclosure) == 0x0d, "SMBIOS type 3");

/* The table under construction. */
struct builder {
    uint8_t data[512];
    size_t len, max_structure, start;
    uint16_t count;
};

static void put(struct builder *b, const void *data, size_t n)
{
    if (b->len + n <= sizeof b->data) {
        memcpy(b->data + b->len, data, n);
        b->len += n;
    }
}

/* One structure: its formatted part, then its strings, each NUL-terminated, and one NUL more. */
static void add(struct builder *b, struct header *h, uint8_t type, size_t len,
                const char *const *strings, unsigned nr_strings)
{
    size_t start = b->len;

    *h = (struct header){.type = type, .length = (uint8_t)len, .handle = b->count};
    put(b, h, len);
    for (unsigned i = 0; i < nr_strings; i++) {
        put(b, strings[i], strlen(strings[i]) + 1);
    }
    put(b, "\0", nr_strings ? 1 : 2);
    b->count++;
    b->max_structure = MAX(b->max_structure, b->len - start);
}

static void add_bios(struct builder *b, bool vmware)
{
    struct bios s = {.vendor = 1, .version = 2, .segment = 0xf000, .date = 3};
    const char *strings[] = {vmware ? "Phoenix Technologies LTD" : "Ballast", "6.00", "01/01/2026"};

    s.characteristics = BIT(3); /* "characteristics are not supported" */
    s.extension[1] = 0x10;      /* a virtual machine */
    s.major = s.minor = s.ec_major = s.ec_minor = 0xff;
    add(b, &s.h, 0, sizeof s, strings, ARRAY_SIZE(strings));
}

/* A random number ("Algorithms for Creating a UUID from Truly Random or Pseudo-Random Numbers", RFC
 * 4122) that host seed and name decide: the same VM has the same one again. It begins with "VM", as
 * VMware's do. The first three fields are little-endian here (DSP0134, "System - UUID"). */
static void make_uuid(const struct vm *vm, uint8_t uuid[16])
{
    struct rng rng;

    random_stream(&rng, "uuid", vm->config.name);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t bits = rng_next(&rng);

        memcpy(uuid + 8 * i, &bits, sizeof bits);
    }
    uuid[0] = 'V';
    uuid[1] = 'M';
    uuid[7] = (uint8_t)((uuid[7] & 0x0f) | 0x40); /* version 4: random */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void format_serial(bool vmware, const uint8_t uuid[16], char *out, size_t size)
{
    size_t n = scnprintf(out, size, "%s", vmware ? "VMware-" : "BALLAST-");

    for (unsigned i = 0; i < 16; i++) {
        n += scnprintf(out + n, size - n, "%02x%s", uuid[i], i == 7 ? "-" : i == 15 ? "" : " ");
    }
}

static void add_system(struct builder *b, const struct vm *vm, bool vmware)
{
    struct system s = {.manufacturer = 1, .product = 2, .version = 3, .serial = 4, .wake_up = 6};
    char serial[64];

    make_uuid(vm, s.uuid);
    format_serial(vmware, s.uuid, serial, sizeof serial);
    const char *strings[] = {vmware ? "VMware, Inc." : "Ballast",
                             vmware ? "VMware Virtual Platform" : "Ballast Virtual Machine",
                             vmware ? "None" : "1", serial};
    add(b, &s.h, 1, sizeof s, strings, ARRAY_SIZE(strings));
}

static void add_enclosure(struct builder *b, bool vmware)
{
    struct enclosure s = {.manufacturer = 1,
                          .type = 1,
                          .boot_state = 3,
                          .power_state = 3,
                          .thermal_state = 3,
                          .security = 2};
    const char *strings[] = {vmware ? "No Enclosure" : "Ballast"};

    add(b, &s.h, 3, sizeof s, strings, ARRAY_SIZE(strings));
}

static void fill_entry(struct entry_point *e, const struct builder *b)
{
    memcpy(e->anchor, "_SM_", sizeof e->anchor);
    e->length = sizeof *e;
    e->major = 2;
    e->minor = 8;
    e->max_structure = (uint16_t)b->max_structure;
    memcpy(e->intermediate_anchor, "_DMI_", sizeof e->intermediate_anchor);
    e->table_length = (uint16_t)b->len;
    e->table_address = (uint32_t)TABLE_ADDRESS;
    e->nr_structures = b->count;
    e->bcd_revision = 0x28;
    e->intermediate_checksum = table_checksum(e->intermediate_anchor, 15);
    e->checksum = table_checksum(e, sizeof *e);
}

enum hv_err smbios_write(struct vm *vm)
{
    bool vmware = vm->config.identity == IDENTITY_VMWARE;
    struct builder b = {.len = 0};
    struct entry_point e = {.major = 0};
    struct header end;

    add_bios(&b, vmware);
    add_system(&b, vm, vmware);
    add_enclosure(&b, vmware);
    add(&b, &end, 127, sizeof end, NULL, 0);
    fill_entry(&e, &b);
    enum hv_err err = guestmem_write(vm, GPA(ENTRY_ADDRESS), &e, sizeof e);
    return err ? err : guestmem_write(vm, GPA(TABLE_ADDRESS), b.data, b.len);
}

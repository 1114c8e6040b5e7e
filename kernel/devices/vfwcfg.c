/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Selecting an item composes it from the VM's configuration into a buffer; reads take its bytes in
 * turn, and zeros behind its end. One lock (RANK_DEVICE), only tried on the fast path.
 */
#include "kernel/devices/vfwcfg.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/lib/string.h"
#include "kernel/vm/loader.h"
#include "mm/slab.h"

#define PORT_SELECT 0x510
#define PORT_DATA 0x511
#define INTERFACE_TRADITIONAL 1u
#define MAX_RANGES 8u

enum item {
    ITEM_SIGNATURE = 0x00,
    ITEM_ID = 0x01,
    ITEM_RAM_SIZE = 0x03,
    ITEM_NR_CPUS = 0x05,
    ITEM_MAX_CPUS = 0x0f,
    ITEM_CMDLINE_SIZE = 0x14,
    ITEM_CMDLINE = 0x15,
    ITEM_DIRECTORY = 0x19,
    ITEM_FIRST_FILE = 0x20,
    ITEM_E820 = ITEM_FIRST_FILE
};

/* Big-endian. */
struct directory {
    uint32_t nr;
    struct {
        uint32_t size;
        uint16_t select, reserved;
        char name[56];
    } file[1];
};
_Static_assert(sizeof(struct directory) == 4 + 64, "fw_cfg directory");

struct e820_entry {
    uint64_t base, size;
    uint32_t type;
} __packed;

struct vfwcfg {
    struct spinlock lock; /* all but vm */
    struct vm *vm;
    uint32_t size, at; /* of the selected item; the next byte */
    uint8_t bytes[CONFIG_CMDLINE_MAX];
};
_Static_assert(sizeof(struct e820_entry) * MAX_RANGES <= CONFIG_CMDLINE_MAX, "fits");

static void put(struct vfwcfg *f, const void *data, size_t len)
{
    memcpy(f->bytes, data, len);
    f->size = (uint32_t)len;
}

/* Little-endian. */
static void put_number(struct vfwcfg *f, uint64_t value, size_t len)
{
    put(f, &value, len);
}

static void put_e820(struct vfwcfg *f)
{
    struct loader_range map[MAX_RANGES];
    struct e820_entry entry[MAX_RANGES];
    unsigned n = loader_memory_map(f->vm->config.memory_bytes, map, MAX_RANGES);

    for (unsigned i = 0; i < n; i++) {
        entry[i] = (struct e820_entry){map[i].base, map[i].size, map[i].type};
    }
    put(f, entry, n * sizeof(entry[0]));
}

static void put_directory(struct vfwcfg *f)
{
    struct directory d = {.nr = __builtin_bswap32(1)};

    put_e820(f);
    d.file[0].size = __builtin_bswap32(f->size);
    d.file[0].select = __builtin_bswap16(ITEM_E820);
    str_copy(d.file[0].name, sizeof d.file[0].name, "etc/e820");
    put(f, &d, sizeof d);
}

static void select_item(struct vfwcfg *f, uint16_t item)
{
    const struct vm_config *c = &f->vm->config;

    f->at = 0;
    f->size = 0;
    switch ((enum item)item) {
    case ITEM_SIGNATURE:
        put(f, "QEMU", 4);
        break;
    case ITEM_ID:
        put_number(f, INTERFACE_TRADITIONAL, 4);
        break;
    case ITEM_RAM_SIZE:
        put_number(f, c->memory_bytes, 8);
        break;
    case ITEM_NR_CPUS:
    case ITEM_MAX_CPUS:
        put_number(f, f->vm->nr_vcpus, 2);
        break;
    case ITEM_CMDLINE_SIZE:
        put_number(f, strlen(c->cmdline) + 1, 4);
        break;
    case ITEM_CMDLINE:
        put(f, c->cmdline, strlen(c->cmdline) + 1);
        break;
    case ITEM_DIRECTORY:
        put_directory(f);
        break;
    case ITEM_E820:
        put_e820(f);
        break;
    default: /* empty */
        break;
    }
}

static enum hv_err access_select(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                 bool write, uint64_t *value)
{
    struct vfwcfg *f = dev;

    (void)offset;
    if (!write) {
        *value = 0;
        return HV_OK;
    }
    if (!device_lock(&f->lock, v)) {
        return HV_EAGAIN;
    }
    if (size == 2) {
        select_item(f, (uint16_t)*value);
    }
    spin_unlock(&f->lock);
    return HV_OK;
}

static enum hv_err access_data(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vfwcfg *f = dev;

    (void)offset;
    (void)size;
    if (write) {
        return HV_OK;
    }
    if (!device_lock(&f->lock, v)) {
        return HV_EAGAIN;
    }
    *value = f->at < f->size ? f->bytes[f->at++] : 0;
    spin_unlock(&f->lock);
    return HV_OK;
}

void vfwcfg_reset(struct vfwcfg *f)
{
    spin_lock(&f->lock);
    select_item(f, ITEM_SIGNATURE);
    spin_unlock(&f->lock);
}

enum hv_err vfwcfg_create(struct vm *vm, struct vfwcfg **out)
{
    struct vfwcfg *f = kmalloc(sizeof *f, vm->id);

    if (!f) {
        return HV_ENOMEM;
    }
    f->vm = vm;
    spin_init(&f->lock, RANK_DEVICE, "vfwcfg");
    *out = f;
    vfwcfg_reset(f);
    enum hv_err err = bus_add_ports(vm->bus, PORT_SELECT, 1, "fw_cfg", access_select, f);
    if (err) {
        return err;
    }
    return bus_add_byte_ports(vm->bus, PORT_DATA, 1, "fw_cfg-data", access_data, f);
}

void vfwcfg_destroy(struct vfwcfg *f)
{
    kfree(f);
}

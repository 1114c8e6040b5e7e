/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Port look-up is two array reads: the port's high byte finds a leaf of 256 bytes, its low byte the
 * number of the range (0: nobody). Leaves exist only where ports are claimed; all others share one
 * of zeros. MMIO ranges are few and are searched in order. Callers: the exit handlers for ports and
 * memory, the emulator.
 */
#include "kernel/devices/bus.h"

#include "arch/x86_64/clock.h"
#include "kernel/lib/ratelimit.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define MAX_PORT_RANGES 48
#define MAX_MMIO_RANGES 8
#define LOG_BURST 8
#define LOG_INTERVAL_NS 5000000000ull

struct port_range {
    bus_access_t fn;
    void *dev;
    const char *name;
    uint16_t first;
    uint8_t max_size; /* widest access that fn takes */
};

struct mmio_range {
    uint64_t base, size;
    bus_access_t fn;
    void *dev;
    const char *name;
};

struct bus {
    struct vm *vm;
    unsigned nr_ports, nr_mmio; /* constant once the VM runs, as all up to `unclaimed_*` */
    uint8_t *leaf[256];
    struct port_range ports[MAX_PORT_RANGES]; /* [0] is nobody's and takes none */
    struct mmio_range mmio[MAX_MMIO_RANGES];
    uint64_t unclaimed_ports, unclaimed_mmio; /* atomic */
    struct ratelimit limit;                   /* for lines about either, in ns */
};

static uint8_t empty_leaf[256]; /* never written */

enum hv_err bus_create(struct vm *vm, struct bus **out)
{
    struct bus *b = kmalloc(sizeof *b, vm->id);

    if (!b) {
        return HV_ENOMEM;
    }
    b->vm = vm;
    b->nr_ports = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(b->leaf); i++) {
        b->leaf[i] = empty_leaf;
    }
    ratelimit_init(&b->limit, LOG_BURST, LOG_INTERVAL_NS);
    *out = b;
    return HV_OK;
}

void bus_destroy(struct bus *b)
{
    if (!b) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(b->leaf); i++) {
        if (b->leaf[i] != empty_leaf) {
            kfree(b->leaf[i]);
        }
    }
    kfree(b);
}

static enum hv_err ensure_leaf(struct bus *b, unsigned high)
{
    if (b->leaf[high] == empty_leaf) {
        uint8_t *leaf = kmalloc(256, b->vm->id);

        if (!leaf) {
            return HV_ENOMEM;
        }
        b->leaf[high] = leaf;
    }
    return HV_OK;
}

static enum hv_err add_ports(struct bus *b, uint16_t first, uint32_t nr,
                             const struct port_range *range)
{
    if (nr == 0 || first + nr > 0x10000 || b->nr_ports == MAX_PORT_RANGES) {
        return HV_ERANGE;
    }
    for (uint32_t p = first; p < first + nr; p++) {
        if (b->leaf[p >> 8][p & 0xff]) {
            return HV_EEXIST;
        }
        enum hv_err err = ensure_leaf(b, p >> 8);
        if (err) {
            return err;
        }
    }
    for (uint32_t p = first; p < first + nr; p++) {
        b->leaf[p >> 8][p & 0xff] = (uint8_t)b->nr_ports;
    }
    b->ports[b->nr_ports++] = *range;
    return HV_OK;
}

enum hv_err bus_add_ports(struct bus *b, uint16_t first, uint32_t nr, const char *name,
                          bus_access_t fn, void *dev)
{
    struct port_range range = {.fn = fn, .dev = dev, .name = name, .first = first, .max_size = 4};

    return add_ports(b, first, nr, &range);
}

enum hv_err bus_add_byte_ports(struct bus *b, uint16_t first, uint32_t nr, const char *name,
                               bus_access_t fn, void *dev)
{
    struct port_range range = {.fn = fn, .dev = dev, .name = name, .first = first, .max_size = 1};

    return add_ports(b, first, nr, &range);
}

enum hv_err bus_add_mmio(struct bus *b, gpa_t base, uint64_t size, const char *name,
                         bus_access_t fn, void *dev)
{
    if (size == 0 || base.a + size < base.a || b->nr_mmio == MAX_MMIO_RANGES) {
        return HV_ERANGE;
    }
    for (unsigned i = 0; i < b->nr_mmio; i++) {
        const struct mmio_range *r = &b->mmio[i];

        if (base.a < r->base + r->size && r->base < base.a + size) {
            return HV_EEXIST;
        }
    }
    b->mmio[b->nr_mmio++] = (struct mmio_range){base.a, size, fn, dev, name};
    return HV_OK;
}

static uint64_t all_ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : BIT(8 * size) - 1;
}

/*
 * Nobody there. A line for the log is not written on the fast path: the log takes locks and its
 * outputs are slow.
 */
static enum hv_err unclaimed(struct bus *b, struct vcpu *v, const char *what, uint64_t where,
                             unsigned size, bool write, uint64_t *value, uint64_t *counter)
{
    uint64_t now = clock_now_ns();

    if (!ratelimit_ready(&b->limit, now)) {
        ratelimit_suppress(&b->limit);
    } else if (vcpu_in_section(v)) {
        return HV_EAGAIN;
    } else {
        uint32_t suppressed = 0;

        if (ratelimit_take(&b->limit, now, &suppressed)) {
            log_info("vm %s: %s of %u bytes at unassigned %s 0x%llx (%u more not shown)",
                     b->vm->config.name, write ? "write" : "read", size, what,
                     (unsigned long long)where, suppressed);
        }
    }
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
    if (!write) {
        *value = all_ones(size);
    }
    return HV_OK;
}

/*
 * Nobody's port, or an access wider than the device knows. Out of line, so that bus_port saves no
 * registers.
 */
static __attribute__((noinline)) enum hv_err port_rare(struct bus *b, struct vcpu *v, uint64_t port,
                                                       unsigned size, bool write, uint64_t *value)
{
    uint64_t result = 0;

    if (b->leaf[port >> 8][port & 0xff] == 0) {
        return unclaimed(b, v, "port", port, size, write, value, &b->unclaimed_ports);
    }
    if (vcpu_in_section(v)) {
        return HV_EAGAIN; /* so that no byte can ask for a retry after another took effect */
    }
    for (unsigned i = 0; i < size; i++) {
        uint64_t byte = write ? (*value >> (8 * i)) & 0xff : 0;
        enum hv_err err = bus_port(b, v, (uint16_t)(port + i), 1, write, &byte);

        if (err) {
            return err;
        }
        result |= (byte & 0xff) << (8 * i);
    }
    if (!write) {
        *value = result;
    }
    return HV_OK;
}

enum hv_err bus_port(struct bus *b, struct vcpu *v, uint64_t port, unsigned size, bool write,
                     uint64_t *value)
{
    size_t index = b->leaf[port >> 8][port & 0xff];
    const struct port_range *r = &b->ports[index];

    if (unlikely(size > r->max_size)) {
        return port_rare(b, v, port, size, write, value);
    }
    return r->fn(r->dev, v, port - r->first, size, write, value);
}

enum hv_err bus_mmio(struct bus *b, struct vcpu *v, gpa_t gpa, unsigned size, bool write,
                     uint64_t *value)
{
    for (unsigned i = 0; i < b->nr_mmio; i++) {
        const struct mmio_range *r = &b->mmio[i];

        if (gpa.a - r->base < r->size) {
            return r->fn(r->dev, v, gpa.a - r->base, size, write, value);
        }
    }
    return unclaimed(b, v, "address", gpa.a, size, write, value, &b->unclaimed_mmio);
}

void bus_unclaimed(const struct bus *b, uint64_t *ports, uint64_t *mmio)
{
    *ports = __atomic_load_n(&b->unclaimed_ports, __ATOMIC_RELAXED);
    *mmio = __atomic_load_n(&b->unclaimed_mmio, __ATOMIC_RELAXED);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOAPIC without a lock, so that a line can be set from any context and no one waits: a
 * redirection entry is one atomic word, the lines' levels are one more.
 *
 * An edge line is delivered when it rises while its entry is unmasked; edges that come while masked
 * are lost, as on the chip. A level line is delivered when it is high, unmasked and its remote-IRR
 * bit is clear; who sets that bit (compare and exchange) sends the message, so it is sent once. The
 * bit is cleared by the EOI broadcast, which looks at the line again, and by a change to edge.
 */
#include "kernel/devices/vioapic.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define INDEX_ID 0x00
#define INDEX_VERSION 0x01
#define INDEX_ARBITRATION 0x02
#define INDEX_REDIRECTION 0x10

#define VERSION_VALUE (0x11u | ((VIOAPIC_LINES - 1u) << 16))

#define ENTRY_VECTOR(e) ((unsigned)(e)&0xffu)
#define ENTRY_DELIVERY(e) ((unsigned)((e) >> 8) & 7u)
#define ENTRY_LOGICAL BIT(11)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_DEST(e) ((uint32_t)((e) >> 56))
#define ENTRY_LOW_WRITABLE 0x0001afffull
#define ENTRY_HIGH_WRITABLE 0xff00000000000000ull

struct vioapic {
    struct vm *vm;
    uint64_t entry[VIOAPIC_LINES]; /* atomic */
    uint32_t lines;                /* atomic: bit set while the line is asserted */
    uint32_t select;               /* atomic: index register */
    uint32_t id;                   /* atomic: bits 27:24 as written */
};

static void send(struct vioapic *io, uint64_t e)
{
    unsigned delivery = ENTRY_DELIVERY(e);

    if (delivery == 6) {
        return; /* reserved in a redirection entry (start-up messages come from an ICR only) */
    }
    vlapic_message(io->vm, vlapic_wide_dest(ENTRY_DEST(e)), (e & ENTRY_LOGICAL) != 0, delivery,
                   ENTRY_VECTOR(e), (e & ENTRY_LEVEL) != 0);
}

static bool line_high(const struct vioapic *io, unsigned line)
{
    return (__atomic_load_n(&io->lines, __ATOMIC_SEQ_CST) & BIT(line)) != 0;
}

/* Deliver a level line if it is due. */
static void service_level(struct vioapic *io, unsigned line)
{
    uint64_t e = __atomic_load_n(&io->entry[line], __ATOMIC_SEQ_CST);

    do {
        if (!(e & ENTRY_LEVEL) || (e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) || !line_high(io, line)) {
            return;
        }
    } while (!__atomic_compare_exchange_n(&io->entry[line], &e, e | ENTRY_REMOTE_IRR, false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    send(io, e);
}

void vioapic_set_line(struct vm *vm, unsigned gsi, bool level)
{
    struct vioapic *io = vm->ioapic;
    uint32_t bit = (uint32_t)BIT(gsi % 32);

    if (gsi >= VIOAPIC_LINES) {
        return;
    }
    if (!level) {
        __atomic_fetch_and(&io->lines, ~bit, __ATOMIC_SEQ_CST);
        return;
    }
    if (__atomic_fetch_or(&io->lines, bit, __ATOMIC_SEQ_CST) & bit) {
        return; /* no change: an edge that was, or a level that is being served */
    }
    uint64_t e = __atomic_load_n(&io->entry[gsi], __ATOMIC_SEQ_CST);
    if (e & ENTRY_LEVEL) {
        service_level(io, gsi);
    } else if (!(e & ENTRY_MASKED)) {
        send(io, e);
    }
}

void vioapic_eoi(struct vm *vm, unsigned vector)
{
    struct vioapic *io = vm->ioapic;

    for (unsigned i = 0; i < VIOAPIC_LINES; i++) {
        uint64_t e = __atomic_load_n(&io->entry[i], __ATOMIC_SEQ_CST);

        if ((e & ENTRY_REMOTE_IRR) && ENTRY_VECTOR(e) == vector) {
            __atomic_fetch_and(&io->entry[i], ~ENTRY_REMOTE_IRR, __ATOMIC_SEQ_CST);
            service_level(io, i);
        }
    }
}

static void write_entry(struct vioapic *io, unsigned line, bool high, uint32_t value)
{
    uint64_t old = __atomic_load_n(&io->entry[line], __ATOMIC_SEQ_CST), e;

    do {
        if (high) {
            e = (old & ~ENTRY_HIGH_WRITABLE) | (((uint64_t)value << 32) & ENTRY_HIGH_WRITABLE);
        } else {
            e = (old & ~ENTRY_LOW_WRITABLE) | (value & ENTRY_LOW_WRITABLE);
            if (!(e & ENTRY_LEVEL)) {
                e &= ~ENTRY_REMOTE_IRR;
            }
        }
    } while (!__atomic_compare_exchange_n(&io->entry[line], &old, e, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    service_level(io, line);
}

static uint32_t window_read(struct vioapic *io, uint32_t index)
{
    uint32_t n = index - INDEX_REDIRECTION;

    switch (index) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return __atomic_load_n(&io->id, __ATOMIC_RELAXED);
    case INDEX_VERSION:
        return VERSION_VALUE;
    default:
        if (n >= 2 * VIOAPIC_LINES) {
            return UINT32_MAX;
        }
        return (uint32_t)(__atomic_load_n(&io->entry[n / 2], __ATOMIC_SEQ_CST) >> (32 * (n % 2)));
    }
}

static void window_write(struct vioapic *io, uint32_t index, uint32_t value)
{
    uint32_t n = index - INDEX_REDIRECTION;

    if (index == INDEX_ID) {
        __atomic_store_n(&io->id, value & 0x0f000000u, __ATOMIC_RELAXED);
    } else if (n < 2 * VIOAPIC_LINES) {
        write_entry(io, n / 2, n % 2, value);
    }
}

static enum hv_err access_mmio(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vioapic *io = dev;
    uint32_t reg = (uint32_t)offset & 0xff;

    (void)v;
    (void)size; /* registers are 32 bits wide; narrower accesses see their low bytes */
    if (write) {
        if (reg == REG_SELECT) {
            __atomic_store_n(&io->select, (uint32_t)*value & 0xff, __ATOMIC_RELAXED);
        } else if (reg == REG_WINDOW) {
            window_write(io, __atomic_load_n(&io->select, __ATOMIC_RELAXED), (uint32_t)*value);
        }
        return HV_OK;
    }
    if (reg == REG_SELECT) {
        *value = __atomic_load_n(&io->select, __ATOMIC_RELAXED);
    } else if (reg == REG_WINDOW) {
        *value = window_read(io, __atomic_load_n(&io->select, __ATOMIC_RELAXED));
    } else {
        *value = 0;
    }
    return HV_OK;
}

void vioapic_reset(struct vm *vm)
{
    struct vioapic *io = vm->ioapic;

    for (unsigned i = 0; i < VIOAPIC_LINES; i++) {
        __atomic_store_n(&io->entry[i], ENTRY_MASKED, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&io->lines, 0, __ATOMIC_SEQ_CST);
    io->select = 0;
    io->id = 0;
}

enum hv_err vioapic_create(struct vm *vm)
{
    struct vioapic *io = kmalloc(sizeof *io, vm->id);

    if (!io) {
        return HV_ENOMEM;
    }
    io->vm = vm;
    vm->ioapic = io;
    vioapic_reset(vm);
    return bus_add_mmio(vm->bus, GPA(VIOAPIC_BASE), PAGE_SIZE, "ioapic", access_mmio, io);
}

void vioapic_destroy(struct vm *vm)
{
    kfree(vm->ioapic);
    vm->ioapic = NULL;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two chips, the second one's output being input 2 of the first. A chip answers with its highest
 * request that is not masked and of higher priority than what is in service. Edge inputs latch a
 * request when they rise; level inputs request while they are high. The cascade is computed, never
 * latched, so no second request of the slave's can be missed.
 *
 * One lock (RANK_IRQCHIP, interrupts off), held for some tens of instructions and around nothing that
 * waits, so that it is taken in any context, the fast path included. vm->intr mirrors the output for those
 * who only look. An acknowledgement without a request is not answered by the spurious vector: the
 * caller's look and the chip's answer are one step here.
 */
#include "kernel/devices/vpic.h"

#include "arch/x86_64/irqflags.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define CASCADE 2u
#define SPURIOUS 7u
#define PORT_DATA 1

#define ICW1_BEGIN 0x10u
#define ICW1_SINGLE 0x02u
#define ICW1_NEED_ICW4 0x01u
#define ICW4_AUTO_EOI 0x02u
#define ICW4_NESTED 0x10u
#define OCW3_SELECT 0x08u
#define OCW3_POLL 0x04u
#define OCW3_READ 0x02u
#define OCW3_READ_ISR 0x01u
#define OCW3_SET_SPECIAL 0x40u
#define OCW3_SPECIAL 0x20u

/* OCW2 bits 7:5. */
enum ocw2 {
    OCW2_ROTATE_AUTO_OFF = 0,
    OCW2_EOI = 1,
    OCW2_SPECIFIC_EOI = 3,
    OCW2_ROTATE_AUTO_ON = 4,
    OCW2_ROTATE_EOI = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_ROTATE_SPECIFIC = 7
};

enum init_step { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct chip {
    struct vpic *pic;
    uint8_t imr;        /* also read without the lock */
    uint8_t irr, isr;   /* latched edges; in service */
    uint8_t lines;      /* levels of the inputs */
    uint8_t elcr;       /* level-triggered inputs */
    uint8_t elcr_valid; /* inputs that may be level-triggered */
    uint8_t vector;
    uint8_t top; /* input of highest priority */
    enum init_step step;
    bool single, need_icw4;
    bool auto_eoi, rotate_auto, special_mask, nested, read_isr, poll;
};

struct vpic {
    struct spinlock lock; /* everything */
    struct vm *vm;
    struct chip chip[2]; /* master, slave */
};

/* Position of the highest-priority bit of `set`, counted from the top: 8 if there is none. */
static unsigned rank_of(const struct chip *c, unsigned set)
{
    unsigned turned = ((set >> c->top) | (set << (8 - c->top))) & 0xff;

    return turned ? (unsigned)__builtin_ctz(turned) : 8;
}

static int chip_request(const struct chip *c);

static unsigned requests(const struct chip *c)
{
    unsigned set = c->irr | (c->lines & c->elcr);

    if (c == &c->pic->chip[0] && chip_request(&c->pic->chip[1]) >= 0) {
        set |= 1u << CASCADE;
    }
    return set;
}

/* The input that the chip would announce now, or -1. */
static int chip_request(const struct chip *c)
{
    unsigned in_service = c->isr;
    unsigned rank = rank_of(c, requests(c) & ~c->imr & 0xffu);

    if (c->special_mask) {
        in_service &= ~(unsigned)c->imr;
    }
    if (c->nested && c == &c->pic->chip[0]) {
        in_service &= ~(1u << CASCADE);
    }
    return rank < rank_of(c, in_service) ? (int)((rank + c->top) & 7) : -1;
}

/* After any change, lock held: true if the output rose. */
static bool output_rose(struct vpic *p)
{
    bool now = chip_request(&p->chip[0]) >= 0;
    bool was = __atomic_exchange_n(&p->vm->intr, now, __ATOMIC_SEQ_CST) != 0;

    return now && !was;
}

static void unlock_and_tell(struct vpic *p, uint64_t flags)
{
    bool rose = output_rose(p);

    spin_unlock_irqrestore(&p->lock, flags);
    if (rose) {
        vlapic_lint0_rose(p->vm);
    }
}

void vpic_set_line(struct vm *vm, unsigned irq, bool level)
{
    struct vpic *p = vm->pic;
    struct chip *c = &p->chip[(irq >> 3) & 1];
    uint8_t bit = (uint8_t)(1u << (irq & 7));

    if (irq == CASCADE) {
        return;
    }
    uint64_t flags = spin_lock_irqsave(&p->lock);
    if (level && !(c->lines & bit) && !(c->elcr & bit)) {
        c->irr |= bit;
    }
    c->lines = (uint8_t)(level ? c->lines | bit : c->lines & ~bit);
    unlock_and_tell(p, flags);
}

static void end_service(struct chip *c, unsigned irq, bool rotate)
{
    c->isr = (uint8_t)(c->isr & ~(1u << irq));
    if (rotate) {
        c->top = (uint8_t)((irq + 1) & 7);
    }
}

/* INTA: the request goes into service. */
static void take(struct chip *c, unsigned irq)
{
    uint8_t bit = (uint8_t)(1u << irq);

    c->irr = (uint8_t)(c->irr & ~bit);
    c->isr |= bit;
    if (c->auto_eoi) {
        end_service(c, irq, c->rotate_auto);
    }
}

/* The cascade's request goes with the slave's, which must be asked first. */
static int acknowledge(struct vpic *p)
{
    struct chip *master = &p->chip[0], *slave = &p->chip[1];
    int irq = chip_request(master);

    if (irq < 0) {
        return -1;
    }
    if (irq != (int)CASCADE) {
        take(master, (unsigned)irq);
        return master->vector | irq;
    }
    int second = chip_request(slave);
    take(master, CASCADE);
    if (second < 0) {
        return slave->vector | (int)SPURIOUS;
    }
    take(slave, (unsigned)second);
    return slave->vector | second;
}

int vpic_acknowledge(struct vm *vm)
{
    struct vpic *p = vm->pic;
    uint64_t flags = spin_lock_irqsave(&p->lock);
    int vector = acknowledge(p);

    unlock_and_tell(p, flags);
    return vector;
}

/* ---- Registers ---- */

static void begin_init(struct chip *c, uint8_t icw1)
{
    c->step = INIT_ICW2;
    c->single = icw1 & ICW1_SINGLE;
    c->need_icw4 = icw1 & ICW1_NEED_ICW4;
    c->irr = 0;
    c->isr = 0;
    c->imr = 0;
    c->top = 0;
    c->auto_eoi = c->rotate_auto = c->special_mask = c->nested = c->read_isr = c->poll = false;
}

static void write_ocw2(struct chip *c, uint8_t value)
{
    unsigned irq = value & 7, rank;

    switch ((enum ocw2)(value >> 5)) {
    case OCW2_ROTATE_AUTO_OFF:
        c->rotate_auto = false;
        break;
    case OCW2_ROTATE_AUTO_ON:
        c->rotate_auto = true;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        rank = rank_of(c, c->special_mask ? c->isr & ~(unsigned)c->imr : c->isr);
        if (rank < 8) {
            end_service(c, (rank + c->top) & 7, value >> 5 == OCW2_ROTATE_EOI);
        }
        break;
    case OCW2_SPECIFIC_EOI:
    case OCW2_ROTATE_SPECIFIC:
        end_service(c, irq, value >> 5 == OCW2_ROTATE_SPECIFIC);
        break;
    case OCW2_SET_PRIORITY:
        c->top = (uint8_t)((irq + 1) & 7);
        break;
    default: /* no operation */
        break;
    }
}

static void write_command(struct chip *c, uint8_t value)
{
    if (value & ICW1_BEGIN) {
        begin_init(c, value);
    } else if (value & OCW3_SELECT) {
        c->poll = value & OCW3_POLL;
        if (value & OCW3_READ) {
            c->read_isr = value & OCW3_READ_ISR;
        }
        if (value & OCW3_SET_SPECIAL) {
            c->special_mask = value & OCW3_SPECIAL;
        }
    } else {
        write_ocw2(c, value);
    }
}

static void write_data(struct chip *c, uint8_t value)
{
    switch (c->step) {
    case INIT_DONE:
        __atomic_store_n(&c->imr, value, __ATOMIC_RELAXED);
        break;
    case INIT_ICW2:
        c->vector = value & 0xf8;
        c->step = !c->single ? INIT_ICW3 : c->need_icw4 ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW3: /* the wiring is as it is */
        c->step = c->need_icw4 ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW4:
        c->auto_eoi = value & ICW4_AUTO_EOI;
        c->nested = value & ICW4_NESTED;
        c->step = INIT_DONE;
        break;
    }
}

/* A read behind a poll command is an acknowledgement. */
static uint8_t read_polled(struct chip *c)
{
    int irq = chip_request(c);

    c->poll = false;
    if (irq < 0) {
        return 0;
    }
    take(c, (unsigned)irq);
    return (uint8_t)(0x80 | irq);
}

static enum hv_err access_chip(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct chip *c = dev;

    if (!write && offset == PORT_DATA) {
        *value = __atomic_load_n(&c->imr, __ATOMIC_RELAXED);
        return HV_OK;
    }
    (void)v;
    (void)size;
    struct vpic *p = c->pic;
    uint64_t flags = spin_lock_irqsave(&p->lock);
    if (!write) {
        *value = c->poll ? read_polled(c) : c->read_isr ? c->isr : requests(c);
    } else if (offset == PORT_DATA) {
        write_data(c, (uint8_t)*value);
    } else {
        write_command(c, (uint8_t)*value);
    }
    unlock_and_tell(p, flags);
    return HV_OK;
}

static enum hv_err access_elcr(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vpic *p = dev;
    struct chip *c = &p->chip[offset];

    (void)v;
    (void)size;
    uint64_t flags = spin_lock_irqsave(&p->lock);
    if (write) {
        c->elcr = (uint8_t)*value & c->elcr_valid;
    } else {
        *value = c->elcr;
    }
    unlock_and_tell(p, flags);
    return HV_OK;
}

/* ---- Life cycle ---- */

void vpic_reset(struct vm *vm)
{
    struct vpic *p = vm->pic;
    uint64_t flags = spin_lock_irqsave(&p->lock);

    for (unsigned i = 0; i < ARRAY_SIZE(p->chip); i++) {
        /* Timer, keyboard, cascade, clock and coprocessor are edge-triggered for ever. */
        p->chip[i] = (struct chip){.pic = p, .elcr_valid = i == 0 ? 0xf8 : 0xde};
    }
    unlock_and_tell(p, flags);
}

enum hv_err vpic_create(struct vm *vm)
{
    struct vpic *p = kmalloc(sizeof *p, vm->id);
    enum hv_err err;

    if (!p) {
        return HV_ENOMEM;
    }
    p->vm = vm;
    spin_init(&p->lock, RANK_IRQCHIP, "vpic");
    vm->pic = p;
    vpic_reset(vm);
    err = bus_add_byte_ports(vm->bus, 0x20, 2, "pic1", access_chip, &p->chip[0]);
    if (!err) {
        err = bus_add_byte_ports(vm->bus, 0xa0, 2, "pic2", access_chip, &p->chip[1]);
    }
    if (!err) {
        err = bus_add_byte_ports(vm->bus, 0x4d0, 2, "elcr", access_elcr, p);
    }
    return err;
}

void vpic_destroy(struct vm *vm)
{
    kfree(vm->pic);
    vm->pic = NULL;
}

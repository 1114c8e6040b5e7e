/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 16550A: register file, receive FIFO, interrupt sources by priority, loop-back.
 *
 * The interrupt line is a function of the state (update_line), recomputed after each change. The
 * transmitter is always empty: a byte written is gone at once, so "transmitter empty" becomes pending
 * with each write, and when its interrupt is enabled. Input waits in the console's queue and moves
 * into the FIFO as there is room: outside loop-back the FIFO is full or the queue is empty. One lock
 * (RANK_DEVICE) for everything, only tried on the guest fast path; the line is set under it (the
 * IOAPIC takes no lock).
 */
#include "kernel/devices/vuart.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/guestconsole.h"
#include "mm/slab.h"

#define COM1_PORT 0x3f8

enum reg { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RX 0x01u
#define IER_TX_EMPTY 0x02u
#define IER_LINE_STATUS 0x04u
#define IER_MODEM_STATUS 0x08u
#define IIR_NONE 0x01u
#define IIR_MODEM_STATUS 0x00u
#define IIR_TX_EMPTY 0x02u
#define IIR_RX 0x04u
#define IIR_LINE_STATUS 0x06u
#define IIR_RX_TIMEOUT 0x0cu
#define IIR_FIFO 0xc0u
#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u
#define LCR_DLAB 0x80u
#define MCR_LOOP 0x10u
#define MCR_OUT2 0x08u
#define LSR_DATA 0x01u
#define LSR_OVERRUN 0x02u
#define LSR_TX_EMPTY 0x60u  /* holding and shift register */
#define MSR_CONNECTED 0xb0u /* carrier, data set ready, clear to send */
#define FIFO_SIZE 16
#define FULL_POLL_NS 1000000ULL

struct vuart {
    struct spinlock lock;
    struct vm *vm;
    uint8_t ier, fcr, lcr, mcr, scratch;
    uint8_t msr_delta; /* changed modem lines since MSR was read */
    uint16_t divisor;
    bool overrun;
    bool tx_empty_pending;
    bool line;      /* interrupt output as last set */
    bool has_input; /* what is typed comes here; constant */
    uint8_t fifo[FIFO_SIZE];
    unsigned head, count; /* first byte, bytes */
};

static unsigned fifo_size(const struct vuart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct vuart *u)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

static void fifo_put(struct vuart *u, uint8_t byte)
{
    if (u->count >= fifo_size(u)) {
        u->overrun = true;
        return;
    }
    u->fifo[(u->head + u->count++) % FIFO_SIZE] = byte;
}

/* Fetch typed bytes while there is room. */
static void fill_fifo(struct vuart *u)
{
    struct guestconsole *c = u->vm->console;
    char byte;

    if ((u->mcr & MCR_LOOP) || !u->has_input) {
        return;
    }
    while (u->count < fifo_size(u) && guestconsole_input_pending(c) &&
           guestconsole_read(c, &byte, 1) == 1) {
        fifo_put(u, (uint8_t)byte);
    }
}

/* The source of highest priority among the enabled ones. */
static uint8_t interrupt_id(const struct vuart *u)
{
    if ((u->ier & IER_LINE_STATUS) && u->overrun) {
        return IIR_LINE_STATUS;
    }
    if ((u->ier & IER_RX) && u->count) {
        return u->count >= rx_trigger(u) ? IIR_RX : IIR_RX_TIMEOUT;
    }
    if ((u->ier & IER_TX_EMPTY) && u->tx_empty_pending) {
        return IIR_TX_EMPTY;
    }
    if ((u->ier & IER_MODEM_STATUS) && u->msr_delta) {
        return IIR_MODEM_STATUS;
    }
    return IIR_NONE;
}

/* OUT2 gates the interrupt on a PC, not in loop-back mode. */
static void update_line(struct vuart *u)
{
    bool line = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2 && interrupt_id(u) != IIR_NONE;

    if (line != u->line) {
        u->line = line;
        isa_irq_set(u->vm, ISA_IRQ_COM1, line);
    }
}

/* Modem lines, from outside or looped back from MCR: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD. */
static uint8_t modem_lines(const struct vuart *u)
{
    uint8_t m = u->mcr;

    if (!(m & MCR_LOOP)) {
        return MSR_CONNECTED;
    }
    return (uint8_t)((m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4);
}

static void write_data(struct vuart *u, uint8_t byte)
{
    if (u->mcr & MCR_LOOP) {
        fifo_put(u, byte);
    } else if (u->vm->console) {
        char c = (char)byte;

        guestconsole_output(u->vm->console, &c, 1);
    }
    u->tx_empty_pending = true;
}

static void write_mcr(struct vuart *u, uint8_t value)
{
    uint8_t before = modem_lines(u);

    u->mcr = value & 0x1f;
    uint8_t changed = (uint8_t)(before ^ modem_lines(u));
    /* The ring indicator counts only when it ends. */
    if (changed & 0x40 && !(before & 0x40)) {
        changed &= (uint8_t)~0x40;
    }
    u->msr_delta |= changed >> 4;
}

static void write_fcr(struct vuart *u, uint8_t value)
{
    if (((value ^ u->fcr) & FCR_ENABLE) || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX))) {
        u->count = 0;
        u->overrun = false;
    }
    u->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
}

static void reg_write(struct vuart *u, unsigned reg, uint8_t value)
{
    bool dlab = (u->lcr & LCR_DLAB) != 0;

    switch (reg) {
    case REG_DATA:
        if (dlab) {
            u->divisor = (uint16_t)((u->divisor & 0xff00) | value);
        } else {
            write_data(u, value);
        }
        break;
    case REG_IER:
        if (dlab) {
            u->divisor = (uint16_t)((u->divisor & 0x00ff) | (value << 8));
            break;
        }
        if ((value & IER_TX_EMPTY) && !(u->ier & IER_TX_EMPTY)) {
            u->tx_empty_pending = true;
        }
        u->ier = value & 0x0f;
        break;
    case REG_IIR_FCR:
        write_fcr(u, value);
        break;
    case REG_LCR:
        u->lcr = value;
        break;
    case REG_MCR:
        write_mcr(u, value);
        break;
    case REG_SCRATCH:
        u->scratch = value;
        break;
    default: /* LSR and MSR are for reading */
        break;
    }
}

static uint8_t read_data(struct vuart *u)
{
    if (!u->count) {
        return 0;
    }
    uint8_t byte = u->fifo[u->head];

    u->head = (u->head + 1) % FIFO_SIZE;
    u->count--;
    return byte;
}

/* Reading IIR acknowledges "transmitter empty" if that is what it shows. */
static uint8_t read_iir(struct vuart *u)
{
    uint8_t id = interrupt_id(u);

    if (id == IIR_TX_EMPTY) {
        u->tx_empty_pending = false;
    }
    return (uint8_t)(id | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0));
}

static uint8_t read_lsr(struct vuart *u)
{
    uint8_t lsr =
        (uint8_t)(LSR_TX_EMPTY | (u->count ? LSR_DATA : 0) | (u->overrun ? LSR_OVERRUN : 0));

    u->overrun = false;
    return lsr;
}

static uint8_t reg_read(struct vuart *u, unsigned reg)
{
    bool dlab = (u->lcr & LCR_DLAB) != 0;

    switch (reg) {
    case REG_DATA:
        return dlab ? (uint8_t)u->divisor : read_data(u);
    case REG_IER:
        return dlab ? (uint8_t)(u->divisor >> 8) : u->ier;
    case REG_IIR_FCR:
        return read_iir(u);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        return read_lsr(u);
    case REG_MSR: {
        uint8_t msr = (uint8_t)(modem_lines(u) | u->msr_delta);

        u->msr_delta = 0;
        return msr;
    }
    default:
        return u->scratch;
    }
}

/* Accesses after which the FIFO may take more input; new input comes by itself (input_ready). */
static bool makes_room(unsigned reg, bool write)
{
    return write ? reg == REG_IIR_FCR || reg == REG_MCR : reg == REG_DATA;
}

static enum hv_err access_port(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vuart *u = dev;

    (void)size; /* single bytes only */
    if (write && offset == REG_DATA && u->vm->console && guestconsole_is_full(u->vm->console)) {
        /* The guest comes again with the same byte. */
        if (!vcpu_in_section(v)) {
            thread_sleep_ns(FULL_POLL_NS);
        }
        return HV_EAGAIN;
    }
    if (!device_lock(&u->lock, v)) {
        return HV_EAGAIN;
    }
    if (write) {
        reg_write(u, (unsigned)offset, (uint8_t)*value);
    } else {
        *value = reg_read(u, (unsigned)offset);
    }
    if (makes_room((unsigned)offset, write)) {
        fill_fifo(u);
    }
    update_line(u);
    spin_unlock(&u->lock);
    return HV_OK;
}

/* The operator typed. Thread context. */
static void input_ready(void *arg)
{
    struct vuart *u = arg;

    spin_lock(&u->lock);
    fill_fifo(u);
    update_line(u);
    spin_unlock(&u->lock);
}

void vuart_print(struct vuart *u, const char *data, size_t n)
{
    spin_lock(&u->lock);
    guestconsole_output(u->vm->console, data, n);
    spin_unlock(&u->lock);
}

void vuart_reset(struct vuart *u)
{
    spin_lock(&u->lock);
    u->ier = u->fcr = u->lcr = u->mcr = u->scratch = u->msr_delta = 0;
    u->divisor = 12; /* 9600 baud, as firmware leaves it */
    u->overrun = u->tx_empty_pending = u->line = false;
    u->head = u->count = 0;
    fill_fifo(u);
    spin_unlock(&u->lock);
}

enum hv_err vuart_create(struct vm *vm, struct vuart **out)
{
    struct vuart *u = kmalloc(sizeof *u, vm->id);

    if (!u) {
        return HV_ENOMEM;
    }
    spin_init(&u->lock, RANK_DEVICE, "vuart");
    u->vm = vm;
    u->has_input = vm->console && vm->config.console == CONSOLE_SERIAL;
    *out = u;
    vuart_reset(u);
    if (u->has_input) {
        guestconsole_set_input_ready(vm->console, input_ready, u);
    }
    return bus_add_byte_ports(vm->bus, COM1_PORT, 8, "com1", access_port, u);
}

/* The console may outlive the device; nobody types to a VM that is being destroyed. */
void vuart_destroy(struct vuart *u)
{
    if (u && u->has_input) {
        guestconsole_set_input_ready(u->vm->console, NULL, NULL);
    }
    kfree(u);
}

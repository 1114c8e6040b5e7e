/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests want it for what hangs on it: the processor's reset line and, in their minds, gate A20; and many
 * kernels wait for its answers without an end. What is written is answered at once, so the input buffer
 * is never full; answers queue up in the controller, and are lost when a guest lets the queue run over.
 *
 * One lock (RANK_DEVICE), only tried on the fast path. The interrupt line is high while a byte waits and
 * the guest wants interrupts; between two bytes it falls.
 */
#include "kernel/devices/vkbd.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/isa_irq.h"
#include "mm/slab.h"

#define PORT_DATA 0x60
#define PORT_COMMAND 0x64
#define ISA_IRQ_KEYBOARD 1u
#define QUEUE 16u /* a power of two */

#define STATUS_OUTPUT 0x01u
#define STATUS_SYSTEM 0x04u
#define STATUS_COMMAND 0x08u
#define STATUS_UNLOCKED 0x10u

#define CONFIG_INTERRUPT 0x01u
#define CONFIG_SYSTEM 0x04u
#define CONFIG_DISABLED 0x10u /* the keyboard's clock */
#define CONFIG_TRANSLATE 0x40u

#define OUTPUT_RUN 0x01u /* low: the processor is reset */
#define OUTPUT_A20 0x02u

/* Commands to the controller. */
enum command {
    CMD_READ_RAM = 0x20, /* to 3f; the first byte is the configuration */
    CMD_WRITE_RAM = 0x60,
    CMD_TEST_SECOND = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_TEST_PORT = 0xab,
    CMD_DISABLE = 0xad,
    CMD_ENABLE = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_WRITE_BUFFER = 0xd2,
    CMD_WRITE_SECOND_BUFFER = 0xd3,
    CMD_WRITE_SECOND = 0xd4, /* no second device */
    CMD_PULSE = 0xf0         /* to ff: output lines whose bit is zero */
};
#define RAM_BYTES 32u
#define SELF_TEST_PASSED 0x55

/* Commands to the keyboard. */
enum keyboard {
    KBD_LEDS = 0xed,
    KBD_ECHO = 0xee,
    KBD_SCAN_SET = 0xf0,
    KBD_IDENTIFY = 0xf2,
    KBD_RATE = 0xf3,
    KBD_RESEND = 0xfe,
    KBD_RESET = 0xff
};
#define KBD_ACK 0xfa
#define KBD_PASSED 0xaa

struct vkbd {
    struct spinlock lock; /* all but vm */
    struct vm *vm;
    uint8_t ram[RAM_BYTES];
    uint8_t output;           /* output port as written */
    uint8_t command;          /* controller's, waiting for its byte; 0: none */
    uint8_t keyboard_command; /* likewise the keyboard's */
    uint8_t last;             /* byte that was read last */
    bool was_command;         /* the last write went to port 64 */
    uint8_t queue[QUEUE];
    unsigned head, tail; /* free-running */
};

static void update_line(struct vkbd *k)
{
    isa_irq_set(k->vm, ISA_IRQ_KEYBOARD, k->head != k->tail && (k->ram[0] & CONFIG_INTERRUPT));
}

static void answer(struct vkbd *k, uint8_t byte)
{
    if (k->tail - k->head < QUEUE) {
        k->queue[k->tail++ % QUEUE] = byte;
    }
    update_line(k);
}

static uint8_t take(struct vkbd *k)
{
    if (k->head != k->tail) {
        k->last = k->queue[k->head++ % QUEUE];
        isa_irq_set(k->vm, ISA_IRQ_KEYBOARD, false);
        update_line(k);
    }
    return k->last;
}

static void reset_line(struct vkbd *k)
{
    vm_stop_request(k->vm, STOP_RESET, 0, "reset through the keyboard controller");
}

static void write_command(struct vkbd *k, uint8_t value)
{
    k->command = 0;
    switch (value) {
    case CMD_READ_RAM ... CMD_READ_RAM + RAM_BYTES - 1:
        answer(k, k->ram[value % RAM_BYTES]);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_BYTES - 1:
    case CMD_WRITE_OUTPUT ... CMD_WRITE_SECOND:
        k->command = value;
        break;
    case CMD_SELF_TEST:
        k->ram[0] |= CONFIG_SYSTEM;
        answer(k, SELF_TEST_PASSED);
        break;
    case CMD_TEST_SECOND:
        answer(k, 1); /* its clock stays low: there is none */
        break;
    case CMD_TEST_PORT:
        answer(k, 0);
        break;
    case CMD_DISABLE:
        k->ram[0] |= CONFIG_DISABLED;
        break;
    case CMD_ENABLE:
        k->ram[0] &= (uint8_t)~CONFIG_DISABLED;
        break;
    case CMD_READ_INPUT:
        answer(k, 0x80); /* not locked */
        break;
    case CMD_READ_OUTPUT:
        answer(k, k->output);
        break;
    case CMD_PULSE ... 0xff:
        if (!(value & OUTPUT_RUN)) {
            reset_line(k);
        }
        break;
    default: /* of a second device, or nobody's */
        break;
    }
}

static void write_keyboard(struct vkbd *k, uint8_t value)
{
    uint8_t command = k->keyboard_command;

    k->keyboard_command = 0;
    if (command) { /* its argument */
        answer(k, KBD_ACK);
        if (command == KBD_SCAN_SET && value == 0) {
            answer(k, 2);
        }
        return;
    }
    switch (value) {
    case KBD_ECHO:
        answer(k, KBD_ECHO);
        return;
    case KBD_RESEND:
        answer(k, k->last);
        return;
    default:
        answer(k, KBD_ACK);
        break;
    }
    if (value == KBD_RESET) {
        answer(k, KBD_PASSED);
    } else if (value == KBD_IDENTIFY) {
        answer(k, 0xab);
        answer(k, k->ram[0] & CONFIG_TRANSLATE ? 0x41 : 0x83);
    } else if (value == KBD_LEDS || value == KBD_SCAN_SET || value == KBD_RATE) {
        k->keyboard_command = value;
    }
}

static void write_data(struct vkbd *k, uint8_t value)
{
    uint8_t command = k->command;

    k->command = 0;
    switch (command) {
    case 0:
        k->ram[0] &= (uint8_t)~CONFIG_DISABLED;
        write_keyboard(k, value);
        break;
    case CMD_WRITE_OUTPUT:
        k->output = value;
        if (!(value & OUTPUT_RUN)) {
            reset_line(k);
        }
        break;
    case CMD_WRITE_BUFFER:
    case CMD_WRITE_SECOND_BUFFER:
        answer(k, value);
        break;
    case CMD_WRITE_SECOND:
        break;
    default:
        k->ram[command % RAM_BYTES] = value;
        update_line(k);
        break;
    }
}

static uint8_t status(const struct vkbd *k)
{
    return (uint8_t)(STATUS_UNLOCKED | (k->head != k->tail ? STATUS_OUTPUT : 0) |
                     (k->ram[0] & CONFIG_SYSTEM ? STATUS_SYSTEM : 0) |
                     (k->was_command ? STATUS_COMMAND : 0));
}

static enum hv_err access_port(struct vkbd *k, struct vcpu *v, bool command, bool write,
                               uint64_t *value)
{
    if (!device_lock(&k->lock, v)) {
        return HV_EAGAIN;
    }
    if (!write) {
        *value = command ? status(k) : take(k);
    } else {
        k->was_command = command;
        (command ? write_command : write_data)(k, (uint8_t)*value);
    }
    spin_unlock(&k->lock);
    return HV_OK;
}

static enum hv_err access_data(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    (void)offset;
    (void)size;
    return access_port(dev, v, false, write, value);
}

static enum hv_err access_command(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                  bool write, uint64_t *value)
{
    (void)offset;
    (void)size;
    return access_port(dev, v, true, write, value);
}

void vkbd_reset(struct vkbd *k)
{
    spin_lock(&k->lock);
    for (unsigned i = 0; i < RAM_BYTES; i++) {
        k->ram[i] = 0;
    }
    k->ram[0] = CONFIG_INTERRUPT | CONFIG_SYSTEM | CONFIG_TRANSLATE;
    k->output = OUTPUT_RUN | OUTPUT_A20;
    k->command = k->keyboard_command = k->last = 0;
    k->was_command = false;
    k->head = k->tail = 0;
    spin_unlock(&k->lock);
}

enum hv_err vkbd_create(struct vm *vm, struct vkbd **out)
{
    struct vkbd *k = kmalloc(sizeof *k, vm->id);

    if (!k) {
        return HV_ENOMEM;
    }
    k->vm = vm;
    spin_init(&k->lock, RANK_DEVICE, "vkbd");
    *out = k;
    vkbd_reset(k);
    enum hv_err err = bus_add_byte_ports(vm->bus, PORT_DATA, 1, "keyboard-data", access_data, k);
    if (err) {
        return err;
    }
    return bus_add_byte_ports(vm->bus, PORT_COMMAND, 1, "keyboard", access_command, k);
}

void vkbd_destroy(struct vkbd *k)
{
    kfree(k);
}

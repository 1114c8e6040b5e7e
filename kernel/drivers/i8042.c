/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * i8042 keyboard controller: first port only, translation to scan code set 1 left on.
 */
#include "kernel/drivers/i8042.h"

#include "arch/x86_64/io.h"
#include "kernel/drivers/console.h"
#include "kernel/drivers/keymap.h"

#define PORT_DATA 0x60
#define PORT_STATUS 0x64
#define PORT_COMMAND 0x64
#define STATUS_OUTPUT_FULL 0x01
#define STATUS_INPUT_FULL 0x02
#define STATUS_SECOND_PORT 0x20
#define CMD_READ_CONFIG 0x20
#define CMD_WRITE_CONFIG 0x60
#define CMD_DISABLE_SECOND 0xa7
#define CMD_DISABLE_FIRST 0xad
#define CMD_ENABLE_FIRST 0xae
#define CONFIG_IRQ_FIRST 0x01
#define CONFIG_IRQ_SECOND 0x02
#define CONFIG_CLOCK_FIRST_OFF 0x10
#define CONFIG_TRANSLATE 0x40
#define KEYBOARD_ENABLE_SCANNING 0xf4
#define SPINS 100000u
#define MAX_BYTES_PER_SERVICE 32

static struct keymap keys; /* i8042_service only */

static bool send(uint16_t port, uint8_t v)
{
    for (unsigned i = 0; i < SPINS; i++) {
        if (!(inb(PORT_STATUS) & STATUS_INPUT_FULL)) {
            outb(port, v);
            return true;
        }
    }
    return false;
}

static bool receive(uint8_t *v)
{
    for (unsigned i = 0; i < SPINS; i++) {
        if (inb(PORT_STATUS) & STATUS_OUTPUT_FULL) {
            *v = inb(PORT_DATA);
            return true;
        }
    }
    return false;
}

static void discard_input(void)
{
    for (unsigned i = 0; i < MAX_BYTES_PER_SERVICE && (inb(PORT_STATUS) & STATUS_OUTPUT_FULL);
         i++) {
        (void)inb(PORT_DATA);
    }
}

bool i8042_init(void)
{
    uint8_t config;
    uint8_t ack;

    if (inb(PORT_STATUS) == 0xff) {
        return false;
    }
    if (!send(PORT_COMMAND, CMD_DISABLE_FIRST) || !send(PORT_COMMAND, CMD_DISABLE_SECOND)) {
        return false;
    }
    discard_input();
    if (!send(PORT_COMMAND, CMD_READ_CONFIG) || !receive(&config)) {
        return false;
    }
    config |= CONFIG_IRQ_FIRST | CONFIG_TRANSLATE;
    config &= (uint8_t) ~(CONFIG_IRQ_SECOND | CONFIG_CLOCK_FIRST_OFF);
    if (!send(PORT_COMMAND, CMD_WRITE_CONFIG) || !send(PORT_DATA, config) ||
        !send(PORT_COMMAND, CMD_ENABLE_FIRST) || !send(PORT_DATA, KEYBOARD_ENABLE_SCANNING)) {
        return false;
    }
    return receive(&ack); /* no keyboard answers nothing */
}

void i8042_service(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < MAX_BYTES_PER_SERVICE; i++) {
        char out[KEYMAP_MAX_BYTES];
        uint8_t status = inb(PORT_STATUS);

        if (status == 0xff || !(status & STATUS_OUTPUT_FULL)) {
            return;
        }
        uint8_t code = inb(PORT_DATA);

        if (!(status & STATUS_SECOND_PORT)) {
            console_input(out, keymap_scancode(&keys, code, out));
        }
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Power-off, reset and the test exit, on Ballast and on a plain QEMU machine. */
#include "guests/lib/power.h"

#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"

#define PORT_DEBUG_EXIT 0xf4
#define PORT_RESET 0xcf9
#define PORT_SLEEP_CONTROL 0x600
#define PORT_PM1A_CONTROL 0x604

#define SLEEP_TYPE_S5 5
#define SLEEP_ENABLE 0x20
#define PM1_SLEEP_ENABLE 0x2000

void power_off(void)
{
    console_drain();
    outb(PORT_SLEEP_CONTROL, (SLEEP_TYPE_S5 << 2) | SLEEP_ENABLE);
    outw(PORT_PM1A_CONTROL, PM1_SLEEP_ENABLE);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void power_reset(void)
{
    console_drain();
    outb(PORT_RESET, 0x06);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void power_exit(uint8_t v)
{
    console_drain();
    outb(PORT_DEBUG_EXIT, v);
    power_off();
}

void power_halt(void)
{
    for (;;) {
        __asm__ volatile("sti; hlt");
    }
}

void power_end(void)
{
    if (boot_option_is("end", "reset")) {
        power_reset();
    }
    if (boot_option_is("end", "halt")) {
        power_halt();
    }
    if (boot_option_is("end", "exit")) {
        power_exit(report_failures() ? 1 : 0);
    }
    power_off();
}

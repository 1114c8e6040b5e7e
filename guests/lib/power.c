/* SPDX-License-Identifier: BSD-2-Clause */
/* Power-off, reset and the test exit, on Ballast and on a plain QEMU machine. */
#include "guests/lib/power.h"

#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"

#define PORT_DEBUG_EXIT 0xf4
#define PORT_RESET 0xcf9
#define PORT_KEYBOARD 0x60
#define PORT_KEYBOARD_COMMAND 0x64
#define PORT_SYSTEM_A 0x92
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

_Noreturn static void stop_here(void)
{
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

_Noreturn static void reset_by_keyboard(void)
{
    console_drain();
    outb(PORT_KEYBOARD_COMMAND, 0xfe);
    stop_here();
}

/* Its output port's bit 0 is the processor's reset line. */
_Noreturn static void reset_by_output_port(void)
{
    console_drain();
    outb(PORT_KEYBOARD_COMMAND, 0xd1);
    outb(PORT_KEYBOARD, 0x02);
    stop_here();
}

_Noreturn static void reset_by_port92(void)
{
    console_drain();
    outb(PORT_SYSTEM_A, 0x03);
    stop_here();
}

_Noreturn static void triple_fault(void)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing = {0, 0};

    console_drain();
    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
    stop_here();
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
    if (boot_option_is("end", "keyboard")) {
        reset_by_keyboard();
    }
    if (boot_option_is("end", "outputport")) {
        reset_by_output_port();
    }
    if (boot_option_is("end", "port92")) {
        reset_by_port92();
    }
    if (boot_option_is("end", "triple")) {
        triple_fault();
    }
    if (boot_option_is("end", "halt")) {
        power_halt();
    }
    if (boot_option_is("end", "exit")) {
        power_exit(report_failures() ? 1 : 0);
    }
    power_off();
}

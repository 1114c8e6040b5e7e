/* SPDX-License-Identifier: BSD-2-Clause */
/* Touches everything outside RAM: ports, unassigned memory, interrupt controllers. */
#include "guests/bad/bad.h"
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/trap.h"

#define IOAPIC_BASE 0xfec00000UL
#define IOAPIC_REGISTERS 256
#define MMIO_PROBES 64
#define WIDE_STEP 8 /* wider accesses to each eighth port: an exit takes its time */
#define MIB (1UL << 20)

/* Ports that would end or reset the machine, or take the console away. */
static bool dangerous(uint32_t port)
{
    return (port >= 0x3f8 && port <= 0x3ff) || (port >= 0x600 && port <= 0x607) ||
           (port >= 0xcf8 && port <= 0xcff) || (port >= 0xf4 && port <= 0xf7) || port == 0x64 ||
           port == 0x92 || port == 0xb2 || port == 0x8900;
}

/* True when a multi-byte access at this port would reach a dangerous one. */
static bool near_danger(uint32_t port)
{
    return dangerous(port) || dangerous(port + 1) || dangerous(port + 2) || dangerous(port + 3);
}

/* Above all RAM below 4 GiB and below the interrupt controllers. */
static uint64_t hole_base(void)
{
    uint64_t top = boot_loaded_end;
    for (size_t i = 0; i < boot_nr_ram; i++) {
        uint64_t end = boot_ram[i].base + boot_ram[i].size_bytes;
        if (end <= 0xc0000000UL && end > top) {
            top = end;
        }
    }
    return (top + 64 * MIB) & ~(MIB - 1);
}

void bad_mmio(void)
{
    uint64_t base = hole_base();
    unsigned int other = 0;
    for (uint64_t i = 0; i < MMIO_PROBES; i++) {
        uint64_t a = base + i * 0x1004;
        mmio_write32(a, 0x12345678);
        uint8_t b = *(volatile uint8_t *)a;
        uint16_t w = *(volatile uint16_t *)a;
        uint64_t q = *(volatile uint64_t *)a;
        if (mmio_read32(a) != ~0U || b != 0xff || w != 0xffff || q != ~0UL) {
            other++;
        }
    }
    report_check(other == 0, "mmio-all-ones", "unassigned memory read as something else");
    unsigned int ports = 0;
    for (uint16_t port = 0x1000; port < 0x1100; port++) {
        outl(port, 0);
        if (inb(port) != 0xff || inw(port) != 0xffff || inl(port) != ~0U) {
            ports++;
        }
    }
    report_check(ports == 0, "port-all-ones", "an unassigned port read as something else");
}

static void string_ports(void)
{
    static uint8_t buf[256];
    void *p = buf;
    uint64_t n = 64;
    __asm__ volatile("rep insb" : "+D"(p), "+c"(n) : "d"((uint16_t)0x1000) : "memory");
    report_check(buf[0] == 0xff && buf[63] == 0xff, "ports-insb", "not all ones");
    p = buf;
    n = 64;
    __asm__ volatile("rep insl" : "+D"(p), "+c"(n) : "d"((uint16_t)0x1000) : "memory");
    report_check(buf[255] == 0xff, "ports-insl", "not all ones");
    p = buf;
    n = 64;
    __asm__ volatile("rep outsl" : "+S"(p), "+c"(n) : "d"((uint16_t)0x1000) : "memory");
    report_check(n == 0, "ports-outsl", "the count is not used up");
    /* Across the end of RAM: must fault or read on as the platform says, but not hurt the host. */
    p = (void *)(hole_base() - 8);
    n = 16;
    __asm__ volatile(TRAP_GUARDED("rep insb")
                     : "+D"(p), "+c"(n)
                     : "d"((uint16_t)0x1000)
                     : "r10", "memory");
    console_printf("badguest: rep insb into nothing gave vector %d, %lu left\n", trap_vector(), n);
}

void bad_ports(void)
{
    unsigned int answering = 0;
    for (uint32_t port = 0; port < 0x10000; port++) {
        if (dangerous(port)) {
            continue;
        }
        answering += inb((uint16_t)port) != 0xff;
        outb((uint16_t)port, 0xa5);
        if (port % WIDE_STEP == 0 && !near_danger(port)) {
            (void)inw((uint16_t)port);
            (void)inl((uint16_t)port);
            outw((uint16_t)port, 0x5a5a);
            outl((uint16_t)port, 0xffffffff);
        }
    }
    console_printf("badguest: %u ports answer\n", answering);
    report_check(true, "ports", "");
    string_ports();
}

/* Delivery modes SMI and INIT become fixed: they would end the guest before the test. */
static uint32_t garbage(uint32_t i)
{
    uint32_t v = i * 2654435761U ^ 0xdeadbeefU;
    uint32_t mode = (v >> 8) & 7;
    return mode == 2 || mode == 5 || mode == 6 ? v & ~0x700U : v;
}

static void on_nmi(struct trap_frame *frame)
{
    (void)frame;
}

void bad_apic(void)
{
    trap_set(TRAP_NMI, on_nmi);
    irq_disable();
    for (uint32_t round = 0; round < 8; round++) {
        for (uint32_t reg = 0; reg < 0x1000; reg += 4) {
            uint32_t v = garbage(reg + round);
            if (reg == LAPIC_ICR_LOW) {
                v = (v & ~LAPIC_ICR_OTHERS) | LAPIC_ICR_SELF;
            }
            mmio_write32(LAPIC_BASE + reg, v);
            (void)mmio_read32(LAPIC_BASE + reg);
        }
        for (uint32_t reg = 0; reg < IOAPIC_REGISTERS; reg++) {
            mmio_write32(IOAPIC_BASE, reg);
            mmio_write32(IOAPIC_BASE + 0x10, garbage(reg * 3 + round));
            (void)mmio_read32(IOAPIC_BASE + 0x10);
        }
        for (uint32_t off = 0; off < 0x1000; off += 4) {
            (void)mmio_read32(IOAPIC_BASE + off);
        }
    }
    report_check(true, "apic", "");
}

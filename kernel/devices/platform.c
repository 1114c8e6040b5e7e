/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Platform ports, one table. Manual: ACPI, "Sleep Control and Status Registers", "Reset Register". A
 * guest's wish to end comes as a stop request of its VM with the reason told apart. Nothing here has
 * state, so nothing here locks.
 */
#include "kernel/devices/platform.h"

#include "kernel/devices/bus.h"
#include "kernel/vm/vm.h"

#define SLEEP_ENABLE 0x20u
#define SLEEP_TYPE(value) ((unsigned)((value) >> 2) & 7u)
#define RESET_CPU 0x04u
#define KBD_PULSE_RESET 0xfeu
#define PORT92_A20 0x02u
#define PORT92_RESET 0x01u

static enum hv_err access_sleep(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                bool write, uint64_t *value)
{
    (void)v;
    (void)size;
    if (!write) {
        *value = 0;
    } else if (offset == 0 && (*value & SLEEP_ENABLE) &&
               SLEEP_TYPE(*value) == PLATFORM_SLEEP_TYPE_S5) {
        vm_stop_request(dev, STOP_POWEROFF, 0, "power-off by ACPI");
    }
    return HV_OK;
}

/* 0xcf8-0xcff: there is no PCI bus, only the reset register in the middle. */
static enum hv_err access_pci(void *dev, struct vcpu *v, uint64_t offset, unsigned size, bool write,
                              uint64_t *value)
{
    (void)v;
    if (!write) {
        *value = UINT32_MAX;
    } else if (offset == PLATFORM_RESET_PORT - 0xcf8 && size == 1 && (*value & RESET_CPU)) {
        vm_stop_request(dev, STOP_RESET, 0, "reset through port 0xcf9");
    }
    return HV_OK;
}

/* No keyboard: never busy, never a byte to read; but the processor's reset line hangs on it. */
static enum hv_err access_keyboard(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                   bool write, uint64_t *value)
{
    (void)v;
    (void)offset;
    (void)size;
    if (!write) {
        *value = 0;
    } else if ((uint8_t)*value == KBD_PULSE_RESET) {
        vm_stop_request(dev, STOP_RESET, 0, "reset through the keyboard controller");
    }
    return HV_OK;
}

static enum hv_err access_port92(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                 bool write, uint64_t *value)
{
    (void)v;
    (void)offset;
    (void)size;
    if (!write) {
        *value = PORT92_A20;
    } else if (*value & PORT92_RESET) {
        vm_stop_request(dev, STOP_RESET, 0, "reset through port 0x92");
    }
    return HV_OK;
}

/* As QEMU's isa-debug-exit: the exit code is odd, so that no failure looks like success. */
static enum hv_err access_debug_exit(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                     bool write, uint64_t *value)
{
    (void)v;
    (void)offset;
    (void)size;
    if (!write) {
        *value = UINT32_MAX;
    } else {
        uint32_t code = ((uint32_t)*value << 1) | 1;

        vm_stop_request(dev, STOP_DEBUG_EXIT, code, "exit with code %u", code);
    }
    return HV_OK;
}

/* Controllers that guests probe for as a matter of course and that this platform does not have. */
static enum hv_err access_absent(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                 bool write, uint64_t *value)
{
    (void)dev;
    (void)v;
    (void)offset;
    (void)size;
    if (!write) {
        *value = UINT32_MAX;
    }
    return HV_OK;
}

static const struct {
    uint16_t first;
    uint8_t nr;
    bool bytes_only;
    const char *name;
    bus_access_t fn;
} ports[] = {
    {0x20, 2, true, "pic1", access_absent},
    {0xa0, 2, true, "pic2", access_absent},
    {0x64, 1, true, "keyboard", access_keyboard},
    {0x60, 1, true, "keyboard-data", access_absent},
    {0x80, 1, false, "post-code", access_absent},
    {0x92, 1, true, "port92", access_port92},
    {0xf4, 4, false, "debug-exit", access_debug_exit},
    {PLATFORM_SLEEP_CONTROL, 2, true, "sleep", access_sleep},
    {0xcf8, 8, false, "pci", access_pci},
    {0x2f8, 8, false, "com2", access_absent},
    {0x3e8, 8, false, "com3", access_absent},
    {0x2e8, 8, false, "com4", access_absent},
};

enum hv_err platform_create(struct vm *vm)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        enum hv_err err = ports[i].bytes_only
                              ? bus_add_byte_ports(vm->bus, ports[i].first, ports[i].nr,
                                                   ports[i].name, ports[i].fn, vm)
                              : bus_add_ports(vm->bus, ports[i].first, ports[i].nr, ports[i].name,
                                              ports[i].fn, vm);
        if (err) {
            return err;
        }
    }
    return HV_OK;
}

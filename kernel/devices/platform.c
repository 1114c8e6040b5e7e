/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Platform ports, one table. Manual: ACPI, "Reset Register". A guest's wish to end comes as a stop request
 * of its VM with the reason told apart. Nothing here has state, so nothing here locks.
 */
#include "kernel/devices/platform.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/vioapic.h"
#include "kernel/vm/vm.h"

#define RESET_CPU 0x04u
#define NR_ISA_IRQS 16u
#define PORT92_A20 0x02u
#define PORT92_RESET 0x01u

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

/* As QEMU's pc-testdev: a byte written to port 2000H + n is the level of ISA interrupt n. */
static enum hv_err access_test_irq(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                   bool write, uint64_t *value)
{
    (void)v;
    (void)size;
    if (!write) {
        *value = UINT32_MAX;
    } else if (offset < NR_ISA_IRQS) {
        isa_irq_set(dev, (unsigned)offset, *value & 0xff);
    } else {
        vioapic_set_line(dev, (unsigned)offset, *value & 0xff);
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
    {0x80, 1, false, "post-code", access_absent},
    {0x92, 1, true, "port92", access_port92},
    {0xf4, 4, false, "debug-exit", access_debug_exit},
    {0xcf8, 8, false, "pci", access_pci},
    {0x2f8, 8, false, "com2", access_absent},
    {0x3e8, 8, false, "com3", access_absent},
    {0x2e8, 8, false, "com4", access_absent},
    {0x2e, 2, false, "super-io", access_absent},
    {0x4e, 2, false, "super-io2", access_absent},
    {0x87, 1, true, "dma-page", access_absent},
    {0x2000, VIOAPIC_LINES, false, "test-irq", access_test_irq},
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A call is IN EAX, DX with DX = 0x5658, EAX = the magic number, ECX = the command; results come in
 * registers, of which the upper halves become zero as with any 32-bit write. Anything else on the port
 * reads as all ones and changes nothing. Runs on the vCPU's own thread, whose registers it writes.
 */
#include "kernel/devices/vmware.h"

#include "arch/x86_64/clock.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/vm.h"

#define CALL_PORT 0x5658
#define CALL_MAGIC 0x564d5868u

enum command { CMD_GETVERSION = 10, CMD_GETHZ = 45, CMD_GETVCPU_INFO = 68 };

#define VERSION 6
#define PRODUCT_ESX 2
#define VCPU_X2APIC_USABLE BIT(3) /* without interrupt remapping */
#define UNKNOWN UINT32_MAX

static uint32_t call(struct vcpu *v, uint32_t command)
{
    uint64_t hz = clock_tsc_hz();

    switch (command) {
    case CMD_GETVERSION:
        v->gpr[GPR_RBX] = CALL_MAGIC;
        v->gpr[GPR_RCX] = PRODUCT_ESX;
        return VERSION;
    case CMD_GETHZ:
        v->gpr[GPR_RBX] = hz >> 32;
        v->gpr[GPR_RCX] = (uint32_t)vlapic_bus_hz();
        return (uint32_t)hz;
    case CMD_GETVCPU_INFO:
        return VCPU_X2APIC_USABLE;
    default:
        return UNKNOWN;
    }
}

static enum hv_err access_port(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    (void)dev;
    (void)offset;
    if (write) {
        return HV_OK;
    }
    *value = UINT32_MAX;
    if (size == 4 && (uint32_t)v->gpr[GPR_RAX] == CALL_MAGIC) {
        *value = call(v, (uint32_t)v->gpr[GPR_RCX]);
    }
    return HV_OK;
}

enum hv_err vmware_create(struct vm *vm)
{
    if (vm->config.identity != IDENTITY_VMWARE) {
        return HV_OK;
    }
    return bus_add_ports(vm->bus, CALL_PORT, 1, "vmware", access_port, vm);
}

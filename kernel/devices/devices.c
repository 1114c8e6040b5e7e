/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The devices of a VM: one line per device in a table, created in order, destroyed in reverse. The bus
 * comes first, for the others register on it.
 */
#include "kernel/devices/devices.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/platform.h"
#include "kernel/devices/vioapic.h"
#include "kernel/devices/vmware.h"
#include "kernel/devices/vpit.h"
#include "kernel/devices/vrtc.h"
#include "kernel/devices/vuart.h"
#include "kernel/emul/emul.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

struct vm_devices {
    struct vuart *uart;
    struct vpit *pit;
    struct vrtc *rtc;
};

static enum hv_err create_bus(struct vm *vm)
{
    return bus_create(vm, &vm->bus);
}

static void destroy_bus(struct vm *vm)
{
    bus_destroy(vm->bus);
    vm->bus = NULL;
}

static enum hv_err create_uart(struct vm *vm)
{
    return vuart_create(vm, &vm->devices->uart);
}

static void destroy_uart(struct vm *vm)
{
    vuart_destroy(vm->devices->uart);
}

static void reset_uart(struct vm *vm)
{
    vuart_reset(vm->devices->uart);
}

static enum hv_err create_pit(struct vm *vm)
{
    return vpit_create(vm, &vm->devices->pit);
}

static void destroy_pit(struct vm *vm)
{
    vpit_destroy(vm->devices->pit);
}

static void reset_pit(struct vm *vm)
{
    vpit_reset(vm->devices->pit);
}

static enum hv_err create_rtc(struct vm *vm)
{
    return vrtc_create(vm, &vm->devices->rtc);
}

static void destroy_rtc(struct vm *vm)
{
    vrtc_destroy(vm->devices->rtc);
}

static void reset_rtc(struct vm *vm)
{
    vrtc_reset(vm->devices->rtc);
}

/* destroy accepts a device that was not, or only half, created. */
static const struct {
    enum hv_err (*create)(struct vm *vm);
    void (*destroy)(struct vm *vm);
    void (*reset)(struct vm *vm);
} table[] = {
    {create_bus, destroy_bus, NULL},
    {vioapic_create, vioapic_destroy, vioapic_reset},
    {create_uart, destroy_uart, reset_uart},
    {create_pit, destroy_pit, reset_pit},
    {create_rtc, destroy_rtc, reset_rtc},
    {platform_create, NULL, NULL},
    {vmware_create, NULL, NULL},
};

enum hv_err devices_create(struct vm *vm)
{
    enum hv_err err = emul_init();

    if (err) {
        return err;
    }
    vm->devices = kmalloc(sizeof *vm->devices, vm->id);
    if (!vm->devices) {
        return HV_ENOMEM;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        err = table[i].create(vm);
        if (err) {
            devices_destroy(vm);
            return err;
        }
    }
    return HV_OK;
}

void devices_destroy(struct vm *vm)
{
    if (!vm->devices) {
        return;
    }
    for (unsigned i = ARRAY_SIZE(table); i-- > 0;) {
        if (table[i].destroy) {
            table[i].destroy(vm);
        }
    }
    kfree(vm->devices);
    vm->devices = NULL;
}

void devices_reset(struct vm *vm)
{
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].reset) {
            table[i].reset(vm);
        }
    }
}

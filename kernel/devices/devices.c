/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The devices of a VM: one line per device in a table, created in order, destroyed in reverse. The bus
 * comes first, for the others register on it.
 */
#include "kernel/devices/devices.h"

#include "kernel/devices/bus.h"
#include "kernel/devices/platform.h"
#include "kernel/devices/vconsole.h"
#include "kernel/devices/vfwcfg.h"
#include "kernel/devices/vballoon.h"
#include "kernel/devices/vblk.h"
#include "kernel/devices/vhpet.h"
#include "kernel/devices/vioapic.h"
#include "kernel/devices/vkbd.h"
#include "kernel/devices/vmballoon.h"
#include "kernel/devices/vmmio.h"
#include "kernel/devices/vmware.h"
#include "kernel/devices/vpic.h"
#include "kernel/devices/vpit.h"
#include "kernel/devices/vpm.h"
#include "kernel/devices/vrandom.h"
#include "kernel/devices/vrtc.h"
#include "kernel/devices/vuart.h"
#include "kernel/emul/emul.h"
#include "kernel/lib/printf.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

struct vm_devices {
    struct vuart *uart;
    struct vkbd *kbd;
    struct vpit *pit;
    struct vrtc *rtc;
    struct vpm *pm;
    struct vhpet *hpet;
    struct vfwcfg *fwcfg;
    struct vmballoon *balloon; /* these are NULL where it has none */
    struct vblk *blk;
    struct vrandom *random;
    struct vballoon *virtio_balloon;
    struct vconsole *virtio_console;
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

static enum hv_err create_kbd(struct vm *vm)
{
    return vkbd_create(vm, &vm->devices->kbd);
}

static void destroy_kbd(struct vm *vm)
{
    vkbd_destroy(vm->devices->kbd);
}

static void reset_kbd(struct vm *vm)
{
    vkbd_reset(vm->devices->kbd);
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

static enum hv_err create_balloon(struct vm *vm)
{
    return vmballoon_create(vm, &vm->devices->balloon);
}

static void destroy_balloon(struct vm *vm)
{
    vmballoon_destroy(vm->devices->balloon);
}

static void reset_balloon(struct vm *vm)
{
    vmballoon_reset(vm, vm->devices->balloon);
}

static enum hv_err create_pm(struct vm *vm)
{
    return vpm_create(vm, &vm->devices->pm);
}

static void destroy_pm(struct vm *vm)
{
    vpm_destroy(vm->devices->pm);
}

static void reset_pm(struct vm *vm)
{
    vpm_reset(vm->devices->pm);
}

static enum hv_err create_hpet(struct vm *vm)
{
    return vhpet_create(vm, &vm->devices->hpet);
}

static void destroy_hpet(struct vm *vm)
{
    vhpet_destroy(vm->devices->hpet);
}

static void reset_hpet(struct vm *vm)
{
    vhpet_reset(vm->devices->hpet);
}

static enum hv_err create_fwcfg(struct vm *vm)
{
    return vfwcfg_create(vm, &vm->devices->fwcfg);
}

static void destroy_fwcfg(struct vm *vm)
{
    vfwcfg_destroy(vm->devices->fwcfg);
}

static void reset_fwcfg(struct vm *vm)
{
    vfwcfg_reset(vm->devices->fwcfg);
}

static enum hv_err create_blk(struct vm *vm)
{
    return vblk_create(vm, &vm->devices->blk);
}

static void destroy_blk(struct vm *vm)
{
    vblk_destroy(vm->devices->blk);
}

static void reset_blk(struct vm *vm)
{
    vmmio_reset(vblk_transport(vm->devices->blk));
}

static enum hv_err create_random(struct vm *vm)
{
    return vrandom_create(vm, &vm->devices->random);
}

static void destroy_random(struct vm *vm)
{
    vrandom_destroy(vm->devices->random);
}

static void reset_random(struct vm *vm)
{
    vmmio_reset(vrandom_transport(vm->devices->random));
}

static enum hv_err create_virtio_balloon(struct vm *vm)
{
    return vballoon_create(vm, &vm->devices->virtio_balloon);
}

static void destroy_virtio_balloon(struct vm *vm)
{
    vballoon_destroy(vm->devices->virtio_balloon);
}

static void reset_virtio_balloon(struct vm *vm)
{
    vmmio_reset(vballoon_transport(vm->devices->virtio_balloon));
}

static enum hv_err create_virtio_console(struct vm *vm)
{
    return vconsole_create(vm, vm->devices->uart, &vm->devices->virtio_console);
}

static void destroy_virtio_console(struct vm *vm)
{
    vconsole_destroy(vm->devices->virtio_console);
}

static void reset_virtio_console(struct vm *vm)
{
    vmmio_reset(vconsole_transport(vm->devices->virtio_console));
}

/* destroy accepts a device that was not, or only half, created. */
static const struct {
    enum hv_err (*create)(struct vm *vm);
    void (*destroy)(struct vm *vm);
    void (*reset)(struct vm *vm);
    bool has_thread; /* reset also quiesces it */
} table[] = {
    {create_bus, destroy_bus, NULL, false},
    {vioapic_create, vioapic_destroy, vioapic_reset, false},
    {vpic_create, vpic_destroy, vpic_reset, false},
    {create_uart, destroy_uart, reset_uart, false},
    {create_kbd, destroy_kbd, reset_kbd, false},
    {create_pit, destroy_pit, reset_pit, false},
    {create_rtc, destroy_rtc, reset_rtc, false},
    {create_pm, destroy_pm, reset_pm, false},
    {create_hpet, destroy_hpet, reset_hpet, false},
    {create_fwcfg, destroy_fwcfg, reset_fwcfg, false},
    {platform_create, NULL, NULL, false},
    {vmware_create, NULL, NULL, false},
    {create_balloon, destroy_balloon, reset_balloon, false},
    {create_blk, destroy_blk, reset_blk, true},
    {create_random, destroy_random, reset_random, true},
    {create_virtio_console, destroy_virtio_console, reset_virtio_console, true},
    {create_virtio_balloon, destroy_virtio_balloon, reset_virtio_balloon, true},
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

uint64_t devices_frames(const struct vm *vm)
{
    return vm->devices != NULL ? vblk_frames(vm->devices->blk) : 0;
}

uint64_t devices_frames_to_come(const struct vm *vm)
{
    return vm->devices != NULL ? vblk_frames_to_come(vm->devices->blk) : 0;
}

bool devices_describe(const struct vm *vm, unsigned index, char *text, size_t len)
{
    const struct vm_devices *d = vm->devices;
    struct vmmio *const all[] = {vblk_transport(d->blk), vrandom_transport(d->random),
                                 vconsole_transport(d->virtio_console),
                                 vballoon_transport(d->virtio_balloon)};
    char disk[96];

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        struct vmmio_state s;

        if (all[i] == NULL || index-- != 0) {
            continue;
        }
        vmmio_state(all[i], &s);
        vblk_describe(i == 0 ? d->blk : NULL, disk, sizeof(disk));
        scnprintf(text, len, "virtio %s at 0x%llx, line %u: driver %s, %llu requests%s", s.name,
                  (unsigned long long)s.base, s.gsi, s.driver, (unsigned long long)s.served, disk);
        return true;
    }
    return false;
}

void devices_quiesce(struct vm *vm)
{
    for (unsigned i = 0; vm->devices != NULL && i < ARRAY_SIZE(table); i++) {
        if (table[i].has_thread) {
            table[i].reset(vm);
        }
    }
}

void devices_reset(struct vm *vm)
{
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].reset) {
            table[i].reset(vm);
        }
    }
}

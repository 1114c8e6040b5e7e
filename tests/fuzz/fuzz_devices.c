/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a guest that reads and writes every register of its platform in any order, while time passes.
 * Beyond what sanitizers notice: device timers never come faster than the models promise, whatever is
 * programmed, and what a fast path refuses it refuses before any effect.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/msr.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/platform.h"
#include "kernel/devices/vfwcfg.h"
#include "kernel/devices/vhpet.h"
#include "kernel/devices/vioapic.h"
#include "kernel/devices/vkbd.h"
#include "kernel/devices/vlapic.h"
#include "kernel/devices/vpic.h"
#include "kernel/devices/vpit.h"
#include "kernel/devices/vpm.h"
#include "kernel/devices/vrtc.h"
#include "kernel/devices/vuart.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/guestconsole.h"
#include "tests/host/check.h"
#include "tests/host/fakevm.h"

#define VCPUS 3
#define MIN_GAP_NS 50000u /* between two edges of a device timer */
#define NR_DEVICE_TIMERS 6u
#define FIRINGS_PER_OP 8u
#define MAX_PASS_SHIFT 31u

struct op {
    uint8_t kind, width;
    uint16_t place;
    uint32_t value;
};

enum kind {
    OP_OUT,
    OP_IN,
    OP_HPET,
    OP_APIC,
    OP_PASS,
    OP_TAKE,
    OP_LINE,
    OP_ACKNOWLEDGE,
    OP_IOAPIC,
    OP_MSR,
    OP_RESET,
    NR_KINDS
};

static struct vpit *pit;
static struct vrtc *rtc;
static struct vpm *pm;
static struct vhpet *hpet;
static struct vfwcfg *fwcfg;
static struct vuart *uart;
static struct vkbd *kbd;

/* ---- The console ---- */

void guestconsole_output(struct guestconsole *c, const char *data, size_t n)
{
    (void)c;
    (void)data;
    (void)n;
}

/* It always has room, so that nobody waits for it. */
bool guestconsole_is_full(const struct guestconsole *c)
{
    (void)c;
    return false;
}

void thread_sleep_ns(uint64_t ns)
{
    (void)ns;
    abort();
}

bool guestconsole_input_pending(const struct guestconsole *c)
{
    (void)c;
    return fake.now_ns & 1;
}

size_t guestconsole_read(struct guestconsole *c, char *data, size_t n)
{
    (void)c;
    memset(data, 'x', n);
    return n;
}

void guestconsole_set_input_ready(struct guestconsole *c, void (*fn)(void *arg), void *arg)
{
    (void)c;
    (void)fn;
    (void)arg;
}

/* ---- The platform ---- */

static void create(void)
{
    struct vm *vm = &fake.vm;

    fakevm_reset(VCPUS);
    vm->config.memory_bytes = MIB(64);
    strcpy(vm->config.cmdline, "fuzz");
    vm->state = VM_RUNNING;
    CHECK(!bus_create(vm, &vm->bus) && !vioapic_create(vm) && !vpic_create(vm));
    for (unsigned i = 0; i < VCPUS; i++) {
        CHECK(!vlapic_create(vm->vcpus[i]));
    }
    vlapic_virtual_wire(vm->vcpus[0]);
    CHECK(!vpit_create(vm, &pit) && !vrtc_create(vm, &rtc) && !vpm_create(vm, &pm));
    CHECK(!vhpet_create(vm, &hpet) && !vfwcfg_create(vm, &fwcfg) && !vuart_create(vm, &uart));
    CHECK(!vkbd_create(vm, &kbd));
    CHECK(!platform_create(vm));
}

static void destroy(void)
{
    vkbd_destroy(kbd);
    vuart_destroy(uart);
    vfwcfg_destroy(fwcfg);
    vhpet_destroy(hpet);
    vpm_destroy(pm);
    vrtc_destroy(rtc);
    vpit_destroy(pit);
    for (unsigned i = 0; i < VCPUS; i++) {
        vlapic_destroy(&fake.vcpu[i]);
    }
    vpic_destroy(&fake.vm);
    vioapic_destroy(&fake.vm);
    bus_destroy(fake.vm.bus);
}

static void reset(void)
{
    vioapic_reset(&fake.vm);
    vpic_reset(&fake.vm);
    vuart_reset(uart);
    vkbd_reset(kbd);
    vpit_reset(pit);
    vrtc_reset(rtc);
    vpm_reset(pm);
    vhpet_reset(hpet);
    vfwcfg_reset(fwcfg);
}

/* ---- Operations ---- */

static void mmio(struct vcpu *v, uint64_t at, const struct op *op, unsigned size)
{
    uint64_t value = op->value | (uint64_t)op->value << 29;

    CHECK(bus_mmio(fake.vm.bus, v, GPA(at), size, !(op->width & 0x80), &value) == HV_OK);
}

static void access_apic(struct vcpu *v, const struct op *op)
{
    uint64_t value = op->value;
    enum hv_err err = vlapic_mmio(v->lapic, op->place & 0xfff, 1u << (op->width & 3),
                                  !(op->width & 0x80), &value);

    CHECK(err == HV_OK);
}

static void access_msr(struct vcpu *v, const struct op *op)
{
    uint32_t index = op->place & 0x8000   ? MSR_TSC_DEADLINE
                     : op->place & 0x4000 ? MSR_APIC_BASE
                                          : MSR_X2APIC_FIRST + (op->place & 0xff);
    uint64_t value = op->value | (uint64_t)(op->width & 0xf) << 32;
    enum hv_err err = op->width & 0x80 ? vlapic_read_msr(v->lapic, index, &value)
                                       : vlapic_write_msr(v->lapic, index, value);

    CHECK(err == HV_OK || err == HV_EPERM);
}

static void take(struct vcpu *v)
{
    int vector = vlapic_pending(v->lapic);

    CHECK(vector < 256);
    if (vector >= 0) {
        CHECK(vector >= 16);
        vlapic_accept(v->lapic, (unsigned)vector);
    }
    CHECK(vlapic_blocked(v->lapic) < 256);
}

static uint64_t run(const struct op *op, uint64_t *passed)
{
    struct vcpu *v = &fake.vcpu[op->width / 16 % VCPUS];
    unsigned size = 1u << (op->width & 3);
    uint64_t value = op->value;

    switch ((enum kind)(op->kind % NR_KINDS)) {
    case OP_OUT:
        CHECK(bus_port(fake.vm.bus, v, op->place, MIN(size, 4u), true, &value) == HV_OK);
        break;
    case OP_IN:
        CHECK(bus_port(fake.vm.bus, v, op->place, MIN(size, 4u), false, &value) == HV_OK);
        break;
    case OP_HPET:
        mmio(v, VHPET_BASE + (op->place & 0x3ff & ~(size - 1)), op, size);
        break;
    case OP_APIC:
        access_apic(v, op);
        break;
    case OP_PASS:
        value = (1ull << op->place % MAX_PASS_SHIFT) + op->value % 1000;
        *passed += value;
        return fakevm_pass(value);
    case OP_TAKE:
        take(v);
        break;
    case OP_LINE:
        vioapic_set_line(&fake.vm, op->place, op->value & 1);
        break;
    case OP_ACKNOWLEDGE:
        CHECK(vpic_acknowledge(&fake.vm) < 256);
        break;
    case OP_IOAPIC:
        mmio(v, VIOAPIC_BASE + (op->place & 0xff8), op, size);
        break;
    case OP_MSR:
        access_msr(v, op);
        break;
    default:
        reset();
        break;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t passed = 0, fired = 0, ops = 0;

    create();
    for (struct op op; size >= sizeof(op); data += sizeof(op), size -= sizeof(op)) {
        memcpy(&op, data, sizeof(op));
        fired += run(&op, &passed);
        ops++;
        CHECK(fired <= NR_DEVICE_TIMERS * (passed / MIN_GAP_NS) + (ops + 1) * FIRINGS_PER_OP);
    }
    destroy();
    return 0;
}

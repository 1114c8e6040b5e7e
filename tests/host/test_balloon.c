/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloon and its device: targets, ramp, distress and trust over a clock that the test turns, and
 * every command of the port with every status, over a real p2m.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/vmballoon.h"
#include "kernel/log.h"
#include "kernel/options.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/vm.h"
#include "mm/audit.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/pt/fmt_x86.h"
#include "mm/view.h"
#include "tests/host/env.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define RAM 8192ull /* pages of the VM: 32 MiB */
#define HOLE 4096ull
#define HOLE_END 4608ull
#define VM_ID 6u
#define MAGIC 0x456c6d6fu
#define RATE (RAM / 20) /* of the ramp, pages a second */

static struct vm vm;
static struct vcpu vcpu, other_vcpu;
static struct vmballoon *device;
static bus_access_t port;
static void *port_dev;
static uint64_t now;
static bool in_line; /* others wait for memory */

uint32_t memwait_access(struct vcpu *v)
{
    (void)v;
    return in_line ? P2M_VCPU | P2M_LINE : P2M_VCPU;
}

/* ---- Surroundings of the device ---- */

enum hv_err bus_add_ports(struct bus *b, uint16_t first, uint32_t nr, const char *name,
                          bus_access_t fn, void *dev)
{
    (void)b;
    (void)name;
    assert_int_equal(first, 0x5670);
    assert_int_equal(nr, 1);
    port = fn;
    port_dev = dev;
    return HV_OK;
}

uint64_t clock_now_ns(void)
{
    return now;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

void vm_memory_counters(struct vm *v, struct p2m_counters *p2m, struct view_stats *view)
{
    (void)view;
    p2m_counters(v->p2m, p2m);
}

static void start(void)
{
    const struct p2m_config cfg = {.owner = VM_ID, .large_pages = true, .max_order = ORDER_2M};

    env_start(BASE, NR_FRAMES, 1);
    now = 1000 * BALLOON_SECOND_NS;
    memset(&vm, 0, sizeof(vm));
    memset(&vcpu, 0, sizeof(vcpu));
    vm.id = VM_ID;
    vm.config.memory_bytes = RAM * PAGE_SIZE;
    vm.config.identity = IDENTITY_VMWARE;
    strcpy(vm.config.name, "test");
    vcpu.vm = other_vcpu.vm = &vm;
    assert_int_equal(p2m_create(&cfg, &vm.p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm.p2m, GFN(0), HOLE), HV_OK);
    assert_int_equal(p2m_add_ram(vm.p2m, GFN(HOLE_END), RAM - HOLE_END), HV_OK);
    assert_int_equal(nested_create(vm.p2m, &fmt_x86_npt, VM_ID, &vm.view), HV_OK);
    assert_int_equal(balloon_create(VM_ID, &vm.balloon), HV_OK);
    assert_int_equal(vmballoon_create(&vm, &device), HV_OK);
    vmballoon_reset(&vm, device);
}

static void stop(void)
{
    assert_true(p2m_audit(vm.p2m));
    vmballoon_destroy(device);
    balloon_destroy(vm.balloon);
    p2m_destroy(vm.p2m);
    assert_true(mm_audit_gone(VM_ID));
    env_stop();
}

/* One IN by this vCPU, off the fast path. */
static uint64_t call_by(struct vcpu *v, uint64_t command, uint64_t arg1, uint64_t arg2)
{
    uint64_t value = 0;

    v->gpr[GPR_RAX] = MAGIC;
    v->gpr[GPR_RCX] = command;
    v->gpr[GPR_RBX] = arg1;
    v->gpr[GPR_RSI] = arg2;
    assert_int_equal(port(port_dev, v, 0, 4, false, &value), HV_OK);
    return value;
}

/* A call that is to be made once more. */
static enum hv_err call_in_vain(uint64_t command, uint64_t arg1, uint64_t arg2)
{
    uint64_t value;

    vcpu.gpr[GPR_RAX] = MAGIC;
    vcpu.gpr[GPR_RCX] = command;
    vcpu.gpr[GPR_RBX] = arg1;
    vcpu.gpr[GPR_RSI] = arg2;
    return port(port_dev, &vcpu, 0, 4, false, &value);
}

static uint64_t call(uint64_t command, uint64_t arg1, uint64_t arg2)
{
    return call_by(&vcpu, command, arg1, arg2);
}

static uint64_t start_driver(void)
{
    uint64_t status = call(0, 0x3e, 0);

    assert_int_equal(status, 0x03000000);
    return vcpu.gpr[GPR_RCX];
}

/* What the driver is told when it asks. */
static uint64_t told(void)
{
    assert_int_equal(call(1, RAM, 0), 0);
    return vcpu.gpr[GPR_RBX];
}

static struct balloon_state look(void)
{
    struct balloon_state s;

    ballooning_state(&vm, &s);
    return s;
}

static void seconds(double s)
{
    now += (uint64_t)(s * (double)BALLOON_SECOND_NS);
}

static void touch(uint64_t gfn, uint64_t value)
{
    uint64_t *ptr;

    assert_int_equal(p2m_get(vm.p2m, GFN(gfn), P2M_WRITE, (void **)&ptr), HV_OK);
    *ptr = value;
    p2m_put(vm.p2m, GFN(gfn), ptr);
}

/* The driver gives until it holds what it is told, page by page from `next` on. */
static uint64_t next;

static void give_all(void)
{
    while (look().size < told()) {
        while (next >= HOLE && next < HOLE_END) {
            next++;
        }
        assert_int_equal(call(2, next++, 1), 0);
    }
}

/* ---- Targets ---- */

static void most_by_the_options(void **state)
{
    uint64_t most;

    (void)state;
    assert_int_equal(balloon_most(65536, 65, UINT64_MAX), 42598);
    assert_int_equal(balloon_most(65536, 65, 1000), 1000);
    assert_int_equal(balloon_most(65536, 0, UINT64_MAX), 0);
    assert_int_equal(balloon_most(UINT64_MAX >> 12, 99, UINT64_MAX),
                     (UINT64_MAX >> 12) / 100 * 99 + (UINT64_MAX >> 12) % 100 * 99 / 100);
    start();
    assert_int_equal(ballooning_set_by_hand(&vm, RAM, &most), HV_ERANGE);
    assert_int_equal(most, RAM * 65 / 100);
    assert_int_equal(ballooning_set_by_hand(&vm, most, &most), HV_OK);
    assert_int_equal(look().target, most);
    /* A changed option counts at once, for what the policy wants and for what the operator does. */
    assert_int_equal(options_set(OPT_CTL_MAX_PERCENT, 10), HV_OK);
    assert_int_equal(look().target, RAM / 10);
    ballooning_set_auto(&vm);
    assert_int_equal(look().target, 0);
    ballooning_set_target(&vm, 1000);
    assert_int_equal(look().target, RAM / 10);
    assert_int_equal(options_set(OPT_CTL_MAX_PERCENT, 65), HV_OK);
    vm.config.have_maxmemctl = true;
    vm.config.maxmemctl_bytes = 100 * PAGE_SIZE;
    assert_int_equal(look().target, 100);
    stop();
}

static void ramp_up_down_at_once(void **state)
{
    uint64_t most, before = 0;

    (void)state;
    start();
    next = 0;
    start_driver();
    assert_int_equal(ballooning_set_by_hand(&vm, 4000, &most), HV_OK);
    for (unsigned i = 0; i < 9; i++) {
        seconds(1);
        give_all();
        assert_in_range(look().size - before, RATE - 1, RATE + 1);
        before = look().size;
    }
    seconds(1);
    give_all();
    assert_int_equal(look().size, 4000);
    assert_int_equal(ballooning_set_by_hand(&vm, 1000, &most), HV_OK);
    assert_int_equal(told(), 1000);
    /* Whoever asks all the time gets no more, and no less. */
    for (uint64_t gfn = 0; look().size > 1000; gfn++) {
        assert_int_equal(call(3, gfn, 1), 0);
    }
    assert_int_equal(ballooning_set_by_hand(&vm, 4000, &most), HV_OK);
    for (unsigned i = 0; i < 100000; i++) {
        now += BALLOON_SECOND_NS / 100000;
        told();
    }
    assert_in_range(told(), 1000 + RATE - 1, 1000 + RATE + 1);
    /* Whoever asks seldom gets two seconds' worth. */
    seconds(60);
    assert_in_range(told(), 1000 + 3 * RATE - 2, 1000 + 3 * RATE + 2);
    stop();
}

/* ---- Distress ---- */

static void stuck_guests_get_relief(void **state)
{
    uint64_t most, size;

    (void)state;
    start();
    next = 0;
    start_driver();
    assert_int_equal(ballooning_set_by_hand(&vm, 5000, &most), HV_OK);
    for (unsigned i = 0; i < 6; i++) {
        seconds(1);
        give_all();
    }
    size = look().size;
    /* It can give no more: within seconds it is to take some back. */
    for (unsigned i = 0; i < 6; i++) {
        seconds(1);
        told();
    }
    assert_true(look().relieved);
    assert_int_equal(told(), size - BALLOON_SLACK); /* 1/32 of this VM is less */
    assert_int_equal(look().distresses, 1);
    /* Rest, then again up to there, and a longer rest. */
    seconds(5);
    assert_false(look().relieved);
    for (unsigned i = 0; i < 8; i++) {
        seconds(1);
        told();
    }
    assert_int_equal(look().distresses, 2);
    seconds(6);
    assert_true(look().relieved);
    seconds(5);
    assert_false(look().relieved);
    /* Long calm: the next rest is a short one again. */
    seconds(400);
    ballooning_note_distress(&vm);
    assert_true(look().relieved);
    seconds(5.5);
    assert_false(look().relieved);
    stop();
}

static void taking_unasked_is_distress(void **state)
{
    uint64_t most;

    (void)state;
    start();
    next = 0;
    start_driver();
    assert_int_equal(ballooning_set_by_hand(&vm, 3000, &most), HV_OK);
    for (unsigned i = 0; i < 9; i++) {
        seconds(1);
        give_all();
    }
    for (uint64_t gfn = 0; gfn < 1024; gfn++) {
        assert_int_equal(call(3, gfn, 1), 0);
    }
    assert_false(look().relieved);
    assert_int_equal(call(3, 1024, 1), 0);
    assert_true(look().relieved);
    assert_true(vcpu.gpr[GPR_RBX] < look().size);
    stop();
}

/* ---- Trust ---- */

static void silent_driver_counts_as_none(void **state)
{
    (void)state;
    start();
    assert_false(look().present);
    assert_false(look().silent);
    start_driver();
    assert_true(look().present);
    seconds(4.9);
    assert_true(look().present);
    seconds(0.2);
    assert_false(look().present);
    assert_true(look().silent);
    told();
    assert_true(look().present);
    /* It stops, and keeps the sizes by which it frees its pages; but nothing that it says counts. */
    assert_int_equal(call(0, 0, 0), 0x03000000);
    assert_int_equal(vcpu.gpr[GPR_RCX], 0x2e);
    assert_false(look().present);
    assert_int_equal(call(1, 0, 0), 7);
    assert_int_equal(call(6, 0, 1), 1);
    /* One without batches has nothing to keep. */
    assert_int_equal(call(0, 2, 0), 0);
    assert_int_equal(call(0, 0, 0), 0);
    stop();
}

static void liars_are_not_believed(void **state)
{
    uint64_t most;

    (void)state;
    start();
    assert_int_equal(ballooning_set_by_hand(&vm, 1000, &most), HV_OK);
    start_driver();
    for (unsigned i = 0; i < BALLOON_STRIKES; i++) {
        assert_true(look().present);
        assert_int_equal(call(2, 7, 1), 0);
        touch(7, 1);
        assert_int_equal(call(1, 0, 0), 7);
        assert_int_equal(look().resets, i + 1);
        start_driver();
        seconds(0.5);
    }
    assert_true(look().distrusted);
    assert_false(look().present);
    assert_int_equal(told(), 0);
    /* Forgiven in a minute; the VM's restart forgives at once. */
    seconds(50);
    assert_true(look().distrusted);
    seconds(11);
    assert_false(look().distrusted);
    told();
    seconds(1);
    assert_true(told() > 0);
    /* Starting again and again over what was given is no better. */
    for (unsigned i = 0; i < BALLOON_STRIKES; i++) {
        assert_int_equal(call(2, 7, 1), 0);
        start_driver();
    }
    assert_true(look().distrusted);
    vmballoon_reset(&vm, device);
    assert_false(look().distrusted);
    stop();
}

/* ---- The port ---- */

static void only_calls_are_calls(void **state)
{
    uint64_t value = 5;

    (void)state;
    start();
    vcpu.gpr[GPR_RAX] = MAGIC;
    assert_int_equal(port(port_dev, &vcpu, 0, 2, false, &value), HV_OK);
    assert_int_equal(value, UINT32_MAX);
    vcpu.gpr[GPR_RAX] = MAGIC - 1;
    assert_int_equal(port(port_dev, &vcpu, 0, 4, false, &value), HV_OK);
    assert_int_equal(value, UINT32_MAX);
    assert_int_equal(port(port_dev, &vcpu, 0, 4, true, &value), HV_OK);
    /* Not on the fast path. */
    vcpu.gpr[GPR_RAX] = MAGIC;
    vcpu.in_guest = 1;
    assert_int_equal(port(port_dev, &vcpu, 0, 4, false, &value), HV_EAGAIN);
    vcpu.in_guest = 0;
    /* No such device without the identity. */
    struct vmballoon *none = device;

    vm.config.identity = IDENTITY_NONE;
    assert_int_equal(vmballoon_create(&vm, &none), HV_OK);
    assert_null(none);
    stop();
}

static void start_grants_what_it_can(void **state)
{
    (void)state;
    start();
    assert_int_equal(call(6, 1, 1), 1);
    assert_int_equal(call(2, 1, 1), 7);
    assert_int_equal(start_driver(), 0x2e);
    assert_int_equal(call(0, 0x1e, 0), 0x03000000);
    assert_int_equal(vcpu.gpr[GPR_RCX], 0x0e);
    assert_int_equal(call(0, 2, 0), 0);
    assert_int_equal(call(6, 1, 1), 1);
    assert_int_equal(call(0, 0x0a, 0), 0); /* 2 MiB without batches */
    assert_int_equal(call(8, 1, 1), 1);
    assert_int_equal(call(10, UINT64_MAX, UINT64_MAX), 1);
    assert_int_equal(call(5, 0, 0), 1);
    assert_int_equal(call(11, 0, 0), 1);
    assert_int_equal(call(4, 1, 0), 0);
    stop();
}

static void single_pages(void **state)
{
    void *pin;

    (void)state;
    start();
    start_driver();
    touch(5, 99);
    assert_int_equal(call(2, 5, 1), 0);
    assert_int_equal(call(2, 5, 1), 3);
    assert_int_equal(call(2, HOLE, 1), 2);
    assert_int_equal(call(2, UINT64_MAX, 1), 2);
    assert_int_equal(call(3, 6, 1), 4);
    assert_int_equal(call(3, HOLE, 1), 2);
    assert_int_equal(call(3, 5, 1), 0);
    assert_int_equal(p2m_get(vm.p2m, GFN(1), P2M_WRITE, &pin), HV_OK);
    assert_int_equal(call(2, 1, 1), 5);
    p2m_put(vm.p2m, GFN(1), pin);
    /* All that it may, and no more. */
    for (uint64_t gfn = 512; gfn < HOLE; gfn++) {
        assert_int_equal(call(2, gfn, 1), 0);
    }
    for (uint64_t gfn = HOLE_END; look().size < ALIGN_UP(look().max, 512); gfn++) {
        assert_int_equal(call(2, gfn, 1), 0);
    }
    assert_int_equal(call(2, RAM - 1, 1), 6);
    assert_true(look().refused > 0);
    stop();
}

static uint64_t entries[512];

static uint64_t send(uint64_t command, uint64_t batch_gfn, uint64_t nr)
{
    uint64_t *page, status;

    assert_int_equal(p2m_get(vm.p2m, GFN(batch_gfn), P2M_WRITE, (void **)&page), HV_OK);
    memcpy(page, entries, sizeof(entries));
    p2m_put(vm.p2m, GFN(batch_gfn), page);
    status = call(command, batch_gfn, nr);
    if (p2m_peek(vm.p2m, GFN(batch_gfn)) != NULL) {
        memcpy(entries, p2m_peek(vm.p2m, GFN(batch_gfn)), sizeof(entries));
    }
    return status;
}

static void batches(void **state)
{
    const uint64_t batch = 1024 + 17;

    (void)state;
    start();
    start_driver();
    assert_int_equal(send(6, batch, 0), 1);
    assert_int_equal(send(6, batch, 513), 1);
    assert_int_equal(call(6, HOLE, 1), 2);
    touch(600, 7);
    entries[0] = 600 << 12;
    entries[1] = 600 << 12 | 0x1f;
    entries[2] = 601 << 12 | 0x40;
    entries[3] = HOLE << 12;
    entries[4] = batch << 12;
    entries[5] = (batch + 1) << 12; /* a neighbour in the same large page */
    assert_int_equal(send(6, batch, 6), 0);
    assert_int_equal(entries[0], 600 << 12);
    assert_int_equal(entries[1], 600 << 12 | 3);
    assert_int_equal(entries[2] & 0x1f, 2);
    assert_int_equal(entries[3] & 0x1f, 2);
    assert_int_equal(entries[4] & 0x1f, 5);
    assert_int_equal(entries[5] & 0x1f, 0);
    assert_int_equal(look().size, 2);
    assert_int_equal(call(6, 600, 1), 2); /* a page that was given up */
    /* 2 MiB. */
    touch(2048, 7);
    entries[0] = 2048 << 12;
    entries[1] = 2049 << 12;
    entries[2] = 512 << 12;  /* 600 is out */
    entries[3] = 1024 << 12; /* the batch is in there */
    entries[4] = HOLE << 12;
    entries[5] = 1536 << 12; /* untouched */
    assert_int_equal(send(8, batch, 6), 0);
    assert_int_equal(entries[0] & 0x1f, 0);
    assert_int_equal(entries[1] & 0x1f, 2);
    assert_int_equal(entries[2] & 0x1f, 3);
    assert_int_equal(entries[3] & 0x1f, 5);
    assert_int_equal(entries[4] & 0x1f, 2);
    assert_int_equal(entries[5] & 0x1f, 0);
    assert_int_equal(look().size, 2 + 1024);
    entries[1] = 512 << 12;
    assert_int_equal(send(9, batch, 2), 0);
    assert_int_equal(entries[0] & 0x1f, 0);
    assert_int_equal(entries[1] & 0x1f, 4);
    entries[0] = 600 << 12;
    assert_int_equal(send(7, batch, 2), 0);
    assert_int_equal(entries[0] & 0x1f, 0);
    assert_int_equal(look().size, 1 + 512);
    stop();
}

/* ---- What can go wrong in the middle ---- */

static uint64_t seen_by_other;
static uint64_t given_in_between;

static void call_in_between(void)
{
    seen_by_other = call_by(&other_vcpu, 1, 0, 0);
}

static void give_in_between(void)
{
    struct p2m_balloon_batch b;

    test_env.on_relax = NULL;
    p2m_balloon_begin(&b, vm.p2m);
    assert_int_equal(p2m_balloon(&b, GFN(given_in_between), ORDER_4K), HV_OK);
    p2m_balloon_end(&b);
}

static void others_and_failures(void **state)
{
    const uint64_t batch = 1041;

    (void)state;
    start();
    start_driver();
    /* Another vCPU calls while a batch is under way. */
    touch(batch, 0);
    entries[0] = 700 << 12;
    seen_by_other = 0;
    test_env.on_relax = call_in_between;
    assert_int_equal(send(6, batch, 1), 0);
    test_env.on_relax = NULL;
    assert_int_equal(seen_by_other, 8);
    assert_int_equal(entries[0] & 0x1f, 0);
    /* The batch page goes before the statuses are written: start anew. */
    entries[0] = 701 << 12;
    given_in_between = batch;
    test_env.on_relax = give_in_between;
    assert_int_equal(send(6, batch, 1), 7);
    assert_int_equal(call(1, 0, 0), 7);
    start_driver();
    assert_int_equal(look().size, 0);
    told();
    /* No memory to split a page, to have the batch, to build the device. */
    touch(2048, 1);
    test_env.fail_rate = 1;
    assert_int_equal(call(2, 2050, 1), 8);
    assert_int_equal(call_in_vain(6, 3000, 1), HV_ENOMEM);
    struct vmballoon *no_device;
    struct balloon *no_balloon;

    assert_int_equal(vmballoon_create(&vm, &no_device), HV_ENOMEM);
    assert_int_equal(balloon_create(VM_ID, &no_balloon), HV_ENOMEM);
    test_env.fail_rate = 0;
    assert_int_equal(call(2, 2050, 1), 0);
    stop();
}

/* The batch's page is the guest's choice: one that is not in memory waits its turn for a frame, as the vCPU's other
 * accesses do. */
static void batch_waits_its_turn(void **state)
{
    struct p2m_counters before, after;

    (void)state;
    start();
    start_driver();
    touch(1041, 0);
    p2m_counters(vm.p2m, &before);
    in_line = true;
    for (uint64_t gfn = 3000; gfn < 3010; gfn++) {
        assert_int_equal(call_in_vain(7, gfn, 1), HV_ENOMEM);
    }
    p2m_counters(vm.p2m, &after);
    assert_int_equal(after.consumed, before.consumed);
    entries[0] = 700 << 12;
    assert_int_equal(send(6, 1041, 1), 0);
    assert_int_equal(entries[0] & 0x1f, 0);
    in_line = false;
    assert_int_equal(call(7, 3000, 1), 0);
    stop();
}

/* The VM starts again in mid-balloon: fresh memory, no driver. */
static void restart_in_between(void **state)
{
    (void)state;
    start();
    start_driver();
    assert_int_equal(call(2, 700, 1), 0);
    vmballoon_reset(&vm, device);
    assert_false(look().present);
    assert_int_equal(call(1, 0, 0), 7);
    assert_int_equal(call(6, 5, 1), 1);
    start_driver();
    assert_int_equal(look().size, 0);
    assert_int_equal(look().resets, 0);
    stop();
}

/* A virtio driver has no way to start anew: what it touches is its guest's again, and a strike. */
static void virtio_is_not_reset(void **state)
{
    const struct balloon_guest g = {.known = BIT(BALLOON_STAT_FREE),
                                    .value[BALLOON_STAT_FREE] = 4711};
    struct balloon_giving giving;

    (void)state;
    start();
    ballooning_set_limits(&vm);
    balloon_start(vm.balloon, vm.p2m, BALLOON_VIRTIO, now);
    for (unsigned i = 0; i < BALLOON_STRIKES; i++) {
        assert_false(look().distrusted);
        balloon_give_begin(vm.balloon, vm.p2m, &giving);
        assert_int_equal(balloon_give(&giving, GFN(10 + i), ORDER_4K), HV_OK);
        balloon_give_end(&giving);
        assert_int_equal(look().size, 1);
        touch(10 + i, 1);
        assert_true(balloon_heard(vm.balloon, vm.p2m, now));
        assert_true(balloon_heard(vm.balloon, vm.p2m, now));
        assert_int_equal(look().size, 0);
    }
    assert_true(look().distrusted);
    assert_int_equal(look().resets, 0);
    assert_int_equal(look().driver, BALLOON_VIRTIO);
    balloon_set_guest(vm.balloon, &g);
    balloon_note_reported(vm.balloon, 512);
    assert_int_equal(look().guest.value[BALLOON_STAT_FREE], 4711);
    assert_int_equal(look().reported, 512);
    balloon_reset(vm.balloon);
    assert_int_equal(look().guest.known, 0);
    stop();
}

/* The port is not there for VMs that are to have another balloon. */
static void other_balloons(void **state)
{
    struct ballooning_reports rules;
    struct vmballoon *none = device;

    (void)state;
    start();
    vm.config.balloon = BALLOON_KEY_VIRTIO;
    assert_int_equal(vmballoon_create(&vm, &none), HV_OK);
    assert_null(none);
    assert_int_equal(options_set(OPT_PAGE_REPORT_DELAY, 250), HV_OK);
    assert_int_equal(options_set(OPT_PAGE_REPORT_ORDER, 9), HV_OK);
    ballooning_report_rules(&rules);
    assert_int_equal(rules.order, 9);
    assert_int_equal(rules.delay_ns, 250000000);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(most_by_the_options),
        cmocka_unit_test(ramp_up_down_at_once),
        cmocka_unit_test(stuck_guests_get_relief),
        cmocka_unit_test(taking_unasked_is_distress),
        cmocka_unit_test(silent_driver_counts_as_none),
        cmocka_unit_test(liars_are_not_believed),
        cmocka_unit_test(only_calls_are_calls),
        cmocka_unit_test(start_grants_what_it_can),
        cmocka_unit_test(single_pages),
        cmocka_unit_test(batches),
        cmocka_unit_test(others_and_failures),
        cmocka_unit_test(restart_in_between),
        cmocka_unit_test(batch_waits_its_turn),
        cmocka_unit_test(virtio_is_not_reset),
        cmocka_unit_test(other_balloons),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A call is IN EAX, DX with DX = 0x5670, EAX = the magic number, ECX = the command, RBX and RSI its
 * arguments. EAX returns the status, RBX the result: after each successful command about pages or
 * targets, what the driver is to hold. Anything else on the port reads as all ones.
 *
 * Commands may take long, so they all run off the fast path, on the thread of the vCPU that calls. The
 * stock driver sends one at a time; where two vCPUs call at once, one is told that the balloon is busy.
 *
 * A batch is a page of the guest's that holds pages to lock or unlock. It is read whole before the
 * first effect and written back whole at the end; in between it is not pinned, for that would hold on
 * to all of a large page around it. So a batch may not lock itself.
 */
#include "kernel/devices/vmballoon.h"

#include "arch/x86_64/clock.h"
#include "kernel/devices/bus.h"
#include "kernel/lib/ratelimit.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/vm.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/slab.h"

#define CALL_PORT 0x5670
#define CALL_MAGIC 0x456c6d6fu
#define NOT_A_CALL UINT32_MAX

enum command {
    CMD_START = 0,
    CMD_GET_TARGET = 1,
    CMD_LOCK = 2,
    CMD_UNLOCK = 3,
    CMD_GUEST_ID = 4,
    CMD_BATCHED_LOCK = 6,
    CMD_BATCHED_UNLOCK = 7,
    CMD_BATCHED_2M_LOCK = 8,
    CMD_BATCHED_2M_UNLOCK = 9,
    CMD_DOORBELL_SET = 10
};

enum status {
    STATUS_OK = 0,
    STATUS_BAD_COMMAND = 1,
    STATUS_INVALID = 2, /* page number */
    STATUS_LOCKED = 3,  /* already */
    STATUS_NOT_LOCKED = 4,
    STATUS_PINNED = 5,
    STATUS_NOT_NEEDED = 6,
    STATUS_RESET = 7, /* free everything and start anew */
    STATUS_BUSY = 8,
    STATUS_CAPABILITIES = 0x03000000 /* started, capabilities in RCX */
};

#define CAN_BASIC BIT(1)
#define CAN_BATCHED BIT(2)
#define CAN_BATCHED_2M BIT(3)
#define CAN_64BIT BIT(5)
#define CAN_ALL (CAN_BASIC | CAN_BATCHED | CAN_BATCHED_2M | CAN_64BIT) /* no wake-up by doorbell */

#define BATCH_MOST (PAGE_SIZE / sizeof(uint64_t))
#define ENTRY_STATUS 0x1full
#define ENTRY_RESERVED 0xfe0ull
#define RELAX_EVERY 32u /* entries */

#define LOG_BURST 6
#define LOG_INTERVAL_NS 10000000000ull

struct vmballoon {
    struct vm *vm;
    bool busy; /* atomic: a vCPU is in a command, and all below is its */
    uint64_t capabilities;
    struct ratelimit limit; /* of lines about drivers, in ns */
    uint64_t batch[BATCH_MOST];
};

/* A command under way. */
struct call {
    struct vmballoon *d;
    struct vcpu *v;
    uint32_t command;
    uint64_t arg1, arg2;
    uint64_t now_ns;
};

static void log_driver(struct vmballoon *d, const char *what)
{
    uint32_t suppressed = 0;

    if (ratelimit_take(&d->limit, clock_now_ns(), &suppressed)) {
        log_info("vm %s: balloon driver %s (%u lines like it not shown)", d->vm->config.name, what,
                 suppressed);
    }
}

/* The status of a lock, and of an unlock, by what the balloon said. */
static enum status lock_status(enum hv_err err)
{
    switch (err) {
    case HV_OK:
        return STATUS_OK;
    case HV_EEXIST:
        return STATUS_LOCKED;
    case HV_EBUSY:
        return STATUS_PINNED;
    case HV_ERANGE:
        return STATUS_NOT_NEEDED;
    case HV_ENOMEM:
        return STATUS_BUSY;
    default:
        return STATUS_INVALID;
    }
}

static enum status unlock_status(enum hv_err err)
{
    return err == HV_EEXIST ? STATUS_NOT_LOCKED : lock_status(err);
}

/* ---- START ---- */

static enum status start(const struct call *c)
{
    struct vmballoon *d = c->d;
    struct vm *vm = d->vm;
    uint64_t before = d->capabilities;

    d->capabilities = c->arg1 & CAN_ALL;
    if (!(d->capabilities & CAN_BATCHED)) {
        d->capabilities &= ~CAN_BATCHED_2M;
    }
    if (c->arg1 == 0) {
        balloon_stop(vm->balloon, vm->p2m);
        log_driver(d, "stopped");
        /* A driver that stops frees its pages after this answer, by the sizes that the answer grants: the
         * stock one would keep its 2 MiB pages, and look for them for ever. */
        if (!(before & ~CAN_BASIC)) {
            return STATUS_OK;
        }
        c->v->gpr[GPR_RCX] = before;
        return STATUS_CAPABILITIES;
    }
    balloon_start(vm->balloon, vm->p2m, BALLOON_VMWARE, c->now_ns);
    log_driver(d, d->capabilities & CAN_BATCHED_2M ? "started: batched, 2 MiB pages"
                  : d->capabilities & CAN_BATCHED  ? "started: batched"
                                                   : "started: basic");
    if (!(d->capabilities & ~CAN_BASIC)) {
        return STATUS_OK;
    }
    c->v->gpr[GPR_RCX] = d->capabilities;
    return STATUS_CAPABILITIES;
}

/* ---- Pages ---- */

static enum status lock_one(const struct call *c)
{
    struct vm *vm = c->d->vm;
    struct balloon_giving giving;

    balloon_give_begin(vm->balloon, vm->p2m, &giving);
    enum hv_err err = balloon_give(&giving, GFN(c->arg1), ORDER_4K);
    balloon_give_end(&giving);
    return lock_status(err);
}

static enum status unlock_one(const struct call *c)
{
    struct vm *vm = c->d->vm;

    return unlock_status(balloon_take(vm->balloon, vm->p2m, GFN(c->arg1), ORDER_4K, c->now_ns));
}

/* Copy the batch page. HV_ENOENT: no page to be used for it. HV_EAGAIN, HV_ENOMEM as p2m_get. The vCPU waits for
 * its turn where the page is anywhere but in memory; but not once the work is done. */
static enum hv_err copy_batch(const struct call *c, bool back)
{
    struct p2m *p2m = c->d->vm->p2m;
    uint32_t access = P2M_WRITE | (back ? 0 : memwait_access(c->v));
    size_t bytes = c->arg2 * sizeof(uint64_t);
    struct p2m_entry e;
    void *page;

    p2m_query(p2m, GFN(c->arg1), &e);
    if (e.state == P2M_BALLOONED) {
        return HV_ENOENT;
    }
    enum hv_err err = p2m_get(p2m, GFN(c->arg1), access, &page);
    if (err != HV_OK) {
        return err;
    }
    if (back) {
        memcpy(page, c->d->batch, bytes);
    } else {
        memcpy(c->d->batch, page, bytes);
    }
    p2m_put(p2m, GFN(c->arg1), page);
    return HV_OK;
}

static enum status lock_entry(const struct call *c, struct balloon_giving *g, gfn_t gfn,
                              unsigned order)
{
    if (c->arg1 - gfn.n < BIT(order)) {
        return STATUS_PINNED; /* the batch itself */
    }
    return lock_status(balloon_give(g, gfn, order));
}

static void do_batch(const struct call *c, bool lock, unsigned order)
{
    struct vm *vm = c->d->vm;
    struct balloon_giving giving;

    balloon_give_begin(vm->balloon, vm->p2m, &giving);
    for (uint64_t i = 0; i < c->arg2; i++) {
        uint64_t entry = c->d->batch[i];
        gfn_t gfn = GFN(entry >> PAGE_SHIFT);
        enum status s = STATUS_INVALID;

        if (entry & ENTRY_RESERVED) {
            /* as it is */
        } else if (lock) {
            s = lock_entry(c, &giving, gfn, order);
        } else {
            s = unlock_status(balloon_take(vm->balloon, vm->p2m, gfn, order, c->now_ns));
        }
        c->d->batch[i] = (entry & ~ENTRY_STATUS) | s;
        if (order != ORDER_4K || i % RELAX_EVERY == 0) {
            env_relax();
        }
    }
    balloon_give_end(&giving);
}

/* *lacks HV_EAGAIN or HV_ENOMEM: nothing was done; the whole command is to be repeated when there is the page. */
static enum status batch(const struct call *c, bool lock, unsigned order, enum hv_err *lacks)
{
    enum hv_err err;

    if (c->arg2 == 0 || c->arg2 > BATCH_MOST) {
        return STATUS_BAD_COMMAND;
    }
    err = copy_batch(c, false);
    if (err != HV_OK) {
        *lacks = err == HV_EAGAIN || err == HV_ENOMEM ? err : HV_OK;
        return lock_status(err);
    }
    do_batch(c, lock, order);
    if (copy_batch(c, true) != HV_OK) {
        /* What became of its pages the driver will never know. */
        balloon_require_start(c->d->vm->balloon);
        return STATUS_RESET;
    }
    return STATUS_OK;
}

/* ---- Commands ---- */

static bool is_known(const struct vmballoon *d, uint32_t command)
{
    switch (command) {
    case CMD_START:
    case CMD_GET_TARGET:
    case CMD_LOCK:
    case CMD_UNLOCK:
    case CMD_GUEST_ID:
        return true;
    case CMD_BATCHED_LOCK:
    case CMD_BATCHED_UNLOCK:
        return d->capabilities & CAN_BATCHED;
    case CMD_BATCHED_2M_LOCK:
    case CMD_BATCHED_2M_UNLOCK:
        return d->capabilities & CAN_BATCHED_2M;
    default:
        return false;
    }
}

static enum status run_command(const struct call *c, enum hv_err *lacks)
{
    switch (c->command) {
    case CMD_LOCK:
        return lock_one(c);
    case CMD_UNLOCK:
        return unlock_one(c);
    case CMD_BATCHED_LOCK:
        return batch(c, true, ORDER_4K, lacks);
    case CMD_BATCHED_UNLOCK:
        return batch(c, false, ORDER_4K, lacks);
    case CMD_BATCHED_2M_LOCK:
        return batch(c, true, ORDER_2M, lacks);
    case CMD_BATCHED_2M_UNLOCK:
        return batch(c, false, ORDER_2M, lacks);
    default:
        return STATUS_OK;
    }
}

static enum status carry_out(const struct call *c, enum hv_err *lacks)
{
    struct vm *vm = c->d->vm;
    enum status s;

    if (c->command == CMD_START) {
        ballooning_set_limits(vm);
        return start(c);
    }
    /* What the driver asked for decides, so before it has started no batch is known. */
    if (!is_known(c->d, c->command)) {
        return STATUS_BAD_COMMAND;
    }
    if (!balloon_heard(vm->balloon, vm->p2m, c->now_ns)) {
        return STATUS_RESET;
    }
    ballooning_set_limits(vm);
    s = run_command(c, lacks);
    if (s == STATUS_OK && c->command != CMD_GUEST_ID) {
        c->v->gpr[GPR_RBX] =
            balloon_poll(vm->balloon, vm->p2m, c->command == CMD_GET_TARGET, c->now_ns);
    }
    return s;
}

static enum hv_err access_port(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vmballoon *d = dev;
    struct call c = {.d = d, .v = v};
    enum hv_err lacks = HV_OK;

    (void)offset;
    if (write) {
        return HV_OK;
    }
    *value = NOT_A_CALL;
    if (size != 4 || (uint32_t)v->gpr[GPR_RAX] != CALL_MAGIC) {
        return HV_OK;
    }
    if (vcpu_in_section(v)) {
        return HV_EAGAIN;
    }
    if (__atomic_exchange_n(&d->busy, true, __ATOMIC_ACQUIRE)) {
        *value = STATUS_BUSY;
        return HV_OK;
    }
    c.command = (uint32_t)v->gpr[GPR_RCX];
    c.arg1 = v->gpr[GPR_RBX];
    c.arg2 = v->gpr[GPR_RSI];
    c.now_ns = clock_now_ns();
    *value = carry_out(&c, &lacks);
    __atomic_store_n(&d->busy, false, __ATOMIC_RELEASE);
    return lacks;
}

/* ---- Life ---- */

enum hv_err vmballoon_create(struct vm *vm, struct vmballoon **out)
{
    struct vmballoon *d;

    *out = NULL;
    if (vm->config.identity != IDENTITY_VMWARE || vm->config.balloon != BALLOON_KEY_VMWARE) {
        return HV_OK;
    }
    d = kmalloc(sizeof(*d), vm->id);
    if (d == NULL) {
        return HV_ENOMEM;
    }
    d->vm = vm;
    ratelimit_init(&d->limit, LOG_BURST, LOG_INTERVAL_NS);
    *out = d;
    return bus_add_ports(vm->bus, CALL_PORT, 1, "balloon", access_port, d);
}

void vmballoon_destroy(struct vmballoon *d)
{
    kfree(d);
}

void vmballoon_reset(struct vm *vm, struct vmballoon *d)
{
    if (d != NULL) {
        d->capabilities = 0;
    }
    balloon_reset(vm->balloon);
}

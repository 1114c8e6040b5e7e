/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Life and thread of a virtio device; see vmmio.h. The thread sleeps until an event (a queue's
 * notification, the driver's start, a tick), then serves the queues that were notified, a bounded number
 * of chains of one before it looks at the others. It is at work (`working`) only while nobody holds it.
 *
 * A page that is on its way back or memory that lacks makes it let go of everything it has pinned, wait,
 * and begin the chain anew. Who holds the thread wakes it from such waits.
 */
#include "kernel/devices/vmmio.h"

#include "arch/x86_64/clock.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vmmio_internal.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/swapping.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define CHAINS_AT_ONCE 64u
#define PAUSED_LOOK_NS 100000000ull
#define LOG_BURST 4
#define LOG_INTERVAL_NS 10000000000ull

/* ---- Events ---- */

void vmmio_event(struct vmmio *m, uint32_t events)
{
    uint32_t before = __atomic_fetch_or(&m->events, events, __ATOMIC_SEQ_CST);

    if ((before & events) != events) {
        thread_wake(m->thread);
    }
}

void vmmio_kick(struct vmmio *m, unsigned queue)
{
    vmmio_event(m, (uint32_t)BIT(queue));
}

static void on_timer(struct timer *t)
{
    struct vmmio *m = list_entry(t, struct vmmio, timer);

    if (!vm_has_ended(m->vm)) {
        vmmio_event(m, (uint32_t)EVENT_TICK);
    }
}

static void arm(struct vmmio *m)
{
    if (m->ops->tick_ns != 0) {
        timer_arm(&m->timer, rdtsc() + clock_ns_to_tsc(m->ops->tick_ns));
    }
}

/* ---- Holding the thread ---- */

bool vmmio_is_stopping(const struct vmmio *m)
{
    return __atomic_load_n(&m->held, __ATOMIC_ACQUIRE) ||
           __atomic_load_n(&m->ending, __ATOMIC_ACQUIRE);
}

static bool is_live(const struct vmmio *m)
{
    return __atomic_load_n(&m->live, __ATOMIC_ACQUIRE);
}

static bool try_hold(struct vmmio *m)
{
    spin_lock(&m->lock);
    bool mine = !m->held;
    __atomic_store_n(&m->held, true, __ATOMIC_RELEASE);
    spin_unlock(&m->lock);
    return mine;
}

void vmmio_hold(struct vmmio *m)
{
    waitq_wait(&m->wait, try_hold(m));
    thread_wake(m->thread);
    waitq_wait(&m->wait, !__atomic_load_n(&m->working, __ATOMIC_ACQUIRE));
}

void vmmio_let_go(struct vmmio *m)
{
    spin_lock(&m->lock);
    __atomic_store_n(&m->held, false, __ATOMIC_RELEASE);
    spin_unlock(&m->lock);
    waitq_wake_all(&m->wait);
    thread_wake(m->thread);
}

/* Everything but the features that are offered, and the configuration space. */
static void forget(struct vmmio *m)
{
    __atomic_store_n(&m->live, false, __ATOMIC_RELEASE);
    m->status = m->interrupt = 0;
    m->feature_select = m->driver_select = m->queue_select = 0;
    m->accepted = 0;
    m->hope = (struct memwait_hope){0};
    __atomic_store_n(&m->events, 0, __ATOMIC_RELAXED);
    memset(m->queue, 0, sizeof(m->queue));
    for (unsigned i = 0; i < VMMIO_QUEUES_MAX; i++) {
        m->ring[i].ranges = false;
        m->ring[i].ring.ready = false;
        m->queue[i].size = VRING_SIZE_MAX;
    }
    vmmio_update_line(m);
}

void vmmio_reset_held(struct vmmio *m)
{
    timer_cancel(&m->timer);
    spin_lock(&m->lock);
    forget(m);
    spin_unlock(&m->lock);
    if (m->ops->reset != NULL) {
        m->ops->reset(m->dev);
    }
}

void vmmio_reset(struct vmmio *m)
{
    if (m != NULL) {
        vmmio_hold(m);
        vmmio_reset_held(m);
        vmmio_let_go(m);
    }
}

/* ---- Wrong drivers ---- */

void vmmio_broken(struct vmmio *m, const char *what)
{
    uint32_t suppressed = 0;

    spin_lock(&m->lock);
    m->status |= STATUS_NEEDS_RESET;
    __atomic_store_n(&m->live, false, __ATOMIC_RELEASE);
    if (m->status & STATUS_DRIVER_OK) {
        vmmio_interrupt(m, INTERRUPT_CONFIG);
    }
    spin_unlock(&m->lock);
    if (ratelimit_take(&m->limit, clock_now_ns(), &suppressed)) {
        log_info(
            "vm %s: virtio %s: the driver is wrong: %s; the device needs a reset (%u lines like "
            "it not shown)",
            m->vm->config.name, m->ops->name, what, suppressed);
    }
}

static void broken_queue(struct vmmio *m, unsigned queue, const char *why)
{
    char text[VRING_WHY_MAX + 16];

    scnprintf(text, sizeof(text), "queue %u: %s", queue, why);
    vmmio_broken(m, text);
}

/* ---- The thread ---- */

/* A page of the chain or the ring lacks; nothing is pinned. Back when it may be tried again, or somebody
 * wants the thread. */
static void wait_for(struct vmmio *m, enum hv_err err, gfn_t lacking)
{
    struct vm *vm = m->vm;

    if (err == HV_EAGAIN) {
        m->hope.turn -= m->hope.turn != 0; /* as a vCPU's exits that come to no end */
        swapping_wait(vm, NULL, lacking);
    } else if (err == HV_ENOMEM) {
        if (!memwait_nap(&m->hope)) {
            vm_stop_request(vm, STOP_NO_MEMORY, 0,
                            "no machine memory left for guest page 0x%llx, which a device uses",
                            (unsigned long long)gfn_gpa(lacking).a);
            __atomic_store_n(&m->live, false, __ATOMIC_RELEASE);
        }
    } else {
        swapping_failed(vm, lacking);
        do {
            thread_sleep_ns(PAUSED_LOOK_NS);
        } while (!vmmio_is_stopping(m) && vm->state == VM_PAUSED);
    }
}

static void push(struct vmmio *m, struct vring *r, uint16_t head, uint32_t written)
{
    vring_push(r, head, written);
    __atomic_fetch_add(&m->served, 1, __ATOMIC_RELAXED);
    if (vring_wants_interrupt(r)) {
        spin_lock(&m->lock);
        vmmio_interrupt(m, INTERRUPT_RING);
        spin_unlock(&m->lock);
    }
}

static enum hv_err serve_one(struct vmmio *m, unsigned queue)
{
    struct ring_state *s = &m->ring[queue];
    struct vring_chain *c = &m->chain;
    uint32_t written = 0;
    enum hv_err err;

    if (m->ops->ready != NULL && !m->ops->ready(m->dev, queue)) {
        return HV_EBUSY;
    }
    s->ring.how = memwait_access_thread(&m->hope);
    err = vring_pop(&s->ring, c, !s->ranges);
    if (err != HV_OK) {
        return err;
    }
    err = m->ops->serve(m->dev, queue, &s->ring, c, &written);
    if (err == HV_OK || err == HV_EEXIST || err == HV_EINVAL) {
        vring_release(c);
        m->hope = (struct memwait_hope){0}; /* it lacked nothing */
    } else {
        s->ring.lacking = gpa_gfn(GPA(c->nr_segs != 0 ? c->seg[0].gpa : 0));
        vring_undo(&s->ring, c);
    }
    if (err == HV_OK) {
        push(m, &s->ring, c->head, written);
    }
    return err;
}

/* Chains until there is none, or this queue has had its share. */
static enum hv_err serve_some(struct vmmio *m, unsigned queue)
{
    enum hv_err err = HV_OK;

    for (unsigned n = 0; n < CHAINS_AT_ONCE && err == HV_OK && !vmmio_is_stopping(m); n++) {
        err = serve_one(m, queue);
        sched_yield();
    }
    return err;
}

/* The ring's pages are asked for as the thread may at this moment. */
static enum hv_err map_ring(struct vmmio *m, struct vring *r)
{
    r->how = memwait_access_thread(&m->hope);
    return vring_map(r);
}

/*
 * Complete what is owed. Who wants the thread meanwhile, maybe for another queue, gets it: then it is owed
 * on. With a queue that is taken out or a device that needs a reset, the chain is forgotten.
 */
static void pay(struct vmmio *m, unsigned queue)
{
    struct ring_state *s = &m->ring[queue];

    while (s->owed && vmmio_queue_ready(m, queue) && is_live(m)) {
        enum hv_err err = map_ring(m, &s->ring);

        if (err == HV_OK) {
            push(m, &s->ring, s->owed_head, s->owed_written);
            vring_unmap(&s->ring);
            m->hope = (struct memwait_hope){0};
            s->owed = false;
        } else if (err == HV_EINVAL) {
            broken_queue(m, queue, s->ring.why);
        } else if (vmmio_is_stopping(m)) {
            vmmio_kick(m, queue); /* afterwards, if it is still there */
            return;
        } else {
            wait_for(m, err, s->ring.lacking);
        }
    }
    s->owed = false;
}

static void serve_queue(struct vmmio *m, unsigned queue)
{
    struct vring *r = &m->ring[queue].ring;
    bool again = false;

    pay(m, queue);
    if (!vmmio_queue_ready(m, queue) || m->ring[queue].owed) {
        return;
    }
    enum hv_err err = map_ring(m, r);
    if (err == HV_OK) {
        vring_notify(r, false);
        err = serve_some(m, queue);
        vring_notify(r, true);
        /* While a device has nothing for a chain, new ones change nothing. */
        again = err != HV_EBUSY && vring_pending(r);
        vring_unmap(r);
    }
    switch (err) {
    case HV_OK:
    case HV_ENOENT:
    case HV_EBUSY:
        m->hope = (struct memwait_hope){0};
        break;
    case HV_EEXIST:
        m->ops->kept(m->dev, queue);
        break;
    case HV_EINVAL:
        broken_queue(m, queue, r->why);
        return;
    default:
        again = true;
        if (!vmmio_is_stopping(m)) {
            wait_for(m, err, r->lacking);
        }
        break;
    }
    if (again) {
        vmmio_kick(m, queue);
    }
}

static void work(struct vmmio *m)
{
    uint32_t events = __atomic_exchange_n(&m->events, 0, __ATOMIC_SEQ_CST);

    if (events & EVENT_START) {
        if (m->ops->started != NULL) {
            m->ops->started(m->dev);
        }
        arm(m);
        events = UINT32_MAX & ~(uint32_t)EVENT_TICK; /* what was made available meanwhile counts */
    }
    if (events & EVENT_TICK) {
        m->ops->tick(m->dev);
        arm(m);
    }
    for (unsigned i = 0; i < m->ops->nr_queues && is_live(m); i++) {
        if (!(events & BIT(i))) {
            continue;
        }
        if (vmmio_is_stopping(m)) {
            vmmio_kick(m, i); /* afterwards, if it is still there */
        } else {
            serve_queue(m, i);
        }
    }
}

static bool begin(struct vmmio *m)
{
    spin_lock(&m->lock);
    bool go =
        m->live && !vmmio_is_stopping(m) && __atomic_load_n(&m->events, __ATOMIC_SEQ_CST) != 0;
    __atomic_store_n(&m->working, go, __ATOMIC_RELEASE);
    spin_unlock(&m->lock);
    return go;
}

bool vmmio_step(struct vmmio *m)
{
    if (!begin(m)) {
        return false;
    }
    work(m);
    spin_lock(&m->lock);
    __atomic_store_n(&m->working, false, __ATOMIC_RELEASE);
    spin_unlock(&m->lock);
    waitq_wake_all(&m->wait);
    return true;
}

static void vmmio_main(void *arg)
{
    struct vmmio *m = arg;

    while (!__atomic_load_n(&m->ending, __ATOMIC_ACQUIRE)) {
        if (vmmio_step(m)) {
            sched_yield();
        } else {
            thread_block();
        }
    }
}

/* ---- For devices ---- */

bool vmmio_has(const struct vmmio *m, uint64_t feature)
{
    return (m->accepted & feature) == feature;
}

bool vmmio_queue_ready(const struct vmmio *m, unsigned queue)
{
    return __atomic_load_n(&m->ring[queue].ring.ready, __ATOMIC_ACQUIRE);
}

void vmmio_set_ranges(struct vmmio *m, unsigned queue)
{
    m->ring[queue].ranges = true;
}

void vmmio_complete(struct vmmio *m, unsigned queue, uint16_t head, uint32_t written)
{
    struct ring_state *s = &m->ring[queue];

    s->owed = true;
    s->owed_head = head;
    s->owed_written = written;
    pay(m, queue);
}

void vmmio_config_write(struct vmmio *m, uint32_t offset, const void *src, size_t n)
{
    spin_lock(&m->lock);
    if (memcmp(m->config + offset, src, n) != 0) {
        memcpy(m->config + offset, src, n);
        m->generation++;
        if (m->live) {
            vmmio_interrupt(m, INTERRUPT_CONFIG);
        }
    }
    spin_unlock(&m->lock);
}

uint32_t vmmio_config_u32(struct vmmio *m, uint32_t offset)
{
    uint32_t value;

    spin_lock(&m->lock);
    memcpy(&value, m->config + offset, sizeof(value));
    spin_unlock(&m->lock);
    return value;
}

/* ---- For operators ---- */

static const char *driver_state(uint32_t status)
{
    if (status & STATUS_NEEDS_RESET) {
        return "wrong, to reset the device";
    }
    if (status & STATUS_FAILED) {
        return "gave up";
    }
    return status & STATUS_DRIVER_OK ? "ready" : status != 0 ? "starting" : "none yet";
}

void vmmio_state(const struct vmmio *m, struct vmmio_state *out)
{
    *out = (struct vmmio_state){
        .name = m->ops->name,
        .driver = driver_state(__atomic_load_n(&m->status, __ATOMIC_RELAXED)),
        .base = VMMIO_BASE + m->index * VMMIO_STRIDE,
        .gsi = VMMIO_GSI + m->index,
        .served = __atomic_load_n(&m->served, __ATOMIC_RELAXED),
    };
}

/* ---- Life ---- */

enum hv_err vmmio_create(struct vm *vm, const struct vmmio_ops *ops, void *dev, uint64_t features,
                         struct vmmio **out)
{
    struct vmmio *m = kmalloc(sizeof(*m), vm->id);
    char name[32];

    *out = m;
    if (m == NULL) {
        return HV_ENOMEM;
    }
    m->vm = vm;
    m->ops = ops;
    m->dev = dev;
    m->index = vm->nr_virtio;
    m->offered = features | FEATURE_VERSION_1 | FEATURE_INDIRECT;
    spin_init(&m->lock, RANK_DEVICE, ops->name);
    waitq_init(&m->wait);
    timer_init(&m->timer, on_timer);
    ratelimit_init(&m->limit, LOG_BURST, LOG_INTERVAL_NS);
    for (unsigned i = 0; i < VMMIO_QUEUES_MAX; i++) {
        m->ring[i].ring.vm = vm;
        m->queue[i].size = VRING_SIZE_MAX;
    }
    if (m->index == VMMIO_MAX) {
        return HV_ERANGE;
    }
    snprintf(name, sizeof(name), "%.22s/%.8s", vm->config.name, ops->name);
    enum hv_err err = thread_create(name, vmmio_main, m, vm->config.cpu_shares, vm->id, &m->thread);
    if (err != HV_OK) {
        return err;
    }
    err = bus_add_mmio(vm->bus, GPA(VMMIO_BASE + m->index * VMMIO_STRIDE), VMMIO_SIZE, ops->name,
                       vmmio_access, m);
    if (err == HV_OK) {
        vm->nr_virtio++;
        thread_start(m->thread);
    }
    return err;
}

void vmmio_destroy(struct vmmio *m)
{
    if (m == NULL) {
        return;
    }
    __atomic_store_n(&m->ending, true, __ATOMIC_RELEASE);
    if (m->thread != NULL) {
        thread_wake(m->thread);
        thread_join(m->thread);
    }
    timer_cancel(&m->timer);
    kfree(m);
}

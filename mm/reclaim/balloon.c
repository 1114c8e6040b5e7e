/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Targets, distress and trust of one balloon; see balloon.h. The set of pages is in the p2m
 * (mm/p2m_balloon.c), which also counts touches of them: a count that moved since the driver started
 * means that it has to start anew.
 *
 * Ramp. `told` follows the goal upwards by a twentieth of the VM a second, downwards at once, for a guest
 * that gets memory back needs it now.
 *
 * Distress. A driver that gives nothing more though it is told to, or takes back unasked, has a guest
 * without memory to spare: it gets a thirty-second part of the VM back, and rest.
 *
 * Trust. A driver that goes on using what it gave up, or starts again and again, frees nothing for
 * long. Each such event is a strike, forgotten after a while; with too many, the VM counts as one
 * without a driver and is told 0.
 *
 * Callers: devices that talk to drivers (kernel/devices/vmballoon.c, vballoon.c), kernel/vm/ballooning.c, tests.
 */
#include "mm/reclaim/balloon.h"

#include "kernel/lib/spinlock.h"
#include "mm/p2m.h"
#include "mm/slab.h"

#define RAMP_PARTS 20u /* of the VM, per second */
#define RAMP_LEAST 256u
#define RAMP_IDLE_NS (2 * BALLOON_SECOND_NS) /* a driver that asks seldom earns no more than that */
#define RELIEF_PARTS 32u
#define UNASKED_SLACK (2 * BALLOON_SLACK)

struct balloon {
    struct spinlock lock; /* all below */
    uint64_t ram, max;
    uint64_t wanted; /* by the policy */
    uint64_t hand;   /* by the operator, if by_hand */
    bool by_hand;

    enum balloon_driver driver;
    bool start_required;
    uint64_t heard_ns;
    uint64_t popped; /* the p2m's count when the driver started */

    uint64_t told, told_ns;        /* told_ns: up to when the ramp is paid out */
    uint64_t short_size, short_ns; /* it held less than told, so much, since then; 0: no */
    uint64_t relief_size, relief_until_ns, relief_ns; /* no more than that until then; how long */
    uint64_t distress_ns;

    unsigned strikes;
    uint64_t strike_ns; /* when the next one is forgotten, less BALLOON_FORGIVE_NS */
    bool distrusted;

    uint64_t starts, resets, distresses, given, taken, refused, reported;
    struct balloon_guest guest;
};

enum hv_err balloon_create(uint32_t owner, struct balloon **out)
{
    struct balloon *b = kmalloc(sizeof(*b), owner);

    if (b == NULL) {
        return HV_ENOMEM;
    }
    spin_init(&b->lock, RANK_DEVICE, "balloon");
    *out = b;
    return HV_OK;
}

void balloon_destroy(struct balloon *b)
{
    kfree(b);
}

/* Clocks are read before the lock is taken: another may have noted a later time. */
static uint64_t since(uint64_t now_ns, uint64_t then_ns)
{
    return now_ns > then_ns ? now_ns - then_ns : 0;
}

static uint64_t size_of(struct p2m *p)
{
    struct p2m_counters count;

    p2m_counters(p, &count);
    return count.ballooned;
}

/* ---- What is wanted ---- */

void balloon_set_limits(struct balloon *b, uint64_t ram, uint64_t max)
{
    spin_lock(&b->lock);
    b->ram = ram;
    b->max = MIN(max, ram);
    spin_unlock(&b->lock);
}

uint64_t balloon_most(uint64_t ram, uint64_t percent, uint64_t maxmemctl)
{
    return MIN(ram / 100 * percent + ram % 100 * percent / 100, maxmemctl);
}

void balloon_set_target(struct balloon *b, uint64_t pages)
{
    spin_lock(&b->lock);
    b->wanted = pages;
    spin_unlock(&b->lock);
}

void balloon_set_by_hand(struct balloon *b, uint64_t pages)
{
    spin_lock(&b->lock);
    b->by_hand = true;
    b->hand = pages;
    spin_unlock(&b->lock);
}

void balloon_set_auto(struct balloon *b)
{
    spin_lock(&b->lock);
    b->by_hand = false;
    spin_unlock(&b->lock);
}

static uint64_t target_of(const struct balloon *b)
{
    return MIN(b->by_hand ? b->hand : b->wanted, b->max);
}

static bool is_relieved(const struct balloon *b, uint64_t now_ns)
{
    return now_ns < b->relief_until_ns;
}

/* What the ramp leads to. */
static uint64_t goal_of(const struct balloon *b, uint64_t now_ns)
{
    uint64_t goal = b->distrusted ? 0 : target_of(b);

    return is_relieved(b, now_ns) ? MIN(goal, b->relief_size) : goal;
}

static uint64_t ramp_rate(const struct balloon *b)
{
    return MAX(b->ram / RAMP_PARTS, (uint64_t)RAMP_LEAST);
}

static void ramp(struct balloon *b, uint64_t now_ns)
{
    uint64_t goal = goal_of(b, now_ns);
    uint64_t rate = ramp_rate(b);

    if (goal > b->told) {
        uint64_t idle_ns = MIN(since(now_ns, b->told_ns), RAMP_IDLE_NS);
        uint64_t step = idle_ns * rate / BALLOON_SECOND_NS;

        b->told = MIN(goal, b->told + step);
        /* What is less than a page is paid out next time. */
        b->told_ns = now_ns - (idle_ns - step * BALLOON_SECOND_NS / rate);
    }
    if (goal <= b->told) {
        b->told = goal;
        b->told_ns = now_ns;
    }
}

/* ---- Distress ---- */

static void relieve(struct balloon *b, uint64_t size, uint64_t now_ns)
{
    if (is_relieved(b, now_ns)) {
        return;
    }
    if (b->distresses == 0 || since(now_ns, b->distress_ns) > BALLOON_CALM_NS) {
        b->relief_ns = BALLOON_RELIEF_NS;
    } else {
        b->relief_ns = MIN(2 * b->relief_ns, BALLOON_RELIEF_MOST_NS);
    }
    b->distresses++;
    b->distress_ns = now_ns;
    b->relief_size = size - MIN(size, MAX(b->ram / RELIEF_PARTS, (uint64_t)BALLOON_SLACK));
    b->relief_until_ns = now_ns + b->relief_ns;
    b->short_ns = 0;
}

void balloon_note_distress(struct balloon *b, uint64_t size, uint64_t now_ns)
{
    spin_lock(&b->lock);
    relieve(b, size, now_ns);
    spin_unlock(&b->lock);
}

/* It holds less than it was told, and no more than before, for too long. */
static void look_for_distress(struct balloon *b, uint64_t size, uint64_t now_ns)
{
    if (size + BALLOON_SLACK >= b->told) {
        b->short_ns = 0;
    } else if (b->short_ns == 0 || size > b->short_size) {
        b->short_ns = now_ns;
        b->short_size = size;
    } else if (since(now_ns, b->short_ns) >= BALLOON_STUCK_NS) {
        relieve(b, size, now_ns);
    }
}

/* ---- Trust ---- */

static void forgive(struct balloon *b, uint64_t now_ns)
{
    uint64_t nr = MIN(since(now_ns, b->strike_ns) / BALLOON_FORGIVE_NS, (uint64_t)b->strikes);

    b->strikes -= (unsigned)nr;
    b->strike_ns += nr * BALLOON_FORGIVE_NS;
    if (b->strikes == 0) {
        b->distrusted = false;
    }
}

static void strike(struct balloon *b, uint64_t now_ns)
{
    forgive(b, now_ns);
    if (b->strikes == 0) {
        b->strike_ns = now_ns;
    }
    if (b->strikes < 2 * BALLOON_STRIKES) {
        b->strikes++;
    }
    b->distrusted = b->distrusted || b->strikes >= BALLOON_STRIKES;
}

/* ---- The driver comes and goes ---- */

void balloon_reset(struct balloon *b)
{
    spin_lock(&b->lock);
    b->driver = BALLOON_NO_DRIVER;
    b->start_required = false;
    b->popped = 0;
    b->guest.known = 0;
    b->told = 0;
    b->short_ns = 0;
    b->relief_until_ns = 0;
    b->strikes = 0;
    b->distrusted = false;
    spin_unlock(&b->lock);
}

void balloon_start(struct balloon *b, struct p2m *p, enum balloon_driver driver, uint64_t now_ns)
{
    uint64_t had = size_of(p);
    struct p2m_counters count;

    p2m_unballoon_all(p);
    p2m_counters(p, &count);
    spin_lock(&b->lock);
    /* With nothing wrong, a driver ends before another starts. */
    if (had != 0 && !b->start_required) {
        strike(b, now_ns);
    }
    b->driver = driver;
    b->start_required = false;
    b->popped = count.popped;
    b->heard_ns = now_ns;
    b->told = 0;
    b->told_ns = now_ns;
    b->short_ns = 0;
    b->starts++;
    spin_unlock(&b->lock);
}

void balloon_stop(struct balloon *b, struct p2m *p)
{
    spin_lock(&b->lock);
    b->driver = BALLOON_NO_DRIVER;
    b->start_required = false;
    b->told = 0;
    b->short_ns = 0;
    spin_unlock(&b->lock);
    p2m_unballoon_all(p);
}

bool balloon_heard(struct balloon *b, struct p2m *p, uint64_t now_ns)
{
    struct p2m_counters count;
    bool good;

    p2m_counters(p, &count);
    spin_lock(&b->lock);
    b->heard_ns = now_ns;
    forgive(b, now_ns);
    if (b->driver != BALLOON_NO_DRIVER && !b->start_required && count.popped != b->popped) {
        if (b->driver == BALLOON_VIRTIO) {
            b->popped = count.popped;
        } else {
            b->start_required = true;
            b->resets++;
        }
        strike(b, now_ns);
    }
    good = b->driver != BALLOON_NO_DRIVER && !b->start_required;
    spin_unlock(&b->lock);
    return good;
}

void balloon_require_start(struct balloon *b)
{
    spin_lock(&b->lock);
    b->start_required = true;
    spin_unlock(&b->lock);
}

uint64_t balloon_poll(struct balloon *b, struct p2m *p, bool asked, uint64_t now_ns)
{
    uint64_t size = size_of(p);
    uint64_t told;

    spin_lock(&b->lock);
    if (asked) {
        look_for_distress(b, size, now_ns);
    }
    ramp(b, now_ns);
    told = b->told;
    spin_unlock(&b->lock);
    return told;
}

/* ---- Pages ---- */

void balloon_give_begin(struct balloon *b, struct p2m *p, struct balloon_giving *g)
{
    g->balloon = b;
    g->size = size_of(p);
    p2m_balloon_begin(&g->pages, p);
}

enum hv_err balloon_give(struct balloon_giving *g, gfn_t gfn, unsigned order)
{
    struct balloon *b = g->balloon;
    enum hv_err err = HV_ERANGE;
    uint64_t most;

    spin_lock(&b->lock);
    most = ALIGN_UP(b->max, BALLOON_SLACK);
    spin_unlock(&b->lock);
    if (g->size + BIT(order) <= most) {
        err = p2m_balloon(&g->pages, gfn, order);
    }
    g->size += err == HV_OK ? BIT(order) : 0;
    spin_lock(&b->lock);
    b->given += err == HV_OK ? BIT(order) : 0;
    b->refused += err != HV_OK ? BIT(order) : 0;
    spin_unlock(&b->lock);
    return err;
}

void balloon_give_end(struct balloon_giving *g)
{
    p2m_balloon_end(&g->pages);
}

enum hv_err balloon_take(struct balloon *b, struct p2m *p, gfn_t gfn, unsigned order,
                         uint64_t now_ns)
{
    enum hv_err err = p2m_unballoon(p, gfn, order);
    uint64_t size;

    if (err != HV_OK) {
        return err;
    }
    size = size_of(p);
    spin_lock(&b->lock);
    b->taken += BIT(order);
    if (size + UNASKED_SLACK < b->told) {
        relieve(b, size, now_ns);
    }
    spin_unlock(&b->lock);
    return HV_OK;
}

/* ---- Numbers ---- */

void balloon_set_guest(struct balloon *b, const struct balloon_guest *g)
{
    spin_lock(&b->lock);
    b->guest = *g;
    spin_unlock(&b->lock);
}

void balloon_note_reported(struct balloon *b, uint64_t pages)
{
    spin_lock(&b->lock);
    b->reported += pages;
    spin_unlock(&b->lock);
}

void balloon_read(struct balloon *b, uint64_t size, uint64_t now_ns, struct balloon_state *out)
{
    spin_lock(&b->lock);
    forgive(b, now_ns);
    *out = (struct balloon_state){
        .driver = b->driver,
        .by_hand = b->by_hand,
        .silent = b->driver != BALLOON_NO_DRIVER && since(now_ns, b->heard_ns) >= BALLOON_DEAD_NS,
        .distrusted = b->distrusted,
        .relieved = is_relieved(b, now_ns),
        .size = size,
        .target = target_of(b),
        .told = b->told,
        .max = b->max,
        .starts = b->starts,
        .resets = b->resets,
        .distresses = b->distresses,
        .given = b->given,
        .taken = b->taken,
        .refused = b->refused,
        .reported = b->reported,
        .guest = b->guest,
    };
    out->present = b->driver != BALLOON_NO_DRIVER && !out->silent && !out->distrusted;
    spin_unlock(&b->lock);
}

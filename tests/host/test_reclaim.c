/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The carrier against means that are honest, slow, deaf or lie. VMs are p2ms whose pages are touched for
 * real; what a means takes, it takes by the p2m's balloon.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/p2m_balloon.h"
#include "mm/pt/fmt_x86.h"
#include "mm/reclaim/reclaim.h"
#include "mm/view.h"
#include "tests/host/env.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define SECOND 1000000000ull
#define MAX_VMS 12u
#define RAM 8192ull

enum temper { HONEST, SLOW, LIAR, DEAF };

static struct vm {
    struct p2m *p2m;
    struct view *view;
    enum temper temper;
    uint64_t next; /* first page that was not given up */
    uint64_t asked[3], room;
    bool runs;
} vms[MAX_VMS];

static struct reclaim_options options;
static struct rng rng;

static struct vm *vm_of(struct p2m *p)
{
    for (unsigned i = 0; i < MAX_VMS; i++) {
        if (vms[i].p2m == p) {
            return &vms[i];
        }
    }
    fail_msg("an order for a VM that is gone");
    return NULL;
}

/* ---- Means ---- */

static uint64_t held(const struct vm *v)
{
    struct p2m_counters c;

    p2m_counters(v->p2m, &c);
    return c.consumed;
}

static uint64_t take(struct vm *v, uint64_t nr)
{
    struct p2m_balloon_batch b;
    uint64_t before = held(v);

    p2m_balloon_begin(&b, v->p2m);
    for (; nr > 0 && v->next < RAM; v->next++) {
        struct p2m_entry e;

        p2m_query(v->p2m, GFN(v->next), &e);
        if (e.state == P2M_PRIVATE) {
            assert_int_equal(p2m_balloon(&b, GFN(v->next), 0), HV_OK);
            nr--;
        }
    }
    p2m_balloon_end(&b);
    return before - held(v);
}

static void check_order(const struct vm *v, const struct reclaim_order *o)
{
    /* Nobody is asked to come below what he is owed. */
    assert_true(o->excess == 0 || o->excess <= held(v) - o->target || o->actions == ~0u);
    assert_true(o->excess == 0 || o->room == 0);
}

static void first_means(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a)
{
    struct vm *v = vm_of(p);

    check_order(v, o);
    v->asked[0] += o->excess;
    a->why = "nothing is alike";
}

static void asking_means(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a)
{
    struct vm *v = vm_of(p);

    check_order(v, o);
    v->asked[1] += o->excess;
    v->room += o->room;
    switch (v->temper) {
    case HONEST:
        a->taken = take(v, o->excess);
        break;
    case SLOW:
        take(v, MIN(o->excess, 16ull));
        a->pending = o->excess;
        break;
    case LIAR:
        a->pending = o->excess;
        break;
    case DEAF:
        a->deaf = true;
        a->why = "it has no driver";
        break;
    }
}

static void paging_means(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a)
{
    struct vm *v = vm_of(p);

    check_order(v, o);
    v->asked[2] += o->excess;
    a->taken = take(v, o->excess);
}

static const struct reclaim_means means[] = {
    {.name = "first", .action = MEM_DO_SHARE, .order = first_means},
    {.name = "asking", .action = MEM_DO_BALLOON, .order = asking_means},
    {.name = "paging",
     .action = MEM_DO_COMPRESS | MEM_DO_SWAP,
     .for_the_deaf = true,
     .order = paging_means},
};

/* ---- VMs ---- */

static void vm_begin(unsigned i, uint64_t min, uint64_t max, uint64_t shares, enum temper t)
{
    struct p2m_config cfg = {.owner = i + 1, .max_order = ORDER_4K};
    struct vm *v = &vms[i];
    char name[8];

    *v = (struct vm){.temper = t, .runs = true};
    snprintf(name, sizeof name, "vm%u", i);
    assert_int_equal(p2m_create(&cfg, &v->p2m), HV_OK);
    assert_int_equal(nested_create(v->p2m, &fmt_x86_npt, i + 1, &v->view), HV_OK);
    assert_int_equal(p2m_add_ram(v->p2m, GFN(0), RAM), HV_OK);
    const struct reclaim_setup s = {
        .name = name, .memory = RAM, .min = min, .max = max, .shares = shares, .seed = i};
    assert_int_equal(reclaim_join(v->p2m, &s), HV_OK);
}

static void vm_end(unsigned i)
{
    reclaim_leave(vms[i].p2m);
    reclaim_leave(vms[i].p2m);
    assert_false(reclaim_numbers(vms[i].p2m, &(struct reclaim_numbers){0}));
    assert_true(p2m_audit(vms[i].p2m));
    p2m_destroy(vms[i].p2m);
    vms[i].p2m = NULL;
}

/* Touch pages until it holds nr more; true: it got them. */
static bool touch(struct vm *v, uint64_t nr)
{
    for (uint64_t gfn = 0; nr > 0 && gfn < RAM; gfn++) {
        struct p2m_entry e;

        p2m_query(v->p2m, GFN(gfn), &e);
        if (e.state == P2M_PRIVATE) {
            continue;
        }
        if (p2m_populate(v->p2m, GFN(gfn), P2M_WRITE, &e) != HV_OK) {
            return false;
        }
        v->next = MIN(v->next, gfn);
        nr--;
    }
    return nr == 0;
}

static void guest(struct p2m *p, struct reclaim_guest *out)
{
    out->runs = vm_of(p)->runs;
}

static void forget_orders(void)
{
    for (unsigned i = 0; i < MAX_VMS; i++) {
        memset(vms[i].asked, 0, sizeof vms[i].asked);
        vms[i].room = 0;
    }
}

static void begin(void)
{
    static bool registered;

    env_start(BASE, NR_FRAMES, 2);
    memset(vms, 0, sizeof vms);
    for (unsigned i = 0; !registered && i < ARRAY_SIZE(means); i++) {
        reclaim_register(&means[i]);
    }
    registered = true;
    options = (struct reclaim_options){.states = MEM_STATES_CLASSIC,
                                       .min_free_pct = 10,
                                       .balance_ns = 1,
                                       .tax_pct = 75,
                                       .sample = {.size = 0}};
    for (unsigned i = 0; i < 8; i++) {
        (void)reclaim_look(&options); /* from where the test before left it */
    }
    assert_int_equal(reclaim_state(), MEM_HIGH);
}

static void look(void)
{
    (void)reclaim_look(&options);
    reclaim_sample(&options, guest);
    reclaim_balance(&options, "the test wants it");
}

static uint64_t goal(void)
{
    struct reclaim_host h;

    reclaim_host(&h);
    return h.goal;
}

static uint64_t target(const struct vm *v)
{
    struct reclaim_numbers n;

    assert_true(reclaim_numbers(v->p2m, &n));
    return n.target;
}

/* Some freed frames are not counted as free: those that processors keep at hand. */
#define AT_HAND 128u
static void bring_back(void)
{
    for (unsigned i = 0; i < 20 && buddy_free_frames() < goal(); i++) {
        (void)reclaim_carry();
    }
    assert_true(buddy_free_frames() + AT_HAND >= goal());
}

/* ---- Tests ---- */

/* What lacks is asked of those above their targets, in parts, and then the goal is free. */
static void brings_back_the_goal(void **state)
{
    (void)state;
    begin();
    vm_begin(0, 0, RAM, 1000, HONEST);
    vm_begin(1, 0, RAM, 1000, HONEST);
    vm_begin(2, 0, RAM, 1000, HONEST);
    assert_true(touch(&vms[0], 7200) && touch(&vms[1], 7200) && touch(&vms[2], 500));
    look();
    assert_true(reclaim_state() != MEM_HIGH);
    assert_true(reclaim_actions() & MEM_DO_BALLOON);
    uint64_t lacks = goal() - buddy_free_frames();

    assert_true(reclaim_carry());
    assert_in_range(vms[0].asked[1], lacks / 2 - 2, lacks / 2 + 2);
    assert_in_range(vms[1].asked[1], lacks / 2 - 2, lacks / 2 + 2);
    assert_int_equal(vms[2].asked[1], 0);
    assert_true(vms[0].asked[0] == vms[0].asked[1] && vms[0].asked[2] == 0);
    bring_back();
    for (unsigned i = 0; i < 8; i++) {
        look();
    }
    assert_int_equal(reclaim_state(), MEM_HIGH);
    assert_non_null(strstr(test_env.noted, "memory: high, was soft"));
    forget_orders();
    (void)reclaim_carry();
    assert_int_equal(vms[0].asked[0] + vms[0].asked[1] + vms[0].asked[2], 0);
    for (unsigned i = 0; i < 3; i++) {
        vm_end(i);
    }
    env_stop();
}

/* At a level that pages by force a promise is worth what came of the last one. */
static void promises_are_not_enough(void **state)
{
    (void)state;
    begin();
    vm_begin(0, 0, RAM, 1000, LIAR);
    vm_begin(1, 0, RAM, 1000, SLOW);
    assert_true(touch(&vms[0], 7700) && touch(&vms[1], 7700));
    look();
    assert_true(reclaim_actions() & MEM_DO_SWAP);
    (void)reclaim_carry();
    assert_true(vms[0].asked[1] != 0 && vms[0].asked[2] == vms[0].asked[1]);
    bring_back();
    assert_true(reclaim_has_hope(SECOND));
    vm_end(0);
    vm_end(1);

    /* Where it is not by force, it is waited for. */
    vm_begin(0, 0, RAM, 1000, LIAR);
    vm_begin(1, 0, RAM, 1000, DEAF);
    for (unsigned i = 0; i < 8; i++) {
        look();
    }
    assert_true(touch(&vms[0], 7450) && touch(&vms[1], 7450));
    forget_orders();
    look();
    assert_int_equal(reclaim_state(), MEM_SOFT);
    (void)reclaim_carry();
    assert_true(vms[0].asked[1] != 0 && vms[0].asked[2] == 0);
    /* Who cannot be asked is paged. */
    assert_true(vms[1].asked[1] != 0 && vms[1].asked[2] == vms[1].asked[1]);
    vm_end(0);
    vm_end(1);
    env_stop();
}

/* The two ends: max counts whatever is free, and room is lent down to a limit. */
static void max_and_room(void **state)
{
    (void)state;
    begin();
    vm_begin(0, 0, 1000, 1000, HONEST);
    vm_begin(1, 0, RAM, 1000, HONEST);
    assert_true(touch(&vms[0], 1500) && touch(&vms[1], 100));
    look();
    assert_int_equal(reclaim_state(), MEM_HIGH);
    assert_true(reclaim_carry());
    assert_int_equal(held(&vms[0]), 1000);
    assert_int_equal(vms[0].asked[0], 500);
    assert_int_equal(vms[1].asked[1], 0);
    assert_int_equal(vms[1].room, target(&vms[1]) - 100);

    /* Other guarantees, at once. */
    uint64_t generation = reclaim_generation();

    reclaim_change(vms[0].p2m, 0, 400, 1000);
    assert_true(reclaim_generation() != generation);
    look();
    (void)reclaim_carry();
    assert_int_equal(held(&vms[0]), 400);

    /* A VM that does not run has no due, its min included. */
    reclaim_change(vms[0].p2m, 400, 400, 1000);
    look();
    assert_int_equal(target(&vms[0]), 400);
    vms[0].runs = false;
    reclaim_change(vms[1].p2m, RAM, RAM, 0);
    vm_begin(2, RAM, RAM, 1000, HONEST);
    look();
    look();
    assert_int_equal(target(&vms[0]), 0);
    for (unsigned i = 0; i < 3; i++) {
        vm_end(i);
    }
    env_stop();
}

/* Low: who is above waits, nobody else, until enough is free. */
static void low_blocks(void **state)
{
    struct p2m_entry e;

    (void)state;
    begin();
    vm_begin(0, 0, RAM, 1000, LIAR);
    vm_begin(1, 8000, RAM, 1000, LIAR);
    assert_true(touch(&vms[0], 8000));
    while (buddy_free_frames() > 300) {
        assert_true(touch(&vms[1], 1));
    }
    look();
    assert_int_equal(reclaim_state(), MEM_LOW);
    assert_non_null(strstr(test_env.noted, "vm vm0 took"));
    look();
    assert_true(target(&vms[1]) >= 8000 && held(&vms[0]) > target(&vms[0]));
    assert_true(reclaim_is_blocked(vms[0].p2m));
    assert_false(reclaim_is_blocked(vms[1].p2m));
    /* A first touch goes where it can wait; others go on. */
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(RAM - 1), P2M_WRITE | P2M_FAST, &e), HV_EAGAIN);
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(RAM - 1), P2M_WRITE | P2M_VCPU, &e), HV_ENOMEM);
    assert_int_equal(p2m_populate(vms[1].p2m, GFN(RAM - 1), P2M_WRITE | P2M_FAST, &e), HV_OK);
    /* Whose turn it is not, likewise. */
    assert_int_equal(p2m_populate(vms[1].p2m, GFN(RAM - 2), P2M_WRITE | P2M_FAST | P2M_LINE, &e),
                     HV_EAGAIN);
    assert_int_equal(p2m_populate(vms[1].p2m, GFN(RAM - 2), P2M_WRITE | P2M_VCPU | P2M_LINE, &e),
                     HV_ENOMEM);
    assert_int_equal(p2m_populate(vms[1].p2m, GFN(RAM - 1), P2M_WRITE | P2M_VCPU | P2M_LINE, &e),
                     HV_OK);
    assert_int_equal(p2m_populate(vms[1].p2m, GFN(2 * RAM), P2M_WRITE | P2M_VCPU | P2M_LINE, &e),
                     HV_ENOENT);
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(0), P2M_WRITE | P2M_FAST, &e), HV_OK);
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(0), P2M_WRITE | P2M_VCPU, &e), HV_OK);
    /* Its devices go on. */
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(RAM - 1), P2M_WRITE, &e), HV_OK);
    /* Enough is free, whatever it is called. */
    vms[0].next = 0;
    take(&vms[0], 1000);
    options.balance_ns = 1000 * SECOND;
    (void)reclaim_look(&options);
    assert_int_equal(reclaim_state(), MEM_LOW);
    assert_false(reclaim_is_blocked(vms[0].p2m));
    vm_end(0);
    vm_end(1);
    env_stop();
}

/* Whose min is its max (a VM that is never swapped) keeps all of it in low: no means is asked for it, no level
 * blocks it, however few shares it has; with the min alone that it was given it would be. */
static void whole_max_is_kept(void **state)
{
    (void)state;
    begin();
    vm_begin(0, 0, RAM, 100000, LIAR);
    vm_begin(1, 4000, 4000, 1, LIAR);
    assert_true(touch(&vms[1], 4000));
    assert_true(touch(&vms[0], RAM));
    vm_begin(2, 0, RAM, 1, LIAR);
    while (buddy_free_frames() > 300) {
        assert_true(touch(&vms[2], 1));
    }
    look();
    look();
    assert_int_equal(reclaim_state(), MEM_LOW);
    assert_int_equal(target(&vms[1]), 4000);
    assert_false(reclaim_is_blocked(vms[1].p2m));
    assert_true(reclaim_is_blocked(vms[2].p2m));
    (void)reclaim_carry();
    assert_int_equal(vms[1].asked[0] + vms[1].asked[1] + vms[1].asked[2], 0);
    assert_int_equal(held(&vms[1]), 4000);
    assert_true(vms[2].asked[1] != 0);

    reclaim_change(vms[1].p2m, 0, 4000, 1);
    while (buddy_free_frames() > 300) {
        assert_true(touch(&vms[2], 1));
    }
    look();
    look();
    assert_true(target(&vms[1]) < 4000 && reclaim_is_blocked(vms[1].p2m));
    for (unsigned i = 0; i < 3; i++) {
        vm_end(i);
    }
    env_stop();
}

/* VMs come, go, grow, shrink and change; what holds always is checked by the means. */
static void random_lives(void **state)
{
    uint64_t mins = 0;

    (void)state;
    begin();
    rng_seed(&rng, env_seed("reclaim"));
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = (unsigned)rng_below(&rng, MAX_VMS);
        struct vm *v = &vms[i];
        uint64_t what = rng_below(&rng, 10), sum = 0;
        struct reclaim_host h;

        if (v->p2m == NULL) {
            uint64_t min = rng_below(&rng, 800);

            vm_begin(i, min, min + rng_below(&rng, RAM - min), rng_below(&rng, 5000),
                     (enum temper)rng_below(&rng, 4));
        } else if (what == 0) {
            vm_end(i);
        } else if (what == 1) {
            v->runs = !v->runs;
        } else if (what < 8) {
            (void)touch(v, rng_below(&rng, 600));
        } else {
            v->temper = (enum temper)rng_below(&rng, 4);
            v->next = 0;
        }
        look();
        mins = 0;
        for (unsigned n = 0; n < MAX_VMS; n++) {
            struct reclaim_numbers num;

            if (vms[n].p2m != NULL) {
                assert_true(reclaim_numbers(vms[n].p2m, &num));
                assert_true(!vms[n].runs || num.target >= num.min);
                assert_true(num.target <= num.max);
                sum += num.target;
                mins += vms[n].runs ? num.min : 0;
            }
        }
        reclaim_host(&h);
        assert_true(sum <= MAX(h.available, mins));
        (void)reclaim_carry();
        reclaim_host(&h);
        assert_true(h.state != MEM_LOW || buddy_free_frames() < NR_FRAMES / 10);
    }
    for (unsigned i = 0; i < MAX_VMS; i++) {
        if (vms[i].p2m != NULL) {
            vm_end(i);
        }
    }
    env_stop();
}

/* Too many, and no memory. */
static void joining_fails(void **state)
{
    const struct reclaim_setup s = {.name = "x", .memory = RAM, .max = RAM};

    (void)state;
    begin();
    vm_begin(0, 0, RAM, 1, HONEST);
    reclaim_leave(vms[0].p2m);
    test_env.fail_site = "reclaim";
    test_env.fail_after = 0;
    assert_int_equal(reclaim_join(vms[0].p2m, &s), HV_ENOMEM);
    test_env.fail_site = "sample";
    test_env.fail_after = 0;
    assert_int_equal(reclaim_join(vms[0].p2m, &s), HV_ENOMEM);
    test_env.fail_after = -1;
    assert_false(reclaim_is_blocked(vms[0].p2m));
    vm_end(0);
    env_stop();
}

/* ---- Records and notes ---- */

static void records(void **state)
{
    struct reclaim_record r, older;
    unsigned nr = 0;

    (void)state;
    begin();
    vm_begin(3, 0, 1000, 7, HONEST);
    vm_begin(4, 0, 1000, 7, DEAF);
    assert_true(touch(&vms[3], 1200) && touch(&vms[4], 1100));
    look();
    (void)reclaim_carry();
    assert_true(reclaim_record(4, 0, &r));
    assert_string_equal(r.means, "asking");
    assert_string_equal(r.name, "vm3");
    assert_string_equal(r.cause, "the test wants it");
    assert_int_equal(r.rule, RULE_ABOVE_MAX);
    assert_true(r.asked == 200 && r.taken == 200 && r.held == 1200 && r.shares == 7);
    assert_true(reclaim_record(4, r.nr, &older) && older.nr < r.nr);
    assert_string_equal(older.means, "first");
    assert_string_equal(older.why, "nothing is alike");
    /* Who was deaf was taken from by the next means. */
    assert_true(reclaim_record(5, 0, &r));
    assert_string_equal(r.means, "paging");
    /* Orders that only numbers tell apart are one record. */
    assert_true(touch(&vms[3], 50));
    (void)reclaim_carry();
    assert_true(reclaim_record(4, 0, &older) && older.orders == 2 && older.taken == 250);
    assert_true(older.first_ns <= older.time_ns);
    /* The ring goes round: others are gone, in order. */
    for (unsigned i = 0; i < RECLAIM_RECORDS; i++) {
        reclaim_balance(&options, i % 2 ? "odd" : "even");
        assert_true(touch(&vms[3], 10));
        (void)reclaim_carry();
    }
    for (uint64_t before = 0; reclaim_record(0, before, &r); before = r.nr) {
        assert_true(before == 0 || r.nr == before - 1);
        assert_int_equal(r.owner, 4);
        nr++;
    }
    assert_int_equal(nr, RECLAIM_RECORDS);
    assert_false(reclaim_record(5, 0, &r));
    vm_end(3);
    vm_end(4);
    env_stop();
}

static void notes(void **state)
{
    struct page_note n;

    (void)state;
    begin();
    assert_false(reclaim_page_note(77, GFN(5), 0, &n));
    reclaim_note_page(77, GFN(5), PAGE_COMPRESSED, 1234);
    reclaim_note_page(77, GFN(6), PAGE_SWAPPED, 9);
    reclaim_note_page(78, GFN(5), PAGE_SWAPPED, 8);
    reclaim_note_pages(77, GFN(0), ORDER_2M, PAGE_SPLIT, 0);
    assert_true(reclaim_page_note(77, GFN(5), 0, &n));
    assert_true(n.event == PAGE_SPLIT && n.region);
    assert_true(reclaim_page_note(77, GFN(5), n.nr, &n));
    assert_true(n.event == PAGE_COMPRESSED && n.detail == 1234 && !n.region);
    assert_false(reclaim_page_note(77, GFN(5), n.nr, &n));
    assert_false(reclaim_page_note(77, GFN(512), 0, &n));
    assert_true(reclaim_page_note(78, GFN(5), 0, &n) && n.detail == 8);
    for (unsigned i = 0; i < RECLAIM_NOTES; i++) {
        reclaim_note_page(1, GFN(1), PAGE_MERGED, i);
    }
    assert_false(reclaim_page_note(77, GFN(5), 0, &n));
    assert_true(reclaim_page_note(1, GFN(1), 0, &n) && n.detail == RECLAIM_NOTES - 1);
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brings_back_the_goal),
        cmocka_unit_test(promises_are_not_enough),
        cmocka_unit_test(max_and_room),
        cmocka_unit_test(low_blocks),
        cmocka_unit_test(whole_max_is_kept),
        cmocka_unit_test(random_lives),
        cmocka_unit_test(joining_fails),
        cmocka_unit_test(records),
        cmocka_unit_test(notes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

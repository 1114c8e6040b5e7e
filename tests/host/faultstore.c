/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/host/faultstore.h"

#include <stdlib.h>
#include <string.h>

#include "mm/env.h"

static void check(bool ok, const char *what)
{
    if (!ok) {
        env_panic("faultstore: %s", what);
    }
}

static bool chance(struct faultstore *f, uint64_t rate)
{
    return rate != 0 && rng_below(&f->rng, rate) == 0;
}

static bool take(uint64_t *budget)
{
    if (*budget == 0) {
        return false;
    }
    (*budget)--;
    return true;
}

static bool fails(struct faultstore *f, const struct store_request *r)
{
    bool write = r->op == STORE_WRITE;
    bool bad = false;

    for (uint32_t i = 0; i < r->nr; i++) {
        bad = bad || (write ? f->bad_write : f->bad_read)[r->slot + i];
    }
    if (r->op != STORE_FLUSH) {
        bad = bad || take(write ? &f->fail_write : &f->fail_read);
    }
    return bad || chance(f, f->fail_rate);
}

static bool strikes(const struct faultstore *f, enum store_fault fault)
{
    uint64_t nr = f->reads + f->writes + f->flushes - 1;

    return f->fault == fault && nr >= f->fault_at && nr - f->fault_at < f->nr_faults;
}

static void move(struct faultstore *f, const struct store_request *r)
{
    if (r->op == STORE_WRITE && strikes(f, FAULT_LOST)) {
        return;
    }
    for (uint32_t i = 0; i < r->nr; i++) {
        uint8_t *page = env_frame_ptr(r->frames[i]);

        if (r->op == STORE_WRITE) {
            memcpy(faultstore_slot(f, r->slot + i), page, PAGE_SIZE);
        } else {
            memcpy(page, faultstore_slot(f, r->slot + i), PAGE_SIZE);
        }
    }
    if (r->op != STORE_FLUSH &&
        (strikes(f, FAULT_FLIP) || (r->op == STORE_READ && chance(f, f->flip_rate)))) {
        uint32_t which = (uint32_t)rng_below(&f->rng, r->nr);
        uint8_t *page = r->op == STORE_READ ? env_frame_ptr(r->frames[which])
                                            : faultstore_slot(f, r->slot + which);

        page[rng_below(&f->rng, PAGE_SIZE)] ^= (uint8_t)(1u << rng_below(&f->rng, 8));
    }
}

static void serve(struct faultstore *f, struct store_request *r)
{
    f->reads += r->op == STORE_READ;
    f->writes += r->op == STORE_WRITE;
    f->flushes += r->op == STORE_FLUSH;
    f->gone = f->gone || strikes(f, FAULT_GONE);
    if (f->gone) {
        r->result = HV_ENOENT;
    } else if (fails(f, r) || strikes(f, FAULT_ERROR)) {
        /* Half a run may have been moved: leave garbage behind. */
        for (uint32_t i = 0; i < r->nr; i++) {
            memset(r->op == STORE_WRITE ? faultstore_slot(f, r->slot + i)
                                        : (uint8_t *)env_frame_ptr(r->frames[i]),
                   0xfa, PAGE_SIZE);
        }
        r->result = HV_EIO;
    } else {
        move(f, r);
        f->slots_read += r->op == STORE_READ ? r->nr : 0;
        f->slots_written += r->op == STORE_WRITE ? r->nr : 0;
        r->result = HV_OK;
    }
    f->failures += r->result != HV_OK;
    r->done(r);
}

static void submit(struct store *s, struct store_request *r)
{
    struct faultstore *f = container_of(s, struct faultstore, store);

    check(r->op == STORE_FLUSH ? r->nr == 0 : r->nr >= 1 && r->nr <= STORE_RUN_MAX, "bad length");
    check(r->slot + r->nr <= s->nr_slots && r->done != NULL, "bad request");
    if (!f->deferred) {
        serve(f, r);
        return;
    }
    list_add_tail(&f->waiting, &r->node);
    f->nr_waiting++;
}

static bool is_gone(const struct store *s)
{
    return container_of(s, const struct faultstore, store)->gone;
}

static const struct store_ops ops = {.submit = submit, .gone = is_gone};

void faultstore_start(struct faultstore *f, uint64_t nr_slots, uint64_t seed)
{
    memset(f, 0, sizeof(*f));
    f->store = (struct store){.ops = &ops, .nr_slots = nr_slots, .name = "faultstore"};
    f->data = calloc(nr_slots, PAGE_SIZE);
    f->bad_read = calloc(nr_slots, sizeof(bool));
    f->bad_write = calloc(nr_slots, sizeof(bool));
    check(f->data != NULL && f->bad_read != NULL && f->bad_write != NULL, "no memory");
    list_init(&f->waiting);
    rng_seed(&f->rng, seed);
}

void faultstore_stop(struct faultstore *f)
{
    check(f->nr_waiting == 0, "requests are left");
    free(f->data);
    free(f->bad_read);
    free(f->bad_write);
}

uint64_t faultstore_serve(struct faultstore *f, uint64_t max)
{
    uint64_t served = 0;

    while (served < max && f->nr_waiting != 0) {
        struct list *node = f->waiting.next;

        for (uint64_t skip = rng_below(&f->rng, f->nr_waiting); skip != 0; skip--) {
            node = node->next;
        }
        list_del(node);
        f->nr_waiting--;
        serve(f, list_entry(node, struct store_request, node));
        served++;
    }
    return served;
}

uint8_t *faultstore_slot(struct faultstore *f, uint64_t slot)
{
    return f->data + slot * PAGE_SIZE;
}

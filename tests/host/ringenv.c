/* SPDX-License-Identifier: BSD-2-Clause */
/* See ringenv.h. */
#include "tests/host/ringenv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vm/guestmem.h"
#include "mm/p2m.h"
#include "tests/host/check.h"

struct ringenv ringenv;

void ringenv_start(void)
{
    memset(&ringenv, 0, sizeof ringenv);
    for (unsigned i = 0; i < RINGENV_PAGES; i++) {
        ringenv.page[i] = i == RINGENV_HOLE ? NULL : calloc(1, PAGE_SIZE);
    }
}

void ringenv_stop(void)
{
    CHECK(ringenv.pins == 0);
    for (unsigned i = 0; i < RINGENV_PAGES; i++) {
        free(ringenv.page[i]);
    }
}

static bool fails(void)
{
    ringenv.random = ringenv.random * 6364136223846793005u + 1442695040888963407u;
    bool fail = ringenv.fail_one != 0 && (ringenv.random >> 33) % ringenv.fail_one == 0;
    ringenv.failures += fail;
    return fail;
}

enum hv_err guestmem_pin(struct vm *vm, gpa_t gpa, uint32_t access, void **page)
{
    uint64_t gfn = gpa.a >> PAGE_SHIFT;

    (void)vm;
    if (gfn >= RINGENV_PAGES || ringenv.page[gfn] == NULL) {
        return HV_ENOENT;
    }
    if ((access & P2M_LINE) && ringenv.away) {
        return HV_ENOMEM;
    }
    if (fails()) {
        return ringenv.fail_with ? ringenv.fail_with : gfn % 2 ? HV_EAGAIN : HV_ENOMEM;
    }
    ringenv.pins++;
    ringenv.most_pins = MAX(ringenv.most_pins, ringenv.pins);
    *page = ringenv.page[gfn];
    return HV_OK;
}

void guestmem_unpin(struct vm *vm, gpa_t gpa, void *page)
{
    (void)vm;
    CHECK(gpa.a >> PAGE_SHIFT < RINGENV_PAGES && page == ringenv.page[gpa.a >> PAGE_SHIFT]);
    ringenv.pins--;
    CHECK(ringenv.pins >= 0);
}

bool ringenv_is_ram(uint64_t gpa, uint64_t n)
{
    if (n == 0) {
        return true;
    }
    if (gpa + n < gpa || gpa + n > RINGENV_BYTES) {
        return false;
    }
    return gpa + n <= RINGENV_HOLE * PAGE_SIZE || gpa >= (RINGENV_HOLE + 1) * PAGE_SIZE;
}

static bool move(uint64_t gpa, void *buf, size_t n, bool store)
{
    if (!ringenv_is_ram(gpa, n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        uint8_t *byte = &ringenv.page[(gpa + i) >> PAGE_SHIFT][(gpa + i) & ~PAGE_MASK];

        if (store) {
            *byte = ((uint8_t *)buf)[i];
        } else {
            ((uint8_t *)buf)[i] = *byte;
        }
    }
    return true;
}

bool ringenv_load(uint64_t gpa, void *dst, size_t n)
{
    return move(gpa, dst, n, false);
}

bool ringenv_store(uint64_t gpa, const void *src, size_t n)
{
    return move(gpa, (void *)(uintptr_t)src, n, true);
}

/* ---- The naive reading ---- */

static uint64_t number(uint64_t gpa, unsigned bytes)
{
    uint64_t v = 0;

    CHECK(ringenv_load(gpa, &v, bytes));
    return v;
}

static uint64_t pages_of(const struct model_chain *c)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < c->nr; i++) {
        if (c->seg[i].len != 0) {
            pages += ((c->seg[i].gpa % PAGE_SIZE) + c->seg[i].len + PAGE_SIZE - 1) / PAGE_SIZE;
        }
    }
    return pages;
}

static bool is_chain(const struct vring *r, uint16_t head, bool pin, struct model_chain *c)
{
    uint64_t table = r->desc.gpa, size = r->size, index = head;
    bool indirect = false, more = true;

    while (more) {
        uint64_t at = table + 16 * index;
        uint8_t raw[16];
        uint64_t gpa;
        uint32_t len;
        uint16_t flags, next;

        if (index >= size || !ringenv_load(at, raw, 16)) {
            return false;
        }
        memcpy(&gpa, raw, 8);
        memcpy(&len, raw + 8, 4);
        memcpy(&flags, raw + 12, 2);
        memcpy(&next, raw + 14, 2);
        if (flags & 4) {
            if (indirect || !r->indirect || (flags & 1) || len == 0 || len % 16 != 0 ||
                gpa + len < gpa) {
                return false;
            }
            indirect = true;
            table = gpa;
            size = len / 16;
            index = 0;
            continue;
        }
        if (c->nr == VRING_SIZE_MAX || gpa + len < gpa) {
            return false;
        }
        if (!(flags & 2) && c->nr > 0 && c->seg[c->nr - 1].write) {
            return false;
        }
        c->seg[c->nr].gpa = gpa;
        c->seg[c->nr].len = len;
        c->seg[c->nr].write = flags & 2;
        c->nr++;
        *(flags & 2 ? &c->writable : &c->readable) += len;
        index = next;
        more = flags & 1;
    }
    if (c->readable > UINT32_MAX || c->writable > UINT32_MAX) {
        return false;
    }
    for (unsigned i = 0; pin && i < c->nr; i++) {
        if (!ringenv_is_ram(c->seg[i].gpa, c->seg[i].len)) {
            return false;
        }
    }
    return !pin || pages_of(c) <= VRING_PAGES_MAX;
}

enum model_result model_pop(const struct vring *r, uint16_t next, bool pin, struct model_chain *out)
{
    uint16_t index = (uint16_t)number(r->avail.gpa + 2, 2);
    uint16_t waiting = (uint16_t)(index - next);

    memset(out, 0, sizeof *out);
    if (waiting == 0) {
        return MODEL_NONE;
    }
    out->head = (uint16_t)number(r->avail.gpa + 4 + 2 * (next % r->size), 2);
    return waiting <= r->size && is_chain(r, out->head, pin, out) ? MODEL_CHAIN : MODEL_WRONG;
}

void model_copy(const struct model_chain *c, bool write, uint8_t *buf)
{
    for (unsigned i = 0; i < c->nr; i++) {
        if (c->seg[i].write == write) {
            CHECK(move(c->seg[i].gpa, buf, c->seg[i].len, write));
            buf += c->seg[i].len;
        }
    }
}

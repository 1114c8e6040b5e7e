/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloon driver of small guests. It follows the order that Linux's driver keeps: on a reset all
 * pages are free again before START says so.
 */
#include "guests/lib/balloon.h"

#define CALL_PORT 0x5670U
#define CALL_MAGIC 0x456c6d6fUL
#define PAGE_SHIFT 12
#define ENTRY_STATUS 0x1fUL
#define LINUX_ID 1UL
#define ROUNDS 64U /* batches in one tick */

static uint64_t batch[BALLOON_BATCH] __attribute__((aligned(4096)));

struct balloon_reply balloon_call(uint64_t command, uint64_t arg1, uint64_t arg2)
{
    uint64_t rax = CALL_MAGIC, rbx = arg1, rcx = command, rsi = arg2;

    __asm__ volatile("inl %%dx, %%eax"
                     : "+a"(rax), "+b"(rbx), "+c"(rcx), "+S"(rsi)
                     : "d"(CALL_PORT)
                     : "memory");
    return (struct balloon_reply){rax, rbx, rcx};
}

uint64_t balloon_batch(uint64_t command, uint64_t *pfns, uint8_t *statuses, size_t nr)
{
    uint64_t status;

    for (size_t i = 0; i < nr; i++) {
        batch[i] = pfns[i] << PAGE_SHIFT;
    }
    status = balloon_call(command, (uint64_t)batch >> PAGE_SHIFT, nr).status;
    for (size_t i = 0; i < nr; i++) {
        statuses[i] = (uint8_t)(status != BALLOON_OK ? status : batch[i] & ENTRY_STATUS);
    }
    return status;
}

static bool can_batch(const struct balloon *b)
{
    return b->capabilities & BALLOON_CAN_BATCHED;
}

static bool can_2m(const struct balloon *b)
{
    return b->capabilities & BALLOON_CAN_2M;
}

static uint64_t pfn_of(const struct balloon *b, uint64_t page)
{
    return (b->base >> PAGE_SHIFT) + page;
}

static void all_back(struct balloon *b)
{
    for (uint64_t page = 0; page < b->nr_pages; page++) {
        if (b->out[page]) {
            b->out[page] = false;
            b->back(page);
        }
    }
    b->size = 0;
}

bool balloon_start(struct balloon *b)
{
    struct balloon_reply r = balloon_call(BALLOON_START, b->want, 0);

    b->started = r.status == BALLOON_OK || r.status == BALLOON_OK_CAPABILITIES;
    b->capabilities = r.status == BALLOON_OK ? BALLOON_CAN_BASIC : r.capabilities;
    all_back(b);
    return b->started && balloon_call(BALLOON_GUEST_ID, LINUX_ID, 0).status == BALLOON_OK;
}

void balloon_stop(struct balloon *b)
{
    balloon_call(BALLOON_START, 0, 0);
    b->started = false;
    all_back(b);
}

/* Is every page of [page, page + nr) as `out` says? */
static bool are(const struct balloon *b, uint64_t page, uint64_t nr, bool out)
{
    for (uint64_t i = page; i < page + nr; i++) {
        if (b->out[i] != out) {
            return false;
        }
    }
    return true;
}

static void change(struct balloon *b, uint64_t page, uint64_t nr, bool out)
{
    for (uint64_t i = page; i < page + nr; i++) {
        b->out[i] = out;
        if (!out) {
            b->back(i);
        }
    }
    b->size += out ? nr : -nr;
}

/* Collect units of `unit` pages that can change to `out`, the last ones first. */
static size_t collect(const struct balloon *b, uint64_t unit, bool out, uint64_t most,
                      uint64_t *pages)
{
    uint64_t first = out ? b->in_use : 0;
    size_t nr = 0;

    for (uint64_t at = b->nr_pages / unit * unit;
         at >= first + unit && nr < BALLOON_BATCH && (nr + 1) * unit <= most; at -= unit) {
        if (are(b, at - unit, unit, !out)) {
            pages[nr++] = at - unit;
        }
    }
    return nr;
}

static uint64_t send(struct balloon *b, uint64_t unit, bool out, const uint64_t *pages,
                     uint8_t *statuses, size_t nr)
{
    static uint64_t pfns[BALLOON_BATCH];
    uint64_t command = out ? BALLOON_BATCHED_LOCK : BALLOON_BATCHED_UNLOCK;

    if (!can_batch(b)) {
        struct balloon_reply r =
            balloon_call(out ? BALLOON_LOCK : BALLOON_UNLOCK, pfn_of(b, pages[0]), 1);

        statuses[0] = (uint8_t)r.status;
        return r.status == BALLOON_RESET ? BALLOON_RESET : BALLOON_OK;
    }
    for (size_t i = 0; i < nr; i++) {
        pfns[i] = pfn_of(b, pages[i]);
    }
    return balloon_batch(command + (unit > 1 ? 2 : 0), pfns, statuses, nr);
}

/* One command's worth. False: no more this tick. */
static bool move(struct balloon *b, uint64_t unit, bool out)
{
    static uint64_t pages[BALLOON_BATCH];
    static uint8_t statuses[BALLOON_BATCH];
    uint64_t most = out ? b->target - b->size : b->size - b->target;
    size_t nr = collect(b, unit, out, most, pages);
    size_t moved = 0;

    if (nr > 1 && !can_batch(b)) {
        nr = 1;
    }
    if (nr == 0) {
        return false;
    }
    if (send(b, unit, out, pages, statuses, nr) != BALLOON_OK) {
        return false;
    }
    for (size_t i = 0; i < nr; i++) {
        if (statuses[i] == BALLOON_OK) {
            change(b, pages[i], unit, out);
            moved++;
        } else {
            b->refused += unit;
        }
    }
    return moved != 0;
}

void balloon_tick(struct balloon *b)
{
    struct balloon_reply r = balloon_call(BALLOON_GET_TARGET, b->nr_pages, 0);

    if (r.status == BALLOON_RESET) {
        b->resets++;
        (void)balloon_start(b);
        return;
    }
    if (r.status != BALLOON_OK) {
        return;
    }
    b->target = r.result < b->nr_pages ? r.result : b->nr_pages;
    for (unsigned int i = 0; i < ROUNDS * (can_batch(b) ? 1 : BALLOON_BATCH); i++) {
        bool out = b->target > b->size;

        if (b->target == b->size ||
            !((can_2m(b) && move(b, BALLOON_REGION, out)) || move(b, 1, out))) {
            return;
        }
    }
}

void balloon_need(struct balloon *b, uint64_t pages)
{
    static uint64_t wanted[BALLOON_BATCH];
    static uint8_t statuses[BALLOON_BATCH];
    uint64_t page = 0;

    b->in_use = pages;
    while (b->started && b->size != 0 && page < pages) {
        size_t nr = 0, most = can_batch(b) ? BALLOON_BATCH : 1;

        for (; page < pages && nr < most; page++) {
            if (b->out[page]) {
                wanted[nr++] = page;
            }
        }
        if (nr != 0 && send(b, 1, false, wanted, statuses, nr) == BALLOON_RESET) {
            b->resets++;
            (void)balloon_start(b);
            return;
        }
        for (size_t i = 0; i < nr; i++) {
            if (statuses[i] == BALLOON_OK) {
                change(b, wanted[i], 1, false);
            }
        }
    }
}

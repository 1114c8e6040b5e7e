/* SPDX-License-Identifier: BSD-2-Clause */
/* See vring.h. What a guest can change at any time is read once, by the functions at the top. */
#include "kernel/devices/vring.h"

#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "mm/p2m.h"

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define DESC_BYTES 16u

#define RING_FLAGS 0u /* of both rings */
#define RING_INDEX 2u
#define RING_HEADS 4u
#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u
#define HEAD_BYTES 2u
#define USED_BYTES 8u

struct desc {
    uint64_t gpa;
    uint32_t len;
    uint16_t flags, next;
};
_Static_assert(sizeof(struct desc) == DESC_BYTES, "descriptor");

enum hv_err vring_wrong(struct vring *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vscnprintf(r->why, sizeof(r->why), fmt, ap);
    va_end(ap);
    return HV_EINVAL;
}

/* ---- The areas ---- */

static void *area_at(const struct vring_area *a, uint64_t offset)
{
    uint64_t at = (a->gpa & ~PAGE_MASK) + offset;

    return (char *)a->pin[at >> PAGE_SHIFT].page + (at & ~PAGE_MASK);
}

static uint16_t load16(const struct vring_area *a, uint64_t offset)
{
    return __atomic_load_n((const uint16_t *)area_at(a, offset), __ATOMIC_ACQUIRE);
}

static void store16(const struct vring_area *a, uint64_t offset, uint16_t value)
{
    __atomic_store_n((uint16_t *)area_at(a, offset), value, __ATOMIC_RELEASE);
}

static void store32(const struct vring_area *a, uint64_t offset, uint32_t value)
{
    __atomic_store_n((uint32_t *)area_at(a, offset), value, __ATOMIC_RELAXED);
}

static uint64_t area_bytes(const struct vring *r, const struct vring_area *a)
{
    return a == &r->desc    ? DESC_BYTES * (uint64_t)r->size
           : a == &r->avail ? RING_HEADS + HEAD_BYTES * (uint64_t)r->size
                            : RING_HEADS + USED_BYTES * (uint64_t)r->size;
}

bool vring_valid(struct vring *r)
{
    const struct {
        const struct vring_area *area;
        unsigned align;
    } areas[] = {{&r->desc, 16}, {&r->avail, 2}, {&r->used, 4}};

    if (r->size == 0 || r->size > VRING_SIZE_MAX || (r->size & (r->size - 1)) != 0) {
        (void)vring_wrong(r, "a size of %u", r->size);
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(areas); i++) {
        uint64_t gpa = areas[i].area->gpa;

        if (gpa % areas[i].align != 0 || gpa + area_bytes(r, areas[i].area) < gpa) {
            (void)vring_wrong(r, "its ring at 0x%llx", (unsigned long long)gpa);
            return false;
        }
    }
    return true;
}

void vring_start(struct vring *r)
{
    r->next_avail = 0;
    r->next_used = 0;
    __atomic_store_n(&r->ready, true, __ATOMIC_RELEASE);
}

static void unmap_area(struct vring *r, struct vring_area *a)
{
    while (a->nr_pins != 0) {
        struct vring_pin *p = &a->pin[--a->nr_pins];

        guestmem_unpin(r->vm, gfn_gpa(p->gfn), p->page);
    }
}

/* Pin the page of gpa. HV_ENOENT became HV_EINVAL with the reason, other errors name the page. */
static enum hv_err pin_page(struct vring *r, uint64_t gpa, bool write, struct vring_pin *p)
{
    enum hv_err err =
        guestmem_pin(r->vm, GPA(gpa), r->how | (write ? P2M_WRITE : P2M_READ), &p->page);

    p->gfn = gpa_gfn(GPA(gpa));
    if (err == HV_ENOENT) {
        return vring_wrong(r, "address 0x%llx, where there is no RAM", (unsigned long long)gpa);
    }
    r->lacking = p->gfn;
    return err;
}

/* For writing, all of them: a page that is pinned for reading would not show what comes. */
static enum hv_err map_area(struct vring *r, struct vring_area *a)
{
    uint64_t first = a->gpa & PAGE_MASK, last = (a->gpa + area_bytes(r, a) - 1) & PAGE_MASK;

    for (uint64_t gpa = first; gpa - first <= last - first; gpa += PAGE_SIZE) {
        enum hv_err err = pin_page(r, gpa, true, &a->pin[a->nr_pins]);

        if (err != HV_OK) {
            return err;
        }
        a->nr_pins++;
    }
    return HV_OK;
}

enum hv_err vring_map(struct vring *r)
{
    enum hv_err err = map_area(r, &r->desc);

    if (err == HV_OK) {
        err = map_area(r, &r->avail);
    }
    if (err == HV_OK) {
        err = map_area(r, &r->used);
    }
    if (err != HV_OK) {
        vring_unmap(r);
    }
    return err;
}

void vring_unmap(struct vring *r)
{
    unmap_area(r, &r->desc);
    unmap_area(r, &r->avail);
    unmap_area(r, &r->used);
}

void vring_notify(struct vring *r, bool on)
{
    store16(&r->used, RING_FLAGS, (uint16_t)(on ? 0 : USED_NO_NOTIFY));
    /* Before the look for heads that came meanwhile. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vring_pending(const struct vring *r)
{
    return load16(&r->avail, RING_INDEX) != r->next_avail;
}

bool vring_wants_interrupt(const struct vring *r)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return !(load16(&r->avail, RING_FLAGS) & AVAIL_NO_INTERRUPT);
}

void vring_push(struct vring *r, uint16_t head, uint32_t written)
{
    uint64_t at = RING_HEADS + USED_BYTES * (uint64_t)(r->next_used % r->size);

    store32(&r->used, at, head);
    store32(&r->used, at + 4, written);
    store16(&r->used, RING_INDEX, ++r->next_used);
}

/* ---- Walking a chain ---- */

/* Where descriptors come from: the ring's own table, or one anywhere in guest memory. */
struct table {
    struct vring *r;
    bool indirect;
    uint32_t size;
    uint64_t gpa;
    struct vring_pin pin; /* the page of it that was read last */
    bool pinned;
};

static void table_close(struct table *t)
{
    if (t->pinned) {
        guestmem_unpin(t->r->vm, gfn_gpa(t->pin.gfn), t->pin.page);
        t->pinned = false;
    }
}

/* Bytes that do not cross a page. */
static enum hv_err table_copy(struct table *t, uint64_t gpa, void *dst, size_t n)
{
    if (t->pinned && t->pin.gfn.n != gpa_gfn(GPA(gpa)).n) {
        table_close(t);
    }
    if (!t->pinned) {
        enum hv_err err = pin_page(t->r, gpa, false, &t->pin);

        if (err != HV_OK) {
            return err;
        }
        t->pinned = true;
    }
    memcpy(dst, (const char *)t->pin.page + (gpa & ~PAGE_MASK), n);
    return HV_OK;
}

static enum hv_err table_read(struct table *t, uint32_t index, struct desc *out)
{
    if (index >= t->size) {
        return vring_wrong(t->r, "descriptor %u of %u", index, t->size);
    }
    if (!t->indirect) {
        memcpy(out, area_at(&t->r->desc, (uint64_t)index * DESC_BYTES), DESC_BYTES);
    } else {
        uint64_t gpa = t->gpa + (uint64_t)index * DESC_BYTES;
        size_t first = MIN((size_t)DESC_BYTES, (size_t)(PAGE_SIZE - (gpa & ~PAGE_MASK)));
        enum hv_err err = table_copy(t, gpa, out, first);

        if (err == HV_OK && first < DESC_BYTES) {
            err = table_copy(t, gpa + first, (char *)out + first, DESC_BYTES - first);
        }
        if (err != HV_OK) {
            return err;
        }
    }
    __asm__ volatile("" : "+m"(*out)); /* from here on the copy is what counts */
    return HV_OK;
}

static enum hv_err open_indirect(struct table *t, const struct desc *d)
{
    if (!t->r->indirect || t->indirect || (d->flags & DESC_NEXT)) {
        return vring_wrong(t->r, "an indirect table where there may be none");
    }
    if (d->len == 0 || d->len % DESC_BYTES != 0 || d->gpa + d->len < d->gpa) {
        return vring_wrong(t->r, "an indirect table of %u bytes at 0x%llx", d->len,
                           (unsigned long long)d->gpa);
    }
    t->indirect = true;
    t->gpa = d->gpa;
    t->size = d->len / DESC_BYTES;
    return HV_OK;
}

static enum hv_err add_seg(struct vring *r, struct vring_chain *c, const struct desc *d)
{
    bool write = d->flags & DESC_WRITE;
    uint32_t *total = write ? &c->writable : &c->readable;

    if (c->nr_segs == VRING_SIZE_MAX) {
        return vring_wrong(r, "a chain that is too long or loops");
    }
    if (!write && c->nr_segs != 0 && c->seg[c->nr_segs - 1].write) {
        return vring_wrong(r, "something to read behind something to write");
    }
    if (d->gpa + d->len < d->gpa || *total + d->len < *total) {
        return vring_wrong(r, "%u bytes at 0x%llx", d->len, (unsigned long long)d->gpa);
    }
    *total += d->len;
    c->seg[c->nr_segs++] = (struct vring_seg){.gpa = d->gpa, .len = d->len, .write = write};
    return HV_OK;
}

static enum hv_err walk(struct table *t, struct vring_chain *c)
{
    uint32_t index = c->head;

    /* Ends: each turn but one, which opens the only indirect table, adds to the chain, which is bounded. */
    for (;;) {
        struct desc d;
        enum hv_err err = table_read(t, index, &d);

        if (err != HV_OK) {
            return err;
        }
        if (d.flags & DESC_INDIRECT) {
            err = open_indirect(t, &d);
            index = 0;
        } else {
            err = add_seg(t->r, c, &d);
            index = d.next;
        }
        if (err != HV_OK || !(d.flags & (DESC_NEXT | DESC_INDIRECT))) {
            return err;
        }
    }
}

static enum hv_err pin_seg(struct vring *r, struct vring_chain *c, struct vring_seg *s)
{
    uint64_t first = s->gpa & PAGE_MASK, last = (s->gpa + s->len - 1) & PAGE_MASK;

    s->page = c->nr_pins;
    for (uint64_t gpa = first; s->len != 0 && gpa - first <= last - first; gpa += PAGE_SIZE) {
        if (c->nr_pins == VRING_PAGES_MAX) {
            return vring_wrong(r, "a chain of more than %u pages", VRING_PAGES_MAX);
        }
        enum hv_err err = pin_page(r, gpa, s->write, &c->pin[c->nr_pins]);

        if (err != HV_OK) {
            return err;
        }
        c->nr_pins++;
    }
    return HV_OK;
}

enum hv_err vring_pop(struct vring *r, struct vring_chain *c, bool pin)
{
    struct table t = {.r = r, .size = r->size};
    uint16_t waiting = (uint16_t)(load16(&r->avail, RING_INDEX) - r->next_avail);

    if (waiting == 0) {
        return HV_ENOENT;
    }
    if (waiting > r->size) {
        return vring_wrong(r, "%u new heads in a ring of %u", waiting, r->size);
    }
    c->vm = r->vm;
    c->nr_segs = c->nr_pins = 0;
    c->readable = c->writable = 0;
    c->read_at = c->write_at = (struct vring_pos){0, 0};
    c->head = load16(&r->avail, RING_HEADS + HEAD_BYTES * (uint64_t)(r->next_avail % r->size));

    enum hv_err err = walk(&t, c);
    table_close(&t);
    for (unsigned i = 0; err == HV_OK && pin && i < c->nr_segs; i++) {
        err = pin_seg(r, c, &c->seg[i]);
    }
    if (err != HV_OK) {
        vring_release(c);
        return err;
    }
    r->next_avail++;
    return HV_OK;
}

void vring_release(struct vring_chain *c)
{
    while (c->nr_pins != 0) {
        struct vring_pin *p = &c->pin[--c->nr_pins];

        guestmem_unpin(c->vm, gfn_gpa(p->gfn), p->page);
    }
}

void vring_undo(struct vring *r, struct vring_chain *c)
{
    vring_release(c);
    r->next_avail--;
}

/* ---- Contents of a chain ---- */

static size_t copy(struct vring_chain *c, struct vring_pos *at, bool write, void *buf, size_t n)
{
    size_t done = 0;

    while (done < n && at->seg < c->nr_segs) {
        const struct vring_seg *s = &c->seg[at->seg];

        if (s->write != write || at->offset == s->len) {
            at->seg++;
            at->offset = 0;
            continue;
        }
        uint64_t in_first = (s->gpa & ~PAGE_MASK) + at->offset;
        size_t step = MIN(n - done, (size_t)(PAGE_SIZE - (in_first & ~PAGE_MASK)));
        char *page = c->pin[s->page + (in_first >> PAGE_SHIFT)].page;

        step = MIN(step, (size_t)(s->len - at->offset));
        if (write) {
            memcpy(page + (in_first & ~PAGE_MASK), (char *)buf + done, step);
        } else {
            memcpy((char *)buf + done, page + (in_first & ~PAGE_MASK), step);
        }
        at->offset += (uint32_t)step;
        done += step;
    }
    return done;
}

size_t vring_read(struct vring_chain *c, void *dst, size_t n)
{
    return copy(c, &c->read_at, false, dst, n);
}

size_t vring_write(struct vring_chain *c, const void *src, size_t n)
{
    return copy(c, &c->write_at, true, (void *)(uintptr_t)src, n);
}

void vring_write_last(struct vring_chain *c, uint8_t byte)
{
    unsigned i = c->nr_segs - 1u;

    while (c->seg[i].len == 0) {
        i--;
    }
    struct vring_pos last = {i, c->seg[i].len - 1};

    (void)copy(c, &last, true, &byte, 1);
}

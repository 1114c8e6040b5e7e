/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding, formatting and offering the swap area; see swaparea.h. Two things write to disks here: the
 * store, inside of the area whose header was read and checked, and write_header.
 */
#include "kernel/drivers/swaparea.h"

#include "kernel/drivers/blkclaim.h"
#include "kernel/drivers/ramdisk.h"
#include "kernel/lib/crc32.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/random.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/reclaim/store.h"
#include "mm/slab.h"

#define MAGIC "BALLAST-SWAP-01"
#define VERSION 1u

static struct swaparea in_use; /* constant once `store` is published */
static struct store store;
static struct store *published;           /* atomic */
static void (*listener)(struct store *s); /* set once, at start-up; called by who makes an area */

/* ---- Pages of a disk ---- */

static void *new_page(mfn_t *mfn)
{
    return buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, mfn) == HV_OK ? env_frame_ptr(*mfn) : NULL;
}

enum hv_err swaparea_read_page(void *arg, uint64_t sector, void *page)
{
    mfn_t mfn = env_ptr_frame(page);

    return blk_io(arg, BLK_READ, sector, &mfn, 1);
}

struct label_source swaparea_source(struct blk_disk *d)
{
    return (struct label_source){.read = swaparea_read_page,
                                 .arg = d,
                                 .nr_sectors = d->nr_sectors,
                                 .sector_bytes = d->sector_bytes};
}

static bool header_valid(const struct swaparea_header *h, const struct swaparea *a)
{
    return memcmp(h->magic, MAGIC, sizeof(h->magic)) == 0 && h->version == VERSION &&
           h->page_bytes == PAGE_SIZE &&
           h->crc == crc32(0, h, offsetof(struct swaparea_header, crc)) &&
           h->nr_pages >= SWAPAREA_MIN_PAGES && h->nr_pages <= a->nr_pages;
}

/* Does the area carry a signature whose numbers fit it? */
static bool read_header(const struct swaparea *a, void *page, struct swaparea_header *out)
{
    if (a->nr_pages == 0 || swaparea_read_page(a->disk, a->first, page) != HV_OK) {
        return false;
    }
    memcpy(out, page, sizeof(*out));
    return header_valid(out, a);
}

bool swaparea_signed(const struct swaparea *a)
{
    struct swaparea_header h;
    mfn_t mfn;
    void *page = new_page(&mfn);
    bool ours = page != NULL && read_header(a, page, &h);

    if (page != NULL) {
        buddy_free(mfn, 0);
    }
    return ours;
}

/* ---- Finding areas ---- */

static struct swaparea whole(struct blk_disk *d)
{
    struct swaparea a = {.disk = d, .nr_pages = d->nr_sectors / BLK_PAGE_SECTORS};

    str_copy(a.name, sizeof(a.name), d->name);
    return a;
}

static struct swaparea part_of(struct blk_disk *d, const struct label_part *p)
{
    struct swaparea a = {
        .disk = d, .first = p->first, .nr_pages = p->nr_sectors / BLK_PAGE_SECTORS};

    scnprintf(a.name, sizeof(a.name), "%sp%u", d->name, p->number);
    return a;
}

#define UUID_TEXT 33 /* with its end */

static const char *uuid_text(const uint8_t uuid[16], char text[UUID_TEXT])
{
    for (unsigned i = 0; i < 16; i++) {
        scnprintf(text + 2 * i, 3, "%02x", uuid[i]);
    }
    return text;
}

static bool uuid_is(const uint8_t uuid[16], const char *text)
{
    char own[UUID_TEXT];

    return str_equal(uuid_text(uuid, own), text);
}

struct search {
    const char *name; /* NULL: any that carries the signature */
    const struct swaparea_loan *loans;
    unsigned nr_loans;
    struct swaparea *out;
    struct label label;
    void *page;
};

/* The VM that has a part of the area as its disk; NULL: none. */
static const char *borrower(const struct search *s, const struct swaparea *a)
{
    uint64_t nr = a->nr_pages * BLK_PAGE_SECTORS;

    for (unsigned i = 0; i < s->nr_loans; i++) {
        const struct swaparea *l = &s->loans[i].area;

        if (l->disk == a->disk && a->first < l->first + l->nr_pages * BLK_PAGE_SECTORS &&
            l->first < a->first + nr) {
            return s->loans[i].vm;
        }
    }
    return NULL;
}

/* What a VM can write to says nothing by its signature: only a name of ours finds it. */
static bool matches(struct search *s, const struct swaparea *a)
{
    struct swaparea_header h;
    bool named = s->name != NULL &&
                 (str_equal(s->name, a->name) || (a->first == 0 && a->disk->serial[0] != '\0' &&
                                                  str_equal(s->name, a->disk->serial)));

    if (named) {
        return true;
    }
    if (!read_header(a, s->page, &h) || (s->name != NULL && !uuid_is(h.uuid, s->name))) {
        return false;
    }
    const char *vm = borrower(s, a);

    if (vm != NULL) {
        log_warn("swap area on %s passed over: it is on the disk of vm %s", a->name, vm);
    }
    return vm == NULL;
}

static bool search_disk(struct search *s, struct blk_disk *d)
{
    struct label_source source = swaparea_source(d);

    *s->out = whole(d);
    if (matches(s, s->out)) {
        return true;
    }
    if (label_read(&source, s->page, &s->label) != HV_OK) {
        return false;
    }
    for (unsigned i = 0; i < s->label.nr_parts; i++) {
        *s->out = part_of(d, &s->label.parts[i]);
        if (matches(s, s->out)) {
            return true;
        }
    }
    return false;
}

/* *vm: the VM that has a part of it as its disk, or NULL. */
static enum hv_err find(const char *name, const struct swaparea_loan *loans, unsigned nr_loans,
                        struct swaparea *out, const char **vm)
{
    struct search *s = kmalloc(sizeof(*s), OWNER_HOST);
    enum hv_err err = s == NULL ? HV_ENOMEM : HV_ENOENT;
    mfn_t mfn;

    if (s != NULL && (s->page = new_page(&mfn)) != NULL) {
        s->name = name;
        s->loans = loans;
        s->nr_loans = nr_loans;
        s->out = out;
        for (unsigned i = 0; i < blk_count() && err != HV_OK; i++) {
            if (!blk_gone(blk_disk(i)) && search_disk(s, blk_disk(i))) {
                err = HV_OK;
            }
        }
        *vm = err == HV_OK ? borrower(s, out) : NULL;
        buddy_free(mfn, 0);
    }
    kfree(s);
    return err;
}

enum hv_err swaparea_find(const char *name, struct swaparea *out)
{
    const char *vm;

    return find(name, NULL, 0, out, &vm);
}

/* ---- The store ---- */

_Static_assert(sizeof(struct blk_request) <= STORE_PRIVATE_BYTES, "fits behind a store's request");
_Static_assert(STORE_RUN_MAX <= BLK_RUN_MAX, "a run is one request");

static void slots_done(struct blk_request *b)
{
    struct store_request *r = b->arg;

    r->result = b->result == HV_EINVAL ? HV_EIO : b->result;
    r->done(r);
}

static void store_submit_slots(struct store *s, struct store_request *r)
{
    static const enum blk_op ops[] = {
        [STORE_READ] = BLK_READ, [STORE_WRITE] = BLK_WRITE, [STORE_FLUSH] = BLK_FLUSH};
    struct blk_request *b = (struct blk_request *)r->priv;
    bool flush = r->op == STORE_FLUSH;

    if (!flush && (r->slot > s->nr_slots || r->nr > s->nr_slots - r->slot)) {
        env_panic("%s: slots %llu to %llu of %llu", s->name, (unsigned long long)r->slot,
                  (unsigned long long)(r->slot + r->nr), (unsigned long long)s->nr_slots);
    }
    *b = (struct blk_request){.op = ops[r->op],
                              .nr_frames = flush ? 0 : r->nr,
                              .sector =
                                  in_use.first + (SWAPAREA_FIRST_SLOT + r->slot) * BLK_PAGE_SECTORS,
                              .frames = r->frames,
                              .done = slots_done,
                              .arg = r};
    blk_submit(in_use.disk, b);
}

static const struct store_ops store_ops = {.submit = store_submit_slots};

struct store *swaparea_store(void)
{
    return __atomic_load_n(&published, __ATOMIC_ACQUIRE);
}

bool swaparea_in_use(struct swaparea *out)
{
    *out = in_use;
    return swaparea_store() != NULL;
}

void swaparea_listen(void (*fn)(struct store *s))
{
    listener = fn;
    if (swaparea_store() != NULL) {
        fn(swaparea_store());
    }
}

/* `nr_pages` of the header count: the partition may have grown since. */
static void use(const struct swaparea *a, const struct swaparea_header *h)
{
    uint64_t nr_pages = h->nr_pages;
    char uuid[UUID_TEXT];

    if (blkclaim_take(a->disk, a->first, nr_pages * BLK_PAGE_SECTORS, true) != HV_OK) {
        log_error("swap on %s: a VM uses it as its disk; no swap", a->name);
        return;
    }
    in_use = *a;
    in_use.nr_pages = nr_pages;
    store = (struct store){.ops = &store_ops, .nr_slots = nr_pages - SWAPAREA_FIRST_SLOT};
    str_copy(store.name, sizeof(store.name), a->name);
    __atomic_store_n(&published, &store, __ATOMIC_RELEASE);
    log_info("swap on %s: %llu MiB, UUID %s", a->name,
             (unsigned long long)(store.nr_slots >> (20 - PAGE_SHIFT)), uuid_text(h->uuid, uuid));
    if (listener != NULL) {
        listener(&store);
    }
}

/* ---- Formatting ---- */

enum hv_err swaparea_code(const struct swaparea *a, uint32_t *code)
{
    mfn_t mfn;
    void *page = new_page(&mfn);

    if (page == NULL) {
        return HV_ENOMEM;
    }
    enum hv_err err = swaparea_read_page(a->disk, a->first, page);

    *code = crc32(0, page, PAGE_SIZE);
    *code = crc32(*code, a->disk->serial, sizeof(a->disk->serial));
    *code = crc32(*code, a->name, sizeof(a->name));
    buddy_free(mfn, 0);
    return err;
}

static void fill_header(struct swaparea_header *h, const struct swaparea *a)
{
    struct rng rng;

    random_stream(&rng, "swap area", a->name);
    *h = (struct swaparea_header){
        .magic = MAGIC, .version = VERSION, .page_bytes = PAGE_SIZE, .nr_pages = a->nr_pages};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t v = rng_next(&rng);

        memcpy(h->uuid + 8 * i, &v, sizeof(v));
    }
    h->uuid[6] = (uint8_t)((h->uuid[6] & 0x0f) | 0x40);
    h->uuid[8] = (uint8_t)((h->uuid[8] & 0x3f) | 0x80);
    h->crc = crc32(0, h, offsetof(struct swaparea_header, crc));
}

/* The last page goes first: a GPT's second copy there would bring the first one back. */
static enum hv_err write_header(const struct swaparea *a, void *page, mfn_t mfn,
                                struct swaparea_header *read_back)
{
    enum hv_err err;

    memset(page, 0, PAGE_SIZE);
    err = blk_io(a->disk, BLK_WRITE, a->first + (a->nr_pages - 1) * BLK_PAGE_SECTORS, &mfn, 1);
    if (err == HV_OK) {
        fill_header(page, a);
        err = blk_io(a->disk, BLK_WRITE, a->first, &mfn, 1);
    }
    if (err == HV_OK) {
        err = blk_io(a->disk, BLK_FLUSH, 0, NULL, 0);
    }
    if (err == HV_OK && !read_header(a, page, read_back)) {
        err = HV_EIO;
    }
    return err;
}

enum hv_err swaparea_may_format(const struct swaparea *a)
{
    if (a->nr_pages < SWAPAREA_MIN_PAGES) {
        return HV_ERANGE;
    }
    return blkclaim_any(a->disk, a->first, a->nr_pages * BLK_PAGE_SECTORS) ? HV_EBUSY : HV_OK;
}

enum hv_err swaparea_format(const struct swaparea *a)
{
    enum hv_err err = swaparea_may_format(a);
    struct swaparea_header h;
    mfn_t mfn;

    if (err != HV_OK) {
        return err;
    }
    void *page = new_page(&mfn);

    if (page == NULL) {
        return HV_ENOMEM;
    }
    err = write_header(a, page, mfn, &h);

    buddy_free(mfn, 0);
    if (err == HV_OK && swaparea_store() == NULL) {
        use(a, &h);
    }
    return err;
}

/* ---- The option ---- */

static void start_ram(const char *size)
{
    struct blk_disk *d;
    uint64_t bytes;
    enum hv_err err = parse_size(size, MIB(1), &bytes);

    if (err == HV_OK) {
        err = ramdisk_create(bytes, &d);
    }
    if (err == HV_OK) {
        struct swaparea a = whole(d);

        err = swaparea_format(&a);
    }
    if (err != HV_OK) {
        log_error("swap = ram:%s: %s; no swap", size, hv_strerror(err));
    }
}

static void start_disk(const char *name, const struct swaparea_loan *loans, unsigned nr_loans)
{
    const char *vm;
    struct swaparea a;
    struct swaparea_header h;
    mfn_t mfn;
    void *page = new_page(&mfn);

    if (page == NULL) {
        log_error("swap = disk:%s: no memory to look for it; no swap", name != NULL ? name : "");
    } else if (find(name, loans, nr_loans, &a, &vm) != HV_OK) {
        if (name != NULL) {
            log_error("swap = disk:%s: no such disk, partition or area; `disks` lists them", name);
        }
    } else if (vm != NULL) {
        log_error("swap = disk:%s: %s is on the disk of vm %s; no swap", name, a.name, vm);
    } else if (read_header(&a, page, &h)) {
        use(&a, &h);
    } else {
        log_error(
            "swap = disk:%s: %s carries no swap area of ours; nothing is written to it. `swap "
            "format %s` makes one",
            name, a.name, a.name);
    }
    if (page != NULL) {
        buddy_free(mfn, 0);
    }
}

void swaparea_start(const char *option, const struct swaparea_loan *loans, unsigned nr_loans)
{
    if (str_equal(option, "off")) {
        return;
    }
    if (str_starts(option, "ram:")) {
        start_ram(option + 4);
    } else if (str_starts(option, "disk:")) {
        start_disk(option + 5, loans, nr_loans);
    } else {
        start_disk(NULL, loans, nr_loans);
    }
}

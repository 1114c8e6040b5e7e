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

/* A frame, or NULL. */
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

/* ---- What an area carries ---- */

/* Work space of a look at disks: too large for a stack. */
struct look {
    struct label label;
    void *page;
    mfn_t mfn;
};

static struct look *look_new(void)
{
    struct look *l = kmalloc(sizeof(*l), OWNER_HOST);

    if (l != NULL && (l->page = new_page(&l->mfn)) == NULL) {
        kfree(l);
        l = NULL;
    }
    return l;
}

/* NULL too. */
static void look_end(struct look *l)
{
    if (l != NULL) {
        buddy_free(l->mfn, 0);
        kfree(l);
    }
}

static bool header_valid(const struct swaparea_header *h, const struct swaparea *a)
{
    return memcmp(h->magic, MAGIC, sizeof(h->magic)) == 0 && h->version == VERSION &&
           h->page_bytes == PAGE_SIZE &&
           h->crc == crc32(0, h, offsetof(struct swaparea_header, crc)) &&
           h->nr_pages >= SWAPAREA_MIN_PAGES && h->nr_pages <= a->nr_pages;
}

/* Has somebody put anything else there? what: its name. `dirty`: the area's first page has something behind
 * the header. */
static bool find_others(struct look *l, const struct swaparea *a, bool dirty, char *what, size_t n)
{
    struct label_source source = swaparea_source(a->disk);
    const char *mark;

    if (a->first == 0) {
        if (label_read(&source, l->page, &l->label) != HV_OK) {
            str_copy(what, n, "what cannot be read");
            return true;
        }
        if (l->label.kind != LABEL_NONE) {
            scnprintf(what, n, "a partition table (%s, %u partition%s)",
                      l->label.kind == LABEL_GPT ? "GPT" : "MBR", l->label.nr_parts,
                      l->label.nr_parts == 1 ? "" : "s");
            return true;
        }
    }
    if (label_foreign(&source, a->first, a->nr_pages * BLK_PAGE_SECTORS, l->page, &mark) != HV_OK) {
        str_copy(what, n, "what cannot be read");
        return true;
    }
    str_copy(what, n, mark != NULL ? mark : "unknown data");
    return mark != NULL || dirty;
}

/*
 * A header outlives what is done to the disk afterwards: a partition table begins at byte 440, a RAID's mark in
 * the second page. So an area is ours only as long as all is as write_header left it.
 */
static enum hv_err check(struct look *l, const struct swaparea *a, struct swaparea_header *h,
                         char why[SWAPAREA_WHY_MAX])
{
    char what[64];

    if (a->nr_pages == 0 || swaparea_read_page(a->disk, a->first, l->page) != HV_OK) {
        return HV_ENOENT;
    }
    memcpy(h, l->page, sizeof(*h));
    if (!header_valid(h, a)) {
        return HV_ENOENT;
    }
    bool dirty = !mem_is_zero((const uint8_t *)l->page + sizeof(*h), PAGE_SIZE - sizeof(*h));

    if (find_others(l, a, dirty, what, sizeof(what))) {
        scnprintf(why, SWAPAREA_WHY_MAX,
                  "behind its signature is %s; nothing is written to it. `swap format %s` makes it "
                  "an area again",
                  what, a->name);
        return HV_EPERM;
    }
    if (a->disk->read_only) {
        str_copy(why, SWAPAREA_WHY_MAX, "the disk is read-only");
        return HV_EPERM;
    }
    return HV_OK;
}

enum hv_err swaparea_check(const struct swaparea *a, char why[SWAPAREA_WHY_MAX])
{
    struct swaparea_header h;
    struct look *l = look_new();
    enum hv_err err = l != NULL ? check(l, a, &h, why) : HV_ENOMEM;
    bool ours = swaparea_store() != NULL && in_use.disk == a->disk && in_use.first == a->first;

    if (err == HV_OK && !ours && blkclaim_any(a->disk, a->first, a->nr_pages * BLK_PAGE_SECTORS)) {
        str_copy(why, SWAPAREA_WHY_MAX, "it is in use");
        err = HV_EPERM;
    }
    look_end(l);
    return err;
}

/* ---- Finding areas ---- */

static struct swaparea whole(struct blk_disk *d)
{
    struct swaparea a = {.disk = d, .nr_pages = d->nr_sectors / BLK_PAGE_SECTORS};

    str_copy(a.name, sizeof(a.name), d->name);
    return a;
}

static struct swaparea part_of(struct blk_disk *d, const struct label_part *p, enum label_kind kind)
{
    struct swaparea a = {.disk = d,
                         .first = p->first,
                         .nr_pages = p->nr_sectors / BLK_PAGE_SECTORS,
                         .other_type = kind == LABEL_GPT &&
                                       memcmp(p->type, label_swap_type, sizeof(p->type)) != 0};

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
    const char *name; /* NULL: any that `auto` may take */
    const struct swaparea_loan *loans;
    unsigned nr_loans;
    struct swaparea *out;
    struct look *look;
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

static bool has_name(const struct swaparea *a, const char *name)
{
    return str_equal(name, a->name) ||
           (a->first == 0 && a->disk->serial[0] != '\0' && str_equal(name, a->disk->serial));
}

/* What a VM can write to says nothing by its signature: only a name of ours finds it. Whether what was found
 * by name or UUID may be used is its finder's business. */
static bool matches(struct search *s, const struct swaparea *a)
{
    char why[SWAPAREA_WHY_MAX];
    struct swaparea_header h;

    if (s->name != NULL && has_name(a, s->name)) {
        return true;
    }
    enum hv_err err = check(s->look, a, &h, why);

    if (err == HV_ENOENT || (s->name != NULL && !uuid_is(h.uuid, s->name))) {
        return false;
    }
    const char *vm = borrower(s, a);

    if (vm != NULL) {
        scnprintf(why, sizeof(why), "it is on the disk of vm %s", vm);
    } else if (s->name != NULL) {
        return true;
    } else if (err == HV_OK && a->other_type) {
        scnprintf(why, sizeof(why),
                  "the partition is not of a swap area's type; `swap = disk:%s` takes it", a->name);
    } else if (err == HV_OK) {
        return true;
    }
    log_warn("swap area on %s passed over: %s", a->name, why);
    return false;
}

static bool search_disk(struct search *s, struct blk_disk *d)
{
    struct label_source source = swaparea_source(d);
    struct label *label = &s->look->label;

    *s->out = whole(d);
    if (matches(s, s->out)) {
        return true;
    }
    if (label_read(&source, s->look->page, label) != HV_OK) {
        return false;
    }
    for (unsigned i = 0; i < label->nr_parts; i++) {
        *s->out = part_of(d, &label->parts[i], label->kind);
        if (matches(s, s->out)) {
            return true;
        }
    }
    return false;
}

/* *vm: the VM that has a part of it as its disk, or NULL. */
static enum hv_err find(struct look *l, const char *name, const struct swaparea_loan *loans,
                        unsigned nr_loans, struct swaparea *out, const char **vm)
{
    struct search s = {.name = name, .loans = loans, .nr_loans = nr_loans, .out = out, .look = l};

    for (unsigned i = 0; i < blk_count(); i++) {
        if (!blk_gone(blk_disk(i)) && search_disk(&s, blk_disk(i))) {
            *vm = borrower(&s, out);
            return HV_OK;
        }
    }
    return HV_ENOENT;
}

enum hv_err swaparea_find(const char *name, struct swaparea *out)
{
    struct look *l = look_new();
    const char *vm;
    enum hv_err err = l != NULL ? find(l, name, NULL, 0, out, &vm) : HV_ENOMEM;

    look_end(l);
    return err;
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

static bool store_is_gone(const struct store *s)
{
    (void)s;
    return blk_gone(in_use.disk);
}

static const struct store_ops store_ops = {.submit = store_submit_slots, .gone = store_is_gone};

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
        log_error("no swap on %s: a VM uses it as its disk", a->name);
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

void swaparea_stop(void)
{
    if (swaparea_store() != NULL) {
        blkclaim_drop(in_use.disk, in_use.first, in_use.nr_pages * BLK_PAGE_SECTORS, true);
    }
    __atomic_store_n(&published, NULL, __ATOMIC_RELEASE);
    listener = NULL;
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

/* The pages of the test zone, in which marks of other contents may stand. */
static enum hv_err clear_test_zone(const struct swaparea *a, mfn_t zeros)
{
    mfn_t frames[BLK_RUN_MAX];
    enum hv_err err = HV_OK;
    uint32_t nr;

    for (unsigned i = 0; i < BLK_RUN_MAX; i++) {
        frames[i] = zeros;
    }
    for (uint32_t page = 1; page < SWAPAREA_FIRST_SLOT && err == HV_OK; page += nr) {
        nr = MIN(BLK_RUN_MAX, SWAPAREA_FIRST_SLOT - page);
        err = blk_io(a->disk, BLK_WRITE, a->first + page * BLK_PAGE_SECTORS, frames, nr);
    }
    return err;
}

/* The last page goes first: a GPT's second copy there would bring the first one back. */
static enum hv_err write_header(const struct swaparea *a, struct look *l,
                                struct swaparea_header *read_back)
{
    char why[SWAPAREA_WHY_MAX];
    enum hv_err err;

    memset(l->page, 0, PAGE_SIZE);
    err = blk_io(a->disk, BLK_WRITE, a->first + (a->nr_pages - 1) * BLK_PAGE_SECTORS, &l->mfn, 1);
    if (err == HV_OK) {
        err = clear_test_zone(a, l->mfn);
    }
    if (err == HV_OK) {
        fill_header(l->page, a);
        err = blk_io(a->disk, BLK_WRITE, a->first, &l->mfn, 1);
    }
    if (err == HV_OK) {
        err = blk_io(a->disk, BLK_FLUSH, 0, NULL, 0);
    }
    if (err == HV_OK && check(l, a, read_back, why) != HV_OK) {
        err = HV_EIO;
    }
    return err;
}

enum hv_err swaparea_may_format(const struct swaparea *a)
{
    if (a->disk->read_only) {
        return HV_EPERM;
    }
    if (a->nr_pages < SWAPAREA_MIN_PAGES) {
        return HV_ERANGE;
    }
    return blkclaim_any(a->disk, a->first, a->nr_pages * BLK_PAGE_SECTORS) ? HV_EBUSY : HV_OK;
}

enum hv_err swaparea_format(const struct swaparea *a)
{
    enum hv_err err = swaparea_may_format(a);
    struct swaparea_header h;

    if (err != HV_OK) {
        return err;
    }
    struct look *l = look_new();

    if (l == NULL) {
        return HV_ENOMEM;
    }
    err = write_header(a, l, &h);
    look_end(l);
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

/* What was named, or may be taken without a name. */
static void use_found(struct look *l, const char *name, const struct swaparea *a, const char *vm)
{
    char why[SWAPAREA_WHY_MAX];
    struct swaparea_header h;
    enum hv_err err = check(l, a, &h, why);

    if (err == HV_OK && vm == NULL) {
        use(a, &h);
        return;
    }
    if (vm != NULL) {
        scnprintf(why, sizeof(why), "it is on the disk of vm %s", vm);
    } else if (err == HV_ENOENT) {
        scnprintf(why, sizeof(why),
                  "it carries no swap area of ours; nothing is written to it. `swap format %s` "
                  "makes one",
                  a->name);
    }
    log_error("swap = %s%s: no swap on %s: %s", name != NULL ? "disk:" : "auto",
              name != NULL ? name : "", a->name, why);
}

static void start_disk(const char *name, const struct swaparea_loan *loans, unsigned nr_loans)
{
    const char *vm;
    struct swaparea a;
    struct look *l = look_new();

    if (l == NULL) {
        log_error("swap = %s%s: no memory to look for it; no swap", name != NULL ? "disk:" : "auto",
                  name != NULL ? name : "");
    } else if (find(l, name, loans, nr_loans, &a, &vm) == HV_OK) {
        use_found(l, name, &a, vm);
    } else if (name != NULL) {
        log_error("swap = disk:%s: no such disk, partition or area; `disks` lists them", name);
    }
    look_end(l);
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about disks and the swap area: disks, swap.
 */
#include "kernel/drivers/label.h"
#include "kernel/drivers/swaparea.h"
#include "kernel/drivers/swaptest.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/string.h"
#include "kernel/shell/commands.h"
#include "kernel/shell/format.h"
#include "kernel/vm/swapping.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/reclaim/store.h"
#include "mm/slab.h"

#define TEST_ROUNDS_MAX 1000u

/* ---- What is on a disk ---- */

struct survey {
    struct label label;
    void *page;
    mfn_t mfn;
};

static struct survey *survey_new(void)
{
    struct survey *s = kmalloc(sizeof(*s), OWNER_HOST);

    if (s != NULL && buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &s->mfn) != HV_OK) {
        kfree(s);
        s = NULL;
    }
    if (s == NULL) {
        shell_print("no memory\n");
        return NULL;
    }
    s->page = env_frame_ptr(s->mfn);
    return s;
}

static void survey_free(struct survey *s)
{
    buddy_free(s->mfn, 0);
    kfree(s);
}

static const char *content(struct survey *s, const struct label_source *source, uint64_t first,
                           uint64_t nr)
{
    const char *what = label_content(source, first, nr, s->page);

    return what != NULL ? what : "cannot be read";
}

static void print_part(struct survey *s, const struct label_source *source, const char *disk,
                       const struct label_part *p)
{
    char size[FORMAT_MAX];
    char type[40];

    shell_print("  %sp%-3u %7s  at sector %llu, %s%s%s%s: %s\n", disk, p->number,
                format_size(size, p->nr_sectors * BLK_SECTOR), (unsigned long long)p->first,
                label_type(p, s->label.kind, type), p->name[0] != '\0' ? " \"" : "", p->name,
                p->name[0] != '\0' ? "\"" : "", content(s, source, p->first, p->nr_sectors));
}

static void print_content(struct survey *s, struct blk_disk *d)
{
    struct label_source source = swaparea_source(d);
    enum hv_err err = blk_gone(d) ? HV_ENOENT : label_read(&source, s->page, &s->label);

    if (err != HV_OK) {
        shell_print("  cannot be read: %s\n", blk_gone(d) ? "it is gone" : hv_strerror(err));
        return;
    }
    if (s->label.kind == LABEL_NONE) {
        shell_print("  no partitions: %s\n", content(s, &source, 0, d->nr_sectors));
        return;
    }
    shell_print("  %s, %u partition%s%s%s\n", s->label.kind == LABEL_GPT ? "GPT" : "MBR",
                s->label.nr_parts, s->label.nr_parts == 1 ? "" : "s",
                s->label.problem != NULL ? "; " : "",
                s->label.problem != NULL ? s->label.problem : "");
    for (unsigned i = 0; i < s->label.nr_parts; i++) {
        print_part(s, &source, d->name, &s->label.parts[i]);
    }
}

static void print_disk(const struct blk_disk *d)
{
    const struct blk_stats *q = &d->queue.stats;
    uint64_t nr = q->reads + q->writes + q->flushes;
    char size[FORMAT_MAX];

    shell_print("%-9s %7s  %u-byte sectors, %s%s%s, %s%s%s\n", d->name,
                format_size(size, d->nr_sectors * BLK_SECTOR), d->sector_bytes, d->model,
                d->serial[0] != '\0' ? ", serial " : "", d->serial,
                d->interrupts ? d->irq : "polled", d->read_only ? ", read-only" : "",
                blk_gone(d) ? ", GONE" : "");
    shell_print("  %llu reads, %llu writes, %llu flushes, %llu us each; %llu retries, %llu resets, "
                "%llu errors; %llu interrupts, %llu polls, %llu bounced\n",
                (unsigned long long)q->reads, (unsigned long long)q->writes,
                (unsigned long long)q->flushes,
                (unsigned long long)(nr != 0 ? q->ns_busy / nr / 1000 : 0),
                (unsigned long long)q->retries, (unsigned long long)q->resets,
                (unsigned long long)q->errors, (unsigned long long)q->interrupts,
                (unsigned long long)q->polls, (unsigned long long)q->bounced);
}

void cmd_disks(unsigned nr, char **args)
{
    struct survey *s = survey_new();

    (void)nr;
    (void)args;
    if (s == NULL) {
        return;
    }
    for (unsigned i = 0; i < blk_count(); i++) {
        print_disk(blk_disk(i));
        print_content(s, blk_disk(i));
    }
    if (blk_count() == 0) {
        shell_print("no disks\n");
    }
    survey_free(s);
}

/* ---- The swap area ---- */

static void print_area(void)
{
    struct swaparea a;
    char size[FORMAT_MAX];

    if (!swaparea_in_use(&a)) {
        shell_print("no swap area; `swap format DISK` makes one, `disks` lists what there is\n");
        return;
    }
    shell_print("%s: %llu slots, %s, %s%s\n", a.name,
                (unsigned long long)swaparea_store()->nr_slots,
                format_size(size, swaparea_store()->nr_slots * PAGE_SIZE), swapping_encryption(),
                blk_gone(a.disk) ? "; THE DISK IS GONE" : "");
    print_disk(a.disk);
}

/* `swap = auto` goes by it. */
static void print_type(const struct swaparea *a)
{
    if (a->other_type) {
        shell_print("The partition is not of a swap area's type: at start-up only `swap = disk:%s` "
                    "takes it\n",
                    a->name);
    }
}

static void show_before_format(const struct swaparea *a, uint32_t code)
{
    struct survey *s = survey_new();
    struct label_source source = swaparea_source(a->disk);
    char size[FORMAT_MAX];

    if (s == NULL) {
        return;
    }
    print_disk(a->disk);
    print_content(s, a->disk);
    shell_print("ALL of %s, %s, will be lost (it has: %s). To go on:\n  swap format %s %08x\n",
                a->name, format_size(size, a->nr_pages * PAGE_SIZE),
                content(s, &source, a->first, a->nr_pages * BLK_PAGE_SECTORS), a->name, code);
    print_type(a);
    survey_free(s);
}

static void format_refused(const struct swaparea *a, enum hv_err err)
{
    shell_error("swap", "%s: %s", a->name,
                err == HV_EBUSY    ? "is in use"
                : err == HV_ERANGE ? "is too small"
                : err == HV_EPERM  ? "is read-only"
                                   : hv_strerror(err));
}

/* And whether it is used, now and after the next boot. */
static void say_formatted(const struct swaparea *a)
{
    struct swaparea used;

    shell_print("%s: formatted\n", a->name);
    if (swaparea_in_use(&used) && (used.disk != a->disk || used.first != a->first)) {
        shell_print("It is not in use: there is one already, on %s\n", used.name);
    }
    print_type(a);
}

/* Twice: the first time says what would be lost, and the code to repeat. */
static void format_area(const char *name, const char *confirmation)
{
    struct swaparea a;
    uint32_t code;
    uint64_t given = 0;
    char hex[12] = "0x";
    enum hv_err err = swaparea_find(name, &a);

    if (err == HV_ENOENT) {
        shell_error("swap", "no disk or partition '%s'; `disks` lists them", name);
        return;
    }
    if (err != HV_OK) {
        shell_error("swap", "%s", hv_strerror(err));
        return;
    }
    err = swaparea_may_format(&a);
    if (err != HV_OK) {
        format_refused(&a, err);
        return;
    }
    err = swaparea_code(&a, &code);
    if (err != HV_OK) {
        shell_error("swap", "%s cannot be read: %s", a.name, hv_strerror(err));
        return;
    }
    if (confirmation == NULL) {
        show_before_format(&a, code);
        return;
    }
    str_copy(hex + 2, sizeof(hex) - 2, confirmation);
    if (parse_u64(hex, &given) != HV_OK || given != code) {
        shell_error("swap", "'%s' is not the code; nothing was written", confirmation);
        return;
    }
    err = swaparea_format(&a);
    if (err != HV_OK) {
        format_refused(&a, err);
        return;
    }
    say_formatted(&a);
}

static uint64_t mib_per_s(uint64_t pages, uint64_t ns)
{
    return ns != 0 ? pages * PAGE_SIZE * 1000 / MIB(1) * 1000000 / ns : 0;
}

static void print_round(uint64_t number, enum hv_err err, const struct swaptest_result *r)
{
    if (err == HV_OK) {
        shell_print("round %llu: %llu pages written and read back as they were, %llu requests, "
                    "%llu and %llu MiB/s\n",
                    (unsigned long long)number, (unsigned long long)r->pages,
                    (unsigned long long)r->requests,
                    (unsigned long long)mib_per_s(r->pages, r->write_ns),
                    (unsigned long long)mib_per_s(r->pages, r->read_ns));
    } else if (err == HV_EIO) {
        shell_print("round %llu: FAILED: %llu requests failed, %llu pages wrong, the first at page "
                    "%llu\n",
                    (unsigned long long)number, (unsigned long long)r->failed,
                    (unsigned long long)r->wrong, (unsigned long long)r->first_bad);
    } else {
        shell_error("swap", "%s", hv_strerror(err));
    }
}

/* Without a name, the area in use. */
static void test_area(uint64_t rounds, const char *name)
{
    char why[SWAPAREA_WHY_MAX];
    struct swaparea a;
    enum hv_err err = name != NULL          ? swaparea_find(name, &a)
                      : swaparea_in_use(&a) ? HV_OK
                                            : HV_ENOENT;

    if (err == HV_OK) {
        err = swaparea_check(&a, why);
    }
    if (err == HV_EPERM) {
        shell_error("swap", "%s: %s", a.name, why);
        return;
    }
    if (err == HV_ENOENT) {
        shell_error("swap", "no swap area%s%s", name != NULL ? " on " : "",
                    name != NULL ? name : "");
        return;
    }
    if (err != HV_OK) {
        shell_error("swap", "%s", hv_strerror(err));
        return;
    }
    for (uint64_t i = 0; i < rounds; i++) {
        struct swaptest_result r;

        err = swaptest_round(&a, i, &r);
        print_round(i + 1, err, &r);
    }
}

static void usage(void)
{
    shell_print("usage: swap [format DISK [CODE] | test [ROUNDS [DISK]]]\n");
}

void cmd_swap(unsigned nr, char **args)
{
    uint64_t rounds = 1;

    if (nr == 1) {
        print_area();
    } else if (nr >= 3 && str_equal(args[1], "format")) {
        format_area(args[2], nr > 3 ? args[3] : NULL);
    } else if (!str_equal(args[1], "test") ||
               (nr > 2 && (parse_u64(args[2], &rounds) != HV_OK || rounds == 0 ||
                           rounds > TEST_ROUNDS_MAX))) {
        usage();
    } else {
        test_area(rounds, nr > 3 ? args[3] : NULL);
    }
}

void cmd_swap_complete(unsigned index, struct line_completions *c)
{
    static const char *const words[] = {"format", "test"};

    if (index == 1) {
        shell_offer_list(c, words, ARRAY_SIZE(words));
        return;
    }
    for (unsigned i = 0; index > 1 && i < blk_count(); i++) {
        line_offer(c, blk_disk(i)->name);
    }
}

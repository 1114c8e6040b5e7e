/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See mem_screen.h. A column goes into the present table if it fits, else it begins the next one.
 */
#include "kernel/shell/mem_screen.h"

#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/shell/format.h"
#include "kernel/shell/shell.h"
#include "kernel/shell/terminal.h"
#include "kernel/vm/memstat.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/reclaim/swap.h"

#define NAME_MIN 8u

struct canvas {
    unsigned width, height; /* height 0: without end */
    unsigned row;
    bool in_place;
    unsigned name_width;
    unsigned first, last; /* columns of the present table: [first, last) */
    struct memstat_vm sum;
    unsigned nr_vms;
};

static uint64_t mb(uint64_t pages)
{
    return pages * PAGE_SIZE / MIB(1);
}

#define ULL(x) ((unsigned long long)(x))

/* One line, cut at the width; nothing below the last row. */
static void line(struct canvas *c, const char *fmt, ...) __printf_like(2, 3);
static void line(struct canvas *c, const char *fmt, ...)
{
    char text[MEM_SCREEN_MAX_WIDTH + 1];
    va_list ap;

    if (c->height != 0 && c->row + 1 > c->height) {
        c->row++;
        return;
    }
    va_start(ap, fmt);
    vscnprintf(text, c->in_place ? c->width + 1 : sizeof(text), fmt, ap);
    va_end(ap);
    if (c->in_place) {
        shell_print("%s%s" TERMINAL_END_LINE, c->row != 0 ? "\r\n" : "", text);
    } else {
        shell_print("%s\n", text);
    }
    c->row++;
}

/* ---- The host ---- */

static void print_machine(struct canvas *c, const struct memstat_host *h)
{
    line(c, "%llu VMs; MEM overcommit avg: %llu.%02llu, %llu.%02llu, %llu.%02llu; up %llu s",
         ULL(h->vms), ULL(h->overcommit[0] / 1000), ULL(h->overcommit[0] % 1000 / 10),
         ULL(h->overcommit[1] / 1000), ULL(h->overcommit[1] % 1000 / 10),
         ULL(h->overcommit[2] / 1000), ULL(h->overcommit[2] % 1000 / 10),
         ULL(h->time_ns / 1000000000));
    line(c, "PMEM  /MB: %6llu total: %6llu vmk, %6llu other, %6llu free", ULL(mb(h->total)),
         ULL(mb(h->vmk)), ULL(mb(h->other)), ULL(mb(h->free)));
    line(c, "VMKMEM/MB: %6llu managed: %6llu minfree, %6llu rsvd, %6llu ursvd, state %s",
         ULL(mb(h->managed)), ULL(mb(h->min_free)), ULL(mb(h->reserved)), ULL(mb(h->unreserved)),
         h->state);
}

static void print_means(struct canvas *c, const struct memstat_host *h)
{
    line(c, "PSHARE/MB: %6llu shared, %6llu common: %6llu saving; %llu zero", ULL(mb(h->shared)),
         ULL(mb(h->common)), ULL(mb(h->saving)), ULL(mb(h->zero)));
    line(c, "SWAP  /MB: %6llu curr, %6llu rclmtgt: %llu.%02llu r/s, %llu.%02llu w/s",
         ULL(mb(h->swap_curr)), ULL(mb(h->swap_tgt)), ULL(mb(h->swap_r)),
         ULL(mb(h->swap_r * 100) % 100), ULL(mb(h->swap_w)), ULL(mb(h->swap_w * 100) % 100));
    line(c, "ZIP   /MB: %6llu zipped, %6llu saved", ULL(mb(h->zipped)), ULL(mb(h->zip_saved)));
    line(c, "MEMCTL/MB: %6llu curr, %6llu target, %6llu max", ULL(mb(h->balloon_curr)),
         ULL(mb(h->balloon_tgt)), ULL(mb(h->balloon_max)));
}

/* What esxtop has no line for. */
static void print_more(struct canvas *c, const struct memstat_host *h)
{
    uint64_t metadata = h->table_bytes + h->index_bytes;
    uint64_t per_mille100 = h->total != 0 ? metadata * 100000 / (h->total * PAGE_SIZE) : 0;
    struct swap_stats s;

    line(c, "VM    /KB: %llu guest memory, %llu overhead", ULL(h->guest * PAGE_SIZE / KIB(1)),
         ULL(h->overhead * PAGE_SIZE / KIB(1)));
    line(c, "VMK   /KB: %llu bytes in small objects; %llu frames retired", ULL(h->small_bytes),
         ULL(h->retired));
    line(c, "LARGE    : 2 MiB pages: %llu split, %llu joined, %llu blocks compacted", ULL(h->split),
         ULL(h->joined), ULL(h->compacted));
    line(c, "WAIT     : %llu vCPUs wait for memory, %llu waits", ULL(h->waiting), ULL(h->waits));
    if (h->total_high > 0) {
        line(c, "HIGH  /MB: %llu total above 4 GiB, %llu of it used", ULL(mb(h->total_high)),
             ULL(mb(h->total_high - h->free_high)));
    }
    line(c, "META  /KB: %llu frame table (at 0x%llx), %llu content index (at most %llu)",
         ULL(h->table_bytes / KIB(1)), ULL(h->table_at), ULL(h->index_bytes / KIB(1)),
         ULL(h->index_max_bytes / KIB(1)));
    line(c, "           together %llu.%03llu %% of memory", ULL(per_mille100 / 1000),
         ULL(per_mille100 % 1000));
    swap_stats(&s);
    line(c, "STORE    : %s: %s%llu of %llu slots, %llu bad; %llu read along, %llu spared",
         s.store != NULL ? s.store : "no area", s.gone ? "GONE; " : "", ULL(s.used), ULL(s.slots),
         ULL(s.bad), ULL(s.along), ULL(s.spared));
    line(c, "           errors: %llu write, %llu read, %llu checksum", ULL(s.write_errors),
         ULL(s.read_errors), ULL(s.mismatches));
}

static void print_free(struct canvas *c)
{
    struct buddy_stats s;
    char text[MEM_SCREEN_MAX_WIDTH];
    size_t n = 0;

    buddy_stats(&s);
    text[0] = '\0';
    for (unsigned order = 0; order <= BUDDY_MAX_ORDER; order++) {
        if (s.free_blocks[order] > 0) {
            char size[FORMAT_MAX];

            n += scnprintf(text + n, sizeof(text) - n, " %llux%s", ULL(s.free_blocks[order]),
                           format_size(size, PAGE_SIZE << order));
        }
    }
    line(c, "FREE     :%s", text);
}

/* ---- The VMs ---- */

static const char *format_value(char buf[FORMAT_MAX], uint64_t value, enum memstat_unit unit)
{
    switch (unit) {
    case UNIT_PAGES:
        return format_mb(buf, value * PAGE_SIZE);
    case UNIT_RATE:
        scnprintf(buf, FORMAT_MAX, "%llu.%02llu", ULL(mb(value)), ULL(mb(value * 100) % 100));
        return buf;
    case UNIT_PER_MILLE:
        scnprintf(buf, FORMAT_MAX, "%llu.%llu", ULL(value / 10), ULL(value % 10));
        return buf;
    case UNIT_FLAG:
        return value != 0 ? "Y" : "N";
    case UNIT_BYTES:
        value /= KIB(1);
        break;
    case UNIT_NUMBER:
        break;
    }
    scnprintf(buf, FORMAT_MAX, "%llu", ULL(value));
    return buf;
}

static unsigned width_of(const struct memstat_field *f)
{
    return 1 + MAX((unsigned)strlen(f->title), f->width);
}

/* All rows of a table are made here; what does not add up stays empty in the sum. */
static void print_row(struct canvas *c, struct memstat_vm *vm, bool sum)
{
    char text[MEM_SCREEN_MAX_WIDTH + 1], buf[FORMAT_MAX];
    size_t n = scnprintf(text, sizeof(text), "%-*s", (int)c->name_width, vm->name);

    for (unsigned i = c->first; i < c->last; i++) {
        const struct memstat_field *f = &memstat_fields[i];
        const char *value =
            sum && !f->adds_up ? "-" : format_value(buf, *memstat_value(vm, f), f->unit);

        n += scnprintf(text + n, sizeof(text) - n, "%*s", (int)width_of(f), value);
    }
    line(c, "%s", text);
}

static void print_titles(struct canvas *c)
{
    char text[MEM_SCREEN_MAX_WIDTH + 1];
    size_t n = scnprintf(text, sizeof(text), "%-*s", (int)c->name_width, "NAME");

    for (unsigned i = c->first; i < c->last; i++) {
        n += scnprintf(text + n, sizeof(text) - n, "%*s", (int)width_of(&memstat_fields[i]),
                       memstat_fields[i].title);
    }
    line(c, "%s", text);
}

static bool print_vm(struct vm *vm, void *arg)
{
    struct canvas *c = arg;
    struct memstat_vm m;

    memstat_of_vm(vm, &m);
    print_row(c, &m, false);
    for (unsigned i = c->first; i < c->last; i++) {
        *memstat_value(&c->sum, &memstat_fields[i]) += *memstat_value(&m, &memstat_fields[i]);
    }
    c->nr_vms++;
    return true;
}

static bool widen(struct vm *vm, void *arg)
{
    struct canvas *c = arg;

    c->name_width = MAX(c->name_width, (unsigned)strlen(vm->config.name));
    return true;
}

/* How many columns fit from the first on; at least one. */
static void choose_columns(struct canvas *c)
{
    unsigned at = c->name_width + width_of(&memstat_fields[c->first]);

    c->last = c->first + 1;
    while (c->last < NR_MEMSTAT_FIELDS && at + width_of(&memstat_fields[c->last]) <= c->width) {
        at += width_of(&memstat_fields[c->last++]);
    }
}

static void print_tables(struct canvas *c)
{
    c->name_width = NAME_MIN;
    vm_for_each(widen, c);
    for (c->first = 0; c->first < NR_MEMSTAT_FIELDS; c->first = c->last) {
        choose_columns(c);
        c->sum = (struct memstat_vm){.name = "(all)"};
        c->nr_vms = 0;
        print_titles(c);
        vm_for_each(print_vm, c);
        if (c->nr_vms > 1) {
            print_row(c, &c->sum, true);
        }
    }
}

/* ---- All of it ---- */

void mem_screen_print(unsigned width)
{
    struct canvas c = {.width = width};
    struct memstat_host h;

    memstat_of_host(&h);
    print_machine(&c, &h);
    print_means(&c, &h);
    print_more(&c, &h);
    print_free(&c);
    print_tables(&c);
}

/* The VMs matter most: the lines that esxtop does not have are left to `mem once`. */
void mem_screen_draw(unsigned width, unsigned height)
{
    struct canvas c = {.width = width, .height = height - 1, .in_place = true};
    struct memstat_host h;

    memstat_of_host(&h);
    shell_print(TERMINAL_HOME);
    print_machine(&c, &h);
    print_means(&c, &h);
    line(&c, "%s", "");
    print_tables(&c);
    unsigned hidden = c.row - MIN(c.row, c.height);

    if (hidden != 0) {
        c.row = c.height; /* the row that was kept free */
    }
    c.height = height;
    if (hidden != 0) {
        line(&c, "(%u more lines: `mem once`) any key ends", hidden);
    } else {
        line(&c, "any key ends");
    }
    shell_print(TERMINAL_END_SCREEN);
}

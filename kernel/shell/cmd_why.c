/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command `why`: what was decided about a VM's memory, or what happened to one of its pages, in
 * sentences, from the reclaimer's records and notes (mm/reclaim/reclaim.h).
 */
#include "kernel/shell/commands.h"

#include "arch/x86_64/irqflags.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/shell/format.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"

#define MOST_SENTENCES 12u

static const char *megabytes(char text[FORMAT_MAX], uint64_t pages)
{
    return format_mb(text, pages * PAGE_SIZE);
}

static void print_time(uint64_t ns)
{
    shell_print("  [%5llu.%03llu] ", (unsigned long long)(ns / 1000000000u),
                (unsigned long long)(ns / 1000000u % 1000));
}

/* ---- A VM ---- */

static void print_now(const char *name, const struct reclaim_numbers *n)
{
    char held[FORMAT_MAX], target[FORMAT_MAX], min[FORMAT_MAX], max[FORMAT_MAX], active[FORMAT_MAX];
    struct reclaim_host h;

    reclaim_host(&h);
    shell_print("%s holds %s MB. %s MB are its due: its min is %s MB, its max %s MB, it has %llu "
                "shares, and it uses %s MB%s.\n",
                name, megabytes(held, n->held), megabytes(target, n->target),
                megabytes(min, n->min), megabytes(max, n->max), (unsigned long long)n->shares,
                megabytes(active, n->active), n->estimate.known ? "" : " (not sampled yet)");
    shell_print("Memory is %s: %s MB are free, %s MB are wanted.%s\n", policy_state_name(h.state),
                megabytes(held, h.free), megabytes(target, h.goal),
                n->blocked ? " It is low, and this VM waits because it holds more than its due."
                           : "");
}

static void print_asked(const struct reclaim_record *r)
{
    char a[FORMAT_MAX], b[FORMAT_MAX];

    if (r->rule == RULE_BELOW_TARGET) {
        shell_print("it may have %s MB back by %s", megabytes(a, r->asked), r->means);
        return;
    }
    shell_print("%s was to take %s MB from it: ", r->means, megabytes(a, r->asked));
    if (r->taken != 0 || r->pending == 0) {
        shell_print("%s MB were taken", megabytes(b, r->taken));
    }
    if (r->pending != 0) {
        shell_print("%s%s MB will be", r->taken != 0 ? ", " : "", megabytes(a, r->pending));
    }
    if (r->why != NULL) {
        shell_print(", for %s", r->why);
    }
}

static void print_record(const struct reclaim_record *r)
{
    static const char *const rules[] = {
        [RULE_ABOVE_TARGET] = "more than its due of",
        [RULE_ABOVE_MAX] = "more than its max; its due were",
        [RULE_BELOW_TARGET] = "less than its due of",
    };
    char held[FORMAT_MAX], target[FORMAT_MAX], free[FORMAT_MAX], active[FORMAT_MAX];

    print_time(r->time_ns);
    shell_print("memory was %s with %s MB free; %s held %s MB, %s %s MB (%s; %s MB in use, %llu "
                "shares), so ",
                policy_state_name(r->state), megabytes(free, r->free), r->name,
                megabytes(held, r->held), rules[r->rule], megabytes(target, r->target),
                r->cause != NULL ? r->cause : "no balance yet", megabytes(active, r->active),
                (unsigned long long)r->shares);
    print_asked(r);
    shell_print(". It cost %llu us", (unsigned long long)(r->cost_ns / 1000));
    if (r->orders > 1) {
        shell_print(" in %llu orders since second %llu", (unsigned long long)r->orders,
                    (unsigned long long)(r->first_ns / 1000000000u));
    }
    shell_print(".\n");
}

static void why_vm(struct vm *vm)
{
    struct reclaim_numbers n;
    struct reclaim_record r;
    uint64_t before = 0;
    uint64_t flags = spin_lock_irqsave(&vm->lock);
    bool known = vm->p2m != NULL && reclaim_numbers(vm->p2m, &n);

    spin_unlock_irqrestore(&vm->lock, flags);
    if (known) {
        print_now(vm->config.name, &n);
    }
    for (unsigned i = 0; i < MOST_SENTENCES && reclaim_record(vm->id, before, &r); i++) {
        print_record(&r);
        before = r.nr;
        if (before == 1) {
            break;
        }
    }
    if (before == 0) {
        shell_print("Nothing was asked of it, and nothing given back, as far as is remembered.\n");
    }
}

/* ---- A page ---- */

static const char *state_text(enum p2m_state s)
{
    switch (s) {
    case P2M_HOLE:
        return "no memory: accesses are emulated";
    case P2M_UNTOUCHED:
        return "untouched: it gets a frame when it is";
    case P2M_PRIVATE:
        return "on a frame of its own";
    case P2M_SHARED:
        return "on a frame that equal pages share";
    case P2M_ZERO:
        return "all zero, on the host's zero frame";
    case P2M_BALLOONED:
        return "given up by the guest's balloon driver";
    case P2M_COMPRESSED:
        return "kept compressed";
    case P2M_SWAPPED:
        return "in the swap area";
    case P2M_INCOMING:
        return "on its way back from the swap area";
    default:
        return "in transit";
    }
}

static void print_note(const struct page_note *n)
{
    static const char *const events[NR_PAGE_EVENTS] = {
        [PAGE_MERGED] = "was merged with an equal page; pages on that frame",
        [PAGE_BALLOONED] = "was given up by the balloon driver",
        [PAGE_UNBALLOONED] = "was taken back by the balloon driver",
        [PAGE_POPPED] = "was touched while it was given up",
        [PAGE_COMPRESSED] = "was compressed, for its VM held more than its due; bytes",
        [PAGE_DECOMPRESSED] = "was touched, and decompressed",
        [PAGE_SWAPPED] = "was written to the swap area, for its VM held more than its due; slot",
        [PAGE_READ_BACK] = "was read back from the swap area; slot",
        [PAGE_SPLIT] = "lost its large page: memory was short",
        [PAGE_JOINED] = "became part of a large page: memory was plentiful",
    };
    bool number = n->event == PAGE_COMPRESSED || n->event == PAGE_SWAPPED ||
                  n->event == PAGE_READ_BACK || (n->event == PAGE_MERGED && n->detail != 0);

    print_time(n->time_ns);
    shell_print("%s %s", n->region ? "the 2 MiB around it" : "it",
                n->event == PAGE_MERGED && n->detail == 0 ? "was found to be all zero"
                                                          : events[n->event]);
    if (number) {
        shell_print(" %llu", (unsigned long long)n->detail);
    }
    shell_print(".\n");
}

static void why_page(struct vm *vm, gfn_t gfn)
{
    struct page_note n;
    struct p2m_entry e = {.state = P2M_HOLE};
    uint64_t before = 0, flags = spin_lock_irqsave(&vm->lock);

    if (vm->p2m != NULL) {
        p2m_query(vm->p2m, gfn, &e);
    }
    spin_unlock_irqrestore(&vm->lock, flags);
    shell_print("Page 0x%llx of %s is %s%s.\n", (unsigned long long)gfn.n, vm->config.name,
                state_text(e.state),
                e.state == P2M_PRIVATE && e.order != ORDER_4K ? ", part of a large page" : "");
    for (unsigned i = 0; i < MOST_SENTENCES && reclaim_page_note(vm->id, gfn, before, &n); i++) {
        print_note(&n);
        before = n.nr;
        if (before == 1) {
            break;
        }
    }
    if (before == 0) {
        shell_print("Nothing is remembered to have happened to it.\n");
    }
}

void cmd_why(unsigned nr, char **args)
{
    struct vm *vm = vm_find(args[1]);
    uint64_t gfn;

    if (vm == NULL) {
        shell_error("why", "no VM '%s'; `vms` lists them", args[1]);
        return;
    }
    if (nr == 2) {
        why_vm(vm);
    } else if (parse_u64(args[2], &gfn) == HV_OK) {
        why_page(vm, GFN(gfn));
    } else {
        shell_error("why", "'%s'; accepted: the number of a guest page, as 0x1234", args[2]);
    }
    vm_put(vm);
}

void cmd_why_complete(unsigned index, struct line_completions *c)
{
    if (index == 1) {
        shell_offer_vms(c);
    }
}

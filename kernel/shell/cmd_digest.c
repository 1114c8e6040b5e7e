/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command digest: one number for the whole state of all VMs' memory, so that two runs can be
 * compared. Into it go, page by page, state, frame or place (but not how often the word has changed),
 * and contents.
 */
#include "kernel/shell/commands.h"
#include "kernel/shell/shell.h"
#include "kernel/vm/vm.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/share/hash.h"
#include "mm/view.h"

#define PRIME 0x100000001b3ull /* FNV-1a's */
#define RELAX_PAGES 256u

struct digest {
    uint64_t hash, pages;
};

static void add(struct digest *d, uint64_t value)
{
    d->hash = (d->hash ^ value) * PRIME;
    d->hash ^= d->hash >> 29;
}

static void add_page(struct digest *d, struct p2m *p, gfn_t gfn)
{
    struct p2m_entry e;
    const void *page;

    p2m_query(p, gfn, &e);
    add(d, e.state);
    add(d, p2m_place(&e));
    page = p2m_peek(p, gfn);
    add(d, page != NULL ? hash_page(page) : 0);
    if (++d->pages % RELAX_PAGES == 0) {
        env_relax();
    }
}

static bool add_vm(struct vm *vm, void *arg)
{
    struct digest *d = arg;
    struct p2m_counters count;
    struct view_stats view;

    if (vm->state == VM_RUNNING) {
        return true;
    }
    vm_memory_counters(vm, &count, &view);
    add(d, count.swapped_out);
    add(d, count.swapped_in);
    add(d, count.zipped);
    for (uint64_t gfn = 0; vm->p2m != NULL && gfn < vm->config.memory_bytes / PAGE_SIZE; gfn++) {
        add_page(d, vm->p2m, GFN(gfn));
    }
    return true;
}

void cmd_digest(unsigned nr, char **args)
{
    struct digest d = {.hash = 1};

    (void)nr;
    (void)args;
    vm_for_each(add_vm, &d);
    shell_print("digest %016llx: %llu pages of VMs that do not run\n", (unsigned long long)d.hash,
                (unsigned long long)d.pages);
}

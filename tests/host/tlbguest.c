/* SPDX-License-Identifier: BSD-2-Clause */
/* See tlbguest.h. */
#include "tests/host/tlbguest.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

unsigned tlbguest_depth;
static const struct tlbguest_rules *rules;

void tlbguest_start(const struct tlbguest_rules *r)
{
    rules = r;
}

struct tlbguest_entry *tlbguest_entry(const struct tlbguest *vm, unsigned cpu, unsigned alias,
                                      uint64_t gfn)
{
    assert_true(cpu < rules->nr_cpus && alias < rules->nr_aliases && gfn < rules->nr_pages);
    return &vm->tlb[(cpu * rules->nr_aliases + alias) * rules->nr_pages + gfn];
}

uint64_t *tlbguest_translate(struct tlbguest *vm, uint64_t gfn, bool write, enum hv_err *err)
{
    /* Without a choice nothing is drawn. */
    unsigned alias =
        rules->nr_aliases == 1 ? 0 : (unsigned)rng_below(rules->rng, rules->nr_aliases);
    struct tlbguest_entry *entry = tlbguest_entry(vm, env_cpu(), alias, gfn);
    struct ref_mapping seen;
    hpa_t root;

    while (!entry->valid || (write && !entry->writable)) {
        assert_int_equal(vm->view->ops->root(vm->view, &root), HV_OK);
        if (ref_walk(root.a, gfn << PAGE_SHIFT, &seen) && (seen.writable || !write)) {
            *entry = (struct tlbguest_entry){true, seen.writable, hpa_mfn(HPA(seen.pa))};
            break;
        }
        *err = rules->fault(vm, GFN(gfn), write ? P2M_WRITE : P2M_READ);
        if (*err != HV_OK) {
            return NULL;
        }
    }
    return env_frame_ptr(entry->mfn);
}

void tlbguest_step(struct tlbguest *vm, bool write)
{
    uint64_t gfn = rules->any_page();
    enum hv_err err = HV_OK;
    uint64_t *page = tlbguest_translate(vm, gfn, write, &err);

    if (page == NULL) {
        rules->check_error(gfn, err);
        return;
    }
    rules->check_contents(vm, gfn, page);
    if (write) {
        rules->write_page(vm, gfn, page);
    }
}

void tlbguest_forget(struct tlbguest *vm)
{
    memset(vm->tlb, 0, rules->nr_cpus * rules->nr_aliases * rules->nr_pages * sizeof(*vm->tlb));
}

static bool writes_late(void)
{
    return rules->late_writes == 1 || rng_below(rules->rng, rules->late_writes) == 0;
}

void tlbguest_flush(struct flush_domain *d)
{
    for (unsigned i = 0; i < rules->nr_vms; i++) {
        struct tlbguest *vm = &rules->vms[i];

        if (vm->p2m == NULL || p2m_flush_domain(vm->p2m) != d) {
            continue;
        }
        for (unsigned k = 0; k < rules->late_looks && tlbguest_depth < TLBGUEST_MUTE; k++) {
            unsigned cpu = (unsigned)rng_below(rules->rng, test_env.nr_cpus);
            uint64_t gfn = rules->any_page();
            const struct tlbguest_entry *entry =
                tlbguest_entry(vm, cpu, k % rules->nr_aliases, gfn);

            if (entry->valid) {
                rules->check_contents(vm, gfn, env_frame_ptr(entry->mfn));
            }
            if (entry->valid && entry->writable && writes_late()) {
                rules->write_page(vm, gfn, env_frame_ptr(entry->mfn));
            }
        }
        tlbguest_forget(vm);
    }
}

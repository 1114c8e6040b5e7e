/* SPDX-License-Identifier: BSD-2-Clause */
/* Address spaces, and tables edited in every way. */
#include "guests/paging32/scenarios.h"

#include "guests/paging32/script.h"

void paging_address_spaces(void)
{
    struct space other;
    const uint64_t cr4 = registers.cr4;

    space_make(&other, here.mode);
    map(0, 0, PTE_ALL);
    map(1, 2, PTE_ALL | PTE_G);
    entry_put(here.mode, entry_at(here.mode, other.table, 0), frame(1) | PTE_ALL);
    entry_put(here.mode, entry_at(here.mode, other.table, 1), frame(3) | PTE_ALL | PTE_G);
    for (unsigned round = 0; round < 4; round++) {
        LOAD(SUPER, page(0), mark(0));
        SET_CR(3, other.root);
        LOAD(USER, page(0), mark(1));
        SET_CR(3, here.root);
    }
    /* Edited while the other one is in use, and while it is itself. */
    SET_CR(3, other.root);
    SET_ENTRY(leaf(0), frame(3) | PTE_ALL);
    LOAD(SUPER, page(0), mark(1));
    SET_CR(3, here.root);
    LOAD(SUPER, page(0), mark(3));
    SET_ENTRY(leaf(0), frame(0) | PTE_ALL);
    SET_CR(3, here.root);
    LOAD(SUPER, page(0), mark(0));
    /* A global page may stay until INVLPG or a change of PGE. */
    LOAD(SUPER, page(1), mark(2));
    SET_CR(3, other.root);
    LOAD_EITHER(page(1), mark(2), mark(3));
    INVLPG(page(1));
    LOAD(SUPER, page(1), mark(3));
    SET_CR(3, here.root);
    LOAD_EITHER(page(1), mark(2), mark(3));
    SET_CR(4, cr4 & ~CR4_PGE);
    LOAD(SUPER, page(1), mark(2));
    SET_CR(3, other.root);
    LOAD(SUPER, page(1), mark(3));
    SET_CR(4, cr4);
    LOAD(SUPER, page(1), mark(3));
    SET_CR(3, here.root);
    for (unsigned i = 0; i < here.nr_above; i++) {
        uint64_t value = entry_get(here.mode, here.above[i]);
        SET_ENTRY(here.above[i], 0);
        SET_CR(3, here.root);
        FAULTS(LOAD, USER, page(0), ERR_U);
        SET_ENTRY(here.above[i], value);
        SET_CR(3, here.root);
        LOAD(USER, page(0), mark(0));
    }
    script_run();
}

void paging_self_maps(void)
{
    const struct mode *mode = here.mode;
    const unsigned parent = space_parent_index(mode);
    const uint64_t self = entry_at(mode, here.directory, mode->self);
    const uint64_t leaf0 = space_window(&here, mode->self, parent, 0);
    const uint64_t upper = space_window(&here, mode->self, mode->self, parent);

    map(0, 0, PTE_ALL);
    entry_put(mode, self, here.directory | PTE_ALL);
    LOAD(SUPER, page(0), mark(0));
    LOAD(USER, leaf0, frame(0) | PTE_ALL | PTE_A);
    for (unsigned round = 0; round < 8; round++) {
        unsigned f = (round + 1) % NR_FRAMES;
        STORE(round & 1, leaf0, frame(f) | PTE_ALL);
        INVLPG(page(0));
        LOAD(USER, page(0), mark(f));
        LOAD(SUPER, leaf0, frame(f) | PTE_ALL | PTE_A);
    }
    /* There the parent is the page's entry: it was written to. */
    ENTRY_IS(here.parent, here.table | PTE_ALL | PTE_A | PTE_D);
    ENTRY_IS(self, here.directory | PTE_ALL | PTE_A);
    STORE(SUPER, upper, 0);
    INVLPG(page(0));
    INVLPG(leaf0);
    FAULTS(LOAD, SUPER, page(0), 0);
    FAULTS(LOAD, USER, leaf0, ERR_U);
    ENTRY_IS(self, here.directory | PTE_ALL | PTE_A | PTE_D);
    STORE(USER, upper, here.table | PTE_ALL);
    LOAD(SUPER, page(0), mark(0));
    LOAD(SUPER, leaf0, frame(0) | PTE_ALL | PTE_A);
    script_run();

    /* A leaf table in itself: written, then read only, then replaced by its own entry. */
    const uint64_t own = entry_at(mode, page(5), 5);

    SET_ENTRY(leaf(5), here.table | PTE_ALL);
    STORE(SUPER, page(5), frame(3) | PTE_ALL);
    INVLPG(page(0));
    LOAD(USER, page(0), mark(3));
    LOAD(USER, page(5), frame(3) | PTE_ALL | PTE_A);
    LOAD(USER, own, here.table | PTE_ALL | PTE_A | PTE_D);
    STORE(SUPER, own, here.table | PTE_P | PTE_U);
    INVLPG(page(5));
    FAULTS(STORE, SUPER, page(5), ERR_P | ERR_W);
    SET_ENTRY(leaf(0), frame(1) | PTE_ALL);
    LOAD(USER, page(5), frame(1) | PTE_ALL);
    INVLPG(page(0));
    LOAD(SUPER, page(0), mark(1));
    LOAD(USER, page(5), frame(1) | PTE_ALL | PTE_A);
    SET_ENTRY(leaf(5), here.table | PTE_ALL);
    INVLPG(page(5));
    STORE(USER, own, frame(2) | PTE_ALL);
    INVLPG(page(5));
    LOAD(SUPER, page(5), mark(2));
    script_run();
}

void paging_churn(void)
{
    const unsigned pages = 8;
    struct space spaces[2];
    unsigned behind[2][8];

    spaces[0] = here;
    space_make(&spaces[1], here.mode);
    for (unsigned i = 0; i < pages; i++) {
        for (unsigned k = 0; k < 2; k++) {
            behind[k][i] = (i + k) % NR_FRAMES;
            entry_put(here.mode, entry_at(here.mode, spaces[k].table, i),
                      frame(behind[k][i]) | PTE_ALL);
        }
    }
    for (unsigned round = 0; round < 48; round++) {
        unsigned k = round & 1, i = round / 2 % pages;
        uint64_t entry = entry_at(here.mode, spaces[k].table, i);
        SET_CR(3, spaces[k].root);
        behind[k][i] = round % 3;
        SET_ENTRY(entry, frame(behind[k][i]) | PTE_ALL);
        INVLPG(page(i));
        LOAD(round & 2, page(i), mark(behind[k][i]));
        ENTRY_IS(entry, frame(behind[k][i]) | PTE_ALL | PTE_A);
        LOAD(USER, page((i + 3) % pages), mark(behind[k][(i + 3) % pages]));
    }
    script_run();
    for (unsigned round = 0; round < 3; round++) {
        SET_ENTRY(here.parent, 0);
        SET_CR(3, here.root);
        for (unsigned i = 0; i < 32; i++) {
            STORE(SUPER, here.table + i * sizeof(uint32_t), i + 1);
        }
        for (unsigned i = 0; i < 32; i++) {
            ADD(SUPER, here.table + i * sizeof(uint32_t), i);
            LOAD(SUPER, here.table + i * sizeof(uint32_t), 2 * i + 1);
            STORE(SUPER, here.table + i * sizeof(uint32_t), 0);
        }
        SET_ENTRY(leaf(0), frame(round) | PTE_ALL);
        SET_ENTRY(here.parent, here.table | PTE_ALL);
        SET_CR(3, here.root);
        LOAD(USER, page(0), mark(round));
        ENTRY_IS(leaf(0), frame(round) | PTE_ALL | PTE_A);
        FAULTS(STORE, USER, page(1), ERR_W | ERR_U);
        script_run();
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What is mapped where, and what of it was used. */
#include "guests/paging32/scenarios.h"

#include "guests/paging32/script.h"

#define BIG_A (8UL << 20)
#define BIG_B (12UL << 20)
#define AVAILABLE 0xe00UL
#define GIB (1UL << 30)

void paging_mapping(void)
{
    map(0, 0, PTE_ALL);
    LOAD(SUPER, page(0), mark(0));
    ENTRY_IS(leaf(0), frame(0) | PTE_ALL | PTE_A);
    ENTRY_IS(here.parent, here.table | PTE_ALL | PTE_A);
    STORE(SUPER, page(0) + 8, 0x1234);
    ENTRY_IS(leaf(0), frame(0) | PTE_ALL | PTE_A | PTE_D);
    LOAD(USER, page(0) + 8, 0x1234);
    EXEC(SUPER, page(0) + CODE_AT, code_value(0));
    EXEC(USER, page(0) + CODE_AT, code_value(0));
    FAULTS(LOAD, SUPER, page(1) + 0xabc, 0);
    FAULTS(LOAD, USER, page(1) + 0xabc, ERR_U);
    FAULTS(STORE, SUPER, page(1) + 0x10, ERR_W);
    FAULTS(STORE, USER, page(1) + 0x10, ERR_W | ERR_U);
    FAULTS_LESS(ADD, SUPER, page(1) + 0x14, ERR_W, lacks_rmw);
    FAULTS(EXEC, SUPER, page(1) + CODE_AT, err_exec());
    FAULTS(EXEC, USER, page(1) + CODE_AT, ERR_U | err_exec());
    ENTRY_IS(leaf(1), 0);
    /* What was not there needs no flush to be there. */
    SET_ENTRY(leaf(1), frame(1) | PTE_ALL);
    LOAD(SUPER, page(1), mark(1));
    ENTRY_IS(leaf(1), frame(1) | PTE_ALL | PTE_A);
    ENTRY_IS(leaf(2), 0);
    /* Over the edge of two pages. */
    STORE(USER, page(1) - 2, 0xaabbccdd);
    LOAD(SUPER, page(1) - 2, 0xaabbccdd);
    LOAD(SUPER, frame(1), (mark(1) & 0xffff0000U) | 0xaabb);
    ENTRY_IS(leaf(1), frame(1) | PTE_ALL | PTE_A | PTE_D);
    script_run();
}

void paging_remapping(void)
{
    map(0, 0, PTE_ALL);
    map(1, 1, PTE_ALL);
    LOAD(SUPER, page(1), mark(1));
    for (unsigned round = 0; round < 12; round++) {
        unsigned f = round % NR_FRAMES;
        SET_ENTRY(leaf(0), frame(f) | PTE_ALL);
        INVLPG(page(0) + 0xfff);
        LOAD(round & 1, page(0), mark(f));
        ENTRY_IS(leaf(0), frame(f) | PTE_ALL | PTE_A);
    }
    /* Taken away, by INVLPG and by CR3. */
    SET_ENTRY(leaf(0), 0);
    INVLPG(page(0));
    FAULTS(LOAD, SUPER, page(0), 0);
    LOAD(SUPER, page(1), mark(1));
    SET_ENTRY(leaf(1), 0);
    SET_CR(3, here.root);
    FAULTS(STORE, USER, page(1), ERR_W | ERR_U);
    /* The table as a whole. */
    uint64_t other = space_page();
    entry_put(here.mode, entry_at(here.mode, other, 0), frame(2) | PTE_ALL);
    SET_ENTRY(here.parent, other | PTE_ALL);
    SET_CR(3, here.root);
    LOAD(SUPER, page(0), mark(2));
    ENTRY_IS(entry_at(here.mode, other, 0), frame(2) | PTE_ALL | PTE_A);
    SET_ENTRY(here.parent, 0);
    INVLPG(page(0));
    FAULTS(LOAD, SUPER, page(0), 0);
    SET_ENTRY(leaf(0), frame(3) | PTE_ALL);
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    LOAD(SUPER, page(0), mark(3));
    script_run();
    /* Changed by somebody else's address space in between. */
    map(0, 1, PTE_ALL);
    LOAD(SUPER, page(0), mark(1));
    script_run();
}

void paging_accessed_and_dirty(void)
{
    const uint64_t plain = frame(0) | PTE_ALL | AVAILABLE;

    map(0, 0, PTE_ALL | AVAILABLE);
    map(1, 1, PTE_ALL);
    map(2, 2, PTE_ALL);
    for (unsigned user = 0; user < 2; user++) {
        SET_ENTRY(leaf(0), plain);
        INVLPG(page(0));
        LOAD(user, page(0), mark(0));
        ENTRY_IS(leaf(0), plain | PTE_A);
        ADD(user, page(0), 0);
        ENTRY_IS(leaf(0), plain | PTE_A | PTE_D);
        SET_ENTRY(leaf(0), plain | PTE_A);
        INVLPG(page(0));
        EXEC(user, page(0) + CODE_AT, code_value(0));
        ENTRY_IS(leaf(0), plain | PTE_A);
        STORE(user, page(0) + 4, 1);
        ENTRY_IS(leaf(0), plain | PTE_A | PTE_D);
        SET_ENTRY(leaf(0), plain | PTE_D);
        INVLPG(page(0));
        LOAD(user, page(0), mark(0));
        ENTRY_IS(leaf(0), plain | PTE_A | PTE_D);
        /* All of them by one flush. */
        SET_ENTRY(leaf(0), plain);
        SET_ENTRY(leaf(1), frame(1) | PTE_ALL);
        SET_CR(3, here.root);
        STORE(user, page(1) + 4, 1);
        ENTRY_IS(leaf(0), plain);
        ENTRY_IS(leaf(1), frame(1) | PTE_ALL | PTE_A | PTE_D);
        EXEC(user, page(0) + CODE_AT, code_value(0));
        ENTRY_IS(leaf(0), plain | PTE_A);
    }
    ENTRY_IS(leaf(2), frame(2) | PTE_ALL);
    /* The way there has accessed bits, and never dirty ones. PAE's topmost entries have none. */
    ENTRY_IS(here.parent, here.table | PTE_ALL | PTE_A);
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    INVLPG(page(0));
    ENTRY_IS(here.parent, here.table | PTE_ALL);
    LOAD(SUPER, page(0), mark(0));
    ENTRY_IS(here.parent, here.table | PTE_ALL | PTE_A);
    for (unsigned i = 0; here.mode->long_mode && i < here.nr_above; i++) {
        uint64_t value = entry_get(here.mode, here.above[i]);
        SET_ENTRY(here.above[i], value);
        SET_CR(3, here.root);
        ENTRY_IS(here.above[i], value);
        STORE(SUPER, page(0), mark(0));
        ENTRY_IS(here.above[i], value | PTE_A);
    }
    script_run();
}

static void put_word(uint64_t at, uint32_t value)
{
    *(volatile uint32_t *)at = value;
}

void paging_large_pages(void)
{
    const uint64_t bytes = space_large_bytes(here.mode), far = bytes - 8,
                   middle = bytes / 2 + 0x3000;
    const uint64_t a = BIG_A | PTE_ALL | PTE_PS, b = BIG_B | PTE_ALL | PTE_PS;

    for (uint64_t big = BIG_A; big <= BIG_B; big += BIG_B - BIG_A) {
        put_word(big, (uint32_t)big + 1);
        put_word(big + middle, (uint32_t)big + 2);
        put_word(big + far, (uint32_t)big + 3);
    }
    entry_put(here.mode, here.parent, a);
    LOAD(SUPER, page(0), BIG_A + 1);
    LOAD(USER, page(0) + far, BIG_A + 3);
    ENTRY_IS(here.parent, a | PTE_A);
    STORE(USER, page(0) + far, 0x3333);
    ENTRY_IS(here.parent, a | PTE_A | PTE_D);
    /* INVLPG for any address in it takes it all. */
    SET_ENTRY(here.parent, b);
    INVLPG(page(5));
    LOAD(SUPER, page(0) + middle, BIG_B + 2);
    LOAD(SUPER, page(0) + far, BIG_B + 3);
    ENTRY_IS(here.parent, b | PTE_A);
    SET_ENTRY(here.parent, b & ~PTE_W);
    INVLPG(page(0));
    FAULTS(STORE, SUPER, page(0), ERR_P | ERR_W);
    FAULTS(STORE, USER, page(0) + middle, ERR_P | ERR_W | ERR_U);
    SET_ENTRY(here.parent, b & ~PTE_U);
    INVLPG(page(0));
    FAULTS(LOAD, USER, page(0) + far, ERR_P | ERR_U);
    STORE(SUPER, page(0), 0x4444);
    ENTRY_IS(here.parent, (b & ~PTE_U) | PTE_A | PTE_D);
    /* In pieces, and whole again. */
    for (unsigned i = 0; i < bytes / PAGE; i++) {
        entry_put(here.mode, leaf(i), (BIG_A + i * PAGE) | PTE_ALL);
    }
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    SET_CR(3, here.root);
    LOAD(USER, page(0) + middle, BIG_A + 2);
    STORE(USER, page(0) + middle, 0x5555);
    LOAD(SUPER, page(0) + far, 0x3333);
    ENTRY_IS(leaf((unsigned)(middle / PAGE)), (BIG_A + middle) | PTE_ALL | PTE_A | PTE_D);
    ENTRY_IS(leaf((unsigned)(far / PAGE)), (BIG_A + far - 0xff8) | PTE_ALL | PTE_A);
    ENTRY_IS(leaf(1), (BIG_A + PAGE) | PTE_ALL);
    SET_ENTRY(here.parent, a | PTE_G);
    SET_CR(3, here.root);
    LOAD(USER, page(0) + middle, 0x5555);
    ENTRY_IS(here.parent, a | PTE_G | PTE_A);
    SET_ENTRY(here.parent, 0);
    INVLPG(page(0) + middle);
    FAULTS(LOAD, SUPER, page(0), 0);
    script_run();
}

/* The first GiB by one entry: what is tested lies in it as everything does. */
static void use_huge_page(uint64_t base, uint64_t entry, uint64_t huge)
{
    LOAD(SUPER, base + frame(1), mark(1));
    ENTRY_IS(entry, huge | PTE_A);
    EXEC(USER, base + frame(2) + CODE_AT, code_value(2));
    STORE(USER, base + frame(3) + 8, 0x7777);
    ENTRY_IS(entry, huge | PTE_A | PTE_D);
    LOAD(SUPER, frame(3) + 8, 0x7777);
    LOAD(USER, base + frame(3) + 8, 0x7777);
    /* INVLPG for any address in it takes it all. */
    SET_ENTRY(entry, huge & ~PTE_W);
    INVLPG(base + GIB - 1);
    FAULTS(STORE, USER, base + frame(3), ERR_P | ERR_W | ERR_U);
    FAULTS(STORE, SUPER, base + frame(0), ERR_P | ERR_W);
    LOAD(USER, base + frame(1), mark(1));
    ENTRY_IS(entry, (huge & ~PTE_W) | PTE_A);
    SET_ENTRY(entry, huge & ~PTE_U);
    INVLPG(base);
    FAULTS(LOAD, USER, base + frame(1), ERR_P | ERR_U);
    LOAD(SUPER, base + frame(1), mark(1));
    SET_ENTRY(entry, huge | PTE_NX);
    /* QEMU finds code that it has run by its address, and forgets that of one page only. */
    INVLPG(base + frame(2) + CODE_AT);
    FAULTS(EXEC, USER, base + frame(2) + CODE_AT, ERR_P | ERR_U | ERR_I);
    FAULTS(EXEC, SUPER, base + frame(2) + CODE_AT, ERR_P | ERR_I);
    LOAD(USER, base + frame(2), mark(2));
    for (unsigned bit = 13; bit < 30; bit += 8) {
        SET_ENTRY(entry, huge | 1UL << bit);
        INVLPG(base);
        FAULTS_LESS(LOAD, USER, base + frame(1), ERR_U | ERR_P | ERR_RSVD, lacks_reserved);
        if (lacks_reserved == 0) {
            /* QEMU's own walk has set the accessed bit by then. */
            ENTRY_IS(entry, huge | 1UL << bit);
        }
    }
    /* Tables are edited through it as by any other address. */
    SET_ENTRY(entry, huge);
    INVLPG(base);
    STORE(SUPER, base + leaf(0), frame(1) | PTE_ALL);
    STORE(SUPER, base + leaf(1), frame(2) | PTE_ALL);
}

void paging_huge_pages(void)
{
    const uint64_t entry = here.above[1], table = entry_get(here.mode, entry),
                   top = entry_get(here.mode, here.above[0]), huge = PTE_ALL | PTE_PS,
                   base = here.mode->base & ~(GIB - 1);

    map(0, 0, PTE_ALL);
    map(1, 0, PTE_ALL);
    LOAD(SUPER, page(0), mark(0));
    SET_ENTRY(entry, huge);
    SET_CR(3, here.root);
    if (has_huge_pages) {
        use_huge_page(base, entry, huge);
    } else {
        FAULTS_LESS(LOAD, SUPER, base + frame(1), ERR_P | ERR_RSVD, lacks_reserved);
        FAULTS_LESS(STORE, USER, base + frame(1), ERR_W | ERR_U | ERR_P | ERR_RSVD, lacks_reserved);
        FAULTS_LESS(EXEC, SUPER, base + frame(1) + CODE_AT, ERR_I | ERR_P | ERR_RSVD,
                    lacks_reserved);
        ENTRY_IS(entry, huge);
        SET_ENTRY(leaf(0), frame(1) | PTE_ALL);
        SET_ENTRY(leaf(1), frame(2) | PTE_ALL);
    }
    SET_ENTRY(entry, table);
    SET_CR(3, here.root);
    LOAD(USER, page(0), mark(1));
    LOAD(SUPER, page(1), mark(2));
    /* No processor has larger ones. */
    SET_ENTRY(here.above[0], top | PTE_PS);
    SET_CR(3, here.root);
    FAULTS_LESS(LOAD, SUPER, page(0), ERR_P | ERR_RSVD, lacks_reserved);
    SET_ENTRY(here.above[0], top);
    SET_CR(3, here.root);
    LOAD(USER, page(0), mark(1));
    script_run();
}

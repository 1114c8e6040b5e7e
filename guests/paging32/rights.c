/* SPDX-License-Identifier: BSD-2-Clause */
/* Who may do what, and which fault says so. */
#include "guests/paging32/scenarios.h"

#include "guests/paging32/script.h"

#define RESERVED (1UL << 51) /* of an entry, where addresses have fewer bits */
#define LARGE_FRAME (8UL << 20)

void paging_write_protection(void)
{
    const uint64_t read_only = frame(0) | PTE_P | PTE_U;

    map(0, 0, PTE_P | PTE_U);
    map(2, 2, PTE_P);
    LOAD(SUPER, page(0), mark(0));
    FAULTS(STORE, SUPER, page(0), ERR_P | ERR_W);
    FAULTS(STORE, USER, page(0), ERR_P | ERR_W | ERR_U);
    FAULTS(ADD, USER, page(0), ERR_P | ERR_W | ERR_U);
    ENTRY_IS(leaf(0), read_only | PTE_A);
    LOAD(USER, page(0), mark(0));
    FAULTS(STORE, SUPER, page(2), ERR_P | ERR_W);
    ENTRY_IS(leaf(2), frame(2) | PTE_P);
    /* Without WP it is not for the supervisor. */
    SET_CR(0, registers.cr0 & ~CR0_WP);
    STORE(SUPER, page(0) + 4, 0x77);
    ENTRY_IS(leaf(0), read_only | PTE_A | PTE_D);
    FAULTS(STORE, USER, page(0), ERR_P | ERR_W | ERR_U);
    LOAD(USER, page(0) + 4, 0x77);
    ADD(SUPER, page(0) + 4, 1);
    LOAD(USER, page(0) + 4, 0x78);
    STORE(SUPER, page(2), 0x99);
    FAULTS(LOAD, USER, page(2), ERR_P | ERR_U);
    ENTRY_IS(leaf(2), frame(2) | PTE_P | PTE_A | PTE_D);
    SET_CR(0, registers.cr0);
    FAULTS(STORE, SUPER, page(0), ERR_P | ERR_W);
    FAULTS(ADD, SUPER, page(2), ERR_P | ERR_W);
    LOAD(SUPER, page(2), 0x99);
    /* Allowed, and forbidden again. */
    SET_ENTRY(leaf(0), read_only | PTE_W);
    INVLPG(page(0));
    STORE(USER, page(0), 0x55);
    SET_ENTRY(leaf(0), read_only);
    INVLPG(page(0));
    FAULTS(STORE, SUPER, page(0), ERR_P | ERR_W);
    LOAD(SUPER, page(0), 0x55);
    ENTRY_IS(leaf(0), read_only | PTE_A);
    /* By the entry above. */
    SET_ENTRY(leaf(0), frame(0) | PTE_ALL);
    SET_ENTRY(here.parent, here.table | PTE_P | PTE_U);
    SET_CR(3, here.root);
    FAULTS(STORE, SUPER, page(0), ERR_P | ERR_W);
    FAULTS(STORE, USER, page(0), ERR_P | ERR_W | ERR_U);
    LOAD(USER, page(0), 0x55);
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    SET_CR(3, here.root);
    STORE(USER, page(0), 0x56);
    script_run();
}

void paging_user_and_supervisor(void)
{
    map(0, 0, PTE_ALL);
    map(1, 1, PTE_P | PTE_W);
    FAULTS(LOAD, USER, page(1), ERR_P | ERR_U);
    FAULTS(STORE, USER, page(1), ERR_P | ERR_W | ERR_U);
    FAULTS(EXEC, USER, page(1) + CODE_AT, ERR_P | ERR_U | err_exec());
    ENTRY_IS(leaf(1), frame(1) | PTE_P | PTE_W);
    STORE(SUPER, page(1), 7);
    EXEC(SUPER, page(1) + CODE_AT, code_value(1));
    FAULTS(LOAD, USER, page(1), ERR_P | ERR_U);
    ENTRY_IS(leaf(1), frame(1) | PTE_P | PTE_W | PTE_A | PTE_D);
    SET_ENTRY(leaf(1), frame(1) | PTE_ALL);
    INVLPG(page(1));
    LOAD(USER, page(1), 7);
    SET_ENTRY(leaf(1), frame(1) | PTE_P | PTE_W);
    INVLPG(page(1));
    FAULTS_LESS(ADD, USER, page(1), ERR_P | ERR_W | ERR_U, lacks_rmw);
    /* By the entry above. */
    LOAD(USER, page(0), mark(0));
    SET_ENTRY(here.parent, here.table | PTE_P | PTE_W);
    INVLPG(page(0));
    FAULTS(LOAD, USER, page(0), ERR_P | ERR_U);
    STORE(SUPER, page(0), 8);
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    INVLPG(page(0));
    LOAD(USER, page(0), 8);
    script_run();
}

void paging_no_execute(void)
{
    const uint64_t nx = PTE_NX;

    map(0, 0, PTE_ALL | nx);
    map(1, 1, PTE_ALL);
    if (here.mode->nx) {
        LOAD(USER, page(0), mark(0));
        FAULTS(EXEC, USER, page(0) + CODE_AT, ERR_P | ERR_U | ERR_I);
        FAULTS(EXEC, SUPER, page(0) + CODE_AT, ERR_P | ERR_I);
        STORE(SUPER, page(0), 3);
        EXEC(SUPER, page(1) + CODE_AT, code_value(1));
        SET_ENTRY(leaf(0), frame(0) | PTE_ALL);
        SET_ENTRY(leaf(1), frame(1) | PTE_ALL | nx);
        INVLPG(page(0));
        INVLPG(page(1));
        EXEC(USER, page(0) + CODE_AT, code_value(0));
        FAULTS(EXEC, USER, page(1) + CODE_AT, ERR_P | ERR_U | ERR_I);
        SET_ENTRY(here.parent, here.table | PTE_ALL | nx);
        SET_CR(3, here.root);
        FAULTS(EXEC, SUPER, page(0) + CODE_AT, ERR_P | ERR_I);
        LOAD(SUPER, page(0), 3);
        SET_ENTRY(here.parent, here.table | PTE_ALL);
        SET_CR(3, here.root);
        EXEC(SUPER, page(0) + CODE_AT, code_value(0));
    } else if (here.mode->wide) {
        FAULTS_LESS(LOAD, SUPER, page(0), ERR_P | ERR_RSVD, lacks_reserved);
        FAULTS_LESS(STORE, USER, page(0), ERR_W | ERR_U | ERR_P | ERR_RSVD, lacks_reserved);
    }
    FAULTS(EXEC, USER, page(2) + CODE_AT, ERR_U | err_exec());
    script_run();
}

void paging_reserved_bits(void)
{
    map(0, 0, PTE_ALL | RESERVED);
    map(1, 1, PTE_ALL);
    if (here.mode->wide) {
        FAULTS_LESS(LOAD, SUPER, page(0), ERR_P | ERR_RSVD, lacks_reserved);
        FAULTS_LESS(STORE, USER, page(0), ERR_W | ERR_U | ERR_P | ERR_RSVD, lacks_reserved);
        ENTRY_IS(leaf(0), frame(0) | PTE_ALL);
        LOAD(SUPER, page(1), mark(1));
        SET_ENTRY(here.parent, here.table | PTE_ALL | RESERVED);
        INVLPG(page(1));
        FAULTS_LESS(LOAD, USER, page(1), ERR_U | ERR_P | ERR_RSVD, lacks_reserved);
    }
    if (here.mode->large) {
        uint64_t bit = here.mode->wide ? 1UL << 13 : 1UL << 21;
        SET_ENTRY(here.parent, LARGE_FRAME | PTE_ALL | PTE_PS | bit);
        INVLPG(page(1));
        FAULTS_LESS(LOAD, SUPER, page(1), ERR_P | ERR_RSVD, lacks_reserved);
    } else {
        /* Not known to the mode: the entry leads to a table. */
        SET_ENTRY(here.parent, here.table | PTE_ALL | PTE_PS);
        INVLPG(page(1));
        LOAD(SUPER, page(1), mark(1));
        ENTRY_IS(here.parent, here.table | PTE_ALL | PTE_PS | PTE_A);
    }
    script_run();
}

void paging_smep(void)
{
    const uint64_t cr4 = registers.cr4;
    const uint32_t off = err_exec();

    map(0, 0, PTE_ALL);
    map(1, 1, PTE_P | PTE_W);
    map(3, 3, PTE_P | PTE_U);
    map(4, 2, PTE_ALL);
    EXEC(SUPER, page(0) + CODE_AT, code_value(0));
    FAULTS(EXEC, SUPER, page(2) + CODE_AT, off);
    SET_CR(4, cr4 | CR4_SMEP);
    FAULTS(EXEC, SUPER, page(0) + CODE_AT, ERR_P | ERR_I);
    EXEC(USER, page(0) + CODE_AT, code_value(0));
    FAULTS(EXEC, SUPER, page(0) + CODE_AT, ERR_P | ERR_I);
    EXEC(SUPER, page(1) + CODE_AT, code_value(1));
    FAULTS(EXEC, USER, page(1) + CODE_AT, ERR_P | ERR_U | ERR_I);
    /* Whatever NX says: fetches tell. */
    FAULTS(EXEC, SUPER, page(2) + CODE_AT, ERR_I);
    FAULTS(EXEC, USER, page(2) + CODE_AT, ERR_U | ERR_I);
    /* Data is as it was, and a fetch that was refused has used nothing. */
    STORE(SUPER, page(0) + 4, 0x61);
    LOAD(SUPER, page(0) + 4, 0x61);
    FAULTS(EXEC, SUPER, page(4) + CODE_AT, ERR_P | ERR_I);
    ENTRY_IS(leaf(4), frame(2) | PTE_ALL);
    LOAD(SUPER, page(4), mark(2));
    FAULTS(EXEC, SUPER, page(4) + CODE_AT, ERR_P | ERR_I);
    ENTRY_IS(leaf(4), frame(2) | PTE_ALL | PTE_A);
    /* The user's is what all levels give it. */
    SET_ENTRY(here.parent, here.table | PTE_P | PTE_W);
    SET_CR(3, here.root);
    EXEC(SUPER, page(0) + CODE_AT, code_value(0));
    FAULTS(LOAD, USER, page(0), ERR_P | ERR_U);
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    SET_CR(3, here.root);
    FAULTS(EXEC, SUPER, page(0) + CODE_AT, ERR_P | ERR_I);
    SET_ENTRY(leaf(1), frame(1) | PTE_ALL);
    INVLPG(page(1));
    FAULTS(EXEC, SUPER, page(1) + CODE_AT, ERR_P | ERR_I);
    EXEC(USER, page(1) + CODE_AT, code_value(1));
    /* Without WP the supervisor writes to it, and runs it no more than before. */
    SET_CR(0, registers.cr0 & ~CR0_WP);
    FAULTS(EXEC, SUPER, page(3) + CODE_AT, ERR_P | ERR_I);
    STORE(SUPER, page(3) + 4, 0x62);
    FAULTS(EXEC, SUPER, page(3) + CODE_AT, ERR_P | ERR_I);
    EXEC(USER, page(3) + CODE_AT, code_value(3));
    FAULTS(STORE, USER, page(3), ERR_P | ERR_W | ERR_U);
    STORE(SUPER, page(3) + 8, 0x63);
    FAULTS(EXEC, SUPER, page(3) + CODE_AT, ERR_P | ERR_I);
    ENTRY_IS(leaf(3), frame(3) | PTE_P | PTE_U | PTE_A | PTE_D);
    SET_CR(4, cr4);
    EXEC(SUPER, page(3) + CODE_AT, code_value(3));
    SET_CR(0, registers.cr0);
    EXEC(SUPER, page(0) + CODE_AT, code_value(0));
    FAULTS(EXEC, SUPER, page(2) + CODE_AT, off);
    script_run();
}

void paging_smap(void)
{
    const uint64_t cr4 = registers.cr4;

    map(0, 0, PTE_ALL);
    map(1, 1, PTE_P | PTE_W);
    map(2, 2, PTE_P | PTE_U);
    map(4, 3, PTE_ALL);
    STORE(SUPER, page(0) + 4, 0x11);
    SET_CR(4, cr4 | CR4_SMAP);
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    FAULTS(STORE, SUPER, page(0) + 8, ERR_P | ERR_W);
    FAULTS_LESS(ADD, SUPER, page(0) + 8, ERR_P | ERR_W, lacks_rmw);
    LOAD(USER, page(0) + 4, 0x11);
    STORE(USER, page(0) + 4, 0x12);
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    LOAD(SUPER, page(1), mark(1));
    STORE(SUPER, page(1) + 4, 0x13);
    FAULTS(LOAD, USER, page(1) + 4, ERR_P | ERR_U);
    FAULTS(LOAD, SUPER, page(3), 0);
    FAULTS(STORE, SUPER, page(4), ERR_P | ERR_W);
    ENTRY_IS(leaf(4), frame(3) | PTE_ALL);
    /* Fetches are SMEP's business. */
    EXEC(SUPER, page(0) + CODE_AT, code_value(0));
    STAC();
    LOAD(SUPER, page(0) + 4, 0x12);
    STORE(SUPER, page(0) + 4, 0x14);
    ADD(SUPER, page(0) + 4, 1);
    FAULTS(STORE, SUPER, page(2), ERR_P | ERR_W);
    FAULTS(STORE, SUPER, page(3), ERR_W);
    STORE(SUPER, page(4) + 4, 0x16);
    ENTRY_IS(leaf(4), frame(3) | PTE_ALL | PTE_A | PTE_D);
    /* Over the edge into the supervisor's own. */
    STORE(SUPER, page(1) - 2, 0xaabbccdd);
    CLAC();
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    FAULTS(STORE, SUPER, page(1) - 2, ERR_P | ERR_W);
    LOAD(SUPER, page(1), (mark(1) & 0xffff0000U) | 0xaabb);
    LOAD(USER, page(0) + 4, 0x15);
    /* The user's is what all levels give it. */
    SET_ENTRY(here.parent, here.table | PTE_P | PTE_W);
    SET_CR(3, here.root);
    LOAD(SUPER, page(0) + 4, 0x15);
    SET_ENTRY(here.parent, here.table | PTE_ALL);
    SET_CR(3, here.root);
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    SET_ENTRY(leaf(0), frame(0) | PTE_P | PTE_W);
    INVLPG(page(0));
    LOAD(SUPER, page(0) + 4, 0x15);
    SET_ENTRY(leaf(0), frame(0) | PTE_ALL);
    INVLPG(page(0));
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    SET_CR(4, cr4);
    LOAD(SUPER, page(0) + 4, 0x15);
    SET_CR(4, cr4 | CR4_SMAP);
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    script_run();
}

void paging_smap_unprotected(void)
{
    const uint64_t read_only = frame(1) | PTE_P | PTE_U;

    map(0, 0, PTE_ALL);
    map(1, 1, PTE_P | PTE_U);
    map(2, 2, PTE_P);
    registers.cr4 |= CR4_SMAP;
    SET_CR(0, registers.cr0 & ~CR0_WP);
    FAULTS(STORE, SUPER, page(0), ERR_P | ERR_W);
    FAULTS(STORE, SUPER, page(1), ERR_P | ERR_W);
    FAULTS(LOAD, SUPER, page(1), ERR_P);
    ENTRY_IS(leaf(1), read_only);
    STORE(SUPER, page(2) + 4, 0x21);
    ENTRY_IS(leaf(2), frame(2) | PTE_P | PTE_A | PTE_D);
    LOAD(USER, page(1), mark(1));
    STAC();
    LOAD(SUPER, page(1), mark(1));
    ENTRY_IS(leaf(1), read_only | PTE_A);
    STORE(SUPER, page(1) + 4, 0x22);
    ENTRY_IS(leaf(1), read_only | PTE_A | PTE_D);
    ADD(SUPER, page(1) + 4, 1);
    LOAD(SUPER, page(1) + 4, 0x23);
    STORE(SUPER, page(0) + 4, 0x24);
    STORE(SUPER, page(1) - 2, 0xaabbccdd);
    CLAC();
    FAULTS(LOAD, SUPER, page(1) + 4, ERR_P);
    FAULTS(STORE, SUPER, page(1) + 4, ERR_P | ERR_W);
    FAULTS_LESS(ADD, SUPER, page(1) + 4, ERR_P | ERR_W, lacks_rmw);
    LOAD(USER, page(1) + 4, 0x23);
    LOAD(USER, page(1), (mark(1) & 0xffff0000U) | 0xaabb);
    FAULTS(STORE, USER, page(1) + 4, ERR_P | ERR_W | ERR_U);
    FAULTS(LOAD, USER, page(2), ERR_P | ERR_U);
    STORE(USER, page(0) + 4, 0x25);
    FAULTS(LOAD, SUPER, page(0) + 4, ERR_P);
    /* With WP again AC gives no more than the entry. */
    SET_CR(0, registers.cr0);
    STAC();
    LOAD(SUPER, page(1) + 4, 0x23);
    FAULTS(STORE, SUPER, page(1) + 4, ERR_P | ERR_W);
    LOAD(SUPER, page(0) + 4, 0x25);
    /* And without SMAP the supervisor needs none. */
    CLAC();
    SET_CR(4, registers.cr4 & ~CR4_SMAP);
    FAULTS(STORE, SUPER, page(1) + 4, ERR_P | ERR_W);
    SET_CR(0, registers.cr0 & ~CR0_WP);
    STORE(SUPER, page(1) + 4, 0x26);
    LOAD(USER, page(1) + 4, 0x26);
    SET_CR(4, registers.cr4);
    FAULTS(STORE, SUPER, page(1) + 4, ERR_P | ERR_W);
    script_run();
}

void paging_five_levels(void)
{
    map(0, 0, PTE_ALL);
    LOAD(SUPER, page(0), mark(0));
    REFUSES_CR(4, registers.cr4 | CR4_LA57);
    LOAD(USER, page(0), mark(0));
    SET_CR(4, registers.cr4);
    LOAD(SUPER, page(0), mark(0));
    script_run();
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables of the modes. */
#include "guests/paging32/space.h"

#include "guests/lib/string.h"

#define NR_PAGES 64U
#define LOW_BYTES (16UL << 20) /* USER_ALIAS of modes.asm */

static uint8_t pages[NR_PAGES][PAGE] __attribute__((aligned(4096)));
static unsigned used;

void space_reset(void)
{
    used = 0;
}

uint64_t space_page(void)
{
    uint8_t *page = pages[used++ % NR_PAGES];

    memset(page, 0, PAGE);
    return (uint64_t)page;
}

static unsigned index_bits(const struct mode *mode)
{
    return mode->wide ? 9 : 10;
}

/* Level 0 is the leaf table's. */
static unsigned index_of(const struct mode *mode, uint64_t addr, unsigned level)
{
    unsigned bits = index_bits(mode);

    return (unsigned)(addr >> (12 + bits * level)) & ((1U << bits) - 1);
}

uint64_t entry_at(const struct mode *mode, uint64_t table, unsigned index)
{
    return table + (uint64_t)index * (mode->wide ? 8 : 4);
}

uint64_t entry_get(const struct mode *mode, uint64_t entry)
{
    return mode->wide ? *(volatile uint64_t *)entry : *(volatile uint32_t *)entry;
}

void entry_put(const struct mode *mode, uint64_t entry, uint64_t value)
{
    if (mode->wide) {
        *(volatile uint64_t *)entry = value;
    } else {
        *(volatile uint32_t *)entry = (uint32_t)value;
    }
}

uint64_t space_large_bytes(const struct mode *mode)
{
    return PAGE << index_bits(mode);
}

unsigned space_parent_index(const struct mode *mode)
{
    return index_of(mode, mode->base, 1);
}

/* The entry of `table` for an address; what it leads to is made where there is nothing. */
static uint64_t step_down(const struct mode *mode, uint64_t table, uint64_t addr, unsigned level)
{
    uint64_t entry = entry_at(mode, table, index_of(mode, addr, level));

    if (!(entry_get(mode, entry) & PTE_P)) {
        /* The topmost entries of PAE know no rights. */
        bool bare = mode->wide && !mode->long_mode && level == 2;
        entry_put(mode, entry, space_page() | (bare ? PTE_P : PTE_ALL));
    }
    return entry;
}

static uint64_t target(const struct mode *mode, uint64_t entry)
{
    return entry_get(mode, entry) & 0x000ffffffffff000UL;
}

static void map_low(struct space *s)
{
    const struct mode *mode = s->mode;
    uint64_t step = mode->large ? space_large_bytes(mode) : PAGE;

    for (uint64_t a = 0; a < 2 * LOW_BYTES; a += step) {
        uint64_t rights = a < LOW_BYTES ? PTE_P | PTE_W : PTE_ALL;
        uint64_t table = s->root;
        for (unsigned level = mode->levels - 1; level > (mode->large ? 1U : 0U); level--) {
            table = target(mode, step_down(mode, table, a, level));
        }
        entry_put(mode, entry_at(mode, table, index_of(mode, a, mode->large ? 1 : 0)),
                  a % LOW_BYTES | rights | (mode->large ? PTE_PS : 0));
    }
}

void space_make(struct space *s, const struct mode *mode)
{
    *s = (struct space){.mode = mode, .root = space_page()};
    map_low(s);
    uint64_t table = s->root;
    for (unsigned level = mode->levels - 1; level > 1; level--) {
        uint64_t entry = step_down(mode, table, mode->base, level);
        s->above[s->nr_above++] = entry;
        table = target(mode, entry);
    }
    s->directory = table;
    s->parent = step_down(mode, table, mode->base, 1);
    s->table = target(mode, s->parent);
}

uint64_t space_window(const struct space *s, unsigned self, unsigned of, unsigned index)
{
    unsigned bits = index_bits(s->mode);
    uint64_t large = ~(space_large_bytes(s->mode) * (1UL << bits) - 1);
    uint64_t at = (s->mode->base & large) | (uint64_t)self << (12 + bits) | (uint64_t)of << 12;

    return entry_at(s->mode, at, index);
}

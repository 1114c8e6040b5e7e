/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See memmap.h. Looks at the p2m without a lock: what changes meanwhile is shown as it was or is.
 */
#include "kernel/vm/memmap.h"

#include "kernel/vm/largepages.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/share/share.h"

#define CELL_PAGES BIT(ORDER_2M)
#define GAP_CELLS 16u /* holes that are shown as blanks */

static const char letters[NR_P2M_STATES] = {
    [P2M_HOLE] = ' ',       [P2M_UNTOUCHED] = '.', [P2M_PRIVATE] = 'p',
    [P2M_SHARED] = 's',     [P2M_ZERO] = 'z',      [P2M_BALLOONED] = 'b',
    [P2M_COMPRESSED] = 'c', [P2M_SWAPPED] = 'd',   [P2M_INCOMING] = 'd',
};

static char digit(unsigned cold)
{
    return (char)('0' + MIN(cold, 9u));
}

/* The state of most pages; what nobody has touched, or can, counts only if there is nothing else. */
static char most_of(const uint64_t count[NR_P2M_STATES])
{
    enum p2m_state best = count[P2M_UNTOUCHED] != 0 ? P2M_UNTOUCHED : P2M_HOLE;
    uint64_t nr = 0;

    for (unsigned s = P2M_PRIVATE; s < NR_P2M_STATES; s++) {
        if (count[s] > nr) {
            nr = count[s];
            best = (enum p2m_state)s;
        }
    }
    char c = letters[best];

    return nr >= CELL_PAGES * 3 / 4 ? (char)(c - 'a' + 'A') : c;
}

static char cell(struct p2m *p, gfn_t first)
{
    uint64_t count[NR_P2M_STATES] = {0};
    struct p2m_entry e;

    for (uint64_t i = 0; i < CELL_PAGES;) {
        p2m_query(p, GFN(first.n + i), &e);
        if (e.order >= ORDER_2M && e.state == P2M_PRIVATE) {
            return digit(p2m_large_cold(&e));
        }
        uint64_t nr = MIN(BIT(e.order), CELL_PAGES - i);

        count[e.state == P2M_INCOMING ? P2M_SWAPPED : e.state] += nr;
        i += nr;
    }
    return most_of(count);
}

/* The next address with memory at or behind `at`, by 2 MiB. */
static bool next_memory(struct p2m *p, gpa_t *at)
{
    gfn_t region = GFN(ALIGN_DOWN(at->a >> PAGE_SHIFT, CELL_PAGES));

    if (cell(p, region) == ' ' && !p2m_large_next_region(p, &region)) {
        return false;
    }
    *at = gfn_gpa(region);
    return true;
}

bool memmap_read(struct vm *vm, gpa_t *at, char *out, unsigned most, struct memmap_part *part)
{
    unsigned member, gap = 0;
    struct p2m *p = sharing_hold(vm, &member);

    largepages_watch();
    *part = (struct memmap_part){.first = *at};
    if (p == NULL) {
        return false;
    }
    if (next_memory(p, at)) {
        part->first = *at;
        while (part->nr < most && gap < GAP_CELLS) {
            char c = cell(p, gpa_gfn(*at));

            gap = c == ' ' ? gap + 1 : 0;
            out[part->nr++] = c;
            at->a += MEMMAP_CELL_BYTES;
        }
        part->nr -= gap;
    }
    share_release(member);
    return part->nr != 0;
}

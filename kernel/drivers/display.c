/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The screen's cells and their drawing. Cells are written under the console's lock and drawn without
 * it: a cell that changes while it is drawn has bumped `version`, and is drawn again.
 */
#include "kernel/drivers/display.h"

#include "kernel/drivers/console.h"
#include "kernel/drivers/fb.h"
#include "kernel/drivers/term.h"
#include "kernel/drivers/vga.h"

static struct term term;                            /* the console's lock */
static char shown[TERM_MAX_ROWS][TERM_MAX_COLUMNS]; /* whoever set `drawing` */
static unsigned cursor_x, cursor_y;                 /* as drawn; whoever set `drawing` */
static uint64_t version;                            /* atomic; bumped by every write */
static uint64_t drawn_version;                      /* atomic */
static uint32_t drawing;                            /* atomic flag */
static const struct display_ops *ops;               /* written once */

bool display_init(const struct boot_info *info)
{
    unsigned columns, rows;
    const struct display_ops *found = fb_init(info, &columns, &rows);

    if (!found) {
        found = vga_init(info, &columns, &rows);
    }
    if (!found) {
        return false;
    }
    term_init(&term, columns, rows);
    ops = found;
    version = 1;
    return true;
}

void display_write(const char *s, size_t len)
{
    if (ops) {
        term_write(&term, s, len);
        __atomic_fetch_add(&version, 1, __ATOMIC_RELEASE);
    }
}

static void draw_row(unsigned y)
{
    const char *cells = term_row(&term, y);

    for (unsigned x = 0; x < term.columns; x++) {
        if (shown[y][x] != cells[x]) {
            shown[y][x] = cells[x];
            ops->draw(x, y, cells[x], false);
        }
    }
}

static void draw_all(void)
{
    ops->draw(cursor_x, cursor_y, term_row(&term, cursor_y)[cursor_x], false);
    for (unsigned y = 0; y < term.rows; y++) {
        draw_row(y);
    }
    cursor_x = MIN(term.x, term.columns - 1);
    cursor_y = term.y;
    ops->draw(cursor_x, cursor_y, term_row(&term, cursor_y)[cursor_x], true);
}

void display_draw(void)
{
    while (ops && __atomic_load_n(&drawn_version, __ATOMIC_RELAXED) !=
                      __atomic_load_n(&version, __ATOMIC_ACQUIRE)) {
        if (__atomic_exchange_n(&drawing, 1, __ATOMIC_ACQUIRE) && !console_in_panic()) {
            return;
        }
        uint64_t target = __atomic_load_n(&version, __ATOMIC_ACQUIRE);

        draw_all();
        __atomic_store_n(&drawn_version, target, __ATOMIC_RELAXED);
        __atomic_store_n(&drawing, 0, __ATOMIC_RELEASE);
    }
}

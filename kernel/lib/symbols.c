/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lookup in the generated symbol table: function starts as offsets from the image's first byte, in
 * ascending order, each with the position of its name in one pool of strings.
 */
#include "kernel/lib/symbols.h"

#include <stddef.h>

struct symbol {
    uint32_t start; /* bytes from __image_start */
    uint32_t name;  /* bytes from symbols_names */
};

extern const uint32_t symbols_count;
extern const struct symbol symbols_table[];
extern const char symbols_names[];
extern const char __image_start[];
extern const char __text_end[];

const char *symbols_lookup(uint64_t addr, uint64_t *offset)
{
    uint64_t base = (uint64_t)__image_start;

    if (symbols_count == 0 || addr < base + symbols_table[0].start ||
        addr >= (uint64_t)__text_end) {
        return NULL;
    }
    uint64_t target = addr - base;
    uint32_t low = 0;
    uint32_t high = symbols_count;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (symbols_table[middle].start <= target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    *offset = target - symbols_table[low].start;
    return &symbols_names[symbols_table[low].name];
}

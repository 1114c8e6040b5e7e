/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lookup in the generated symbol table. One stream of bytes describes the functions in ascending
 * order: the distance from the previous function's start (ULEB128), the number of tokens of the name,
 * the tokens. Every SYMBOLS_PER_MARK functions a mark says where in the stream its first one is (whose
 * distance is 0) and where that starts. Token t stands for the text
 * symbols_tokens[symbols_token_start[t] .. symbols_token_start[t + 1]).
 */
#include "kernel/lib/symbols.h"

#include <stdbool.h>

#define SYMBOLS_PER_MARK 32u /* tools/gen_symbols.py has the same */

struct mark {
    uint32_t start;    /* bytes from __image_start */
    uint32_t position; /* bytes from symbols_stream */
};

extern const uint32_t symbols_count;
extern const struct mark symbols_marks[];
extern const uint8_t symbols_stream[];
extern const uint16_t symbols_token_start[];
extern const char symbols_tokens[];
extern const char __image_start[];
extern const char __text_end[];

static uint32_t last_mark_before(uint32_t target)
{
    uint32_t low = 0;
    uint32_t high = (symbols_count + SYMBOLS_PER_MARK - 1) / SYMBOLS_PER_MARK;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (symbols_marks[middle].start <= target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint32_t take_uleb(const uint8_t **p)
{
    uint32_t value = 0;

    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = *(*p)++;

        value |= (byte & 0x7fu) << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
}

static void expand(const uint8_t *tokens, unsigned count, char name[SYMBOL_NAME_BYTES])
{
    unsigned used = 0;

    for (unsigned i = 0; i < count; i++) {
        for (unsigned c = symbols_token_start[tokens[i]]; c < symbols_token_start[tokens[i] + 1u];
             c++) {
            if (used < SYMBOL_NAME_BYTES - 1) {
                name[used++] = symbols_tokens[c];
            }
        }
    }
    name[used] = '\0';
}

bool symbols_lookup(uint64_t addr, char name[SYMBOL_NAME_BYTES], uint64_t *offset)
{
    uint64_t base = (uint64_t)__image_start;

    if (symbols_count == 0 || addr < base + symbols_marks[0].start ||
        addr >= (uint64_t)__text_end) {
        return false;
    }
    uint32_t target = (uint32_t)(addr - base);
    uint32_t mark = last_mark_before(target);
    uint32_t left = symbols_count - mark * SYMBOLS_PER_MARK;
    uint32_t start = symbols_marks[mark].start;
    const uint8_t *p = symbols_stream + symbols_marks[mark].position;
    const uint8_t *found = p;

    for (left = left < SYMBOLS_PER_MARK ? left : SYMBOLS_PER_MARK; left > 0; left--) {
        uint32_t next = start + take_uleb(&p);

        if (next > target) {
            break;
        }
        start = next;
        found = p;
        p += 1 + *p;
    }
    expand(found + 1, *found, name);
    *offset = target - start;
    return true;
}

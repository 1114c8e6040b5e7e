/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended page tables; see fmt_ept.h. Bits only, no code.
 */
#include "mm/pt/fmt_ept.h"

#define EPT_R BIT(0)
#define EPT_W BIT(1)
#define EPT_X BIT(2)
#define EPT_TYPE(n) ((uint64_t)(n) << 3)
#define EPT_TYPE_MASK EPT_TYPE(7)
#define EPT_IGNORE_PAT BIT(6)
#define EPT_LARGE BIT(7)
#define EPT_A BIT(8)
#define EPT_D BIT(9)
#define EPT_ADDRESS 0x000ffffffffff000ULL

#define EPT_RIGHTS (EPT_R | EPT_W | EPT_X)

/* Types are the MTRRs' numbers, at every level. */
/* clang-format off */
#define EPT_TYPES {[PT_WB] = EPT_TYPE(6), [PT_WT] = EPT_TYPE(4), [PT_UC] = EPT_TYPE(0), \
                   [PT_WC] = EPT_TYPE(1)}

#define EPT_COMMON \
    .levels = 4, \
    .leaf_levels = BIT(0) | BIT(1) | BIT(2), \
    .present = EPT_RIGHTS, \
    .address = EPT_ADDRESS, \
    .large_leaf_bits = EPT_LARGE, \
    .perm = {EPT_R, EPT_W, EPT_X, 0}, \
    .type = {EPT_TYPES, EPT_TYPES}, \
    .type_mask = {EPT_TYPE_MASK, EPT_TYPE_MASK}, \
    .typed_by_leaf = true
/* clang-format on */

const struct pt_format fmt_ept = {
    .name = "ept",
    .table_bits = EPT_RIGHTS,
    .leaf_bits = EPT_IGNORE_PAT,
    EPT_COMMON,
};

/* Set beforehand: the processor need not come back for them. */
const struct pt_format fmt_ept_ad = {
    .name = "ept+ad",
    .table_bits = EPT_RIGHTS | EPT_A,
    .leaf_bits = EPT_IGNORE_PAT | EPT_A | EPT_D,
    .accessed = EPT_A,
    .dirty = EPT_D,
    EPT_COMMON,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AMD64 long-mode page-table formats; see fmt_x86.h. Bits only, no code.
 */
#include "mm/pt/fmt_x86.h"

#define X86_P BIT(0)
#define X86_RW BIT(1)
#define X86_US BIT(2)
#define X86_PWT BIT(3)
#define X86_PCD BIT(4)
#define X86_A BIT(5)
#define X86_D BIT(6)
#define X86_PS BIT(7)
#define X86_PAT_4K BIT(7)
#define X86_G BIT(8)
#define X86_PAT_LARGE BIT(12)
#define X86_ADDRESS 0x000ffffffffff000ULL
#define X86_NX BIT(63)

#define X86_LEAF_LEVELS (BIT(0) | BIT(1) | BIT(2))

/* Entries of the power-up PAT: 0 WB, 1 WT, 3 UC; 5 is write-combining by ours. */
/* clang-format off */
#define X86_TYPES \
    .type = {{[PT_WB] = 0, [PT_WT] = X86_PWT, [PT_UC] = X86_PCD | X86_PWT, \
              [PT_WC] = X86_PAT_4K | X86_PWT}, \
             {[PT_WB] = 0, [PT_WT] = X86_PWT, [PT_UC] = X86_PCD | X86_PWT, \
              [PT_WC] = X86_PAT_LARGE | X86_PWT}}, \
    .type_mask = {X86_PAT_4K | X86_PCD | X86_PWT, X86_PAT_LARGE | X86_PCD | X86_PWT}
/* clang-format on */

/* Accessed and dirty are set beforehand: the processor need not come back for them. */
const struct pt_format fmt_x86_host = {
    .name = "host",
    .sign_extended = true,
    .levels = 4,
    .leaf_levels = X86_LEAF_LEVELS,
    .present = X86_P,
    .address = X86_ADDRESS,
    .table_bits = X86_P | X86_RW | X86_A,
    .large_leaf_bits = X86_PS,
    .leaf_bits = X86_A | X86_D,
    .perm = {X86_P, X86_RW, X86_NX, X86_US},
    .perm_inverted = X86_NX,
    X86_TYPES,
    .global = X86_G,
    .accessed = X86_A,
    .dirty = X86_D,
};

const struct pt_format fmt_x86_npt = {
    .name = "npt",
    .levels = 4,
    .leaf_levels = X86_LEAF_LEVELS,
    .present = X86_P,
    .address = X86_ADDRESS,
    .table_bits = X86_P | X86_RW | X86_US | X86_A,
    .large_leaf_bits = X86_PS,
    .leaf_bits = X86_US | X86_A | X86_D,
    .perm = {X86_P, X86_RW, X86_NX, 0},
    .perm_inverted = X86_NX,
    X86_TYPES,
    .global = 0,
    .accessed = X86_A,
    .dirty = X86_D,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reference walker; see refmmu.h. AMD64 APM volume 2, "Long-Mode Page Translation".
 */
#include "tests/host/refmmu.h"

#include "mm/env.h"

bool ref_walk(uint64_t root_pa, uint64_t va, struct ref_mapping *out)
{
    uint64_t table = root_pa;

    out->writable = true;
    out->executable = true;
    out->user = true;
    for (int level = 3; level >= 0; level--) {
        uint64_t *entries = env_frame_ptr(hpa_mfn(HPA(table)));
        uint64_t *entry = &entries[(va >> (12 + 9 * level)) & 511];
        uint64_t bits = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
        uint64_t offset = va & ((0x1000ull << (9 * level)) - 1);
        bool leaf;

        if (!(bits & 1)) {
            return false;
        }
        /* As hardware does: never over an entry that has changed since. */
        while (!(bits & 0x20) && !__atomic_compare_exchange_n(entry, &bits, bits | 0x20, false,
                                                              __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            if (!(bits & 1)) {
                return false;
            }
        }
        leaf = level == 0 || (level <= 2 && (bits & 0x80) != 0);
        out->writable &= (bits & 2) != 0;
        out->user &= (bits & 4) != 0;
        out->executable &= bits >> 63 == 0;
        if (leaf) {
            unsigned pat_bit = level == 0 ? 7 : 12;

            out->pa = (bits & 0x000ffffffffff000ull & ~((0x1000ull << (9 * level)) - 1)) + offset;
            out->order = 9 * (unsigned)level;
            out->global = (bits & 0x100) != 0;
            out->pat =
                (unsigned)((bits >> 3 & 1) | (bits >> 4 & 1) << 1 | (bits >> pat_bit & 1) << 2);
            return true;
        }
        table = bits & 0x000ffffffffff000ull;
    }
    return false;
}

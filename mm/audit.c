/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Audits of machine memory as a whole. Callers: the shell, tests, the destruction of a VM.
 */
#include "mm/audit.h"

#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/slab.h"

bool mm_audit(void)
{
    bool frames = buddy_audit();

    return slab_audit() && frames;
}

bool mm_audit_gone(uint32_t owner)
{
    uint64_t left[NR_FRAME_USES];
    bool gone = true;

    buddy_count_owner(owner, left);
    for (unsigned use = 0; use < NR_FRAME_USES; use++) {
        if (left[use] != 0) {
            env_log("audit: %llu %s frames remain after their VM %u was destroyed",
                    (unsigned long long)left[use], buddy_use_name((enum frame_use)use), owner);
            gone = false;
        }
    }
    if (kmalloc_bytes(owner) != 0) {
        env_log("audit: %llu bytes of small objects remain after their VM %u was destroyed",
                (unsigned long long)kmalloc_bytes(owner), owner);
        gone = false;
    }
    return gone;
}

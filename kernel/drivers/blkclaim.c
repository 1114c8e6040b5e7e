/* SPDX-License-Identifier: BSD-2-Clause */
/* A short table, searched in full. */
#include "kernel/drivers/blkclaim.h"

#include "kernel/lib/spinlock.h"

#define CLAIMS_MAX 64u

static struct claim {
    const struct blk_disk *disk; /* NULL: free */
    uint64_t first, nr;
    bool write;
} claims[CLAIMS_MAX]; /* lock */
static struct spinlock lock = SPINLOCK_INIT(RANK_CALL, "disk claims");

static bool touches(const struct claim *c, const struct blk_disk *d, uint64_t first, uint64_t nr)
{
    return c->disk == d && first < c->first + c->nr && c->first < first + nr;
}

enum hv_err blkclaim_take(const struct blk_disk *d, uint64_t first, uint64_t nr, bool write)
{
    struct claim *room = NULL;
    enum hv_err err = HV_OK;

    spin_lock(&lock);
    for (unsigned i = 0; i < CLAIMS_MAX; i++) {
        if (claims[i].disk == NULL) {
            room = &claims[i];
        } else if (touches(&claims[i], d, first, nr) && (write || claims[i].write)) {
            err = HV_EBUSY;
        }
    }
    if (err == HV_OK && room == NULL) {
        err = HV_ENOMEM;
    }
    if (err == HV_OK) {
        *room = (struct claim){d, first, nr, write};
    }
    spin_unlock(&lock);
    return err;
}

void blkclaim_drop(const struct blk_disk *d, uint64_t first, uint64_t nr, bool write)
{
    spin_lock(&lock);
    for (unsigned i = 0; i < CLAIMS_MAX; i++) {
        struct claim *c = &claims[i];

        if (c->disk == d && c->first == first && c->nr == nr && c->write == write) {
            c->disk = NULL;
            break;
        }
    }
    spin_unlock(&lock);
}

bool blkclaim_any(const struct blk_disk *d, uint64_t first, uint64_t nr)
{
    bool any = false;

    spin_lock(&lock);
    for (unsigned i = 0; i < CLAIMS_MAX; i++) {
        any = any || touches(&claims[i], d, first, nr);
    }
    spin_unlock(&lock);
    return any;
}

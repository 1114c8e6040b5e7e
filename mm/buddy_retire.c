/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bad memory. A free frame is retired at once: it leaves the free lists for a use of its own, from
 * which nothing comes back. A frame in use stays with its user, whom the caller stops, and waits in a
 * short list that every freeing looks at while it is not empty; what is good around it is freed.
 *
 * The list changes under buddy_state.lock, and grows only while all caches are locked as well: a
 * frame that is being freed is either seen in a cache here, or sees itself in the list.
 */
#include "mm/buddy_internal.h"
#include "mm/env.h"
#include "mm/frame.h"

/* Index of a bad frame in [mfn, mfn + 2^order), or nr_bad. */
static unsigned find_bad(mfn_t mfn, unsigned order)
{
    unsigned i = 0;

    while (i < buddy_state.nr_bad && buddy_state.bad[i].n >> order != mfn.n >> order) {
        i++;
    }
    return i;
}

static void forget_bad(unsigned index)
{
    unsigned last = buddy_state.nr_bad - 1;

    buddy_state.bad[index] = buddy_state.bad[last];
    __atomic_store_n(&buddy_state.nr_bad, last, __ATOMIC_RELAXED);
}

/* The frame at bad[index], whose user has let go of it. */
static void retire_bad(unsigned index)
{
    frame_set(buddy_state.bad[index], FRAME_RETIRED, 0, OWNER_HOST);
    buddy_state.used[FRAME_RETIRED]++;
    forget_bad(index);
}

bool buddy_retire_freed(mfn_t mfn)
{
    spin_lock(&buddy_state.lock);
    unsigned index = find_bad(mfn, 0);
    bool bad = index < buddy_state.nr_bad;
    if (bad) {
        retire_bad(index);
    }
    spin_unlock(&buddy_state.lock);
    return bad;
}

void buddy_free_around_bad(mfn_t mfn, unsigned order)
{
    unsigned index = find_bad(mfn, order);

    if (index == buddy_state.nr_bad) {
        buddy_block_free(mfn, order);
    } else if (order == 0) {
        retire_bad(index);
    } else {
        mfn_t upper = mfn_add(mfn, BIT(order - 1));

        frame_carve(upper, order - 1);
        buddy_free_around_bad(upper, order - 1);
        buddy_free_around_bad(mfn, order - 1);
    }
}

static void describe(mfn_t mfn, struct buddy_holder *holder)
{
    mfn_t head = frame_head(mfn);
    const struct frame *f = frame_of(head);

    *holder = (struct buddy_holder){.use = (enum frame_use)f->use, .owner = f->owner};
    if (f->use == FRAME_GUEST) {
        holder->gfn = GFN(f->gfn + (mfn.n - head.n));
    }
}

/* Everything locked. */
static enum hv_err retire_locked(mfn_t mfn, struct buddy_holder *holder)
{
    describe(mfn, holder);
    if (holder->use == FRAME_RESERVED || holder->use == FRAME_RETIRED) {
        return HV_ENOENT;
    }
    if (buddy_take_at(mfn, 0, FRAME_RETIRED, OWNER_HOST) == HV_OK) {
        return HV_OK;
    }
    if (find_bad(mfn, 0) < buddy_state.nr_bad) {
        return HV_EBUSY;
    }
    if (buddy_state.nr_bad == BUDDY_MAX_BAD) {
        return HV_ENOMEM;
    }
    buddy_state.bad[buddy_state.nr_bad] = mfn;
    __atomic_store_n(&buddy_state.nr_bad, buddy_state.nr_bad + 1, __ATOMIC_RELAXED);
    return HV_EBUSY;
}

enum hv_err buddy_retire(mfn_t mfn, struct buddy_holder *holder)
{
    *holder = (struct buddy_holder){.use = FRAME_RESERVED};
    if (mfn.n >= frame_nr) {
        return HV_ENOENT;
    }
    unsigned nr = buddy_lock_all();

    buddy_drain_locked(nr);
    enum hv_err err = retire_locked(mfn, holder);
    buddy_unlock_all(nr);
    return err;
}

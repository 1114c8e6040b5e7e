/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The slots of the store, as far as memory knows about them: 16 bytes for each say whose page is in
 * it, how often the slot has been used (its generation), and a checksum of what was written, over the
 * contents, the slot and the generation: what comes back from elsewhere, from earlier, or torn is
 * noticed. Runs of free slots are handed out in turn, so that writes come in long runs. A slot that a
 * write failed on is retired for good. RANK_SWAP; nothing here sleeps or allocates after slots_init.
 * Callers: swap.c, swap_batch.c, swap_in.c, the p2m; the shell (numbers, audit).
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

#define SLOT_NONE UINT64_MAX
#define SLOTS_MAX BIT(35) /* a word of the p2m names one */

/* Memory for `nr` slots, all free. HV_ENOMEM: not in one piece. */
enum hv_err slots_init(uint64_t nr) __must_check;
/* Nobody uses a slot. */
void slots_fini(void);
/* Frames that slots_init would take. */
uint64_t slots_frames(uint64_t nr);

/* Take up to `most` slots in a row for pages of `owner`; returns the first and *nr. SLOT_NONE: none is
 * free. */
uint64_t slots_take(uint32_t owner, unsigned most, unsigned *nr);
/* It holds page gfn from now on; `hash` is the contents'. */
void slots_fill(uint64_t slot, gfn_t gfn, uint64_t hash);
/* Are these the contents that slots_fill was told of? */
bool slots_check(uint64_t slot, uint64_t hash);
void slots_free(uint64_t slot);
/* Never use it again; it was taken. */
void slots_retire(uint64_t slot);

/* Does it hold page gfn of `owner`? */
bool slots_holds(uint64_t slot, uint32_t owner, gfn_t gfn);
/* Differs for each use of each slot: the data unit of its encryption. */
uint64_t slots_tweak(uint64_t slot);

struct slots_stats {
    uint64_t total, used, bad;
};
/* Takes the slots' lock. */
void slots_stats(struct slots_stats *out);
/* Slots of an owner, recounted (slow). */
uint64_t slots_owned(uint32_t owner);
/* Recount everything; logs disagreements. */
bool slots_audit(void);

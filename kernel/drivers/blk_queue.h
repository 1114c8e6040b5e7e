/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order in which a disk's requests are served, and what happens to those that fail, hang or lose
 * their disk. Knows neither threads nor hardware: the host tests run it with a disk that misbehaves
 * (tests/host/test_blk.c). Caller: kernel/drivers/blk.c; drivers complete requests.
 */
#pragma once

#include "kernel/drivers/blk.h"

#define BLK_TIMEOUT_NS 10000000000ull /* of one request in the device */
#define BLK_ATTEMPTS 3u               /* of one request */
#define BLK_RESETS 3u   /* without a success in between, and the disk counts as gone */
#define BLK_OVERTAKE 8u /* reads that go before a waiting write */

/* Nothing waits; before the disk has a thread. */
void blkq_init(struct blk_disk *d);
/* Any thread; the disk's thread must run the queue afterwards. */
void blkq_submit(struct blk_disk *d, struct blk_request *r);
/* One turn of the disk's thread: reap, watch over time, finish, start. Returns how many requests were
 * finished. */
unsigned blkq_run(struct blk_disk *d, uint64_t now_ns);
/* Nothing waits and nothing is in flight. */
bool blkq_idle(struct blk_disk *d);
/* For drivers, from `reap`: the request with this tag is done. A tag that is not in flight is the
 * device's mistake and ignored. HV_EINVAL and HV_ENOTSUP are not tried again. */
void blkq_complete(struct blk_disk *d, unsigned tag, enum hv_err result);

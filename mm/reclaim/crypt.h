/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Encryption of pages on their way to the store: AES-128 in XTS mode by the Mbed TLS library, with the
 * processor's AES instructions where it has them. One key for the boot; each page is a data unit of
 * its own, numbered by slot and generation. Callers: swap_batch.c, swap_in.c; the key:
 * kernel/vm/swapping.c; all of it: kernel/bench_swap.c.
 */
#pragma once

#include "kernel/lib/types.h"

#define CRYPT_KEY_BYTES 32u /* two AES-128 keys */

/* Before the first page. */
void crypt_set_key(const uint8_t key[CRYPT_KEY_BYTES]);
/* 4 KiB; `to` may be `from`. Thread context, not on the fast path. */
void crypt_encrypt(void *to, const void *from, uint64_t unit);
void crypt_decrypt(void *to, const void *from, uint64_t unit);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Contents of 4 KiB pages as numbers: XXH64 (the xxHash library's header, general registers only),
 * comparison, and the test for zero. Pure. Callers: the rest of mm/share, mm/reclaim (checksums), the shell.
 */
#pragma once

#include "kernel/lib/types.h"

/* They read 4 KiB that may change meanwhile: what they say then means nothing, unless the page
 * is write-protected. `page` is aligned to 8 bytes. */
uint64_t hash_page(const void *page); /* by the seed */
bool hash_is_zero(const void *page);
bool hash_same(const void *a, const void *b);
/* Do they look alike? A few words are compared: true says little, false is sure. */
bool hash_alike(const void *a, const void *b);

/* The page will be read soon. */
void hash_prefetch(const void *page);

/* Before the first page is hashed: a guest that does not know the seed cannot make pages of equal
 * hashes. */
void hash_set_seed(uint64_t seed);

#ifdef BALLAST_HOST
extern uint64_t hash_weaken; /* tests: only these bits of a hash are used */
#endif

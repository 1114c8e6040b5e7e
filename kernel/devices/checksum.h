/* SPDX-License-Identifier: BSD-2-Clause */
/* The checksum of firmware tables. Pure. */
#pragma once

#include "kernel/lib/types.h"

/* What brings the sum of the bytes to zero, where the checksum byte itself is still zero. */
static inline uint8_t table_checksum(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return (uint8_t)-sum;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bit by bit: it sees a few KiB in a boot.
 */
#include "kernel/lib/crc32.h"

uint32_t crc32(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;

    crc = ~crc;
    while (len-- != 0) {
        crc ^= *p++;
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CRC-32 of GPT, Ethernet and zip (polynomial 04C11DB7H, reflected). Pure.
 */
#pragma once

#include "kernel/lib/types.h"

/* Continue `crc` (0 at the start) over `len` bytes. */
uint32_t crc32(uint32_t crc, const void *data, size_t len);

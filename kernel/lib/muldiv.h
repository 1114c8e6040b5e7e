/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Arithmetic through 128 bits, which gcc would take from a library that the image does not link.
 * Pure.
 */
#pragma once

#include "kernel/lib/types.h"

/* a * b / d. The result must fit in 64 bits and d must not be zero. */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t d)
{
    uint64_t quotient, remainder;
    __asm__("mulq %3\n"
            "divq %4\n"
            : "=&a"(quotient), "=&d"(remainder)
            : "0"(a), "r"(b), "r"(d)
            : "cc");
    return quotient;
}

/* a * b / 2^32: b is a 32.32 fixed-point number. The result must fit in 64 bits. */
static inline uint64_t mul_fixed32(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 32);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Address and frame-number types. Guest and machine numbers are distinct struct types, so that the
 * compiler refuses a mix-up. Pure.
 */
#pragma once

#include "kernel/lib/types.h"

/* clang-format off */
typedef struct { uint64_t n; } gfn_t; /* guest frame number: guest-physical address / 4 KiB */
typedef struct { uint64_t n; } mfn_t; /* machine frame number: machine address / 4 KiB */
typedef struct { uint64_t a; } gpa_t; /* guest-physical address, bytes */
typedef struct { uint64_t a; } hpa_t; /* machine address, bytes */
typedef struct { uint64_t a; } gva_t; /* guest-virtual (linear) address, bytes */
/* clang-format on */

#define GFN(x) ((gfn_t){(x)})
#define MFN(x) ((mfn_t){(x)})
#define GPA(x) ((gpa_t){(x)})
#define HPA(x) ((hpa_t){(x)})
#define GVA(x) ((gva_t){(x)})
#define MFN_NONE MFN(UINT64_MAX)

/* Page orders (log2 of 4 KiB frames) of the three page sizes. */
#define ORDER_4K 0u
#define ORDER_2M 9u
#define ORDER_1G 18u

static inline gfn_t gpa_gfn(gpa_t a)
{
    return GFN(a.a >> PAGE_SHIFT);
}
static inline gpa_t gfn_gpa(gfn_t g)
{
    return GPA(g.n << PAGE_SHIFT);
}
static inline mfn_t hpa_mfn(hpa_t a)
{
    return MFN(a.a >> PAGE_SHIFT);
}
static inline hpa_t mfn_hpa(mfn_t m)
{
    return HPA(m.n << PAGE_SHIFT);
}
static inline gfn_t gfn_add(gfn_t g, uint64_t nr)
{
    return GFN(g.n + nr);
}
static inline mfn_t mfn_add(mfn_t m, uint64_t nr)
{
    return MFN(m.n + nr);
}
static inline bool mfn_valid(mfn_t m)
{
    return m.n != UINT64_MAX;
}

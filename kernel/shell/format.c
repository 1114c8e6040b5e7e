/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers as the operator reads them.
 */
#include "kernel/shell/format.h"

#include "kernel/lib/printf.h"

const char *format_size(char buf[FORMAT_MAX], uint64_t bytes)
{
    static const char suffixes[] = {'B', 'K', 'M', 'G', 'T'};
    unsigned unit = 0;
    uint64_t scale = 1;

    while (unit + 1 < ARRAY_SIZE(suffixes) && bytes / scale >= 1024) {
        scale *= 1024;
        unit++;
    }
    uint64_t tenths = bytes % scale * 10 / scale;

    if (tenths == 0) {
        scnprintf(buf, FORMAT_MAX, "%llu%c", (unsigned long long)(bytes / scale), suffixes[unit]);
    } else {
        scnprintf(buf, FORMAT_MAX, "%llu.%llu%c", (unsigned long long)(bytes / scale),
                  (unsigned long long)tenths, suffixes[unit]);
    }
    return buf;
}

const char *format_seconds(char buf[FORMAT_MAX], uint64_t ns)
{
    uint64_t ms = ns / 1000000;

    scnprintf(buf, FORMAT_MAX, "%llu.%03llus", (unsigned long long)(ms / 1000),
              (unsigned long long)(ms % 1000));
    return buf;
}

const char *format_mb(char buf[FORMAT_MAX], uint64_t bytes)
{

    uint64_t tenths = bytes / MIB(1) * 10 + bytes % MIB(1) * 10 / MIB(1);
    scnprintf(buf, FORMAT_MAX, "%llu.%llu", (unsigned long long)(tenths / 10),
              (unsigned long long)(tenths % 10));
    return buf;
}

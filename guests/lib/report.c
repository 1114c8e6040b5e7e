/* SPDX-License-Identifier: BSD-2-Clause */
/* Counting and printing of check results. */
#include "guests/lib/report.h"

#include "guests/lib/console.h"

static unsigned int passed, failed;

void report_check(bool ok, const char *name, const char *why)
{
    if (ok) {
        passed++;
        console_printf("PASS %s\n", name);
    } else {
        failed++;
        console_printf("FAIL %s: %s\n", name, why);
    }
}

unsigned int report_failures(void)
{
    return failed;
}

void report_summary(void)
{
    console_printf("SUMMARY passed %u failed %u\n", passed, failed);
}

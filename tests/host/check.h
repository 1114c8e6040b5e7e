/* SPDX-License-Identifier: BSD-2-Clause */
/* What fuzz targets and the stand-ins of host tests claim: false aborts and says where. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                             \
    do {                                                                        \
        if (!(what)) {                                                          \
            fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #what); \
            abort();                                                            \
        }                                                                       \
    } while (0)

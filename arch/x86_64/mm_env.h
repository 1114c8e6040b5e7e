/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Set-up of the kernel half of mm/env.h.
 */
#pragma once

#include "kernel/lib/types.h"

/* Host option `fail=SITE` (or `fail=SITE:N`): every (every N-th) allocation at the site that mm/
 * calls SITE fails, to test scarcity on a whole machine. Boot processor, before memory is used. */
void mm_env_configure(const char *cmdline);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Debug builds recount all memory while the machine runs.
 */
#pragma once

/* Start the thread that does; release builds have none. Once, when the scheduler runs. */
void selfaudit_start(void);

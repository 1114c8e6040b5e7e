/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Machine memory that went bad: a frame that a machine check names is retired, and the VM that had it
 * is stopped; no other VM is. Caller: kernel/main.c.
 */
#pragma once

/* Start the thread that looks after it; without memory for it, say so. Boot thread, once the log
 * works and before the first VM is built. */
void badmem_start(void);

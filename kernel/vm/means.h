/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The means of taking memory from VMs, registered with the reclaimer (mm/reclaim/reclaim.h) in the order
 * in which they are asked: page sharing, balloon, compression and swapping.
 */
#pragma once

/* At boot, before the carrier's thread starts. */
void means_register(void);

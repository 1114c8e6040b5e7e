/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the boot sequence leaves for others: the loader's information, constant once threads run.
 */
#pragma once

struct boot_info;

/* Never NULL. */
const struct boot_info *main_boot_info(void);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the module ballast.conf to running VMs. Caller: kernel/main.c.
 */
#pragma once

struct boot_info;

/* Read ballast.conf, apply its host options, create its VMs and start those that start by
 * themselves. Every problem is logged with file and line, and spoils only its own VM. Boot thread. */
void startup_vms(const struct boot_info *info);

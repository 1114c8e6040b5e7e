/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the module ballast.conf to running VMs. Callers: kernel/main.c, the shell.
 */
#pragma once

#include "kernel/lib/types.h"

struct boot_info;
struct vm_config;

/* Read ballast.conf, apply its host options, create its VMs and start those that start by
 * themselves. Every problem is logged with file and line, and spoils only its own VM. Boot thread. */
void startup_vms(const struct boot_info *info);
/* Read ballast.conf once more and hand each VM it describes, bad ones too, to fn until fn returns
 * false. Silent about errors. The shell's thread, after startup_vms. */
void startup_for_each_vm(bool (*fn)(const struct vm_config *cfg, void *arg), void *arg);

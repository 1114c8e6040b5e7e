/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the common part of the boot-data parser and its two readers; nobody else includes this.
 * All sizes are bytes; all functions return what bootinfo_parse is to return.
 */
#pragma once

#include "boot/bootinfo.h"

/* Record `why` (static text) as the reason and return `err`. */
enum hv_err bootinfo_fail(struct boot_info *out, enum hv_err err, const char *why);

/* Copy the NUL-terminated string at `from`, of which `limit` bytes may be read, to `to`. */
enum hv_err bootinfo_copy_string(struct boot_info *out, char *to, size_t room, const char *from,
                                 size_t limit);

/* The same for a string at physical address `pa` whose length nobody stated. */
enum hv_err bootinfo_read_string(struct boot_info *out, const struct bootinfo_env *env, uint64_t pa,
                                 char *to, size_t room);

/* Append a module whose name and arguments stand in `text`, NUL-terminated within `limit` bytes. */
enum hv_err bootinfo_add_module(struct boot_info *out, uint64_t base, uint64_t size,
                                const char *text, size_t limit);

/* Append a raw memory range with its type in the numbering of BIOS E820. */
enum hv_err bootinfo_add_range(struct boot_info *out, uint64_t base, uint64_t size,
                               uint32_t e820_type);

/* Readers of one protocol each. */
enum hv_err bootinfo_read_mb2(uint64_t info_pa, const struct bootinfo_env *env,
                              struct boot_info *out);
enum hv_err bootinfo_read_pvh(uint64_t info_pa, const struct bootinfo_env *env,
                              struct boot_info *out);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The formats of AMD64 long-mode page tables: the hypervisor's own, and nested tables on SVM. Data
 * for mm/pt/pt.c. Rules: AMD64 Architecture Programmer's Manual volume 2, "Long-Mode Page
 * Translation" and "Nested Paging".
 */
#pragma once

#include "mm/pt/pt.h"

/* Of the hypervisor itself. Memory types are entries of the PAT that cpu_init programs: the
 * power-up values, with entry 5 write-combining. */
extern const struct pt_format fmt_x86_host;
/* Nested tables: every walk counts as a user access ("Nested Table Walk"). */
extern const struct pt_format fmt_x86_npt;

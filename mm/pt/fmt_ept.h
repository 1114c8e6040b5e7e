/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The format of extended page tables, data for mm/pt/pt.c. Rules: Intel 64 and IA-32 Architectures
 * Software Developer's Manual, Volume 3, "The Extended Page Table Mechanism (EPT)".
 */
#pragma once

#include "mm/pt/pt.h"

/*
 * A leaf's memory type is used as it stands, whatever the guest's own tables say of the page
 * ("ignore PAT"): the guest then sees a frame under the same type as the hypervisor does, and no
 * frame is ever cached in one mapping and not in another. The processor's MTRRs have no say below
 * EPT: the type comes from env_memory_type.
 */
extern const struct pt_format fmt_ept;
/* With accessed and dirty flags, for roots whose EPTP enables them. */
extern const struct pt_format fmt_ept_ad;

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Audits of machine memory as a whole: every frame has an owner, every counter is what a recount
 * says. The audits of one VM are p2m_audit and its view's.
 */
#pragma once

#include "kernel/lib/types.h"

/* Recount the frame table, the allocator's lists and caches, and the small objects. Logs what
 * disagrees; true if nothing does. Slow; stops allocation meanwhile. No lock held. */
bool mm_audit(void);
/* Does no frame and no small object carry this owner any more? For after its VM was destroyed; logs
 * what is left. */
bool mm_audit_gone(uint32_t owner);

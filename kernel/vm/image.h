/* SPDX-License-Identifier: BSD-2-Clause */
/* Boot modules by the names that a VM's configuration gives them. Callers: VM start, disks. */
#pragma once

#include "kernel/lib/err.h"

struct loader_image;
struct vm;

/* The module `name`, for the key `what` of vm's section; an empty name gives an empty image. HV_ENOENT,
 * logged: there is no such module. Its contents stay where they are, for good. */
enum hv_err image_find(const struct vm *vm, const char *what, const char *name,
                       struct loader_image *out) __must_check;

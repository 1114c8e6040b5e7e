/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Phrases for error codes.
 */
#include "kernel/lib/err.h"

const char *hv_strerror(enum hv_err err)
{
    static const char *const phrases[] = {
        [HV_OK] = "success",          [HV_ENOMEM] = "out of memory",
        [HV_EINVAL] = "malformed",    [HV_ERANGE] = "out of range",
        [HV_ENOENT] = "not found",    [HV_EEXIST] = "already there",
        [HV_EBUSY] = "busy",          [HV_EAGAIN] = "try again",
        [HV_EPERM] = "not allowed",   [HV_ENOTSUP] = "not supported",
        [HV_EIO] = "device error",    [HV_EFAULT] = "bad guest address",
        [HV_ETIMEDOUT] = "timed out",
    };

    return (unsigned)err < ARRAY_SIZE(phrases) ? phrases[err] : "unknown error";
}

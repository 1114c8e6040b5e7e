/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The error codes of every fallible function. Zero is success; results are returned by pointer.
 */
#pragma once

#include "kernel/lib/types.h"

enum hv_err {
    HV_OK = 0,
    HV_ENOMEM,   /* no memory (scarcity: the caller decides) */
    HV_EINVAL,   /* an argument or input is malformed */
    HV_ERANGE,   /* a value lies outside what is accepted */
    HV_ENOENT,   /* nothing by that name or at that address */
    HV_EEXIST,   /* already there */
    HV_EBUSY,    /* in use; try later */
    HV_EAGAIN,   /* not now: leave the fast path or sleep, then restart the whole operation */
    HV_EPERM,    /* not allowed */
    HV_ENOTSUP,  /* hardware or configuration does not offer it */
    HV_EIO,      /* a device failed */
    HV_EFAULT,   /* guest address does not translate; a guest fault was recorded */
    HV_ETIMEDOUT /* the other side did not answer in time */
};

/* A short English phrase for `err`, for messages; never NULL. */
const char *hv_strerror(enum hv_err err);

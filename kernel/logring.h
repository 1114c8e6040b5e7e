/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A ring of log records in plain memory. There is no header to lose: every record carries its own
 * magic number, position and checksum, so whatever survives of a ring after a warm reset can be read
 * from the bare bytes, and what was overwritten is skipped. Appending is safe from any context:
 * space is reserved by one atomic addition. Pure; callers: kernel/log.c, tests/host.
 */
#pragma once

#include "kernel/lib/types.h"

#define LOGRING_TEXT_MAX 480 /* longer texts are cut: a list of all keys of a VM is not */

struct logring {
    uint8_t *buf;       /* size bytes, 8-byte aligned */
    size_t size;        /* power of two, at least 1 KiB */
    uint64_t head;      /* position behind the last reserved record, bytes ever written (atomic) */
    uint64_t committed; /* readers look no further than this (atomic) */
};

struct log_entry {
    uint64_t pos;  /* position of the record; grows */
    uint64_t lost; /* logring_read: bytes of records before it that were overwritten or left out */
    uint64_t time_ns;
    uint8_t level;
    uint8_t cpu;
    uint16_t len;                    /* of text, NUL not counted */
    char text[LOGRING_TEXT_MAX + 1]; /* NUL-terminated */
};

/* Start an empty ring in `buf`; its old contents are erased. */
void logring_init(struct logring *r, void *buf, size_t size);
/* Continue the records of `r` in another, larger or equally large, buffer. No concurrent use. */
void logring_move(struct logring *r, void *buf, size_t size);
/* Append one record. Any context; concurrent appends are safe. */
void logring_append(struct logring *r, uint8_t level, uint8_t cpu, uint64_t time_ns,
                    const char *text, size_t len);
/* The first whole record at or behind *pos; *pos moves behind it. False: none yet, or the writer of the
 * one at *pos is still at it; with `skip`, that one is left out: he may never finish. */
bool logring_read(const struct logring *r, uint64_t *pos, bool skip, struct log_entry *out);
/* Hand every intact record found in `size` bytes at `buf` to fn, oldest first; fn returns false to
 * stop. Trusts nothing in the buffer. Returns how many there were. */
unsigned logring_scan(const void *buf, size_t size,
                      bool (*fn)(const struct log_entry *e, void *arg), void *arg);

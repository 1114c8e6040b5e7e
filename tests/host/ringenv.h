/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's memory for tests of kernel/devices/vring.c, and a naive reading of its rings to compare with. Pages
 * are allocated one by one, so that the sanitizer sees every byte too far; pins are counted, and fail on
 * demand as if pages were away.
 */
#pragma once

#include "kernel/devices/vring.h"

#define RINGENV_PAGES 20u
#define RINGENV_BYTES (RINGENV_PAGES * PAGE_SIZE)
#define RINGENV_HOLE 13u /* this one is no RAM */

struct ringenv {
    uint8_t *page[RINGENV_PAGES];
    int pins;              /* now */
    int most_pins;         /* ever */
    unsigned fail_one;     /* one in so many pins fails ... */
    enum hv_err fail_with; /* ... with this (HV_OK: HV_EAGAIN or HV_ENOMEM) ... */
    uint64_t random;       /* ... by this */
    unsigned failures;
    bool away; /* all pages take a frame */
};
extern struct ringenv ringenv;

void ringenv_start(void);
void ringenv_stop(void);
/* False: some of it is no RAM; nothing happened. */
bool ringenv_load(uint64_t gpa, void *dst, size_t n);
bool ringenv_store(uint64_t gpa, const void *src, size_t n);
bool ringenv_is_ram(uint64_t gpa, uint64_t n);

enum model_result { MODEL_NONE, MODEL_WRONG, MODEL_CHAIN };
struct model_chain {
    uint16_t head;
    unsigned nr;
    struct {
        uint64_t gpa;
        uint32_t len;
        bool write;
    } seg[VRING_SIZE_MAX];
    uint64_t readable, writable;
};
/* What vring_pop must find for the ring that r describes, whose next head to take is number `next`. */
enum model_result model_pop(const struct vring *r, uint16_t next, bool pin,
                            struct model_chain *out);
/* Copy all that the chain's driver wrote (or is to read) into or out of buf. */
void model_copy(const struct model_chain *c, bool write, uint8_t *buf);

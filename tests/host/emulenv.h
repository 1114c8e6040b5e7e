/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the emulator needs around it, for tests and fuzz targets: an arena of a few pages at a low
 * address, whose guest-virtual, guest-physical and host addresses are the same numbers. The guest's
 * contents are in `memory`; `native` is for whoever executes on the real processor. Each page has
 * rights, and is RAM (pinned) or a device (bus). Wrong use by the emulator aborts.
 */
#pragma once

#include "kernel/emul/emul.h"
#include "kernel/vm/guestmem.h"

#define ARENA_PAGES 5
#define ARENA_BYTES (ARENA_PAGES * 4096u)

struct emulenv {
    uint8_t *native, *memory;
    uint8_t rights[ARENA_PAGES]; /* GVA_READ, GVA_WRITE */
    bool ram[ARENA_PAGES];
    uint8_t insn[15]; /* what RIP points at */
    unsigned insn_len;
    bool code; /* so quickly, and as much as an instruction may have */
    unsigned bus_calls, steps;
    int pins;
    bool bus_again;      /* the bus answers HV_EAGAIN */
    enum hv_err pin_err; /* what pinning of RAM answers, ... */
    unsigned pins_good;  /* ... after so many that succeed */
    uint8_t port_log[256];
    unsigned port_count;
};
extern struct emulenv env;

/* Once: map the arena, preceded by a page for code. False: no memory there. */
bool emulenv_init(void);
/* Everything readable, writable and a device; nothing counted. */
void emulenv_fresh(void);
/* vCPU 0 of fakevm with flat segments in `mode`. */
void emulenv_vcpu(enum emul_mode mode);
void emulenv_insn(const void *bytes, unsigned len);

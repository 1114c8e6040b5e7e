/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM's surroundings for tests of virtio devices: what the devices ask of the kernel is recorded in `host`, and
 * a driver works through registers and rings in the memory of tests/host/ringenv.c. The device's thread turns
 * when the test says so.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vballoon.h"
#include "kernel/devices/vblk.h"
#include "kernel/devices/vconsole.h"
#include "kernel/devices/vdisk.h"
#include "kernel/devices/vmmio_internal.h"
#include "kernel/devices/vrandom.h"
#include "kernel/devices/vuart.h"
#include "kernel/drivers/blk.h"
#include "kernel/drivers/blkclaim.h"
#include "kernel/drivers/swaparea.h"
#include "kernel/lib/random.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/guestconsole.h"
#include "kernel/vm/image.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/swapping.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "tests/host/fakevm.h"
#include "tests/host/ringenv.h"

#define FRAMES 400u
#define DISK_PAGES 70u
#define IMAGE_BYTES (3 * 4096u + 700u)
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define RING_STEP 0x200u /* the rings of queue n lie that much further on */
#define DATA 0x5000u
#define RING_SIZE 16u

struct virtioenv {
    bool line[24];
    unsigned wakes, waits, sleeps;
    bool hopeless;
    bool in_line; /* others wait for memory */
    /* Console. */
    size_t log_room,
        logged; /* so many bytes until the log is behind, 0: never; up to where it was */
    char printed[16384], typed[64];
    size_t nr_printed, nr_typed;
    void (*input_ready)(void *arg);
    void *input_arg;
    /* Balloon. */
    uint64_t told, size, given[600], taken[600], discarded[64], nr_reported;
    unsigned nr_given, nr_taken, nr_discarded, starts, stops, heards;
    enum hv_err give_err;
    bool hold_on_give; /* somebody holds the thread while it gives, and the ring's pages are gone */
    struct balloon_guest guest;
    struct ballooning_reports rules;
    /* Machine memory and the host's disk. */
    uint8_t *frame[FRAMES];
    unsigned nr_frames, frames_left;
    uint8_t disk[DISK_PAGES][4096];
    unsigned reads, writes, flushes, claims;
    bool disk_fails;
};
extern struct virtioenv host;

extern struct blk_disk disk;       /* the host's; its first partition is known */
extern uint8_t image[IMAGE_BYTES]; /* the boot module `image` */
extern struct vcpu *const v;
extern struct vmmio *m; /* the device that the test drives, number 0 of its VM */

/* Registers of device 0. */
uint64_t mmio_sized(uint32_t reg, unsigned size, bool write, uint64_t value);
uint32_t in(uint32_t reg);
void out(uint32_t reg, uint32_t value);
/* The thread does all that there is to do. */
void turn(void);
/* Guest memory. */
uint16_t get16(uint64_t gpa);
void put16(uint64_t gpa, uint16_t x);
/* Queue q's registers, its rings empty. */
void describe(unsigned q);
/* Reset, negotiate, make the queues of the mask ready, start. */
void drive(uint64_t features, uint32_t queues);
/* Descriptor i of queue q. */
void desc(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags, unsigned next);
/* The used ring: its index, the length of the last element. */
uint16_t used_index(unsigned q);
uint32_t used_len(unsigned q);
/* Make a chain available, notify, let the thread turn. */
void offer(unsigned q, uint16_t head);
/* For each test. */
int setup(void **state);
int teardown(void **state);
/* m is an entropy device. */
struct vrandom *make_rng(void);

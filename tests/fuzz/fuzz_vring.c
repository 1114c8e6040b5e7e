/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a virtqueue whose memory is the input. What the device's side makes of it must be what a naive
 * reading makes of it (tests/host/ringenv.c), whatever pages are away, and every pin is given back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/check.h"
#include "tests/host/ringenv.h"

struct input {
    uint8_t order, what, fail_one, heads;
    uint16_t desc, avail, used, next;
    /* Then bytes of the guest's memory, each piece 16 bits of address in units of 2 bytes, 8 bits of length. */
};

#define WHAT_INDIRECT 1
#define WHAT_RANGES 2

static struct vring ring;
static struct vring_chain chain;

static void fill(const uint8_t *data, size_t size)
{
    while (size >= 3) {
        uint64_t gpa = 2u * (data[0] | data[1] << 8);
        size_t n = data[2] < size - 3 ? data[2] : size - 3;

        (void)ringenv_store(gpa, data + 3, n);
        data += 3 + n;
        size -= 3 + n;
    }
}

static bool is_away(enum hv_err err)
{
    return err == HV_EAGAIN || err == HV_ENOMEM;
}

static bool one_head(bool pin)
{
    static uint8_t buf[4096];
    struct model_chain model;
    uint16_t next = ring.next_avail;
    enum model_result want = model_pop(&ring, next, pin, &model);
    int mapped = ringenv.pins;
    enum hv_err err;

    while (is_away(err = vring_pop(&ring, &chain, pin))) {
        CHECK(ringenv.pins == mapped && ring.next_avail == next);
    }
    CHECK(err == (want == MODEL_NONE ? HV_ENOENT : want == MODEL_WRONG ? HV_EINVAL : HV_OK));
    if (err != HV_OK) {
        CHECK(ringenv.pins == mapped);
        return false;
    }
    CHECK(chain.head == model.head && chain.nr_segs == model.nr);
    CHECK(chain.readable == model.readable && chain.writable == model.writable);
    if (pin) {
        size_t got = 0, step;

        if (model.writable != 0) {
            vring_write_last(&chain, 0x55);
        }
        while ((step = vring_read(&chain, buf, sizeof buf)) != 0) {
            got += step;
        }
        CHECK(got == model.readable);
        for (got = 0; (step = vring_write(&chain, buf, sizeof buf)) != 0;) {
            got += step;
        }
        CHECK(got == model.writable);
    }
    vring_release(&chain);
    vring_push(&ring, chain.head, chain.writable);
    (void)vring_wants_interrupt(&ring);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.order = 0};
    enum hv_err err;

    memcpy(&in, data, size < sizeof in ? size : sizeof in);
    ringenv_start();
    ring = (struct vring){.size = (uint16_t)(1u << in.order % 9),
                          .indirect = in.what & WHAT_INDIRECT,
                          .desc.gpa = 2ull * in.desc,
                          .avail.gpa = 2ull * in.avail,
                          .used.gpa = 2ull * in.used};
    if (size > sizeof in) {
        fill(data + sizeof in, size - sizeof in);
    }
    if (vring_valid(&ring)) {
        vring_start(&ring);
        ring.next_avail = ring.next_used = in.next;
        ringenv.fail_one = in.fail_one < 100 ? 0 : in.fail_one;
        while (is_away(err = vring_map(&ring))) {
            CHECK(ringenv.pins == 0);
        }
        if (err == HV_OK) {
            vring_notify(&ring, in.heads & 1);
            for (unsigned i = 0; i < in.heads % 16u && one_head(!(in.what & WHAT_RANGES)); i++) {}
        }
        vring_unmap(&ring);
    }
    ringenv_stop();
    return 0;
}

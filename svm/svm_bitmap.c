/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Permission maps of a VM: every port exits, and every MSR that common code does not leave to the guest
 * ("I/O Intercepts", "MSR Intercepts").
 */
#include "kernel/lib/string.h"
#include "mm/slab.h"
#include "svm/svm.h"

#define IOPM_BYTES 0x3000u
#define MSRPM_BYTES 0x2000u
#define MSRPM_RANGE_MSRS 0x2000u
#define MSRPM_RANGE_BYTES 0x800u

/* The bit that lets reads exit, the one for writes follows; false: always exits. */
static bool msrpm_bit(uint32_t index, uint32_t *bit)
{
    static const uint32_t bases[] = {0x00000000, 0xc0000000, 0xc0010000};

    for (uint32_t i = 0; i < ARRAY_SIZE(bases); i++) {
        if (index - bases[i] < MSRPM_RANGE_MSRS) {
            *bit = i * MSRPM_RANGE_BYTES * 8 + (index - bases[i]) * 2;
            return true;
        }
    }
    return false;
}

enum hv_err svm_bitmap_create(struct svm_vm *s, uint32_t owner)
{
    s->iopm = kmalloc(IOPM_BYTES, owner);
    s->msrpm = kmalloc(MSRPM_BYTES, owner);
    if (s->iopm == NULL || s->msrpm == NULL) {
        return HV_ENOMEM;
    }
    memset(s->iopm, 0xff, IOPM_BYTES);
    memset(s->msrpm, 0xff, MSRPM_BYTES);
    return HV_OK;
}

void svm_bitmap_destroy(struct svm_vm *s)
{
    kfree(s->iopm);
    kfree(s->msrpm);
}

void svm_direct_msr(struct vm *vm, uint32_t index)
{
    struct svm_vm *s = vm->vendor;
    uint32_t bit;

    if (msrpm_bit(index, &bit)) {
        s->msrpm[bit / 8] &= (uint8_t) ~(3u << bit % 8);
    }
}

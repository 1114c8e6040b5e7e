/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Permission maps of a VM: every port exits, and every MSR that common code does not leave to the guest
 * ("I/O-Bitmap Addresses", "MSR-Bitmap Address").
 */
#include "kernel/lib/bitmap.h"
#include "kernel/lib/string.h"
#include "mm/slab.h"
#include "vmx/vmx.h"

#define IO_MAP_BYTES (2 * PAGE_SIZE)
#define MSR_MAP_BYTES PAGE_SIZE
/* Four kilobyte-sized parts: reads of low and high MSRs, writes of both. */
#define PART_BITS 0x2000u
#define HIGH_MSRS 0xc0000000u
#define WRITES (2 * PART_BITS)

enum hv_err vmx_bitmap_create(struct vmx_vm *m, uint32_t owner)
{
    m->io_map = kmalloc(IO_MAP_BYTES, owner);
    m->msr_map = kmalloc(MSR_MAP_BYTES, owner);
    if (m->io_map == NULL || m->msr_map == NULL) {
        return HV_ENOMEM;
    }
    memset(m->io_map, 0xff, IO_MAP_BYTES);
    memset(m->msr_map, 0xff, MSR_MAP_BYTES);
    return HV_OK;
}

void vmx_bitmap_destroy(struct vmx_vm *m)
{
    kfree(m->io_map);
    kfree(m->msr_map);
}

void vmx_direct_msr(struct vm *vm, uint32_t index)
{
    struct vmx_vm *m = vm->vendor;
    unsigned bit;

    if (index < PART_BITS) {
        bit = index;
    } else if (index - HIGH_MSRS < PART_BITS) {
        bit = PART_BITS + (index - HIGH_MSRS);
    } else {
        return; /* always exits */
    }
    bitmap_clear(m->msr_map, bit);
    bitmap_clear(m->msr_map, WRITES + bit);
}

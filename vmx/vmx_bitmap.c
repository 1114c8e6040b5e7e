/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Permission maps of a VM: every port and every MSR exits unless listed here. Direct are only MSRs
 * that the VMCS holds for the guest alone, or that are the guest's while its vCPU is loaded
 * ("I/O-Bitmap Addresses", "MSR-Bitmap Address").
 */
#include "arch/x86_64/msr.h"
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

static const uint32_t direct_msrs[] = {
    MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_STAR,         MSR_LSTAR,
    MSR_CSTAR,   MSR_SYSCALL_MASK, MSR_SYSENTER_CS,    MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
};

static void assign_bit(uint64_t *map, unsigned bit, bool on)
{
    if (on) {
        bitmap_set(map, bit);
    } else {
        bitmap_clear(map, bit);
    }
}

static void set_msr(struct vmx_vm *m, uint32_t index, bool trap_read, bool trap_write)
{
    unsigned bit;

    if (index < PART_BITS) {
        bit = index;
    } else if (index - HIGH_MSRS < PART_BITS) {
        bit = PART_BITS + (index - HIGH_MSRS);
    } else {
        return; /* always exits */
    }
    assign_bit(m->msr_map, bit, trap_read);
    assign_bit(m->msr_map, WRITES + bit, trap_write);
}

enum hv_err vmx_bitmap_create(struct vmx_vm *m, uint32_t owner)
{
    m->io_map = kmalloc(IO_MAP_BYTES, owner);
    m->msr_map = kmalloc(MSR_MAP_BYTES, owner);
    if (m->io_map == NULL || m->msr_map == NULL) {
        return HV_ENOMEM;
    }
    memset(m->io_map, 0xff, IO_MAP_BYTES);
    memset(m->msr_map, 0xff, MSR_MAP_BYTES);
    for (size_t i = 0; i < ARRAY_SIZE(direct_msrs); i++) {
        set_msr(m, direct_msrs[i], false, false);
    }
    return HV_OK;
}

void vmx_bitmap_destroy(struct vmx_vm *m)
{
    kfree(m->io_map);
    kfree(m->msr_map);
}

void vmx_trap_port(struct vm *vm, uint16_t port, bool trap)
{
    struct vmx_vm *m = vm->vendor;

    assign_bit(m->io_map, port, trap);
}

void vmx_trap_msr(struct vm *vm, uint32_t index, bool trap_read, bool trap_write)
{
    set_msr(vm->vendor, index, trap_read, trap_write);
}

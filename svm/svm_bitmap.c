/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Permission maps of a VM: every port and every MSR exits unless listed here. Direct are only MSRs
 * that the VMCB holds for the guest alone ("I/O Intercepts", "MSR Intercepts").
 */
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"
#include "mm/slab.h"
#include "svm/svm.h"

#define IOPM_BYTES 0x3000u
#define MSRPM_BYTES 0x2000u
#define MSRPM_RANGE_MSRS 0x2000u
#define MSRPM_RANGE_BYTES 0x800u

static const uint32_t direct_msrs[] = {
    MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_STAR,         MSR_LSTAR,
    MSR_CSTAR,   MSR_SYSCALL_MASK, MSR_SYSENTER_CS,    MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
};

/* Bit number of the read permission, the write permission follows; false: always exits. */
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

static void set_bit(uint8_t *map, uint32_t bit, bool on)
{
    uint8_t mask = (uint8_t)(1u << (bit % 8));

    if (on) {
        map[bit / 8] |= mask;
    } else {
        map[bit / 8] &= (uint8_t)~mask;
    }
}

static void set_msr(struct svm_vm *s, uint32_t index, bool trap_read, bool trap_write)
{
    uint32_t bit;

    if (msrpm_bit(index, &bit)) {
        set_bit(s->msrpm, bit, trap_read);
        set_bit(s->msrpm, bit + 1, trap_write);
    }
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
    for (size_t i = 0; i < ARRAY_SIZE(direct_msrs); i++) {
        set_msr(s, direct_msrs[i], false, false);
    }
    return HV_OK;
}

void svm_bitmap_destroy(struct svm_vm *s)
{
    kfree(s->iopm);
    kfree(s->msrpm);
}

static void maps_changed(struct vm *vm)
{
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        if (vm->vcpus[i] != NULL && vm->vcpus[i]->vendor != NULL) {
            svm_dirty(svm_vmcb(vm->vcpus[i]), CLEAN_PERM_MAPS);
        }
    }
}

void svm_trap_port(struct vm *vm, uint16_t port, bool trap)
{
    struct svm_vm *s = vm->vendor;

    set_bit(s->iopm, port, trap);
    maps_changed(vm);
}

void svm_trap_msr(struct vm *vm, uint32_t index, bool trap_read, bool trap_write)
{
    set_msr(vm->vendor, index, trap_read, trap_write);
    maps_changed(vm);
}

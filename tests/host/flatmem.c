/* SPDX-License-Identifier: BSD-2-Clause */
/* See flatmem.h. */
#include "tests/host/flatmem.h"

#include <stdlib.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/guestmem.h"
#include "mm/env.h"

struct flatmem flat;

unsigned env_cpu(void)
{
    return 0;
}

unsigned env_nr_cpus(void)
{
    return 1;
}

enum hv_err guestmem_pin_by(struct vcpu *u, gpa_t gpa, bool write, void **page)
{
    (void)u, (void)write;
    if (gpa.a >= flat.size) {
        return HV_ENOENT;
    }
    flat.pins++;
    *page = flat.bytes + (gpa.a & PAGE_MASK);
    return HV_OK;
}

void guestmem_unpin(struct vm *vm, gpa_t gpa, void *page)
{
    (void)vm, (void)gpa, (void)page;
    flat.pins--;
}

bool vlapic_covers(const struct vlapic *a, gpa_t gpa)
{
    (void)a, (void)gpa;
    return false;
}

enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value)
{
    (void)a, (void)offset, (void)size, (void)write, (void)value;
    abort();
}

enum hv_err bus_mmio(struct bus *b, struct vcpu *cpu, gpa_t gpa, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b, (void)cpu, (void)gpa, (void)size;
    *value = write ? *value : UINT64_MAX;
    return HV_OK;
}

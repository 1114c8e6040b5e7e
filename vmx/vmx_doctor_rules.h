/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the VMX entry doctor share: the state under check and small predicates. Private
 * to vmx_doctor.c and vmx_doctor_guest.c.
 */
#pragma once

#include "vmx/vmcs.h"
#include "vmx/vmx_doctor.h"

#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

/* Activity states */
#define ACTIVITY_ACTIVE 0u
#define ACTIVITY_HLT 1u
#define ACTIVITY_SHUTDOWN 2u
#define ACTIVITY_WAIT_SIPI 3u

struct vmx_checks {
    struct doctor doctor;
    const struct vmx_caps *caps;
    vmx_doctor_read_t read;
    /* What many rules ask for. */
    uint64_t proc, proc2, exit, entry, event, cr0, cr4, rflags;
    bool unrestricted, ia32e, virtual_8086;
};

static inline uint64_t get(struct vmx_checks *c, uint32_t field)
{
    return c->read(c->doctor.arg, field);
}

static inline void expect(struct vmx_checks *c, bool holds, const char *field, uint64_t value,
                          const char *rule, const char *section)
{
    doctor_expect(&c->doctor, holds, field, value, rule, section);
}

static inline bool physical(const struct vmx_checks *c, uint64_t address)
{
    return address >> c->caps->phys_bits == 0;
}

static inline bool permitted(const struct vmx_allowed *a, uint64_t value)
{
    return (value & a->must) == a->must && (value & ~a->may) == 0;
}

/* vmx_doctor_guest.c: "Checks on the Guest State Area". */
void vmx_doctor_guest(struct vmx_checks *c);

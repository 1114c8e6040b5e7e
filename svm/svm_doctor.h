/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The entry doctor: the manual's conditions for VMRUN ("Canonicalization and Consistency Checks"),
 * checked in software. Pure but for the reporting callback; callers: svm.c, host tests.
 */
#pragma once

#include "kernel/vm/doctor.h"
#include "svm/vmcb.h"

struct svm_limits {
    unsigned phys_bits;
    uint32_t nr_asids;     /* as CPUID counts them, 0 included */
    uint64_t cr4_reserved; /* bits that must be zero */
    uint64_t efer_reserved;
};

/* Number of violations in `m`. */
unsigned svm_doctor_check(const struct vmcb *m, const struct svm_limits *limits,
                          doctor_report_t report, void *arg);

/* What experiments may overwrite: names, offsets in the VMCB, bytes. */
#define SVM_DOCTOR_FIELDS 14
extern const struct doctor_field svm_doctor_fields[SVM_DOCTOR_FIELDS];

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's local APIC: xAPIC page at its base and x2APIC MSRs 0x800-0x8ff. Register state belongs
 * to the vCPU's thread; the request register (IRR) and what other processors set are atomic words.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vcpu;
struct vlapic;

/* Highest deliverable vector (above the processor priority), or -1. Owner thread. Cheap when idle. */
int vlapic_pending(struct vlapic *a);
/* The vector was injected: IRR -> ISR. */
void vlapic_accept(struct vlapic *a, unsigned vector);
/* Priority below which nothing is deliverable, to keep CR8 (REG_TPR) in step. */
uint8_t vlapic_tpr(const struct vlapic *a);
void vlapic_set_tpr(struct vlapic *a, uint8_t tpr);

/* Deliver a fixed interrupt from anywhere (any context): sets IRR and requests the vCPU. */
void vlapic_raise(struct vlapic *a, unsigned vector, bool level);

/* MSR face (x2APIC 0x800-0x8ff, IA32_APIC_BASE, TSC deadline 0x6e0); HV_EPERM: #GP. */
enum hv_err vlapic_read_msr(struct vlapic *a, uint32_t index, uint64_t *out) __must_check;
enum hv_err vlapic_write_msr(struct vlapic *a, uint32_t index, uint64_t value) __must_check;
/* MMIO face: true if gpa lies in the enabled xAPIC page. */
bool vlapic_covers(const struct vlapic *a, gpa_t gpa);
enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value) __must_check;

/* Interrupt message from the IOAPIC or an ICR: resolves the destination among the VM's vCPUs.
 * `delivery` as in the ICR (0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 6 SIPI, 7 ExtINT). */
void vlapic_message(struct vm *vm, uint32_t dest, bool logical, unsigned delivery, unsigned vector,
                    bool level);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's local APIC: xAPIC page at its base and x2APIC MSRs 0x800-0x8ff. Register state belongs
 * to the vCPU's thread; the request register (IRR) and what other processors set are atomic words.
 * Manual: Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)".
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vcpu;
struct vlapic;

/* Highest deliverable vector (above the processor priority), or -1. Owner thread. Cheap when idle.
 * Also lets an expired timer raise its vector, so it is to be called whenever VCPU_REQ_EVENT is
 * seen, and before a vCPU halts. */
int vlapic_pending(struct vlapic *a);
/* Highest requested vector that only the task priority (CR8) holds back, or -1: while there is one,
 * lowering CR8 must be noticed. Owner thread. */
int vlapic_blocked(struct vlapic *a);
/* The vector was injected: IRR -> ISR. */
void vlapic_accept(struct vlapic *a, unsigned vector);
/* The task-priority register, eight bits. The upper four are CR8: the guest may have changed them
 * without an exit, so this file reads and writes REG_TPR of the backend (the value of CR8, 0 to 15)
 * itself; nobody else needs to keep them in step. */
uint8_t vlapic_tpr(struct vlapic *a);
void vlapic_set_tpr(struct vlapic *a, uint8_t tpr);

/* True if LINT0 passes the 8259s' output on to the processor as it is (ExtINT), or the APIC is off
 * altogether: the vector then comes from vpic_acknowledge. Owner thread. */
bool vlapic_takes_extint(const struct vlapic *a);
/* That output rose: every LINT0 of the VM acts on it. Any context. */
void vlapic_lint0_rose(struct vm *vm);
/* What firmware leaves behind on the boot processor: APIC on, LINT0 ExtINT, LINT1 NMI ("virtual wire
 * mode" of the MultiProcessor Specification). After vlapic_reset. */
void vlapic_virtual_wire(struct vcpu *v);

/* Deliver a fixed interrupt from anywhere (any context): sets IRR and requests the vCPU. */
void vlapic_raise(struct vlapic *a, unsigned vector, bool level);

/* INIT received: all registers but APIC ID and IA32_APIC_BASE go back to reset state. Owner thread.
 * (vlapic_reset of kernel/devices/devices.h is power-on.) */
void vlapic_init_signal(struct vcpu *v);

/* MSR face (x2APIC 0x800-0x8ff, IA32_APIC_BASE, TSC deadline 0x6e0); HV_EPERM: #GP. */
enum hv_err vlapic_read_msr(struct vlapic *a, uint32_t index, uint64_t *out) __must_check;
enum hv_err vlapic_write_msr(struct vlapic *a, uint32_t index, uint64_t value) __must_check;
/* The guest's TSC was moved: a TSC deadline is another moment now. */
void vlapic_tsc_moved(struct vlapic *a);
/* Not switched off by IA32_APIC_BASE. */
bool vlapic_is_on(const struct vlapic *a);
/* MMIO face: true if gpa lies in the enabled xAPIC page. */
bool vlapic_covers(const struct vlapic *a, gpa_t gpa);
enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value) __must_check;

/* Interrupt message from the IOAPIC or an ICR: resolves the destination among the VM's vCPUs.
 * `delivery` as in the ICR (0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 6 SIPI, 7 ExtINT). */
void vlapic_message(struct vm *vm, uint32_t dest, bool logical, unsigned delivery, unsigned vector,
                    bool level);

/* The destination of a message that has eight bits for it: 0xff says "all". */
static inline uint32_t vlapic_wide_dest(uint32_t dest)
{
    return dest == 0xff ? UINT32_MAX : dest;
}

/* Input clock of the timer in Hz, before the divider: what CPUID 0x40000010 and the VMware port call
 * the bus frequency. */
uint64_t vlapic_bus_hz(void);

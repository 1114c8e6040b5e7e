/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM without a hypervisor, for tests of device models and the emulator: registers in arrays, requests
 * and stops recorded, timers that remember their deadline, 1 GHz of TSC. Memory comes from the C
 * library. Tests set the fields and look at them.
 */
#pragma once

#include "kernel/vm/vm.h"

#define FAKE_VCPUS 4
#define FAKE_TIMERS 16

struct fakevm {
    struct vm vm;
    struct vcpu vcpu[FAKE_VCPUS];
    uint64_t regs[FAKE_VCPUS][NR_HV_REGS];
    struct segment segs[FAKE_VCPUS][NR_SEGS];
    uint64_t now_ns;   /* what clock_now_ns says */
    unsigned requests; /* calls of vcpu_request */
    unsigned stops;    /* calls of vm_stop_request; the last one is in vm.stop_* */
    unsigned log_lines;
    bool idle;                         /* while time passes in fakevm_run no vCPU runs */
    struct timer *timers[FAKE_TIMERS]; /* that were ever armed */
    uint64_t due_ns[FAKE_TIMERS];      /* when they fire at the earliest, by now_ns */
    unsigned skipped;                  /* bytes that vcpu_advance was told last */
    bool blocked[2];                   /* by enum block, of vCPU 0 */
    struct {
        unsigned count;
        uint8_t vector;
        bool has_error;
        uint32_t error;
    } exception;
};
extern struct fakevm fake;

/* Start over, with `nr` vCPUs; no devices. */
void fakevm_reset(unsigned nr);
/* Let `ns` pass in steps; at each the armed timers fire, early or late as they may. */
void fakevm_run(uint64_t ns, uint64_t step);
/* Let `ns` pass; timers fire in order, a little late. Returns how many did. */
uint64_t fakevm_pass(uint64_t ns);

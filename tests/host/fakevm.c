/* SPDX-License-Identifier: BSD-2-Clause */
/* See fakevm.h. */
#include "tests/host/fakevm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/clock.h"
#include "kernel/log.h"
#include "mm/slab.h"

struct fakevm fake;

static unsigned number(const struct vcpu *v)
{
    return (unsigned)(v - fake.vcpu);
}

static uint64_t get_reg(struct vcpu *v, enum hv_reg reg)
{
    return fake.regs[number(v)][reg];
}

static void set_reg(struct vcpu *v, enum hv_reg reg, uint64_t value)
{
    fake.regs[number(v)][reg] = value;
}

static void get_seg(struct vcpu *v, enum seg_reg seg, struct segment *out)
{
    *out = fake.segs[number(v)][seg];
}

static const struct hv_backend fake_backend = {
    .name = "fake", .get_reg = get_reg, .set_reg = set_reg, .get_seg = get_seg};
const struct hv_backend *hv = &fake_backend;

void fakevm_reset(unsigned nr)
{
    memset(&fake, 0, sizeof fake);
    fake.vm.id = 1;
    fake.vm.nr_vcpus = nr;
    strcpy(fake.vm.config.name, "fake");
    for (unsigned i = 0; i < nr; i++) {
        fake.vcpu[i].vm = &fake.vm;
        fake.vcpu[i].id = i;
        fake.vm.vcpus[i] = &fake.vcpu[i];
    }
    fake.now_ns = 1000000000;
}

void *kmalloc(size_t size, uint32_t owner)
{
    (void)owner;
    return calloc(1, size);
}

void kfree(void *ptr)
{
    free(ptr);
}

void vcpu_request(struct vcpu *v, uint32_t bits)
{
    v->request |= bits;
    fake.requests++;
}

uint64_t vcpu_guest_tsc(const struct vcpu *v)
{
    return rdtsc() + v->guest_tsc_offset;
}

void vcpu_advance(struct vcpu *v, unsigned len)
{
    v->rip += len;
    fake.skipped = len;
}

void vcpu_inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error)
{
    (void)v;
    fake.exception.count++;
    fake.exception.vector = vector;
    fake.exception.has_error = has_error;
    fake.exception.error = error;
}

void vm_stop_request(struct vm *vm, enum stop_reason reason, uint32_t code, const char *fmt, ...)
{
    va_list ap;

    fake.stops++;
    vm->stop_reason = reason;
    vm->stop_code = code;
    va_start(ap, fmt);
    vsnprintf(vm->stop_text, sizeof vm->stop_text, fmt, ap);
    va_end(ap);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
    fake.log_lines++;
}

uint64_t clock_now_ns(void)
{
    return fake.now_ns;
}

uint64_t clock_tsc_hz(void)
{
    return 1000000000;
}

void timer_init(struct timer *t, void (*fn)(struct timer *t))
{
    *t = (struct timer){.fn = fn};
}

void timer_arm(struct timer *t, uint64_t deadline_tsc)
{
    t->deadline_tsc = deadline_tsc;
    t->armed = true;
}

void timer_cancel(struct timer *t)
{
    t->armed = false;
}

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

static void set_seg(struct vcpu *v, enum seg_reg seg, const struct segment *in)
{
    fake.segs[number(v)][seg] = *in;
}

static bool advance(struct vcpu *v, uint64_t len)
{
    v->rip += len;
    fake.blocked[BLOCK_SHADOW] = false;
    return false;
}

static void clear_shadow(struct vcpu *v)
{
    (void)v;
    fake.blocked[BLOCK_SHADOW] = false;
}

static void block(struct vcpu *v, enum block what, bool on)
{
    (void)v;
    fake.blocked[what] = on;
}

static const struct hv_emulation fake_emulation = {.block = block};
static const struct hv_backend fake_backend = {
    .name = "fake",
    .get_reg = get_reg,
    .set_reg = set_reg,
    .get_seg = get_seg,
    .set_seg = set_seg,
    .advance = advance,
    .clear_shadow = clear_shadow,
    .emulation = &fake_emulation,
};
const struct hv_backend *hv = &fake_backend;

void fakevm_reset(unsigned nr)
{
    memset(&fake, 0, sizeof fake);
    fake.vm.state = VM_RUNNING;
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

unsigned vcpu_cpl(struct vcpu *v)
{
    return fake.segs[number(v)][SEG_SS].attr >> 5 & 3;
}

void vcpu_advance(struct vcpu *v, unsigned len)
{
    (void)advance(v, len);
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

uint64_t clock_ns_to_tsc(uint64_t ns)
{
    return ns;
}

/* The processor's own clock has gone on a little since the deadline was computed. */
#define LATE_NS 20000u

void timer_arm(struct timer *t, uint64_t deadline_tsc)
{
    uint64_t tsc = rdtsc(), delta = deadline_tsc > tsc ? deadline_tsc - tsc : 0;
    uint64_t due = fake.now_ns + MIN(delta, UINT64_MAX / 4) + LATE_NS;

    t->deadline_tsc = deadline_tsc;
    t->armed = true;
    for (unsigned i = 0; i < FAKE_TIMERS; i++) {
        if (fake.timers[i] == t || fake.timers[i] == NULL) {
            fake.timers[i] = t;
            fake.due_ns[i] = due;
            return;
        }
    }
    abort();
}

void timer_cancel(struct timer *t)
{
    t->armed = false;
}

void fakevm_run(uint64_t ns, uint64_t step)
{
    for (uint64_t end = fake.now_ns + ns; fake.now_ns < end;) {
        fake.now_ns += step;
        fake.vcpu[0].exit_tsc += !fake.idle;
        for (unsigned i = 0; i < FAKE_TIMERS && fake.timers[i] != NULL; i++) {
            if (fake.timers[i]->armed) {
                fake.timers[i]->armed = false;
                fake.timers[i]->fn(fake.timers[i]);
            }
        }
    }
}

/* The armed timer that is due first, at `end` at the latest; NULL: none. */
static struct timer *first_due(uint64_t end, uint64_t *due)
{
    struct timer *first = NULL;

    *due = end;
    for (unsigned i = 0; i < FAKE_TIMERS && fake.timers[i] != NULL; i++) {
        if (fake.timers[i]->armed && fake.due_ns[i] <= *due) {
            first = fake.timers[i];
            *due = fake.due_ns[i];
        }
    }
    return first;
}

uint64_t fakevm_pass(uint64_t ns)
{
    uint64_t end = fake.now_ns + ns, fired = 0, due;
    struct timer *t;

    while ((t = first_due(end, &due)) != NULL) {
        fake.now_ns = MAX(fake.now_ns, due);
        t->armed = false;
        t->fn(t);
        fired++;
    }
    fake.now_ns = end;
    return fired;
}

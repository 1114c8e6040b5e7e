/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hardware task switches in software (kernel/emul/task.c), in a machine of 1 MiB without paging: every way
 * to another task, every check with its fault in the right task, waits at every access to memory, and TSSs of
 * noise. What a processor makes of them is compared in the boot test task_switch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/emul/emul.h"
#include "kernel/emul/segment.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "tests/host/fakevm.h"
#include "tests/host/flatmem.h"

#define MEMORY_BYTES (1u << 20)
#define GDT 0x1000u
#define LDT 0x2000u
#define OLD_TSS 0x3fc0u /* both across pages */
#define NEW_TSS 0x5fd0u
#define STACK 0x8000u

#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_OLD 0x18
#define SEL_NEW 0x20
#define SEL_LDT 0x28
#define SEL_USER_CODE 0x33
#define SEL_USER_DATA 0x3b
#define SEL_AWAY_DATA 0x40 /* not present */
#define SEL_CONFORMING 0x48
#define SEL_BEYOND 0xff8
#define GDT_ENTRIES 10

static uint8_t *const memory = flat.bytes;
static uint8_t memory_before[MEMORY_BYTES];
static struct fakevm fake_before;
static struct vcpu *const v = &fake.vcpu[0];
static int fail_in; /* accesses until one waits; negative: none does */
static unsigned absent_page;
static bool refuse_cr3;
static struct rng rng;

enum exit_action insn_single_step(struct vcpu *cpu)
{
    (void)cpu;
    abort();
}

const uint8_t *vcpu_code(struct vcpu *cpu, unsigned len)
{
    (void)cpu, (void)len;
    abort();
}

enum hv_err cr_write(struct vcpu *cpu, unsigned cr, uint64_t value)
{
    assert_int_equal(cr, 3);
    if (fail_in >= 0 && fail_in-- == 0) {
        return HV_ENOMEM;
    }
    if (refuse_cr3) {
        return HV_EPERM;
    }
    hv->set_reg(cpu, REG_CR3, value);
    return HV_OK;
}

enum hv_err guestmem_translate(struct vcpu *cpu, gva_t gva, uint32_t access, bool fast, gpa_t *out)
{
    assert_false(fast);
    assert_true(gva.a <= UINT32_MAX);
    if (fail_in >= 0 && fail_in-- == 0) {
        return HV_EAGAIN;
    }
    if (absent_page != 0 && gva.a / PAGE_SIZE == absent_page) {
        vcpu_inject_exception(cpu, EXC_PF, true, access & GVA_WRITE ? 2 : 0);
        return HV_EFAULT;
    }
    *out = GPA(gva.a);
    return HV_OK;
}

enum hv_err guestmem_fetch(struct vcpu *cpu, bool fast, uint8_t bytes[15], unsigned *got)
{
    (void)cpu, (void)fast, (void)bytes, (void)got;
    abort();
}

enum hv_err bus_port(struct bus *b, struct vcpu *cpu, uint64_t port, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b, (void)cpu, (void)port, (void)size, (void)write, (void)value;
    abort();
}

/* --- the machine --- */

static uint32_t peek(unsigned at, unsigned bytes)
{
    uint32_t value = 0;

    memcpy(&value, memory + at, bytes);
    return value;
}

static void poke(unsigned at, uint32_t value, unsigned bytes)
{
    memcpy(memory + at, &value, bytes);
}

static void describe(unsigned table, unsigned selector, uint32_t base, uint32_t limit,
                     uint16_t attr)
{
    uint64_t raw = (uint64_t)(base >> 24) << 56 | (uint64_t)(attr & 0xf00) << 44 |
                   (uint64_t)(limit & 0xf0000) << 32 | (uint64_t)(attr & 0xff) << 40 |
                   (uint64_t)(base & 0xffffff) << 16 | (limit & 0xffff);

    memcpy(memory + table + (selector & ~7u), &raw, 8);
}

static uint8_t type_of(unsigned selector)
{
    return memory[GDT + (selector & ~7u) + 5];
}

/* Fields of a 32-bit TSS by number. */
enum { F_CR3 = 7, F_IP, F_FLAGS, F_GPR, F_SEG = F_GPR + 8, F_LDT = F_SEG + 6, F_TRAP };

static void set_field(unsigned field, uint32_t value)
{
    poke(NEW_TSS + 4 * field, value, 4);
}

static void make_state(void)
{
    static const uint16_t selectors[] = {SEL_DATA, SEL_CODE, SEL_DATA, SEL_DATA, 0, 0};
    const struct segment code = {.selector = SEL_CODE, .attr = 0xc9b, .limit = UINT32_MAX};
    const struct segment data = {.selector = SEL_DATA, .attr = 0xc93, .limit = UINT32_MAX};

    for (unsigned i = 0; i < 8; i++) {
        v->gpr[i] = 0x1000 + i;
        set_field(F_GPR + i, 0xabcd0000 + i);
    }
    set_field(F_GPR + GPR_RSP, STACK);
    for (unsigned i = 0; i < 6; i++) {
        fake.segs[0][i] = i == SEG_CS ? code : data;
        set_field(F_SEG + i, selectors[i]);
    }
    set_field(F_CR3, 0x7000);
    set_field(F_IP, 0x12345);
    set_field(F_FLAGS, 0x246);
    set_field(F_LDT, SEL_LDT);
    fake.segs[0][SEG_TR] =
        (struct segment){.selector = SEL_OLD, .attr = 0x8b, .limit = 103, .base = OLD_TSS};
    fake.segs[0][SEG_GDTR] = (struct segment){.base = GDT, .limit = 8 * GDT_ENTRIES - 1};
    fake.regs[0][REG_CR0] = CR0_PE | CR0_PG;
    fake.regs[0][REG_CR3] = 0x6000;
    fake.regs[0][REG_DR7] = 0x7ff;
    fake.regs[0][REG_DR6] = 0xffff0ff0;
    fake.regs[0][REG_RSP] = 0x7777;
    fake.regs[0][REG_RFLAGS] = 0x4202;
    v->rip = 0x9000;
}

static void fresh(void)
{
    flat.size = MEMORY_BYTES;
    memset(memory, 0, MEMORY_BYTES);
    fakevm_reset(1);
    describe(GDT, SEL_CODE, 0, 0xfffff, 0xc9b);
    describe(GDT, SEL_DATA, 0, 0xfffff, 0xc92);
    describe(GDT, SEL_OLD, OLD_TSS, 103, 0x8b);
    describe(GDT, SEL_NEW, NEW_TSS, 103, 0x89);
    describe(GDT, SEL_LDT, LDT, 15, 0x82);
    describe(GDT, SEL_USER_CODE, 0, 0xfffff, 0xcfb);
    describe(GDT, SEL_USER_DATA, 0, 0xfffff, 0xcf3);
    describe(GDT, SEL_AWAY_DATA, 0, 0xfffff, 0xc13);
    describe(GDT, SEL_CONFORMING, 0, 0xfffff, 0xc9f);
    describe(LDT, 8, 0x40000, 0xff, 0x493);
    make_state();
    fail_in = -1;
    absent_page = 0;
    refuse_cr3 = false;
}

static enum hv_err go(enum task_reason reason, bool by_insn, unsigned len)
{
    const struct exit_task how = {.selector = SEL_NEW,
                                  .reason = reason,
                                  .by_insn = by_insn,
                                  .has_error = !by_insn && v->interrupted.has_error,
                                  .error = v->interrupted.error};

    memcpy(memory_before, memory, MEMORY_BYTES);
    fake_before = fake;
    enum hv_err err = emul_task_switch(v, &how, len);
    assert_int_equal(flat.pins, 0);
    return err;
}

/* Nothing but an exception. */
static void assert_untouched(void)
{
    fake.exception = fake_before.exception;
    assert_memory_equal(memory, memory_before, MEMORY_BYTES);
    assert_memory_equal(&fake, &fake_before, sizeof fake);
}

static void assert_exception(uint8_t vector, uint32_t error)
{
    assert_int_equal(fake.exception.count, 1);
    assert_int_equal(fake.exception.vector, vector);
    assert_true(fake.exception.has_error);
    assert_int_equal(fake.exception.error, error);
}

static void assert_new_runs(uint32_t flags)
{
    assert_int_equal(v->rip, 0x12345);
    assert_int_equal(fake.regs[0][REG_RFLAGS], flags);
    assert_int_equal(fake.regs[0][REG_CR3], 0x7000);
    assert_int_equal(fake.regs[0][REG_CR0], CR0_PE | CR0_PG | CR0_TS);
    assert_int_equal(fake.regs[0][REG_DR7], 0x7ff & ~0x155);
    assert_int_equal(fake.segs[0][SEG_TR].selector, SEL_NEW);
    assert_int_equal(fake.segs[0][SEG_TR].attr, 0x8b);
    assert_int_equal(fake.segs[0][SEG_TR].base, NEW_TSS);
    assert_int_equal(type_of(SEL_NEW), 0x8b);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(i == GPR_RSP || v->gpr[i] == 0xabcd0000 + i);
    }
}

static void assert_old_saved(uint32_t ip, uint32_t flags)
{
    assert_int_equal(peek(OLD_TSS + 4 * F_IP, 4), ip);
    assert_int_equal(peek(OLD_TSS + 4 * F_FLAGS, 4), flags);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(peek(OLD_TSS + 4 * (F_GPR + i), 4), i == GPR_RSP ? 0x7777 : 0x1000 + i);
    }
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(peek(OLD_TSS + 4 * (F_SEG + i), 4), i == SEG_CS ? SEL_CODE : SEL_DATA);
    }
}

/* --- ways --- */

static void test_jump(void **state)
{
    (void)state;
    fresh();
    set_field(F_SEG + SEG_FS, 8 | SELECTOR_LOCAL);
    assert_int_equal(go(TASK_JUMP, true, 7), HV_OK);
    assert_int_equal(fake.exception.count, 0);
    assert_new_runs(0x246);
    assert_old_saved(0x9007, 0x4202);
    assert_int_equal(fake.regs[0][REG_RSP], STACK);
    assert_int_equal(type_of(SEL_OLD), 0x89);
    assert_int_equal(peek(NEW_TSS, 4), 0);
    assert_int_equal(fake.segs[0][SEG_LDTR].base, LDT);
    assert_int_equal(fake.segs[0][SEG_FS].base, 0x40000);
    assert_int_equal(fake.segs[0][SEG_GS].attr, 0);
    assert_int_equal(type_of(SEL_DATA), 0x93); /* accessed */
}

static void test_call_and_return(void **state)
{
    (void)state;
    fresh();
    assert_int_equal(go(TASK_CALL, true, 7), HV_OK);
    assert_new_runs(0x4246);
    assert_old_saved(0x9007, 0x4202);
    assert_int_equal(type_of(SEL_OLD), 0x8b);
    assert_int_equal(peek(NEW_TSS, 2), SEL_OLD);

    /* And back, from the other's point of view; the link is what the processor has read. */
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 103, 0x8b);
    fake.blocked[BLOCK_NMI] = true;
    assert_int_equal(go(TASK_IRET, true, 1), HV_OK);
    assert_new_runs(0x246);
    assert_old_saved(0x9001, 0x202);
    assert_int_equal(type_of(SEL_OLD), 0x89);
    assert_false(fake.blocked[BLOCK_NMI]);

    /* To itself. */
    fresh();
    fake.segs[0][SEG_TR] =
        (struct segment){.selector = SEL_NEW, .attr = 0x8b, .limit = 103, .base = NEW_TSS};
    describe(GDT, SEL_NEW, NEW_TSS, 103, 0x8b);
    assert_int_equal(go(TASK_IRET, true, 1), HV_OK);
    assert_int_equal(v->rip, 0x9001);
    assert_int_equal(v->gpr[GPR_RBX], 0x1003);
}

static void test_gate(void **state)
{
    (void)state;
    fresh();
    v->interrupted =
        (struct event){.type = EVENT_EXCEPTION, .vector = EXC_DF, .has_error = true, .error = 0x55};
    assert_int_equal(go(TASK_GATE, false, 0), HV_OK);
    assert_new_runs(0x4246);
    assert_old_saved(0x9000, 0x4202);
    assert_int_equal(fake.regs[0][REG_RSP], STACK - 4);
    assert_int_equal(peek(STACK - 4, 4), 0x55);
    assert_int_equal(v->interrupted.type, EVENT_NONE);
    assert_int_equal(fake.exception.count, 0);

    fresh();
    v->interrupted = (struct event){.type = EVENT_NMI, .vector = 2};
    assert_int_equal(go(TASK_GATE, false, 0), HV_OK);
    assert_int_equal(v->interrupted.type, EVENT_NONE);
    assert_true(fake.blocked[BLOCK_NMI]);
    assert_int_equal(fake.regs[0][REG_RSP], STACK);

    /* The stack has no room for the code. */
    fresh();
    set_field(F_GPR + GPR_RSP, 2);
    describe(GDT, SEL_DATA, 0, 0xfff, 0x493);
    v->interrupted =
        (struct event){.type = EVENT_EXCEPTION, .vector = EXC_GP, .has_error = true, .error = 1};
    assert_int_equal(go(TASK_GATE, false, 0), HV_EFAULT);
    assert_new_runs(0x4246);
    assert_exception(EXC_SS, 0);
}

static void test_narrow(void **state)
{
    (void)state;
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 43, 0x81);
    memset(memory + NEW_TSS, 0, 104);
    for (unsigned i = 0; i < 8; i++) {
        poke(NEW_TSS + 2 * (9 + i), 0x2000 + i, 2);
    }
    poke(NEW_TSS + 2 * 7, 0x4321, 2);
    poke(NEW_TSS + 2 * 8, 0x202, 2);
    poke(NEW_TSS + 2 * (17 + SEG_ES), SEL_DATA, 2);
    poke(NEW_TSS + 2 * (17 + SEG_CS), SEL_CODE, 2);
    poke(NEW_TSS + 2 * (17 + SEG_SS), SEL_DATA, 2);
    poke(NEW_TSS + 2 * (17 + SEG_DS), SEL_DATA, 2);
    poke(NEW_TSS + 2 * 21, SEL_LDT, 2);
    assert_int_equal(go(TASK_CALL, true, 7), HV_OK);
    assert_int_equal(v->rip, 0x4321);
    assert_int_equal(fake.regs[0][REG_RFLAGS], 0x4202);
    assert_int_equal(v->gpr[GPR_RDI], 0x2007);
    assert_int_equal(fake.regs[0][REG_RSP], 0x2004);
    assert_int_equal(fake.regs[0][REG_CR3], 0x6000);
    assert_int_equal(fake.segs[0][SEG_TR].attr, 0x83);
    assert_int_equal(fake.segs[0][SEG_LDTR].base, LDT);
    assert_int_equal(fake.segs[0][SEG_DS].selector, SEL_DATA);
    assert_int_equal(fake.segs[0][SEG_FS].attr, 0);

    /* And out of one. */
    fresh();
    fake.segs[0][SEG_TR].attr = 0x83;
    fake.segs[0][SEG_TR].limit = 43;
    assert_int_equal(go(TASK_JUMP, true, 7), HV_OK);
    assert_new_runs(0x246);
    assert_int_equal(peek(OLD_TSS + 2 * 7, 2), 0x9007);
    assert_int_equal(peek(OLD_TSS + 2 * 8, 2), 0x4202);
    assert_int_equal(peek(OLD_TSS + 2 * (9 + GPR_RDI), 2), 0x1007);
    assert_int_equal(peek(OLD_TSS + 2 * (17 + SEG_DS), 2), SEL_DATA);
    assert_int_equal(peek(OLD_TSS + 2 * 21, 2), 0);
}

static void test_virtual(void **state)
{
    (void)state;
    fresh();
    set_field(F_FLAGS, 0x20202);
    for (unsigned i = 0; i < 6; i++) {
        set_field(F_SEG + i, 0x1230 + i);
    }
    assert_int_equal(go(TASK_JUMP, true, 7), HV_EFAULT); /* IP is beyond 64 KiB */
    assert_exception(EXC_GP, 0);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(fake.segs[0][i].base, 0x12300 + 16 * i);
        assert_int_equal(fake.segs[0][i].limit, 0xffff);
        assert_int_equal(fake.segs[0][i].attr, 0xf3);
    }
    assert_int_equal(fake.regs[0][REG_RFLAGS], 0x20202);
}

static void test_user(void **state)
{
    (void)state;
    fresh();
    set_field(F_SEG + SEG_CS, SEL_USER_CODE);
    set_field(F_SEG + SEG_SS, SEL_USER_DATA);
    set_field(F_SEG + SEG_DS, SEL_USER_DATA);
    set_field(F_SEG + SEG_ES, 0);
    assert_int_equal(go(TASK_JUMP, true, 7), HV_OK);
    assert_new_runs(0x246);
    assert_int_equal(vcpu_cpl(v), 3);
    assert_int_equal(fake.segs[0][SEG_CS].selector, SEL_USER_CODE);

    fresh(); /* conforming code at another level */
    set_field(F_SEG + SEG_CS, SEL_CONFORMING | 3);
    set_field(F_SEG + SEG_SS, SEL_USER_DATA);
    set_field(F_SEG + SEG_DS, SEL_USER_DATA);
    set_field(F_SEG + SEG_ES, SEL_DATA);
    assert_int_equal(go(TASK_JUMP, true, 7), HV_EFAULT);
    assert_exception(EXC_TS, SEL_DATA);
    assert_int_equal(fake.segs[0][SEG_CS].selector, SEL_CONFORMING | 3);
}

static void test_trap(void **state)
{
    (void)state;
    fresh();
    set_field(F_TRAP, 1);
    assert_int_equal(go(TASK_JUMP, true, 7), HV_OK);
    assert_new_runs(0x246);
    assert_int_equal(fake.exception.count, 1);
    assert_int_equal(fake.exception.vector, EXC_DB);
    assert_int_equal(fake.regs[0][REG_DR6], 0xffff8ff0);
}

/* --- faults of the old task: nothing has happened --- */

static void refused(enum task_reason reason, uint8_t vector, uint32_t error)
{
    assert_int_equal(go(reason, true, 7), HV_EFAULT);
    assert_exception(vector, error);
    assert_untouched();
}

static void test_old_faults(void **state)
{
    (void)state;
    fresh();
    refused(TASK_IRET, EXC_TS, SEL_NEW); /* not busy */
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 103, 0x8b);
    refused(TASK_JUMP, EXC_GP, SEL_NEW);
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 103, 0x8b);
    refused(TASK_GATE, EXC_GP, SEL_NEW);
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 103, 0x09);
    refused(TASK_CALL, EXC_NP, SEL_NEW);
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 102, 0x89);
    refused(TASK_CALL, EXC_TS, SEL_NEW);
    fresh();
    describe(GDT, SEL_NEW, NEW_TSS, 42, 0x81);
    refused(TASK_CALL, EXC_TS, SEL_NEW);
    fresh();
    describe(GDT, SEL_NEW, 0, 0xfffff, 0xc9b); /* code */
    refused(TASK_CALL, EXC_GP, SEL_NEW);
    fresh();
    fake.segs[0][SEG_GDTR].limit = SEL_NEW + 6;
    refused(TASK_CALL, EXC_GP, SEL_NEW);
    fresh();
    fake.segs[0][SEG_TR].limit = 0x5e;
    refused(TASK_CALL, EXC_TS, SEL_OLD);
    fresh();
    refuse_cr3 = true;
    assert_int_equal(go(TASK_CALL, true, 7), HV_EFAULT);
    assert_exception(EXC_GP, 0);
    memcpy(memory + OLD_TSS, memory_before + OLD_TSS, 104); /* may have been saved */
    assert_untouched();
    fresh();
    fake.regs[0][REG_EFER] = EFER_LMA;
    refused(TASK_CALL, EXC_GP, SEL_NEW);

    static const unsigned pages[] = {OLD_TSS, OLD_TSS + 104, NEW_TSS, NEW_TSS + 104, GDT};
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        fresh();
        absent_page = pages[i] / PAGE_SIZE;
        assert_int_equal(go(TASK_JUMP, true, 7), HV_EFAULT);
        assert_int_equal(fake.exception.vector, EXC_PF);
        assert_untouched();
    }
    /* During delivery; and an exception stays to combine with, an interrupt does not. */
    for (unsigned i = 0; i < 2; i++) {
        enum event_type type = i ? EVENT_EXCEPTION : EVENT_INTERRUPT;

        fresh();
        describe(GDT, SEL_NEW, NEW_TSS, 103, 0x09);
        v->interrupted = (struct event){.type = type, .vector = 32};
        assert_int_equal(go(TASK_GATE, false, 0), HV_EFAULT);
        assert_exception(EXC_NP, SEL_NEW | 1);
        assert_int_equal(v->interrupted.type, i ? EVENT_EXCEPTION : EVENT_NONE);
    }
}

/* --- faults of the new task --- */

/* What VM entry asks of the segments of a guest that is not in virtual-8086 mode. */
static void assert_enterable(void)
{
    const struct segment *s = fake.segs[0];
    unsigned cpl = vcpu_cpl(v), cs = s[SEG_CS].attr;

    if (fake.regs[0][REG_RFLAGS] & RFLAGS_VM) {
        return;
    }
    assert_int_equal(cs & (SEG_P | SEG_S | SEG_CODE | SEG_ACCESSED), 0x99);
    assert_true(cs & SEG_CONFORMING ? SEG_DPL(cs) <= cpl : SEG_DPL(cs) == cpl);
    assert_int_equal(s[SEG_CS].selector & 3, cpl);
    assert_int_equal(s[SEG_SS].selector & 3, cpl);
    assert_true(!(s[SEG_SS].attr & SEG_P) || (s[SEG_SS].attr & 0x1b) == 0x13);
    for (enum seg_reg i = SEG_ES; i <= SEG_GS; i++) {
        if (i != SEG_CS && i != SEG_SS && (s[i].attr & SEG_P)) {
            assert_true((s[i].attr & (SEG_S | SEG_ACCESSED)) == (SEG_S | SEG_ACCESSED));
            assert_true(!(s[i].attr & SEG_CODE) || (s[i].attr & SEG_WRITABLE));
        }
    }
    assert_int_equal(s[SEG_TR].attr & 0x97, 0x83);
}

static void new_fault(unsigned field, uint32_t value, uint8_t vector, uint32_t error)
{
    fresh();
    set_field(field, value);
    assert_int_equal(go(TASK_CALL, true, 7), HV_EFAULT);
    assert_exception(vector, error);
    assert_new_runs(0x4246);
    assert_old_saved(0x9007, 0x4202);
    assert_int_equal(peek(NEW_TSS, 2), SEL_OLD);
    for (enum seg_reg i = SEG_ES; i <= SEG_GS; i++) {
        uint32_t selector = peek(NEW_TSS + 4 * (F_SEG + i), 2);

        assert_true(fake.segs[0][i].selector == selector || i == SEG_SS);
    }
    assert_enterable();
}

static void test_new_faults(void **state)
{
    (void)state;
    new_fault(F_LDT, SEL_BEYOND, EXC_TS, SEL_BEYOND);
    new_fault(F_LDT, SEL_DATA, EXC_TS, SEL_DATA);
    new_fault(F_LDT, SEL_LDT | SELECTOR_LOCAL, EXC_TS, SEL_LDT | SELECTOR_LOCAL);
    new_fault(F_SEG + SEG_CS, 0, EXC_TS, 0);
    new_fault(F_SEG + SEG_CS, SEL_DATA, EXC_TS, SEL_DATA);
    new_fault(F_SEG + SEG_CS, SEL_OLD, EXC_TS, SEL_OLD);
    new_fault(F_SEG + SEG_CS, SEL_CODE | 1, EXC_TS, SEL_CODE);
    new_fault(F_SEG + SEG_CS, SEL_USER_CODE & ~3u, EXC_TS, SEL_USER_CODE & ~3u);
    new_fault(F_SEG + SEG_CS, SEL_BEYOND, EXC_TS, SEL_BEYOND);
    new_fault(F_SEG + SEG_SS, 0, EXC_TS, 0);
    new_fault(F_SEG + SEG_SS, SEL_DATA | 3, EXC_TS, SEL_DATA);
    new_fault(F_SEG + SEG_SS, SEL_CODE, EXC_TS, SEL_CODE);
    new_fault(F_SEG + SEG_SS, SEL_AWAY_DATA, EXC_SS, SEL_AWAY_DATA);
    new_fault(F_SEG + SEG_DS, SEL_AWAY_DATA, EXC_NP, SEL_AWAY_DATA);
    new_fault(F_SEG + SEG_ES, SEL_BEYOND, EXC_TS, SEL_BEYOND);
    new_fault(F_SEG + SEG_FS, SEL_OLD, EXC_TS, SEL_OLD);
    new_fault(F_SEG + SEG_GS, 16 | SELECTOR_LOCAL, EXC_TS, 16 | SELECTOR_LOCAL);

    fresh(); /* the LDT is not present: not #NP */
    describe(GDT, SEL_LDT, LDT, 15, 0x02);
    assert_int_equal(go(TASK_CALL, true, 7), HV_EFAULT);
    assert_exception(EXC_TS, SEL_LDT);

    fresh(); /* IP beyond the code */
    describe(GDT, SEL_CODE, 0, 0x12344, 0x49b);
    assert_int_equal(go(TASK_CALL, true, 7), HV_EFAULT);
    assert_exception(EXC_GP, 0);
    assert_new_runs(0x4246);

    fresh(); /* while an exception is delivered: EXT, and it is still there to combine with */
    set_field(F_SEG + SEG_DS, SEL_BEYOND);
    v->interrupted = (struct event){.type = EVENT_EXCEPTION, .vector = EXC_GP};
    assert_int_equal(go(TASK_GATE, false, 0), HV_EFAULT);
    assert_exception(EXC_TS, SEL_BEYOND | 1);
    assert_int_equal(v->interrupted.type, EVENT_EXCEPTION);
}

/* --- waits --- */

/* Whichever access waits, nothing is seen of it but the state of the old task, saved where it belongs. */
static void test_again(void **state)
{
    static uint8_t after[MEMORY_BYTES];
    static struct fakevm fake_after;
    unsigned waits = 0;

    (void)state;
    for (enum task_reason reason = TASK_CALL; reason <= TASK_GATE; reason++) {
        for (int n = -1;; n++) {
            fresh();
            describe(GDT, SEL_NEW, NEW_TSS, 103, reason == TASK_IRET ? 0x8b : 0x89);
            set_field(F_SEG + SEG_FS, 8 | SELECTOR_LOCAL);
            if (reason == TASK_GATE) {
                v->interrupted = (struct event){
                    .type = EVENT_EXCEPTION, .vector = EXC_GP, .has_error = true, .error = 8};
            }
            fail_in = n;
            enum hv_err err = go(reason, reason != TASK_GATE, 7);
            if (n >= 0 && err == HV_OK) {
                break; /* there are no more accesses */
            }
            if (n >= 0) {
                assert_true(err == HV_EAGAIN || err == HV_ENOMEM);
                assert_memory_equal(&fake, &fake_before, sizeof fake);
                memcpy(memory + OLD_TSS, memory_before + OLD_TSS, 104);
                for (unsigned i = 0; i < GDT_ENTRIES * 8; i += 8) {
                    memory_before[GDT + i + 5] |= memory[GDT + i + 5] & 1; /* accessed */
                }
                memory[STACK - 4] = 0; /* the error code, below the stack pointer */
                assert_memory_equal(memory, memory_before, MEMORY_BYTES);
                fail_in = -1;
                assert_int_equal(go(reason, reason != TASK_GATE, 7), HV_OK);
                assert_memory_equal(&fake, &fake_after, sizeof fake);
                assert_memory_equal(memory, after, MEMORY_BYTES);
                waits++;
            }
            memcpy(after, memory, MEMORY_BYTES);
            fake_after = fake;
        }
    }
    assert_in_range(waits, 40, 120);
}

/* --- noise --- */

static void test_noise(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 20000; n++) {
        fresh();
        for (unsigned i = 0; i < 4 + rng_below(&rng, 40); i++) {
            static const unsigned places[] = {GDT, NEW_TSS, OLD_TSS, LDT};
            unsigned size = i % 4 == 0 ? 8 * GDT_ENTRIES : i % 4 == 3 ? 16 : 104;

            memory[places[i % 4] + rng_below(&rng, size)] = (uint8_t)rng_next(&rng);
        }
        fake.segs[0][SEG_GDTR].base = rng_below(&rng, 16) ? GDT : 0xfffffff8;
        fake.segs[0][SEG_TR].base = rng_below(&rng, 16) ? OLD_TSS : UINT32_MAX - 40;
        fake.segs[0][SEG_TR].attr = rng_below(&rng, 2) ? 0x8b : 0x83;
        v->interrupted.has_error = rng_below(&rng, 2) != 0;
        enum task_reason reason = (enum task_reason)rng_below(&rng, 4);
        enum hv_err err = go(reason, reason != TASK_GATE, 7);
        assert_true(err == HV_OK || err == HV_EFAULT);
        assert_int_equal(fake.exception.count == 0, err == HV_OK && fake.exception.count == 0);
        assert_enterable();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jump),       cmocka_unit_test(test_call_and_return),
        cmocka_unit_test(test_gate),       cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_virtual),    cmocka_unit_test(test_user),
        cmocka_unit_test(test_trap),       cmocka_unit_test(test_old_faults),
        cmocka_unit_test(test_new_faults), cmocka_unit_test(test_again),
        cmocka_unit_test(test_noise),
    };

    rng_seed(&rng, 0x7a5c);
    return emul_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

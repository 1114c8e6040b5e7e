/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator where the processor under the test cannot show how it is done (test_emul_diff.c compares the
 * rest): real mode, faults, slices of REP, the fast path's rules, RAM that is not there yet, port strings,
 * control registers.
 */
#include "kernel/emul/emul.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/rng.h"
#include "mm/p2m.h"
#include "tests/host/emulenv.h"
#include "tests/host/fakevm.h"

static struct rng rng;
static struct vcpu *const v = &fake.vcpu[0];

static uint32_t exit_access = P2M_WRITE;

static enum hv_err emulate(const char *bytes, unsigned len, gpa_t gpa, bool fast)
{
    char text[64];
    struct exit_memory mem = {.gpa = gpa, .access = exit_access};

    emulenv_insn(bytes, len);
    env.bus_calls = 0;
    fake.skipped = 0;
    return emul_mmio(v, &mem, fast, text, sizeof text);
}

static void fresh(enum emul_mode mode)
{
    emulenv_fresh();
    emulenv_vcpu(mode);
    memset(env.memory, 0, ARENA_BYTES);
}

static void test_old_modes(void **state)
{
    (void)state;
    /* Segment bases carry the addresses, which are beyond 32 bits here: only offsets are checked, by
     * the page offset that the exit gives. */
    fresh(EMUL_32);
    assert_int_equal(emul_mode_of(v), EMUL_32);
    fake.segs[0][SEG_DS].base = 0x1000;
    v->gpr[GPR_RBX] = 0xffffffff00000010ull; /* the upper half is not there in 32-bit mode */
    v->gpr[GPR_RCX] = 0x11223344;
    assert_int_equal(emulate("\x89\x4b\x04", 3, GPA((uint64_t)env.native + 0x14), false), HV_OK);
    assert_int_equal(*(uint32_t *)(env.memory + 0x14), 0x11223344);
    fresh(EMUL_16);
    assert_int_equal(emul_mode_of(v), EMUL_16);
    v->gpr[GPR_RBP] = 0xfff8; /* mov [bp+di+0x10], ax: wraps at 64 KiB, through SS */
    v->gpr[GPR_RDI] = 0x8;
    v->gpr[GPR_RAX] = 0xabcd;
    fake.segs[0][SEG_SS].base = 0x100;
    assert_int_equal(emulate("\x89\x43\x10", 3, GPA((uint64_t)env.native + 0x110), false), HV_OK);
    assert_int_equal(*(uint16_t *)(env.memory + 0x110), 0xabcd);
    assert_int_equal(fake.skipped, 3);
}

static void test_changed_bytes(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RAX] = (uint64_t)env.native + 8;
    assert_int_equal(emulate("\x89\x08", 2, GPA((uint64_t)env.native + 16), false), HV_OK);
    assert_int_equal(env.bus_calls, 0); /* not the instruction that exited: run on */
    assert_int_equal(fake.skipped, 0);
    assert_int_equal(emulate("\x0f\x28\x00", 3, GPA((uint64_t)env.native + 8), false), HV_ENOTSUP);
    assert_int_equal(emulate("\xff\xff\xff", 3, GPA((uint64_t)env.native + 8), false), HV_ENOTSUP);
    struct exit_memory mem = {.gpa = GPA(0), .access = P2M_EXEC};
    char text[64];
    assert_int_equal(emul_mmio(v, &mem, false, text, sizeof text), HV_ENOTSUP);
}

/* The bytes of a read have become those of a write: the guest's tables say whether it may. */
static void test_read_became_write(void **state)
{
    (void)state;
    exit_access = P2M_READ;
    fresh(EMUL_64);
    v->gpr[GPR_RAX] = (uint64_t)env.native + 8;
    env.rights[0] = GVA_READ;
    assert_int_equal(emulate("\x89\x08", 2, GPA((uint64_t)env.native + 8), false), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_PF);
    assert_int_equal(env.bus_calls, 0);
    fresh(EMUL_64);
    v->gpr[GPR_RAX] = (uint64_t)env.native + 8;
    assert_int_equal(emulate("\x89\x08", 2, GPA((uint64_t)env.native + 8), false), HV_OK);
    exit_access = P2M_WRITE;
}

static void fast_path(bool code)
{
    fresh(EMUL_64);
    env.code = code;
    v->gpr[GPR_RAX] = (uint64_t)env.native + 8;
    /* Not decoded yet: again, off the fast path; then it is in the cache. */
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)env.native + 8), true),
                     HV_EAGAIN);
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)env.native + 8), false), HV_OK);
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)env.native + 8), true), HV_OK);
    assert_int_equal(fake.skipped, 6);
    /* A device that says "again" leaves everything as it was. */
    env.bus_again = true;
    v->gpr[GPR_RDX] = 77;
    assert_int_equal(emulate("\x8b\x90\0\0\0\0", 6, GPA((uint64_t)env.native + 8), true),
                     HV_EAGAIN);
    env.bus_again = false;
    assert_int_equal(v->gpr[GPR_RDX], 77);
    assert_int_equal(fake.skipped, 0);
    /* Read-modify-write and strings never run there. */
    assert_int_equal(emulate("\x01\x08", 2, GPA((uint64_t)env.native + 8), false), HV_OK);
    assert_int_equal(emulate("\x01\x08", 2, GPA((uint64_t)env.native + 8), true), HV_EAGAIN);
    assert_int_equal(env.bus_calls, 0);
}

static void test_fast_path(void **state)
{
    (void)state;
    fast_path(false);
    fast_path(true);
}

static void test_slices_and_faults(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RDI] = (uint64_t)env.native;
    v->gpr[GPR_RCX] = 200;
    v->gpr[GPR_RAX] = 0xee;
    unsigned entries = 0;
    do { /* rep stosb */
        assert_int_equal(emulate("\xf3\xaa", 2, GPA((uint64_t)env.native), false), HV_OK);
        assert_true(env.bus_calls <= 64);
        entries++;
    } while (!fake.skipped);
    assert_true(entries > 1);
    assert_int_equal(v->gpr[GPR_RCX], 0);
    assert_int_equal(v->gpr[GPR_RDI], (uint64_t)env.native + 200);
    assert_int_equal(env.memory[199], 0xee);
    assert_int_equal(env.memory[200], 0);
    /* A fault in the middle: what was done is committed, the rest is left. */
    fresh(EMUL_64);
    env.rights[1] = 0;
    v->gpr[GPR_RDI] = (uint64_t)env.native + 4096 - 16;
    v->gpr[GPR_RSI] = (uint64_t)env.native;
    v->gpr[GPR_RCX] = 10;
    assert_int_equal(emulate("\xf3\xa5", 2, GPA((uint64_t)env.native), false), HV_EFAULT);
    assert_int_equal(v->gpr[GPR_RCX], 6);
    assert_int_equal(v->gpr[GPR_RSI], (uint64_t)env.native + 16);
    assert_int_equal(fake.exception.vector, EXC_PF);
    assert_int_equal(fake.skipped, 0);
    /* A store over two pages, the second of which faults, writes nothing. */
    v->gpr[GPR_RAX] = (uint64_t)env.native + 4094;
    assert_int_equal(emulate("\x89\x08", 2, GPA((uint64_t)env.native + 4094), false), HV_EFAULT);
    assert_int_equal(env.bus_calls, 0);
}

/* Segments of protected mode: rights and limits of what the processor has not checked for us, by
 * MOVSB from a device to somewhere. */
static enum hv_err movs(uint64_t from, uint64_t to)
{
    v->gpr[GPR_RSI] = from;
    v->gpr[GPR_RDI] = to;
    fake.exception.count = 0;
    return emulate("\xa4", 1, GPA((uint64_t)env.native), false);
}

static void test_segments(void **state)
{
    (void)state;
    uint64_t base = (uint64_t)env.native;
    fresh(EMUL_32);
    fake.segs[0][SEG_ES] = (struct segment){.attr = 0x491, .limit = UINT32_MAX}; /* read-only */
    assert_int_equal(movs(base, base + 8), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_GP);
    assert_true(fake.exception.has_error);
    assert_int_equal(env.bus_calls, 0);
    fake.segs[0][SEG_ES] = (struct segment){.attr = 0x412, .limit = UINT32_MAX}; /* null */
    assert_int_equal(movs(base, base + 8), HV_EFAULT);
    fake.segs[0][SEG_ES] = (struct segment){.attr = 0x493, .base = base, .limit = 7};
    assert_int_equal(movs(base, 8), HV_EFAULT);
    assert_int_equal(movs(base, 7), HV_OK);
    fake.segs[0][SEG_ES] = (struct segment){.attr = 0x97, .base = base, .limit = 7}; /* down */
    assert_int_equal(movs(base, 7), HV_EFAULT);
    assert_int_equal(movs(base, 8), HV_OK);
    assert_int_equal(movs(base, 0x10000), HV_EFAULT);
    fake.segs[0][SEG_DS] = (struct segment){.attr = 0x499, .limit = UINT32_MAX}; /* execute only */
    assert_int_equal(movs(base, 8), HV_EFAULT);
    /* Through SS it is a stack fault. */
    fake.segs[0][SEG_SS].limit = 0;
    v->gpr[GPR_RSI] = base;
    assert_int_equal(emulate("\x36\xa4", 2, GPA(base), false), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_SS);
    /* Real mode has limits, no rights and no error codes. */
    fresh(EMUL_16);
    fake.regs[0][REG_CR0] = 0;
    fake.segs[0][SEG_DS] = (struct segment){.attr = 0x93, .base = base, .limit = 0xffff};
    fake.segs[0][SEG_ES] = (struct segment){.attr = 0x9b, .base = base, .limit = 0xff};
    assert_int_equal(movs(0, 0xff), HV_OK);
    assert_int_equal(movs(0, 0x100), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_GP);
    assert_false(fake.exception.has_error);
}

static void test_canonical(void **state)
{
    (void)state;
    fresh(EMUL_64);
    assert_int_equal(movs((uint64_t)env.native, 1ull << 47), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_GP);
    /* The last byte counts too; on the stack it is a stack fault. */
    fake.regs[0][REG_RSP] = (1ull << 47) - 4;
    assert_int_equal(emulate("\x8f\x00", 2, GPA((uint64_t)env.native), false), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_SS);
    fake.segs[0][SEG_FS].base = 1ull << 62;
    v->gpr[GPR_RSI] = (uint64_t)env.native;
    assert_int_equal(emulate("\x64\xa4", 2, GPA((uint64_t)env.native), false), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_GP);
    assert_int_equal(env.bus_calls, 0);
}

static void test_single_step(void **state)
{
    (void)state;
    fresh(EMUL_64);
    fake.regs[0][REG_RFLAGS] = RFLAGS_TF;
    v->gpr[GPR_RDI] = (uint64_t)env.native;
    v->gpr[GPR_RCX] = 3;
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(emulate("\xf3\xaa", 2, GPA((uint64_t)env.native), false), HV_OK);
        assert_int_equal(fake.skipped, 0);
        assert_int_equal(env.steps, i);
        assert_int_equal(v->gpr[GPR_RCX], 3 - i);
    }
    /* The last one is stepped over, which makes the exception. */
    assert_int_equal(emulate("\xf3\xaa", 2, GPA((uint64_t)env.native), false), HV_OK);
    assert_int_equal(fake.skipped, 2);
    assert_int_equal(env.steps, 2);
}

/* A device register is not read before the memory that it goes to is there. */
static void test_memory_not_there(void **state)
{
    (void)state;
    uint64_t device = (uint64_t)env.native, ram = device + 4096;
    fresh(EMUL_64);
    env.ram[1] = true;
    env.memory[0] = 0x77;
    env.pin_err = HV_EAGAIN;
    assert_int_equal(movs(device, ram), HV_EAGAIN);
    env.pin_err = HV_ENOMEM;
    assert_int_equal(movs(device, ram), HV_ENOMEM);
    assert_int_equal(v->gpr[GPR_RDI], ram);
    /* A word over both pages, and a push from the device to the stack. */
    v->gpr[GPR_RAX] = ram - 2;
    assert_int_equal(emulate("\x01\x08", 2, GPA(ram - 2), false), HV_ENOMEM);
    fake.regs[0][REG_RSP] = ram + 64;
    assert_int_equal(emulate("\xff\x30", 2, GPA(ram - 2), false), HV_ENOMEM);
    assert_int_equal(env.bus_calls, 0);
    assert_int_equal(env.pins, 0);
    env.pin_err = HV_OK;
    assert_int_equal(movs(device, ram), HV_OK);
    assert_int_equal(env.memory[4096], 0x77);
    assert_int_equal(env.pins, 0);
    /* CMPXCHG16B that is not aligned. */
    v->gpr[GPR_RAX] = device + 8;
    assert_int_equal(emulate("\x48\x0f\xc7\x08", 4, GPA(device + 8), false), HV_EFAULT);
    assert_int_equal(fake.exception.vector, EXC_GP);
}

/* The stack's width is that of SS, whatever the code's. */
static void test_stack(void **state)
{
    (void)state;
    uint64_t base = (uint64_t)env.native;
    fresh(EMUL_32);
    fake.segs[0][SEG_SS] = (struct segment){.attr = 0x93, .base = base, .limit = 0xffff};
    fake.regs[0][REG_RSP] = 0x12340000;
    v->gpr[GPR_RCX] = 0xabcd;
    assert_int_equal(emulate("\x66\x51", 2, GPA(base), false), HV_EFAULT); /* at fffe: no page */
    assert_int_equal(fake.regs[0][REG_RSP], 0x12340000);
    fake.regs[0][REG_RSP] = 0x12340010;
    assert_int_equal(emulate("\x66\x51", 2, GPA(base + 14), false), HV_OK);
    assert_int_equal(fake.regs[0][REG_RSP], 0x1234000e);
    assert_int_equal(*(uint16_t *)(env.memory + 14), 0xabcd);
    assert_int_equal(emulate("\x66\x5a", 2, GPA(base + 14), false), HV_OK); /* pop dx */
    assert_int_equal(v->gpr[GPR_RDX], 0xabcd);
    assert_int_equal(fake.regs[0][REG_RSP], 0x12340010);
}

static enum hv_err string_io(const char *bytes, unsigned len, bool in, bool fast)
{
    const char *opcode = bytes + len - 1;
    uint8_t size = !(*opcode & 1) ? 1 : memchr(bytes, 0x66, len) ? 2 : 4;
    struct exit_port port = {.port = 0x1234, .in = in, .string = true, .size = size};
    char text[64];

    emulenv_insn(bytes, len);
    fake.skipped = 0;
    return emul_string_io(v, &port, fast, text, sizeof text);
}

static void test_string_io(void **state)
{
    (void)state;
    fresh(EMUL_64);
    v->gpr[GPR_RSI] = (uint64_t)env.native;
    v->gpr[GPR_RCX] = 5;
    memcpy(env.memory, "hello", 5);
    assert_int_equal(string_io("\xf3\x6e", 2, false, true), HV_EAGAIN);
    assert_int_equal(string_io("\xf3\x6e", 2, false, false), HV_OK);
    assert_memory_equal(env.port_log, "hello", 5);
    assert_int_equal(fake.skipped, 2);
    fresh(EMUL_64);
    env.port_count = 0;
    fake.regs[0][REG_RFLAGS] = RFLAGS_DF;
    v->gpr[GPR_RDI] = (uint64_t)env.native + 64;
    v->gpr[GPR_RCX] = 3;
    assert_int_equal(string_io("\xf3\x6d", 2, true, false), HV_OK); /* insd, downwards */
    assert_int_equal(*(uint32_t *)(env.memory + 64), 0);
    assert_int_equal(*(uint32_t *)(env.memory + 56), 8);
    assert_int_equal(v->gpr[GPR_RDI], (uint64_t)env.native + 52);
    /* The exit was an IN, the bytes say OUT: somebody changed them. */
    env.port_count = 0;
    assert_int_equal(string_io("\xf3\x6e", 2, true, false), HV_OK);
    assert_int_equal(env.port_count, 0);
    assert_int_equal(fake.skipped, 0);
}

/* A frame is missing in the middle of REP INS: what was read from the port is in memory, and no more
 * has been read than the registers say. It goes on there. */
static void test_no_memory(void **state)
{
    (void)state;
    fresh(EMUL_64);
    env.ram[0] = true;
    v->gpr[GPR_RDI] = (uint64_t)env.native + 64;
    v->gpr[GPR_RCX] = 5;
    env.pin_err = HV_ENOMEM;
    env.pins_good = 3;
    assert_int_equal(string_io("\xf3\x6c", 2, true, false), HV_ENOMEM);
    assert_int_equal(v->gpr[GPR_RCX], 2);
    assert_int_equal(v->gpr[GPR_RDI], (uint64_t)env.native + 67);
    assert_int_equal(env.port_count, 3);
    assert_int_equal(env.pins, 0);
    assert_int_equal(fake.skipped, 0);
    env.pin_err = HV_OK;
    assert_int_equal(string_io("\xf3\x6c", 2, true, false), HV_OK);
    assert_memory_equal(env.memory + 64, "\0\1\2\3\4", 5);
    assert_int_equal(v->gpr[GPR_RCX], 0);
    assert_int_equal(fake.skipped, 2);
}

static enum hv_err decode_cr(const char *bytes, unsigned len, struct exit_cr *cr, uint8_t *n,
                             uint64_t *value)
{
    emulenv_insn(bytes, len);
    return emul_decode_cr(v, cr, false, n, value);
}

static void test_control_registers(void **state)
{
    (void)state;
    struct exit_cr cr;
    uint64_t value = 0;
    uint8_t n;
    fresh(EMUL_64);
    assert_int_equal(decode_cr("\x41\x0f\x22\xdd", 4, &cr, &n, &value), HV_OK); /* cr3 = r13 */
    assert_true(cr.decoded && cr.write);
    assert_int_equal(cr.cr, 3);
    assert_int_equal(cr.gpr, 13);
    assert_int_equal(n, 4);
    assert_int_equal(decode_cr("\x44\x0f\x20\xc1", 4, &cr, &n, &value), HV_OK); /* rcx = cr8 */
    assert_true(cr.decoded && !cr.write);
    assert_int_equal(cr.cr, 8);
    assert_int_equal(cr.gpr, 1);
    fake.regs[0][REG_CR0] = CR0_PE | CR0_TS | CR0_PG;
    assert_int_equal(decode_cr("\x0f\x06", 2, &cr, &n, &value), HV_OK); /* clts */
    assert_true(!cr.decoded && cr.write);
    assert_int_equal(value, CR0_PE | CR0_PG);
    v->gpr[GPR_RBX] = 0xfff2;
    assert_int_equal(decode_cr("\x0f\x01\xf3", 3, &cr, &n, &value), HV_OK); /* lmsw bx */
    assert_int_equal(value, CR0_PE | CR0_MP | CR0_PG);
    assert_int_equal(decode_cr("\x0f\x01\xe1", 3, &cr, &n, &value), HV_OK); /* smsw ecx */
    assert_true(!cr.decoded && !cr.write);
    assert_int_equal(v->gpr[GPR_RCX], (uint32_t)(CR0_PE | CR0_TS | CR0_PG));
    assert_int_equal(decode_cr("\x90", 1, &cr, &n, &value), HV_ENOTSUP);
    fresh(EMUL_32);
    assert_int_equal(decode_cr("\xf0\x0f\x22\xc0", 4, &cr, &n, &value), HV_OK);
    assert_int_equal(cr.cr, 8);
}

/* Random bytes as instructions: no crash, no access outside (the bus asserts its range). */
static void test_random_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        struct exit_memory mem = {.gpa = GPA((uint64_t)env.native + rng_below(&rng, 4096)),
                                  .access = P2M_READ};
        char text[64];
        fresh((enum emul_mode)rng_below(&rng, 3));
        for (unsigned r = 0; r < 16; r++) {
            v->gpr[r] = mem.gpa.a;
        }
        v->gpr[GPR_RCX] = rng_below(&rng, 100);
        env.insn_len = (unsigned)rng_below(&rng, 16);
        for (unsigned j = 0; j < env.insn_len; j++) {
            env.insn[j] = (uint8_t)rng_next(&rng);
        }
        memset(env.rights, 0,
               sizeof env.rights); /* nothing but what the exit reported is translated */
        (void)!emul_mmio(v, &mem, rng_below(&rng, 2), text, sizeof text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_modes),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_fast_path),
        cmocka_unit_test(test_slices_and_faults),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_single_step),
        cmocka_unit_test(test_memory_not_there),
        cmocka_unit_test(test_stack),
        cmocka_unit_test(test_string_io),
        cmocka_unit_test(test_read_became_write),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_control_registers),
        cmocka_unit_test(test_random_bytes),
    };
    rng_seed(&rng, 0xe301);
    if (!emulenv_init()) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: decoding and executing. The input is mode, surroundings, instruction and registers. Beyond
 * what sanitizers and the surroundings (tests/host/emulenv.c) notice: an instruction that faults has done
 * nothing, one that says "again" on the fast path has done nothing, every pin is given back, and what is
 * stepped over is as long as the decoder says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/regs.h"
#include "kernel/emul/decode.h"
#include "mm/p2m.h"
#include "tests/host/check.h"
#include "tests/host/emulenv.h"
#include "tests/host/fakevm.h"

struct input {
    uint8_t mode, what, ram, rights, len, selector;
    uint8_t insn[15];
    uint16_t reg[16];
    uint16_t gpa;
};

#define WHAT_FAST 1
#define WHAT_TF 2
#define WHAT_DF 4
#define WHAT_PORT 8
#define WHAT_CR 16
#define WHAT_REAL 32
#define WHAT_PIN_FAILS 64
#define WHAT_BUS_AGAIN 128

static struct vcpu *const v = &fake.vcpu[0];

/* Mostly addresses of the arena and around it, sometimes a small number or one with high bits. */
static uint64_t value_of(uint16_t x)
{
    uint64_t near = (uint64_t)env.native - 64 + x % (ARENA_BYTES + 128);

    return x < 0x8000 ? near : x < 0xc000 ? x & 0xff : (uint64_t)x << 47;
}

static void set_up(const struct input *in)
{
    emulenv_fresh();
    emulenv_vcpu((enum emul_mode)(in->mode % 3));
    for (unsigned i = 0; i < ARENA_PAGES; i++) {
        env.ram[i] = in->ram >> i & 1;
        env.rights[i] = in->rights >> i & 1 ? GVA_READ : GVA_READ | GVA_WRITE;
    }
    for (unsigned i = 0; i < 16; i++) {
        v->gpr[i] = value_of(in->reg[i]);
    }
    fake.regs[0][REG_RSP] = v->gpr[GPR_RSP];
    fake.regs[0][REG_RFLAGS] |=
        (in->what & WHAT_TF ? RFLAGS_TF : 0) | (in->what & WHAT_DF ? RFLAGS_DF : 0);
    fake.regs[0][REG_CR0] = in->what & WHAT_REAL ? 0 : CR0_PE | CR0_PG;
    fake.segs[0][in->selector % 6].base = (uint64_t)env.native;
    fake.segs[0][in->selector % 6].limit = (uint32_t)in->selector << 7;
    fake.segs[0][SEG_SS].attr = in->selector & 64 ? 0x93 : 0x493;
    env.pin_err = in->what & WHAT_PIN_FAILS ? HV_EAGAIN : HV_OK;
    env.bus_again = (in->what & WHAT_FAST) && (in->what & WHAT_BUS_AGAIN);
    v->rip = 0x1000;
    memcpy(env.insn, in->insn, sizeof env.insn);
    env.insn_len = in->len % 16;
}

static struct {
    uint64_t gpr[NR_GPRS], regs[NR_HV_REGS];
    uint8_t memory[ARENA_BYTES];
} before;

static void remember(void)
{
    memcpy(before.gpr, v->gpr, sizeof before.gpr);
    memcpy(before.regs, fake.regs[0], sizeof before.regs);
    memcpy(before.memory, env.memory, ARENA_BYTES);
}

static void expect_unchanged(void)
{
    CHECK(memcmp(before.gpr, v->gpr, sizeof before.gpr) == 0);
    CHECK(before.regs[REG_RSP] == fake.regs[0][REG_RSP]);
    CHECK(before.regs[REG_RFLAGS] == fake.regs[0][REG_RFLAGS]);
    CHECK(memcmp(before.memory, env.memory, ARENA_BYTES) == 0);
}

static void mmio(const struct input *in, const struct insn *decoded)
{
    char text[64];
    struct exit_memory mem = {.gpa = GPA((uint64_t)env.native + in->gpa % ARENA_BYTES),
                              .access = P2M_READ};
    bool fast = in->what & WHAT_FAST;

    env.ram[in->gpa % ARENA_BYTES / 4096] = false;
    for (unsigned i = 0; i < 3; i++) {
        remember();
        fake.skipped = fake.exception.count = 0;
        enum hv_err err = emul_mmio(v, &mem, fast, text, sizeof text);
        CHECK(env.pins == 0);
        if (err == HV_EFAULT) {
            CHECK(fake.exception.count == 1 && fake.skipped == 0);
        }
        if ((err == HV_EFAULT && !(decoded && decoded->rep)) || (err == HV_EAGAIN && fast) ||
            err == HV_ENOTSUP) {
            expect_unchanged();
        }
        if (fake.skipped) {
            CHECK(err == HV_OK && decoded && fake.skipped == decoded->length);
        }
        if (err || fake.skipped) {
            return;
        }
    }
}

static void others(const struct input *in)
{
    struct exit_port port = {.port = 0x1234, .in = in->what & WHAT_DF, .string = true};
    struct exit_cr cr;
    char text[64];
    uint64_t value;
    uint8_t len;

    if (in->what & WHAT_PORT) {
        (void)!emul_string_io(v, &port, in->what & WHAT_FAST, text, sizeof text);
    }
    if (in->what & WHAT_CR) {
        (void)!emul_decode_cr(v, &cr, false, &len, &value);
    }
    CHECK(env.pins == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.mode = 0};
    struct insn decoded, again;
    static bool ready;

    if (!ready && !emulenv_init()) {
        abort();
    }
    ready = true;
    memcpy(&in, data, size < sizeof in ? size : sizeof in);
    set_up(&in);
    enum emul_mode mode = (enum emul_mode)(in.mode % 3);
    bool valid = decode_insn(env.insn, env.insn_len, mode, &decoded);
    if (valid) {
        CHECK(decoded.length >= 1 && decoded.length <= env.insn_len && decoded.mode == mode);
        /* Nothing behind the instruction counts. */
        CHECK(decode_insn(env.insn, decoded.length, mode, &again));
        CHECK(memcmp(&decoded, &again, sizeof again) == 0);
    }
    if (in.what & (WHAT_PORT | WHAT_CR)) {
        others(&in);
    } else {
        mmio(&in, valid ? &decoded : NULL);
    }
    return 0;
}

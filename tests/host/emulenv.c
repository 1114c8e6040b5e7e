/* SPDX-License-Identifier: BSD-2-Clause */
/* See emulenv.h. */
#include "tests/host/emulenv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/exit.h"
#include "mm/env.h"
#include "tests/host/check.h"
#include "tests/host/fakevm.h"

struct emulenv env;

bool emulenv_init(void)
{
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    uint8_t *low = mmap(NULL, 4096 + ARENA_BYTES, prot | PROT_EXEC, flags | MAP_32BIT, -1, 0);

    env.memory = mmap(NULL, ARENA_BYTES, prot, flags, -1, 0);
    env.native = low + 4096;
    emulenv_fresh();
    return low != MAP_FAILED && env.memory != MAP_FAILED && emul_init() == HV_OK;
}

void emulenv_fresh(void)
{
    memset(env.rights, GVA_READ | GVA_WRITE, sizeof env.rights);
    memset(env.ram, 0, sizeof env.ram);
    env.bus_calls = env.steps = env.port_count = 0;
    env.bus_again = false;
    env.pin_err = HV_OK;
    env.pins_good = 0;
}

void emulenv_vcpu(enum emul_mode mode)
{
    static const uint16_t code[] = {[EMUL_16] = 0x9b, [EMUL_32] = 0x49b, [EMUL_64] = 0x29b};

    fakevm_reset(1);
    for (unsigned i = 0; i <= SEG_GS; i++) {
        fake.segs[0][i] = (struct segment){.attr = 0x493, .limit = UINT32_MAX};
    }
    fake.segs[0][SEG_CS].attr = code[mode];
    fake.regs[0][REG_CR0] = CR0_PE | CR0_PG;
    fake.regs[0][REG_EFER] = mode == EMUL_64 ? EFER_LMA : 0;
    fake.regs[0][REG_RFLAGS] = 2;
}

void emulenv_insn(const void *bytes, unsigned len)
{
    memset(env.insn, 0, sizeof(env.insn));
    memcpy(env.insn, bytes, len);
    env.insn_len = env.code ? sizeof(env.insn) : len;
}

unsigned env_cpu(void)
{
    return 0;
}

unsigned env_nr_cpus(void)
{
    return 1;
}

enum exit_action insn_single_step(struct vcpu *v)
{
    env.steps++;
    vcpu_inject_exception(v, EXC_DB, false, 0);
    return ACT_RESUME;
}

/* A task switch's. */
enum hv_err cr_write(struct vcpu *v, unsigned cr, uint64_t value)
{
    (void)v, (void)cr, (void)value;
    abort();
}

/* --- guest memory --- */

static uint64_t offset_of(uint64_t address)
{
    return address - (uint64_t)env.native;
}

const uint8_t *vcpu_code(struct vcpu *v, unsigned len)
{
    (void)v;
    return env.code && env.insn_len >= len ? env.insn : NULL;
}

enum hv_err guestmem_fetch(struct vcpu *v, bool fast, uint8_t bytes[15], unsigned *got)
{
    (void)v;
    (void)fast;
    memset(bytes, 0, 15);
    memcpy(bytes, env.insn, env.insn_len);
    *got = env.insn_len;
    return HV_OK;
}

enum hv_err guestmem_translate(struct vcpu *v, gva_t gva, uint32_t access, bool fast, gpa_t *out)
{
    uint64_t offset = offset_of(gva.a);

    CHECK(!fast);
    if (offset >= ARENA_BYTES || !(env.rights[offset / 4096] & access)) {
        hv->set_reg(v, REG_CR2, gva.a);
        vcpu_inject_exception(v, EXC_PF, true, access & GVA_WRITE ? 2 : 0);
        return HV_EFAULT;
    }
    *out = GPA(gva.a);
    return HV_OK;
}

enum hv_err guestmem_pin_by(struct vcpu *u, gpa_t gpa, bool write, void **page)
{
    uint64_t offset = offset_of(gpa.a);

    (void)u;
    CHECK(offset < ARENA_BYTES);
    if (!env.ram[offset / 4096]) {
        return HV_ENOENT;
    }
    if (env.pin_err && env.pins_good-- == 0) {
        env.pins_good = 0;
        return env.pin_err;
    }
    CHECK(env.rights[offset / 4096] & (write ? GVA_WRITE : GVA_READ));
    env.pins++;
    *page = env.memory + (offset & ~4095ull);
    return HV_OK;
}

void guestmem_unpin(struct vm *vm, gpa_t gpa, void *page)
{
    (void)vm;
    CHECK(page == env.memory + (offset_of(gpa.a) & ~4095ull));
    env.pins--;
}

/* --- devices --- */

bool vlapic_covers(const struct vlapic *a, gpa_t gpa)
{
    (void)a, (void)gpa;
    return false;
}

enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value)
{
    (void)a, (void)offset, (void)size, (void)write, (void)value;
    abort();
}

enum hv_err bus_mmio(struct bus *b, struct vcpu *v, gpa_t gpa, unsigned size, bool write,
                     uint64_t *value)
{
    uint64_t offset = offset_of(gpa.a);

    (void)b, (void)v;
    env.bus_calls++;
    if (env.bus_again) {
        return HV_EAGAIN;
    }
    CHECK(size == 1 || size == 2 || size == 4 || size == 8);
    CHECK(offset < ARENA_BYTES && offset % 4096 + size <= 4096 && !env.ram[offset / 4096]);
    if (write) {
        memcpy(env.memory + offset, value, size);
    } else {
        *value = UINT64_MAX; /* only the low bytes count */
        memcpy(value, env.memory + offset, size);
    }
    return HV_OK;
}

enum hv_err bus_port(struct bus *b, struct vcpu *v, uint64_t port, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b, (void)v;
    CHECK(port == 0x1234 && (size == 1 || size == 2 || size == 4));
    if (write) {
        memcpy(env.port_log + env.port_count % 128, value, size);
    } else {
        *value = 0xa5a5a5a500000000u | env.port_count;
    }
    env.port_count += size;
    return HV_OK;
}

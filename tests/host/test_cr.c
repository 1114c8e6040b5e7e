/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control-register exits whose bytes another vCPU changes between the exit and the look at them: what is
 * carried out is what the processor found, or nothing. And that TR's kind counts when long mode begins.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "tests/host/fakevm.h"

#define MOV_CR3_RAX 0xd8220fu /* mov cr3, rax */
#define MOV_CR4_R9 0xe1220f41u
#define MOV_RAX_CR0 0xc0200fu

static struct vcpu *v;
static struct {
    uint32_t code;       /* at RIP now */
    struct exit_cr slow; /* what the decoder says, off the fast path */
} now;

struct cpu_features cpu_features = {.phys_bits = 40};

const uint8_t *vcpu_code(struct vcpu *u, unsigned len)
{
    (void)u;
    assert_true(len <= sizeof now.code);
    return (const uint8_t *)&now.code;
}

enum hv_err emul_decode_cr(struct vcpu *u, struct exit_cr *cr, bool fast, uint8_t *insn_len,
                           uint64_t *lmsw_value)
{
    (void)u;
    if (fast) {
        return HV_EAGAIN;
    }
    *cr = now.slow;
    *insn_len = 3;
    *lmsw_value = CR0_PE;
    return HV_OK;
}

enum emul_mode emul_mode_of(struct vcpu *u)
{
    (void)u;
    return EMUL_64;
}

enum exit_action exit_again(struct vcpu *u, enum hv_err err)
{
    assert_int_equal(err, HV_EAGAIN);
    return vcpu_in_section(u) ? ACT_SLOW : ACT_LEAVE;
}

enum exit_action insn_single_step(struct vcpu *u)
{
    (void)u;
    return ACT_RESUME;
}

enum hv_err vcpu_length(struct vcpu *u, struct vm_exit *exit)
{
    (void)u;
    exit->insn_len = 3;
    return HV_OK;
}

uint64_t fpu_xcr0_mask(void)
{
    return XCR0_X87 | XCR0_SSE;
}

enum hv_err fpu_set_xcr0(struct fpu_state *st, uint64_t value)
{
    (void)st, (void)value;
    return HV_OK;
}

enum hv_err guestmem_read_by(struct vcpu *u, gpa_t gpa, void *dst, size_t len)
{
    (void)u, (void)gpa, (void)dst, (void)len;
    fail();
    return HV_EIO;
}

void softmmu_changed(struct vcpu *u)
{
    (void)u;
}

enum hv_err softmmu_cr3(struct vcpu *u, uint64_t value)
{
    hv->set_reg(u, REG_CR3, value);
    return HV_OK;
}

uint8_t vlapic_tpr(struct vlapic *a)
{
    (void)a;
    return 0;
}

void vlapic_set_tpr(struct vlapic *a, uint8_t tpr)
{
    (void)a, (void)tpr;
}

/* In 64-bit code, at a privilege level, in a section or off the fast path. */
static void begin(unsigned cpl, bool section)
{
    fakevm_reset(1);
    v = &fake.vcpu[0];
    v->in_guest = section;
    v->gpr[GPR_RAX] = 0x5000;
    v->gpr[9] = CR4_PAE | CR4_PGE;
    fake.regs[0][REG_CR0] = CR0_PE | CR0_PG;
    fake.regs[0][REG_CR3] = 0x1000;
    fake.regs[0][REG_CR4] = CR4_PAE;
    fake.regs[0][REG_EFER] = EFER_LME | EFER_LMA;
    fake.segs[0][SEG_CS].attr = 0x29b;
    fake.segs[0][SEG_SS].attr = (uint16_t)(0x93 | cpl << 5);
    v->rip = 0x1000;
}

/* The processor said no more than this. */
static enum exit_action exits(uint8_t cr, bool write)
{
    struct vm_exit exit = {.kind = EXIT_CR, .cr = {.cr = cr, .write = write}};

    return cr_exit(v, &exit);
}

static void quick_moves(void **state)
{
    (void)state;
    begin(0, true);
    now.code = MOV_CR3_RAX;
    assert_int_equal(exits(3, true), ACT_RESUME);
    assert_int_equal(fake.regs[0][REG_CR3], 0x5000);
    assert_int_equal(v->rip, 0x1003);
    now.code = MOV_CR4_R9;
    assert_int_equal(exits(4, true), ACT_RESUME);
    assert_int_equal(fake.regs[0][REG_CR4], CR4_PAE | CR4_PGE);
    assert_int_equal(v->rip, 0x1007);
    now.code = MOV_RAX_CR0;
    assert_int_equal(exits(0, false), ACT_RESUME);
    assert_int_equal(v->gpr[GPR_RAX], CR0_PE | CR0_PG);
}

/* User code gets here by SMSW, a read of CR0. Whatever stands at RIP by now, nothing happens: the instruction
 * is met again. */
static void changed_bytes(void **state)
{
    static const uint32_t codes[] = {MOV_CR3_RAX, MOV_CR4_R9, MOV_RAX_CR0};

    (void)state;
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(codes); i++) {
        begin(3, i & 1);
        now.code = codes[i / 2];
        now.slow = (struct exit_cr){.cr = i < 2   ? 3
                                          : i < 4 ? 4
                                                  : 0,
                                    .write = i < 4,
                                    .decoded = true};
        assert_int_equal(exits(0, false), ACT_RESUME);
        assert_int_equal(fake.regs[0][REG_CR3], 0x1000);
        assert_int_equal(fake.regs[0][REG_CR4], CR4_PAE);
        assert_int_equal(v->gpr[GPR_RAX], 0x5000);
        assert_int_equal(v->rip, 0x1000);
    }
    /* The kernel's own: another register, another direction. */
    for (unsigned i = 0; i < 2; i++) {
        begin(0, true);
        now.code = MOV_CR3_RAX;
        assert_int_equal(exits(i == 0 ? 4 : 3, i == 0), ACT_RESUME);
        assert_int_equal(fake.regs[0][REG_CR3], 0x1000);
        assert_int_equal(v->rip, 0x1000);
    }
}

/* "Activating IA-32e Mode": not with a 16-bit TSS. */
static void long_mode_begins(void **state)
{
    static const struct {
        uint16_t tss;
        bool allowed;
    } kinds[] = {{0x81, false}, {0x83, false}, {0x89, true}, {0x8b, true}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        begin(0, false);
        fake.regs[0][REG_CR0] = CR0_PE;
        fake.regs[0][REG_EFER] = EFER_LME;
        fake.segs[0][SEG_CS].attr = 0x9b;
        fake.segs[0][SEG_TR].attr = kinds[i].tss;
        assert_int_equal(cr_write(v, 0, CR0_PE | CR0_PG), kinds[i].allowed ? HV_OK : HV_EPERM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quick_moves),
        cmocka_unit_test(changed_bytes),
        cmocka_unit_test(long_mode_begins),
    };

    return cmocka_run_group_tests_name("control registers", tests, NULL, NULL);
}

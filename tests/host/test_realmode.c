/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Running a guest's code in software (kernel/vm/realmode.c and what it stands on): programs in real and
 * in 16-bit protected mode, assembled here, run in a machine of 2 MiB whose processor cannot enter real
 * mode. What single instructions compute is compared with the processor in test_emul_diff.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/emul/emul.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/memwait.h"
#include "tests/host/fakevm.h"
#include "tests/host/flatmem.h"

#define MEMORY_BYTES (2u << 20)
#define CODE 0x8000u
#define STACK 0x7000u
#define OUT_PORT 0x80u

static uint8_t *const memory = flat.bytes;
static struct vcpu *const v = &fake.vcpu[0];
static bool again;            /* the next access to memory waits */
static bool enterable;        /* what the processor says; else: protected mode, CS reloaded */
static struct event queue;    /* what event_prepare has queued */
static struct event to_queue; /* what it will */
static char said[256];        /* bytes written to OUT_PORT */
static unsigned nr_said, steps, served;
static bool random_code; /* whatever it does is all right */
static struct rng rng;

bool sched_resched_wanted;

struct cpu *this_cpu(void)
{
    static struct cpu cpu;

    return &cpu;
}

enum exit_action insn_single_step(struct vcpu *cpu)
{
    steps++;
    vcpu_inject_exception(cpu, EXC_DB, false, 0);
    return ACT_RESUME;
}

/* A task switch's. */
enum hv_err cr_write(struct vcpu *cpu, unsigned cr, uint64_t value)
{
    (void)cpu, (void)cr, (void)value;
    abort();
}

void memwait_served(struct vcpu *cpu, bool to_the_end)
{
    (void)cpu;
    assert_true(to_the_end);
    served++;
}

enum exit_action exit_again(struct vcpu *cpu, enum hv_err err)
{
    (void)cpu;
    return err == HV_EFAULT ? ACT_RESUME : ACT_LEAVE;
}

enum hv_err guestmem_translate(struct vcpu *cpu, gva_t gva, uint32_t access, bool fast, gpa_t *out)
{
    (void)cpu, (void)access, (void)fast;
    if (again) {
        again = false;
        return HV_EAGAIN;
    }
    *out = GPA(gva.a);
    return HV_OK;
}

const uint8_t *vcpu_code(struct vcpu *cpu, unsigned len)
{
    (void)cpu, (void)len;
    return NULL; /* never on the fast path */
}

enum hv_err guestmem_fetch(struct vcpu *cpu, bool fast, uint8_t bytes[15], unsigned *got)
{
    struct segment cs;

    (void)fast;
    hv->get_seg(cpu, SEG_CS, &cs);
    uint32_t at = (uint32_t)(cs.base + cpu->rip);
    if (at >= MEMORY_BYTES - 15) {
        return HV_ENOENT;
    }
    memcpy(bytes, memory + at, 15);
    *got = 15;
    return HV_OK;
}

enum hv_err bus_port(struct bus *b, struct vcpu *cpu, uint64_t port, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b, (void)cpu;
    if (write && port == OUT_PORT && !random_code) {
        assert_in_range(nr_said + size, 1, sizeof said);
        memcpy(said + nr_said, value, size);
        nr_said += size;
    }
    *value = 0x5a5a5a5a;
    return HV_OK;
}

/* --- exits, as exit.c would serve them --- */

static enum exit_action on_port(struct vcpu *cpu, struct vm_exit *exit)
{
    uint64_t value = cpu->gpr[GPR_RAX];

    assert_int_equal(bus_port(NULL, cpu, exit->port.port, exit->port.size, !exit->port.in, &value),
                     HV_OK);
    if (exit->port.in) {
        memcpy(&cpu->gpr[GPR_RAX], &value, exit->port.size);
    }
    vcpu_advance(cpu, exit->insn_len);
    return ACT_RESUME;
}

static enum exit_action on_string(struct vcpu *cpu, struct vm_exit *exit)
{
    char text[64];
    enum hv_err err = emul_string_io(cpu, &exit->port, false, text, sizeof text);

    assert_true(random_code || err == HV_OK);
    return err == HV_OK || err == HV_EFAULT ? ACT_RESUME : ACT_LEAVE;
}

static enum exit_action on_cr(struct vcpu *cpu, struct vm_exit *exit)
{
    uint64_t value = 0;
    uint8_t len = 0;

    enum hv_err err = emul_decode_cr(cpu, &exit->cr, false, &len, &value);
    if (random_code && (err || exit->cr.cr != 0)) {
        return ACT_LEAVE;
    }
    assert_int_equal(err, HV_OK);
    assert_int_equal(exit->cr.cr, 0);
    if (exit->cr.write) {
        hv->set_reg(cpu, REG_CR0, exit->cr.decoded ? cpu->gpr[exit->cr.gpr] : value);
    } else if (exit->cr.decoded) {
        cpu->gpr[exit->cr.gpr] = hv->get_reg(cpu, REG_CR0);
    }
    vcpu_advance(cpu, len);
    return ACT_RESUME;
}

static enum exit_action on_hlt(struct vcpu *cpu, struct vm_exit *exit)
{
    vcpu_advance(cpu, exit->insn_len);
    cpu->halted = true;
    return ACT_LEAVE;
}

static enum exit_action on_undefined(struct vcpu *cpu, struct vm_exit *exit)
{
    (void)exit;
    vcpu_inject_exception(cpu, EXC_UD, false, 0);
    return ACT_RESUME;
}

/* The rest: its kind is written down. */
static enum exit_action on_other(struct vcpu *cpu, struct vm_exit *exit)
{
    said[nr_said++ % sizeof said] = (char)exit->kind;
    vcpu_advance(cpu, exit->insn_len);
    return ACT_RESUME;
}

const struct exit_handlers exit_table[NR_EXIT_KINDS] = {
    [EXIT_PORT] = {on_port, on_port},
    [EXIT_STRING_IO] = {on_string, on_string},
    [EXIT_VIRT_INSN] = {on_undefined, on_undefined},
    [EXIT_CR] = {on_cr, on_cr},
    [EXIT_HLT] = {on_hlt, on_hlt},
    [EXIT_CPUID] = {on_other, on_other},
    [EXIT_MSR] = {on_other, on_other},
    [EXIT_RDTSC] = {on_other, on_other},
    [EXIT_WBINVD] = {on_other, on_other},
    [EXIT_PAUSE] = {on_other, on_other},
    [EXIT_INVLPG] = {on_other, on_other},
    [EXIT_XSETBV] = {on_other, on_other},
    [EXIT_DR] = {dr_exit, dr_exit},
    [EXIT_RDPMC] = {on_other, on_other},
    [EXIT_HYPERCALL] = {on_other, on_other},
    [EXIT_MONITOR] = {on_other, on_other},
    [EXIT_MWAIT] = {on_other, on_other},
};

/* --- events, as event.c and a vendor would --- */

bool event_prepare(struct vcpu *cpu)
{
    bool taken_by_if = to_queue.type != EVENT_INTERRUPT ||
                       ((hv->get_reg(cpu, REG_RFLAGS) & RFLAGS_IF) && !fake.blocked[BLOCK_SHADOW]);

    if (queue.type == EVENT_NONE && fake.exception.count) {
        queue = (struct event){.type = EVENT_EXCEPTION,
                               .vector = fake.exception.vector,
                               .has_error = fake.exception.has_error,
                               .error = fake.exception.error};
        fake.exception.count = 0;
    } else if (queue.type == EVENT_NONE && cpu->interrupted.type != EVENT_NONE) {
        queue = cpu->interrupted;
        cpu->interrupted.type = EVENT_NONE;
    } else if (queue.type == EVENT_NONE && to_queue.type != EVENT_NONE && taken_by_if &&
               !(to_queue.type == EVENT_NMI && fake.blocked[BLOCK_NMI])) {
        queue = to_queue;
        to_queue.type = EVENT_NONE;
    }
    return fake.stops == 0;
}

static bool is_enterable(struct vcpu *cpu)
{
    (void)cpu;
    return enterable;
}

static bool withdraw(struct vcpu *cpu, struct event *out)
{
    (void)cpu;
    *out = queue;
    queue.type = EVENT_NONE;
    return out->type != EVENT_NONE;
}

static void block(struct vcpu *cpu, enum block what, bool on)
{
    (void)cpu;
    fake.blocked[what] = on;
}

/* --- programs --- */

#define PROGRAM(name, text)                                                 \
    extern const uint8_t name##_start[], name##_end[];                      \
    __asm__(".section .rodata\n.code16\n" #name "_start:\n" text "\n" #name \
            "_end:\n.code64\n.previous\n")

static void fresh(void)
{
    static struct hv_backend backend;
    static struct hv_emulation emulation;

    flat.size = MEMORY_BYTES;
    memset(memory, 0, MEMORY_BYTES);
    fakevm_reset(1);
    backend = *hv;
    emulation =
        (struct hv_emulation){.enterable = is_enterable, .withdraw = withdraw, .block = block};
    backend.emulation = &emulation;
    hv = &backend;
    for (unsigned i = 0; i < SEG_LDTR; i++) {
        fake.segs[0][i] = (struct segment){.attr = 0x93, .limit = 0xffff};
    }
    fake.segs[0][SEG_CS].attr = 0x9b;
    fake.segs[0][SEG_IDTR].limit = 0x3ff;
    fake.regs[0][REG_CR0] = CR0_ET;
    fake.regs[0][REG_RFLAGS] = 2;
    fake.regs[0][REG_RSP] = STACK;
    v->rip = CODE;
    again = enterable = false;
    queue.type = to_queue.type = EVENT_NONE;
    nr_said = steps = 0;
    served = 0;
}

static void run_loaded(void)
{
    for (unsigned i = 0; i < 100 && !v->halted && !enterable && fake.stops == 0; i++) {
        struct vm_exit exit = {.kind = EXIT_EMULATE};

        (void)realmode_exit(v, &exit);
    }
}

static void load(const uint8_t *start, const uint8_t *end)
{
    fresh();
    memcpy(memory + CODE, start, (size_t)(end - start));
}

static void set_vector(unsigned vector, uint16_t offset)
{
    memcpy(memory + 4 * vector, &offset, 2);
}

#define RUN(name)                       \
    do {                                \
        load(name##_start, name##_end); \
        run_loaded();                   \
        assert_true(v->halted);         \
    } while (0)

static uint16_t ax(void)
{
    return (uint16_t)v->gpr[GPR_RAX];
}

static void test_flow(void **state)
{
    (void)state;
    PROGRAM(flow, "xor %ax, %ax; mov $5, %cx; 1: add %cx, %ax; loop 1b\n" /* 15 */
                  "call 2f; jmp 3f\n"
                  "2: add $100, %ax; ret\n"
                  "3: push $0x1234; push $7; call 4f; jmp 5f\n"
                  "4: mov %sp, %bp; add 2(%bp), %ax; ret $4\n" /* + 7 */
                  "5: lcall $0x100, $(far_target - flow_start + 0x7000)\n"
                  "cmp $1123, %ax; jne 9f\n"
                  "mov $far_pointer - flow_start + 0x8000, %bx; ljmp *(%bx)\n"
                  "9: hlt\n"
                  "far_target: add $1001, %ax; lret\n"
                  "far_pointer: .word back - flow_start + 0x7f00, 0x10\n"
                  "back: mov %cs, %dx; mov $3, %cx; 6: dec %ax; cmp $1121, %ax; loopne 6b\n"
                  "jcxz 7f; inc %si\n"
                  "7: movw $8f - flow_start + 0x7f00, %bx; jmp *%bx; inc %di\n"
                  "8: hlt");
    RUN(flow);
    assert_int_equal(ax(), 1121);
    assert_int_equal(v->gpr[GPR_RDX], 0x10);
    assert_int_equal(v->gpr[GPR_RSI], 1);
    assert_int_equal(v->gpr[GPR_RDI], 0);
    assert_int_equal(fake.regs[0][REG_RSP], STACK);
    assert_int_equal(fake.segs[0][SEG_CS].base, 0x100);
}

static void test_interrupts(void **state)
{
    (void)state;
    PROGRAM(ints, "movw $handler - ints_start + 0x8000, 4*0x21; movw $0, 4*0x21+2\n"
                  "stc; sti; int $0x21; jnc 1f; mov $0xdead, %bx\n"
                  "1: pushf; popf; pushf; pop %dx; hlt\n"
                  "handler: pushf; pop %cx; mov $0x4c, %al; push %bp; mov %sp, %bp\n"
                  "andw $~1, 6(%bp); pop %bp; iret");
    RUN(ints);
    assert_int_equal(v->gpr[GPR_RBX], 0);
    assert_int_equal(v->gpr[GPR_RAX], 0x4c);
    assert_int_equal(v->gpr[GPR_RCX] & RFLAGS_IF, 0);
    assert_int_equal(v->gpr[GPR_RDX] & (RFLAGS_IF | RFLAGS_CF), RFLAGS_IF);
}

static void test_data(void **state)
{
    (void)state;
    PROGRAM(data, "mov $0x2000, %ax; mov %ax, %es; mov %ax, %ds; mov $0x3000, %ax; mov %ax, %fs\n"
                  "push %es; pop %gs; mov %gs, %bx\n"
                  "movw $0x1122, 0x10; movw $0x3344, 0x12; lds 0x10, %si; mov %ds, %dx\n"
                  "mov %es, %ax; mov %ax, %ds\n"
                  "mov $8, %cx; mov $0x20, %di; mov $0xabcd, %ax; cld; rep stosw\n"
                  "mov $0x20, %si; mov $0x40, %di; mov $4, %cx; rep movsl\n"
                  "pusha; xor %edi, %edi; popa; mov 0x4e, %cx\n"
                  "mov $0x80, %dx; mov $'o', %al; out %al, %dx; mov $'k', %al; out %al, $0x80\n"
                  "in $0x60, %ax; mov $0x20, %si; mov $2, %cx; rep outsb\n"
                  "enter $16, $0; leave; mov $0x100, %bx; movb $9, 0x103; mov $3, %al; xlat\n"
                  "hlt");
    RUN(data);
    assert_int_equal(v->gpr[GPR_RBX], 0x100);
    assert_int_equal(v->gpr[GPR_RDX] & 0xffff, 0x80);
    assert_int_equal(fake.segs[0][SEG_GS].selector, 0x2000);
    assert_int_equal(fake.segs[0][SEG_FS].base, 0x30000);
    assert_memory_equal(said, "ok\xcd\xab", 4);
    assert_int_equal(ax(), 0x5a09);
    assert_int_equal(v->gpr[GPR_RDI], 0x50);
    assert_int_equal(fake.regs[0][REG_RSP], STACK);
}

static void test_exits(void **state)
{
    static const char kinds[] = {EXIT_CPUID,     EXIT_MSR,     EXIT_MSR,    EXIT_RDTSC,  EXIT_RDTSC,
                                 EXIT_WBINVD,    EXIT_PAUSE,   EXIT_INVLPG, EXIT_XSETBV, EXIT_RDPMC,
                                 EXIT_HYPERCALL, EXIT_MONITOR, EXIT_MWAIT,  EXIT_WBINVD};
    (void)state;
    PROGRAM(exits, "cpuid; rdmsr; wrmsr; rdtsc; rdtscp; wbinvd; pause; invlpg (%bx); xsetbv\n"
                   "rdpmc; vmcall; monitor; mwait; invd; nop; smsw %cx; hlt");
    RUN(exits);
    assert_int_equal(nr_said, sizeof kinds - 1); /* INVLPG is dealt with, with nested tables */
    load(exits_start, exits_end);
    fake.vm.software_mmu = true;
    run_loaded();
    assert_int_equal(nr_said, sizeof kinds);
    assert_memory_equal(said, kinds, sizeof kinds);
    assert_int_equal(v->gpr[GPR_RCX], CR0_ET);
}

static void test_debug_registers(void **state)
{
    (void)state;
    PROGRAM(drs, "movw $detected - drs_start + 0x8000, 4; movw $unknown - drs_start + 0x8000, 24\n"
                 "mov $0x12345678, %eax; mov %eax, %dr0; inc %eax; mov %eax, %dr3\n"
                 "mov $-1, %eax; mov %eax, %dr6; mov %dr4, %ebx; mov $0xdfff, %eax\n"
                 "mov %eax, %dr5; mov %dr7, %ecx; mov $0x2000, %ax; mov %eax, %dr7\n"
                 "mov %dr0, %edx; hlt\n"
                 "detected: mov %dr6, %esi; mov %dr7, %edi; mov %dr3, %edx; mov %edx, %esp; hlt\n"
                 "unknown: mov $7, %bp; hlt");
    RUN(drs);
    assert_int_equal(fake.regs[0][REG_DR0], 0x12345678);
    assert_int_equal(v->gpr[GPR_RBX], 0xffffeff0 | 0xf);
    assert_int_equal(v->gpr[GPR_RCX], 0x400 | (0xdfff & 0x3ff));
    assert_int_equal(v->gpr[GPR_RSI], 0xffffeff0 | 0xf);
    assert_int_equal(v->gpr[GPR_RDI], 0x400);
    assert_int_equal(v->gpr[GPR_RDX], 0x12345679);
    load(drs_start, drs_end);
    fake.regs[0][REG_CR4] = CR4_DE; /* DR4 is no register then */
    run_loaded();
    assert_int_equal(v->gpr[GPR_RBP], 7);
    /* What does not fit into DR7 in 64-bit mode, and RSP as an operand. */
    fresh();
    fake.regs[0][REG_CR0] = CR0_ET | CR0_PE | CR0_PG;
    fake.regs[0][REG_EFER] = EFER_LME | EFER_LMA;
    fake.segs[0][SEG_CS].attr = 0x29b;
    memcpy(memory + CODE, "\x0f\x23\xfc\x0f\x21\xd4", 6);
    fake.regs[0][REG_RSP] = 0x100000400;
    fake.regs[0][REG_DR0 + 2] = 0xffff800000001000;
    struct vm_exit exit = {.kind = EXIT_DR};
    assert_int_equal(dr_exit(v, &exit), ACT_RESUME);
    assert_int_equal(fake.exception.vector, EXC_GP);
    v->rip = CODE + 3;
    assert_int_equal(dr_exit(v, &exit), ACT_RESUME);
    assert_int_equal(v->rip, CODE + 6);
    assert_int_equal(fake.regs[0][REG_RSP], 0xffff800000001000);
}

/* Each exception of real mode arrives at its vector, with RIP at the instruction. */
static void test_exceptions(void **state)
{
    (void)state;
    PROGRAM(faults, "movw $handler1 - faults_start + 0x8000, 0\n"
                    "movw $handler1 - faults_start + 0x8000, 4*6\n"
                    "movw $handler1 - faults_start + 0x8000, 4*13\n"
                    "movw $handler1 - faults_start + 0x8000, 4*12\n"
                    "movw $handler1 - faults_start + 0x8000, 4*5\n"
                    "movw $handler1 - faults_start + 0x8000, 4*4\n"
                    "xor %bx, %bx; mov $9f - faults_start + 0x8000, %si\n"
                    "xor %cx, %cx; div %cl; 9: ud2; str %ax\n"
                    "mov $0xffff, %di; mov (%di), %ax\n"        /* beyond the limit */
                    "mov $0xffff, %bp; mov (%bp), %ax\n"        /* the same of the stack */
                    "mov $0x80, %al; add %al, %al; into; hlt\n" /* a trap: behind it */
                    /* Steps over a fault: two bytes, three of the third and fifth. */
                    "handler1: inc %bx; push %bp; mov %sp, %bp; addw $2, 2(%bp)\n"
                    "cmp $3, %bx; je 3f; cmp $5, %bx; jne 1f; 3: incw 2(%bp); 1: cmp $6, %bx; jne "
                    "2f; subw $2, 2(%bp)\n"
                    "2: pop %bp; iret");
    RUN(faults);
    assert_int_equal(v->gpr[GPR_RBX] & 0xffff, 6);
    assert_int_equal(fake.regs[0][REG_RSP], STACK);
}

/* What no guest has: #UD, with RIP at the instruction. */
static void test_undefined(void **state)
{
    static const uint8_t code[][4] = {
        {0x0f, 0x0b},             /* UD2 */
        {0x0f, 0x01, 0xc2},       /* VMLAUNCH */
        {0x0f, 0x01, 0xc3},       /* VMRESUME */
        {0x0f, 0x01, 0xc4},       /* VMXOFF */
        {0x0f, 0x01, 0xc0},       /* ENCLV */
        {0x0f, 0x01, 0xc5},       /* PCONFIG */
        {0x0f, 0x01, 0xcf},       /* ENCLS */
        {0x0f, 0x01, 0xd4},       /* VMFUNC */
        {0x0f, 0x01, 0xd5},       /* XEND */
        {0x0f, 0x01, 0xd7},       /* ENCLU */
        {0x0f, 0x01, 0xd8},       /* VMRUN */
        {0x0f, 0x01, 0xda},       /* VMLOAD */
        {0x0f, 0x01, 0xdb},       /* VMSAVE */
        {0x0f, 0x01, 0xdc},       /* STGI */
        {0x0f, 0x01, 0xdd},       /* CLGI */
        {0x0f, 0x01, 0xde},       /* SKINIT */
        {0x0f, 0x01, 0xdf},       /* INVLPGA */
        {0x0f, 0x37},             /* GETSEC */
        {0x0f, 0x78, 0xc0},       /* VMREAD */
        {0x0f, 0x79, 0xc0},       /* VMWRITE */
        {0x0f, 0xaa},             /* RSM */
        {0x0f, 0xc7, 0x30},       /* VMPTRLD */
        {0x66, 0x0f, 0xc7, 0x30}, /* VMCLEAR */
        {0xf3, 0x0f, 0xc7, 0x30}, /* VMXON */
        {0x0f, 0xc7, 0x38},       /* VMPTRST */
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
        uint16_t ip;

        fresh();
        set_vector(EXC_UD, 0x600);
        memory[0x600] = 0xf4;
        memcpy(memory + CODE, code[i], sizeof code[i]);
        run_loaded();
        assert_true(v->halted);
        assert_int_equal(v->rip, 0x601);
        memcpy(&ip, memory + STACK - 6, 2);
        assert_int_equal(ip, CODE);
    }
}

static void test_big_real_mode(void **state)
{
    (void)state;
    PROGRAM(big,
            "lgdtl 8f - big_start + 0x8000; mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
            "mov $8, %bx; mov %bx, %fs; mov %bx, %es; dec %ax; lmsw %ax\n" /* cannot clear PE */
            "mov %cr0, %eax; and $~1, %al; mov %eax, %cr0\n"
            "xor %bx, %bx; mov %bx, %fs; mov $0x180000, %ebx\n"
            "movl $0x12345678, %fs:(%ebx); mov %fs:(%ebx), %ecx\n"
            "sgdt 0x600; mov 0x602, %edx; mov $0x9000, %bx; mov %bx, %es; hlt\n"
            ".balign 8\n 7: .quad 0, 0x00cf92000000ffff\n"
            "8: .word 15; .long 7b - big_start + 0x8000");
    RUN(big);
    assert_int_equal(v->gpr[GPR_RCX], 0x12345678);
    assert_int_equal(memory[0x180000], 0x78);
    assert_true(served >= 20); /* a turn to take frames ends with each instruction */
    assert_int_equal(fake.segs[0][SEG_FS].limit, UINT32_MAX);
    assert_int_equal(fake.segs[0][SEG_FS].base, 0);
    assert_int_equal(fake.segs[0][SEG_ES].base, 0x90000);
    assert_int_equal(fake.segs[0][SEG_GDTR].limit, 15);
    assert_int_equal(v->gpr[GPR_RDX], fake.segs[0][SEG_GDTR].base);
    /* The accessed bit was set in memory. */
    assert_int_equal(memory[fake.segs[0][SEG_GDTR].base + 8 + 5], 0x93);
}

/* What follows runs in 16-bit protected mode: GDT entries 1 data, 2 code, 3 not present, 4 read-only,
 * 5 conforming code, 6 TSS, 7 LDT, 8 data of DPL 0 in the local table's stead; IDT at 0x500. */
static const uint64_t gdt[] = {0,
                               0x00cf92000000ffff,
                               0x00009a000000ffff,
                               0x0000120000000000,
                               0x00cf90000000ffff,
                               0x00009e000000ffff,
                               0x0000890010000067,
                               0x0000820012000007,
                               0x00009a000000ffff | 3ull << 45};

static void enter_protected(const uint8_t *start, const uint8_t *end)
{
    static const uint16_t handler = CODE + 0x200;

    load(start, end);
    memcpy(memory + 0x2000, gdt, sizeof gdt);
    memcpy(memory + 0x1200, &gdt[1], 8); /* the local table */
    for (unsigned i = 0; i < 32; i++) {
        uint64_t gate =
            (handler & 0xffffu) | 0x10 << 16 | 0x86ull << 40; /* 16-bit interrupt gate */

        memcpy(memory + 0x500 + 8 * i, &gate, 8);
    }
    memory[CODE + 0x200] = 0xf4;
    fake.regs[0][REG_CR0] |= CR0_PE;
    fake.segs[0][SEG_GDTR] = (struct segment){.base = 0x2000, .limit = sizeof gdt - 1};
    fake.segs[0][SEG_IDTR] = (struct segment){.base = 0x500, .limit = 255};
}

/* An instruction faults: with that error code on the handler's stack. */
static void expect_fault(const uint8_t *start, const uint8_t *end, uint16_t error)
{
    uint16_t top[4];

    enter_protected(start, end);
    run_loaded();
    assert_true(v->halted);
    assert_int_equal(v->rip, CODE + 0x201);
    memcpy(top, memory + fake.regs[0][REG_RSP], sizeof top);
    assert_int_equal(fake.regs[0][REG_RSP], STACK - 8);
    assert_int_equal(top[0], error);
    assert_in_range(top[1], CODE, CODE + (end - start) - 1);
    assert_int_equal(fake.segs[0][SEG_CS].selector, 0x10);
}

#define FAULT(name, text, error)                       \
    do {                                               \
        PROGRAM(name, text);                           \
        expect_fault(name##_start, name##_end, error); \
    } while (0)

static void test_protected_faults(void **state)
{
    (void)state;
    FAULT(f1, "xor %ax, %ax; mov %ax, %ss; hlt", 0);
    FAULT(f2, "mov $0x18, %ax; mov %ax, %ds; hlt", 0x18);   /* not present, but no data either */
    FAULT(f3, "mov $0x20, %ax; mov %ax, %ss; hlt", 0x20);   /* read-only */
    FAULT(f4, "mov $0x0b, %ax; mov %ax, %es; hlt", 0x08);   /* RPL above DPL */
    FAULT(f5, "mov $0x100, %ax; mov %ax, %gs; hlt", 0x100); /* beyond the table */
    FAULT(f6, "mov $0x0c, %ax; mov %ax, %gs; hlt", 0x0c);   /* no local table */
    FAULT(f7, "ljmp $0x08, $0; hlt", 0x08);                 /* data */
    FAULT(f8, "ljmp $0, $0; hlt", 0);
    FAULT(f9, "ljmp $0x40, $0; hlt", 0x40); /* less privileged code */
    FAULT(f10, "mov $0x38, %ax; ltr %ax; hlt", 0x38);
    FAULT(f11, "mov $0x30, %ax; lldt %ax; hlt", 0x30);
    FAULT(f12, "int $0x30; hlt", 0x30 * 8 + 2); /* beyond the IDT */
}

static void test_protected(void **state)
{
    (void)state;
    PROGRAM(prot,
            "mov $8, %ax; mov %ax, %ss; mov %ax, %ds; mov %ax, %es; xor %bx, %bx; mov %bx, %fs\n"
            "mov $0x38, %ax; lldt %ax; sldt %bx; mov $0x30, %ax; ltr %ax; str %cx\n"
            "mov $4, %ax; mov %ax, %gs\n"
            "ljmp $0x28, $1f - prot_start + 0x8000; 1: mov %cs, %dx; int $9; hlt");
    enter_protected(prot_start, prot_end);
    run_loaded();
    assert_true(v->halted);
    assert_int_equal(v->gpr[GPR_RBX], 0x38);
    assert_int_equal(v->gpr[GPR_RCX], 0x30);
    assert_int_equal(v->gpr[GPR_RDX], 0x28);
    assert_int_equal(fake.segs[0][SEG_FS].attr & 0x80, 0);
    assert_int_equal(fake.segs[0][SEG_GS].selector, 4);
    assert_int_equal(fake.segs[0][SEG_TR].attr & 0xf, 11);
    assert_int_equal(memory[0x2000 + 0x30 + 5], 0x8b); /* busy */
    assert_int_equal(v->rip, CODE + 0x201);            /* by INT 9's gate */
    assert_int_equal(fake.regs[0][REG_RSP], STACK - 6);
}

/* Until the processor takes over. */
static void test_hand_over(void **state)
{
    (void)state;
    PROGRAM(over, "1: inc %ax; jmp 1b");
    load(over_start, over_end);
    struct vm_exit exit = {.kind = EXIT_EMULATE};
    assert_int_equal(realmode_exit(v, &exit), ACT_LEAVE); /* one bounded round */
    assert_in_range(ax(), 100, 1000);
    enterable = true;
    unsigned before = ax();
    assert_int_equal(realmode_exit(v, &exit), ACT_LEAVE);
    assert_int_equal(ax(), before);
    enterable = false;
    fake.stops = 1;
    assert_int_equal(realmode_exit(v, &exit), ACT_LEAVE);
}

static void test_events(void **state)
{
    (void)state;
    PROGRAM(events, "movw $irq - events_start + 0x8000, 4*0x30\n"
                    "mov $0x40, %bl; sti; nop; 2: nop; hlt\n"
                    "irq: pop %dx; push %dx; inc %ax; iret");
    /* An interrupt waits for STI and its shadow. */
    load(events_start, events_end);
    to_queue = (struct event){.type = EVENT_INTERRUPT, .vector = 0x30};
    run_loaded();
    assert_true(v->halted);
    assert_int_equal(ax(), 1);
    assert_int_equal(v->gpr[GPR_RDX], CODE + 6 + 2 + 1 + 1);
    /* Memory that is not there yet: the delivery begins again. */
    load(events_start, events_end);
    to_queue = (struct event){.type = EVENT_INTERRUPT, .vector = 0x30};
    fake.regs[0][REG_RFLAGS] |= RFLAGS_IF;
    set_vector(0x30, CODE + 12);
    again = true;
    queue = to_queue;
    to_queue.type = EVENT_NONE;
    struct vm_exit exit = {.kind = EXIT_EMULATE};
    assert_int_equal(realmode_exit(v, &exit), ACT_LEAVE);
    assert_int_equal(v->interrupted.type, EVENT_INTERRUPT);
    assert_int_equal(v->rip, CODE);
    run_loaded();
    assert_int_equal(ax(), 1);
    /* NMIs are blocked until IRET. */
    load(events_start, events_end);
    set_vector(2, CODE + 12);
    queue = (struct event){.type = EVENT_NMI, .vector = 2};
    to_queue = queue;
    run_loaded();
    assert_int_equal(ax(), 2);
    assert_false(fake.blocked[BLOCK_NMI]);
}

static void test_unknown(void **state)
{
    (void)state;
    PROGRAM(unknown, "fninit; hlt");
    load(unknown_start, unknown_end);
    run_loaded();
    assert_int_equal(fake.stops, 1);
    assert_int_equal(fake.vm.stop_reason, STOP_EMULATION);
    assert_non_null(strstr(fake.vm.stop_text, "db e3"));
    /* Nothing there: as an undefined instruction. */
    fresh();
    set_vector(6, 0x600);
    memory[0x600] = 0xf4;
    fake.segs[0][SEG_CS].base = 0xf0000000;
    run_loaded();
    assert_true(v->halted);
    assert_int_equal(v->rip, 0x601);
}

/* Code that is no program, in real and in protected mode with tables of noise: nothing worse than a stop,
 * and no page stays pinned. */
static void test_noise(void **state)
{
    (void)state;
    random_code = true;
    for (unsigned n = 0; n < 4000; n++) {
        fresh();
        for (unsigned i = 0; i < 0x3000; i += 8) {
            uint64_t value = rng_next(&rng);
            memcpy(memory + i, &value, 8);
            memcpy(memory + CODE - 0x1000 + i, &value, 8);
        }
        for (unsigned i = 0; i < NR_GPRS; i++) {
            v->gpr[i] = rng_next(&rng) >> rng_below(&rng, 64);
        }
        fake.regs[0][REG_RFLAGS] = (rng_next(&rng) & 0x8d5) | 2;
        fake.regs[0][REG_CR0] |= rng_below(&rng, 2) ? CR0_PE : 0;
        fake.segs[0][SEG_CS].attr |= rng_below(&rng, 2) ? 0x400 : 0;
        fake.segs[0][SEG_SS].attr |= rng_below(&rng, 2) ? 0x400 : 0;
        fake.segs[0][SEG_GDTR] = (struct segment){.base = 0x1000, .limit = 0xfff};
        for (unsigned i = 0; i < 3 && !v->halted && fake.stops == 0; i++) {
            struct vm_exit exit = {.kind = EXIT_EMULATE};

            (void)realmode_exit(v, &exit);
        }
        assert_int_equal(flat.pins, 0);
    }
    random_code = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flow),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_exits),
        cmocka_unit_test(test_debug_registers),
        cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_undefined),
        cmocka_unit_test(test_big_real_mode),
        cmocka_unit_test(test_protected_faults),
        cmocka_unit_test(test_protected),
        cmocka_unit_test(test_hand_over),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_noise),
    };

    rng_seed(&rng, 0x8ea1);
    return emul_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

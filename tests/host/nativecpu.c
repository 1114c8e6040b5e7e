/* SPDX-License-Identifier: BSD-2-Clause */
/* See nativecpu.h. */
#define _GNU_SOURCE
#include "tests/host/nativecpu.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE_OFFSET 0x100u /* of the instruction in its page */
#define BACK_OFFSET 0x20u  /* of the way back from 32-bit code */
#define USER_CS 0x33u
#define SELECTOR(entry) ((uint16_t)((entry) << 3 | 7))

/* What native_enter loads and stores; layout known to the assembly. */
struct native_regs native_state __asm__("native_state");
struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) native_far __asm__("native_far");
uint64_t native_target __asm__("native_target");
uint64_t native_stack __asm__("native_stack");
uint64_t native_is_64 __asm__("native_is_64");

void native_enter(void);
extern const char native_back[], native_resume[];
__asm__(".text\n"
        "native_enter:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, native_stack(%rip)\n"
        "lea native_state(%rip), %rax\n"
        "mov 128(%rax), %rbx\n"
        "push %rbx\n"
        "cmpq $0, native_is_64(%rip)\n"
        "jne 1f\n"
        "mov 136(%rax), %es; mov 142(%rax), %ds; mov 146(%rax), %gs\n"
        "popfq\n"
        "mov 140(%rax), %ss\n" /* the next instruction follows without an interrupt */
        "mov 32(%rax), %rsp\n"
        "jmp 2f\n"
        "1: popfq\n"
        "mov 32(%rax), %rsp\n"
        "2: mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 40(%rax), %rbp\n"
        "mov 48(%rax), %rsi; mov 56(%rax), %rdi; mov 64(%rax), %r8; mov 72(%rax), %r9\n"
        "mov 80(%rax), %r10; mov 88(%rax), %r11; mov 96(%rax), %r12; mov 104(%rax), %r13\n"
        "mov 112(%rax), %r14; mov 120(%rax), %r15; mov (%rax), %rax\n"
        "jmp *native_target(%rip)\n"
        "native_leap: ljmpl *native_far(%rip)\n"
        "native_back:\n"
        "mov %rax, native_state(%rip); mov %rcx, 8+native_state(%rip)\n"
        "mov %rdx, 16+native_state(%rip); mov %rbx, 24+native_state(%rip)\n"
        "mov %rsp, 32+native_state(%rip); mov %rbp, 40+native_state(%rip)\n"
        "mov %rsi, 48+native_state(%rip); mov %rdi, 56+native_state(%rip)\n"
        "mov %r8, 64+native_state(%rip); mov %r9, 72+native_state(%rip)\n"
        "mov %r10, 80+native_state(%rip); mov %r11, 88+native_state(%rip)\n"
        "mov %r12, 96+native_state(%rip); mov %r13, 104+native_state(%rip)\n"
        "mov %r14, 112+native_state(%rip); mov %r15, 120+native_state(%rip)\n"
        "mov native_stack(%rip), %rsp\n"
        "pushfq; pop 128+native_state(%rip)\n"
        "native_resume:\n"
        "push $0x202; popfq\n"
        "cmpq $0, native_is_64(%rip)\n"
        "jne 3f\n"
        "mov $0x2b, %eax; mov %eax, %ss; xor %eax, %eax; mov %eax, %ds; mov %eax, %es\n"
        "mov %eax, %gs\n"
        "3: pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");
extern const char native_leap[];

static uint8_t *page;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                      REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                      REG_R12, REG_R13, REG_R14, REG_R15};
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)g[REG_RIP], linear = rip < 4096 ? (uint64_t)page + rip : rip;

    (void)info;
    if (linear != (uint64_t)page + CODE_OFFSET) {
        struct sigaction dfl = {.sa_handler = SIG_DFL};

        sigaction(signal, &dfl, NULL); /* not ours: end as usual */
        return;
    }
    for (unsigned i = 0; i < 16; i++) {
        native_state.gpr[i] = (uint64_t)g[order[i]];
    }
    native_state.flags = (uint64_t)g[REG_EFL];
    native_state.vector = (unsigned)g[REG_TRAPNO];
    native_state.error = (uint32_t)g[REG_ERR];
    native_state.cr2 = (uint64_t)g[REG_CR2];
    g[REG_RIP] = (greg_t)native_resume;
    g[REG_RSP] = (greg_t)native_stack;
    g[REG_EFL] = 0x202;
    g[REG_CSGSFS] = (greg_t)(USER_CS | 0x2bull << 48);
}

void native_catch_faults(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t alt = {.ss_size = 65536};

    alt.ss_sp = mmap(NULL, alt.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (alt.ss_sp == MAP_FAILED || sigaltstack(&alt, NULL)) {
        abort();
    }
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
        sigaction(signals[i], &sa, NULL);
    }
}

static bool write_entry(struct user_desc *d)
{
    return syscall(SYS_modify_ldt, 1, d, sizeof *d) == 0;
}

/* Some virtual machines take the entries and never load the table. */
static bool is_there(unsigned selector)
{
    bool valid;

    __asm__ volatile("verr %w1" : "=@ccz"(valid) : "r"(selector));
    return valid;
}

bool native_init(uint8_t *code)
{
    struct user_desc d = {.entry_number = 0,
                          .base_addr = (uint32_t)(uintptr_t)code,
                          .limit = 0xffff,
                          .seg_32bit = 1,
                          .contents = MODIFY_LDT_CONTENTS_CODE,
                          .useable = 1};

    page = code;
    /* jmp *0(%rip) to native_back */
    const char *back = native_back;
    memcpy(page + BACK_OFFSET, "\xff\x25\0\0\0\0", 6);
    memcpy(page + BACK_OFFSET + 6, &back, 8);
    return write_entry(&d) && is_there(SELECTOR(0));
}

uint16_t native_segment(unsigned entry, uint32_t base, uint32_t limit, uint16_t attr)
{
    bool pages = limit > 0xfffff;
    struct user_desc d = {.entry_number = entry,
                          .base_addr = base,
                          .limit = pages ? limit >> 12 : limit,
                          .limit_in_pages = pages,
                          .seg_32bit = attr >> 10 & 1,
                          .contents = attr >> 2 & 3,
                          .read_exec_only = !(attr & 2),
                          .useable = 1};

    return write_entry(&d) ? SELECTOR(entry) : 0;
}

uint64_t native_rip(enum native_mode mode)
{
    return mode == NATIVE_64 ? (uint64_t)page + CODE_OFFSET : CODE_OFFSET;
}

void native_gs_base(uint64_t base)
{
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, base)) {
        abort();
    }
}

/* The instruction, and a jump back that needs neither registers nor the stack. */
static void write_code(enum native_mode mode, const uint8_t *insn, unsigned len)
{
    uint8_t *at = page + CODE_OFFSET;
    uint32_t back = (uint32_t)(uintptr_t)(page + BACK_OFFSET);
    uint16_t selector = USER_CS;

    memcpy(at, insn, len);
    at += len;
    if (mode == NATIVE_64) {
        memcpy(at, page + BACK_OFFSET, 14);
        return;
    }
    *at++ = 0xea;
    memcpy(at, &back, 4);
    memcpy(at + 4, &selector, 2);
}

void native_run(enum native_mode mode, struct native_regs *r, const uint8_t *insn, unsigned len)
{
    write_code(mode, insn, len);
    native_state = *r;
    native_state.vector = NATIVE_NO_FAULT;
    native_is_64 = mode == NATIVE_64;
    native_far.offset = CODE_OFFSET;
    native_far.selector = SELECTOR(0);
    native_target = mode == NATIVE_64 ? native_rip(NATIVE_64) : (uint64_t)native_leap;
    native_enter();
    *r = native_state;
}

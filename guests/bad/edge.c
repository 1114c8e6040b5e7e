/* SPDX-License-Identifier: BSD-2-Clause */
/* Instructions on the edge of RAM, code and tables outside it, code that changes while it runs. */
#include "guests/bad/bad.h"
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/paging.h"
#include "guests/lib/power.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"
#include "guests/lib/string.h"
#include "guests/lib/trap.h"

#define HOLE 0xd0000000UL
#define IOAPIC_BASE 0xfec00000UL
#define PIECE 64UL
#define MORPH_CALLS 4000U
#define WAIT_TICKS 300000000UL

#define CLOBBERS "r10", "memory", "cc"

/* First address behind the RAM below 4 GiB. */
static uint64_t ram_end(void)
{
    uint64_t top = boot_loaded_end;
    for (size_t i = 0; i < boot_nr_ram; i++) {
        uint64_t end = boot_ram[i].base + boot_ram[i].size_bytes;
        if (end <= 0xc0000000UL && end > top) {
            top = end;
        }
    }
    return top;
}

static void copy(uint64_t dst, uint64_t src, uint64_t n, bool down)
{
    if (down) {
        __asm__ volatile(TRAP_GUARDED("std; rep movsb; cld")
                         : "+D"(dst), "+S"(src), "+c"(n)
                         :
                         : CLOBBERS);
        __asm__ volatile("cld");
    } else {
        __asm__ volatile(TRAP_GUARDED("rep movsb") : "+D"(dst), "+S"(src), "+c"(n) : : CLOBBERS);
    }
    if (trap_vector() >= 0 || n != 0) {
        console_printf("badguest: copy gave vector %d, %lu left\n", trap_vector(), n);
    }
}

static void copies(uint64_t end)
{
    for (int down = 0; down < 2; down++) {
        uint64_t off = down ? PIECE - 1 : 0, cross = end - PIECE / 2 + off;
        copy(cross, HOLE + off, PIECE, down);
        copy(HOLE + off, cross, PIECE, down);
        copy(cross, 0x200000 + off, PIECE, down);
        copy(0x200000 + off, cross, PIECE, down);
        copy(cross, cross - 3, PIECE, down);
        copy(LAPIC_BASE + 0x1000 - PIECE / 2 + off, HOLE + off, PIECE, down);
        copy(0x200000 + off, IOAPIC_BASE - PIECE / 2 + off, PIECE, down);
        copy(0x100000000UL - PIECE + off, cross, PIECE, down);
    }
}

#define EDGE(insn)                                         \
    do {                                                   \
        uint64_t a_ = 0x8070605040302010UL;                \
        __asm__ volatile(TRAP_GUARDED(insn)                \
                         : "+a"(a_)                        \
                         : "D"(end - 4), "c"(0x7fffffffUL) \
                         : CLOBBERS);                      \
    } while (0)

/* Half of each operand is RAM, half is not. */
static void straddle(uint64_t end)
{
    EDGE("movq (%%rdi), %%rax");
    EDGE("movq %%rax, (%%rdi)");
    EDGE("xchgq %%rax, (%%rdi)");
    EDGE("lock xaddq %%rax, (%%rdi)");
    EDGE("lock cmpxchgq %%rcx, (%%rdi)");
    EDGE("notq (%%rdi)");
    EDGE("incl 1(%%rdi)");
    EDGE("addw %%ax, 3(%%rdi)");
    EDGE("btsq %%rcx, (%%rdi)");
    EDGE("btcl %%ecx, 2(%%rdi)");
    EDGE("movzwl 3(%%rdi), %%eax");
    EDGE("stosq");
    EDGE("cmpq $-1, (%%rdi)");
}

static void highest_addresses(void)
{
    unsigned bits = cpuid(0x80000008, 0).eax & 0xff;
    for (unsigned b = 33; b < 47; b++) {
        uint64_t a = (1UL << b) - 8;
        uint64_t v = 0;
        if (!paging_identity(a & ~0x1fffffUL, 0x200000) || !paging_identity(1UL << b, 0x200000)) {
            break;
        }
        __asm__ volatile(TRAP_GUARDED("movq (%1), %0") : "+a"(v) : "D"(a) : CLOBBERS);
        __asm__ volatile(TRAP_GUARDED("movq 4(%1), %0") : "+a"(v) : "D"(a) : CLOBBERS);
        __asm__ volatile(TRAP_GUARDED("movq %0, 8(%1)") : "+a"(v) : "D"(a) : CLOBBERS);
    }
    console_printf("badguest: %u address bits\n", bits);
}

/* An instruction that exits as the last one of the lower half of the addresses. */
static void last_canonical(void)
{
    static volatile uint64_t tables[3][512] __attribute__((aligned(4096)));
    static uint8_t code[4096] __attribute__((aligned(4096)));
    volatile uint64_t *pml4 = (volatile uint64_t *)(read_cr3() & ~0xfffUL);

    tables[2][511] = (uint64_t)code | PAGING_RW;
    tables[0][511] = (uint64_t)tables[1] | PAGING_RW;
    tables[1][511] = (uint64_t)tables[2] | PAGING_RW;
    pml4[255] = (uint64_t)tables[0] | PAGING_RW;
    code[4094] = 0xe6; /* out %al, $0x80 */
    code[4095] = 0x80;
    __asm__ volatile(TRAP_GUARDED("call *%0") : : "r"(0x7ffffffffffeUL) : "rax", CLOBBERS);
    report_check(trap_vector() >= 0, "canonical edge", "code ran past it");
    console_printf("badguest: past the canonical edge gave vector %d\n", trap_vector());
}

/* What CPUID denies is undefined, whatever the processor has: with the software MMU it always is denied. */
static void denied_invpcid(void)
{
    const uint32_t offered = 1U << 10;
    struct {
        uint64_t pcid, address;
    } all = {0, 0};

    if (cpuid(7, 0).ebx & offered) {
        console_printf("badguest: INVPCID is offered\n");
        return;
    }
    __asm__ volatile(TRAP_GUARDED("invpcid %0, %1") : : "m"(all), "r"(2UL) : CLOBBERS);
    report_check(trap_vector() == 6, "invpcid", "carried out, or another exception");
}

void bad_edge(void)
{
    uint64_t end = ram_end();
    copies(end);
    straddle(end);
    highest_addresses();
    last_canonical();
    denied_invpcid();
    report_check(true, "edge", "");
}

static void call(uint64_t addr)
{
    __asm__ volatile(TRAP_GUARDED("call *%0")
                     :
                     : "r"(addr), "D"(HOLE)
                     : CLOBBERS, "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r11");
    console_printf("badguest: code at 0x%lx gave vector %d\n", addr, trap_vector());
}

/* Code where no RAM is, and instructions that end, or are cut, where it ends. */
void bad_exec(void)
{
    static const uint8_t codes[][4] = {
        {0x90, 0x90, 0x0f, 0xa2}, {0x90, 0x90, 0x8b, 0x07}, {0x90, 0x90, 0x90, 0x8b},
        {0x90, 0x48, 0x8b, 0x87}, {0x90, 0x90, 0x90, 0x0f}, {0x90, 0x0f, 0x01, 0xd9},
        {0x90, 0x90, 0xe4, 0x80}, {0x90, 0x90, 0x90, 0xec}, {0xb9, 0x1b, 0x0f, 0x32},
    };
    uint8_t *last = (uint8_t *)(ram_end() - 4);
    call(LAPIC_BASE);
    call(IOAPIC_BASE);
    call(HOLE + 0xffe);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        memcpy(last, codes[i], 4);
        call((uint64_t)last);
    }
    report_check(true, "exec", "");
}

static volatile uint16_t morph[2] __attribute__((aligned(16))) = {0x078b, 0xc3c3};
static volatile bool enough;

static void keep_changing(uint32_t index)
{
    static const uint16_t codes[] = {0x078b, 0x0789, 0x0701, 0x0787,
                                     0x90a4, 0x90aa, 0x90ac, 0x07f6};
    (void)index;
    for (uint32_t i = 0; !enough; i++) {
        morph[0] = codes[i / 64 % 8];
    }
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

/* One processor executes accesses to nothing while another changes them. */
void bad_morph(void)
{
    unsigned int faults = 0;
    int last = -1;
    lapic_enable(false);
    report_check(smp_start(keep_changing, 1, WAIT_TICKS) == 1, "morph-smp", "no other processor");
    for (unsigned int i = 0; i < MORPH_CALLS; i++) {
        __asm__ volatile(TRAP_GUARDED("call *%0")
                         :
                         : "r"(&morph), "D"(HOLE), "S"(HOLE)
                         : CLOBBERS, "rax", "rbx", "rcx", "rdx");
        faults += trap_vector() >= 0;
    }
    enough = true;
    console_printf("badguest: %u of %u faulted, the last by vector %d\n", faults, MORPH_CALLS,
                   last);
    report_check(true, "morph", "");
}

/* Page tables where no RAM is: the VM may end. */
void bad_tables(void)
{
    volatile uint64_t *window = paging_window(3);
    window[0] = LAPIC_BASE | PAGING_RW;
    (void)*(volatile uint32_t *)PAGING_WINDOW(3);
    console_printf("badguest: now tables where no RAM is; this may end the VM\n");
    console_drain();
    uint64_t *top = (uint64_t *)(read_cr3() & ~0xfffUL);
    top[5] = LAPIC_BASE | PAGING_RW;
    uint64_t v = 0;
    __asm__ volatile(TRAP_GUARDED("movq (%1), %0") : "+a"(v) : "D"(PAGING_WINDOW(5)) : CLOBBERS);
    console_printf("badguest: vector %d\n", trap_vector());
    write_cr3(HOLE);
    power_exit(0);
}

/* An event whose frame goes where no RAM is: the VM may end. */
void bad_stack(void)
{
    console_printf("badguest: now a stack where no RAM is; this may end the VM\n");
    console_drain();
    __asm__ volatile("mov %0, %%rsp; ud2" : : "r"(HOLE + 0x800));
}

/*
 * A processor that stays in real mode: wild segments, wrapping string instructions, port strings,
 * system instructions, and device memory through segments of 4 GiB. Exceptions go on at the address in
 * 0x7f00. Runs at 0x9000, the start-up page.
 */
extern const uint8_t bad_real_code[], bad_real_end[];
__asm__(
    ".section .rodata\n"
    ".code16\n"
    ".global bad_real_code, bad_real_end\n"
    "bad_real_code:\n"
    "cli; cld; xorw %ax, %ax; movw %ax, %ds; movw %ax, %es; movw %ax, %ss; movw $0x7000, %sp\n"
    "xorw %di, %di; movw $256, %cx\n"
    "1: movw $(9f - bad_real_code + 0x9000), %es:(%di); movw $0, %es:2(%di); addw $4, %di\n"
    "loop 1b\n"
    /* segments that reach beyond 1 MiB, counts that wrap */
    "movw $(2f - bad_real_code + 0x9000), 0x7f00\n"
    "movw $0xffff, %ax; movw %ax, %ds; movw %ax, %es; movw $0xfff0, %si; movw $0xfff8, %di\n"
    "movw $100, %cx; rep movsb; std; movw $4, %di; movw $64, %cx; rep stosw; cld\n"
    "2: xorw %ax, %ax; movw %ax, %ds; movw %ax, %es\n"
    "movw $(3f - bad_real_code + 0x9000), 0x7f00\n"
    "movw $0x6000, %ax; movw %ax, %es\n"
    "movw $0xfffc, %di; movw $0x1000, %dx; movw $16, %cx; rep insw\n"
    "3: xorw %ax, %ax; movw %ax, %ds; movw $(4f - bad_real_code + 0x9000), 0x7f00\n"
    "movw $0xfffe, %si; movw $0x1000, %dx; movw $16, %cx; rep outsl\n"
    "4: xorw %ax, %ax; movw %ax, %ds; movw $(5f - bad_real_code + 0x9000), 0x7f00\n"
    "xorl %eax, %eax; cpuid; movl $0x1b, %ecx; rdmsr; smsww %ax; lmsww %ax; clts; wbinvd\n"
    "5: xorw %ax, %ax; movw %ax, %ds; movw $(6f - bad_real_code + 0x9000), 0x7f00\n"
    ".byte 0x0f, 0x01, 0xd8\n" /* vmrun */
    /* data segments of 4 GiB, then back to real mode */
    "6: xorw %ax, %ax; movw %ax, %ds; movw $(7f - bad_real_code + 0x9000), 0x7f00\n"
    "lgdtl (8f - bad_real_code + 0x9000)\n"
    "movl %cr0, %eax; orb $1, %al; movl %eax, %cr0; movw $8, %bx; movw %bx, %ds; movw %bx, %es\n"
    "andb $0xfe, %al; movl %eax, %cr0\n"
    "movl $0xfee00020, %esi; addr32 movl (%esi), %eax; addr32 movl %eax, (%esi)\n"
    "movl $0xd0000000, %edi; addr32 addw %ax, 1(%edi); addr32 movb %ah, (%edi)\n"
    "movl $0xd0000ffe, %esi; movl $0x200000, %edi; movl $40, %ecx; addr32 rep movsw\n"
    "movl $0xfffffffc, %edi; movl $8, %ecx; addr32 rep stosl\n"
    "movl $0xfffffffe, %esi; addr32 movl (%esi), %eax\n"
    "7: xorw %ax, %ax; movw %ax, %ds; movw $0x600d, 0x7f02\n"
    "movw $(7b - bad_real_code + 0x9000), 0x7f00\n"
    "10: hlt; jmp 10b\n"
    ".balign 8\n"
    "8: .word 15; .long 11f - bad_real_code + 0x9000\n"
    ".balign 8\n"
    "11: .quad 0, 0x00cf93000000ffff\n"
    "9: xorw %ax, %ax; movw %ax, %ss; movw $0x7000, %sp; movw %ax, %ds; jmpw *0x7f00\n"
    "bad_real_end:\n"
    ".code64\n"
    ".text\n");

void bad_real(void)
{
    uint8_t *page = (uint8_t *)0x9000;
    volatile uint16_t *done = (volatile uint16_t *)0x7f02;
    __asm__("" : "+r"(page), "+r"(done));
    memcpy(page, bad_real_code, (size_t)(bad_real_end - bad_real_code));
    *done = 0;
    lapic_enable(false);
    lapic_ipi(1, LAPIC_ICR_ASSERT | LAPIC_ICR_INIT);
    lapic_ipi(1, LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | 9);
    uint64_t start = rdtsc();
    while (*done != 0x600d && rdtsc() - start < WAIT_TICKS * 10) {
        cpu_pause();
    }
    report_check(*done == 0x600d, "real", "the other processor was lost");
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hardware task switches: by jump, call and return, through task gates, by faults, with error codes, into
 * 16-bit and virtual-8086 tasks; without paging, with 32-bit and with PAE tables. The tasks are in
 * guests/task/code.asm, their surroundings are set up here, and what each saw of itself is compared here with
 * what the manual says. Command line, for emulators: exact=off (QEMU's TCG knows no debug trap flag, and
 * loses the new task's instruction pointer if loading its segments faults); int=off, v86=off (Bochs's SVM does
 * not tell a hypervisor that it was INT n that used a task gate, and panics when virtual-8086 mode exits to a
 * hypervisor in long mode).
 */
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"
#include "guests/lib/string.h"

/* Selectors, known to code.asm. */
#define SEL_CODE32 0x18
#define SEL_DATA 0x10
#define TSS_MAIN 0x20
#define TSS_OTHER 0x28
#define TSS_DOUBLE 0x30
#define TSS_INVALID 0x38
#define TSS_BAD 0x40
#define TSS_NARROW 0x48
#define TSS_GP 0x50
#define TSS_V86 0x58
#define GATE_OTHER 0x60
#define SEL_LDT 0x68
#define TSS_AWAY 0x70
#define TSS_TRAP 0x78
#define SEL_NARROW_CODE 0x80
#define SEL_NARROW_STACK 0x88
#define GDT_ENTRIES 18
#define SEL_LOCAL 4 /* the LDT's only entry */
#define SEL_NONE 0xfff8
#define INT_OTHER 0x40

#define TYPE_TSS16 0x81
#define TYPE_LDT 0x82
#define TYPE_GATE 0x85
#define TYPE_TSS 0x89
#define TYPE_BUSY 0x8b
#define TYPE_INTERRUPT 0x8e
#define TYPE_DATA 0x93
#define TYPE_CODE 0x9b
#define FLAG_32 0x40

#define EFLAGS_NT 0x4000
#define EFLAGS_VM 0x20000
#define CR0_TS 8U
#define CR0_PG 0x80000000U
#define CR4_PSE 0x10
#define CR4_PAE 0x20

#define PTE_LARGE 0x87 /* for everybody */
#define PTE_TABLE 0x07
#define PDPTE_TABLE 0x01
#define WINDOW 0x40000000U /* linear: each task's own memory */
#define AWAY 0x40800000U   /* linear: not mapped */
#define MAIN_WORD 0x500U   /* physical: what the window shows */
#define OTHER_PAGE 0x400000U
#define V86_BASE 0x9000U

struct tss {
    uint32_t link, stacks[6], cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io;
} __attribute__((packed));

struct tss16 {
    uint16_t link, stacks[6], ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
} __attribute__((packed));

/* What a task saw of itself. */
struct record {
    uint16_t tr, ldt;
    uint32_t cr3, eflags, cr0;
    uint8_t main_type, own_type; /* of the descriptors */
    uint16_t link;
    uint32_t window, top, ebx;
};

enum mode { MODE_PLAIN, MODE_32, MODE_PAE, NR_MODES };

#define MAX_RECORDS 32
static struct record records[MAX_RECORDS];

struct pseudo {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

#define STACK_BYTES 512
static uint8_t stacks[8][STACK_BYTES] __attribute__((aligned(16)));
static unsigned int nr_stacks;
static struct tss other_tss, double_tss, invalid_tss, trap_tss;
static struct tss16 narrow_tss;
static uint64_t local_table[1];
static uint32_t local_word;

static uint32_t main_dir[1024] __attribute__((aligned(4096)));
static uint32_t other_dir[1024] __attribute__((aligned(4096)));
static uint64_t main_pdpt[4] __attribute__((aligned(32)));
static uint64_t other_pdpt[4] __attribute__((aligned(32)));
static uint64_t low_dir[512] __attribute__((aligned(4096)));
static uint64_t main_window_dir[512] __attribute__((aligned(4096)));
static uint64_t other_window_dir[512] __attribute__((aligned(4096)));

/* code.asm's. */
extern char task_code[], task_other[], task_double[], task_invalid[], task_bad[], task_narrow[];
extern char task_protection[], task_trapped[], task_faulting[], task_on_debug[];
extern char task_on_page_fault[], task_v86_code[], task_v86_code_end[];
extern struct tss task_main_tss, task_bad_tss, task_gp_tss, task_v86_tss;
extern uint64_t task_gdt[GDT_ENTRIES], task_idt[INT_OTHER + 1];
extern const struct pseudo task_gdtr, task_idtr;
extern uint32_t task_next, task_limit, task_window, task_cr3, task_cr4, task_paging, task_exact,
    task_int, task_v86, task_away;
extern uint8_t task_main_stack[STACK_BYTES];
void task_run(void);

struct tss task_main_tss, task_bad_tss, task_gp_tss, task_v86_tss;
uint64_t task_gdt[GDT_ENTRIES], task_idt[INT_OTHER + 1];
const struct pseudo task_gdtr = {sizeof(task_gdt) - 1, (uint64_t)task_gdt};
const struct pseudo task_idtr = {sizeof(task_idt) - 1, (uint64_t)task_idt};
uint32_t task_next, task_limit, task_window, task_cr3, task_cr4, task_paging, task_exact, task_int,
    task_v86, task_away;
uint8_t task_main_stack[STACK_BYTES];

static uint32_t address(const volatile void *p)
{
    return (uint32_t)(uintptr_t)p;
}

static volatile uint32_t *physical(uintptr_t at)
{
    __asm__("" : "+r"(at)); /* no object that the compiler knows */
    return (volatile uint32_t *)at;
}

/* --- tables --- */

static void describe(unsigned int selector, uint32_t base, uint32_t limit, uint8_t type,
                     uint8_t flags)
{
    uint64_t low = (base & 0xffffffULL) << 16 | (limit & 0xffff);
    uint64_t high = (base >> 24) << 24 | flags << 16 | (limit & 0xf0000) | type << 8;

    task_gdt[selector / 8] = high << 32 | low;
}

static void gate(unsigned int vector, uint8_t type, uint16_t selector, const void *handler)
{
    task_idt[vector] = (address(handler) & 0xffff0000ULL) << 32 | (uint64_t)type << 40 |
                       (uint32_t)selector << 16 | (address(handler) & 0xffff);
}

static void make_tables(void)
{
    const uint8_t flat = FLAG_32 | 0x80, code64 = 0xa0;

    memset(task_gdt, 0, sizeof(task_gdt));
    memset(task_idt, 0, sizeof(task_idt));
    describe(0x08, 0, 0xfffff, TYPE_CODE, code64);
    describe(SEL_DATA, 0, 0xfffff, TYPE_DATA, flat);
    describe(SEL_CODE32, 0, 0xfffff, TYPE_CODE, flat);
    describe(TSS_NARROW, address(&narrow_tss), sizeof(narrow_tss) - 1, TYPE_TSS16, 0);
    describe(SEL_LDT, address(local_table), sizeof(local_table) - 1, TYPE_LDT, 0);
    describe(TSS_AWAY, AWAY, sizeof(struct tss) - 1, TYPE_TSS, 0);
    describe(SEL_NARROW_CODE, address(task_code), 0xffff, TYPE_CODE, FLAG_32);
    describe(SEL_NARROW_STACK, address(stacks[0]), STACK_BYTES - 1, TYPE_DATA, FLAG_32);
    task_gdt[GATE_OTHER / 8] = (uint64_t)TYPE_GATE << 40 | TSS_OTHER << 16;
    local_table[0] = 0x0040930000000003ULL | (address(&local_word) & 0xffffffULL) << 16;
    gate(1, TYPE_INTERRUPT, SEL_CODE32, task_on_debug);
    gate(8, TYPE_GATE, TSS_DOUBLE, NULL);
    gate(10, TYPE_GATE, TSS_INVALID, NULL);
    gate(13, TYPE_GATE & ~0x80, TSS_GP, NULL); /* present later */
    gate(14, TYPE_INTERRUPT, SEL_CODE32, task_on_page_fault);
    gate(INT_OTHER, TYPE_GATE, TSS_OTHER, NULL);
}

/* The first GiB is what it is; behind it each has a window of its own. */
static void make_pages(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        main_dir[i] = other_dir[i] = i << 22 | PTE_LARGE;
    }
    for (uint32_t i = 0; i < 512; i++) {
        low_dir[i] = (uint64_t)i << 21 | PTE_LARGE;
    }
    main_dir[WINDOW >> 22] = PTE_LARGE;
    other_dir[WINDOW >> 22] = OTHER_PAGE | PTE_LARGE;
    main_window_dir[0] = PTE_LARGE;
    other_window_dir[0] = OTHER_PAGE | PTE_LARGE;
    main_pdpt[0] = other_pdpt[0] = address(low_dir) | PDPTE_TABLE;
    main_pdpt[1] = address(main_window_dir) | PDPTE_TABLE;
    other_pdpt[1] = address(other_window_dir) | PDPTE_TABLE;
    *physical(MAIN_WORD) = 0x3a123a12;
    *physical(OTHER_PAGE + MAIN_WORD) = 0x07e207e2;
}

/* --- tasks --- */

static void make_task(struct tss *t, uint16_t selector, const void *code, uint32_t cr3)
{
    *t = (struct tss){.cr3 = cr3,
                      .eip = address(code),
                      .eflags = 2,
                      .esp = address(stacks[++nr_stacks]) + STACK_BYTES - 16,
                      .es = SEL_DATA,
                      .cs = SEL_CODE32,
                      .ss = SEL_DATA,
                      .ds = SEL_DATA,
                      .fs = SEL_DATA,
                      .gs = SEL_DATA,
                      .io = sizeof(*t)};
    describe(selector, address(t), sizeof(*t) - 1, TYPE_TSS, 0);
}

static void make_tasks(uint32_t main_cr3, uint32_t other_cr3)
{
    nr_stacks = 0;
    make_task(&other_tss, TSS_OTHER, task_other, other_cr3);
    other_tss.ldt = SEL_LDT;
    other_tss.fs = SEL_LOCAL;
    other_tss.esi = 0x5e5e5e5e;
    make_task(&double_tss, TSS_DOUBLE, task_double, other_cr3);
    make_task(&invalid_tss, TSS_INVALID, task_invalid, other_cr3);
    make_task(&task_bad_tss, TSS_BAD, task_bad, main_cr3);
    task_bad_tss.ds = SEL_NONE;
    task_bad_tss.ebx = 0xbadbad;
    make_task(&task_gp_tss, TSS_GP, task_protection, main_cr3);
    make_task(&trap_tss, TSS_TRAP, task_trapped, main_cr3);
    trap_tss.trap = 1;
    make_task(&task_v86_tss, TSS_V86, NULL, main_cr3);
    task_v86_tss.eflags |= EFLAGS_VM;
    task_v86_tss.esp = 0x800;
    task_v86_tss.es = task_v86_tss.cs = task_v86_tss.ss = task_v86_tss.ds = task_v86_tss.fs =
        task_v86_tss.gs = V86_BASE >> 4;
    nr_stacks--;
    make_task(&task_main_tss, TSS_MAIN, NULL, main_cr3);
    narrow_tss = (struct tss16){.ip = (uint16_t)(task_narrow - task_code),
                                .flags = 2,
                                .sp = STACK_BYTES - 16,
                                .es = SEL_DATA,
                                .cs = SEL_NARROW_CODE,
                                .ss = SEL_NARROW_STACK,
                                .ds = SEL_DATA};
}

/* --- what is to be seen --- */

#define ANY 0xffffffffU

struct step {
    const char *name;
    uint16_t tr, link;
    uint8_t main_type, own_type;
    bool nested, other, plain, ts; /* other: that address space; plain: in MODE_PLAIN as well */
    uint32_t top, ebx;
    const char *option; /* "off" on the command line leaves it out */
};

#define MAIN(name, option)                                                                         \
    {                                                                                              \
        name, TSS_MAIN, 0, TYPE_BUSY, TYPE_BUSY, false, false, true, true, ANY, 0x11111111, option \
    }
#define OTHER(name, option)                                                                       \
    {                                                                                             \
        name, TSS_OTHER, TSS_MAIN, TYPE_BUSY, TYPE_BUSY, true, true, true, true, ANY, 0x5e5eb0b0, \
            option                                                                                \
    }

static bool is_step(const struct step *s, const struct record *r, uint32_t cr3, uint32_t window)
{
    uint32_t flags = EFLAGS_NT | EFLAGS_VM;

    return r->tr == s->tr && r->link == s->link && r->main_type == s->main_type &&
           r->own_type == s->own_type && (r->eflags & flags) == (s->nested ? EFLAGS_NT : 0U) &&
           r->ldt == (s->tr == TSS_OTHER ? SEL_LDT : 0) && r->cr3 == cr3 && r->window == window &&
           ((r->cr0 & CR0_TS) != 0) == s->ts && (s->top == ANY || r->top == s->top) &&
           r->ebx == s->ebx;
}

static void check_step(const struct step *s, const struct record *r, uint32_t cr3, uint32_t window)
{
    bool ok = is_step(s, r, cr3, window);

    if (!ok) {
        console_printf("tr %x ldt %x link %x types %x %x flags %x cr0 %x cr3 %x window %x top %x "
                       "ebx %x\n",
                       r->tr, r->ldt, r->link, r->main_type, r->own_type, r->eflags, r->cr0, r->cr3,
                       r->window, r->top, r->ebx);
    }
    report_check(ok, s->name, "something else was seen");
}

static void check_mode(enum mode mode, uint32_t main_cr3, uint32_t other_cr3)
{
    const struct step steps[] = {
        {"begin", TSS_MAIN, 0, TYPE_BUSY, TYPE_BUSY, false, false, true, false, ANY, 0x11111111,
         NULL},
        {"jump", TSS_OTHER, 0, TYPE_TSS, TYPE_BUSY, false, true, true, true, ANY, 0x5e5eb0b0, NULL},
        MAIN("jump-back", NULL),
        OTHER("call", NULL),
        MAIN("return", NULL),
        OTHER("call-gate", NULL),
        MAIN("return-gate", NULL),
        OTHER("interrupt", "int"),
        MAIN("return-interrupt", "int"),
        {"double-fault", TSS_DOUBLE, TSS_MAIN, TYPE_BUSY, TYPE_BUSY, true, true, true, true, 0,
         address(task_faulting), NULL},
        MAIN("return-double-fault", NULL),
        {"fault-in-switch", TSS_INVALID, TSS_BAD, TYPE_BUSY, TYPE_BUSY, true, true, true, true,
         SEL_NONE, address(task_bad), "exact"},
        {"finish-switch", TSS_BAD, TSS_MAIN, TYPE_BUSY, TYPE_BUSY, true, false, true, true, ANY,
         0xbadbad, "exact"},
        MAIN("return-finished", "exact"),
        {"16-bit", TSS_NARROW, TSS_MAIN, TYPE_BUSY, TYPE_TSS16 | 2, true, false, true, true, ANY, 0,
         NULL},
        MAIN("return-16-bit", NULL),
        {"virtual-8086", TSS_GP, TSS_V86, TYPE_BUSY, TYPE_BUSY, true, false, true, true, 0,
         (V86_BASE >> 4) << 16 | 3, "v86"},
        MAIN("return-virtual-8086", "v86"),
        {"page-fault", TSS_MAIN, 0, TYPE_BUSY, TYPE_BUSY, false, false, false, false, 0, AWAY,
         NULL},
        {"after-page-fault", TSS_MAIN, 0, TYPE_BUSY, TYPE_BUSY, false, false, false, false, ANY,
         AWAY, NULL},
        {"trap", TSS_TRAP, TSS_MAIN, TYPE_BUSY, TYPE_BUSY, false, false, true, true,
         address(task_trapped), 0x8000, "exact"},
        {"trapped", TSS_TRAP, TSS_MAIN, TYPE_BUSY, TYPE_BUSY, true, false, true, false, ANY, 0x8000,
         "exact"},
        MAIN("return-trapped", "exact"),
    };
    const struct record *r = records, *end = records + (task_next - address(records)) / sizeof(*r);

    for (unsigned int i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct step s = steps[i];
        bool other = s.other && mode != MODE_PLAIN;

        if (!s.plain && mode == MODE_PLAIN) {
            continue;
        }
        if (s.option != NULL && boot_option_is(s.option, "off")) {
            continue;
        }
        if (i > 18 && s.tr == TSS_MAIN) {
            s.ebx = task_away ? AWAY : 0x11111111;
        }
        check_step(&s, r, other ? other_cr3 : main_cr3,
                   *physical(other ? OTHER_PAGE + MAIN_WORD : MAIN_WORD));
        r++;
    }
    report_check(r == end, "steps", "not as many as expected");
    report_check((task_gdt[TSS_AWAY / 8] >> 40 & 0xff) == TYPE_TSS &&
                     (task_gdt[TSS_OTHER / 8] >> 40 & 0xff) == TYPE_TSS &&
                     (other_tss.eflags & EFLAGS_NT) == 0 && task_main_tss.cs == SEL_CODE32,
                 "left-behind", "a descriptor or a TSS is wrong");
}

static void run(enum mode mode)
{
    static const uint32_t cr4[] = {0, CR4_PSE, CR4_PAE};
    uint32_t main_cr3 = address(mode == MODE_PAE ? (void *)main_pdpt : main_dir);
    uint32_t other_cr3 = address(mode == MODE_PAE ? (void *)other_pdpt : other_dir);

    console_printf("tables: %s\n", mode == MODE_PLAIN ? "none"
                                   : mode == MODE_32  ? "32-bit"
                                                      : "PAE");
    memset(records, 0, sizeof(records));
    make_tables();
    make_tasks(main_cr3, other_cr3);
    local_word = 0x5e5e5e5e ^ 0x5e5eb0b0;
    task_next = address(records);
    task_limit = address(records + MAX_RECORDS);
    task_cr3 = main_cr3;
    task_cr4 = cr4[mode];
    task_paging = mode == MODE_PLAIN ? 0 : CR0_PG;
    task_window = mode == MODE_PLAIN ? MAIN_WORD : WINDOW + MAIN_WORD;
    task_exact = !boot_option_is("exact", "off");
    task_int = !boot_option_is("int", "off");
    task_away = mode != MODE_PLAIN;
    task_v86 = !boot_option_is("v86", "off");
    task_run();
    check_mode(mode, main_cr3, other_cr3);
}

void guest_main(void)
{
    void *v86 = (void *)(uintptr_t)physical(V86_BASE);

    make_pages();
    memcpy(v86, task_v86_code, (size_t)(task_v86_code_end - task_v86_code));
    for (enum mode mode = 0; mode < NR_MODES; mode++) {
        run(mode);
    }
    report_summary();
}

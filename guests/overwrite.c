/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whole pages and parts of pages written by string instructions while the host has taken them away. Fills
 * its pages, says "overwrite: filled", waits for a character on COM1, then writes by kind of page (groups
 * of GROUP are of a kind, so that what is read along is of that kind too) and checks every byte. Command
 * line: mb=N (16).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"
#include "guests/lib/trap.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define COM1 0x3f8
#define LINE_STATUS (COM1 + 5)
#define GROUP 32UL

enum kind {
    STOSQ,        /* whole */
    STOSB,        /* whole */
    MOVSQ,        /* whole, from a page that is not aligned */
    MOVSB_AWAY,   /* whole, from one that is READ, and away itself */
    STOSQ_PART,   /* the first 100 words */
    STOSB_INSIDE, /* from byte 8 on, to the end */
    MOVSQ_ONTO,   /* moved onto itself by a word: the first word runs through the page */
    MOVSQ_CUT,    /* whole, but the source's second page is not there */
    READ,         /* not written */
    KINDS
};

static uint64_t first, nr_pages, wrong_faults;
static uint64_t source[3 * WORDS];
static uint64_t alone[WORDS]
    __attribute__((aligned(4096))); /* mapped at CUT, and nothing behind it */

#define CUT PAGING_WINDOW(1)

static enum kind kind_of(uint64_t i)
{
    return (enum kind)(i / GROUP % KINDS);
}

static uint64_t *page_at(uint64_t i)
{
    return (uint64_t *)(first + i * PAGE);
}

static uint64_t old_word(uint64_t i, uint64_t w)
{
    return (i * WORDS + w + 1) * 0x9e3779b97f4a7c15UL;
}

static void stosq(void *to, uint64_t value, uint64_t n)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

static void stosb(void *to, uint64_t value, uint64_t n)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

static void movsq(void *to, const void *from, uint64_t n)
{
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void movsb(void *to, const void *from, uint64_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* Where the part of the source that is there begins. */
static uint64_t cut_from(uint64_t i)
{
    return 1 + i % 63;
}

/* The fault comes when all before it was moved. */
static bool movsq_cut(uint64_t i)
{
    void *to = page_at(i);
    const void *from = (const uint64_t *)CUT + cut_from(i);
    uint64_t left = WORDS, cr2;

    __asm__ volatile(TRAP_GUARDED("rep movsq")
                     : "+D"(to), "+S"(from), "+c"(left)
                     :
                     : "memory", "r10");
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    return trap_vector() == TRAP_PF && left == cut_from(i) && (uint64_t)from == CUT + PAGE &&
           cr2 == CUT + PAGE && (uint64_t)to == (uint64_t)page_at(i + 1) - left * sizeof(uint64_t);
}

static void write_page(uint64_t i)
{
    uint64_t *p = page_at(i);

    switch (kind_of(i)) {
    case STOSQ:
        stosq(p, i, WORDS);
        break;
    case STOSB:
        stosb(p, i, PAGE);
        break;
    case MOVSQ:
        movsq(p, source + i % 64, WORDS);
        break;
    case MOVSB_AWAY:
        movsb(p, page_at(i + (READ - MOVSB_AWAY) * GROUP), PAGE);
        break;
    case STOSQ_PART:
        stosq(p, i, 100);
        break;
    case STOSB_INSIDE:
        stosb(p + 1, i, PAGE - 8);
        break;
    case MOVSQ_ONTO:
        movsq(p + 1, p, WORDS - 1);
        break;
    case MOVSQ_CUT:
        wrong_faults += !movsq_cut(i);
        break;
    default:
        break;
    }
}

static uint64_t new_word(uint64_t i, uint64_t w)
{
    uint64_t bytes = (i & 0xff) * 0x0101010101010101UL;

    switch (kind_of(i)) {
    case STOSQ:
        return i;
    case STOSB:
        return bytes;
    case MOVSQ:
        return source[i % 64 + w];
    case MOVSB_AWAY:
        return old_word(i + (READ - MOVSB_AWAY) * GROUP, w);
    case STOSQ_PART:
        return w < 100 ? i : old_word(i, w);
    case STOSB_INSIDE:
        return w > 0 ? bytes : old_word(i, w);
    case MOVSQ_ONTO:
        return old_word(i, 0);
    case MOVSQ_CUT:
        return w < WORDS - cut_from(i) ? ~(cut_from(i) + w) : old_word(i, w);
    default:
        return old_word(i, w);
    }
}

static bool check_page(uint64_t i)
{
    volatile uint64_t *p = page_at(i);

    for (uint64_t w = 0; w < WORDS; w++) {
        if (p[w] != new_word(i, w)) {
            console_printf("overwrite: page %lu kind %lu word %lu holds 0x%lx, not 0x%lx\n", i,
                           i % KINDS, w, p[w], new_word(i, w));
            return false;
        }
    }
    return true;
}

static void wait_for_host(void)
{
    console_printf("overwrite: filled\n");
    while (!(inb(LINE_STATUS) & 1)) {
        cpu_pause();
    }
    (void)inb(COM1);
}

void guest_main(void)
{
    uint64_t bad = 0;

    trap_init();
    paging_window(1)[0] = (uint64_t)alone | PAGING_RW;
    for (uint64_t w = 0; w < WORDS; w++) {
        alone[w] = ~w;
    }
    first = (boot_loaded_end + PAGE - 1) & ~(PAGE - 1);
    nr_pages = boot_option_u64("mb", 16) * (1UL << 20) / PAGE / (GROUP * KINDS) * (GROUP * KINDS);
    for (uint64_t w = 0; w < sizeof(source) / sizeof(source[0]); w++) {
        source[w] = ~w * 0xd1b54a32d192ed03UL;
    }
    for (uint64_t i = 0; i < nr_pages; i++) {
        for (uint64_t w = 0; w < WORDS; w++) {
            page_at(i)[w] = old_word(i, w);
        }
    }
    wait_for_host();
    for (uint64_t i = 0; i < nr_pages; i++) {
        write_page(i);
    }
    for (uint64_t i = 0; i < nr_pages; i++) {
        bad += !check_page(i);
    }
    report_check(bad == 0 && wrong_faults == 0, "overwrite",
                 wrong_faults == 0 ? "a page is not what was written"
                                   : "a fault is not where its source ends");
    report_summary();
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that lies to its balloon. Every command, every page and every count that is wrong gets the
 * status that says so; what it gives up and touches again reads as zero. On a second processor, floods.
 * Its memory must not end at a multiple of 2 MiB. Command line: mb=N (memory to play with, 8), cpus=N (1), flood=N (commands of each flood, 2000),
 * mode=suicide (gives up its own code, stack and tables instead).
 */
#include "guests/lib/arch.h"
#include "guests/lib/balloon.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"

#define PAGE 4096UL
#define MIB (1UL << 20)
#define LARGE (2 * MIB)
#define PATIENCE 4000000000UL
#define MAX_STATUS BALLOON_BUSY
#define GRANTED 0x2eUL
#define MAGIC 0x456c6d6fU
#define PORT 0x5670
#define LAPIC_PFN 0xfee00UL
#define NOWHERE_PFN 0x20000UL /* 512 MiB: more than this guest ever has */

static uint64_t base_pfn, nr_pages, end_pfn, flood;
static volatile uint32_t go, done;
static volatile bool odd; /* a flood saw a status that there is not */

static uint64_t status(uint64_t command, uint64_t arg1, uint64_t arg2)
{
    return balloon_call(command, arg1, arg2).status;
}

static void expect(const char *name, uint64_t is, uint64_t should)
{
    if (is != should) {
        console_printf("badballoon: %s gave 0x%lx, not 0x%lx\n", name, is, should);
    }
    report_check(is == should, name, "wrong status");
}

static uint64_t lock(uint64_t pfn)
{
    return status(BALLOON_LOCK, pfn, 1);
}

static uint64_t unlock(uint64_t pfn)
{
    return status(BALLOON_UNLOCK, pfn, 1);
}

static void restart(void)
{
    (void)balloon_call(BALLOON_START, BALLOON_CAN_ALL, 0);
}

static volatile uint64_t *word_of(uint64_t pfn)
{
    return (volatile uint64_t *)(pfn * PAGE);
}

/* ---- The port and START ---- */

static uint32_t wrong_magic(void)
{
    uint32_t a = MAGIC + 1;

    __asm__ volatile("inl %%dx, %%eax" : "+a"(a) : "d"(PORT), "c"(0) : "memory");
    return a;
}

static void test_port(void)
{
    expect("magic", wrong_magic(), UINT32_MAX);
    expect("byte", inb(PORT), 0xff);
    expect("word", inw(PORT), 0xffff);
    outl(PORT, MAGIC);
    outb(PORT, 0);
    expect("early-target", status(BALLOON_GET_TARGET, 0, 0), BALLOON_RESET);
    expect("early-lock", lock(base_pfn), BALLOON_RESET);
    expect("early-batch", status(BALLOON_BATCHED_LOCK, base_pfn, 1), BALLOON_BAD_COMMAND);
}

static void test_start(void)
{
    struct balloon_reply r = balloon_call(BALLOON_START, BALLOON_CAN_BASIC, 0);

    expect("start-basic", r.status, BALLOON_OK);
    expect("basic-batch", status(BALLOON_BATCHED_LOCK, base_pfn, 1), BALLOON_BAD_COMMAND);
    r = balloon_call(BALLOON_START, BALLOON_CAN_BASIC | BALLOON_CAN_2M, 0);
    expect("2m-without-batches", status(BALLOON_BATCHED_2M_LOCK, base_pfn, 1), BALLOON_BAD_COMMAND);
    r = balloon_call(BALLOON_START, UINT64_MAX, 0);
    expect("start-all", r.status, BALLOON_OK_CAPABILITIES);
    expect("capabilities", r.capabilities, GRANTED);
    expect("doorbell", status(BALLOON_DOORBELL_SET, 1, 2), BALLOON_BAD_COMMAND);
    expect("doorbell-clear", status(BALLOON_DOORBELL_SET, UINT64_MAX, UINT64_MAX),
           BALLOON_BAD_COMMAND);
    expect("command-5", status(5, 0, 0), BALLOON_BAD_COMMAND);
    expect("command-11", status(11, base_pfn, 1), BALLOON_BAD_COMMAND);
    expect("command-all", status(UINT32_MAX, base_pfn, 1), BALLOON_BAD_COMMAND);
    expect("guest-id", status(BALLOON_GUEST_ID, UINT64_MAX, UINT64_MAX), BALLOON_OK);
    expect("limit", status(BALLOON_GET_TARGET, UINT64_MAX, UINT64_MAX), BALLOON_OK);
}

/* ---- Single pages ---- */

static void test_pages(void)
{
    const uint64_t nowhere[] = {end_pfn,   NOWHERE_PFN, LAPIC_PFN, 0xfec00,    0x100000,
                                1UL << 24, 1UL << 36,   1UL << 52, UINT64_MAX, UINT32_MAX + 1UL};
    uint64_t pfn = base_pfn + 7;

    for (unsigned int i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        expect("lock-nowhere", lock(nowhere[i]), BALLOON_INVALID);
        expect("unlock-nowhere", unlock(nowhere[i]), BALLOON_INVALID);
    }
    expect("unlock-first", unlock(pfn), BALLOON_NOT_LOCKED);
    *word_of(pfn) = 0x1234;
    expect("lock", lock(pfn), BALLOON_OK);
    expect("lock-twice", lock(pfn), BALLOON_LOCKED);
    expect("unlock", unlock(pfn), BALLOON_OK);
    expect("unlock-twice", unlock(pfn), BALLOON_NOT_LOCKED);
    expect("contents", *word_of(pfn), 0);
}

/* Touching what was given up. */
static void test_pop(void)
{
    uint64_t pfn = base_pfn + 9;

    *word_of(pfn) = 0x1234;
    expect("pop-lock", lock(pfn), BALLOON_OK);
    expect("pop-contents", *word_of(pfn), 0);
    expect("pop-target", status(BALLOON_GET_TARGET, 0, 0), BALLOON_RESET);
    expect("pop-lock-again", lock(pfn), BALLOON_RESET);
    expect("pop-unlock", unlock(pfn), BALLOON_RESET);
    restart();
    expect("pop-started", status(BALLOON_GET_TARGET, 0, 0), BALLOON_OK);
    expect("pop-not-locked", unlock(pfn), BALLOON_NOT_LOCKED);
    /* Touches between giving up and START are normal. */
    expect("gap-lock", lock(pfn), BALLOON_OK);
    *word_of(pfn) = 5;
    restart();
    expect("gap-contents", *word_of(pfn), 5);
    expect("gap-started", status(BALLOON_GET_TARGET, 0, 0), BALLOON_OK);
}

/* ---- Batches ---- */

static uint64_t *batch_page(void)
{
    return (uint64_t *)(base_pfn * PAGE);
}

static uint64_t send(uint64_t command, uint64_t count)
{
    return status(command, base_pfn, count);
}

static void test_counts(void)
{
    expect("count-0", send(BALLOON_BATCHED_LOCK, 0), BALLOON_BAD_COMMAND);
    expect("count-513", send(BALLOON_BATCHED_LOCK, 513), BALLOON_BAD_COMMAND);
    expect("count-all", send(BALLOON_BATCHED_UNLOCK, UINT64_MAX), BALLOON_BAD_COMMAND);
    expect("batch-nowhere", status(BALLOON_BATCHED_LOCK, 1UL << 30, 1), BALLOON_INVALID);
    expect("batch-hole", status(BALLOON_BATCHED_2M_LOCK, NOWHERE_PFN, 1), BALLOON_INVALID);
    expect("batch-lock", lock(base_pfn + 3), BALLOON_OK);
    expect("batch-given", status(BALLOON_BATCHED_LOCK, base_pfn + 3, 1), BALLOON_INVALID);
    expect("batch-unlock", unlock(base_pfn + 3), BALLOON_OK);
}

static void test_entries(void)
{
    uint64_t *e = batch_page();

    e[0] = (base_pfn + 20) << 12;
    e[1] = (base_pfn + 20) << 12;        /* twice */
    e[2] = base_pfn << 12;               /* the batch itself */
    e[3] = (base_pfn + 21) << 12 | 0x20; /* reserved bits */
    e[4] = NOWHERE_PFN << 12;
    e[5] = UINT64_MAX;
    e[6] = (base_pfn + 22) << 12 | 0x1f; /* a status of its own */
    expect("entries", send(BALLOON_BATCHED_LOCK, 7), BALLOON_OK);
    expect("entry-good", e[0], (base_pfn + 20) << 12);
    expect("entry-twice", e[1] & 0x1f, BALLOON_LOCKED);
    expect("entry-self", e[2] & 0x1f, BALLOON_PINNED);
    expect("entry-reserved", e[3] & 0x1f, BALLOON_INVALID);
    expect("entry-hole", e[4] & 0x1f, BALLOON_INVALID);
    expect("entry-all", e[5] & 0x1f, BALLOON_INVALID);
    expect("entry-status", e[6], (base_pfn + 22) << 12);
    e[1] = (base_pfn + 23) << 12;
    expect("unlock-entries", send(BALLOON_BATCHED_UNLOCK, 2), BALLOON_OK);
    expect("unlock-good", e[0] & 0x1f, BALLOON_OK);
    expect("unlock-not-locked", e[1] & 0x1f, BALLOON_NOT_LOCKED);
    expect("unlock-last", unlock(base_pfn + 22), BALLOON_OK);
}

static void test_large(void)
{
    uint64_t *e = batch_page();
    uint64_t region = base_pfn + BALLOON_REGION;

    expect("2m-one-out", lock(region + 2 * BALLOON_REGION + 5), BALLOON_OK);
    e[0] = region << 12;
    e[1] = region << 12;
    e[2] = (region + 1) << 12;
    e[3] = end_pfn / BALLOON_REGION * BALLOON_REGION << 12; /* the last pages are nowhere */
    e[4] = base_pfn << 12;
    e[5] = (region + 2 * BALLOON_REGION) << 12;
    expect("2m-entries", send(BALLOON_BATCHED_2M_LOCK, 6), BALLOON_OK);
    expect("2m-good", e[0] & 0x1f, BALLOON_OK);
    expect("2m-twice", e[1] & 0x1f, BALLOON_LOCKED);
    expect("2m-askew", e[2] & 0x1f, BALLOON_INVALID);
    expect("2m-hole", e[3] & 0x1f, BALLOON_INVALID);
    expect("2m-self", e[4] & 0x1f, BALLOON_PINNED);
    expect("2m-part-out", e[5] & 0x1f, BALLOON_LOCKED);
    /* A small page out of the large one. */
    expect("2m-small-lock", lock(region + 9), BALLOON_LOCKED);
    expect("2m-small", unlock(region + 9), BALLOON_OK);
    e[0] = region << 12;
    expect("2m-unlock", send(BALLOON_BATCHED_2M_UNLOCK, 1), BALLOON_OK);
    expect("2m-unlock-part", e[0] & 0x1f, BALLOON_NOT_LOCKED);
    restart();
    expect("2m-contents", *word_of(region + 500), 0);
    expect("2m-after", status(BALLOON_GET_TARGET, 0, 0), BALLOON_OK);
}

/* Everything there is: the host takes no more than it may. */
static void test_everything(void)
{
    uint64_t locked = 0, last = BALLOON_OK, total = boot_ram_bytes() / PAGE;

    for (uint64_t i = 1; i < nr_pages; i++) {
        last = lock(base_pfn + i);
        locked += last == BALLOON_OK;
    }
    console_printf("badballoon: %lu of %lu pages of %lu given up\n", locked, nr_pages - 1, total);
    expect("everything", last, BALLOON_NOT_NEEDED);
    report_check(locked * 100 < total * 75, "floor", "the host took more than it may");
    restart();
}

/* ---- Floods ---- */

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* A batch of random pages, from a page that nobody else touches. Region 0 is where those are. */
static uint64_t random_batch(uint64_t *x, uint64_t batch_pfn)
{
    static const uint8_t commands[] = {BALLOON_BATCHED_LOCK, BALLOON_BATCHED_UNLOCK,
                                       BALLOON_BATCHED_2M_LOCK, BALLOON_BATCHED_2M_UNLOCK};
    uint64_t command = commands[next(x) % 4], count = next(x) % 600;
    bool large = command >= BALLOON_BATCHED_2M_LOCK;

    for (uint64_t i = 0; i < BALLOON_BATCH; i++) {
        uint64_t page = 64 + next(x) % (nr_pages - 64);
        uint64_t region = 1 + next(x) % (nr_pages / BALLOON_REGION - 1);

        ((uint64_t *)(batch_pfn * PAGE))[i] = (base_pfn + (large ? region * BALLOON_REGION : page))
                                              << 12;
    }
    return status(command, batch_pfn, count);
}

/* Random commands about pages that nothing of this guest is in; the processors share them. */
static void flood_commands(uint64_t cpu)
{
    uint64_t x = (cpu + 1) * 0x9e3779b97f4a7c15UL | 1;

    for (uint64_t i = 0; i < flood; i++) {
        uint64_t pfn = base_pfn + 64 + next(&x) % (nr_pages - 64);
        uint64_t s = BALLOON_OK;

        switch (next(&x) % 8) {
        case 0:
        case 1:
        case 2:
            s = lock(pfn);
            break;
        case 3:
            s = unlock(pfn);
            break;
        case 4:
            *word_of(pfn) = x;
            break;
        case 5:
            s = status(next(&x) & 1 ? BALLOON_GET_TARGET : 10 + next(&x) % 20, x, next(&x));
            break;
        case 6:
            s = i % 8 == 0 ? random_batch(&x, base_pfn + 1 + cpu) : BALLOON_OK;
            break;
        default:
            s = i % 16 == 0 ? balloon_call(BALLOON_START, next(&x), 0).status : BALLOON_OK;
            break;
        }
        odd = odd || (s > MAX_STATUS && s != BALLOON_OK_CAPABILITIES);
    }
}

static void ap_main(uint32_t index)
{
    while (!go) {
        cpu_pause();
    }
    flood_commands(index + 1);
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

static void test_floods(uint32_t cpus)
{
    if (cpus > 1) {
        lapic_enable(false);
        report_check(smp_start(ap_main, cpus - 1, PATIENCE) == cpus - 1, "cpus",
                     "a processor is missing");
    }
    for (uint64_t i = 0; i < flood; i++) {
        (void)status(BALLOON_GET_TARGET, 0, 0);
    }
    go = 1;
    flood_commands(0);
    while (done != cpus - 1) {
        cpu_pause();
    }
    report_check(!odd, "flood", "a status that there is not");
    restart();
    expect("flood-after", status(BALLOON_GET_TARGET, 0, 0), BALLOON_OK);
    for (uint64_t i = 0; i < nr_pages; i++) {
        *word_of(base_pfn + i) = i;
    }
    expect("flood-touched", status(BALLOON_GET_TARGET, 0, 0), BALLOON_OK);
}

/* Everything from 1 MiB on: the code that asks for it, too. */
static void suicide(void)
{
    restart();
    console_printf("badballoon: gives up its own memory\n");
    /* The root of its page tables first: with less it may live on, in whatever zeros and bits of code do. */
    (void)lock(read_cr3() / PAGE);
    for (uint64_t pfn = 0x100;; pfn++) {
        (void)lock(pfn);
    }
}

void guest_main(void)
{
    uint64_t mb = boot_option_u64("mb", 8);

    base_pfn = ((boot_loaded_end + LARGE - 1) & ~(LARGE - 1)) / PAGE;
    nr_pages = mb * MIB / PAGE;
    for (size_t i = 0; i < boot_nr_ram; i++) {
        uint64_t end = (boot_ram[i].base + boot_ram[i].size_bytes) / PAGE;

        end_pfn = end > end_pfn ? end : end_pfn;
    }
    flood = boot_option_u64("flood", 2000);
    if (boot_option_is("mode", "suicide")) {
        suicide();
    }
    test_port();
    test_start();
    test_pages();
    test_pop();
    test_counts();
    test_entries();
    test_large();
    test_everything();
    test_floods((uint32_t)boot_option_u64("cpus", 1));
    report_summary();
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest whose drivers lie to their virtio devices: descriptors, rings and registers that cannot be, one
 * after the other, each of which must put the device to rest until it is reset; then storms from several
 * processors. After all that, every device must work. It has a disk of at least 64 KiB, entropy, a virtio
 * console and a virtio balloon. Command line: cpus=N (1), storm=N (rounds of each storm, 2000),
 * mode=steady (writes and reads its disk and checks what it finds, for ever, instead).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"
#include "guests/lib/string.h"
#include "guests/lib/virtio.h"

#define PATIENCE 60000000000UL
#define FEATURE_INDIRECT (1U << 28)
#define PAGE 4096UL
#define NOWHERE 0x40000000UL /* 1 GiB: more than this guest has */

static struct virtio_ring ring, second;
static _Alignas(4096) uint8_t buffer[16 * PAGE];
static _Alignas(4096) volatile struct virtio_desc table[256];
static uint32_t rng, blk, console, balloon;

/* ---- The devices as they are meant to be used ---- */

static void set(volatile struct virtio_desc *d, uint64_t addr, uint32_t len, unsigned int flags,
                unsigned int next)
{
    d->addr = addr;
    d->len = len;
    d->flags = (uint16_t)flags;
    d->next = (uint16_t)next;
}

/* Who had the ring before might look at it once more, and take the next one's requests for its own. */
static void take_ring(uint32_t base)
{
    static uint32_t had;

    if (had != 0 && had != base) {
        virtio_write(had, VIRTIO_REG_STATUS, 0);
    }
    had = base;
}

static bool begin(uint32_t base)
{
    take_ring(base);
    bool ok = virtio_begin(base, FEATURE_INDIRECT);

    virtio_queue(base, 0, &ring);
    virtio_write(base, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY);
    return ok;
}

static bool rng_works(void)
{
    uint8_t sum = 0;

    if (!begin(rng)) {
        return false;
    }
    memset(buffer, 0, 64);
    set(&ring.desc[0], (uintptr_t)buffer, 64, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 0);
    if (!virtio_wait(rng, &ring, 1, PATIENCE) || ring.used.ring[0].len != 64) {
        return false;
    }
    for (unsigned int i = 0; i < 64; i++) {
        sum |= buffer[i];
    }
    return sum != 0;
}

/* One request; its status, or 255 where the device gave up. */
static uint8_t blk_request(uint32_t type, uint64_t sector, uint8_t *data, uint32_t len)
{
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static volatile uint8_t status;
    uint16_t used = (uint16_t)(ring.used.index + 1);

    header.type = type;
    header.sector = sector;
    status = 254;
    set(&ring.desc[0], (uintptr_t)&header, 16, VIRTIO_NEXT, len != 0 ? 1 : 2);
    set(&ring.desc[1], (uintptr_t)data, len, VIRTIO_NEXT | (type == 1 ? 0 : VIRTIO_WRITE), 2);
    set(&ring.desc[2], (uintptr_t)&status, 1, VIRTIO_WRITE, 0);
    virtio_offer(blk, 0, &ring, 0);
    return virtio_wait(blk, &ring, used, PATIENCE) ? status : 255;
}

static void fill(uint8_t *p, uint32_t len, uint32_t seed)
{
    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
    }
}

/* Write, read, compare: 8 KiB at a sector. */
static bool blk_roundtrip(uint64_t sector, uint32_t seed)
{
    fill(buffer, 8192, seed);
    if (blk_request(1, sector, buffer, 8192) != 0) {
        return false;
    }
    memset(buffer, 0, 8192);
    if (blk_request(0, sector, buffer, 8192) != 0) {
        return false;
    }
    fill(buffer + 8192, 8192, seed);
    return memcmp(buffer, buffer + 8192, 8192) == 0;
}

static bool blk_works(void)
{
    return begin(blk) && blk_roundtrip(8, 5) && blk_request(4, 0, NULL, 0) == 0;
}

static bool console_works(void)
{
    static const char text[] = "badvirtio: by the virtio console\n";

    take_ring(console);
    virtio_begin(console, 0);
    virtio_queue(console, 1, &ring);
    virtio_write(console, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY);
    memcpy(buffer, text, sizeof(text));
    set(&ring.desc[3], (uintptr_t)buffer, sizeof(text) - 1, 0, 0);
    virtio_offer(console, 1, &ring, 3);
    return virtio_wait(console, &ring, 1, PATIENCE);
}

static bool balloon_start(void)
{
    take_ring(balloon);
    bool ok = virtio_begin(balloon, 1U << 5); /* reports, without statistics: queue 2 or 4 */

    virtio_queue(balloon, 0, &ring);
    virtio_queue(balloon, 4, &second);
    virtio_write(balloon, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY);
    return ok;
}

static bool give_up(uint32_t pfn)
{
    memcpy(buffer, &pfn, sizeof(pfn));
    set(&ring.desc[0], (uintptr_t)buffer, sizeof(pfn), 0, 0);
    virtio_offer(balloon, 0, &ring, 0);
    return virtio_wait(balloon, &ring, (uint16_t)(ring.avail.index), PATIENCE);
}

/* ---- Lies about descriptors, told to the entropy device ---- */

static void lie_head(void)
{
    virtio_offer(rng, 0, &ring, VIRTIO_RING);
}

static void lie_next(void)
{
    set(&ring.desc[0], (uintptr_t)buffer, 16, VIRTIO_WRITE | VIRTIO_NEXT, VIRTIO_RING + 7);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_loop(void)
{
    set(&ring.desc[0], (uintptr_t)buffer, 16, VIRTIO_WRITE | VIRTIO_NEXT, 1);
    set(&ring.desc[1], (uintptr_t)buffer, 0, VIRTIO_WRITE | VIRTIO_NEXT, 0);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_huge(void)
{
    set(&ring.desc[0], (uintptr_t)buffer, UINT32_MAX, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_many(void)
{
    for (unsigned int i = 0; i < VIRTIO_RING; i++) {
        set(&ring.desc[i], 0x100000, 0x80000,
            VIRTIO_WRITE | (i + 1 < VIRTIO_RING ? VIRTIO_NEXT : 0), i + 1);
    }
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_to(uint64_t addr)
{
    set(&ring.desc[0], addr, 64, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_nowhere(void)
{
    lie_to(NOWHERE);
}

static void lie_mmio(void)
{
    lie_to(rng + VIRTIO_REG_STATUS);
}

static void lie_apic(void)
{
    lie_to(LAPIC_BASE);
}

static void lie_wrap(void)
{
    lie_to(UINT64_MAX - 7);
}

static void lie_high(void)
{
    lie_to(1UL << 52);
}

static void lie_order(void)
{
    set(&ring.desc[0], (uintptr_t)buffer, 16, VIRTIO_WRITE | VIRTIO_NEXT, 1);
    set(&ring.desc[1], (uintptr_t)buffer, 16, 0, 0);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_nothing(void)
{
    set(&ring.desc[0], (uintptr_t)buffer, 0, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_index(void)
{
    ring.avail.index = VIRTIO_RING + 1;
    virtio_write(rng, VIRTIO_REG_NOTIFY, 0);
}

static void lie_back(void)
{
    ring.avail.index = UINT16_MAX;
    virtio_write(rng, VIRTIO_REG_NOTIFY, 0);
}

/* Indirect tables: nested, empty, uneven, nowhere, looping; with a successor. */
static void indirect(uint64_t addr, uint32_t len, unsigned int flags)
{
    set(&ring.desc[0], addr, len, VIRTIO_INDIRECT | flags, 1);
    set(&ring.desc[1], (uintptr_t)buffer, 16, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 0);
}

static void lie_nested(void)
{
    set(&table[0], (uintptr_t)table, 16, VIRTIO_INDIRECT, 0);
    indirect((uintptr_t)table, 16, 0);
}

static void lie_empty(void)
{
    indirect((uintptr_t)table, 0, 0);
}

static void lie_uneven(void)
{
    indirect((uintptr_t)table, 40, 0);
}

static void lie_table_nowhere(void)
{
    indirect(NOWHERE, 64, 0);
}

static void lie_table_end(void)
{
    set(&table[0], (uintptr_t)buffer, 1, VIRTIO_WRITE | VIRTIO_NEXT, 1);
    indirect((uintptr_t)table, 16, 0);
}

static void lie_table_long(void)
{
    for (unsigned int i = 0; i < 256; i++) {
        set(&table[i], (uintptr_t)buffer, 1, VIRTIO_WRITE | VIRTIO_NEXT, (i + 1) % 256);
    }
    indirect((uintptr_t)table, sizeof(table), 0);
}

static void lie_successor(void)
{
    set(&table[0], (uintptr_t)buffer, 1, VIRTIO_WRITE, 0);
    indirect((uintptr_t)table, 16, VIRTIO_NEXT);
}

static const struct {
    const char *name;
    void (*tell)(void);
} lies[] = {
    {"head", lie_head},           {"next", lie_next},
    {"loop", lie_loop},           {"huge", lie_huge},
    {"many", lie_many},           {"nowhere", lie_nowhere},
    {"mmio", lie_mmio},           {"apic", lie_apic},
    {"wrap", lie_wrap},           {"high", lie_high},
    {"order", lie_order},         {"nothing", lie_nothing},
    {"index", lie_index},         {"back", lie_back},
    {"nested", lie_nested},       {"empty-table", lie_empty},
    {"uneven-table", lie_uneven}, {"table-nowhere", lie_table_nowhere},
    {"table-end", lie_table_end}, {"table-long", lie_table_long},
    {"successor", lie_successor},
};

static void test_lies(void)
{
    for (unsigned int i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        begin(rng);
        lies[i].tell();
        bool broken = virtio_wait_broken(rng, PATIENCE);
        /* It rests: nothing is used, whatever is offered. */
        virtio_offer(rng, 0, &ring, 0);
        report_check(broken && ring.used.index == 0, lies[i].name, "the device went on");
    }
    report_check(rng_works(), "rng-after-lies", "the entropy device does not work");
}

/* ---- Lies about rings ---- */

static void ring_lie(const char *name, uint32_t reg, uint32_t value, bool when_ready)
{
    virtio_begin(rng, 0);
    virtio_describe(rng, 0, &ring);
    virtio_write(rng, reg, value);
    virtio_write(rng, VIRTIO_REG_QUEUE_READY, 1);
    if (!when_ready) {
        virtio_write(rng, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY);
        virtio_write(rng, VIRTIO_REG_NOTIFY, 0);
    }
    report_check(virtio_wait_broken(rng, PATIENCE), name, "the device took it");
}

static void test_rings(void)
{
    ring_lie("size-0", VIRTIO_REG_QUEUE_SIZE, 0, true);
    ring_lie("size-3", VIRTIO_REG_QUEUE_SIZE, 3, true);
    ring_lie("size-65536", VIRTIO_REG_QUEUE_SIZE, 65536, true);
    ring_lie("desc-odd", VIRTIO_REG_DESC, 0x100008, true);
    ring_lie("avail-odd", VIRTIO_REG_AVAIL, 0x100001, true);
    ring_lie("used-odd", VIRTIO_REG_USED, 0x100002, true);
    ring_lie("desc-nowhere", VIRTIO_REG_DESC, NOWHERE, false);
    ring_lie("avail-mmio", VIRTIO_REG_AVAIL, rng, false);
    ring_lie("used-high", VIRTIO_REG_USED + 4, 0x10000, false);
    /* Features that were not offered, and none at all. */
    report_check(!virtio_begin(rng, 1U << 7), "features", "any feature is accepted");
    virtio_write(rng, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY & ~8U);
    report_check(virtio_wait_broken(rng, PATIENCE), "no-features", "it started all the same");
    /* Addresses that change while the queue is in use do not count. */
    begin(rng);
    virtio_write(rng, VIRTIO_REG_DESC, NOWHERE);
    virtio_write(rng, VIRTIO_REG_USED, (uint32_t)(uintptr_t)&second.used);
    virtio_write(rng, VIRTIO_REG_QUEUE_SIZE, 1);
    virtio_write(rng, VIRTIO_REG_QUEUE_READY, 1);
    set(&ring.desc[5], (uintptr_t)buffer, 64, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 5);
    report_check(virtio_wait(rng, &ring, 1, PATIENCE), "moved", "the ring in use moved");
    /* A queue that was taken out is left alone. */
    virtio_write(rng, VIRTIO_REG_QUEUE_READY, 0);
    virtio_offer(rng, 0, &ring, 5);
    report_check(virtio_read(rng, VIRTIO_REG_QUEUE_READY) == 0 && ring.used.index == 1, "taken-out",
                 "it is still in use");
    report_check(rng_works(), "rng-after-rings", "the entropy device does not work");
}

/* ---- Lies about requests ---- */

static void test_requests(void)
{
    uint64_t sectors;

    begin(blk);
    sectors = *(volatile uint64_t *)(uintptr_t)(blk + VIRTIO_REG_CONFIG);
    report_check(blk_request(99, 0, buffer, 512) == 2, "blk-type", "not unsupported");
    report_check(blk_request(0, sectors, buffer, 512) == 1, "blk-end", "no error");
    report_check(blk_request(0, sectors - 1, buffer, 1024) == 1, "blk-over", "no error");
    report_check(blk_request(1, UINT64_MAX, buffer, 512) == 1, "blk-wrap", "no error");
    report_check(blk_request(0, 0, buffer, 511) == 1, "blk-part", "no error");
    report_check(blk_request(0, UINT64_MAX / 512, buffer, 512) == 1, "blk-far", "no error");
    set(&ring.desc[0], (uintptr_t)buffer, 15, VIRTIO_NEXT, 1);
    set(&ring.desc[1], (uintptr_t)buffer, 1, VIRTIO_WRITE, 0);
    virtio_offer(blk, 0, &ring, 0);
    report_check(virtio_wait_broken(blk, PATIENCE), "blk-header", "it took half a header");
    begin(blk);
    set(&ring.desc[0], (uintptr_t)buffer, 16, 0, 0);
    virtio_offer(blk, 0, &ring, 0);
    report_check(virtio_wait_broken(blk, PATIENCE), "blk-status", "it did without a status");
    report_check(blk_works(), "blk-after", "the disk does not work");
}

/* ---- Pages that were given up, as buffers and as rings ---- */

static void test_balloon(void)
{
    uint32_t page = (uint32_t)((uintptr_t)buffer / PAGE) + 8;
    volatile uint8_t *where = buffer + 8 * PAGE;

    report_check(balloon_start(), "balloon", "it does not start");
    report_check(give_up(UINT32_MAX) && give_up(rng / PAGE) && give_up((uint32_t)(NOWHERE / PAGE)),
                 "give-nowhere", "no answer");
    *where = 77;
    report_check(give_up(page) && give_up(page), "give-twice", "no answer");
    begin(rng);
    set(&ring.desc[0], (uintptr_t)where, 64, VIRTIO_WRITE, 0);
    virtio_offer(rng, 0, &ring, 0);
    report_check(virtio_wait(rng, &ring, 1, PATIENCE) && ring.used.ring[0].len == 64,
                 "given-buffer", "no answer");
    /* The ring itself: what comes back is zero, a ring with nothing in it. */
    balloon_start();
    for (unsigned int i = 0; i < 3; i++) {
        (void)give_up((uint32_t)((uintptr_t)&second / PAGE) + i);
    }
    virtio_begin(rng, 0);
    virtio_write(rng, VIRTIO_REG_QUEUE_SELECT, 0);
    virtio_write(rng, VIRTIO_REG_DESC, (uint32_t)(uintptr_t)second.desc);
    virtio_write(rng, VIRTIO_REG_AVAIL, (uint32_t)(uintptr_t)&second.avail);
    virtio_write(rng, VIRTIO_REG_USED, (uint32_t)(uintptr_t)&second.used);
    virtio_write(rng, VIRTIO_REG_QUEUE_READY, 1);
    virtio_write(rng, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY);
    virtio_write(rng, VIRTIO_REG_NOTIFY, 0);
    report_check(rng_works(), "given-ring", "the entropy device does not work");
    /* Reports of what there is not, and of what is in use. */
    balloon_start();
    set(&second.desc[0], (uintptr_t)where, PAGE, VIRTIO_WRITE | VIRTIO_NEXT, 1);
    set(&second.desc[1], NOWHERE, 0x200000, VIRTIO_WRITE, 0);
    *where = 78;
    virtio_offer(balloon, 4, &second, 0);
    report_check(virtio_wait_broken(balloon, PATIENCE) && *where == 0, "report-nowhere",
                 "it was believed");
    balloon_start();
    set(&ring.desc[0], (uintptr_t)buffer, 3, 0, 0);
    virtio_offer(balloon, 0, &ring, 0);
    report_check(virtio_wait_broken(balloon, PATIENCE), "give-part", "three bytes of a number");
    virtio_write(balloon, VIRTIO_REG_STATUS, 0);
}

/* ---- Storms ---- */

static volatile uint32_t go, done;
static uint64_t rounds;

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Any register of any device, with values that mostly mean something; addresses only where there is no RAM, for
 * a ring anywhere in it would be this guest's own end. */
static void storm_registers(uint64_t *x)
{
    static const uint16_t regs[] = {0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50,  0x64, 0x70,
                                    0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x104, 0x10c};
    const uint32_t devices[] = {rng, blk, console, balloon};
    uint32_t base = devices[next(x) % 4];
    uint16_t reg = regs[next(x) % (sizeof(regs) / sizeof(regs[0]))];
    uint32_t value = (uint32_t)next(x);
    uint32_t high = reg >= VIRTIO_REG_DESC && reg < VIRTIO_REG_CONFIG ? 0x80000000U : 0;

    switch (next(x) % 4) {
    case 0:
        virtio_write(base, reg, value % 16 | high);
        break;
    case 1:
        virtio_write(base, reg, value | high);
        break;
    case 2:
        (void)virtio_read(base, (value % 0x80) * 4);
        break;
    default:
        virtio_write(base, VIRTIO_REG_NOTIFY, value % 6);
        break;
    }
}

/* A working ring under whatever the others do to it. */
static void storm_ring(uint64_t *x)
{
    const uint32_t devices[] = {rng, blk, console, balloon};
    uint32_t base = devices[next(x) % 4], queue = (uint32_t)next(x) % 5;

    /* Random page numbers would give this guest's code away. */
    queue += base == balloon && queue == 0;
    virtio_begin(base, FEATURE_INDIRECT);
    virtio_queue(base, queue, next(x) & 1 ? &ring : &second);
    virtio_write(base, VIRTIO_REG_STATUS, VIRTIO_STATUS_READY);
    for (unsigned int i = 0; i < 8; i++) {
        virtio_offer(base, queue, &ring, (uint16_t)(next(x) % VIRTIO_RING));
    }
}

static void storm_memory(uint64_t *x)
{
    struct virtio_ring *r = next(x) & 1 ? &ring : &second;
    volatile struct virtio_desc *d =
        next(x) & 3 ? &r->desc[next(x) % VIRTIO_RING] : &table[next(x) % 256];

    set(d, (uintptr_t)buffer + next(x) % (sizeof(buffer) / 2), (uint32_t)(next(x) % 9000),
        (unsigned int)next(x) % 8, (unsigned int)next(x) % (VIRTIO_RING + 1));
    if (next(x) % 8 == 0) {
        d->addr = next(x) & 1 ? next(x) | 1UL << 40 : (uintptr_t)table;
        d->len = next(x) & 1 ? (uint32_t)next(x) | 1U << 31 : 16 * (uint32_t)(next(x) % 20);
    }
    if (next(x) % 4 == 0) {
        r->avail.index = (uint16_t)next(x);
    }
    r->avail.ring[next(x) % VIRTIO_RING] = (uint16_t)(next(x) % (VIRTIO_RING + 1));
}

static void storm(uint32_t cpu)
{
    uint64_t x = (cpu + 1) * 0x9e3779b97f4a7c15UL | 1;

    for (uint64_t i = 0; i < rounds; i++) {
        storm_registers(&x);
        if (i % 32 == 0) {
            storm_ring(&x);
        }
        storm_memory(&x);
    }
}

/* Notifications alone, on a device that works. */
static void flood(void)
{
    for (uint64_t i = 0; i < rounds; i++) {
        virtio_write(rng, VIRTIO_REG_NOTIFY, 0);
    }
}

static void resets(void)
{
    const uint32_t devices[] = {rng, blk, console, balloon};

    for (uint64_t i = 0; i < rounds; i++) {
        virtio_write(devices[i % 4], VIRTIO_REG_STATUS, i % 3 == 0 ? VIRTIO_STATUS_READY : 0);
        virtio_write(devices[i % 4], VIRTIO_REG_NOTIFY, 0);
    }
}

static void all_storms(uint32_t cpu)
{
    flood();
    resets();
    storm(cpu);
}

static void ap_main(uint32_t index)
{
    while (!go) {
        cpu_pause();
    }
    all_storms(index + 1);
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

static void test_storms(uint32_t cpus)
{
    if (cpus > 1) {
        lapic_enable(false);
        report_check(smp_start(ap_main, cpus - 1, PATIENCE) == cpus - 1, "cpus",
                     "a processor is missing");
    }
    (void)begin(rng);
    go = 1;
    all_storms(0);
    while (done != cpus - 1) {
        cpu_pause();
    }
    for (unsigned int i = 0; i < 4; i++) {
        virtio_write((const uint32_t[]){rng, blk, console, balloon}[i], VIRTIO_REG_STATUS, 0);
    }
    report_check(rng_works(), "rng-after-storm", "the entropy device does not work");
    report_check(blk_works(), "blk-after-storm", "the disk does not work");
    report_check(console_works(), "console-after-storm", "the console does not work");
    report_check(balloon_start() && give_up((uint32_t)((uintptr_t)buffer / PAGE) + 9),
                 "balloon-after-storm", "the balloon does not work");
    virtio_write(balloon, VIRTIO_REG_STATUS, 0);
}

/* ---- The neighbour ---- */

static void steady(void)
{
    report_check(begin(blk), "steady", "no disk");
    for (uint32_t i = 1;; i++) {
        if (!blk_roundtrip(8 + 16 * (i % 4), i)) {
            console_printf("steady: FAIL in round %u\n", i);
            return;
        }
        if ((i & (i - 1)) == 0) {
            console_printf("steady: round %u\n", i);
        }
    }
}

void guest_main(void)
{
    rng = virtio_find(VIRTIO_RNG);
    blk = virtio_find(VIRTIO_BLK);
    console = virtio_find(VIRTIO_CONSOLE);
    balloon = virtio_find(VIRTIO_BALLOON);
    rounds = boot_option_u64("storm", 2000);
    if (boot_option_is("mode", "steady")) {
        steady();
        return;
    }
    report_check(rng_works() && blk_works() && console_works(), "devices", "one does not work");
    test_lies();
    test_rings();
    test_requests();
    test_balloon();
    test_storms((uint32_t)boot_option_u64("cpus", 1));
    report_summary();
}

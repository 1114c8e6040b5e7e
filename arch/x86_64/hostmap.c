/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor's address space.
 *
 *     PHYSMAP_BASE   RAM, ACPI tables, modules and the first MiB, writable, not executable; the
 *                    image's text and rodata read-only
 *     STACKS_BASE    slots of 32 KiB: 16 KiB never mapped (the guard), then a 16 KiB stack
 *     DEVMAP_BASE    device registers, each mapping followed by a page that is never mapped
 *     IMAGE_BASE     text (R, X), rodata (R), data and bss (R, W)
 *
 * Everything is mapped for good and alike on all processors, except stacks: their frames go back to
 * the allocator at once, but the slot, which other processors may still have in their TLBs, is used
 * again only after all have flushed. Tables and slots are under `lock`.
 */
#include "arch/x86_64/hostmap.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "arch/x86_64/smp.h"
#include "boot/bootinfo.h"
#include "boot/entry.h"
#include "kernel/log.h"
#include "mm/pt/fmt_x86.h"
#include "mm/pt/pt.h"

#define STACK_ORDER 2u
#define SLOT_SIZE (2 * STACK_SIZE)
#define NR_SLOTS 16384u
#define RECYCLE_STALE 256u /* used slots that gather before a flush makes them free again */
#define DEVMAP_SIZE (1ull << 40)
#define LOW_MEMORY MIB(1)

_Static_assert((PAGE_SIZE << STACK_ORDER) == STACK_SIZE, "a stack is one block");

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_STALE, SLOT_FLUSHING };

static struct spinlock lock = SPINLOCK_INIT(RANK_HOSTMAP, "hostmap");
static struct pt tables;
static uint64_t next_device = DEVMAP_BASE;
static uint8_t slots[NR_SLOTS]; /* enum slot_state */
static uint32_t nr_slots_seen;  /* slots below were used at least once */
static uint32_t nr_stale;
static bool recycling;
static const struct boot_info *boot; /* set by hostmap_init; constant */

static uint64_t image_pa(const char *section)
{
    return kernel_phys_base + (uint64_t)(section - __image_start);
}

hpa_t virt_to_phys(const void *ptr)
{
    uint64_t va = (uint64_t)ptr;
    struct pt_leaf leaf;

    if (va >= PHYSMAP_BASE && va - PHYSMAP_BASE < PHYSMAP_SIZE) {
        return HPA(va - PHYSMAP_BASE);
    }
    if ((const char *)ptr >= __image_start && (const char *)ptr < __image_end) {
        return HPA(image_pa(ptr));
    }
    if (pt_lookup(&tables, va, &leaf)) {
        return HPA(leaf.pa.a + (va - leaf.va));
    }
    panic("virt_to_phys: %p is no address of ours", ptr);
}

/* ---- Building ---- */

static bool range_in_physmap(const struct boot_range *r)
{
    return r->type == BOOT_RANGE_USABLE || r->type == BOOT_RANGE_ACPI || r->type == BOOT_RANGE_NVS;
}

bool hostmap_is_ram(hpa_t pa, uint64_t size)
{
    uint64_t at = pa.a;
    uint64_t end = pa.a + size;

    if (end <= LOW_MEMORY) {
        return true;
    }
    /* Ranges are sorted: follow them while they continue each other. */
    for (uint32_t i = 0; i < boot->nr_ranges && at < end; i++) {
        const struct boot_range *r = &boot->ranges[i];

        if (range_in_physmap(r) && at >= r->base && at < r->base + r->size) {
            at = r->base + r->size;
        }
    }
    return at >= end;
}

static enum hv_err map_physmap(uint64_t base, uint64_t size, uint32_t perm)
{
    const struct pt_attr attr = {.perm = perm, .type = PT_WB, .global = true};
    uint64_t from = ALIGN_DOWN(base, PAGE_SIZE);
    uint64_t to = ALIGN_UP(base + size, PAGE_SIZE);

    return from == to ? HV_OK
                      : pt_map(&tables, PHYSMAP_BASE + from, HPA(from), to - from, attr, NULL);
}

static enum hv_err build_physmap(void)
{
    enum hv_err err = map_physmap(0, LOW_MEMORY, PT_R | PT_W);

    for (uint32_t i = 0; i < boot->nr_ranges && err == HV_OK; i++) {
        if (range_in_physmap(&boot->ranges[i])) {
            err = map_physmap(boot->ranges[i].base, boot->ranges[i].size, PT_R | PT_W);
        }
    }
    /* A loader may have put modules where its map says reserved. */
    for (uint32_t i = 0; i < boot->nr_modules && err == HV_OK; i++) {
        const struct boot_module *m = &boot->modules[i];

        if (m->size != 0 && !hostmap_is_ram(HPA(m->base), m->size)) {
            err = map_physmap(m->base, m->size, PT_R);
        }
    }
    if (err == HV_OK) {
        err = map_physmap(kernel_phys_base, (uint64_t)(__data_start - __image_start), PT_R);
    }
    return err;
}

static enum hv_err map_image(const char *from, const char *to, uint32_t perm)
{
    const struct pt_attr attr = {.perm = perm, .type = PT_WB, .global = true};

    return pt_map(&tables, (uint64_t)from, HPA(image_pa(from)),
                  ALIGN_UP((uint64_t)(to - from), PAGE_SIZE), attr, NULL);
}

static enum hv_err build_image(void)
{
    enum hv_err err = map_image(__text_start, __text_end, PT_R | PT_X);

    if (err == HV_OK) {
        err = map_image(__rodata_start, __data_start, PT_R);
    }
    if (err == HV_OK) {
        err = map_image(__data_start, __image_end, PT_R | PT_W);
    }
    return err;
}

enum hv_err hostmap_init(const struct boot_info *info)
{
    enum hv_err err;

    boot = info;
    err = pt_create(&tables, &fmt_x86_host, cpu_features.page1gb ? ORDER_1G : ORDER_2M, FRAME_HOST,
                    OWNER_HOST);
    if (err == HV_OK) {
        err = build_physmap();
    }
    if (err == HV_OK) {
        err = build_image();
    }
    if (err == HV_OK) {
        hostmap_load();
    }
    return err;
}

/* Everything, global translations included ("Invalidating TLBs": a change of CR4.PGE). */
static void flush_tlb(void *arg)
{
    uint64_t cr4 = read_cr4();

    (void)arg;
    write_cr4(cr4 & ~CR4_PGE);
    write_cr4(cr4);
}

void hostmap_load(void)
{
    write_cr3(mfn_hpa(tables.root).a);
    flush_tlb(NULL);
}

/* ---- Devices ---- */

void *hostmap_device(hpa_t pa, uint64_t size, bool write_combining)
{
    const struct pt_attr attr = {
        .perm = PT_R | PT_W, .type = write_combining ? PT_WC : PT_UC, .global = true};
    uint64_t offset = pa.a & ~PAGE_MASK;
    uint64_t bytes = ALIGN_UP(offset + size, PAGE_SIZE);
    uint64_t base = pa.a - offset;
    void *result = NULL;

    if (size == 0 || base + bytes < base || (base + bytes) >> cpu_features.phys_bits != 0) {
        return NULL;
    }
    spin_lock(&lock);
    uint64_t va = next_device;

    if (bytes >= MIB(2)) { /* congruent addresses let large leaves in */
        va = ALIGN_UP(va, MIB(2)) + (base & (MIB(2) - 1));
    }
    if (va + bytes + PAGE_SIZE - DEVMAP_BASE <= DEVMAP_SIZE &&
        pt_map(&tables, va, HPA(base), bytes, attr, NULL) == HV_OK) {
        next_device = va + bytes + PAGE_SIZE;
        result = (void *)(va + offset);
    }
    spin_unlock(&lock);
    return result;
}

/* ---- Stacks ---- */

static uint64_t slot_stack(uint32_t slot)
{
    return STACKS_BASE + slot * SLOT_SIZE + STACK_SIZE;
}

bool hostmap_is_guard(uint64_t addr)
{
    uint64_t end =
        STACKS_BASE + (uint64_t)__atomic_load_n(&nr_slots_seen, __ATOMIC_RELAXED) * SLOT_SIZE;

    return addr >= STACKS_BASE && addr < end && (addr & STACK_SIZE) == 0;
}

/* Every processor forgets the stale slots; then they are free. No lock held, interrupts on. */
static void recycle_stale(void)
{
    spin_lock(&lock);
    bool due = nr_stale >= RECYCLE_STALE && !recycling;

    if (due) {
        /* Only what is stale now is covered by the flush that follows. */
        for (uint32_t i = 0; i < nr_slots_seen; i++) {
            slots[i] = slots[i] == SLOT_STALE ? SLOT_FLUSHING : slots[i];
        }
        nr_stale = 0;
        recycling = true;
    }
    spin_unlock(&lock);
    if (!due) {
        return;
    }

    smp_call_others(flush_tlb, NULL);
    flush_tlb(NULL);

    spin_lock(&lock);
    for (uint32_t i = 0; i < nr_slots_seen; i++) {
        slots[i] = slots[i] == SLOT_FLUSHING ? SLOT_FREE : slots[i];
    }
    recycling = false;
    spin_unlock(&lock);
}

/* Lock held. NR_SLOTS: none left. */
static uint32_t take_slot(void)
{
    uint32_t i = 0;

    while (i < nr_slots_seen && slots[i] != SLOT_FREE) {
        i++;
    }
    if (i == nr_slots_seen && i < NR_SLOTS) {
        __atomic_store_n(&nr_slots_seen, i + 1, __ATOMIC_RELAXED);
    }
    if (i < NR_SLOTS) {
        slots[i] = SLOT_USED;
    }
    return i;
}

uint64_t hostmap_stack_alloc(uint32_t owner)
{
    const struct pt_attr attr = {.perm = PT_R | PT_W, .type = PT_WB, .global = true};
    enum frame_use use = owner == OWNER_HOST ? FRAME_HOST : FRAME_VM;
    mfn_t mfn;

    recycle_stale();
    if (buddy_alloc(STACK_ORDER, use, owner, BUDDY_ZERO, &mfn) != HV_OK) {
        return 0;
    }
    spin_lock(&lock);
    uint32_t slot = take_slot();
    enum hv_err err = HV_ENOMEM;

    if (slot < NR_SLOTS) {
        err = pt_map(&tables, slot_stack(slot), mfn_hpa(mfn), STACK_SIZE, attr, NULL);
        if (err != HV_OK) {
            slots[slot] = SLOT_FREE; /* nothing was mapped there */
        }
    }
    spin_unlock(&lock);
    if (err != HV_OK) {
        buddy_free(mfn, STACK_ORDER);
        return 0;
    }
    return slot_stack(slot) + STACK_SIZE;
}

void hostmap_stack_free(uint64_t top)
{
    uint64_t base = top - STACK_SIZE;
    struct pt_leaf leaf;

    spin_lock(&lock);
    if (base < STACKS_BASE || !pt_lookup(&tables, base, &leaf)) {
        panic("hostmap_stack_free: no stack ends at %llx", (unsigned long long)top);
    }
    pt_unmap(&tables, base, STACK_SIZE, NULL);
    slots[(base - STACKS_BASE) / SLOT_SIZE] = SLOT_STALE;
    nr_stale++;
    spin_unlock(&lock);
    buddy_free(hpa_mfn(leaf.pa), STACK_ORDER);
}

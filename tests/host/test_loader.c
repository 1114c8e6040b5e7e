/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The image loaders against a guest memory of the host's: good images land where they should, each
 * kind of damage is refused with a message that names it, and random damage never reads outside the
 * image (exact heap blocks under ASan) nor writes outside the guest's RAM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/vm.h"

#define RAM_MAX GIB(1)
#define SYS_BYTES 0x4000u
#define SETUP_BYTES 1024u
#define BZ_BYTES (SETUP_BYTES + SYS_BYTES)
#define ROUNDS 200000

static uint8_t *ram;
static struct vm vm;
static struct loader_request req;
static struct loader_entry entry;

bool guestmem_shares(struct vm *v)
{
    return v->id % 2 == 0;
}

enum hv_err guestmem_share(struct vm *v, gpa_t gpa, const void *page)
{
    return guestmem_write(v, gpa, page, PAGE_SIZE);
}

bool guestmem_is_ram(struct vm *v, gpa_t gpa, uint64_t len)
{
    uint64_t memory = v->config.memory_bytes;
    uint64_t end = gpa.a + len;
    if (end < gpa.a) {
        return false;
    }
    return end <= MIN(memory, GUEST_LOW_RAM_END) || (gpa.a >= MIB(1) && end <= memory);
}

enum hv_err guestmem_write(struct vm *v, gpa_t gpa, const void *src, size_t len)
{
    if (!guestmem_is_ram(v, gpa, len)) {
        return HV_ENOENT;
    }
    memcpy(ram + gpa.a, src, len);
    return HV_OK;
}

enum hv_err guestmem_read(struct vm *v, gpa_t gpa, void *dst, size_t len)
{
    (void)v;
    memcpy(dst, ram + gpa.a, len);
    return HV_OK;
}

static bool no_memory;

void *kmalloc(size_t size, uint32_t owner)
{
    (void)owner;
    return no_memory ? NULL : calloc(1, size);
}

void kfree(void *p)
{
    free(p);
}

const char *hv_strerror(enum hv_err err)
{
    return err ? "error" : "ok";
}

static void put16(uint8_t *p, unsigned at, uint32_t v)
{
    uint16_t w = (uint16_t)v;
    memcpy(p + at, &w, 2);
}

static void put32(uint8_t *p, unsigned at, uint64_t v)
{
    uint32_t w = (uint32_t)v;
    memcpy(p + at, &w, 4);
}

static void put64(uint8_t *p, unsigned at, uint64_t v)
{
    memcpy(p + at, &v, 8);
}

static uint32_t ram32(uint64_t at)
{
    uint32_t v;
    memcpy(&v, ram + at, 4);
    return v;
}

static uint64_t ram64(uint64_t at)
{
    uint64_t v;
    memcpy(&v, ram + at, 8);
    return v;
}

/* A bzImage that the protocol would accept, with recognisable contents. */
static uint8_t *make_bzimage(void)
{
    uint8_t *p = calloc(1, BZ_BYTES);
    memset(p + SETUP_BYTES, 0x90, SYS_BYTES);
    p[0x1f1] = 1;
    put32(p, 0x1f4, SYS_BYTES / 16);
    put16(p, 0x1fe, 0xaa55);
    p[0x200] = 0xeb;
    p[0x201] = 0x66;
    put32(p, 0x202, 0x53726448);
    put16(p, 0x206, 0x20f);
    p[0x211] = 1;
    put32(p, 0x22c, 0x7fffffff);
    put32(p, 0x230, 0x200000);
    p[0x234] = 1;
    put16(p, 0x236, 0x7f);
    put32(p, 0x238, 2047);
    put32(p, 0x248, 0x100);
    put32(p, 0x24c, 0x1000);
    put64(p, 0x258, MIB(16));
    put32(p, 0x260, MIB(50));
    return p;
}

#define ELF_BYTES 8192u
#define ELF_SEG 0x1000u
#define ELF_LOAD MIB(1)

enum headers { MULTIBOOT1, MULTIBOOT2, PVH, NR_HEADERS };

/* Multiboot2: required information, an optional tag that nobody knows, end. */
static void put_multiboot2(uint8_t *p, unsigned at)
{
    put32(p, at, 0xe85250d6);
    put32(p, at + 8, 16 + 24 + 16 + 8);
    put32(p, at + 12, -(0xe85250d6 + 64));
    put16(p, at + 16, 1);
    put32(p, at + 20, 20);
    put32(p, at + 24, 1);
    put32(p, at + 28, 3);
    put32(p, at + 32, 6);
    put16(p, at + 40, 99);
    put16(p, at + 42, 1);
    put32(p, at + 44, 12);
    put32(p, at + 60, 8);
}

/* The program header of notes, and two notes: an entry at ELF_LOAD + 0x40, and who it is. */
static void put_pvh(uint8_t *p, bool is64, unsigned ph)
{
    unsigned at = ELF_SEG + 0x100;
    put16(p, is64 ? 56 : 44, 2);
    put32(p, ph, 4);
    put32(p, ph + (is64 ? 8 : 4), at);
    put32(p, ph + (is64 ? 32 : 16), 44);
    put32(p, at, 4);
    put32(p, at + 4, 6);
    put32(p, at + 8, 6);
    memcpy(p + at + 12, "Xen\0linux", 10);
    at += 24;
    put32(p, at, 4);
    put32(p, at + 4, 4);
    put32(p, at + 8, 18);
    memcpy(p + at + 12, "Xen", 4);
    put32(p, at + 16, ELF_LOAD + 0x40);
}

static uint8_t *make_elf_with(bool is64, enum headers headers)
{
    uint8_t *p = calloc(1, ELF_BYTES);
    unsigned ph = is64 ? 64 : 52;
    memcpy(p, "\177ELF", 4);
    p[4] = is64 ? 2 : 1;
    p[5] = 1;
    p[6] = 1;
    put16(p, 16, 2);
    put16(p, 18, is64 ? 62 : 3);
    if (is64) {
        put64(p, 24, ELF_LOAD + 0x20);
        put64(p, 32, ph);
        put16(p, 54, 56);
        put16(p, 56, 1);
        put32(p, ph, 1);
        put64(p, ph + 8, ELF_SEG);
        put64(p, ph + 16, ELF_LOAD);
        put64(p, ph + 24, ELF_LOAD);
        put64(p, ph + 32, 0x800);
        put64(p, ph + 40, 0x3000);
    } else {
        put32(p, 24, ELF_LOAD + 0x20);
        put32(p, 28, ph);
        put16(p, 42, 32);
        put16(p, 44, 1);
        put32(p, ph, 1);
        put32(p, ph + 4, ELF_SEG);
        put32(p, ph + 8, ELF_LOAD);
        put32(p, ph + 12, ELF_LOAD);
        put32(p, ph + 16, 0x800);
        put32(p, ph + 20, 0x3000);
    }
    if (headers == MULTIBOOT1) {
        put32(p, ELF_SEG, 0x1badb002);
        put32(p, ELF_SEG + 4, 3);
        put32(p, ELF_SEG + 8, -(0x1badb002 + 3));
    } else if (headers == MULTIBOOT2) {
        put_multiboot2(p, ELF_SEG);
    } else {
        put_pvh(p, is64, ph + (is64 ? 56 : 32));
    }
    return p;
}

static uint8_t *make_elf(bool is64)
{
    return make_elf_with(is64, MULTIBOOT1);
}

static enum hv_err load(const uint8_t *image, uint64_t size, uint64_t memory)
{
    vm.config.memory_bytes = memory;
    vm.id++; /* every second one shares pages */
    req.vm = &vm;
    req.kernel = (struct loader_image){"kern", image, size};
    memset(req.error, 0x55, sizeof(req.error));
    return loader_load(&req, &entry);
}

static void expect_error(const uint8_t *image, uint64_t size, uint64_t memory, const char *text)
{
    assert_int_not_equal(load(image, size, memory), HV_OK);
    if (!strstr(req.error, text)) {
        print_error("wanted '%s' in '%s'\n", text, req.error);
        fail();
    }
}

static int setup(void **state)
{
    (void)state;
    static uint8_t initrd[12345];
    ram = mmap(NULL, RAM_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
               -1, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    memset(initrd, 0xcd, sizeof(initrd));
    req.initrd = (struct loader_image){"ird", initrd, sizeof(initrd)};
    req.cmdline = "console=ttyS0 x";
    req.rsdp = 0xe0000;
    return 0;
}

static void test_memory_map(void **state)
{
    (void)state;
    struct loader_range r[8];
    assert_int_equal(loader_memory_map(MIB(256), r, 8), 4);
    assert_int_equal(r[0].size, GUEST_LOW_RAM_END);
    assert_int_equal(r[1].base, GUEST_LOW_RAM_END);
    assert_int_equal(r[1].type, 2);
    assert_int_equal(r[2].base, GUEST_ACPI_BASE);
    assert_int_equal(r[2].type, 3);
    assert_int_equal(r[3].base, MIB(1));
    assert_int_equal(r[3].size, MIB(255));
    assert_int_equal(loader_memory_map(GIB(5), r, 8), 5);
    assert_int_equal(r[3].base + r[3].size, GUEST_PCI_HOLE);
    assert_int_equal(r[4].base, GIB(4));
    assert_int_equal(r[4].size, GIB(2));
    assert_int_equal(loader_memory_map(GIB(5), r, 2), 2);
    assert_int_equal(loader_memory_map(KIB(64), r, 8), 3);
}

static void test_linux_good(void **state)
{
    (void)state;
    uint8_t *p = make_bzimage();
    assert_int_equal(load(p, BZ_BYTES, MIB(256)), HV_OK);
    assert_int_equal(entry.mode, ENTRY_LONG64);
    assert_int_equal(entry.rip, MIB(16) + 0x200);
    assert_memory_equal(ram + MIB(16), p + SETUP_BYTES, SYS_BYTES);
    uint64_t zp = entry.rsi;
    assert_int_equal(ram32(zp + 0x202), 0x53726448);
    assert_int_equal(ram[zp + 0x210], 0xff);
    assert_int_equal(ram64(zp + 0x70), 0xe0000);
    assert_string_equal((char *)ram + ram32(zp + 0x228), "console=ttyS0 x");
    assert_int_equal(ram32(zp + 0x21c), req.initrd.size);
    uint64_t initrd = ram32(zp + 0x218);
    assert_true(initrd >= MIB(66) && initrd + req.initrd.size <= MIB(256));
    assert_memory_equal(ram + initrd, req.initrd.data, req.initrd.size);
    assert_int_equal(ram[zp + 0x1e8], 4);
    assert_int_equal(ram64(zp + 0x2d0 + 60), MIB(1));
    /* The identity map reaches all of the first 4 GiB. */
    uint64_t pdpt = ram64(entry.cr3) & ~0xfffULL;
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t pd = ram64(pdpt + 8 * i) & ~0xfffULL;
        assert_int_equal(ram64(pd + 8 * 511), GIB(i) + 511 * MIB(2) + 0x83);
    }
    assert_int_equal(ram64(entry.gdt + 0x10), 0x00af9b000000ffff);
    /* A small VM: not at the preferred address. */
    put32(p, 0x260, MIB(40));
    assert_int_equal(load(p, BZ_BYTES, MIB(48)), HV_OK);
    assert_int_equal(entry.rip, MIB(2) + 0x200);
    free(p);
}

/* No 64-bit entry, by flag or by age: the 32-bit one, with what the protocol of the age says. */
static void test_linux_32(void **state)
{
    (void)state;
    uint8_t *p = make_bzimage();
    put16(p, 0x236, 0);
    assert_int_equal(load(p, BZ_BYTES, MIB(256)), HV_OK);
    assert_int_equal(entry.mode, ENTRY_PROTECTED32);
    assert_int_equal(entry.rip, MIB(16));
    assert_int_equal(ram64(entry.gdt + 0x10), 0x00cf9b000000ffff);
    assert_int_equal(ram32(entry.rsi + 0x214), MIB(16));
    put16(p, 0x236, 0x7f);
    for (unsigned version = 0x202; version < 0x20a; version++) {
        put16(p, 0x206, version);
        put32(p, 0x24c, version < 0x208 ? UINT32_MAX : 0);
        assert_int_equal(load(p, BZ_BYTES, MIB(256)), HV_OK);
        assert_int_equal(entry.mode, ENTRY_PROTECTED32);
        assert_int_equal(entry.rip, MIB(1));
        assert_string_equal((char *)ram + ram32(entry.rsi + 0x228), "console=ttyS0 x");
    }
    put16(p, 0x206, 0x20c);
    put32(p, 0x24c, 0);
    p[0x234] = 0; /* not relocatable: its alignment does not matter */
    put32(p, 0x230, 3);
    assert_int_equal(load(p, BZ_BYTES, MIB(256)), HV_OK);
    assert_int_equal(entry.mode, ENTRY_LONG64);
    expect_error(p, BZ_BYTES, MIB(48), "needs at least 66 MiB");
    free(p);
}

static void test_linux_bad(void **state)
{
    (void)state;
    static const struct {
        unsigned at, width;
        uint64_t v;
        const char *says;
    } cases[] = {
        {0x202, 4, 0x12345678, "no kernel that can be loaded"},
        {0x1fe, 2, 0, "boot flag"},
        {0x206, 2, 0x201, "boot protocol 2.1"},
        {0x211, 2, 0, "zImage"},
        {0x1f1, 1, 200, "truncated"},
        {0x1f4, 4, 0xffffffff, "truncated"},
        {0x1f4, 4, 0x10, "holds no entry"},
        {0x24c, 4, 0xffffffff, "payload"},
        {0x230, 4, 0x300000, "alignment"},
        {0x230, 4, 0x800, "alignment"},
        {0x260, 4, 0xffffffff, "needs at least"},
        {0x238, 4, 4, "command line"},
        {0x22c, 4, 0x1000, "initrd 'ird'"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *p = make_bzimage();
        memcpy(p + cases[i].at, &cases[i].v, cases[i].width);
        expect_error(p, BZ_BYTES, MIB(256), cases[i].says);
        free(p);
    }
    uint8_t *p = make_bzimage();
    assert_int_equal(load(p, BZ_BYTES - 15, MIB(256)), HV_OK);
    expect_error(p, BZ_BYTES - 16, MIB(256), "truncated");
    expect_error(p, 0x210, MIB(256), "truncated");
    expect_error(p, 100, MIB(256), "no kernel that can be loaded");
    expect_error(p, 0, MIB(256), "no kernel that can be loaded");
    expect_error(p, BZ_BYTES, MIB(32), "32 MiB of memory; this kernel needs at least 52 MiB");
    req.initrd.size = MIB(300);
    expect_error(p, BZ_BYTES, MIB(256), "does not fit");
    req.initrd.size = 12345;
    free(p);
}

static void test_multiboot_good(void **state)
{
    (void)state;
    for (int is64 = 0; is64 < 2; is64++) {
        uint8_t *p = make_elf(is64);
        assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        assert_int_equal(entry.mode, ENTRY_PROTECTED32);
        assert_int_equal(entry.rip, ELF_LOAD + 0x20);
        assert_int_equal(entry.rax, 0x2badb002);
        assert_memory_equal(ram + ELF_LOAD, p + ELF_SEG, 0x800);
        uint64_t info = entry.rbx;
        assert_string_equal((char *)ram + ram32(info + 16), "kern console=ttyS0 x");
        assert_int_equal(ram32(info + 20), 1);
        uint64_t mod = ram32(info + 24);
        assert_int_equal(ram32(mod + 4) - ram32(mod), req.initrd.size);
        assert_memory_equal(ram + ram32(mod), req.initrd.data, req.initrd.size);
        assert_string_equal((char *)ram + ram32(mod + 8), "ird");
        assert_int_equal(ram32(info + 44), 4 * 24);
        assert_int_equal(ram32(ram32(info + 48)), 20);
        assert_int_equal(ram64(entry.gdt + 0x10), 0x00cf9b000000ffff);
        free(p);
    }
}

static void test_multiboot_bad(void **state)
{
    (void)state;
    static const struct {
        unsigned at, width;
        uint64_t v;
        const char *says;
    } cases[] = {
        {4, 1, 7, "ELF32, ELF64"},
        {16, 2, 3, "ELF type 3"},
        {18, 2, 40, "for machine 40"},
        {54, 2, 55, "program headers"},
        {56, 2, 0, "program headers"},
        {32, 8, UINT64_MAX - 10, "program headers"},
        {64 + 8, 8, UINT64_MAX, "truncated"},
        {64 + 32, 8, 0x4000, "truncated"},
        {64 + 24, 8, MIB(7), NULL},
        {64 + 24, 8, MIB(8) - 0x1000, "no such RAM"},
        {64 + 24, 8, UINT64_MAX - 0xfff, "no such RAM"},
        {64 + 24, 8, 0x1f000, "loader's area"},
        {64 + 40, 8, UINT64_MAX, "no such RAM"},
        {24, 8, 0x20, "lies in no segment"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *p = make_elf(true);
        memcpy(p + cases[i].at, &cases[i].v, cases[i].width);
        if (cases[i].says) {
            expect_error(p, ELF_BYTES, MIB(8), cases[i].says);
        } else {
            assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        }
        free(p);
    }
    uint8_t *p = make_elf(true);
    put32(p, ELF_SEG + 4, 15);
    put32(p, ELF_SEG + 8, -(0x1badb002 + 15));
    expect_error(p, ELF_BYTES, MIB(8), "features 0x8;");
    /* A video mode is a wish: text is what there is. */
    put32(p, ELF_SEG + 4, 7);
    put32(p, ELF_SEG + 8, -(0x1badb002 + 7));
    assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
    assert_int_equal(ram64(entry.rbx + 88), 0xb8000);
    assert_int_equal(ram32(entry.rbx + 100), 80);
    assert_int_equal(ram[entry.rbx + 109], 2);
    free(p);
}

static const uint8_t *mb2_tag(uint32_t type);

#define FLAT_BYTES 0x3000u
#define FLAT_HEADER 0x10u
#define FLAT_LOAD 0x200000u

static uint8_t *make_flat(void)
{
    uint8_t *p = calloc(1, FLAT_BYTES);

    memset(p, 0x90, FLAT_BYTES);
    put32(p, FLAT_HEADER, 0x1badb002);
    put32(p, FLAT_HEADER + 4, 0x10000);
    put32(p, FLAT_HEADER + 8, -(0x1badb002 + 0x10000));
    put32(p, FLAT_HEADER + 12, FLAT_LOAD);
    put32(p, FLAT_HEADER + 16, FLAT_LOAD);
    put32(p, FLAT_HEADER + 20, 0);
    put32(p, FLAT_HEADER + 24, 0);
    put32(p, FLAT_HEADER + 28, FLAT_LOAD + 0x40);
    return p;
}

/* Files that are no ELF: the header says what goes where. */
static void test_multiboot_flat(void **state)
{
    (void)state;
    uint8_t *p = make_flat();
    assert_int_equal(load(p, FLAT_BYTES, MIB(8)), HV_OK);
    assert_int_equal(entry.rip, FLAT_LOAD + 0x40);
    assert_memory_equal(ram + FLAT_LOAD, p + FLAT_HEADER, FLAT_BYTES - FLAT_HEADER);
    /* Part of it, from before the header on, with zeros behind. */
    put32(p, FLAT_HEADER + 12, FLAT_LOAD + 8);
    put32(p, FLAT_HEADER + 20, FLAT_LOAD + 0x1000);
    put32(p, FLAT_HEADER + 24, MIB(6));
    memset(ram + FLAT_LOAD, 0, FLAT_BYTES);
    assert_int_equal(load(p, FLAT_BYTES, MIB(8)), HV_OK);
    assert_memory_equal(ram + FLAT_LOAD, p + 8, 0x1000);
    assert_int_equal(ram[FLAT_LOAD + 0x1000], 0);
    put32(p, FLAT_HEADER + 24, MIB(9));
    expect_error(p, FLAT_BYTES, MIB(8), "no such RAM");
    put32(p, FLAT_HEADER + 24, 0);
    put32(p, FLAT_HEADER + 20, FLAT_LOAD + 0x4000);
    expect_error(p, FLAT_BYTES, MIB(8), "truncated");
    put32(p, FLAT_HEADER + 20, FLAT_LOAD - 1);
    expect_error(p, FLAT_BYTES, MIB(8), "Multiboot addresses");
    put32(p, FLAT_HEADER + 20, 0);
    put32(p, FLAT_HEADER + 12, FLAT_LOAD + 0x20);
    expect_error(p, FLAT_BYTES, MIB(8), "Multiboot addresses");
    put32(p, FLAT_HEADER + 12, FLAT_LOAD - 4);
    expect_error(p, FLAT_BYTES, MIB(8), "Multiboot addresses");
    expect_error(p, FLAT_HEADER + 20, MIB(8), "has no addresses");
    free(p);
}

/* The same with Multiboot2's tags. */
static void test_multiboot2_flat(void **state)
{
    (void)state;
    uint8_t *p = calloc(1, FLAT_BYTES);
    const uint32_t length = 16 + 24 + 16 + 24 + 8;

    memset(p, 0x90, FLAT_BYTES);
    put32(p, 16, 0xe85250d6);
    put32(p, 20, 0);
    put32(p, 24, length);
    put32(p, 28, -(0xe85250d6 + length));
    put32(p, 32, 2); /* addresses */
    put32(p, 36, 24);
    put32(p, 40, FLAT_LOAD + 16);
    put32(p, 44, UINT32_MAX);
    put32(p, 48, 0);
    put32(p, 52, FLAT_LOAD + 0x8000);
    put32(p, 56, 3); /* entry */
    put32(p, 60, 12);
    put32(p, 64, FLAT_LOAD + 0x60);
    put32(p, 72, 5); /* a framebuffer */
    put32(p, 76, 20);
    put32(p, 96, 0);
    put32(p, 100, 8);
    assert_int_equal(load(p, FLAT_BYTES, MIB(8)), HV_OK);
    assert_int_equal(entry.rip, FLAT_LOAD + 0x60);
    assert_memory_equal(ram + FLAT_LOAD, p, FLAT_BYTES);
    assert_non_null(mb2_tag(8));
    assert_int_equal(mb2_tag(8)[29], 2);
    assert_int_equal(*(const uint32_t *)(mb2_tag(14) + 4), 28);
    put32(p, 44, FLAT_LOAD + 32);
    expect_error(p, FLAT_BYTES, MIB(8), "Multiboot2 addresses");
    put32(p, 44, FLAT_LOAD + 16);
    put32(p, 48, FLAT_LOAD + 0x7000);
    expect_error(p, FLAT_BYTES, MIB(8), "truncated");
    put32(p, 48, FLAT_LOAD + 0x20);
    assert_int_equal(load(p, FLAT_BYTES, MIB(8)), HV_OK);
    assert_memory_equal(ram + FLAT_LOAD + 16, p + 16, 16);
    /* Without an entry of its own it must be an ELF file. */
    put32(p, 56, 4);
    expect_error(p, FLAT_BYTES, MIB(8), "ELF32, ELF64");
    free(p);
}

static const uint8_t mod_bytes[5000] = {1, 2, 3};

static void give_modules(unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        req.modules[i].image = (struct loader_image){"mod", mod_bytes, sizeof(mod_bytes)};
        strcpy(req.modules[i].args, i ? "" : "a=1 b");
    }
    req.nr_modules = nr;
}

static void test_modules(void **state)
{
    (void)state;
    uint8_t *p = make_elf(true);
    give_modules(LOADER_MAX_MODULES);
    assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
    uint64_t info = entry.rbx, mods = ram32(info + 24);
    assert_int_equal(ram32(info + 20), LOADER_MAX_MODULES + 1);
    assert_string_equal((char *)ram + ram32(mods + 8), "ird");
    assert_string_equal((char *)ram + ram32(mods + 16 + 8), "mod a=1 b");
    assert_string_equal((char *)ram + ram32(mods + 32 + 8), "mod");
    for (unsigned i = 1; i <= LOADER_MAX_MODULES; i++) {
        uint64_t start = ram32(mods + 16 * i);
        assert_int_equal(ram32(mods + 16 * i + 4) - start, sizeof(mod_bytes));
        assert_memory_equal(ram + start, mod_bytes, sizeof(mod_bytes));
        assert_true(start < ram32(mods + 16 * (i - 1)));
    }
    req.modules[3].image.size = MIB(7);
    expect_error(p, ELF_BYTES, MIB(8), "module 'mod' (7168 KiB) does not fit");
    give_modules(0);
    free(p);
}

/* The tag of a type, or NULL. */
static const uint8_t *mb2_tag(uint32_t type)
{
    uint64_t at = entry.rbx + 8, end = entry.rbx + ram32(entry.rbx);
    while (at < end) {
        if (ram32(at) == type) {
            return ram + at;
        }
        at += (ram32(at + 4) + 7) & ~7u;
    }
    return NULL;
}

static void test_multiboot2_good(void **state)
{
    (void)state;
    memcpy(ram + 0xe0000, "RSD PTR ", 8);
    give_modules(1);
    for (int is64 = 0; is64 < 2; is64++) {
        uint8_t *p = make_elf_with(is64, MULTIBOOT2);
        assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        assert_int_equal(entry.mode, ENTRY_PROTECTED32);
        assert_int_equal(entry.rip, ELF_LOAD + 0x20);
        assert_int_equal(entry.rax, 0x36d76289);
        assert_string_equal((char *)mb2_tag(1) + 8, "console=ttyS0 x");
        assert_string_equal((char *)mb2_tag(3) + 16, "ird");
        assert_memory_equal(mb2_tag(15) + 8, "RSD PTR ", 8);
        const uint8_t *map = mb2_tag(6);
        assert_int_equal(map[8], 24);
        assert_int_equal(map[4], 16 + 4 * 24);
        assert_non_null(mb2_tag(0));
        put16(p, ELF_SEG + 40, 3); /* an entry of its own */
        put32(p, ELF_SEG + 48, ELF_LOAD + 0x60);
        assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        assert_int_equal(entry.rip, ELF_LOAD + 0x60);
        free(p);
    }
    give_modules(0);
}

/* Section headers are passed on; what no segment loads is loaded beside, and its header says where. */
static void test_multiboot2_sections(void **state)
{
    (void)state;
    const unsigned table = 0x1900, symbols = 0x1c00;
    for (int is64 = 0; is64 < 2; is64++) {
        const unsigned size = is64 ? 64 : 40, addr = is64 ? 16 : 12, offset = is64 ? 24 : 16,
                       bytes = is64 ? 32 : 20;
        uint8_t *p = make_elf_with(is64, MULTIBOOT2);

        put32(p, is64 ? 40 : 32, table);
        put16(p, is64 ? 58 : 46, size);
        put16(p, is64 ? 60 : 48, 4);
        put16(p, is64 ? 62 : 50, 3);
        put32(p, table + size + 4, 2); /* symbols */
        put32(p, table + size + offset, symbols);
        put32(p, table + size + bytes, 0x120);
        put32(p, table + 2 * size + 4, 1); /* text: loaded by its segment */
        put32(p, table + 2 * size + addr, ELF_LOAD);
        put32(p, table + 2 * size + bytes, 0x100);
        put32(p, table + 3 * size + 4, 3); /* beyond the file */
        put32(p, table + 3 * size + offset, ELF_BYTES - 4);
        put32(p, table + 3 * size + bytes, 8);
        memset(p + symbols, 0x5a, 0x120);
        assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        const uint8_t *tag = mb2_tag(9);
        assert_non_null(tag);
        uint32_t head[3], at, text, broken;
        memcpy(head, tag + 8, sizeof(head));
        assert_int_equal(head[0], 4);
        assert_int_equal(head[1], size);
        assert_int_equal(head[2], 3);
        memcpy(&at, tag + 20 + size + addr, 4);
        memcpy(&text, tag + 20 + 2 * size + addr, 4);
        memcpy(&broken, tag + 20 + 3 * size + addr, 4);
        assert_int_equal(text, ELF_LOAD);
        assert_int_equal(broken, 0);
        assert_in_range(at, ELF_LOAD + 0x3000, MIB(8) - 0x120);
        assert_memory_equal(ram + at, p + symbols, 0x120);
        put16(p, is64 ? 60 : 48, 1000); /* more than there can be: no such tag */
        assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        assert_null(mb2_tag(9));
        free(p);
    }
}

static void test_multiboot2_bad(void **state)
{
    (void)state;
    static const struct {
        unsigned at, width;
        uint64_t v;
        const char *says;
    } cases[] = {
        {ELF_SEG + 42, 2, 0, "requires feature 99"},
        {ELF_SEG + 24, 4, 10, "requires information 10"},
        {ELF_SEG + 20, 4, 7, "has no end"},
        {ELF_SEG + 20, 4, 0xffffffff, "has no end"},
        {ELF_SEG + 56, 2, 4, "has no end"},
        {4, 1, 7, "ELF32, ELF64"},
        {24, 8, 0x20, "lies in no segment"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *p = make_elf_with(true, MULTIBOOT2);
        memcpy(p + cases[i].at, &cases[i].v, cases[i].width);
        expect_error(p, ELF_BYTES, MIB(8), cases[i].says);
        free(p);
    }
    uint8_t *p = make_elf_with(true, MULTIBOOT2);
    no_memory = true;
    expect_error(p, ELF_BYTES, MIB(8), "no memory");
    no_memory = false;
    free(p);
}

static void test_pvh(void **state)
{
    (void)state;
    give_modules(1);
    for (int is64 = 0; is64 < 2; is64++) {
        uint8_t *p = make_elf_with(is64, PVH);
        req.tsc_khz = 1234;
        assert_int_equal(load(p, ELF_BYTES, MIB(8)), HV_OK);
        req.tsc_khz = 0;
        assert_int_equal(entry.mode, ENTRY_PROTECTED32);
        assert_int_equal(entry.rip, ELF_LOAD + 0x40);
        uint64_t info = entry.rbx, mods = ram64(info + 16), map = ram64(info + 40);
        assert_int_equal(ram32(info), 0x336ec578);
        assert_int_equal(ram32(info + 12), 2);
        assert_string_equal((char *)ram + ram64(info + 24), "tsc_early_khz=1234 console=ttyS0 x");
        assert_int_equal(ram64(info + 32), 0xe0000);
        assert_int_equal(ram32(info + 48), 4);
        assert_int_equal(ram64(map + 3 * 24), MIB(1));
        assert_int_equal(ram64(mods + 8), req.initrd.size);
        assert_string_equal((char *)ram + ram64(mods + 32 + 16), "a=1 b");
        put32(p, ELF_SEG + 0x118 + 4, 2);
        expect_error(p, ELF_BYTES, MIB(8), "its PVH entry note has 2 bytes");
        free(p);
        p = make_elf_with(is64, PVH);
        put32(p, ELF_SEG + 0x118 + 8, 17); /* another note: nobody's kernel */
        expect_error(p, ELF_BYTES, MIB(8), "no kernel that can be loaded");
        put32(p, ELF_SEG + 0x100, 0xffffffff);
        expect_error(p, ELF_BYTES, MIB(8), "no kernel that can be loaded");
        free(p);
    }
    give_modules(0);
}

/* Random truncation and damage: a verdict with a reason, and ASan has nothing to say. */
static void test_hostile(void **state)
{
    (void)state;
    unsigned good = 0;
    srand(1);
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t *whole =
            i & 1 ? make_bzimage() : make_elf_with(i & 2, (enum headers)(i / 4 % NR_HEADERS));
        size_t size = i & 1 ? BZ_BYTES : ELF_BYTES;
        size_t cut = rand() % 4 ? size : (size_t)rand() % size;
        uint8_t *p = malloc(cut ? cut : 1);
        memcpy(p, whole, cut);
        unsigned base = i & 1 ? 0x1f1 : 0, span = i & 1 ? 0x73 : 0x78;
        for (int n = rand() % 4; n > 0 && cut > base + span; n--) {
            p[base + (unsigned)rand() % span] = (uint8_t)(rand() % 3 ? rand() : 0xff);
        }
        for (int n = rand() % 3; !(i & 1) && n > 0 && cut > ELF_SEG + 0x140; n--) {
            unsigned at = rand() % 2 ? ELF_SEG : ELF_SEG + 0x100;
            p[at + 16 + (unsigned)rand() % 48] = (uint8_t)(rand() % 3 ? rand() : 0xff);
        }
        enum hv_err err = load(p, cut, rand() % 2 ? MIB(8) : MIB(128));
        if (err) {
            assert_true(req.error[0] && memchr(req.error, 0, sizeof(req.error)));
        } else {
            good++;
        }
        free(p);
        free(whole);
    }
    assert_in_range(good, ROUNDS / 100, ROUNDS - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_map),
        cmocka_unit_test(test_linux_good),
        cmocka_unit_test(test_linux_32),
        cmocka_unit_test(test_linux_bad),
        cmocka_unit_test(test_multiboot_good),
        cmocka_unit_test(test_multiboot_bad),
        cmocka_unit_test(test_multiboot_flat),
        cmocka_unit_test(test_multiboot2_flat),
        cmocka_unit_test(test_modules),
        cmocka_unit_test(test_multiboot2_good),
        cmocka_unit_test(test_multiboot2_sections),
        cmocka_unit_test(test_multiboot2_bad),
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests_name("loader", tests, setup, NULL);
}

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

static uint8_t *make_elf(bool is64)
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
    put32(p, ELF_SEG, 0x1badb002);
    put32(p, ELF_SEG + 4, 3);
    put32(p, ELF_SEG + 8, -(0x1badb002 + 3));
    return p;
}

static enum hv_err load(const uint8_t *image, uint64_t size, uint64_t memory)
{
    vm.config.memory_bytes = memory;
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
        {0x206, 2, 0x20b, "boot protocol 2.11"},
        {0x236, 2, 0, "no 64-bit entry"},
        {0x211, 2, 0, "zImage"},
        {0x1f1, 1, 200, "truncated"},
        {0x1f4, 4, 0xffffffff, "truncated"},
        {0x1f4, 4, 0x10, "holds no entry"},
        {0x24c, 4, 0xffffffff, "payload"},
        {0x230, 4, 0x300000, "alignment"},
        {0x230, 4, 0, "alignment"},
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
    expect_error(p, BZ_BYTES - 1, MIB(256), "truncated");
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
    put32(p, ELF_SEG + 4, 7);
    put32(p, ELF_SEG + 8, -(0x1badb002 + 7));
    expect_error(p, ELF_BYTES, MIB(8), "a video mode");
    free(p);
}

/* Random truncation and damage: a verdict with a reason, and ASan has nothing to say. */
static void test_hostile(void **state)
{
    (void)state;
    unsigned good = 0;
    srand(1);
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t *whole = i & 1 ? make_bzimage() : make_elf(i & 2);
        size_t size = i & 1 ? BZ_BYTES : ELF_BYTES;
        size_t cut = rand() % 4 ? size : (size_t)rand() % size;
        uint8_t *p = malloc(cut ? cut : 1);
        memcpy(p, whole, cut);
        unsigned base = i & 1 ? 0x1f1 : 0, span = i & 1 ? 0x73 : 0x78;
        for (int n = rand() % 4; n > 0 && cut > base + span; n--) {
            p[base + (unsigned)rand() % span] = (uint8_t)(rand() % 3 ? rand() : 0xff);
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
        cmocka_unit_test(test_memory_map),    cmocka_unit_test(test_linux_good),
        cmocka_unit_test(test_linux_bad),     cmocka_unit_test(test_multiboot_good),
        cmocka_unit_test(test_multiboot_bad), cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests_name("loader", tests, setup, NULL);
}

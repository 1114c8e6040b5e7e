/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the assembly entry to guest_main: reads the Multiboot1, Multiboot2 or PVH information, prepares console
 * and traps, runs the guest, ends the VM. Manuals: "Multiboot Specification version 0.6.96, Boot
 * information format"; Xen public header arch-x86/hvm/start_info.h for PVH.
 */
#include "guests/lib/boot.h"

#include "guests/lib/console.h"
#include "guests/lib/power.h"
#include "guests/lib/string.h"
#include "guests/lib/trap.h"

#define MULTIBOOT_BOOT_MAGIC 0x2badb002U
#define MULTIBOOT_INFO_MEMORY (1U << 0)
#define MULTIBOOT_INFO_CMDLINE (1U << 2)
#define MULTIBOOT_INFO_MODS (1U << 3)
#define MULTIBOOT_INFO_MMAP (1U << 6)
#define MULTIBOOT2_BOOT_MAGIC 0x36d76289U
#define MULTIBOOT2_CMDLINE 1
#define MULTIBOOT2_MODULE 3
#define MULTIBOOT2_MMAP 6
#define PVH_MAGIC 0x336ec578U
#define MEMORY_RAM 1
#define MIB (1UL << 20)
#define CMDLINE_MAX 1024

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
};

struct multiboot_mod {
    uint32_t start, end, cmdline, reserved;
};

struct multiboot_mmap {
    uint32_t size;
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

struct multiboot2_tag {
    uint32_t type, size;
    uint32_t word[2]; /* module: start, end; memory map: size of an entry, version */
};

struct multiboot2_mmap {
    uint64_t base, length;
    uint32_t type, reserved;
};

struct pvh_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t memmap_entries, reserved;
};

struct pvh_memory {
    uint64_t base, size_bytes;
    uint32_t type, reserved;
};

struct pvh_module {
    uint64_t base, size_bytes, cmdline, reserved;
};

struct boot_region boot_ram[BOOT_MAX_REGIONS];
size_t boot_nr_ram;
uint64_t boot_loaded_end;
struct boot_module boot_modules[BOOT_MAX_MODULES];
size_t boot_nr_modules;
const char *boot_protocol = "unknown";

static char boot_cmdline[CMDLINE_MAX];
static char boot_name_buf[32];

void boot_main(uint32_t magic, uint32_t info);

static void *at(uint64_t addr)
{
    return (void *)addr;
}

static void add_ram(uint64_t base, uint64_t size_bytes)
{
    if (boot_nr_ram < BOOT_MAX_REGIONS && size_bytes) {
        boot_ram[boot_nr_ram++] = (struct boot_region){base, size_bytes};
    }
}

/* Low memory is left alone by all guests, so only what lies above 1 MiB must be stepped over. */
static void note_used(uint64_t base, uint64_t size_bytes)
{
    if (base >= MIB && base + size_bytes > boot_loaded_end) {
        boot_loaded_end = (base + size_bytes + 4095) & ~4095UL;
    }
}

static void note_module(uint64_t base, uint64_t size_bytes, uint64_t text)
{
    note_used(base, size_bytes);
    if (boot_nr_modules < BOOT_MAX_MODULES) {
        boot_modules[boot_nr_modules++] = (struct boot_module){base, size_bytes, at(text)};
    }
}

static void copy_cmdline(uint64_t addr)
{
    const char *s = at(addr);
    size_t n = strlen(s);
    note_used(addr, n + 1);
    if (n >= CMDLINE_MAX) {
        n = CMDLINE_MAX - 1;
    }
    memcpy(boot_cmdline, s, n);
    boot_cmdline[n] = 0;
}

static void read_multiboot(uint64_t addr)
{
    const struct multiboot_info *mbi = at(addr);
    note_used(addr, 128);
    if (mbi->flags & MULTIBOOT_INFO_CMDLINE) {
        copy_cmdline(mbi->cmdline);
    }
    if (mbi->flags & MULTIBOOT_INFO_MODS) {
        const struct multiboot_mod *mod = at(mbi->mods_addr);
        note_used(mbi->mods_addr, mbi->mods_count * sizeof *mod);
        for (uint32_t i = 0; i < mbi->mods_count; i++) {
            note_module(mod[i].start, mod[i].end - mod[i].start, mod[i].cmdline);
        }
    }
    if (mbi->flags & MULTIBOOT_INFO_MMAP) {
        note_used(mbi->mmap_addr, mbi->mmap_length);
        for (uint64_t p = mbi->mmap_addr; p < (uint64_t)mbi->mmap_addr + mbi->mmap_length;) {
            const struct multiboot_mmap *m = at(p);
            if (m->type == MEMORY_RAM) {
                add_ram(m->base, m->length);
            }
            p += m->size + 4UL;
        }
    } else if (mbi->flags & MULTIBOOT_INFO_MEMORY) {
        add_ram(0, mbi->mem_lower * 1024UL);
        add_ram(MIB, mbi->mem_upper * 1024UL);
    }
}

static void read_multiboot2_map(const struct multiboot2_tag *t)
{
    for (uint64_t p = (uint64_t)(t + 1); p < (uint64_t)t + t->size; p += t->word[0]) {
        const struct multiboot2_mmap *m = at(p);
        if (m->type == MEMORY_RAM) {
            add_ram(m->base, m->length);
        }
    }
}

static void read_multiboot2(uint64_t addr)
{
    const uint32_t *total = at(addr);
    note_used(addr, *total);
    for (uint64_t p = addr + 8; p < addr + *total;) {
        const struct multiboot2_tag *t = at(p);
        if (t->type == MULTIBOOT2_CMDLINE) {
            copy_cmdline((uint64_t)t->word);
        } else if (t->type == MULTIBOOT2_MODULE) {
            note_module(t->word[0], t->word[1] - t->word[0], (uint64_t)(t + 1));
        } else if (t->type == MULTIBOOT2_MMAP) {
            read_multiboot2_map(t);
        } else if (t->type == 0) {
            break;
        }
        p += (t->size + 7UL) & ~7UL;
    }
}

static void read_pvh(const struct pvh_info *pvh)
{
    note_used((uint64_t)pvh, sizeof *pvh);
    if (pvh->cmdline) {
        copy_cmdline(pvh->cmdline);
    }
    const struct pvh_module *mod = at(pvh->modlist);
    for (uint32_t i = 0; i < pvh->nr_modules; i++) {
        note_module(mod[i].base, mod[i].size_bytes, mod[i].cmdline);
    }
    if (pvh->version < 1) {
        return;
    }
    const struct pvh_memory *m = at(pvh->memmap);
    note_used(pvh->memmap, pvh->memmap_entries * sizeof *m);
    for (uint32_t i = 0; i < pvh->memmap_entries; i++) {
        if (m[i].type == MEMORY_RAM) {
            add_ram(m[i].base, m[i].size_bytes);
        }
    }
}

void boot_main(uint32_t magic, uint32_t info)
{
    boot_loaded_end = (uint64_t)guest_image_end;
    if (magic == MULTIBOOT_BOOT_MAGIC) {
        boot_protocol = "multiboot1";
        read_multiboot(info);
    } else if (magic == MULTIBOOT2_BOOT_MAGIC) {
        boot_protocol = "multiboot2";
        read_multiboot2(info);
    } else if (*(const uint32_t *)at(info) == PVH_MAGIC) {
        boot_protocol = "pvh";
        read_pvh(at(info));
    }
    console_init();
    trap_init();
    guest_main();
    power_end();
}

uint64_t boot_ram_bytes(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < boot_nr_ram; i++) {
        sum += boot_ram[i].size_bytes;
    }
    return sum;
}

/* Finds "key" or "key=" at the start of a word; returns its value's first character. */
static const char *find_option(const char *key)
{
    size_t n = strlen(key);
    for (const char *p = boot_cmdline; *p;) {
        while (*p == ' ') {
            p++;
        }
        if (strlen(p) >= n && memcmp(p, key, n) == 0) {
            if (p[n] == '=') {
                return p + n + 1;
            }
            if (p[n] == ' ' || p[n] == 0) {
                return p + n;
            }
        }
        while (*p && *p != ' ') {
            p++;
        }
    }
    return NULL;
}

bool boot_option(const char *key, char *buf, size_t size)
{
    const char *v = find_option(key);
    if (!v) {
        return false;
    }
    size_t n = 0;
    while (v[n] && v[n] != ' ' && n + 1 < size) {
        buf[n] = v[n];
        n++;
    }
    buf[n] = 0;
    return true;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return 99;
}

uint64_t boot_option_u64(const char *key, uint64_t fallback)
{
    char buf[24];
    if (!boot_option(key, buf, sizeof buf) || !buf[0]) {
        return fallback;
    }
    const char *s = buf;
    unsigned int base = 10;
    if (s[0] == '0' && s[1] == 'x') {
        base = 16;
        s += 2;
    }
    uint64_t v = 0;
    for (; *s; s++) {
        unsigned int d = (unsigned int)digit_of(*s);
        if (d >= base) {
            return fallback;
        }
        v = v * base + d;
    }
    return v;
}

bool boot_option_is(const char *key, const char *value)
{
    char buf[64];
    return boot_option(key, buf, sizeof buf) && string_equal(buf, value);
}

const char *boot_name(const char *fallback)
{
    return boot_option("name", boot_name_buf, sizeof boot_name_buf) ? boot_name_buf : fallback;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI table parser. Fields are read by offset through bounds-checked helpers from the mapped bytes;
 * section titles cited are those of the ACPI Specification. AML is not interpreted: the one value we
 * need, the sleep type of S5, is found by its encoding.
 */
#include "arch/x86_64/acpi_tables.h"

#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"

#define HEADER_SIZE 36u
#define MAX_TABLE_SIZE MIB(16)
#define MAX_ROOT_ENTRIES 512u

/* A table whose length and checksum have been verified. */
struct table {
    const uint8_t *p;
    uint32_t size;
};

static uint64_t get(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

/* A field of `bytes` bytes, or 0 where the table is too short to have it. */
static uint64_t field(const struct table *t, uint32_t offset, unsigned bytes)
{
    return offset + bytes <= t->size ? get(t->p + offset, bytes) : 0;
}

static bool sums_to_zero(const uint8_t *p, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return sum == 0;
}

static void report(const struct acpi_source *src, const char *fmt, ...) __printf_like(2, 3);
static void report(const struct acpi_source *src, const char *fmt, ...)
{
    char text[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    src->report(src->arg, text);
}

/* Printable form of a signature from hostile memory. */
static void signature_text(const uint8_t *p, char out[5])
{
    for (unsigned i = 0; i < 4; i++) {
        out[i] = char_is_print((char)p[i]) ? (char)p[i] : '?';
    }
    out[4] = '\0';
}

static bool is(const uint8_t *p, const char *signature)
{
    return memcmp(p, signature, 4) == 0;
}

/* Map and verify the table at pa ("System Description Table Header"). */
static bool open_table(const struct acpi_source *src, uint64_t pa, struct table *out)
{
    const uint8_t *p = pa != 0 ? src->map(src->arg, pa, HEADER_SIZE) : NULL;
    char name[5];

    if (p == NULL) {
        report(src, "ACPI: table at 0x%llx cannot be read", (unsigned long long)pa);
        return false;
    }
    uint32_t size = (uint32_t)get(p + 4, 4);

    signature_text(p, name);
    if (size < HEADER_SIZE || size > MAX_TABLE_SIZE) {
        report(src, "ACPI: table %s at 0x%llx: impossible length %u", name, (unsigned long long)pa,
               size);
        return false;
    }
    p = src->map(src->arg, pa, size);
    if (p == NULL) {
        report(src, "ACPI: table %s at 0x%llx: its %u bytes cannot be read", name,
               (unsigned long long)pa, size);
        return false;
    }
    if (!sums_to_zero(p, size)) {
        report(src, "ACPI: table %s at 0x%llx: wrong checksum", name, (unsigned long long)pa);
        return false;
    }
    *out = (struct table){p, size};
    return true;
}

enum hv_err acpi_find_rsdp(const struct acpi_source *src, uint64_t *pa)
{
    const uint8_t *ebda_word = src->map(src->arg, 0x40e, 2);
    uint64_t ebda = ebda_word != NULL ? get(ebda_word, 2) << 4 : 0;
    const struct {
        uint64_t from, to;
    } areas[] = {
        {ebda >= 0x400 && ebda < 0xa0000 ? ebda : 0xa0000, 0},
        {0xe0000, 0x100000},
    };

    for (unsigned a = 0; a < ARRAY_SIZE(areas); a++) {
        uint64_t to = areas[a].to != 0 ? areas[a].to : MIN(areas[a].from + 1024, 0xa0000ull);

        for (uint64_t at = areas[a].from; at + 20 <= to; at += 16) {
            const uint8_t *p = src->map(src->arg, at, 20);

            if (p != NULL && memcmp(p, "RSD PTR ", 8) == 0 && sums_to_zero(p, 20)) {
                *pa = at;
                return HV_OK;
            }
        }
    }
    return HV_ENOENT;
}

static void add_cpu(struct acpi_info *out, uint32_t apic_id, uint32_t uid, uint32_t flags)
{
    if ((flags & 1u) == 0 || apic_id == UINT32_MAX) {
        return;
    }
    for (unsigned i = 0; i < out->nr_cpus; i++) {
        if (out->cpus[i].apic_id == apic_id) {
            return; /* some firmware lists a processor as APIC and as x2APIC */
        }
    }
    if (out->nr_cpus == ACPI_MAX_CPUS) {
        out->nr_cpus_dropped++;
        return;
    }
    out->cpus[out->nr_cpus++] = (struct acpi_cpu){apic_id, uid};
}

/* "MPS INTI Flags": zero means as the bus has it, which for ISA is edge, active high. */
static void add_override(struct acpi_info *out, const uint8_t *e)
{
    uint32_t flags = (uint32_t)get(e + 8, 2);

    if (e[3] >= 16 || out->nr_overrides == ACPI_MAX_OVERRIDES) {
        return;
    }
    out->overrides[out->nr_overrides++] = (struct acpi_override){
        .isa_irq = e[3],
        .gsi = (uint32_t)get(e + 4, 4),
        .level = ((flags >> 2) & 3u) == 3u,
        .active_low = (flags & 3u) == 3u,
    };
}

/* "Multiple APIC Description Table". */
static void parse_madt(const struct acpi_source *src, const struct table *t, struct acpi_info *out)
{
    out->lapic_pa = field(t, 36, 4) != 0 ? field(t, 36, 4) : ACPI_DEFAULT_LAPIC;
    out->legacy_pic = (field(t, 40, 4) & 1u) != 0;

    uint32_t at = 44;

    while (at + 2 <= t->size) {
        const uint8_t *e = t->p + at;
        uint32_t len = e[1];

        if (len < 2 || len > t->size - at) {
            report(src, "ACPI: MADT: entry at offset %u has length %u; the rest is ignored", at,
                   len);
            return;
        }
        if (e[0] == 0 && len >= 8) {
            if (e[3] != 0xff) {
                add_cpu(out, e[3], e[2], (uint32_t)get(e + 4, 4));
            }
        } else if (e[0] == 1 && len >= 12) {
            if (out->nr_ioapics < ACPI_MAX_IOAPICS) {
                out->ioapics[out->nr_ioapics++] =
                    (struct acpi_ioapic){get(e + 4, 4), (uint32_t)get(e + 8, 4)};
            }
        } else if (e[0] == 2 && len >= 10) {
            add_override(out, e);
        } else if (e[0] == 5 && len >= 12) {
            out->lapic_pa = get(e + 4, 8);
        } else if (e[0] == 9 && len >= 16) {
            add_cpu(out, (uint32_t)get(e + 4, 4), (uint32_t)get(e + 12, 4),
                    (uint32_t)get(e + 8, 4));
        }
        at += len;
    }
}

/* The extended address at `x` where the table has one, the old port number at `old` otherwise. */
static struct acpi_register fadt_register(const struct table *t, uint32_t old, uint32_t x)
{
    uint64_t address = field(t, x + 4, 8);

    if (address != 0) {
        return (struct acpi_register){true, (uint8_t)field(t, x, 1), address};
    }
    address = old != 0 ? field(t, old, 4) : 0;
    return (struct acpi_register){address != 0, ACPI_SPACE_IO, address};
}

/* A package element: a small constant. Returns the bytes it took, 0 if it is something else. */
static unsigned aml_constant(const uint8_t *p, uint32_t left, uint8_t *v)
{
    if (left >= 1 && p[0] <= 1) { /* ZeroOp, OneOp */
        *v = p[0];
        return 1;
    }
    if (left >= 2 && p[0] == 0x0a) { /* BytePrefix */
        *v = p[1];
        return 2;
    }
    return 0;
}

/* Name(_S5_, Package(){a, b, ...}): NameOp "_S5_" PackageOp PkgLength NumElements elements. */
static bool find_s5(const struct table *t, struct acpi_info *out)
{
    for (uint32_t i = HEADER_SIZE + 1; i + 8 <= t->size; i++) {
        const uint8_t *p = t->p + i;

        if (memcmp(p, "_S5_", 4) != 0 || p[4] != 0x12 ||
            !(p[-1] == 0x08 || (p[-1] == '\\' && p[-2] == 0x08))) {
            continue;
        }
        uint32_t at = i + 5;

        at += 1 + (t->p[at] >> 6); /* PkgLength: up to three more bytes */
        at += 1;                   /* NumElements */
        if (at >= t->size) {
            continue;
        }
        uint8_t a, b;
        unsigned used = aml_constant(t->p + at, t->size - at, &a);

        if (used == 0) {
            continue;
        }
        if (aml_constant(t->p + at + used, t->size - at - used, &b) == 0) {
            b = a;
        }
        out->have_s5 = true;
        out->s5_type_a = a;
        out->s5_type_b = b;
        return true;
    }
    return false;
}

/* "Fixed ACPI Description Table". */
static void parse_fadt(const struct acpi_source *src, const struct table *t, struct acpi_info *out)
{
    uint32_t flags = (uint32_t)field(t, 112, 4);
    uint64_t dsdt_pa = field(t, 140, 8) != 0 ? field(t, 140, 8) : field(t, 40, 4);
    struct table dsdt;

    out->have_fadt = true;
    out->smi_cmd = (uint32_t)field(t, 48, 4);
    out->acpi_enable = (uint8_t)field(t, 52, 1);
    out->pm1a_control = fadt_register(t, 64, 172);
    out->pm1b_control = fadt_register(t, 68, 184);
    out->pm_timer = fadt_register(t, 76, 208);
    out->pm_timer_32bit = (flags & BIT(8)) != 0;
    out->hw_reduced = (flags & BIT(20)) != 0;
    if (out->hw_reduced) {
        out->sleep_control = fadt_register(t, 0, 244);
    }
    if ((flags & BIT(10)) != 0) {
        out->reset = fadt_register(t, 0, 116);
        out->reset_value = (uint8_t)field(t, 128, 1);
    }
    if (!open_table(src, dsdt_pa, &dsdt)) {
        out->nr_bad++;
    } else if (!is(dsdt.p, "DSDT")) {
        report(src, "ACPI: what the FADT calls DSDT is none");
        out->nr_bad++;
    } else {
        out->nr_tables++;
        (void)find_s5(&dsdt, out);
    }
}

/* "IA-PC HPET Specification", description table. */
static void parse_hpet(const struct table *t, struct acpi_info *out)
{
    if (field(t, 40, 1) == ACPI_SPACE_MEMORY && field(t, 44, 8) != 0) {
        out->have_hpet = true;
        out->hpet_pa = field(t, 44, 8);
    }
}

static void add_iommu(struct acpi_info *out, enum acpi_iommu_kind kind, uint64_t pa)
{
    for (unsigned i = 0; i < out->nr_iommus; i++) {
        if (out->iommus[i].pa == pa) {
            return;
        }
    }
    if (pa != 0 && out->nr_iommus < ACPI_MAX_IOMMUS) {
        out->iommus[out->nr_iommus].kind = kind;
        out->iommus[out->nr_iommus++].pa = pa;
    }
}

/* "DMA Remapping Reporting Structure" and "I/O Virtualization Reporting Structure": both are a
 * header of 48 bytes and blocks; only the remapping units count. */
static void parse_iommus(const struct acpi_source *src, const struct table *t,
                         enum acpi_iommu_kind kind, struct acpi_info *out)
{
    uint32_t at = 48;

    while (at + 4 <= t->size) {
        const uint8_t *e = t->p + at;
        uint32_t len = (uint32_t)get(e + 2, 2);

        if (len < 4 || len > t->size - at) {
            report(src, "ACPI: %s: block at offset %u has length %u; the rest is ignored",
                   kind == ACPI_IOMMU_DMAR ? "DMAR" : "IVRS", at, len);
            return;
        }
        if (kind == ACPI_IOMMU_DMAR) {
            if (get(e, 2) == 0 && len >= 16) {
                add_iommu(out, kind, get(e + 8, 8));
            }
        } else if ((e[0] == 0x10 || e[0] == 0x11 || e[0] == 0x40) && len >= 16) {
            add_iommu(out, kind, get(e + 8, 8));
        }
        at += len;
    }
}

static void parse_one(const struct acpi_source *src, uint64_t pa, struct acpi_info *out)
{
    struct table t;

    if (!open_table(src, pa, &t)) {
        out->nr_bad++;
        return;
    }
    out->nr_tables++;
    if (is(t.p, "APIC")) {
        parse_madt(src, &t, out);
    } else if (is(t.p, "FACP")) {
        parse_fadt(src, &t, out);
    } else if (is(t.p, "HPET")) {
        parse_hpet(&t, out);
    } else if (is(t.p, "DMAR")) {
        parse_iommus(src, &t, ACPI_IOMMU_DMAR, out);
    } else if (is(t.p, "IVRS")) {
        parse_iommus(src, &t, ACPI_IOMMU_IVRS, out);
    } else if (is(t.p, "SSDT") && !out->have_s5) {
        (void)find_s5(&t, out);
    }
}

static enum hv_err parse_root(const struct acpi_source *src, uint64_t pa, const char *signature,
                              unsigned entry_size, struct acpi_info *out)
{
    struct table root;

    if (pa == 0 || !open_table(src, pa, &root)) {
        out->nr_bad++;
        return HV_ENOENT;
    }
    if (!is(root.p, signature)) {
        report(src, "ACPI: no %s at 0x%llx", signature, (unsigned long long)pa);
        out->nr_bad++;
        return HV_ENOENT;
    }
    uint32_t n = (root.size - HEADER_SIZE) / entry_size;

    if (n > MAX_ROOT_ENTRIES) {
        report(src, "ACPI: %s names %u tables; only %u are read", signature, n, MAX_ROOT_ENTRIES);
        n = MAX_ROOT_ENTRIES;
    }
    out->found = true;
    out->nr_tables++;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t entry = get(root.p + HEADER_SIZE + i * entry_size, entry_size);

        if (entry != 0) {
            parse_one(src, entry, out);
        }
    }
    return HV_OK;
}

/* "Root System Description Pointer": 20 bytes, from revision 2 on 36 with the XSDT's address. */
enum hv_err acpi_parse(const struct acpi_source *src, const void *rsdp, size_t rsdp_size,
                       struct acpi_info *out)
{
    const uint8_t *p = rsdp;

    memset(out, 0, sizeof(*out));
    out->lapic_pa = ACPI_DEFAULT_LAPIC;
    if (rsdp_size == 0) {
        return HV_ENOENT;
    }
    if (rsdp_size < 20 || memcmp(p, "RSD PTR ", 8) != 0 || !sums_to_zero(p, 20)) {
        report(src, "ACPI: the root pointer is damaged");
        return HV_ENOENT;
    }
    if (p[15] >= 2 && rsdp_size >= 36) {
        if (!sums_to_zero(p, 36)) {
            report(src, "ACPI: wrong checksum over the extended root pointer; using the old one");
        } else if (get(p + 24, 8) != 0 &&
                   parse_root(src, get(p + 24, 8), "XSDT", 8, out) == HV_OK) {
            return HV_OK;
        }
    }
    return parse_root(src, get(p + 16, 4), "RSDT", 4, out);
}

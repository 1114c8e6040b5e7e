/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended state by XSAVE in the standard format ("Managing State Using the XSAVE Feature Set"), or
 * by FXSAVE where the processor has nothing else. `holders` says whose values each processor's
 * registers hold; each entry is touched by its processor alone.
 */
#include "arch/x86_64/fpu.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/slab.h"

#define XCR0_AVX512 (XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM)
#define XCR0_MPX (XCR0_BNDREGS | XCR0_BNDCSR)
#define XCR0_OFFERED (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_MPX | XCR0_AVX512 | XCR0_PKRU)

#define FXSAVE_SIZE 512u
#define AREA_ALIGN 64u
#define MXCSR_OFFSET 24u
#define EXTENDED_OFFSET 576u /* of the first component behind the legacy region and the header */
#define YMM_BYTES 256u
#define FCW_INIT 0x037fu
#define MXCSR_INIT 0x1f80u
#define NO_CPU UINT32_MAX
#define RESTORES_POINTERS BIT(2) /* CPUID 80000008H, EBX */

struct fpu_state {
    uint8_t *area; /* area_size bytes, 64-byte aligned */
    uint64_t xcr0, xss;
    uint32_t last_cpu; /* processor that loaded it last, NO_CPU: none since reset */
};

struct holder {
    const struct fpu_state *st; /* whose values the registers hold; compared, never followed */
    struct fpu_state *live;     /* the same while newer than its area, else NULL */
};

static struct holder holders[MAX_CPUS];
static uint64_t xcr0_mask; /* these are written by the boot processor only */
static uint32_t area_size = FXSAVE_SIZE;
static bool keeps_pointers; /* see overwrite_pointers */

static void xrstor(const void *area, uint64_t components)
{
    __asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"((uint32_t)components),
                     "d"((uint32_t)(components >> 32))
                     : "memory");
}

/*
 * Whether XRSTOR finds what XSAVEC writes ("Compacted Form of XSAVE Area"). Bochs 2.7 writes components from
 * offset 160 on and reads them from 576: a guest that trusts it loses vector registers when it
 * switches threads. Needs XCR0 at its full value; leaves the initial state in the registers.
 */
static bool xsavec_is_sound(void)
{
    static uint8_t area[PAGE_SIZE] __aligned(AREA_ALIGN);
    uint8_t *ymm = area + EXTENDED_OFFSET;
    uint64_t *present = (uint64_t *)(area + FXSAVE_SIZE);
    bool sound = true;

    if (area_size > sizeof(area)) {
        return false;
    }
    if (xcr0_mask & XCR0_AVX) {
        memcpy(area + MXCSR_OFFSET, &(uint32_t){MXCSR_INIT}, 4);
        *present = XCR0_AVX;
        memset(ymm, 0x5a, YMM_BYTES);
        xrstor(area, XCR0_AVX);
        memset(area, 0, sizeof(area));
        __asm__ volatile("xsavec64 (%0)" ::"r"(area), "a"((uint32_t)xcr0_mask),
                         "d"((uint32_t)(xcr0_mask >> 32))
                         : "memory");
        sound = (*present & XCR0_AVX) != 0;
        for (unsigned i = 0; i < YMM_BYTES; i++) {
            sound &= ymm[i] == 0x5a;
        }
    }
    memset(area, 0, sizeof(area));
    memcpy(area + MXCSR_OFFSET, &(uint32_t){MXCSR_INIT}, 4);
    xrstor(area, xcr0_mask);
    return sound;
}

void fpu_init_cpu(void)
{
    if (cpu_features.vendor == CPU_VENDOR_AMD && this_cpu()->id == 0) {
        keeps_pointers = !(cpuid(CPUID_ADDRESS_SIZES, 0).ebx & RESTORES_POINTERS);
    }
    if (!cpu_features.xsave) {
        return;
    }
    struct cpuid c = cpuid(CPUID_XSTATE, 0);
    uint64_t mask = (((uint64_t)c.edx << 32) | c.eax) & XCR0_OFFERED;

    if (this_cpu()->id == 0) {
        xcr0_mask = mask;
        xsetbv(0, mask);
        area_size = cpuid(CPUID_XSTATE, 0).ebx; /* for what XCR0 now enables */
        if (cpu_features.xsavec && !xsavec_is_sound()) {
            cpu_features.xsavec = false;
            log_warn(
                "this processor's XSAVEC writes what XRSTOR does not read: guests get no XSAVEC");
        }
    } else {
        if ((mask & xcr0_mask) != xcr0_mask) {
            log_error("cpu %u lacks extended state that the boot processor has (%llx, %llx)",
                      this_cpu()->id, (unsigned long long)mask, (unsigned long long)xcr0_mask);
        }
        xsetbv(0, xcr0_mask & mask);
    }
    if (cpu_features.xsaves) {
        wrmsr(MSR_XSS, 0); /* no supervisor component: each needs guest state beside the area */
    }
}

uint64_t fpu_xcr0_mask(void)
{
    return xcr0_mask;
}

struct fpu_state *fpu_alloc(uint32_t owner)
{
    struct fpu_state *st = kmalloc(sizeof(*st) + AREA_ALIGN + area_size, owner);

    if (st != NULL) {
        st->area = (uint8_t *)ALIGN_UP((uint64_t)(st + 1), AREA_ALIGN);
        fpu_reset(st);
    }
    return st;
}

void fpu_free(struct fpu_state *st)
{
    kfree(st);
}

void fpu_reset(struct fpu_state *st)
{
    struct holder *h = &holders[this_cpu()->id];

    if (h->live == st) {
        h->live = NULL;
    }
    memset(st->area, 0, area_size);
    memcpy(st->area, &(uint16_t){FCW_INIT}, 2);
    memcpy(st->area + MXCSR_OFFSET, &(uint32_t){MXCSR_INIT}, 4);
    st->xcr0 = XCR0_X87;
    st->xss = 0;
    st->last_cpu = NO_CPU;
}

/*
 * x87 registers in their initial state need no values in the area ("XSAVE-Managed State", XINUSE; not every
 * processor tracks it). Restoring none is faster, and keeps QEMU's emulator from a race: its XRSTOR of x87
 * values on one processor rewrites flags of processor 0 without a lock, which may find itself on the guest's
 * nested tables after the guest has exited.
 */
static void drop_initial_x87(uint8_t *area)
{
    const uint64_t *image = (const uint64_t *)area;
    uint64_t *present = (uint64_t *)(area + FXSAVE_SIZE);
    uint64_t differs = (image[0] ^ FCW_INIT) | image[1] | image[2];

    for (unsigned i = 4; i < 20; i++) {
        differs |= image[i];
    }
    if (differs == 0) {
        *present &= ~XCR0_X87;
    }
}

static void save_registers(struct fpu_state *st)
{
    if (!cpu_features.xsave) {
        __asm__ volatile("fxsave64 (%0)" ::"r"(st->area) : "memory");
        return;
    }
    xsetbv(0, xcr0_mask);
    __asm__ volatile("xsave64 (%0)" ::"r"(st->area), "a"((uint32_t)xcr0_mask),
                     "d"((uint32_t)(xcr0_mask >> 32))
                     : "memory");
    drop_initial_x87(st->area);
}

/*
 * Some AMD processors restore the x87 instruction and data pointers only with an exception pending:
 * those of the guest before would stay. An instruction of ours replaces them ("FXSAVE and FXRSTOR
 * Instructions").
 */
static void overwrite_pointers(void)
{
    static const uint32_t zero;

    __asm__ volatile("fnclex\n"
                     "ffree %%st(7)\n"
                     "fildl %0" ::"m"(zero));
}

static void restore_registers(const struct fpu_state *st)
{
    if (keeps_pointers) {
        overwrite_pointers();
    }
    if (!cpu_features.xsave) {
        __asm__ volatile("fxrstor64 (%0)" ::"r"(st->area) : "memory");
        return;
    }
    xsetbv(0, xcr0_mask);
    xrstor(st->area, xcr0_mask);
}

static void set_guest_masks(const struct fpu_state *st)
{
    if (cpu_features.xsave) {
        xsetbv(0, st->xcr0);
    }
    if (cpu_features.xsaves) {
        wrmsr(MSR_XSS, st->xss);
    }
}

/*
 * XSETBV is intercepted, but not every processor honours that: QEMU's TCG 7.2 does not. While a
 * guest's XCR0 is in the register, the register is the truth.
 */
static void note_xcr0(struct fpu_state *st)
{
    if (cpu_features.xsave) {
        st->xcr0 = xgetbv(0) & xcr0_mask;
    }
}

void fpu_load(struct fpu_state *st)
{
    uint32_t cpu = this_cpu()->id;
    struct holder *h = &holders[cpu];

    if (h->st == st && st->last_cpu == cpu) {
        if (h->live != st) {
            set_guest_masks(st); /* saving left the host's masks */
            h->live = st;
        }
        return;
    }
    if (h->live != NULL) {
        fpu_save(h->live);
    }
    restore_registers(st);
    set_guest_masks(st);
    st->last_cpu = cpu;
    h->st = st;
    h->live = st;
}

void fpu_save(struct fpu_state *st)
{
    struct holder *h = &holders[this_cpu()->id];

    if (h->live == st) {
        note_xcr0(st);
        save_registers(st);
        h->live = NULL;
    }
}

static bool xcr0_valid(uint64_t v)
{
    return (v & ~xcr0_mask) == 0 && (v & XCR0_X87) != 0 &&
           ((v & XCR0_AVX) == 0 || (v & XCR0_SSE) != 0) &&
           ((v & XCR0_MPX) == 0 || (v & XCR0_MPX) == XCR0_MPX) &&
           ((v & XCR0_AVX512) == 0 || (v & (XCR0_AVX512 | XCR0_AVX)) == (XCR0_AVX512 | XCR0_AVX));
}

enum hv_err fpu_set_xcr0(struct fpu_state *st, uint64_t value)
{
    if (!xcr0_valid(value)) {
        return HV_EINVAL;
    }
    st->xcr0 = value;
    if (holders[this_cpu()->id].live == st) {
        xsetbv(0, value);
    }
    return HV_OK;
}

uint64_t fpu_get_xcr0(struct fpu_state *st)
{
    if (holders[this_cpu()->id].live == st) {
        note_xcr0(st);
    }
    return st->xcr0;
}

void fpu_begin(void)
{
    uint64_t flags = irq_save();
    struct holder *h = &holders[this_cpu()->id];

    if (h->live != NULL) {
        fpu_save(h->live);
    }
    h->st = NULL;
    if (cpu_features.xsave) {
        xsetbv(0, xcr0_mask);
    }
    irq_restore(flags);
}

void fpu_end(void)
{
    /* What is left in the registers belongs to nobody: the next fpu_load restores. */
    holders[this_cpu()->id].st = NULL;
}

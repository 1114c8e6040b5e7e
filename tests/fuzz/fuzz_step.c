/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: code that the processor cannot run (kernel/emul/step.c), instruction by instruction, with
 * the events that its faults raise, in a machine of 256 KiB: real mode, 16- and 32-bit protected mode and
 * 64-bit code, segments and tables as the input has them. Beyond what sanitizers notice: what faults, has to
 * wait or exits has changed no register and has not moved on, unless it repeats; every pin is given back; buses
 * and the local APIC see accesses that they know; an exit says what a processor could have said.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/vlapic.h"
#include "kernel/emul/decode.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "mm/env.h"
#include "tests/host/check.h"
#include "tests/host/fakevm.h"

#define MEMORY_PAGES 64u
#define MEMORY_BYTES (MEMORY_PAGES * 4096u)
#define TABLES 0x1000u /* descriptors and gates; vectors are at 0 */
#define CODE 0x8000u
#define STACK 0x7000u
#define LAPIC_PAGE 0x3f000u
#define STEPS 48u

struct input {
    uint8_t mode, what, cpl, fail_at;
    uint8_t vector; /* an interrupt that comes after `when` steps */
    uint8_t when;
    uint16_t code_limit, data_limit;
    uint16_t reg[16];
    uint16_t seg[6];
    uint8_t attr[6];
    uint8_t nr_tables; /* eights of bytes for TABLES and for the vectors at 0; the rest is code */
};

/* Modes. */
#define MODE_REAL 0
#define MODE_16 1
#define MODE_32 2
#define MODE_64 3

#define WHAT_TF 1
#define WHAT_DF 2
#define WHAT_IF 4
#define WHAT_BIG_STACK 8
#define WHAT_HIGH 16 /* registers reach beyond 64 KiB */
#define WHAT_V86 32
#define WHAT_BASES 64 /* segments do not begin at 0 */

/* What goes wrong, once, at the access that input.fail_at counts. */
static enum hv_err failure;
static unsigned fail_in;

static uint8_t memory[MEMORY_BYTES];
static bool written[MEMORY_PAGES];
static int pins;
static struct vcpu *const v = &fake.vcpu[0];

unsigned env_cpu(void)
{
    return 0;
}

unsigned env_nr_cpus(void)
{
    return 1;
}

enum exit_action insn_single_step(struct vcpu *cpu)
{
    vcpu_inject_exception(cpu, EXC_DB, false, 0);
    return ACT_RESUME;
}

/* ---- Memory ---- */

static bool fails(void)
{
    return fail_in != 0 && --fail_in == 0;
}

enum hv_err guestmem_translate(struct vcpu *cpu, gva_t gva, uint32_t access, bool fast, gpa_t *out)
{
    (void)access;
    CHECK(!fast);
    if (failure == HV_EFAULT && fails()) {
        vcpu_inject_exception(cpu, EXC_PF, true, 0);
        return HV_EFAULT;
    }
    *out = GPA(gva.a);
    return HV_OK;
}

const uint8_t *vcpu_code(struct vcpu *cpu, unsigned len)
{
    (void)cpu;
    (void)len;
    abort(); /* of the fast path */
}

enum hv_err guestmem_fetch(struct vcpu *cpu, bool fast, uint8_t bytes[15], unsigned *got)
{
    struct segment cs;

    CHECK(!fast);
    hv->get_seg(cpu, SEG_CS, &cs);
    uint64_t at = hv->get_reg(cpu, REG_EFER) & EFER_LMA ? cpu->rip : (uint32_t)(cs.base + cpu->rip);
    if (at >= MEMORY_BYTES) {
        return HV_ENOENT;
    }
    *got = (unsigned)MIN((uint64_t)15, MEMORY_BYTES - at);
    memset(bytes, 0, 15);
    memcpy(bytes, memory + at, *got);
    return HV_OK;
}

enum hv_err guestmem_pin_by(struct vcpu *u, gpa_t gpa, bool write, void **page)
{
    (void)u;
    if (gpa.a >= MEMORY_BYTES) {
        return HV_ENOENT;
    }
    CHECK(gpa.a >> 12 != LAPIC_PAGE >> 12);
    if (failure != HV_EFAULT && fails()) {
        return failure;
    }
    pins++;
    written[gpa.a >> 12] |= write;
    *page = memory + (gpa.a & PAGE_MASK);
    return HV_OK;
}

void guestmem_unpin(struct vm *vm, gpa_t gpa, void *page)
{
    (void)vm;
    CHECK(gpa.a < MEMORY_BYTES && page == memory + (gpa.a & PAGE_MASK));
    CHECK(pins-- > 0);
}

/* A task switch's, which emul_step does not make. */
enum hv_err cr_write(struct vcpu *v, unsigned cr, uint64_t value)
{
    (void)v, (void)cr, (void)value;
    abort();
}

bool vlapic_covers(const struct vlapic *a, gpa_t gpa)
{
    (void)a;
    return gpa.a >> 12 == LAPIC_PAGE >> 12;
}

enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value)
{
    (void)a;
    CHECK(size >= 1 && size <= 8 && offset + size <= 4096);
    *value = write ? *value : offset;
    return HV_OK;
}

enum hv_err bus_mmio(struct bus *b, struct vcpu *cpu, gpa_t gpa, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b;
    (void)cpu;
    CHECK(size == 1 || size == 2 || size == 4 || size == 8);
    CHECK(gpa.a >= MEMORY_BYTES && (gpa.a & ~PAGE_MASK) + size <= 4096);
    *value = write ? *value : UINT64_MAX;
    return HV_OK;
}

enum hv_err bus_port(struct bus *b, struct vcpu *cpu, uint64_t port, unsigned size, bool write,
                     uint64_t *value)
{
    (void)b;
    (void)cpu;
    CHECK(port <= UINT16_MAX && (size == 1 || size == 2 || size == 4));
    *value = write ? *value : 0x5a5a5a5a5a5a5a5a;
    return HV_OK;
}

/* ---- The machine ---- */

static void set_segments(const struct input *in)
{
    unsigned mode = in->mode & 3;
    bool base = in->what & WHAT_BASES;

    for (unsigned i = 0; i < 6; i++) {
        struct segment *s = &fake.segs[0][i];

        s->selector = in->seg[i];
        s->base = !base             ? 0
                  : mode == MODE_64 ? (uint64_t)in->seg[i] << 32
                                    : (uint32_t)in->seg[i] << 4;
        s->limit = (uint32_t)in->data_limit << (in->what & WHAT_HIGH ? 16 : 0) | 0xff;
        s->attr = (uint16_t)(in->attr[i] | (in->what & WHAT_BIG_STACK ? 0x400 : 0));
    }
    fake.segs[0][SEG_CS] = (struct segment){.selector = CODE >> 4,
                                            .base = mode == MODE_64 ? 0 : CODE,
                                            .limit = in->code_limit,
                                            .attr = (uint16_t)(0x9b | (mode == MODE_32   ? 0x400
                                                                       : mode == MODE_64 ? 0x200
                                                                                         : 0))};
    fake.segs[0][SEG_SS].attr =
        (uint16_t)(0x93 | (fake.segs[0][SEG_SS].attr & 0x400) | (in->cpl & 3) << 5);
    fake.segs[0][SEG_GDTR] = (struct segment){.base = TABLES, .limit = 8u * in->nr_tables + 7};
    fake.segs[0][SEG_IDTR] = (struct segment){.base = mode == MODE_REAL ? 0 : TABLES + 64,
                                              .limit = 8u * in->nr_tables + 7};
    fake.segs[0][SEG_LDTR] =
        (struct segment){.attr = 0x82, .base = TABLES + 128, .limit = 8u * in->nr_tables + 7};
    fake.segs[0][SEG_TR].attr = 0x8b;
}

static void set_up(const struct input *in, const uint8_t *data, size_t size)
{
    static const enum hv_err errors[] = {HV_EFAULT, HV_EAGAIN, HV_ENOMEM, HV_EFAULT};
    unsigned mode = in->mode & 3;
    size_t tables = MIN((size_t)in->nr_tables * 8, size / 2);

    fakevm_reset(1);
    set_segments(in);
    fake.regs[0][REG_CR0] = mode == MODE_REAL ? CR0_ET : CR0_ET | CR0_PE;
    fake.regs[0][REG_EFER] = mode == MODE_64 ? EFER_LMA : 0;
    fake.regs[0][REG_RFLAGS] = 2 | (in->what & WHAT_TF ? RFLAGS_TF : 0) |
                               (in->what & WHAT_DF ? RFLAGS_DF : 0) |
                               (in->what & WHAT_IF ? RFLAGS_IF : 0) |
                               (mode != MODE_64 && in->what & WHAT_V86 ? RFLAGS_VM : 0);
    for (unsigned i = 0; i < 16; i++) {
        v->gpr[i] = (uint64_t)in->reg[i] << (in->what & WHAT_HIGH && i & 1 ? 3 * i : 0);
    }
    fake.regs[0][REG_RSP] = in->reg[GPR_RSP] ? v->gpr[GPR_RSP] : STACK;
    v->rip = mode == MODE_64 ? CODE : 0;
    for (unsigned i = 0; i < MEMORY_PAGES; i++) {
        if (written[i]) {
            memset(memory + 4096 * i, 0, 4096);
            written[i] = false;
        }
    }
    memcpy(memory, data, tables);
    memcpy(memory + TABLES, data, tables);
    memset(memory + CODE, 0xf4, 4096);
    memcpy(memory + CODE, data + tables, MIN(size - tables, (size_t)4096));
    written[0] = written[TABLES / 4096] = written[CODE / 4096] = true;
    failure = errors[in->fail_at >> 6];
    fail_in = in->fail_at & 63;
    pins = 0;
}

/* ---- Steps ---- */

static struct {
    uint64_t gpr[NR_GPRS], regs[NR_HV_REGS], rip;
    struct segment segs[NR_SEGS];
} before;

static void remember(void)
{
    memcpy(before.gpr, v->gpr, sizeof before.gpr);
    memcpy(before.regs, fake.regs[0], sizeof before.regs);
    memcpy(before.segs, fake.segs[0], sizeof before.segs);
    before.rip = v->rip;
    fake.exception.count = 0;
}

static void expect_unchanged(void)
{
    CHECK(memcmp(before.gpr, v->gpr, sizeof before.gpr) == 0);
    CHECK(memcmp(before.regs, fake.regs[0], sizeof before.regs) == 0);
    for (unsigned i = 0; i < NR_SEGS; i++) {
        const struct segment *a = &before.segs[i], *b = &fake.segs[0][i];

        CHECK(a->base == b->base && a->limit == b->limit && a->selector == b->selector &&
              a->attr == b->attr);
    }
    CHECK(before.rip == v->rip);
}

static bool repeats(void)
{
    uint8_t bytes[15];
    unsigned got;
    struct insn in;

    return guestmem_fetch(v, false, bytes, &got) == HV_OK &&
           decode_insn(bytes, got, emul_mode_of(v), &in) && in.rep != 0 && in.opcode >= 0xa4 &&
           in.opcode <= 0xaf;
}

static void check_exit(const struct vm_exit *exit)
{
    const struct exit_port *p = &exit->port;

    CHECK(exit->kind < NR_EXIT_KINDS && exit->insn_len <= 15);
    if (exit->kind == EXIT_PORT || exit->kind == EXIT_STRING_IO) {
        CHECK(p->size == 1 || p->size == 2 || p->size == 4);
    }
}

/* What its handler would do, as far as the emulator is asked again. False: the guest ends here. */
static bool serve(struct vm_exit *exit)
{
    char text[64];
    uint64_t value = 0;
    uint8_t len = 0;
    gva_t gva;

    switch (exit->kind) {
    case EXIT_STRING_IO:
        return emul_string_io(v, &exit->port, false, text, sizeof text) == HV_OK;
    case EXIT_CR:
        if (emul_decode_cr(v, &exit->cr, false, &len, &value) != HV_OK) {
            return false;
        }
        CHECK(exit->cr.cr < 16 && exit->cr.gpr < 16 && len >= 1 && len <= 15);
        if (exit->cr.cr == 0 && exit->cr.write) {
            hv->set_reg(v, REG_CR0,
                        (exit->cr.decoded ? v->gpr[exit->cr.gpr] : value) & ~(uint64_t)CR0_PG);
        }
        vcpu_advance(v, len);
        return true;
    case EXIT_INVLPG:
        return emul_decode_invlpg(v, false, &len, &gva) == HV_OK;
    case EXIT_HLT:
        return false;
    default:
        CHECK(exit->insn_len != 0);
        vcpu_advance(v, exit->insn_len);
        return true;
    }
}

/* A fault or an interrupt comes: through the guest's table. False: that cannot be delivered. */
static bool deliver(const struct event *ev)
{
    remember();
    enum hv_err err = emul_event(v, ev);

    CHECK(pins == 0);
    CHECK((err == HV_EFAULT) == (fake.exception.count != 0) && fake.exception.count <= 1);
    if (err) {
        expect_unchanged();
    }
    return err == HV_OK;
}

static bool deliver_fault(void)
{
    const struct event ev = {.type = EVENT_EXCEPTION,
                             .vector = fake.exception.vector,
                             .has_error = fake.exception.has_error,
                             .error = fake.exception.error};

    return deliver(&ev);
}

/* False: the guest ends here. */
static bool step(void)
{
    struct vm_exit exit;
    char text[96] = "";
    bool many = repeats();

    remember();
    enum hv_err err = emul_step(v, &exit, text, sizeof text);

    CHECK(pins == 0);
    CHECK(fake.exception.count <= 1);
    switch (err) {
    case HV_OK:
        break;
    case HV_EFAULT:
        CHECK(fake.exception.count == 1);
        /* fall through */
    case HV_EAGAIN:
    case HV_ENOMEM:
    case HV_ENOTSUP:
        CHECK(before.rip == v->rip);
        if (!many) {
            expect_unchanged();
        }
        return err == HV_EFAULT ? deliver_fault() : err != HV_ENOTSUP;
    default:
        CHECK(!"an error that nobody expects");
    }
    if (exit.kind != EXIT_NONE) {
        check_exit(&exit);
        CHECK(fake.exception.count == 0);
        expect_unchanged();
        if (!serve(&exit)) {
            return false;
        }
        CHECK(pins == 0);
    }
    return fake.exception.count == 0 || deliver_fault();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct input in = {.mode = 0};

    if (!ready && emul_init() != HV_OK) {
        abort();
    }
    ready = true;
    size_t head = MIN(size, sizeof in);

    memcpy(&in, data, head);
    set_up(&in, data + head, size - head);
    for (unsigned i = 0; i < STEPS && step(); i++) {
        const struct event irq = {.type = EVENT_INTERRUPT, .vector = in.vector};

        if (i == in.when && fake.regs[0][REG_RFLAGS] & RFLAGS_IF && !deliver(&irq)) {
            break;
        }
    }
    return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who has to wait before guest memory gets a frame (kernel/vm/guestmem.c): what a vCPU does by itself,
 * whether its tables, its code or its operands are what is missing; not what devices do for it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/salt.h"
#include "kernel/vm/swapping.h"
#include "kernel/vm/vm.h"
#include "mm/gwalk.h"
#include "mm/p2m_internal.h"
#include "mm/share/cow.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/share.h"
#include "tests/host/env.h"

#define NR_RAM 64u
#define TABLES 8u /* gfn of the top table */
#define CODE 0x10000u
#define DATA 0x20000u

struct cpu_features cpu_features = {.phys_bits = 40};
static struct vm vm;
static struct vcpu vcpu = {.vm = &vm}, *const v = &vcpu;
static struct guest_paging paging;
static bool in_line; /* others come first */
static struct {
    unsigned nr;
    uint32_t error;
    uint64_t cr2;
} faults; /* that the guest got */

/* A page that is being read back: it arrives when somebody waits for it. */
static struct {
    struct p2m_entry e;
    uint64_t was; /* its word when it was there; 0: nothing is on its way */
    struct vcpu *by;
    unsigned waits;
} coming;

uint32_t memwait_access(struct vcpu *u)
{
    assert_ptr_equal(u, v);
    return in_line ? P2M_VCPU | P2M_LINE : P2M_VCPU;
}

void vcpu_paging(struct vcpu *u, struct guest_paging *out)
{
    (void)u;
    *out = paging;
}

unsigned vcpu_cpl(struct vcpu *u)
{
    (void)u;
    return 0;
}

void vcpu_inject_exception(struct vcpu *u, uint8_t vector, bool has_error, uint32_t error)
{
    (void)u;
    assert_true(vector == EXC_PF && has_error);
    faults.nr++;
    faults.error = error;
}

void swapping_wait(struct vm *of, struct vcpu *u, gfn_t gfn)
{
    assert_ptr_equal(of, &vm);
    assert_true(coming.was != 0 && gfn.n == DATA >> PAGE_SHIFT);
    p2m_change(&coming.e, coming.was);
    coming.was = 0;
    coming.by = u;
    coming.waits++;
}

void swapping_failed(struct vm *of, gfn_t gfn)
{
    (void)of, (void)gfn;
    fail_msg("no store");
}

uint32_t salt_of(const struct vm *of)
{
    (void)of;
    return 1;
}

bool salt_is_common(uint32_t salt)
{
    (void)salt;
    return false;
}

static uint64_t get_reg(struct vcpu *u, enum hv_reg reg)
{
    (void)u, (void)reg;
    return 0;
}

static void get_seg(struct vcpu *u, enum seg_reg seg, struct segment *out)
{
    (void)u, (void)seg;
    *out = (struct segment){.attr = 0x29b, .limit = UINT32_MAX};
}

static void set_reg(struct vcpu *u, enum hv_reg reg, uint64_t value)
{
    (void)u;
    assert_int_equal(reg, REG_CR2);
    faults.cr2 = value;
}

static const struct hv_backend backend = {
    .get_reg = get_reg, .set_reg = set_reg, .get_seg = get_seg};
const struct hv_backend *hv = &backend;

static void begin(bool paged)
{
    const struct p2m_config cfg = {.owner = 1, .vm = &vm};

    env_start(MFN(0x200), 4096, 1);
    assert_int_equal(p2m_create(&cfg, &vm.p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm.p2m, GFN(0), NR_RAM), HV_OK);
    paging = (struct guest_paging){.cr0 = paged ? CR0_PE | CR0_PG : 0,
                                   .cr4 = paged ? CR4_PAE : 0,
                                   .efer = paged ? EFER_LME | EFER_LMA : 0,
                                   .cr3 = TABLES << PAGE_SHIFT};
    v->rip = CODE;
    in_line = false;
    memset(&faults, 0, sizeof(faults));
}

/* The last fault is the n-th. */
static void expect_fault(unsigned n, uint64_t cr2, uint32_t error)
{
    assert_int_equal(faults.nr, n);
    assert_int_equal(faults.cr2, cr2);
    assert_int_equal(faults.error, error);
}

static void end(void)
{
    vm.p2m->blocked = false;
    p2m_destroy(vm.p2m);
    env_stop();
}

static enum hv_err translate(uint64_t gva, uint32_t access)
{
    gpa_t gpa;

    return guestmem_translate(v, GVA(gva), access, false, &gpa);
}

static enum hv_err fetch(void)
{
    uint8_t bytes[15];
    unsigned got;

    return guestmem_fetch(v, false, bytes, &got);
}

static enum hv_err pin(uint64_t gpa, bool write, bool by_device)
{
    void *page;
    enum hv_err err = by_device ? guestmem_pin(&vm, GPA(gpa), write ? P2M_WRITE : P2M_READ, &page)
                                : guestmem_pin_by(v, GPA(gpa), write, &page);

    if (err == HV_OK) {
        guestmem_unpin(&vm, GPA(gpa), page);
    }
    return err;
}

static void expect_waits(enum hv_err err)
{
    uint8_t byte;

    assert_int_equal(translate(DATA, GVA_READ), err);
    assert_int_equal(translate(DATA, GVA_WRITE), err);
    assert_int_equal(translate(DATA, GVA_WRITE | GVA_AWAY), HV_OK); /* the address alone */
    assert_int_equal(fetch(), err);
    assert_int_equal(guestmem_read_by(v, GPA(DATA), &byte, 1), err);
    assert_int_equal(pin(DATA, false, false), err);
    assert_int_equal(pin(DATA, true, false), err);
}

static void send_away(void)
{
    p2m_query(vm.p2m, gpa_gfn(GPA(DATA)), &coming.e);
    assert_int_equal(coming.e.state, P2M_PRIVATE);
    coming.was = coming.e.seq;
    p2m_change(&coming.e, word_next(coming.e.seq, P2M_INCOMING, MFN(0)));
}

/* Who sleeps until a page is there is told apart: only vCPUs' own waits are time that their guest lost. */
static void waits_have_an_owner(void **state)
{
    uint8_t byte = 7;

    (void)state;
    begin(false);
    assert_int_equal(guestmem_write(&vm, GPA(DATA), &byte, 1), HV_OK);
    coming.waits = 0;
    for (unsigned way = 0; way < 6; way++) {
        bool own = way < 4;

        send_away();
        switch (way) {
        case 0:
            assert_int_equal(guestmem_read_by(v, GPA(DATA), &byte, 1), HV_OK);
            break;
        case 1:
            assert_int_equal(translate(DATA, GVA_READ), HV_OK);
            break;
        case 2:
            assert_int_equal(translate(DATA, GVA_WRITE), HV_OK);
            break;
        case 3:
            v->rip = DATA;
            assert_int_equal(fetch(), HV_OK);
            break;
        case 4:
            assert_int_equal(guestmem_read(&vm, GPA(DATA), &byte, 1), HV_OK);
            break;
        default:
            assert_int_equal(guestmem_write(&vm, GPA(DATA), &byte, 1), HV_OK);
            break;
        }
        assert_int_equal(coming.waits, way + 1);
        assert_ptr_equal(coming.by, own ? v : NULL);
    }
    end();

    /* The guest's own table, which the walk goes through; it leads to one that waits for its frame. */
    begin(true);
    paging.cr3 = DATA;
    uint64_t entry = (TABLES + 1) << PAGE_SHIFT | 0x67;
    assert_int_equal(guestmem_write(&vm, GPA(DATA), &entry, 8), HV_OK);
    coming.by = NULL;
    vm.p2m->blocked = true;
    send_away();
    assert_int_equal(translate(DATA, GVA_READ), HV_ENOMEM);
    assert_ptr_equal(coming.by, v);
    end();
}

static void vcpus_wait(void **state)
{
    uint8_t byte = 7;

    (void)state;
    for (unsigned line = 0; line < 2; line++) {
        begin(false);
        in_line = line;
        vm.p2m->blocked = !line;
        expect_waits(HV_ENOMEM);
        /* Devices go on, and what there is is there for all. */
        assert_int_equal(guestmem_write(&vm, GPA(DATA), &byte, 1), HV_OK);
        assert_int_equal(guestmem_read(&vm, GPA(CODE), &byte, 1), HV_OK);
        expect_waits(HV_OK);
        assert_int_equal(pin(DATA + PAGE_SIZE, true, true), HV_OK);
        end();
    }
    begin(false);
    expect_waits(HV_OK);
    end();
}

/* The guest's tables count as its pages do. */
static void tables_wait(void **state)
{
    uint64_t entry;

    (void)state;
    begin(true);
    vm.p2m->blocked = true;
    assert_int_equal(translate(DATA, GVA_READ), HV_ENOMEM);
    assert_int_equal(fetch(), HV_ENOMEM);
    for (unsigned level = 0; level < 3; level++) {
        entry = (TABLES + level + 1) << PAGE_SHIFT | 0x67;
        assert_int_equal(guestmem_write(&vm, GPA((TABLES + level) << PAGE_SHIFT), &entry, 8),
                         HV_OK);
    }
    assert_int_equal(translate(DATA, GVA_READ), HV_ENOMEM); /* the last one */
    entry = DATA | 0x67;
    assert_int_equal(guestmem_write(&vm,
                                    GPA(((TABLES + 3) << PAGE_SHIFT) + 8 * (DATA >> PAGE_SHIFT)),
                                    &entry, 8),
                     HV_OK);
    assert_int_equal(translate(DATA, GVA_READ), HV_ENOMEM); /* the page */
    assert_int_equal(translate(DATA, GVA_READ | GVA_AWAY), HV_OK);
    vm.p2m->blocked = false;
    assert_int_equal(translate(DATA, GVA_READ), HV_OK);
    assert_int_equal(faults.nr, 0);
    end();
}

/* A page of 1 GiB where the guest was offered none is a fault of reserved bits, by whatever walk. */
static void huge_page(void **state)
{
    uint64_t pml4e = (TABLES + 1) << PAGE_SHIFT | 0x67, pdpte = 0xe7;
    uint8_t bytes[15];
    unsigned got;
    gpa_t gpa;

    (void)state;
    begin(true);
    assert_int_equal(guestmem_write(&vm, GPA(TABLES << PAGE_SHIFT), &pml4e, 8), HV_OK);
    assert_int_equal(guestmem_write(&vm, GPA((TABLES + 1) << PAGE_SHIFT), &pdpte, 8), HV_OK);
    vm.page1gb = true;
    assert_int_equal(guestmem_translate(v, GVA(DATA + 5), GVA_WRITE, false, &gpa), HV_OK);
    assert_int_equal(gpa.a, DATA + 5);
    assert_int_equal(guestmem_translate(v, GVA(DATA + 5), GVA_READ, true, &gpa), HV_OK);
    assert_int_equal(fetch(), HV_OK);
    vm.page1gb = false;
    assert_int_equal(guestmem_translate(v, GVA(DATA + 5), GVA_WRITE, true, &gpa), HV_EFAULT);
    assert_int_equal(guestmem_fetch(v, true, bytes, &got), HV_EFAULT);
    assert_int_equal(faults.nr, 0);
    assert_int_equal(translate(DATA + 5, GVA_WRITE), HV_EFAULT);
    expect_fault(1, DATA + 5, PFEC_P | PFEC_W | PFEC_RSVD);
    assert_int_equal(fetch(), HV_EFAULT);
    expect_fault(2, CODE, PFEC_P | PFEC_RSVD);
    end();
}

/* gfn b's contents are gfn a's: put both on one frame. */
static void merge(gfn_t a, gfn_t b)
{
    struct p2m_entry ea, eb;
    struct flush_batch batch;

    flush_batch_init(&batch, p2m_flush_domain(vm.p2m));
    p2m_query(vm.p2m, a, &ea);
    p2m_query(vm.p2m, b, &eb);
    assert_true(cow_nominate(vm.p2m, a, &ea, &batch) && cow_nominate(vm.p2m, b, &eb, &batch));
    flush_batch_commit(&batch);
    assert_int_equal(
        cow_promote(vm.p2m, &ea, index_key(hash_page(p2m_peek(vm.p2m, a)), vm.p2m->salt)), HV_OK);
    assert_true(cow_merge(vm.p2m, b, &eb, ea.mfn, &batch));
    flush_batch_commit(&batch);
}

static uint64_t entry_of(unsigned table, unsigned i)
{
    return ((const uint64_t *)p2m_peek(vm.p2m, GFN(TABLES + table)))[i];
}

/* Two tables of one walk have the same contents, and one frame: bits are set in the right one. The second refers
 * to itself, and is the table of three levels. */
static void tables_on_one_frame(void **state)
{
    const uint64_t down = (TABLES + 1) << PAGE_SHIFT | 7, leaf = DATA | 7;
    const unsigned at = DATA >> PAGE_SHIFT;

    (void)state;
    begin(true);
    assert_int_equal(share_init(64), HV_OK);
    share_join(vm.p2m);
    for (uint64_t table = TABLES; table <= TABLES + 1; table++) {
        gpa_t gpa = gfn_gpa(GFN(table));

        assert_int_equal(guestmem_write(&vm, gpa, &down, 8), HV_OK);
        assert_int_equal(guestmem_write(&vm, GPA(gpa.a + 8 * at), &leaf, 8), HV_OK);
    }
    merge(GFN(TABLES), GFN(TABLES + 1));
    assert_ptr_equal(p2m_peek(vm.p2m, GFN(TABLES)), p2m_peek(vm.p2m, GFN(TABLES + 1)));
    assert_int_equal(translate(DATA, GVA_WRITE), HV_OK);
    assert_int_equal(entry_of(0, 0), down | 0x20);
    assert_int_equal(entry_of(0, at), leaf);
    assert_int_equal(entry_of(1, 0), down | 0x20);
    assert_int_equal(entry_of(1, at), leaf | 0x60);
    share_leave(vm.p2m);
    vm.p2m->blocked = false;
    p2m_destroy(vm.p2m);
    share_fini();
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vcpus_wait),          cmocka_unit_test(tables_wait),
        cmocka_unit_test(huge_page),           cmocka_unit_test(waits_have_an_owner),
        cmocka_unit_test(tables_on_one_frame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

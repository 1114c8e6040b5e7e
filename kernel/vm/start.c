/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a stopped VM to one whose first vCPU stands at its kernel's entry: memory as after power-on,
 * devices reset, firmware tables and images in place. Called by life.c with the life-cycle
 * operation claimed and no vCPU running.
 */
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/random.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/options.h"
#include "kernel/vm/balance.h"
#include "kernel/vm/config_text.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/image.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/salt.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/share.h"
#include "mm/view.h"

#define MAX_RANGES 8u
#define SEL_GUEST_CODE 0x10u
#define SEL_GUEST_DATA 0x18u
#define SEL_GUEST_TSS 0x20u

/* ---- Memory ---- */

static enum hv_err add_ram(const struct vm *vm, struct p2m *p2m)
{
    struct loader_range map[MAX_RANGES];
    unsigned nr = loader_memory_map(vm->config.memory_bytes, map, MAX_RANGES);

    for (unsigned i = 0; i < nr; i++) {
        enum hv_err err = p2m_add_ram(p2m, gpa_gfn(GPA(map[i].base)), map[i].size >> PAGE_SHIFT);

        if (err != HV_OK) {
            return err;
        }
    }
    return HV_OK;
}

/* Others read counters through vm->p2m and vm->view: they find the old pair or the new one. */
static void install(struct vm *vm, struct p2m *p2m, struct view *view)
{
    struct p2m *old_p2m = vm->p2m;
    uint64_t flags;

    if (old_p2m != NULL) {
        reclaim_leave(old_p2m);
    }
    flags = spin_lock_irqsave(&vm->lock);
    vm->p2m = p2m;
    vm->view = view;
    vm->flush = p2m != NULL ? p2m_flush_domain(p2m) : NULL;
    spin_unlock_irqrestore(&vm->lock, flags);
    p2m_destroy(old_p2m);
}

void start_free_memory(struct vm *vm)
{
    install(vm, NULL, NULL);
}

/* Overhead that the shadow tables may take: a sixteenth of the memory, and what a small VM needs. */
#define SHADOW_SHARE 16u
#define SHADOW_LEAST 1024u /* frames */

static enum hv_err build_shadow(const struct vm *vm, struct p2m *p2m, struct view **view)
{
    struct loader_range map[MAX_RANGES];
    unsigned nr = loader_memory_map(vm->config.memory_bytes, map, MAX_RANGES);
    struct shadow_config cfg = {
        .owner = vm->id,
        .max_order = ORDER_2M,
        .phys_bits = cpu_features.phys_bits,
        .page1gb = vm->page1gb,
        .nx = cpu_features.nx,
        .overhead_frames = (vm->config.memory_bytes >> PAGE_SHIFT) / SHADOW_SHARE + SHADOW_LEAST,
    };
    struct rng rng;

    random_stream(&rng, "shadow", vm->config.name);
    cfg.seed = rng_next(&rng);
    for (unsigned i = 0; i < nr; i++) {
        cfg.nr_gfns = MAX(cfg.nr_gfns, (map[i].base + map[i].size) >> PAGE_SHIFT);
    }
    return shadow_create(p2m, &cfg, view);
}

enum hv_err start_build_memory(struct vm *vm)
{
    const struct p2m_config cfg = {
        .owner = vm->id,
        .vm = vm,
        .large_pages = vm->config.largepages == LARGEPAGES_AUTO &&
                       options_get(OPT_ALLOC_GUEST_LARGE_PAGE) != 0,
        .max_order = vm->software_mmu ? ORDER_2M : hv_caps.nested_max_order,
        .salt = salt_of(vm),
        .no_paging = vm->config.swap == SWAP_OFF,
    };
    struct p2m *p2m;
    struct view *view = NULL;
    enum hv_err err = p2m_create(&cfg, &p2m);

    if (err != HV_OK) {
        return err;
    }
    err = vm->software_mmu ? build_shadow(vm, p2m, &view)
                           : nested_create(p2m, hv_caps.nested_format, vm->id, &view);
    if (err == HV_OK) {
        err = add_ram(vm, p2m);
    }
    if (err != HV_OK) {
        p2m_destroy(p2m);
        return err;
    }
    share_join(p2m);
    err = balance_join(vm, p2m);
    if (err != HV_OK) {
        p2m_destroy(p2m);
        return err;
    }
    install(vm, p2m, view);
    return HV_OK;
}

/* ---- Entry state ---- */

static void set_flat_segments(struct vcpu *v, uint16_t code_attr, const struct loader_entry *e)
{
    const struct segment code = {
        .selector = SEL_GUEST_CODE, .attr = code_attr, .limit = UINT32_MAX};
    const struct segment data = {.selector = SEL_GUEST_DATA, .attr = 0xc93, .limit = UINT32_MAX};
    const struct segment gdtr = {.base = e->gdt, .limit = e->gdt_limit};
    const struct segment tss = {.selector = SEL_GUEST_TSS, .attr = 0x8b, .limit = 0x67};
    static const enum seg_reg data_segs[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS};

    hv->set_seg(v, SEG_CS, &code);
    for (size_t i = 0; i < ARRAY_SIZE(data_segs); i++) {
        hv->set_seg(v, data_segs[i], &data);
    }
    hv->set_seg(v, SEG_GDTR, &gdtr);
    hv->set_seg(v, SEG_TR, &tss);
}

static void set_entry(struct vcpu *v, const struct loader_entry *e)
{
    const uint16_t code64 = 0xa9b, code32 = 0xc9b;

    if (e->mode == ENTRY_LONG64) {
        hv->set_reg(v, REG_CR4, CR4_PAE);
        hv->set_reg(v, REG_CR3, e->cr3);
        hv->set_reg(v, REG_EFER, EFER_LME | EFER_LMA);
        hv->set_reg(v, REG_CR0, CR0_PE | CR0_ET | CR0_NE | CR0_PG);
        set_flat_segments(v, code64, e);
    } else {
        hv->set_reg(v, REG_CR0, CR0_PE | CR0_ET | CR0_NE);
        set_flat_segments(v, code32, e);
    }
    v->rip = e->rip;
    v->gpr[GPR_RAX] = e->rax;
    v->gpr[GPR_RBX] = e->rbx;
    v->gpr[GPR_RSI] = e->rsi;
    v->gpr[GPR_RDX] = 0;
    hv->set_reg(v, REG_RSP, e->rsp);
}

/* ---- Images ---- */

/* The modules that the VM names beside kernel and initrd; `text` holds their names. */
static enum hv_err find_modules(const struct vm *vm, struct loader_request *req,
                                char text[CONFIG_MODULES_MAX])
{
    char *next = text, *args;

    str_copy(text, CONFIG_MODULES_MAX, vm->config.modules);
    for (const char *name; (name = config_next_item(&next, &args)) != NULL; req->nr_modules++) {
        struct loader_module *m = &req->modules[req->nr_modules];
        enum hv_err err = image_find(vm, "modules", name, &m->image);

        if (err != HV_OK) {
            return err;
        }
        str_copy(m->args, sizeof(m->args), args);
    }
    return HV_OK;
}

/* See BACKEND_IDENTITY_MAP. What the guest does to it hurts the guest alone. */
static enum hv_err write_identity_map(struct vm *vm)
{
    const uint32_t large_page = 0xe7; /* present, writable, user, accessed, dirty, 4 MiB */
    uint32_t table[256];
    enum hv_err err = HV_OK;

    if (hv_caps.unrestricted || vm->software_mmu) {
        return HV_OK;
    }
    for (uint32_t i = 0; i < PAGE_SIZE / sizeof(uint32_t) && err == HV_OK; i += ARRAY_SIZE(table)) {
        for (uint32_t j = 0; j < ARRAY_SIZE(table); j++) {
            table[j] = (i + j) << 22 | large_page;
        }
        err = guestmem_write(vm, GPA(BACKEND_IDENTITY_MAP + i * sizeof(uint32_t)), table,
                             sizeof(table));
    }
    return err;
}

static enum hv_err load_images(struct vm *vm)
{
    struct loader_request req = {
        .vm = vm,
        .cmdline = vm->config.cmdline,
        .tsc_khz = vm->config.identity == IDENTITY_NONE ? clock_tsc_hz() / 1000 : 0,
    };
    struct loader_entry entry;
    char names[CONFIG_MODULES_MAX];
    gpa_t rsdp;
    enum hv_err err = image_find(vm, "kernel", vm->config.kernel, &req.kernel);

    if (err == HV_OK) {
        err = image_find(vm, "initrd", vm->config.initrd, &req.initrd);
    }
    if (err == HV_OK) {
        err = find_modules(vm, &req, names);
    }
    if (err != HV_OK) {
        return err;
    }
    err = acpi_tables_write(vm, &rsdp);
    if (err != HV_OK) {
        log_error("vm %s: cannot write the firmware tables: %s", vm->config.name, hv_strerror(err));
        return err;
    }
    req.rsdp = rsdp.a;
    err = write_identity_map(vm);
    if (err != HV_OK) {
        log_error("vm %s: cannot write the identity map: %s", vm->config.name, hv_strerror(err));
        return err;
    }
    err = loader_load(&req, &entry);
    if (err != HV_OK) {
        log_error("vm %s: %s", vm->config.name, req.error);
        return err;
    }
    set_entry(vm->vcpus[0], &entry);
    return HV_OK;
}

enum hv_err start_prepare(struct vm *vm)
{
    /* Before their memory goes. */
    devices_quiesce(vm);
    if (vm->used) {
        enum hv_err err = start_build_memory(vm);

        if (err != HV_OK) {
            log_error("vm %s: no memory for its tables", vm->config.name);
            return err;
        }
    }
    vm->used = true;
    vm->tsc_offset = -rdtsc();
    devices_reset(vm);
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        vcpu_reset(vm->vcpus[i]);
    }
    vlapic_virtual_wire(vm->vcpus[0]);
    return load_images(vm);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The list of VMs, and building and taking apart a VM. The list lock guards list, identifiers and
 * reference counts; a VM stays whole while somebody holds a reference.
 */
#include "kernel/vm/vm.h"

#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/percpu.h"
#include "kernel/devices/devices.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestconsole.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/balloon.h"
#include "mm/reclaim/reclaim.h"
#include "mm/reclaim/swap.h"
#include "mm/share/share.h"
#include "mm/slab.h"
#include "mm/view.h"

#define RESTART_LINES 16u
#define RESTART_LINES_NS 1000000000ull /* then one more in each */

static struct spinlock list_lock = SPINLOCK_INIT(RANK_VM_LIST, "vm list");
static struct list vms = LIST_INIT(vms);
static uint32_t last_id; /* list_lock */

/* ---- The list ---- */

static struct vm *find_locked(const char *name)
{
    struct list *pos;

    list_for_each (pos, &vms) {
        struct vm *vm = list_entry(pos, struct vm, node);

        if (str_equal(vm->config.name, name)) {
            return vm;
        }
    }
    return NULL;
}

struct vm *vm_find(const char *name)
{
    spin_lock(&list_lock);
    struct vm *vm = find_locked(name);
    if (vm != NULL) {
        vm->refs++;
    }
    spin_unlock(&list_lock);
    return vm;
}

void vm_put(struct vm *vm)
{
    spin_lock(&list_lock);
    vm->refs--;
    /* Under the lock: who waits for the last reference frees the VM once it has seen the count. */
    waitq_wake_all(&vm->state_wait);
    spin_unlock(&list_lock);
}

/* The VM with the smallest id above `id`, with a reference; the list is in order of ids. */
static struct vm *next_after(uint32_t id)
{
    struct vm *found = NULL;
    struct list *pos;

    spin_lock(&list_lock);
    list_for_each (pos, &vms) {
        struct vm *vm = list_entry(pos, struct vm, node);

        if (vm->id > id) {
            vm->refs++;
            found = vm;
            break;
        }
    }
    spin_unlock(&list_lock);
    return found;
}

void vm_for_each(bool (*fn)(struct vm *vm, void *arg), void *arg)
{
    uint32_t id = 0;
    bool more = true;

    while (more) {
        struct vm *vm = next_after(id);

        if (vm == NULL) {
            return;
        }
        id = vm->id;
        more = fn(vm, arg);
        vm_put(vm);
    }
}

static bool id_listed(uint32_t id)
{
    struct list *pos;

    list_for_each (pos, &vms) {
        if (list_entry(pos, struct vm, node)->id == id) {
            return true;
        }
    }
    return false;
}

/* Give vm an id, if its name is free. The frame table has 16 bits for it: after 65,535 VMs the first
 * ids come again, by when those who had them are whole and listed, or gone. */
static enum hv_err take_id(struct vm *vm)
{
    spin_lock(&list_lock);
    bool taken = find_locked(vm->config.name) != NULL;
    if (!taken) {
        do {
            last_id = last_id % OWNER_MAX + 1;
        } while (id_listed(last_id));
        vm->id = last_id;
    }
    spin_unlock(&list_lock);
    return taken ? HV_EEXIST : HV_OK;
}

/* Enter vm, now whole, into the list, in order of ids. */
static enum hv_err list_enter(struct vm *vm)
{
    struct list *pos = vms.prev;

    spin_lock(&list_lock);
    bool taken = find_locked(vm->config.name) != NULL;
    if (!taken) {
        for (pos = vms.prev; pos != &vms; pos = pos->prev) {
            if (list_entry(pos, struct vm, node)->id < vm->id) {
                break;
            }
        }
        list_add(pos, &vm->node);
    }
    spin_unlock(&list_lock);
    return taken ? HV_EEXIST : HV_OK;
}

static void list_leave(struct vm *vm)
{
    spin_lock(&list_lock);
    list_del(&vm->node);
    spin_unlock(&list_lock);
}

static unsigned refs_of(struct vm *vm)
{
    spin_lock(&list_lock);
    unsigned refs = vm->refs;
    spin_unlock(&list_lock);
    return refs;
}

/* ---- Building ---- */

static enum hv_err build(struct vm *vm)
{
    enum hv_err err = balloon_create(vm->id, &vm->balloon);

    if (err == HV_OK) {
        err = cpuid_create(vm);
    }
    if (err == HV_OK) {
        err = start_build_memory(vm);
    }
    if (err == HV_OK) {
        err = hv->vm_init(vm);
    }
    if (err == HV_OK) {
        msr_open(vm);
    }
    if (err == HV_OK) {
        err = guestconsole_create(vm->config.name, vm->config.output == OUTPUT_LOG, vm->id,
                                  &vm->console);
    }
    if (err == HV_OK) {
        err = devices_create(vm);
    }
    for (unsigned i = 0; err == HV_OK && i < vm->nr_vcpus; i++) {
        err = vcpu_create(vm, i);
    }
    return err;
}

/* Also for half-built VMs; threads that were started have been told to end. Devices go first: they
 * raise interrupts. */
static void take_apart(struct vm *vm)
{
    devices_quiesce(vm);
    /* Scans and samples flush, and a flush looks at the vCPUs: none may begin or be under way. */
    if (vm->p2m != NULL) {
        reclaim_leave(vm->p2m);
        share_leave(vm->p2m);
        swap_leave(vm->p2m);
    }
    devices_destroy(vm);
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        vcpu_destroy(vm->vcpus[i]);
        vm->vcpus[i] = NULL;
    }
    if (vm->console != NULL) {
        guestconsole_destroy(vm->console);
    }
    cpuid_destroy(vm);
    hv->vm_fini(vm);
    start_free_memory(vm);
    balloon_destroy(vm->balloon);
}

static enum hv_err choose_mmu(struct vm *vm)
{
    vm->software_mmu =
        vm->config.mmu == MMU_SOFTWARE || (vm->config.mmu == MMU_AUTO && !hv_caps.nested_paging);
    if (vm->software_mmu ? hv_caps.software_mmu : hv_caps.nested_paging) {
        return HV_OK;
    }
    log_error("vm %s: mmu: this processor has no %s; accepted: auto, %s", vm->config.name,
              vm->software_mmu ? "way to run guests on shadow tables" : "nested paging",
              vm->software_mmu ? "hardware" : "software");
    return HV_ENOTSUP;
}

enum hv_err vm_create(const struct vm_config *cfg, struct vm **out)
{
    struct vm *vm = kmalloc(sizeof(*vm), OWNER_HOST);

    if (vm == NULL) {
        return HV_ENOMEM;
    }
    vm->config = *cfg;
    vm->nr_vcpus = MIN(MAX(cfg->vcpus, 1u), (unsigned)VM_MAX_VCPUS);
    vm->state = VM_STOPPED;
    ratelimit_init(&vm->restart_lines, RESTART_LINES, RESTART_LINES_NS);
    list_init(&vm->node);
    spin_init(&vm->lock, RANK_VM, "vm");
    waitq_init(&vm->state_wait);

    enum hv_err err = choose_mmu(vm);
    if (err == HV_OK) {
        err = take_id(vm);
    }
    if (err != HV_OK) {
        kfree(vm);
        return err;
    }
    err = build(vm);
    if (err == HV_OK) {
        err = list_enter(vm);
    }
    if (err != HV_OK) {
        take_apart(vm);
        kfree(vm);
        return err;
    }
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        thread_start(vm->vcpus[i]->thread);
    }
    *out = vm;
    return HV_OK;
}

/* ---- Destroying ---- */

enum hv_err vm_destroy(struct vm *vm)
{
    enum hv_err err = life_end(vm);

    if (err != HV_OK) {
        return err;
    }
    list_leave(vm);
    waitq_wait(&vm->state_wait, refs_of(vm) <= 1);
    take_apart(vm);
    bool clean = mm_audit_gone(vm->id);
    log_info("vm %s: destroyed", vm->config.name);
    kfree(vm);
    return clean ? HV_OK : HV_EIO;
}

/* False: not now. */
static bool try_memory_counters(struct vm *vm, struct p2m_counters *p2m, struct view_stats *view)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);
    bool ok = true;

    *p2m = (struct p2m_counters){0};
    *view = (struct view_stats){0};
    if (vm->p2m != NULL) {
        ok &= p2m_try_counters(vm->p2m, p2m);
    }
    if (vm->view != NULL) {
        ok &= vm->view->ops->stats(vm->view, view);
    }
    spin_unlock_irqrestore(&vm->lock, flags);
    return ok;
}

/* A guest can see to it that its view's lock is held for milliseconds: nobody waits for that with interrupts
 * off. */
void vm_memory_counters(struct vm *vm, struct p2m_counters *p2m, struct view_stats *view)
{
    while (!try_memory_counters(vm, p2m, view)) {
        __builtin_ia32_pause();
    }
}

uint64_t vm_overhead_bytes(struct vm *vm)
{
    struct p2m_counters c;
    struct view_stats s;

    vm_memory_counters(vm, &c, &s);
    return (c.overhead + s.tables + devices_frames(vm)) * PAGE_SIZE + kmalloc_bytes(vm->id) +
           sizeof(*vm) + (vm->nr_vcpus + vm->nr_virtio) * STACK_SIZE;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The states of a VM and the ways between them.
 *
 *     STOPPED --start--> RUNNING --pause--> PAUSED --resume--> RUNNING
 *        ^                  |                  |
 *        +--- last vCPU out-+------ reset -----+          any --destroy--> DYING
 *
 * One life-cycle operation at a time: vm->busy, waited for on state_wait. To end a run, somebody
 * claims stop_reason and sets VCPU_REQ_STOP on every vCPU; the last vCPU thread that leaves the run
 * loop makes the VM STOPPED and says why, once.
 *
 * vm->lock guards state, busy and nr_running; it is taken with interrupts off, because devices may
 * be stopped from anywhere. VCPU_REQ_STOP is cleared only by release(), with no vCPU in the loop.
 */
#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/admission.h"
#include "kernel/vm/exit.h"
#include "mm/p2m.h"
#include "mm/view.h"

/* ---- Waiting for states ---- */

static enum vm_state state_of(const struct vm *vm)
{
    return __atomic_load_n(&vm->state, __ATOMIC_ACQUIRE);
}

static void set_state(struct vm *vm, enum vm_state state)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);

    __atomic_store_n(&vm->state, state, __ATOMIC_RELEASE);
    spin_unlock_irqrestore(&vm->lock, flags);
    waitq_wake_all(&vm->state_wait);
}

/* The end of a run, unless the VM is being destroyed meanwhile. */
static void become_stopped(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);

    if (vm->state == VM_RUNNING) {
        __atomic_store_n(&vm->state, VM_STOPPED, __ATOMIC_RELEASE);
    }
    spin_unlock_irqrestore(&vm->lock, flags);
    waitq_wake_all(&vm->state_wait);
}

static bool parked(const struct vm *vm)
{
    return __atomic_load_n(&vm->nr_running, __ATOMIC_ACQUIRE) == 0;
}

static bool try_claim(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);
    bool mine = !vm->busy;

    vm->busy = true;
    spin_unlock_irqrestore(&vm->lock, flags);
    return mine;
}

/* Become the one who changes vm's life. HV_EBUSY: it is being destroyed. */
static enum hv_err claim(struct vm *vm)
{
    bool mine = false;

    waitq_wait(&vm->state_wait, state_of(vm) == VM_DYING || (mine = try_claim(vm)));
    if (mine && state_of(vm) == VM_DYING) {
        /* The destroyer gave it up, never to take it again. */
        mine = false;
    }
    return mine ? HV_OK : HV_EBUSY;
}

static void unclaim(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);

    vm->busy = false;
    spin_unlock_irqrestore(&vm->lock, flags);
    waitq_wake_all(&vm->state_wait);
}

static void request_all(struct vm *vm, uint32_t bits)
{
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        if (vm->vcpus[i] != NULL && vm->vcpus[i]->thread != NULL) {
            vcpu_request(vm->vcpus[i], bits);
        }
    }
}

/* Let the vCPUs run. None is in the loop. */
static void release(struct vm *vm)
{
    vm->ending = false;
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        __atomic_fetch_and(&vm->vcpus[i]->request, ~VCPU_REQ_STOP, __ATOMIC_SEQ_CST);
    }
    set_state(vm, VM_RUNNING);
    /* Somebody may have asked for the end in between, or while the VM was paused. */
    if (__atomic_load_n(&vm->stop_reason, __ATOMIC_SEQ_CST) != STOP_NONE) {
        request_all(vm, VCPU_REQ_STOP);
    }
}

/* True for the one who reports the end of this run: no vCPU is in the loop any more, and none enters
 * that has not, for all were told to stop. vm->lock is held. */
static bool claim_end(struct vm *vm)
{
    bool ended = vm->state == VM_RUNNING && vm->nr_running == 0 && !vm->ending &&
                 vm->stop_reason != STOP_NONE;

    if (ended) {
        vm->ending = true;
    }
    return ended;
}

/* ---- Stopping ---- */

void vm_stop_request(struct vm *vm, enum stop_reason reason, uint32_t code, const char *fmt, ...)
{
    enum stop_reason none = STOP_NONE;
    va_list ap;

    if (!__atomic_compare_exchange_n(&vm->stop_reason, &none, reason, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        return;
    }
    vm->stop_code = code;
    va_start(ap, fmt);
    vscnprintf(vm->stop_text, sizeof(vm->stop_text), fmt, ap);
    va_end(ap);
    __atomic_store_n(&vm->stop_described, true, __ATOMIC_RELEASE);
    request_all(vm, VCPU_REQ_STOP);
}

/* A triple fault resets a PC, and some kernels reboot by one. */
static bool is_reset(const struct vm *vm)
{
    return vm->stop_reason == STOP_RESET || vm->stop_reason == STOP_TRIPLE_FAULT;
}

/* After the last vCPU has left the loop. True: the VM wants to start again. */
static bool report_stop(struct vm *vm)
{
    bool again = is_reset(vm) && vm->config.on_reset == ON_RESET_RESTART;
    uint32_t hidden = 0;
    char text[192];

    while (!__atomic_load_n(&vm->stop_described, __ATOMIC_ACQUIRE)) {
        __builtin_ia32_pause();
    }
    if (again && !ratelimit_take(&vm->restart_lines, clock_now_ns(), &hidden)) {
        return true;
    }
    vm_describe_stop(vm, text, sizeof(text));
    if (hidden != 0) {
        log_info("vm %s: restarted %u times more than is shown here", vm->config.name, hidden);
    }
    bool fault = vm->stop_reason != STOP_POWEROFF && vm->stop_reason != STOP_RESET &&
                 vm->stop_reason != STOP_DEBUG_EXIT && vm->stop_reason != STOP_OPERATOR;
    log_msg(fault ? LOG_WARN : LOG_INFO, "vm %s: %s", vm->config.name, text);
    return again;
}

/* Said before anybody can see the state, so that lines come in order. True: to be started again. */
static bool end_run(struct vm *vm)
{
    bool again = report_stop(vm);

    if (!again) {
        admission_end(vm);
    }
    become_stopped(vm);
    return again;
}

/* A stop was asked for: end the run here if the vCPUs' threads had not entered the loop yet, for then
 * none will be the last to leave it. True as end_run. */
static bool end_unentered(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);
    bool ended = claim_end(vm);

    spin_unlock_irqrestore(&vm->lock, flags);
    return ended && end_run(vm);
}

static bool stopped_or_gone(const struct vm *vm)
{
    enum vm_state s = state_of(vm);

    return s == VM_STOPPED || s == VM_DYING;
}

/* From RUNNING or PAUSED to STOPPED; claimed by the caller. */
static void bring_to_stop(struct vm *vm, enum stop_reason reason, const char *why)
{
    if (state_of(vm) == VM_PAUSED) {
        waitq_wait(&vm->state_wait, parked(vm));
        release(vm);
    }
    if (state_of(vm) == VM_RUNNING) {
        vm_stop_request(vm, reason, 0, "%s", why);
        (void)end_unentered(vm);
        waitq_wait(&vm->state_wait, stopped_or_gone(vm));
    }
}

/* ---- The threads' way in and out ---- */

static bool may_enter(const struct vcpu *v)
{
    enum vm_state s = state_of(v->vm);

    return s == VM_DYING ||
           (s == VM_RUNNING && !(__atomic_load_n(&v->request, __ATOMIC_ACQUIRE) & VCPU_REQ_STOP));
}

bool life_vcpu_enter(struct vcpu *v)
{
    struct vm *vm = v->vm;

    for (;;) {
        waitq_wait(&vm->state_wait, may_enter(v));

        uint64_t flags = spin_lock_irqsave(&vm->lock);
        enum vm_state s = vm->state;
        bool enter = s == VM_RUNNING && may_enter(v);
        if (enter) {
            __atomic_fetch_add(&vm->nr_running, 1, __ATOMIC_ACQ_REL);
        }
        spin_unlock_irqrestore(&vm->lock, flags);
        if (enter || s == VM_DYING) {
            return enter;
        }
    }
}

/* The guest asked for a reset, and the configuration grants it. Claimed by the caller. */
static void restart_claimed(struct vm *vm)
{
    if (state_of(vm) == VM_STOPPED && is_reset(vm)) {
        if (start_prepare(vm) == HV_OK) {
            vm->stop_described = false;
            __atomic_store_n(&vm->stop_reason, STOP_NONE, __ATOMIC_SEQ_CST);
            __atomic_store_n(&vm->started_ns, clock_now_ns(), __ATOMIC_RELAXED);
            release(vm);
        } else {
            admission_end(vm);
            log_error("vm %s: cannot be started again", vm->config.name);
        }
    }
}

/* On a vCPU's thread. */
static void restart(struct vm *vm)
{
    if (claim(vm) == HV_OK) {
        restart_claimed(vm);
        unclaim(vm);
    }
}

void life_vcpu_leave(struct vcpu *v)
{
    struct vm *vm = v->vm;
    uint64_t flags = spin_lock_irqsave(&vm->lock);
    __atomic_sub_fetch(&vm->nr_running, 1, __ATOMIC_ACQ_REL);
    bool ended = claim_end(vm);
    spin_unlock_irqrestore(&vm->lock, flags);
    if (!ended) {
        waitq_wake_all(&vm->state_wait);
    } else if (end_run(vm)) {
        restart(vm);
    }
}

/* ---- Operations ---- */

static enum hv_err start_claimed(struct vm *vm)
{
    enum hv_err err = admission_begin(vm);

    if (err != HV_OK) {
        return err;
    }
    err = start_prepare(vm);
    if (err != HV_OK) {
        admission_end(vm);
        return err;
    }
    vm->stop_described = false;
    vm->stop_text[0] = '\0';
    vm->stop_code = 0;
    __atomic_store_n(&vm->stop_reason, STOP_NONE, __ATOMIC_SEQ_CST);
    __atomic_store_n(&vm->started_ns, clock_now_ns(), __ATOMIC_RELAXED);
    log_info("vm %s: started: %llu MiB, %u vCPU%s, %s", vm->config.name,
             (unsigned long long)(vm->config.memory_bytes >> 20), vm->nr_vcpus,
             vm->nr_vcpus == 1 ? "" : "s", vm->config.kernel);
    release(vm);
    return HV_OK;
}

enum hv_err vm_start(struct vm *vm)
{
    enum hv_err err = claim(vm);

    if (err == HV_OK) {
        err = state_of(vm) == VM_STOPPED ? start_claimed(vm) : HV_EBUSY;
        unclaim(vm);
    }
    return err;
}

/* From RUNNING to PAUSED. False: it does not run, or is about to stop. */
static bool become_paused(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);
    bool running = vm->state == VM_RUNNING && vm->stop_reason == STOP_NONE;

    if (running) {
        __atomic_store_n(&vm->state, VM_PAUSED, __ATOMIC_RELEASE);
    }
    spin_unlock_irqrestore(&vm->lock, flags);
    return running;
}

void vm_pause_request(struct vm *vm, const char *fmt, ...)
{
    char text[sizeof(vm->stop_text)];
    va_list ap;

    if (become_paused(vm)) {
        va_start(ap, fmt);
        vscnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        log_warn("vm %s: paused: %s", vm->config.name, text);
        request_all(vm, VCPU_REQ_STOP);
    }
}

enum hv_err vm_pause(struct vm *vm)
{
    enum hv_err err = claim(vm);

    if (err != HV_OK) {
        return err;
    }
    bool running = become_paused(vm);
    if (running) {
        request_all(vm, VCPU_REQ_STOP);
        waitq_wait(&vm->state_wait, parked(vm));
    }
    unclaim(vm);
    return running ? HV_OK : HV_EBUSY;
}

enum hv_err vm_resume(struct vm *vm)
{
    enum hv_err err = claim(vm);

    if (err == HV_OK) {
        if (state_of(vm) == VM_PAUSED) {
            /* It may have paused itself, and not be through yet. */
            waitq_wait(&vm->state_wait, parked(vm));
            release(vm);
            if (end_unentered(vm)) {
                restart_claimed(vm);
            }
        } else {
            err = HV_EBUSY;
        }
        unclaim(vm);
    }
    return err;
}

enum hv_err vm_reset(struct vm *vm)
{
    enum hv_err err = claim(vm);

    if (err == HV_OK) {
        bring_to_stop(vm, STOP_OPERATOR, "reset by the operator");
        waitq_wait(&vm->state_wait, parked(vm));
        err = start_claimed(vm);
        unclaim(vm);
    }
    return err;
}

bool vm_audit(struct vm *vm)
{
    /* A restart would exchange what is being counted. */
    if (claim(vm) != HV_OK) {
        return true;
    }
    bool pages = p2m_audit(vm->p2m);
    bool tables = vm->view->ops->audit(vm->view);

    unclaim(vm);
    return pages && tables;
}

/* A slice at a time, for faults wait for the view meanwhile; one flush. */
static void drop_claimed(struct vm *vm, struct vm_dropped *out)
{
    /* RAM that does not fit below the hole starts at 4 GiB. */
    uint64_t end = (vm->config.memory_bytes + GIB(4)) >> PAGE_SHIFT;
    uint64_t slice = BIT(ORDER_1G);
    uint64_t start = rdtsc();
    struct flush_batch batch;
    struct p2m_counters count;
    struct view_stats had;

    vm_memory_counters(vm, &count, &had);
    flush_batch_init(&batch, vm->flush);
    for (uint64_t gfn = 0; gfn < end; gfn += slice) {
        vm->view->ops->drop(vm->view, GFN(gfn), slice, &batch);
    }
    uint64_t emptied = rdtsc();
    flush_batch_commit(&batch);
    *out = (struct vm_dropped){
        .leaves = had.leaves_4k + had.leaves_2m + had.leaves_1g,
        .tables = had.tables,
        .drop_ticks = emptied - start,
        .flush_ticks = rdtsc() - emptied,
    };
}

enum hv_err vm_drop(struct vm *vm, struct vm_dropped *out)
{
    enum hv_err err = claim(vm);

    if (err == HV_OK) {
        drop_claimed(vm, out);
        unclaim(vm);
    }
    return err;
}

enum hv_err life_end(struct vm *vm)
{
    enum hv_err err = claim(vm);

    if (err != HV_OK) {
        return err;
    }
    set_state(vm, VM_DYING);
    request_all(vm, VCPU_REQ_STOP);
    waitq_wait(&vm->state_wait, parked(vm));
    return HV_OK;
}

/* ---- Names ---- */

const char *vm_state_name(enum vm_state s)
{
    static const char *const names[] = {"stopped", "running", "paused", "dying"};

    return s < ARRAY_SIZE(names) ? names[s] : "?";
}

void vm_describe_stop(const struct vm *vm, char *buf, size_t len)
{
    switch (__atomic_load_n(&vm->stop_reason, __ATOMIC_ACQUIRE)) {
    case STOP_NONE:
        scnprintf(buf, len, "not started yet");
        break;
    case STOP_POWEROFF:
        scnprintf(buf, len, "powered off");
        break;
    case STOP_RESET:
        scnprintf(buf, len, "reset");
        break;
    case STOP_DEBUG_EXIT:
        scnprintf(buf, len, "exited with code %u", vm->stop_code);
        break;
    default:
        scnprintf(buf, len, "%s", vm->stop_text);
        break;
    }
}

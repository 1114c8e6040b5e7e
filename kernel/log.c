/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log. log_msg formats on its own stack and appends to the ring; printing follows the ring with
 * one reader at a time (`draining`): whoever finds it busy leaves the line to the one who drains, who
 * looks again before it goes.
 *
 * To wake the printing thread takes run queue locks that the caller may hold, so log_msg sends its
 * own processor an interrupt, which is taken once interrupts are allowed, that is, when no such lock
 * is held. On the NMI, double-fault and machine-check stacks not even that: the next line prints.
 */
#include "kernel/log.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irq.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/percpu.h"
#include "boot/bootinfo.h"
#include "kernel/drivers/console.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/sched/sched.h"

#define LINE_MAX (LOGRING_TEXT_MAX + 32)
#define PREVIOUS_SHOWN 16u
#define PRINT_POLL_NS 1000000ULL
#define BATCH 32u                      /* lines between two looks at who else wants the processor */
#define WRITER_TIMEOUT_NS 100000000ULL /* a line that is not there by then is left out */

static uint8_t early_buf[LOG_RING_BYTES] __aligned(8);
static uint8_t previous_buf[LOG_RING_BYTES] __aligned(8); /* written once, by log_persist */
static struct logring ring = {.buf = early_buf, .size = sizeof(early_buf)};
static bool have_previous;

static enum log_level console_level = LOG_INFO; /* atomic */
static uint64_t printed;                        /* position in the ring; whoever set `draining` */
static uint32_t draining;                       /* atomic flag */
static uint32_t wake_pending;                   /* atomic flag: an interrupt is on its way */
static struct thread *log_thread;               /* written once */
static void (*hook_before)(void);
static void (*hook_after)(void);

static size_t format_entry(const struct log_entry *e, char line[LINE_MAX])
{
    static const char *const tags[] = {
        [LOG_ERROR] = "error: ", [LOG_WARN] = "warning: ", [LOG_INFO] = "", [LOG_DEBUG] = ""};
    uint64_t us = e->time_ns / 1000;

    return scnprintf(line, LINE_MAX, "[%5llu.%06llu] %s%s\n", (unsigned long long)(us / 1000000),
                     (unsigned long long)(us % 1000000),
                     e->level < ARRAY_SIZE(tags) ? tags[e->level] : "", e->text);
}

static void print_entry(const struct log_entry *e)
{
    char line[LINE_MAX];

    console_write(line, format_entry(e, line));
}

static void print_lost(uint64_t bytes)
{
    char line[LINE_MAX];

    console_write(line,
                  scnprintf(line, sizeof(line),
                            "log: %llu bytes of lines came faster than they could be printed\n",
                            (unsigned long long)bytes));
}

static bool is_pending(void)
{
    return __atomic_load_n(&printed, __ATOMIC_RELAXED) <
           __atomic_load_n(&ring.committed, __ATOMIC_ACQUIRE);
}

/* Shall the printer go on without the record at pos? A writer may have been interrupted, for as long as
 * an emulator pleases; only a machine check or a panic makes one stop for ever. Whoever set `draining`. */
static bool may_skip(bool hooks, uint64_t pos)
{
    static uint64_t waiting_at = UINT64_MAX, since_ns;

    if (!hooks || console_in_panic()) {
        return true;
    }
    if (pos != waiting_at) {
        waiting_at = pos;
        since_ns = clock_now_ns();
    }
    return clock_now_ns() - since_ns > WRITER_TIMEOUT_NS;
}

/* Print what is pending, at most BATCH lines if others (`hooks`) want the terminal too. */
static void drain(bool hooks)
{
    struct log_entry e;
    unsigned lines = 0;
    bool progress = true;

    while (progress && is_pending() && !(hooks && lines >= BATCH)) {
        if (__atomic_exchange_n(&draining, 1, __ATOMIC_ACQUIRE) && !console_in_panic()) {
            return;
        }
        bool hidden = false;
        uint64_t pos = printed;

        while (!(hooks && lines >= BATCH) && logring_read(&ring, &pos, may_skip(hooks, pos), &e)) {
            lines++;
            __atomic_store_n(&printed, pos, __ATOMIC_RELAXED);
            if (e.level > (uint8_t)log_get_level()) {
                continue;
            }
            if (hooks && !hidden && hook_before) {
                hook_before();
                hidden = true;
            }
            if (e.lost != 0) {
                print_lost(e.lost);
            }
            print_entry(&e);
        }
        progress = __atomic_exchange_n(&printed, pos, __ATOMIC_RELAXED) != pos || lines != 0;
        if (hidden && hook_after) {
            hook_after();
        }
        __atomic_store_n(&draining, 0, __ATOMIC_RELEASE);
    }
}

static void on_log_irq(void *arg)
{
    (void)arg;
    thread_wake(log_thread);
}

static void log_thread_main(void *arg)
{
    (void)arg;
    for (;;) {
        __atomic_store_n(&wake_pending, 0, __ATOMIC_SEQ_CST);
        drain(true);
        if (is_pending()) {
            /* Guests that write without end shall not take this processor for themselves. */
            sched_yield();
        } else {
            thread_block();
        }
    }
}

static bool on_ist_stack(void)
{
    struct cpu *cpu = this_cpu();
    uint64_t here = (uint64_t)__builtin_frame_address(0);

    for (unsigned i = 0; i < ARRAY_SIZE(cpu->ist_stack); i++) {
        if (here < cpu->ist_stack[i] && here >= cpu->ist_stack[i] - STACK_SIZE) {
            return true;
        }
    }
    return false;
}

static void notify(void)
{
    if (!log_thread || console_in_panic()) {
        drain(false);
    } else if (!on_ist_stack() && !__atomic_exchange_n(&wake_pending, 1, __ATOMIC_SEQ_CST)) {
        lapic_ipi(this_cpu()->apic_id, VEC_LOG);
    }
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    char text[LOGRING_TEXT_MAX + 1];
    va_list ap;

    va_start(ap, fmt);
    size_t len = vscnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    while (len > 0 && text[len - 1] == '\n') {
        len--;
    }
    logring_append(&ring, (uint8_t)level, (uint8_t)this_cpu()->id, clock_now_ns(), text, len);
    notify();
}

static bool is_ram(const struct boot_info *info, uint64_t base, uint64_t size)
{
    for (uint32_t i = 0; i < info->nr_ranges; i++) {
        const struct boot_range *r = &info->ranges[i];

        if (r->type == BOOT_RANGE_USABLE && r->base <= base && base + size <= r->base + r->size) {
            return true;
        }
    }
    return false;
}

static bool count_entry(const struct log_entry *e, void *arg)
{
    (void)e;
    (*(unsigned *)arg)++;
    return true;
}

static bool print_previous(const struct log_entry *e, void *arg)
{
    unsigned *skip = arg;

    if (*skip > 0) {
        (*skip)--;
    } else {
        console_write("| ", 2);
        print_entry(e);
    }
    return true;
}

/* The end of the earlier boot's log tells why it ended; straight to the console, not into the new
 * log. */
static void show_previous(void)
{
    unsigned count = 0;

    (void)log_for_each(true, count_entry, &count);
    if (count > 0) {
        unsigned skip = count > PREVIOUS_SHOWN ? count - PREVIOUS_SHOWN : 0;

        log_info("log: the previous boot's log survived; its end (`log previous` shows all):");
        (void)log_for_each(true, print_previous, &skip);
    }
}

void log_persist(const struct boot_info *info)
{
    if (!is_ram(info, LOG_RING_PA, LOG_RING_BYTES)) {
        log_warn("log: no RAM at 0x%llx: this log will not survive a reset", LOG_RING_PA);
        return;
    }
    void *place = phys_ptr(HPA(LOG_RING_PA));

    memcpy(previous_buf, place, sizeof(previous_buf));
    have_previous = true;
    logring_move(&ring, place, LOG_RING_BYTES);
    show_previous();
}

void log_start_thread(void)
{
    struct thread *t;

    if (irq_install(VEC_LOG, on_log_irq, NULL) ||
        thread_create("log", log_thread_main, NULL, WEIGHT_NORMAL, 0, &t)) {
        log_warn("log: no printing thread; lines are printed where they arise");
        return;
    }
    log_thread = t;
    thread_start(t);
}

void log_wait_printed(void)
{
    while (is_pending() || __atomic_load_n(&draining, __ATOMIC_ACQUIRE)) {
        if (!log_thread) {
            drain(false);
        }
        thread_sleep_ns(PRINT_POLL_NS);
    }
}

bool log_is_behind(void)
{
    uint64_t end = __atomic_load_n(&ring.committed, __ATOMIC_RELAXED);
    uint64_t done = __atomic_load_n(&printed, __ATOMIC_RELAXED);

    return log_thread && end > done && end - done > ring.size / 2;
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&console_level, level, __ATOMIC_RELAXED);
}

enum log_level log_get_level(void)
{
    return __atomic_load_n(&console_level, __ATOMIC_RELAXED);
}

const char *const log_level_names[LOG_DEBUG + 1] = {"error", "warn", "info", "debug"};

const char *log_level_name(enum log_level level)
{
    return (unsigned)level < ARRAY_SIZE(log_level_names) ? log_level_names[level] : "?";
}

bool log_level_find(const char *name, enum log_level *out)
{
    for (enum log_level l = LOG_ERROR; l <= LOG_DEBUG; l++) {
        if (str_equal(name, log_level_names[l])) {
            *out = l;
            return true;
        }
    }
    return false;
}

unsigned log_for_each(bool previous, bool (*fn)(const struct log_entry *e, void *arg), void *arg)
{
    if (previous) {
        return have_previous ? logring_scan(previous_buf, sizeof(previous_buf), fn, arg) : 0;
    }
    struct log_entry e;
    uint64_t pos = 0;
    uint64_t end = __atomic_load_n(&ring.committed, __ATOMIC_ACQUIRE);
    unsigned count = 0;

    while (logring_read(&ring, &pos, true, &e) && e.pos < end) {
        count++;
        if (!fn(&e, arg)) {
            break;
        }
    }
    return count;
}

void log_replay(void (*write)(const char *s, size_t len))
{
    char line[LINE_MAX];
    struct log_entry e;
    uint64_t pos = 0;
    uint64_t end = __atomic_load_n(&printed, __ATOMIC_RELAXED);

    while (logring_read(&ring, &pos, true, &e) && e.pos < end) {
        if (e.level <= (uint8_t)log_get_level()) {
            write(line, format_entry(&e, line));
        }
    }
}

void log_set_hooks(void (*before)(void), void (*after)(void))
{
    hook_before = before;
    hook_after = after;
}

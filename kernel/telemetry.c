/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See telemetry.h. One thread: it writes a second's lines into a ring, and sends from the ring what the
 * port takes without waiting. Nobody else touches either. Caller: kernel/startup.c.
 */
#include "kernel/telemetry.h"

#include "arch/x86_64/clock.h"
#include "kernel/drivers/console.h"
#include "kernel/drivers/uart.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/memmap.h"
#include "kernel/vm/memstat.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"

#define SECOND_NS 1000000000ull
#define MS_NS 1000000ull
#define FIFO_BYTES 16u
#define MOST_AT_ONCE 4096u /* bytes sent before others get the processor */
#define LINE_BYTES 3072u
#define RING_BYTES 65536u
#define VERSION 2
#define MAP_SECONDS 5u
#define MAP_CELLS 2048u /* of one line: 4 GiB */

static struct uart port;
static char ring[RING_BYTES];
static uint64_t head, tail; /* bytes ever written, ever sent */
static uint64_t dropped;    /* lines */
static char text[LINE_BYTES];
static size_t len;

/* ---- The ring ---- */

static void send_some(void)
{
    size_t burst = port.has_fifo ? FIFO_BYTES : 1;

    for (unsigned sent = 0; head != tail && sent < MOST_AT_ONCE && uart_ready(&port);) {
        size_t at = tail % RING_BYTES;
        size_t n = MIN(MIN(burst, (size_t)(head - tail)), RING_BYTES - at);

        uart_write(&port, ring + at, n);
        tail += n;
        sent += (unsigned)n;
    }
}

/* ---- Lines ---- */

static void add(const char *fmt, ...) __printf_like(1, 2);
static void add(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    len += vscnprintf(text + len, sizeof(text) - len, fmt, ap);
    va_end(ap);
}

static void begin(const char *kind, uint64_t time_ns)
{
    len = 0;
    add("{\"v\":%d,\"t\":%llu.%03llu,\"kind\":\"%s\"", VERSION,
        (unsigned long long)(time_ns / SECOND_NS),
        (unsigned long long)(time_ns % SECOND_NS / MS_NS), kind);
}

static void add_number(const char *key, uint64_t value)
{
    add(",\"%s\":%llu", key, (unsigned long long)value);
}

static void add_pages(const char *key, uint64_t pages)
{
    add_number(key, pages * (PAGE_SIZE / KIB(1)));
}

/* The line is ready: into the ring, or dropped as a whole. A line that was cut does not end in "}\n". */
static void end(void)
{
    add("}\n");
    if (text[len - 1] != '\n' || len > RING_BYTES - (head - tail)) {
        dropped++;
        return;
    }
    for (size_t i = 0; i < len; i++) {
        ring[head++ % RING_BYTES] = text[i];
    }
}

static void add_field(struct memstat_vm *vm, const struct memstat_field *f)
{
    uint64_t value = *memstat_value(vm, f);

    switch (f->unit) {
    case UNIT_PAGES:
    case UNIT_RATE:
        add_pages(f->key, value);
        break;
    case UNIT_BYTES:
        add_number(f->key, value / KIB(1));
        break;
    case UNIT_PER_MILLE:
        add(",\"%s\":%llu.%llu", f->key, (unsigned long long)(value / 10),
            (unsigned long long)(value % 10));
        break;
    case UNIT_NUMBER:
    case UNIT_FLAG:
        add_number(f->key, value);
        break;
    }
}

/* So far, of all vCPUs together; kinds that never came are left out. Counts that grow meanwhile may be of
 * this moment or the last. */
static void add_exits(const struct vm *vm)
{
    const char *comma = "";

    add(",\"exits\":{");
    for (unsigned k = 0; k < NR_EXIT_KINDS; k++) {
        uint64_t count = 0;

        for (unsigned i = 0; i < vm->nr_vcpus; i++) {
            count += vm->vcpus[i] ? vm->vcpus[i]->exits[k].count : 0;
        }
        if (count != 0) {
            add("%s\"%s\":%llu", comma, exit_kind_name((enum exit_kind)k),
                (unsigned long long)count);
            comma = ",";
        }
    }
    add("}");
}

/* Names are letters, digits and dashes: nothing to escape (kernel/vm/config.c). */
static bool vm_line(struct vm *vm, void *arg)
{
    const uint64_t *time_ns = arg;
    struct memstat_vm m;

    memstat_of_vm(vm, &m);
    begin("vm", *time_ns);
    add(",\"name\":\"%s\",\"id\":%u,\"state\":\"%s\",\"mmu\":\"%s\"", m.name, vm->id,
        vm_state_name(vm->state), vm_mmu_name(vm));
    for (unsigned i = 0; i < NR_MEMSTAT_FIELDS; i++) {
        add_field(&m, &memstat_fields[i]);
    }
    add_exits(vm);
    end();
    return true;
}

/* Every VM's turn comes once in MAP_SECONDS, not all of them in one. */
static bool map_lines(struct vm *vm, void *arg)
{
    const uint64_t *time_ns = arg;
    struct memmap_part part;
    static char map[MAP_CELLS];
    gpa_t at = GPA(0);

    while (vm->id % MAP_SECONDS == *time_ns / SECOND_NS % MAP_SECONDS &&
           memmap_read(vm, &at, map, sizeof(map), &part)) {
        begin("map", *time_ns);
        add(",\"name\":\"%s\",\"first\":%llu,\"cell\":%llu,\"map\":\"%.*s\"", vm->config.name,
            (unsigned long long)(part.first.a / KIB(1)),
            (unsigned long long)(MEMMAP_CELL_BYTES / KIB(1)), (int)part.nr, map);
        end();
    }
    return true;
}

static void host_line(const struct memstat_host *h)
{
    begin("host", h->time_ns);
    add_number("vms", h->vms);
    add(",\"state\":\"%s\",\"overcommit\":[", h->state);
    for (unsigned i = 0; i < ARRAY_SIZE(h->overcommit); i++) {
        add("%s%llu.%03llu", i != 0 ? "," : "", (unsigned long long)(h->overcommit[i] / 1000),
            (unsigned long long)(h->overcommit[i] % 1000));
    }
    add("]");
    add_pages("total", h->total);
    add_pages("vmk", h->vmk);
    add_pages("other", h->other);
    add_pages("free", h->free);
    add_pages("overhead", h->overhead);
    add_pages("minfree", h->min_free);
    add_pages("rsvd", h->reserved);
    add_pages("ursvd", h->unreserved);
    add_pages("shared", h->shared);
    add_pages("common", h->common);
    add_pages("saving", h->saving);
    add_pages("zero", h->zero);
    add_pages("swap_curr", h->swap_curr);
    add_pages("swap_tgt", h->swap_tgt);
    add_pages("swap_r", h->swap_r);
    add_pages("swap_w", h->swap_w);
    add_pages("zipped", h->zipped);
    add_pages("zip_saved", h->zip_saved);
    add_pages("memctl_curr", h->balloon_curr);
    add_pages("memctl_tgt", h->balloon_tgt);
    add_pages("memctl_max", h->balloon_max);
    add_number("waiting", h->waiting);
    add_number("dropped", dropped);
    end();
}

/* A second's lines, but for those that a slow reader is not through with: then it gets whole seconds
 * more seldom, not the same VMs again and again. */
static void write_lines(void)
{
    struct memstat_host h;

    memstat_of_host(&h);
    if (head - tail > RING_BYTES / 2) {
        dropped += 1 + h.vms;
        return;
    }
    host_line(&h);
    vm_for_each(vm_line, &h.time_ns);
    vm_for_each(map_lines, &h.time_ns);
}

/* ---- The thread ---- */

static void telemetry_main(void *unused)
{
    uint64_t next_ns = clock_now_ns();

    (void)unused;
    for (;;) {
        uint64_t now = clock_now_ns();

        if (now >= next_ns) {
            next_ns = MAX(next_ns + SECOND_NS, now);
            memstat_tick();
            if (port.present) {
                write_lines();
            }
        }
        send_some();
        now = clock_now_ns();
        if (head != tail) {
            thread_sleep_ns(MS_NS);
        } else if (now < next_ns) {
            thread_sleep_ns(next_ns - now);
        }
    }
}

static const struct {
    const char *name;
    uint16_t base; /* 0: none */
} choices[] = {
    [TELEMETRY_AUTO] = {"auto", UART_COM2}, [TELEMETRY_OFF] = {"off", 0},
    [TELEMETRY_COM1] = {"com1", UART_COM1}, [TELEMETRY_COM2] = {"com2", UART_COM2},
    [TELEMETRY_COM3] = {"com3", UART_COM3}, [TELEMETRY_COM4] = {"com4", UART_COM4},
};
_Static_assert(ARRAY_SIZE(choices) == NR_TELEMETRY, "as config_keys.c has them");

bool telemetry_find(const char *name, unsigned *out)
{
    for (unsigned i = 0; i < ARRAY_SIZE(choices); i++) {
        if (str_equal(name, choices[i].name)) {
            *out = i;
            return true;
        }
    }
    return false;
}

static void choose_port(unsigned choice)
{
    uint16_t base = choices[choice].base;
    bool named = choice != TELEMETRY_AUTO;

    if (base == 0) {
        return;
    }
    if (console_has_port(base)) {
        if (named) {
            log_error("telemetry: %s is the console's", choices[choice].name);
        }
    } else if (!uart_probe_port(&port, base) && named) {
        log_error("telemetry: there is no %s", choices[choice].name);
    }
}

void telemetry_start(unsigned choice)
{
    struct thread *t;

    choose_port(choice);
    if (thread_create("telemetry", telemetry_main, NULL, WEIGHT_NORMAL, OWNER_HOST, &t) != HV_OK) {
        log_error("telemetry: no memory for its thread: rates stay 0");
        return;
    }
    thread_start(t);
}

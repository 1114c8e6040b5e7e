/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both queues are indexed by positions that only grow; each is moved by one side and read by the
 * other (acquire/release), so no lock is needed. The output ring may overtake its reader, who copies
 * first and then checks whether what he copied was still whole.
 */
#include "kernel/vm/guestconsole.h"

#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "mm/slab.h"

#define OUTPUT_BYTES 65536u
#define OUTPUT_STEP 256u                         /* published at a time */
#define OUTPUT_KEPT (OUTPUT_BYTES - OUTPUT_STEP) /* the rest may be about to be overwritten */
#define INPUT_BYTES 256u
#define LINE_BYTES 160u
#define CLOSE_POLL_NS 1000000ULL

struct guestconsole {
    uint64_t out_pos;      /* bytes ever written: device (atomic) */
    uint64_t in_head;      /* bytes ever typed: viewer (atomic) */
    uint64_t in_tail;      /* bytes ever read: device (atomic) */
    struct thread *viewer; /* atomic; NULL: nobody watches */
    bool waking;           /* atomic: the viewer was woken and has not looked yet */
    bool closing;          /* atomic */
    bool to_log;
    const char *name;
    void (*input_ready)(void *arg);
    void *input_arg;
    char line[LINE_BYTES]; /* the line being collected for the log: device */
    size_t line_len;
    char in[INPUT_BYTES];
    char *out; /* OUTPUT_BYTES */
};

enum hv_err guestconsole_create(const char *name, bool to_log, uint32_t owner,
                                struct guestconsole **out)
{
    struct guestconsole *c = kmalloc(sizeof(*c), owner);

    if (!c) {
        return HV_ENOMEM;
    }
    c->out = kmalloc(OUTPUT_BYTES, owner);
    if (!c->out) {
        kfree(c);
        return HV_ENOMEM;
    }
    c->name = name;
    c->to_log = to_log;
    *out = c;
    return HV_OK;
}

static void wake_viewer(struct guestconsole *c)
{
    struct thread *viewer = __atomic_load_n(&c->viewer, __ATOMIC_ACQUIRE);

    if (viewer && !__atomic_exchange_n(&c->waking, true, __ATOMIC_SEQ_CST)) {
        thread_wake(viewer);
    }
}

void guestconsole_destroy(struct guestconsole *c)
{
    if (!c) {
        return;
    }
    __atomic_store_n(&c->closing, true, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&c->viewer, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&c->waking, false, __ATOMIC_SEQ_CST);
        wake_viewer(c);
        thread_sleep_ns(CLOSE_POLL_NS);
    }
    kfree(c->out);
    kfree(c);
}

/* Terminal control would garble the log: only printable text goes there. */
static void collect_line(struct guestconsole *c, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool ends = data[i] == '\n';

        if (!ends && (char_is_print(data[i]) || data[i] == '\t')) {
            c->line[c->line_len++] = data[i];
        }
        if ((ends && c->line_len > 0) || c->line_len == sizeof(c->line)) {
            log_info("[%s] %.*s", c->name, (int)c->line_len, c->line);
            c->line_len = 0;
        }
    }
}

static void append(struct guestconsole *c, const char *data, size_t n)
{
    uint64_t pos = c->out_pos;

    for (size_t i = 0; i < n; i++) {
        c->out[(pos + i) % OUTPUT_BYTES] = data[i];
    }
    __atomic_store_n(&c->out_pos, pos + n, __ATOMIC_SEQ_CST);
}

void guestconsole_output(struct guestconsole *c, const char *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        size_t step = MIN(n - done, (size_t)OUTPUT_STEP);

        append(c, data + done, step);
        done += step;
    }
    if (c->to_log) {
        collect_line(c, data, n);
    }
    wake_viewer(c);
}

bool guestconsole_is_full(const struct guestconsole *c)
{
    return c->to_log && log_is_behind();
}

bool guestconsole_input_pending(const struct guestconsole *c)
{
    return __atomic_load_n(&c->in_head, __ATOMIC_ACQUIRE) != c->in_tail;
}

size_t guestconsole_read(struct guestconsole *c, char *data, size_t n)
{
    uint64_t head = __atomic_load_n(&c->in_head, __ATOMIC_ACQUIRE);
    uint64_t tail = c->in_tail;
    size_t got = 0;

    while (got < n && tail != head) {
        data[got++] = c->in[tail++ % INPUT_BYTES];
    }
    __atomic_store_n(&c->in_tail, tail, __ATOMIC_RELEASE);
    return got;
}

void guestconsole_set_input_ready(struct guestconsole *c, void (*fn)(void *arg), void *arg)
{
    c->input_arg = arg;
    c->input_ready = fn;
}

enum hv_err guestconsole_attach(struct guestconsole *c, uint64_t *pos)
{
    struct thread *nobody = NULL;

    if (guestconsole_is_closing(c) ||
        !__atomic_compare_exchange_n(&c->viewer, &nobody, thread_current(), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED)) {
        return HV_EBUSY;
    }
    uint64_t end = __atomic_load_n(&c->out_pos, __ATOMIC_ACQUIRE);

    *pos = end > OUTPUT_KEPT ? end - OUTPUT_KEPT : 0;
    return HV_OK;
}

void guestconsole_detach(struct guestconsole *c)
{
    __atomic_store_n(&c->viewer, NULL, __ATOMIC_RELEASE);
}

size_t guestconsole_copy(struct guestconsole *c, uint64_t *pos, char *data, size_t n)
{
    for (;;) {
        /* From here on new output wakes the viewer again. */
        __atomic_store_n(&c->waking, false, __ATOMIC_SEQ_CST);
        uint64_t end = __atomic_load_n(&c->out_pos, __ATOMIC_SEQ_CST);

        if (end > OUTPUT_KEPT && *pos < end - OUTPUT_KEPT) {
            *pos = end - OUTPUT_KEPT;
        }
        size_t len = (size_t)MIN((uint64_t)n, end - *pos);

        for (size_t i = 0; i < len; i++) {
            data[i] = c->out[(*pos + i) % OUTPUT_BYTES];
        }
        end = __atomic_load_n(&c->out_pos, __ATOMIC_ACQUIRE);
        if (end <= OUTPUT_KEPT || *pos >= end - OUTPUT_KEPT) {
            *pos += len;
            return len;
        }
    }
}

bool guestconsole_is_closing(const struct guestconsole *c)
{
    return __atomic_load_n(&c->closing, __ATOMIC_SEQ_CST);
}

size_t guestconsole_type(struct guestconsole *c, const char *data, size_t n)
{
    uint64_t tail = __atomic_load_n(&c->in_tail, __ATOMIC_ACQUIRE);
    uint64_t head = c->in_head;
    size_t taken = 0;

    while (taken < n && head - tail < INPUT_BYTES) {
        c->in[head++ % INPUT_BYTES] = data[taken++];
    }
    __atomic_store_n(&c->in_head, head, __ATOMIC_RELEASE);
    if (taken > 0 && c->input_ready) {
        c->input_ready(c->input_arg);
    }
    return taken;
}

uint64_t guestconsole_written(const struct guestconsole *c)
{
    return __atomic_load_n(&c->out_pos, __ATOMIC_ACQUIRE);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A record is a 32-byte head and the text, padded to 8 bytes; it may wrap around the buffer's end. A
 * record's offset in the buffer is its position modulo the size, which a reader checks together with
 * magic number and checksum: a record that a later one overwrote in part fails one of them.
 */
#include "kernel/logring.h"

#include "kernel/lib/string.h"

#define RECORD_MAGIC 0x6c6f4742u
#define RECORD_ALIGN 8u

struct record {
    uint32_t magic;
    uint32_t sum; /* over everything behind it, text included */
    uint64_t pos;
    uint64_t time_ns;
    uint16_t len;
    uint8_t level;
    uint8_t cpu;
    uint32_t reserved;
};
_Static_assert(sizeof(struct record) == 32, "record head");

static size_t record_bytes(size_t len)
{
    return ALIGN_UP(sizeof(struct record) + len, RECORD_ALIGN);
}

static uint32_t checksum(const struct record *rec, const char *text)
{
    const uint8_t *p = (const uint8_t *)&rec->pos;
    uint32_t h = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < sizeof(*rec) - offsetof(struct record, pos); i++) {
        h = (h ^ p[i]) * 16777619u;
    }
    for (size_t i = 0; i < rec->len; i++) {
        h = (h ^ (uint8_t)text[i]) * 16777619u;
    }
    return h;
}

static void ring_put(uint8_t *buf, size_t size, uint64_t pos, const void *src, size_t n)
{
    size_t at = (size_t)pos & (size - 1);
    size_t first = MIN(n, size - at);

    memcpy(buf + at, src, first);
    memcpy(buf, (const uint8_t *)src + first, n - first);
}

static void ring_get(const uint8_t *buf, size_t size, uint64_t pos, void *dst, size_t n)
{
    size_t at = (size_t)pos & (size - 1);
    size_t first = MIN(n, size - at);

    memcpy(dst, buf + at, first);
    memcpy((uint8_t *)dst + first, buf, n - first);
}

/* Read the record at offset `at`; false unless every check holds. */
static bool record_at(const uint8_t *buf, size_t size, uint64_t at, struct log_entry *out)
{
    struct record rec;

    ring_get(buf, size, at, &rec, sizeof(rec));
    if (rec.magic != RECORD_MAGIC || rec.len > LOGRING_TEXT_MAX ||
        (rec.pos & (size - 1)) != (at & (size - 1)) || rec.pos > UINT64_MAX - size) {
        return false;
    }
    ring_get(buf, size, at + sizeof(rec), out->text, rec.len);
    out->text[rec.len] = '\0';
    out->pos = rec.pos;
    out->time_ns = rec.time_ns;
    out->level = rec.level;
    out->cpu = rec.cpu;
    out->len = rec.len;
    return rec.sum == checksum(&rec, out->text);
}

void logring_init(struct logring *r, void *buf, size_t size)
{
    memset(buf, 0, size);
    *r = (struct logring){.buf = buf, .size = size};
}

void logring_move(struct logring *r, void *buf, size_t size)
{
    struct logring to;
    struct log_entry e;
    uint64_t pos = r->head > r->size ? r->head - r->size : 0;

    logring_init(&to, buf, size);
    to.head = pos;
    while (logring_read(r, &pos, true, &e)) {
        to.head = e.pos;
        logring_append(&to, e.level, e.cpu, e.time_ns, e.text, e.len);
    }
    to.head = r->head;
    to.committed = r->head;
    *r = to;
}

void logring_append(struct logring *r, uint8_t level, uint8_t cpu, uint64_t time_ns,
                    const char *text, size_t len)
{
    struct record rec = {
        .magic = RECORD_MAGIC,
        .time_ns = time_ns,
        .len = (uint16_t)MIN(len, (size_t)LOGRING_TEXT_MAX),
        .level = level,
        .cpu = cpu,
    };

    size_t bytes = record_bytes(rec.len);
    uint64_t pos = __atomic_fetch_add(&r->head, bytes, __ATOMIC_RELAXED);

    rec.pos = pos;
    rec.sum = checksum(&rec, text);
    ring_put(r->buf, r->size, pos + sizeof(rec), text, rec.len);
    ring_put(r->buf, r->size, pos, &rec, sizeof(rec));
    /* Published up to the head even if an earlier writer has not finished: a record whose writer
     * died must not hold back the others. */
    uint64_t head = __atomic_load_n(&r->head, __ATOMIC_RELAXED);
    uint64_t old = __atomic_load_n(&r->committed, __ATOMIC_RELAXED);

    while (old < head && !__atomic_compare_exchange_n(&r->committed, &old, head, false,
                                                      __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {}
}

bool logring_read(const struct logring *r, uint64_t *pos, bool skip, struct log_entry *out)
{
    uint64_t end = __atomic_load_n(&r->committed, __ATOMIC_ACQUIRE);

    for (uint64_t at = *pos; at < end; at += RECORD_ALIGN) {
        if (record_at(r->buf, r->size, at, out) && out->pos == at) {
            out->lost = at - *pos;
            *pos = at + record_bytes(out->len);
            return true;
        }
        /* What is written now overwrites what was written `size` bytes before. */
        uint64_t head = __atomic_load_n(&r->head, __ATOMIC_RELAXED);

        if (head > r->size && at < head - r->size) {
            at = head - r->size - RECORD_ALIGN;
        } else if (!skip && at == *pos) {
            return false; /* its writer has not finished */
        }
    }
    if (skip) {
        *pos = MAX(*pos, end);
    }
    return false;
}

unsigned logring_scan(const void *buf, size_t size,
                      bool (*fn)(const struct log_entry *e, void *arg), void *arg)
{
    struct log_entry e;
    uint64_t end = 0;
    unsigned count = 0;

    for (size_t at = 0; at < size; at += RECORD_ALIGN) {
        if (record_at(buf, size, at, &e)) {
            end = MAX(end, e.pos + record_bytes(e.len));
        }
    }
    for (uint64_t at = end > size ? end - size : 0; at < end; at += RECORD_ALIGN) {
        if (record_at(buf, size, at, &e) && e.pos == at) {
            count++;
            if (!fn(&e, arg)) {
                break;
            }
        }
    }
    return count;
}

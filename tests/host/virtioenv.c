/* SPDX-License-Identifier: BSD-2-Clause */
/* See virtioenv.h. */
#include "tests/host/virtioenv.h"

#include <stdlib.h>
#include <string.h>

struct virtioenv host;
struct blk_disk disk;
uint8_t image[IMAGE_BYTES];
struct vcpu *const v = &fake.vcpu[0];

/* ---- Surroundings ---- */

void vioapic_set_line(struct vm *vm, unsigned gsi, bool level)
{
    (void)vm;
    host.line[gsi] = level;
}

enum hv_err thread_create(const char *name, void (*fn)(void *), void *arg, uint32_t weight,
                          uint32_t owner, struct thread **out)
{
    (void)name, (void)fn, (void)arg, (void)weight, (void)owner;
    *out = NULL;
    return HV_OK;
}

void thread_start(struct thread *t)
{
    (void)t;
}

void thread_wake(struct thread *t)
{
    (void)t;
    host.wakes++;
}

void thread_block(void)
{
    abort(); /* nobody would wake the test */
}

void thread_join(struct thread *t)
{
    (void)t;
}

void thread_sleep_ns(uint64_t ns)
{
    fake.now_ns += ns;
    host.sleeps++;
}

void sched_yield(void)
{
}

void waitq_init(struct waitq *q)
{
    (void)q;
}

void waitq_prepare(struct waitq *q)
{
    (void)q;
}

void waitq_finish(struct waitq *q)
{
    (void)q;
}

void waitq_wake_all(struct waitq *q)
{
    (void)q;
}

void swapping_wait(struct vm *vm, struct vcpu *vcpu, gfn_t gfn)
{
    (void)vm;
    assert_null(vcpu);
    assert_true(gfn.n < RINGENV_PAGES);
    assert_int_equal(ringenv.pins, 0);
    host.waits++;
}

void swapping_failed(struct vm *vm, gfn_t gfn)
{
    (void)vm, (void)gfn;
    abort();
}

/* Others are in line until they were waited for. */
uint32_t memwait_access_thread(const struct memwait_hope *hope)
{
    return host.in_line && hope->turn == 0 ? P2M_LINE : 0;
}

bool memwait_nap(struct memwait_hope *hope)
{
    assert_int_equal(ringenv.pins, 0);
    host.waits++;
    hope->turn = 1;
    return !host.hopeless;
}

bool guestconsole_input_pending(const struct guestconsole *c)
{
    (void)c;
    return host.nr_typed != 0;
}

size_t guestconsole_read(struct guestconsole *c, char *data, size_t n)
{
    size_t got = MIN(n, host.nr_typed);

    (void)c;
    memcpy(data, host.typed, got);
    memmove(host.typed, host.typed + got, host.nr_typed - got);
    host.nr_typed -= got;
    return got;
}

void guestconsole_set_input_ready(struct guestconsole *c, void (*fn)(void *arg), void *arg)
{
    (void)c;
    host.input_ready = fn;
    host.input_arg = arg;
}

/* After a while the log has printed what it had. */
bool guestconsole_is_full(const struct guestconsole *c)
{
    (void)c;
    if (host.log_room == 0 || host.nr_printed - host.logged < host.log_room) {
        return false;
    }
    host.logged = host.nr_printed;
    return true;
}

void vuart_print(struct vuart *u, const char *data, size_t n)
{
    (void)u;
    memcpy(host.printed + host.nr_printed, data, n);
    host.nr_printed += n;
}

void balloon_start(struct balloon *b, struct p2m *p, enum balloon_driver driver, uint64_t now_ns)
{
    (void)b, (void)p, (void)now_ns;
    assert_int_equal(driver, BALLOON_VIRTIO);
    host.starts++;
}

void balloon_stop(struct balloon *b, struct p2m *p)
{
    (void)b, (void)p;
    host.stops++;
}

bool balloon_heard(struct balloon *b, struct p2m *p, uint64_t now_ns)
{
    (void)b, (void)p, (void)now_ns;
    host.heards++;
    return true;
}

uint64_t balloon_poll(struct balloon *b, struct p2m *p, bool asked, uint64_t now_ns)
{
    (void)b, (void)p, (void)now_ns;
    assert_true(asked);
    return host.told;
}

void balloon_give_begin(struct balloon *b, struct p2m *p, struct balloon_giving *g)
{
    (void)b, (void)p, (void)g;
}

/* Nothing is pinned: a pin would hold on to the large page around it. */
enum hv_err balloon_give(struct balloon_giving *g, gfn_t gfn, unsigned order)
{
    (void)g;
    assert_int_equal(order, ORDER_4K);
    assert_int_equal(ringenv.pins, 0);
    host.given[host.nr_given++] = gfn.n;
    if (host.hold_on_give) {
        m->held = true;
        ringenv.fail_one = 1;
        ringenv.fail_with = HV_EAGAIN;
    }
    return host.give_err;
}

void balloon_give_end(struct balloon_giving *g)
{
    (void)g;
}

enum hv_err balloon_take(struct balloon *b, struct p2m *p, gfn_t gfn, unsigned order,
                         uint64_t now_ns)
{
    (void)b, (void)p, (void)order, (void)now_ns;
    assert_int_equal(ringenv.pins, 0);
    host.taken[host.nr_taken++] = gfn.n;
    return HV_EEXIST;
}

void balloon_set_guest(struct balloon *b, const struct balloon_guest *g)
{
    (void)b;
    host.guest = *g;
}

void balloon_note_reported(struct balloon *b, uint64_t pages)
{
    (void)b;
    host.nr_reported += pages;
}

void ballooning_set_limits(struct vm *vm)
{
    (void)vm;
}

void ballooning_report_rules(struct ballooning_reports *out)
{
    *out = host.rules;
}

void p2m_counters(struct p2m *p, struct p2m_counters *out)
{
    (void)p;
    *out = (struct p2m_counters){.ballooned = host.size};
}

void p2m_balloon_begin(struct p2m_balloon_batch *b, struct p2m *p)
{
    (void)b, (void)p;
}

void p2m_balloon_end(struct p2m_balloon_batch *b)
{
    (void)b;
}

enum hv_err p2m_discard(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order, uint64_t *nr)
{
    (void)b;
    assert_int_equal(ringenv.pins, 0);
    if (gfn.n >= 1u << 20) {
        return HV_ENOENT;
    }
    host.discarded[host.nr_discarded++ % 64] = gfn.n | (uint64_t)order << 32;
    *nr += BIT(order);
    return HV_OK;
}

void env_relax(void)
{
}

bool env_site_may_allocate(const char *site)
{
    (void)site;
    return true;
}

enum hv_err buddy_alloc(unsigned order, enum frame_use use, uint32_t owner, uint32_t flags,
                        mfn_t *out)
{
    (void)flags;
    assert_int_equal(order, 0);
    assert_int_equal(use, FRAME_VM);
    assert_int_equal(owner, 1);
    if (host.frames_left == 0) {
        return HV_ENOMEM;
    }
    host.frames_left--;
    for (unsigned i = 0; i < FRAMES; i++) {
        if (host.frame[i] == NULL) {
            host.frame[i] = malloc(4096);
            memset(host.frame[i], 0xa5, 4096);
            host.nr_frames++;
            *out = MFN(i);
            return HV_OK;
        }
    }
    abort();
}

void buddy_free(mfn_t mfn, unsigned order)
{
    assert_int_equal(order, 0);
    free(host.frame[mfn.n]);
    host.frame[mfn.n] = NULL;
    host.nr_frames--;
    host.frames_left++;
}

void *env_frame_ptr(mfn_t mfn)
{
    return host.frame[mfn.n];
}

mfn_t env_ptr_frame(const void *ptr)
{
    for (unsigned i = 0; i < FRAMES; i++) {
        if (host.frame[i] == ptr) {
            return MFN(i);
        }
    }
    abort();
}

void env_clear_page(void *page)
{
    memset(page, 0, 4096);
}

enum hv_err image_find(const struct vm *vm, const char *what, const char *name,
                       struct loader_image *out)
{
    (void)vm, (void)what;
    *out = (struct loader_image){.data = image, .size = sizeof image};
    return strcmp(name, "image") == 0 ? HV_OK : HV_ENOENT;
}

enum hv_err swaparea_find(const char *name, struct swaparea *out)
{
    *out = (struct swaparea){.disk = &disk, .first = 24, .nr_pages = DISK_PAGES - 3};
    return strcmp(name, "nvme0p1") == 0 ? HV_OK : HV_ENOENT;
}

enum hv_err blk_io(struct blk_disk *d, enum blk_op op, uint64_t sector, const mfn_t *frames,
                   uint32_t nr_frames)
{
    assert_ptr_equal(d, &disk);
    assert_true(nr_frames <= BLK_RUN_MAX);
    if (host.disk_fails) {
        return HV_ENOENT;
    }
    host.flushes += op == BLK_FLUSH;
    host.reads += op == BLK_READ;
    host.writes += op == BLK_WRITE;
    for (uint32_t i = 0; i < nr_frames; i++) {
        uint8_t *place = host.disk[sector / 8 + i];

        assert_true(sector % 8 == 0 && sector >= 24 && sector / 8 + i < DISK_PAGES);
        memcpy(op == BLK_READ ? host.frame[frames[i].n] : place,
               op == BLK_READ ? place : host.frame[frames[i].n], 4096);
    }
    return HV_OK;
}

/* ---- A driver ---- */

uint64_t mmio_sized(uint32_t reg, unsigned size, bool write, uint64_t value)
{
    assert_int_equal(bus_mmio(fake.vm.bus, v, GPA(VMMIO_BASE + reg), size, write, &value), HV_OK);
    return size == 8 ? value : value & (BIT(8 * size) - 1);
}

uint32_t in(uint32_t reg)
{
    return (uint32_t)mmio_sized(reg, 4, false, 0);
}

void out(uint32_t reg, uint32_t value)
{
    (void)mmio_sized(reg, 4, true, value);
}

struct vmmio *m;

void turn(void)
{
    while (vmmio_step(m)) {}
    assert_int_equal(ringenv.pins, 0);
}

uint16_t get16(uint64_t gpa)
{
    uint16_t x;

    assert_true(ringenv_load(gpa, &x, 2));
    return x;
}

void put16(uint64_t gpa, uint16_t x)
{
    assert_true(ringenv_store(gpa, &x, 2));
}

void describe(unsigned q)
{
    static const uint8_t none[RING_STEP];

    ringenv_store(AVAIL + q * RING_STEP, none, RING_STEP);
    ringenv_store(USED + q * RING_STEP, none, RING_STEP);
    out(0x30, q);
    assert_int_equal(in(0x34), 128);
    out(0x38, RING_SIZE);
    out(0x80, DESC + q * RING_STEP);
    out(0x84, 0);
    out(0x90, AVAIL + q * RING_STEP);
    out(0x94, 0);
    out(0xa0, USED + q * RING_STEP);
    out(0xa4, 0);
}

/* Reset, negotiate, make the queues of the mask ready, start. */
void drive(uint64_t features, uint32_t queues)
{
    features |= BIT(32) | BIT(28);
    out(0x70, 0);
    assert_int_equal(in(0x70), 0);
    out(0x70, 1);
    out(0x70, 3);
    for (unsigned i = 0; i < 2; i++) {
        out(0x24, 1 - i);
        out(0x20, (uint32_t)(features >> (32 * (1 - i))));
    }
    out(0x70, 11);
    assert_int_equal(in(0x70), 11);
    for (unsigned q = 0; q < 5; q++) {
        if (queues >> q & 1) {
            describe(q);
            out(0x44, 1);
            assert_int_equal(in(0x44), 1);
        }
    }
    out(0x70, 15);
    turn();
}

void desc(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags, unsigned next)
{
    struct {
        uint64_t gpa;
        uint32_t len;
        uint16_t flags, next;
    } d = {gpa, len, (uint16_t)flags, (uint16_t)next};

    assert_true(ringenv_store(DESC + q * RING_STEP + 16 * i, &d, 16));
}

uint16_t used_index(unsigned q)
{
    return get16(USED + q * RING_STEP + 2);
}

uint32_t used_len(unsigned q)
{
    uint32_t len;

    ringenv_load(USED + q * RING_STEP + 4 + 8 * ((used_index(q) - 1u) % RING_SIZE) + 4, &len, 4);
    return len;
}

void offer(unsigned q, uint16_t head)
{
    uint16_t index = get16(AVAIL + q * RING_STEP + 2);

    put16(AVAIL + q * RING_STEP + 4 + 2 * (index % RING_SIZE), head);
    put16(AVAIL + q * RING_STEP + 2, (uint16_t)(index + 1));
    out(0x50, q);
    turn();
}

int setup(void **state)
{
    (void)state;
    memset(&host, 0, sizeof host);
    host.frames_left = FRAMES;
    memset(&disk, 0, sizeof disk);
    fakevm_reset(1);
    random_set_seed(3);
    ringenv_start();
    return bus_create(&fake.vm, &fake.vm.bus);
}

int teardown(void **state)
{
    (void)state;
    ringenv_stop();
    bus_destroy(fake.vm.bus);
    assert_int_equal(host.nr_frames, 0);
    return 0;
}

struct vrandom *make_rng(void)
{
    struct vrandom *d;

    fake.vm.config.rng = SWITCH_ON;
    assert_int_equal(vrandom_create(&fake.vm, &d), HV_OK);
    m = vrandom_transport(d);
    return d;
}

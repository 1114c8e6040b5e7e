/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's UART over a console in arrays: detection, output, input, interrupts, loop-back. */
#include "kernel/devices/vuart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/guestconsole.h"
#include "tests/host/fakevm.h"

/* --- the console and the interrupt line --- */

struct guestconsole {
    char out[4096], in[64];
    size_t out_len, in_len;
    void (*ready)(void *arg);
    void *arg;
};

static struct guestconsole console;
static bool line;
static unsigned edges;

void guestconsole_output(struct guestconsole *c, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        c->out[c->out_len++ % sizeof c->out] = data[i];
    }
}

bool guestconsole_input_pending(const struct guestconsole *c)
{
    return c->in_len > 0;
}

size_t guestconsole_read(struct guestconsole *c, char *data, size_t n)
{
    n = n < c->in_len ? n : c->in_len;
    memcpy(data, c->in, n);
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
    return n;
}

void guestconsole_set_input_ready(struct guestconsole *c, void (*fn)(void *arg), void *arg)
{
    c->ready = fn;
    c->arg = arg;
}

void isa_irq_set(struct vm *vm, unsigned gsi, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    assert_int_equal(gsi, 4);
    edges += level && !line;
    line = level;
}

static bool full;
static unsigned naps;

bool guestconsole_is_full(const struct guestconsole *c)
{
    assert_ptr_equal(c, &console);
    return full;
}

void thread_sleep_ns(uint64_t ns)
{
    assert_true(ns <= 10000000);
    naps++;
}

static void type(const char *text)
{
    size_t n = strlen(text);
    memcpy(console.in + console.in_len, text, n);
    console.in_len += n;
    console.ready(console.arg);
}

/* --- access --- */

static struct vuart *uart;

static void wr(unsigned reg, uint8_t v)
{
    uint64_t value = v;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], (uint16_t)(0x3f8 + reg), 1, true, &value),
                     HV_OK);
}

static uint8_t rd(unsigned reg)
{
    uint64_t value = 0;
    assert_int_equal(
        bus_port(fake.vm.bus, &fake.vcpu[0], (uint16_t)(0x3f8 + reg), 1, false, &value), HV_OK);
    return (uint8_t)value;
}

static int setup(void **state)
{
    (void)state;
    fakevm_reset(1);
    memset(&console, 0, sizeof console);
    line = false;
    edges = 0;
    fake.vm.console = &console;
    return bus_create(&fake.vm, &fake.vm.bus) || vuart_create(&fake.vm, &uart);
}

static int teardown(void **state)
{
    (void)state;
    vuart_destroy(uart);
    assert_null(console.ready);
    bus_destroy(fake.vm.bus);
    return 0;
}

/* What Linux's autoconfig and simple kernels look at. */
static void test_detection(void **state)
{
    (void)state;
    wr(7, 0x5a);
    assert_int_equal(rd(7), 0x5a);
    wr(1, 0);
    assert_int_equal(rd(1) & 0x0f, 0);
    wr(1, 0xff);
    assert_int_equal(rd(1), 0x0f);
    wr(4, 0x1a); /* loop, OUT2, RTS */
    assert_int_equal(rd(6) & 0xf0, 0x90);
    wr(4, 0);
    assert_int_equal(rd(6) & 0xf0, 0xb0);
    wr(2, 1);
    assert_int_equal(rd(2) & 0xc0, 0xc0);
    wr(2, 0);
    assert_int_equal(rd(2) & 0xc0, 0);
    wr(3, 0x83);
    wr(0, 0x01);
    wr(1, 0x02);
    assert_int_equal(rd(0), 1);
    assert_int_equal(rd(1), 2);
    wr(3, 3);
    assert_int_equal(console.out_len, 0);
    assert_int_equal(rd(5), 0x60);
}

static void test_output(void **state)
{
    (void)state;
    for (const char *p = "hello"; *p; p++) {
        assert_true(rd(5) & 0x20);
        wr(0, (uint8_t)*p);
    }
    assert_int_equal(console.out_len, 5);
    assert_memory_equal(console.out, "hello", 5);
    assert_int_equal(edges, 0);
}

static void test_transmit_interrupt(void **state)
{
    (void)state;
    wr(4, 0x08);
    wr(1, 0x02); /* enabling it with an empty transmitter raises it */
    assert_true(line);
    assert_int_equal(rd(2) & 0x0f, 2);
    assert_false(line); /* reading IIR took it back */
    assert_int_equal(rd(2) & 0x0f, 1);
    wr(0, 'x');
    assert_true(line);
    assert_int_equal(edges, 2);
    wr(1, 0);
    assert_false(line);
    wr(1, 2);
    assert_true(line);
    wr(4, 0); /* OUT2 gates it */
    assert_false(line);
}

static void test_input(void **state)
{
    (void)state;
    wr(2, 0x81); /* FIFO, trigger at 8 */
    wr(4, 0x08);
    wr(1, 0x01);
    type("ab");
    assert_true(line);
    assert_int_equal(rd(2) & 0x0f, 0x0c); /* below the trigger: time-out */
    assert_int_equal(rd(5) & 1, 1);
    assert_int_equal(rd(0), 'a');
    assert_true(line);
    assert_int_equal(rd(0), 'b');
    assert_false(line);
    assert_int_equal(rd(5) & 1, 0);
    /* More than the FIFO holds waits in the console, and nothing is lost. */
    type("0123456789abcdefghijklmnop");
    assert_int_equal(rd(2) & 0x0f, 4);
    for (const char *p = "0123456789abcdefghijklmnop"; *p; p++) {
        assert_int_equal(rd(0), *p);
    }
    assert_false(line);
    assert_int_equal(rd(5), 0x60);
    assert_int_equal(rd(0), 0);
}

static void test_loopback(void **state)
{
    (void)state;
    wr(2, 1);
    wr(4, 0x10);
    type("x"); /* waits outside */
    wr(0, 'q');
    assert_int_equal(rd(5) & 1, 1);
    assert_int_equal(rd(0), 'q');
    assert_int_equal(rd(5) & 1, 0);
    for (int i = 0; i < 17; i++) {
        wr(0, (uint8_t)i);
    }
    assert_int_equal(rd(5), 0x63); /* overrun, once */
    assert_int_equal(rd(5), 0x61);
    assert_int_equal(console.out_len, 0);
    wr(2, 3); /* clear */
    wr(4, 0);
    assert_int_equal(rd(0), 'x');
}

static void test_busy_lock(void **state)
{
    (void)state;
    uint64_t value = 0;
    fake.vcpu[0].in_guest = 1;
    /* The lock is the first member: somebody else has it. */
    spin_lock((struct spinlock *)uart);
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], 0x3fd, 1, false, &value), HV_EAGAIN);
    spin_unlock((struct spinlock *)uart);
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], 0x3fd, 1, false, &value), HV_OK);
}

/* The log is behind: the byte comes later, and only off the fast path anybody sleeps. */
static void test_full(void **state)
{
    (void)state;
    uint64_t value = 'z';

    full = true;
    fake.vcpu[0].in_guest = 1;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], 0x3f8, 1, true, &value), HV_EAGAIN);
    assert_int_equal(naps, 0);
    fake.vcpu[0].in_guest = 0;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], 0x3f8, 1, true, &value), HV_EAGAIN);
    assert_int_equal(naps, 1);
    assert_int_equal(console.out_len, 0);
    assert_int_equal(rd(5) & 0x60, 0x60);
    full = false;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], 0x3f8, 1, true, &value), HV_OK);
    assert_int_equal(console.out_len, 1);
}

static void test_garbage(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    for (int i = 0; i < 300000; i++) {
        if (rng_below(&rng, 2)) {
            wr((unsigned)rng_below(&rng, 8), (uint8_t)rng_next(&rng));
        } else {
            rd((unsigned)rng_below(&rng, 8));
        }
        if (console.in_len < 32 && rng_below(&rng, 4) == 0) {
            type("z");
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_detection), TEST(test_output),   TEST(test_transmit_interrupt),
        TEST(test_input),     TEST(test_loopback), TEST(test_busy_lock),
        TEST(test_full),      TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

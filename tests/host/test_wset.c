/* SPDX-License-Identifier: BSD-2-Clause */
/* The language of working sets, and its engine on memory and a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guests/wset/wset.h"

#define PAGES 4096u
#define TOUCH_NS 1000u /* what touching a page takes here */

static struct {
    uint64_t *memory;
    uint64_t size, most; /* pages; the largest it has been */
    uint64_t clock_ns;
    uint64_t hits[PAGES];
    uint64_t reports, last_report_ns;
    struct wset_report last;
    uint64_t spoil; /* at so many touches a page is changed behind the guest's back; 0: never */
    uint64_t nr;
} w;

static uint64_t now_ns(void)
{
    return w.clock_ns;
}

static void sleep_until(uint64_t ns)
{
    assert_true(ns > w.clock_ns);
    w.clock_ns = ns;
}

static void between(void)
{
}

static bool resize(uint64_t pages)
{
    if (pages > PAGES) {
        return false;
    }
    if (pages < w.size) {
        memset(w.memory + pages * 512, 0xa5, (w.size - pages) * 4096);
    }
    w.size = pages;
    w.most = pages > w.most ? pages : w.most;
    return true;
}

static volatile uint64_t *page(uint64_t index)
{
    assert_true(index < w.size);
    w.clock_ns += TOUCH_NS;
    w.hits[index]++;
    if (++w.nr == w.spoil) {
        w.memory[index * 512] ^= 1ull << 40;
    }
    return w.memory + index * 512;
}

static void report(const struct wset_report *r)
{
    w.reports++;
    w.last = *r;
}

static bool run(const char *text)
{
    static struct wset_script script;
    const char *where, *why;
    const struct wset_env env = {.now_ns = now_ns,
                                 .sleep_until = sleep_until,
                                 .between = between,
                                 .resize = resize,
                                 .page = page,
                                 .report = report,
                                 .seed = 7};

    assert_true(wset_parse(text, &script, &where, &why));
    return wset_run(&script, &env);
}

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    w.memory = malloc(PAGES * 4096);
    memset(w.memory, 0xa5, PAGES * 4096);
    return w.memory == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    free(w.memory);
    return 0;
}

static void good_scripts(void **state)
{
    struct wset_script s;
    const char *where, *why;

    (void)state;
    assert_true(
        wset_parse("touch 100M random 5s; shrink_20M;sleep 200ms ; loop", &s, &where, &why));
    assert_int_equal(s.nr, 4);
    assert_int_equal(s.steps[0].verb, WSET_TOUCH);
    assert_int_equal(s.steps[0].number, 25600);
    assert_int_equal(s.steps[0].choice, WSET_RANDOM);
    assert_int_equal(s.steps[0].time_ns, 5000000000);
    assert_int_equal(s.steps[1].number, 5120);
    assert_int_equal(s.steps[2].time_ns, 200000000);
    assert_int_equal(s.steps[3].number, 0);
    assert_true(
        wset_parse("touch_64K;touch_1G_hot_1m;touch 3 2;fill unique;mode read;rate 500;loop 3;", &s,
                   &where, &why));
    assert_int_equal(s.nr, 7);
    assert_int_equal(s.steps[0].number, 16);
    assert_int_equal(s.steps[0].choice, WSET_LINEAR);
    assert_int_equal(s.steps[1].time_ns, 60000000000);
    assert_int_equal(s.steps[2].number, 768);
    assert_int_equal(s.steps[2].time_ns, 2000000000);
    assert_int_equal(s.steps[6].number, 3);
}

static void bad_scripts(void **state)
{
    static const struct {
        const char *text, *where, *why;
    } bad[] = {
        {"", "", "a step"},
        {"  ", "", "a step"},
        {"tuch 1M", "tuch 1M", "touch, shrink"},
        {"touch", "", "a size"},
        {"touch 1X 5s", "1X 5s", "a size"},
        {"touch 1M randomly 5s", "randomly 5s", "linear, random, hot"},
        {"touch 1M 5h", "5h", "or a time"},
        {"touch 1M 5s 6s", "6s", "a semicolon"},
        {"sleep 5", NULL, NULL},
        {"sleep", "", "a time"},
        {"fill noise", "noise", "light, unique"},
        {"mode rw", "rw", "write, read"},
        {"rate fast", "fast", "pages a second"},
        {"loop forever", "forever", "how often"},
        {"touch 99999999999999999999M", "99999999999999999999M", "a size"},
        {"touch 18446744073709551615G", "18446744073709551615G", "a size"},
    };
    struct wset_script s;
    const char *where, *why;
    char many[512] = "";

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (bad[i].where == NULL) {
            assert_true(wset_parse(bad[i].text, &s, &where, &why));
            continue;
        }
        assert_false(wset_parse(bad[i].text, &s, &where, &why));
        assert_string_equal(where, bad[i].where);
        assert_non_null(strstr(why, bad[i].why));
    }
    for (int i = 0; i < 33; i++) {
        strcat(many, "rate 1;");
    }
    assert_false(wset_parse(many, &s, &where, &why));
    assert_non_null(strstr(why, "32 steps"));
}

static void patterns(void **state)
{
    (void)state;
    assert_true(run("touch 4M linear 20ms"));
    assert_int_equal(w.last.size, 1024);
    assert_int_equal(w.last.bad, 0);
    for (unsigned i = 0; i < 1024; i++) { /* filled once, touched 19 or 20 times */
        assert_in_range(w.hits[i], 19, 22);
    }
    memset(w.hits, 0, sizeof(w.hits));
    assert_true(run("touch 4M hot 1s"));
    uint64_t first = 0, all = 0;

    for (unsigned i = 0; i < 1024; i++) {
        first += i < 102 ? w.hits[i] : 0;
        all += w.hits[i];
    }
    assert_in_range(first * 100 / all, 88, 93);
    memset(w.hits, 0, sizeof(w.hits));
    assert_true(run("touch 1M random 1s"));
    for (unsigned i = 0; i < 256; i++) {
        assert_in_range(w.hits[i], 3906 - 400, 3906 + 400);
    }
}

static void rates_and_sizes(void **state)
{
    (void)state;
    assert_true(run("rate 1000; touch 1M random 3s; shrink 512K; sleep 1500ms; touch 2M"));
    assert_int_equal(w.last.size, 512);
    /* 256 filled, 3,000 touched at the rate, 384 filled anew. */
    assert_in_range(w.last.touched, 256 + 3000 + 384 - 128, 256 + 3000 + 384 + 128);
    assert_in_range(w.last.time_ns, 4500000000, 4700000000);
    assert_in_range(w.reports, 8, 11);
    assert_int_equal(w.last.bad, 0);
    assert_false(run("touch 17M"));
}

static void contents(void **state)
{
    (void)state;
    assert_true(
        run("fill unique; touch 1M; fill half; touch 2M; fill same; touch 3M; fill zero; touch "
            "4M; fill light; touch 5M random 100ms; mode read; touch 5M linear 100ms; loop 2"));
    assert_int_equal(w.last.bad, 0);
    assert_int_equal(w.most, 1280);
    for (unsigned i = 768 * 512; i < 1024 * 512; i++) {
        assert_int_equal(w.memory[i], 0);
    }
}

static void notices_changes(void **state)
{
    (void)state;
    w.spoil = 5000;
    assert_true(run("fill unique; touch 4M linear 10ms"));
    assert_true(w.last.bad > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(good_scripts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_scripts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(patterns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rates_and_sizes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(contents, set_up, tear_down),
        cmocka_unit_test_setup_teardown(notices_changes, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

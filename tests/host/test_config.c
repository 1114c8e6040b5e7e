/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser of ballast.conf: what is accepted, every class of error with its text, and garbage.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/lib/rng.h"
#include "kernel/vm/config.h"
#include "kernel/vm/config_text.h"

static struct config config;
static char messages[16][512];
static unsigned nr_messages;

static void collect(void *arg, const char *message)
{
    assert_ptr_equal(arg, &config);
    if (nr_messages < ARRAY_SIZE(messages)) {
        snprintf(messages[nr_messages], sizeof(messages[0]), "%s", message);
    }
    nr_messages++;
}

static bool module_exists(const char *name)
{
    return strcmp(name, "vmlinuz") == 0 || strcmp(name, "initrd.img") == 0;
}

/* The parser sees an exact-size heap copy, so that the sanitizer notices every byte too far. */
static enum hv_err parse_bytes(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);

    memcpy(copy, text, len);
    nr_messages = 0;
    memset(&config, 0x5a, sizeof(config));
    enum hv_err err =
        config_parse("ballast.conf", copy, len, module_exists, collect, &config, &config);

    free(copy);
    assert_int_equal(err, nr_messages ? HV_EINVAL : HV_OK);
    return err;
}

static enum hv_err parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

#define NINE_MODULES \
    "vmlinuz,vmlinuz,vmlinuz,vmlinuz,vmlinuz,vmlinuz,vmlinuz,vmlinuz,initrd.img a b"
#define SIXTEEN "0123456789abcdef"
#define LONG_ARGS \
    SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN "0123456789abcde" /* 127 */
#define VM_A "[a]\nmemory = 64M\nkernel = vmlinuz\n"

static void test_options(void **state)
{
    (void)state;
    assert_int_equal(parse("Mem.ShareScanTime = 10 # fast\nMem.ShareForceSalting=\"0\"\n" VM_A
                           "salt = web farm\n"),
                     HV_OK);
    assert_true(config.host.option_given[OPT_SHARE_SCAN_TIME]);
    assert_int_equal(config.host.option[OPT_SHARE_SCAN_TIME], 10);
    assert_true(config.host.option_given[OPT_SHARE_FORCE_SALTING]);
    assert_int_equal(config.host.option[OPT_SHARE_FORCE_SALTING], 0);
    assert_false(config.host.option_given[OPT_SHARE_RATE_MAX]);
    assert_string_equal(config.vms[0].salt, "web farm");
    /* Parsing changes no option. */
    assert_int_equal(options_get(OPT_SHARE_SCAN_TIME), 60);
    assert_int_equal(options_set(OPT_SHARE_SCAN_TIME, 601), HV_ERANGE);
    assert_int_equal(options_set(OPT_SHARE_SCAN_TIME, 0), HV_ERANGE);
    assert_int_equal(options_get(OPT_SHARE_SCAN_TIME), 60);
    assert_int_equal(options_set(OPT_SHARE_SCAN_TIME, 600), HV_OK);
    assert_int_equal(options_get(OPT_SHARE_SCAN_TIME), 600);
    for (unsigned i = 0; i < NR_OPTIONS; i++) {
        const struct option *o = &options_table[i];

        assert_int_equal(options_find(o->name), i);
        assert_true(o->low <= o->standard && o->standard <= o->high);
    }
    assert_int_equal(options_find("Mem.Share"), NR_OPTIONS);
}

static void test_accepts(void **state)
{
    (void)state;
    assert_int_equal(parse("# host\nseed = 0x2a\nloglevel = debug\n\n"
                           "[linux1]\n"
                           "memory = 256M   # as much as that\n"
                           "vcpus=4\n"
                           "kernel = vmlinuz ; comment\n"
                           "initrd = \"initrd.img\" # comment\n"
                           "cmdline = \"console=ttyS0 a=\\\"b # c\\\" \\\\ ;d\"\n"
                           "identity = none\nlargepages = off\nmmu = hardware\noutput = log\n"
                           "disk = initrd.img\ndisk_readonly = on\nconsole = virtio\n"
                           "balloon = virtio\nrng = on\n"
                           "on_reset = restart\ncpu_shares = high\nstart = manual\n"
                           "[B-2_x.y]\r\n"
                           "memory = 32\r\ndisk = disk:nvme0p2\r\n"
                           "kernel = \\\r\n  vmlinuz\r\n"
                           "cmdline = root=/dev/ram0 x#y\r\n"
                           "cpu_shares = 700"),
                     HV_OK);
    assert_true(config.host.have_seed && config.host.seed == 42);
    assert_int_equal(config.host.log_level, 3);
    assert_int_equal(config.nr_vms, 2);
    const struct vm_config *a = &config.vms[0];
    const struct vm_config *b = &config.vms[1];

    assert_string_equal(a->name, "linux1");
    assert_int_equal(a->line, 5);
    assert_true(a->memory_bytes == MIB(256));
    assert_int_equal(a->vcpus, 4);
    assert_string_equal(a->kernel, "vmlinuz");
    assert_string_equal(a->initrd, "initrd.img");
    assert_string_equal(a->cmdline, "console=ttyS0 a=\"b # c\" \\ ;d");
    assert_int_equal(a->identity, IDENTITY_NONE);
    assert_int_equal(a->largepages, LARGEPAGES_OFF);
    assert_int_equal(a->mmu, MMU_HARDWARE);
    assert_int_equal(a->output, OUTPUT_LOG);
    assert_int_equal(a->on_reset, ON_RESET_RESTART);
    assert_string_equal(a->disk, "initrd.img");
    assert_int_equal(a->disk_readonly, SWITCH_ON);
    assert_int_equal(a->console, CONSOLE_VIRTIO);
    assert_int_equal(a->balloon, BALLOON_KEY_VIRTIO);
    assert_int_equal(a->rng, SWITCH_ON);
    assert_int_equal(a->cpu_shares, 2000);
    assert_false(a->autostart);
    assert_false(a->bad);

    assert_string_equal(b->name, "B-2_x.y");
    assert_true(b->memory_bytes == MIB(32));
    assert_string_equal(b->kernel, "vmlinuz");
    assert_string_equal(b->cmdline, "root=/dev/ram0 x#y");
    assert_string_equal(b->disk, "disk:nvme0p2");
    assert_int_equal(b->disk_readonly, SWITCH_OFF);
    assert_int_equal(b->console, CONSOLE_SERIAL);
    assert_int_equal(b->balloon, BALLOON_KEY_VMWARE);
    assert_int_equal(b->rng, SWITCH_OFF);
    assert_int_equal(b->vcpus, 1);
    assert_int_equal(b->cpu_shares, 700);
    assert_string_equal(b->initrd, "");
    assert_int_equal(b->identity, IDENTITY_VMWARE);
    assert_int_equal(b->output, OUTPUT_RING);
    assert_true(b->autostart);
}

/* What is wrong was not given. */
static void test_not_given(void **state)
{
    (void)state;
    assert_int_equal(parse("seed = -1\n" VM_A "maxmemctl = much\n"), HV_EINVAL);
    assert_false(config.host.have_seed);
    assert_false(config.vms[0].have_maxmemctl);
    assert_int_equal(parse("seed = 1\n" VM_A "maxmemctl = 1M\n"), HV_OK);
    assert_true(config.host.have_seed && config.vms[0].have_maxmemctl);
}

/* The same list is read when the VM starts. */
static void test_items(void **state)
{
    static const char *const want[][2] = {
        {"initrd.img", "one  two"}, {"vmlinuz", ""}, {"initrd.img", ""}};
    char *next = config.vms[0].modules, *args;

    (void)state;
    assert_int_equal(
        parse("swap = ram:4M\n" VM_A "modules = initrd.img one  two, ,vmlinuz ,, initrd.img\n"),
        HV_OK);
    assert_string_equal(config.host.swap, "ram:4M");
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        assert_string_equal(config_next_item(&next, &args), want[i][0]);
        assert_string_equal(args, want[i][1]);
    }
    assert_null(config_next_item(&next, &args));
    assert_null(next);
    assert_int_equal(parse("swap = disk:nvme0p2\n" VM_A "modules = vmlinuz " LONG_ARGS), HV_OK);
    assert_string_equal(config.host.swap, "disk:nvme0p2");
    next = config.vms[0].modules;
    assert_string_equal(config_next_item(&next, &args), "vmlinuz");
    assert_int_equal(strlen(args), CONFIG_MODULE_ARGS_MAX - 1);
}

/* What the shell takes for `shares`, too. */
static void test_shares(void **state)
{
    uint64_t shares;

    (void)state;
    assert_int_equal(config_parse_shares("normal", MIB(64), &shares), HV_OK);
    assert_int_equal(shares, 640);
    assert_int_equal(config_parse_shares("low", MIB(64), &shares), HV_OK);
    assert_int_equal(shares, 320);
    assert_int_equal(config_parse_shares("high", MIB(64), &shares), HV_OK);
    assert_int_equal(shares, 1280);
    assert_int_equal(config_parse_shares("1000000000", MIB(64), &shares), HV_OK);
    assert_int_equal(shares, 1000000000);
    assert_int_equal(config_parse_shares("1000000001", MIB(64), &shares), HV_ERANGE);
    assert_int_equal(config_parse_shares("much", MIB(64), &shares), HV_EINVAL);
}

/* What is never swapped is guaranteed as a whole, whatever its min. */
static void test_guaranteed(void **state)
{
    (void)state;
    assert_int_equal(parse("[a]\nmemory = 8M\nkernel = vmlinuz\nmin = 2M\nmax = 4M\n"
                           "[b]\nmemory = 8M\nkernel = vmlinuz\nmin = 2M\nmax = 4M\nswap = off\n"),
                     HV_OK);
    assert_true(config_guaranteed(&config.vms[0], MIB(2), MIB(4)) == MIB(2));
    assert_true(config_guaranteed(&config.vms[1], MIB(2), MIB(4)) == MIB(4));
    assert_true(config_guaranteed(&config.vms[1], 0, MIB(8)) == MIB(8));
}

static void test_empty(void **state)
{
    (void)state;
    assert_int_equal(parse(""), HV_OK);
    assert_int_equal(parse("\n\n  # nothing\n;\n\xc3"), HV_EINVAL);
    assert_int_equal(parse("\xef\xbb\xbf# mark\r\n"), HV_OK);
    assert_int_equal(config.nr_vms, 0);
    assert_int_equal(config.host.log_level, 2);
}

struct error_case {
    const char *text;
    const char *message; /* the whole text, or its beginning if it ends in "..." */
    unsigned nr_vms;
    unsigned nr_bad;
};

#define KEYS                                                                                   \
    "memory, min, max, shares, maxmemctl, vcpus, kernel, initrd, modules, cmdline, identity, " \
    "largepages, swap, "                                                                       \
    "mmu, "                                                                                    \
    "output, "                                                                                 \
    "on_reset, "                                                                               \
    "disk, disk_readonly, console, balloon, rng, "                                             \
    "salt, cpu_shares, start"
#define SIZES "1M to 1024G, a multiple of 4K; suffixes K, M, G, T (without: M)"

static const struct error_case cases[] = {
    {VM_A "colour = red\n", "ballast.conf:4: colour: unknown key; accepted: " KEYS, 1, 1},
    {"Mem.ShareScanTime = 601\n" VM_A,
     "ballast.conf:1: Mem.ShareScanTime: 601 is too big; accepted: a number from 1 to 600", 1, 0},
    {"Mem.ShareScanTime = 0\n" VM_A,
     "ballast.conf:1: Mem.ShareScanTime: 0 is too small; accepted: a number from 1 to 600", 1, 0},
    {"Mem.ShareScanTime = soon\n" VM_A,
     "ballast.conf:1: Mem.ShareScanTime: 'soon' is not a number; accepted: a number from 1 to 600",
     1, 0},
    {"Mem.ShareRateMax = 1\nMem.ShareRateMax = 2\n" VM_A,
     "ballast.conf:2: Mem.ShareRateMax: already set in line 1; accepted: each key once", 1, 0},
    {"Memory = 1\n" VM_A,
     "ballast.conf:1: Memory: unknown host option; accepted: seed, loglevel, overcommit, "
     "swap.encrypt, swap, telemetry, or an option "
     "(`set` lists them)",
     1, 0},
    {"[a]\nmemory = 12Q\nkernel = vmlinuz",
     "ballast.conf:2: memory: '12Q' is not a size; accepted: " SIZES, 1, 1},
    {"[a]\nmemory = 64K\nkernel = vmlinuz",
     "ballast.conf:2: memory: 64K is too small; accepted: " SIZES, 1, 1},
    {"[a]\nmemory = 2048G\nkernel = vmlinuz",
     "ballast.conf:2: memory: 2048G is too big; accepted: " SIZES, 1, 1},
    {"[a]\nmemory = 99999999999999999999\nkernel = vmlinuz",
     "ballast.conf:2: memory: 99999999999999999999 is too big; accepted: " SIZES, 1, 1},
    {"[a]\nmemory = 1025K\nkernel = vmlinuz",
     "ballast.conf:2: memory: 1025K is not a multiple of 4K; accepted: " SIZES, 1, 1},
    {"[a]\nkernel = vmlinuz\n", "ballast.conf:1: memory: missing in [a]; accepted: " SIZES, 1, 1},
    {"[a]\nmemory = 1M\n",
     "ballast.conf:1: kernel: missing in [a]; accepted: the name of a boot module", 1, 1},
    {"[a]\nmemory = 1M\nkernel = nosuch\n",
     "ballast.conf:3: kernel: no module 'nosuch' was loaded; accepted: the name of a boot module",
     1, 1},
    {"[a]\nmemory = 1M\nkernel =\n",
     "ballast.conf:3: kernel: no value; accepted: the name of a boot module", 1, 1},
    {VM_A "initrd = gone.img",
     "ballast.conf:4: initrd: no module 'gone.img' was loaded; accepted: the name of a boot module",
     1, 1},
    {VM_A "vcpus = 0", "ballast.conf:4: vcpus: 0 is too small; accepted: a number from 1 to 16", 1,
     1},
    {VM_A "vcpus = 17", "ballast.conf:4: vcpus: 17 is too big; accepted: a number from 1 to 16", 1,
     1},
    {VM_A "vcpus = two",
     "ballast.conf:4: vcpus: 'two' is not a number; accepted: a number from 1 to 16", 1, 1},
    {VM_A "identity = xen", "ballast.conf:4: identity: 'xen' is unknown; accepted: vmware, none", 1,
     1},
    {VM_A "disk = gone.img",
     "ballast.conf:4: disk: no module 'gone.img' was loaded; accepted: the name of a boot module, "
     "disk:NAME",
     1, 1},
    {VM_A "disk = disk:", "ballast.conf:4: disk: no value; ...", 1, 1},
    {VM_A "modules = initrd.img one two, ,vmlinuz , gone.bin three",
     "ballast.conf:4: modules: no module 'gone.bin' was loaded; accepted: names of at most 8 boot "
     "modules, each with its arguments, between commas",
     1, 1},
    {VM_A "modules = " NINE_MODULES, "ballast.conf:4: modules: 9 modules; ...", 1, 1},
    {VM_A "modules = vmlinuz " LONG_ARGS "x",
     "ballast.conf:4: modules: arguments of 'vmlinuz' longer than 127 bytes; ...", 1, 1},
    {"swap = of\n" VM_A,
     "ballast.conf:1: swap: 'of' is unknown; accepted: off, auto, disk:NAME, ram:SIZE (from 4M)", 1,
     0},
    {"swap = disk:\n" VM_A, "ballast.conf:1: swap: 'disk:' is unknown; ...", 1, 0},
    {"swap = ram:4095K\n" VM_A, "ballast.conf:1: swap: 'ram:4095K' is unknown; ...", 1, 0},
    {"swap = ram:lots\n" VM_A, "ballast.conf:1: swap: 'ram:lots' is unknown; ...", 1, 0},
    {"swap.encrypt = yes\n" VM_A,
     "ballast.conf:1: swap.encrypt: 'yes' is unknown; accepted: on, off", 1, 0},
    {VM_A "swap = disk:sda", "ballast.conf:4: swap: 'disk:sda' is unknown; accepted: auto, off", 1,
     1},
    {VM_A "mmu = shadow",
     "ballast.conf:4: mmu: 'shadow' is unknown; accepted: auto, hardware, software", 1, 1},
    {VM_A "disk_readonly = yes",
     "ballast.conf:4: disk_readonly: 'yes' is unknown; accepted: off, on", 1, 1},
    {VM_A "console = hvc0", "ballast.conf:4: console: 'hvc0' is unknown; accepted: serial, virtio",
     1, 1},
    {VM_A "balloon = xen",
     "ballast.conf:4: balloon: 'xen' is unknown; accepted: vmware, virtio, none", 1, 1},
    {VM_A "rng = 1", "ballast.conf:4: rng: '1' is unknown; accepted: off, on", 1, 1},
    {VM_A "start = yes", "ballast.conf:4: start: 'yes' is unknown; accepted: auto, manual", 1, 1},
    {VM_A "cpu_shares = 0",
     "ballast.conf:4: cpu_shares: 0 is too small; accepted: low (500), normal (1000), high (2000), "
     "a number from 1 to 100000",
     1, 1},
    {VM_A "vcpus = 1\nvcpus = 2",
     "ballast.conf:5: vcpus: already set in line 4; accepted: each key once", 1, 1},
    {VM_A VM_A,
     "ballast.conf:4: section: line 1 names a VM [a] too; this one is left out; accepted: a name "
     "of "
     "its own for each VM",
     1, 0},
    {"[]\n" VM_A,
     "ballast.conf:1: section: '' is not a name for a VM; accepted: 1 to 31 letters, digits, and "
     "behind the first . _ -",
     1, 0},
    {"[a b]\n" VM_A, "ballast.conf:1: section: 'a b' is not a name for a VM; ...", 1, 0},
    {"[a\n" VM_A, "ballast.conf:1: section: no closing bracket; accepted: [name]", 1, 0},
    {"[x] y\n" VM_A, "ballast.conf:1: section: text behind [x]; accepted: [name] alone on its line",
     1, 0},
    {VM_A "just words # comment",
     "ballast.conf:4: just words: no '=' behind it; accepted: key = value, [name], # comment", 1,
     1},
    {VM_A "cmdline = \"open",
     "ballast.conf:4: cmdline: quotes do not match; accepted: one text in "
     "\"quotes\"",
     1, 1},
    {VM_A "cmdline = \"a\" b", "ballast.conf:4: cmdline: quotes do not match; ...", 1, 1},
    {"loglevel = loud\n",
     "ballast.conf:1: loglevel: 'loud' is unknown; accepted: error, warn, info, debug", 0, 0},
    {"seed = -1\n", "ballast.conf:1: seed: '-1' is not a number; ...", 0, 0},
};

static void check_message(const char *got, const char *want)
{
    size_t n = strlen(want);

    if (n > 3 && strcmp(want + n - 3, "...") == 0) {
        assert_true(strncmp(got, want, n - 3) == 0);
    } else {
        assert_string_equal(got, want);
    }
}

static void test_errors(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned bad = 0;

        assert_int_equal(parse(cases[i].text), HV_EINVAL);
        assert_int_equal(nr_messages, 1);
        check_message(messages[0], cases[i].message);
        assert_int_equal(config.nr_vms, cases[i].nr_vms);
        for (unsigned v = 0; v < config.nr_vms; v++) {
            bad += config.vms[v].bad;
        }
        assert_int_equal(bad, cases[i].nr_bad);
    }
}

/* A bad VM does not spoil its neighbours; each error is reported. */
static void test_neighbours(void **state)
{
    (void)state;
    parse("[one]\nmemory = 1M\nkernel = vmlinuz\n"
          "[two]\nmemory = 0\nkernel = gone\nwhat = 1\n"
          "[one]\nmemory = nonsense\n"
          "[three]\nmemory = 1M\nkernel = vmlinuz\n");
    assert_int_equal(nr_messages, 4);
    assert_int_equal(config.nr_vms, 3);
    assert_false(config.vms[0].bad);
    assert_true(config.vms[1].bad);
    assert_false(config.vms[2].bad);
    assert_string_equal(config.vms[2].name, "three");
    assert_true(config.vms[0].memory_bytes == MIB(1));
}

static void test_nul_and_long(void **state)
{
    static const char nul[] = "[a]\nmemory = 1M\nkernel = vml\0inuz\ncmdline = x\n";
    static char text[20000];

    (void)state;
    parse_bytes(nul, sizeof(nul) - 1);
    assert_int_equal(nr_messages, 2);
    assert_string_equal(messages[0],
                        "ballast.conf:3: line: contains a NUL byte; accepted: plain text");
    assert_true(config.vms[0].bad);

    int n = snprintf(text, sizeof(text), VM_A "cmdline = ");
    memset(text + n, 'x', 2048);
    parse_bytes(text, (size_t)n + 2047);
    assert_int_equal(nr_messages, 0);
    assert_int_equal(strlen(config.vms[0].cmdline), 2047);
    parse_bytes(text, (size_t)n + 2048);
    assert_string_equal(messages[0], "ballast.conf:4: cmdline: longer than 2047 bytes; accepted: "
                                     "text of at most 2047 bytes");
    memset(text + n, 'x', 9000);
    strcpy(text + n + 9000, "\nwhat = 1\n");
    parse(text);
    assert_int_equal(nr_messages, 2);
    assert_string_equal(messages[0],
                        "ballast.conf:4: line: too long; accepted: at most 4095 bytes");
    assert_true(strncmp(messages[1], "ballast.conf:5: what: ", 22) == 0);
}

static void test_too_many(void **state)
{
    size_t size = 300 * 64;
    char *text = malloc(size);
    size_t n = 0;

    (void)state;
    for (unsigned i = 0; i < CONFIG_MAX_VMS + 1; i++) {
        n += (size_t)snprintf(text + n, size - n, "[vm%u]\nmemory = 1M\nkernel = vmlinuz\n", i);
    }
    parse_bytes(text, n);
    free(text);
    assert_int_equal(config.nr_vms, CONFIG_MAX_VMS);
    assert_int_equal(nr_messages, 1);
    assert_string_equal(messages[0],
                        "ballast.conf:769: section: too many VMs; [vm256] is left out; "
                        "accepted: at most 256 VMs");
}

static void check_result(void)
{
    assert_true(config.nr_vms <= CONFIG_MAX_VMS);
    for (unsigned i = 0; i < config.nr_vms; i++) {
        const struct vm_config *vm = &config.vms[i];

        assert_true(memchr(vm->name, 0, sizeof(vm->name)) != NULL);
        assert_true(memchr(vm->cmdline, 0, sizeof(vm->cmdline)) != NULL);
        if (!vm->bad) {
            assert_true(vm->memory_bytes >= MIB(1) && vm->vcpus >= 1 && vm->vcpus <= 16);
            assert_true(module_exists(vm->kernel));
        }
    }
    for (unsigned i = 0; i < nr_messages && i < ARRAY_SIZE(messages); i++) {
        assert_true(strncmp(messages[i], "ballast.conf:", 13) == 0);
        assert_non_null(strstr(messages[i], "; accepted: "));
    }
}

/* Random bytes, and a good file with random damage. */
static void test_garbage(void **state)
{
    static const char alphabet[] = "[]=\"\\#; \t\r\nmemorykernvlivcpus0123456789MGx.-";
    static const char good[] = VM_A "cmdline = \"a \\\" b\" # c\n[b]\nmemory = 1G\\\n\nvcpus = 2\n"
                                    "kernel = vmlinuz\ninitrd = initrd.img\noutput = log\n";
    struct rng r;
    char text[600];

    (void)state;
    rng_seed(&r, 2);
    for (unsigned i = 0; i < 20000; i++) {
        size_t n = rng_below(&r, sizeof(text));

        for (size_t k = 0; k < n; k++) {
            text[k] = i % 2 ? (char)rng_next(&r) : alphabet[rng_below(&r, sizeof(alphabet))];
        }
        parse_bytes(text, n);
        check_result();

        memcpy(text, good, sizeof(good));
        for (unsigned k = 0; k <= rng_below(&r, 4); k++) {
            text[rng_below(&r, sizeof(good) - 1)] = (char)rng_next(&r);
        }
        parse_bytes(text, rng_below(&r, sizeof(good)));
        check_result();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),    cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_empty),      cmocka_unit_test(test_errors),
        cmocka_unit_test(test_neighbours), cmocka_unit_test(test_nul_and_long),
        cmocka_unit_test(test_too_many),   cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_items),      cmocka_unit_test(test_shares),
        cmocka_unit_test(test_not_given),  cmocka_unit_test(test_guaranteed),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}

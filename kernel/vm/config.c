/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parser of ballast.conf. Three steps: bytes become logical lines (config_text.c), lines become a
 * section or a key with its value, and one table per place says what each key accepts and which
 * field it fills. The same table gives the text behind "accepted:".
 */
#include "kernel/vm/config.h"

#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/config_text.h"

#define MESSAGE_MAX 512
#define MEMORY_MIN MIB(1)
#define MEMORY_MAX GIB(1024)
#define VCPUS_MAX 16u
#define SHARES_MIN 1u
#define SHARES_MAX 100000u

enum key_type {
    KEY_SIZE,
    KEY_U64,
    KEY_UNSIGNED,
    KEY_SHARES,
    KEY_MODULE,
    KEY_TEXT,
    KEY_CHOICE,
    KEY_BOOL
};

struct key {
    const char *name;
    enum key_type type;
    size_t offset;        /* of the field in its struct */
    size_t given;         /* of the bool that says that it was set; 0: none */
    uint64_t low, high;   /* numbers: range; texts: high is the field's size */
    const char *choices;  /* KEY_CHOICE, KEY_BOOL: words separated by '|', in the enum's order */
    const char *accepted; /* for messages */
    bool required;
};

static const struct key host_keys[] = {
    {.name = "seed",
     .type = KEY_U64,
     .offset = offsetof(struct host_config, seed),
     .given = offsetof(struct host_config, have_seed),
     .high = UINT64_MAX,
     .accepted = "a number from 0 to 18446744073709551615"},
    {.name = "loglevel",
     .type = KEY_CHOICE,
     .offset = offsetof(struct host_config, log_level),
     .choices = "error|warn|info|debug",
     .accepted = "error, warn, info, debug"},
};

static const struct key vm_keys[] = {
    {.name = "memory",
     .type = KEY_SIZE,
     .offset = offsetof(struct vm_config, memory_bytes),
     .low = MEMORY_MIN,
     .high = MEMORY_MAX,
     .accepted = "1M to 1024G, a multiple of 4K; suffixes K, M, G, T (without: M)",
     .required = true},
    {.name = "vcpus",
     .type = KEY_UNSIGNED,
     .offset = offsetof(struct vm_config, vcpus),
     .low = 1,
     .high = VCPUS_MAX,
     .accepted = "a number from 1 to 16"},
    {.name = "kernel",
     .type = KEY_MODULE,
     .offset = offsetof(struct vm_config, kernel),
     .high = CONFIG_MODULE_MAX,
     .accepted = "the name of a boot module",
     .required = true},
    {.name = "initrd",
     .type = KEY_MODULE,
     .offset = offsetof(struct vm_config, initrd),
     .high = CONFIG_MODULE_MAX,
     .accepted = "the name of a boot module"},
    {.name = "cmdline",
     .type = KEY_TEXT,
     .offset = offsetof(struct vm_config, cmdline),
     .high = CONFIG_CMDLINE_MAX,
     .accepted = "text of at most 2047 bytes"},
    {.name = "identity",
     .type = KEY_CHOICE,
     .offset = offsetof(struct vm_config, identity),
     .choices = "vmware|none",
     .accepted = "vmware, none"},
    {.name = "largepages",
     .type = KEY_CHOICE,
     .offset = offsetof(struct vm_config, largepages),
     .choices = "auto|off",
     .accepted = "auto, off"},
    {.name = "mmu",
     .type = KEY_CHOICE,
     .offset = offsetof(struct vm_config, mmu),
     .choices = "auto|hardware",
     .accepted = "auto, hardware"},
    {.name = "output",
     .type = KEY_CHOICE,
     .offset = offsetof(struct vm_config, output),
     .choices = "ring|log",
     .accepted = "ring, log"},
    {.name = "on_reset",
     .type = KEY_CHOICE,
     .offset = offsetof(struct vm_config, on_reset),
     .choices = "stop|restart",
     .accepted = "stop, restart"},
    {.name = "salt",
     .type = KEY_TEXT,
     .offset = offsetof(struct vm_config, salt),
     .high = CONFIG_SALT_MAX,
     .accepted = "text of at most 63 bytes"},
    {.name = "cpu_shares",
     .type = KEY_SHARES,
     .offset = offsetof(struct vm_config, cpu_shares),
     .low = SHARES_MIN,
     .high = SHARES_MAX,
     .accepted = "low (500), normal (1000), high (2000), a number from 1 to 100000"},
    {.name = "start",
     .type = KEY_BOOL,
     .offset = offsetof(struct vm_config, autostart),
     .choices = "manual|auto",
     .accepted = "auto, manual"},
};

_Static_assert(sizeof(enum config_identity) == sizeof(unsigned), "choices are stored as unsigned");
_Static_assert(VCPUS_MAX == 16 && CONFIG_CMDLINE_MAX == 2048, "named in `accepted`");

struct parser {
    const char *file;
    config_report_t report;
    void *arg;
    bool (*module_exists)(const char *name);
    struct config *out;
    bool failed;

    struct config_text text;

    const struct key *keys; /* table of the current place */
    unsigned nr_keys;
    void *target;           /* struct its fields are in; NULL: a section that is skipped */
    struct vm_config *vm;   /* NULL among the host options */
    unsigned seen_line[32]; /* per key: where it was set, 0: not */
    unsigned option_line[NR_OPTIONS];
};
_Static_assert(ARRAY_SIZE(vm_keys) <= 32 && ARRAY_SIZE(host_keys) <= 32, "seen_line");

/* Report "FILE:LINE: WHAT: REASON; accepted: ACCEPTED" and spoil the VM of the current section. */
static void fail(struct parser *p, unsigned line, const char *what, const char *accepted,
                 const char *reason_fmt, ...) __printf_like(5, 6);
static void fail(struct parser *p, unsigned line, const char *what, const char *accepted,
                 const char *reason_fmt, ...)
{
    char message[MESSAGE_MAX];
    va_list ap;
    size_t n = scnprintf(message, sizeof(message), "%s:%u: %.40s: ", p->file, line, what);

    va_start(ap, reason_fmt);
    n += vscnprintf(message + n, sizeof(message) - n, reason_fmt, ap);
    va_end(ap);
    scnprintf(message + n, sizeof(message) - n, "; accepted: %s", accepted);
    for (char *c = message; *c; c++) {
        if (!char_is_print(*c)) {
            *c = '?';
        }
    }
    p->failed = true;
    if (p->vm) {
        p->vm->bad = true;
    }
    p->report(p->arg, message);
}

/* --- values --- */

/* Index of `value` among words separated by '|', or -1. */
static int choice_index(const char *choices, const char *value)
{
    size_t n = strlen(value);

    for (int index = 0;; index++) {
        const char *bar = strchr(choices, '|');
        size_t len = bar ? (size_t)(bar - choices) : strlen(choices);

        if (len == n && memcmp(choices, value, n) == 0) {
            return index;
        }
        if (!bar) {
            return -1;
        }
        choices = bar + 1;
    }
}

static void set_number(struct parser *p, const struct key *k, const char *value)
{
    bool is_size = k->type == KEY_SIZE;
    uint64_t v;
    enum hv_err err = is_size ? parse_size(value, MIB(1), &v) : parse_u64(value, &v);

    if (k->type == KEY_SHARES && choice_index("low|normal|high", value) >= 0) {
        v = 500ULL << choice_index("low|normal|high", value);
        err = HV_OK;
    }
    if (err == HV_EINVAL) {
        fail(p, p->text.line, k->name, k->accepted, "'%.60s' is not a %s", value,
             is_size ? "size" : "number");
    } else if (err != HV_OK || v > k->high) {
        fail(p, p->text.line, k->name, k->accepted, "%.60s is too big", value);
    } else if (v < k->low) {
        fail(p, p->text.line, k->name, k->accepted, "%.60s is too small", value);
    } else if (is_size && !IS_ALIGNED(v, PAGE_SIZE)) {
        fail(p, p->text.line, k->name, k->accepted, "%.60s is not a multiple of 4K", value);
    } else if (is_size || k->type == KEY_U64) {
        *(uint64_t *)((char *)p->target + k->offset) = v;
    } else {
        *(unsigned *)((char *)p->target + k->offset) = (unsigned)v;
    }
}

static void set_text(struct parser *p, const struct key *k, const char *value)
{
    if (strlen(value) >= k->high) {
        fail(p, p->text.line, k->name, k->accepted, "longer than %u bytes", (unsigned)k->high - 1);
        return;
    }
    if (k->type == KEY_MODULE) {
        if (!*value) {
            fail(p, p->text.line, k->name, k->accepted, "no value");
            return;
        }
        if (p->module_exists && !p->module_exists(value)) {
            fail(p, p->text.line, k->name, k->accepted, "no module '%.63s' was loaded", value);
            return;
        }
    }
    str_copy((char *)p->target + k->offset, (size_t)k->high, value);
}

static void set_choice(struct parser *p, const struct key *k, const char *value)
{
    int index = choice_index(k->choices, value);

    if (index < 0) {
        fail(p, p->text.line, k->name, k->accepted, "'%.60s' is unknown", value);
    } else if (k->type == KEY_BOOL) {
        *(bool *)((char *)p->target + k->offset) = index != 0;
    } else {
        *(unsigned *)((char *)p->target + k->offset) = (unsigned)index;
    }
}

static void set_value(struct parser *p, const struct key *k, const char *value)
{
    switch (k->type) {
    case KEY_SIZE:
    case KEY_U64:
    case KEY_UNSIGNED:
    case KEY_SHARES:
        set_number(p, k, value);
        break;
    case KEY_MODULE:
    case KEY_TEXT:
        set_text(p, k, value);
        break;
    case KEY_CHOICE:
    case KEY_BOOL:
        set_choice(p, k, value);
        break;
    }
}

/* --- sections and keys --- */

static void list_keys(const struct parser *p, char *buf, size_t size)
{
    size_t n = 0;

    buf[0] = '\0';
    for (unsigned i = 0; i < p->nr_keys; i++) {
        n += scnprintf(buf + n, size - n, "%s%s", i ? ", " : "", p->keys[i].name);
    }
    if (p->keys == host_keys) {
        scnprintf(buf + n, size - n, ", or an option (`set` lists them)");
    }
}

static void enter_place(struct parser *p, const struct key *keys, unsigned nr_keys, void *target,
                        struct vm_config *vm)
{
    p->keys = keys;
    p->nr_keys = nr_keys;
    p->target = target;
    p->vm = vm;
    memset(p->seen_line, 0, sizeof(p->seen_line));
}

/* The section ends: what it had to say must have been said. */
static void leave_place(struct parser *p)
{
    for (unsigned i = 0; p->vm && i < p->nr_keys; i++) {
        if (p->keys[i].required && p->seen_line[i] == 0) {
            fail(p, p->vm->line, p->keys[i].name, p->keys[i].accepted, "missing in [%s]",
                 p->vm->name);
        }
    }
}

static bool name_valid(const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if (!letter && !char_is_digit(c) && !(i > 0 && (c == '.' || c == '_' || c == '-'))) {
            return false;
        }
    }
    return n > 0 && n < CONFIG_NAME_MAX;
}

static const struct vm_config *find_vm(const struct config *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->nr_vms; i++) {
        if (str_equal(cfg->vms[i].name, name)) {
            return &cfg->vms[i];
        }
    }
    return NULL;
}

static void parse_section(struct parser *p, char *s)
{
    char *close = strchr(s, ']');

    leave_place(p);
    enter_place(p, vm_keys, ARRAY_SIZE(vm_keys), NULL, NULL);
    if (!close) {
        fail(p, p->text.line, "section", "[name]", "no closing bracket");
        return;
    }
    *close = '\0';
    config_cut_comment(close + 1);
    char *name = config_trim(s + 1);
    const struct vm_config *twin = find_vm(p->out, name);

    if (*config_trim(close + 1)) {
        fail(p, p->text.line, "section", "[name] alone on its line", "text behind [%.40s]", name);
    } else if (!name_valid(name)) {
        fail(p, p->text.line, "section", "1 to 31 letters, digits, and behind the first . _ -",
             "'%.40s' is not a name for a VM", name);
    } else if (twin) {
        fail(p, p->text.line, "section", "a name of its own for each VM",
             "line %u names a VM [%s] too; this one is left out", twin->line, name);
    } else if (p->out->nr_vms == CONFIG_MAX_VMS) {
        fail(p, p->text.line, "section", "at most 256 VMs", "too many VMs; [%s] is left out", name);
    } else {
        struct vm_config *vm = &p->out->vms[p->out->nr_vms++];

        *vm = (struct vm_config){
            .line = p->text.line, .vcpus = 1, .cpu_shares = 1000, .autostart = true};
        str_copy(vm->name, sizeof(vm->name), name);
        enter_place(p, vm_keys, ARRAY_SIZE(vm_keys), vm, vm);
    }
}

static const struct key *find_key(const struct parser *p, const char *name)
{
    for (unsigned i = 0; i < p->nr_keys; i++) {
        if (str_equal(p->keys[i].name, name)) {
            return &p->keys[i];
        }
    }
    return NULL;
}

/* The text of a value, without quotes and comment. NULL: reported. */
static char *value_text(struct parser *p, const char *name, char *value)
{
    if (*value != '"') {
        config_cut_comment(value);
        return config_trim(value);
    }
    if (!config_unquote(value)) {
        fail(p, p->text.line, name, "one text in \"quotes\"", "quotes do not match");
        return NULL;
    }
    return value;
}

/* False: this key was set before; reported. */
static bool first_time(struct parser *p, const char *name, unsigned *seen)
{
    if (*seen) {
        fail(p, p->text.line, name, "each key once", "already set in line %u", *seen);
        return false;
    }
    *seen = p->text.line;
    return true;
}

/* `Mem.Name = N` among the host options. */
static void parse_option_line(struct parser *p, enum option_id id, char *value)
{
    const struct option *o = &options_table[id];
    char accepted[64];
    uint64_t v;

    value = first_time(p, o->name, &p->option_line[id]) ? value_text(p, o->name, value) : NULL;
    if (value == NULL) {
        return;
    }
    scnprintf(accepted, sizeof(accepted), "a number from %llu to %llu", (unsigned long long)o->low,
              (unsigned long long)o->high);
    if (parse_u64(value, &v) != HV_OK) {
        fail(p, p->text.line, o->name, accepted, "'%.60s' is not a number", value);
    } else if (v < o->low || v > o->high) {
        fail(p, p->text.line, o->name, accepted, "%.60s is too %s", value,
             v < o->low ? "small" : "big");
    } else {
        p->out->host.option[id] = v;
        p->out->host.option_given[id] = true;
    }
}

static void parse_key(struct parser *p, char *s)
{
    char *equals = strchr(s, '=');

    if (!equals) {
        config_cut_comment(s);
        fail(p, p->text.line, config_trim(s), "key = value, [name], # comment", "no '=' behind it");
        return;
    }
    *equals = '\0';
    char *name = config_trim(s);
    char *value = config_trim(equals + 1);
    const struct key *k = find_key(p, name);

    if (!k && !p->vm && options_find(name) != NR_OPTIONS) {
        parse_option_line(p, options_find(name), value);
        return;
    }
    if (!k) {
        char names[MESSAGE_MAX / 2];

        list_keys(p, names, sizeof(names));
        fail(p, p->text.line, name, names, "unknown %s", p->vm ? "key" : "host option");
        return;
    }
    if (!first_time(p, name, &p->seen_line[k - p->keys])) {
        return;
    }
    if (k->given != 0) {
        *(bool *)((char *)p->target + k->given) = true;
    }
    value = value_text(p, name, value);
    if (value != NULL) {
        set_value(p, k, value);
    }
}

static void parse_line(struct parser *p)
{
    char *s = config_trim(p->text.buf);

    if (*s == '\0' || config_is_comment(*s)) {
        return;
    }
    if (*s == '[') {
        parse_section(p, s);
    } else if (p->target) {
        parse_key(p, s);
    }
}

enum hv_err config_parse(const char *file, const char *text, size_t len,
                         bool (*module_exists)(const char *name), config_report_t report, void *arg,
                         struct config *out)
{
    static struct parser parser; /* too large for a stack; parsing happens once, at boot */
    struct parser *p = &parser;
    enum config_line status;

    memset(p, 0, sizeof(*p));
    p->file = file;
    p->report = report;
    p->arg = arg;
    p->module_exists = module_exists;
    p->out = out;
    config_text_init(&p->text, text, len);
    out->nr_vms = 0;
    out->host = (struct host_config){.log_level = 2};
    enter_place(p, host_keys, ARRAY_SIZE(host_keys), &out->host, NULL);
    while ((status = config_text_read(&p->text)) != CONFIG_LINE_END) {
        if (status == CONFIG_LINE_NUL) {
            fail(p, p->text.line, "line", "plain text", "contains a NUL byte");
        } else if (status == CONFIG_LINE_TOO_LONG) {
            fail(p, p->text.line, "line", "at most 4095 bytes", "too long");
        } else {
            parse_line(p);
        }
    }
    leave_place(p);
    return p->failed ? HV_EINVAL : HV_OK;
}

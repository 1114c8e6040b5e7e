/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parser of ballast.conf. Three steps: bytes become logical lines (config_text.c), lines become a
 * section or a key with its value, and one table per place (config_keys.c) says what each key accepts and
 * which field it fills. The same table gives the text behind "accepted:".
 */
#include "kernel/vm/config.h"

#include "kernel/drivers/swaparea.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/config_keys.h"
#include "kernel/vm/config_text.h"

#define MESSAGE_MAX 480                /* as long as a line of the log (LOGRING_TEXT_MAX) */
#define SHARES_WORDS "normal|low|high" /* in the order of enum config_shares */

struct parser {
    const char *file;
    config_report_t report;
    void *arg;
    bool (*module_exists)(const char *name);
    struct config *out;
    unsigned nr_failed;

    struct config_text text;

    const struct config_key *keys; /* table of the current place */
    unsigned nr_keys;
    void *target;           /* struct its fields are in; NULL: a section that is skipped */
    struct vm_config *vm;   /* NULL among the host options */
    unsigned seen_line[32]; /* per key: where it was set, 0: not */
    unsigned option_line[NR_OPTIONS];
};
_Static_assert(CONFIG_NR_VM_KEYS <= 32 && CONFIG_NR_HOST_KEYS <= 32, "seen_line");

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
    p->nr_failed++;
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

static void set_number(struct parser *p, const struct config_key *k, const char *value)
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
    } else if (is_size || k->type == KEY_U64 || k->type == KEY_MEM_SHARES) {
        *(uint64_t *)((char *)p->target + k->offset) = v;
    } else {
        *(unsigned *)((char *)p->target + k->offset) = (unsigned)v;
    }
}

/* False: not loaded, and said so. */
static bool check_module(struct parser *p, const struct config_key *k, const char *name)
{
    if (p->module_exists == NULL || p->module_exists(name)) {
        return true;
    }
    fail(p, p->text.line, k->name, k->accepted, "no module '%.63s' was loaded", name);
    return false;
}

static bool check_modules(struct parser *p, const struct config_key *k, const char *value)
{
    char list[CONFIG_MODULES_MAX], *next = list, *args;
    unsigned nr = 0;

    str_copy(list, sizeof(list), value);
    for (const char *name; (name = config_next_item(&next, &args)) != NULL; nr++) {
        if (!check_module(p, k, name)) {
            return false;
        }
        if (strlen(args) >= CONFIG_MODULE_ARGS_MAX) {
            fail(p, p->text.line, k->name, k->accepted, "arguments of '%.63s' longer than %u bytes",
                 name, CONFIG_MODULE_ARGS_MAX - 1);
            return false;
        }
    }
    if (nr > CONFIG_NR_MODULES) {
        fail(p, p->text.line, k->name, k->accepted, "%u modules", nr);
    }
    return nr <= CONFIG_NR_MODULES;
}

static bool names_host_disk(const char *value)
{
    return str_starts(value, CONFIG_DISK_HOST) && !str_equal(value, CONFIG_DISK_HOST);
}

bool config_is_swap(const char *value)
{
    static const char ram[] = "ram:";
    uint64_t bytes;

    return str_equal(value, "off") || str_equal(value, "auto") || names_host_disk(value) ||
           (str_starts(value, ram) && parse_size(value + strlen(ram), MIB(1), &bytes) == HV_OK &&
            bytes >= SWAPAREA_RAM_MIN);
}

static bool check_swap(struct parser *p, const struct config_key *k, const char *value)
{
    bool good = config_is_swap(value);

    if (!good) {
        fail(p, p->text.line, k->name, k->accepted, "'%.60s' is unknown", value);
    }
    return good;
}

static void set_text(struct parser *p, const struct config_key *k, const char *value)
{
    bool good = true;

    if (strlen(value) >= k->high) {
        fail(p, p->text.line, k->name, k->accepted, "longer than %u bytes", (unsigned)k->high - 1);
        return;
    }
    if ((k->type == KEY_MODULE || k->type == KEY_DISK) &&
        (*value == '\0' || (k->type == KEY_DISK && str_equal(value, CONFIG_DISK_HOST)))) {
        fail(p, p->text.line, k->name, k->accepted, "no value");
        return;
    }
    if (k->type == KEY_MODULE || (k->type == KEY_DISK && !names_host_disk(value))) {
        good = check_module(p, k, value);
    } else if (k->type == KEY_MODULES) {
        good = check_modules(p, k, value);
    } else if (k->type == KEY_SWAP) {
        good = check_swap(p, k, value);
    }
    if (good) {
        str_copy((char *)p->target + k->offset, (size_t)k->high, value);
    }
}

static void set_choice(struct parser *p, const struct config_key *k, const char *value)
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

static void set_value(struct parser *p, const struct config_key *k, const char *value)
{
    switch (k->type) {
    case KEY_SIZE:
    case KEY_U64:
    case KEY_UNSIGNED:
    case KEY_SHARES:
        set_number(p, k, value);
        break;
    case KEY_MEM_SHARES:
        if (choice_index(SHARES_WORDS, value) >= 0) {
            p->vm->shares_kind = (enum config_shares)choice_index(SHARES_WORDS, value);
        } else {
            p->vm->shares_kind = SHARES_NUMBER;
            set_number(p, k, value);
        }
        break;
    case KEY_MODULE:
    case KEY_MODULES:
    case KEY_DISK:
    case KEY_SWAP:
    case KEY_TEXT:
        set_text(p, k, value);
        break;
    case KEY_CHOICE:
    case KEY_BOOL:
        set_choice(p, k, value);
        break;
    }
}

static uint64_t shares_of_size(enum config_shares kind, uint64_t memory_bytes)
{
    static const unsigned per_mb[] = {[SHARES_NORMAL] = 10, [SHARES_LOW] = 5, [SHARES_HIGH] = 20};

    return MAX((memory_bytes >> 20) * per_mb[kind], 1ull);
}

uint64_t config_guaranteed(const struct vm_config *vm, uint64_t min_bytes, uint64_t max_bytes)
{
    return vm->swap == SWAP_OFF ? max_bytes : min_bytes;
}

uint64_t config_shares(const struct vm_config *vm)
{
    return vm->shares_kind == SHARES_NUMBER ? vm->shares
                                            : shares_of_size(vm->shares_kind, vm->memory_bytes);
}

enum hv_err config_parse_shares(const char *text, uint64_t memory_bytes, uint64_t *shares)
{
    int word = choice_index(SHARES_WORDS, text);
    enum hv_err err;

    if (word >= 0) {
        *shares = shares_of_size((enum config_shares)word, memory_bytes);
        return HV_OK;
    }
    err = parse_u64(text, shares);
    return err == HV_OK && *shares > CONFIG_SHARES_MAX ? HV_ERANGE : err;
}

/* --- sections and keys --- */

static void list_keys(const struct parser *p, char *buf, size_t size)
{
    size_t n = 0;

    buf[0] = '\0';
    for (unsigned i = 0; i < p->nr_keys; i++) {
        n += scnprintf(buf + n, size - n, "%s%s", i ? ", " : "", p->keys[i].name);
    }
    if (p->keys == config_host_keys) {
        scnprintf(buf + n, size - n, ", or an option (`set` lists them)");
    }
}

static void enter_place(struct parser *p, const struct config_key *keys, unsigned nr_keys,
                        void *target, struct vm_config *vm)
{
    p->keys = keys;
    p->nr_keys = nr_keys;
    p->target = target;
    p->vm = vm;
    memset(p->seen_line, 0, sizeof(p->seen_line));
}

/* Sizes of a VM that must not be larger than another: min, max, memory. */
static void check_order(struct parser *p)
{
    struct vm_config *vm = p->vm;
    const char *accepted = "min <= max <= memory";

    if (!vm->have_max) {
        vm->max_bytes = vm->memory_bytes;
    }
    if (vm->bad) {
        return; /* said already */
    }
    if (vm->max_bytes > vm->memory_bytes) {
        fail(p, vm->line, "max", accepted, "in [%s] it is %lluK, and memory is %lluK", vm->name,
             (unsigned long long)(vm->max_bytes >> 10),
             (unsigned long long)(vm->memory_bytes >> 10));
    } else if (vm->min_bytes > vm->max_bytes) {
        fail(p, vm->line, "min", accepted, "in [%s] it is %lluK, and %s is %lluK", vm->name,
             (unsigned long long)(vm->min_bytes >> 10), vm->have_max ? "max" : "memory",
             (unsigned long long)(vm->max_bytes >> 10));
    }
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
    if (p->vm) {
        check_order(p);
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
    enter_place(p, config_vm_keys, CONFIG_NR_VM_KEYS, NULL, NULL);
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
        enter_place(p, config_vm_keys, CONFIG_NR_VM_KEYS, vm, vm);
    }
}

static const struct config_key *find_key(const struct parser *p, const char *name)
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
    char accepted[OPTIONS_TEXT_MAX];
    uint64_t v;

    value = first_time(p, o->name, &p->option_line[id]) ? value_text(p, o->name, value) : NULL;
    if (value == NULL) {
        return;
    }
    options_accepted(id, accepted);
    switch (options_parse(id, value, &v)) {
    case HV_OK:
        p->out->host.option[id] = v;
        p->out->host.option_given[id] = true;
        break;
    case HV_ERANGE:
        fail(p, p->text.line, o->name, accepted, "%.60s is too %s", value,
             v < o->low ? "small" : "big");
        break;
    default:
        fail(p, p->text.line, o->name, accepted, "'%.60s' is %s", value,
             o->words != NULL ? "unknown" : "not a number");
        break;
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
    const struct config_key *k = find_key(p, name);

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
    unsigned failed = p->nr_failed;

    value = value_text(p, name, value);
    if (value != NULL) {
        set_value(p, k, value);
    }
    if (k->given != 0 && p->nr_failed == failed) {
        *(bool *)((char *)p->target + k->given) = true;
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
    enter_place(p, config_host_keys, CONFIG_NR_HOST_KEYS, &out->host, NULL);
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
    return p->nr_failed != 0 ? HV_EINVAL : HV_OK;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From boot to running VMs. The parsed configuration lives only while this runs: each VM keeps a copy
 * of its own section.
 */
#include "kernel/startup.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/hostmap.h"
#include "boot/bootinfo.h"
#include "kernel/drivers/swaparea.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/random.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/options.h"
#include "kernel/main.h"
#include "kernel/telemetry.h"
#include "kernel/vm/admission.h"
#include "kernel/vm/balance.h"
#include "kernel/vm/config.h"
#include "kernel/vm/selfaudit.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/swapping.h"
#include "kernel/vm/doctor.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define CONFIG_FILE "ballast.conf"

static bool module_exists(const char *name)
{
    return bootinfo_module(main_boot_info(), name) != NULL;
}

static void report(void *arg, const char *message)
{
    (void)arg;
    log_error("%s", message);
}

static void start_vm(const struct vm_config *cfg)
{
    struct vm *vm;

    if (cfg->bad) {
        log_error("vm %s: not started: its section has errors", cfg->name);
        return;
    }
    enum hv_err err = vm_create(cfg, &vm);

    if (err != HV_OK) {
        log_error("vm %s: cannot be created: %s", cfg->name, hv_strerror(err));
        return;
    }
    if (cfg->autostart) {
        err = vm_start(vm);
        if (err != HV_OK) {
            log_error("vm %s: not started: %s", cfg->name, hv_strerror(err));
        }
    }
}

/* The seed of all randomness: the command line's, else the file's, else one that the processor draws
 * and that is named, so that this run's choices, too, can be repeated. What guests must not foretell has
 * more than a drawn seed in it (kernel/lib/random.h). */
static void choose_seed(const struct boot_info *info, const struct host_config *host)
{
    char word[24];
    uint64_t seed;

    if (parse_option(info->cmdline, "seed", word, sizeof(word))) {
        if (parse_u64(word, &seed) == HV_OK) {
            random_set_seed(seed);
            return;
        }
        log_error("command line: seed=%s: accepted: a number from 0 to 18446744073709551615", word);
    }
    if (host->have_seed) {
        random_set_seed(host->seed);
        return;
    }
    seed = cpu_entropy();
    random_set_seed(seed);
    random_add_entropy(cpu_entropy);
    log_info("seed = %llu was drawn; given in " CONFIG_FILE
             ", it repeats this run's choices (not its hash "
             "seeds and guests' entropy)",
             (unsigned long long)seed);
}

/* The disks of the host that VMs name, whether or not they start. A name that finds nothing is reported
 * when its VM is created. */
static unsigned find_loans(const struct config *config, struct swaparea_loan *loans)
{
    const size_t prefix = strlen(CONFIG_DISK_HOST);
    unsigned nr = 0;

    for (unsigned i = 0; i < config->nr_vms; i++) {
        const struct vm_config *cfg = &config->vms[i];

        if (str_starts(cfg->disk, CONFIG_DISK_HOST) &&
            swaparea_find(cfg->disk + prefix, &loans[nr].area) == HV_OK) {
            loans[nr++].vm = cfg->name;
        }
    }
    return nr;
}

/* After the seed is known; before VMs need it, and before a guest can write to a disk. The command line
 * wins. `config` may be NULL. */
static void start_swap(const struct boot_info *info, const struct host_config *host,
                       const struct config *config)
{
    char word[CONFIG_SWAP_MAX];
    const char *option = host->swap;
    struct swaparea_loan *loans = NULL;
    unsigned nr_vms = config != NULL ? config->nr_vms : 0;

    if (parse_option(info->cmdline, "swap", word, sizeof(word))) {
        if (config_is_swap(word)) {
            option = word;
        } else {
            log_error("command line: swap=%s: accepted: " CONFIG_SWAP_ACCEPTED, word);
        }
    }
    swapping_init(host->swap_encrypt == ENCRYPT_ON);
    if (nr_vms != 0 && (loans = kmalloc(nr_vms * sizeof(*loans), OWNER_HOST)) == NULL) {
        log_error("swap = %s: no memory to look for disks of VMs; no swap", option);
    } else {
        swaparea_start(option, loans, nr_vms != 0 ? find_loans(config, loans) : 0);
    }
    kfree(loans);
    swapping_start();
}

/* The command line wins. */
static void start_telemetry(const struct boot_info *info, const struct host_config *host)
{
    unsigned choice = host->telemetry;
    char word[16];

    if (parse_option(info->cmdline, "telemetry", word, sizeof(word)) &&
        !telemetry_find(word, &choice)) {
        log_error("command line: telemetry=%s: accepted: " CONFIG_TELEMETRY_ACCEPTED, word);
    }
    telemetry_start(choice);
}

/* The command line wins: its loglevel= was applied first. */
static void apply_host_options(const struct boot_info *info, const struct host_config *host)
{
    enum log_level level;
    char word[16];

    if (!parse_option(info->cmdline, "loglevel", word, sizeof(word)) ||
        !log_level_find(word, &level)) {
        log_set_level((enum log_level)host->log_level);
    }
    choose_seed(info, host);
    for (unsigned i = 0; i < NR_OPTIONS; i++) {
        if (host->option_given[i]) {
            /* In range: config.c has looked. */
            (void)!options_set((enum option_id)i, host->option[i]);
        }
    }
}

/* Parse the module; the result is for kfree. NULL: no module or no memory. */
static struct config *load_config(const struct boot_info *info, config_report_t on_error)
{
    const struct boot_module *file = bootinfo_module(info, CONFIG_FILE);

    if (file == NULL) {
        return NULL;
    }
    struct config *config = kmalloc(sizeof(*config), OWNER_HOST);

    if (config == NULL) {
        log_error(CONFIG_FILE ": no memory to read it");
        return NULL;
    }
    if (config_parse(CONFIG_FILE, phys_ptr(HPA(file->base)), file->size, module_exists, on_error,
                     NULL, config) != HV_OK &&
        on_error == report) {
        log_error(CONFIG_FILE " has errors; VMs without any start all the same");
    }
    return config;
}

/* What parse_option is asked for, anywhere (docs/configuration.md). */
static const char *const cmdline_keys[] = {"loglevel", "seed",  "swap",  "telemetry",
                                           "console",  "shell", "panic", "maxcpus",
                                           "selftest", "bench", "fail",  "break"};

static bool is_cmdline_key(const char *word)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cmdline_keys); i++) {
        if (str_equal(word, cmdline_keys[i])) {
            return true;
        }
    }
    return false;
}

static void refuse_word(const char *word)
{
    char list[160];
    size_t n = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(cmdline_keys); i++) {
        n += (size_t)scnprintf(list + n, sizeof(list) - n, "%s%s", i != 0 ? ", " : "",
                               cmdline_keys[i]);
    }
    log_error("command line: '%s' is ignored; accepted: %s", word, list);
}

/* Some loaders put the kernel's path in front. */
static void check_cmdline(const char *line)
{
    static char copy[BOOT_CMDLINE_MAX];
    char *words[32];
    unsigned nr;

    str_copy(copy, sizeof(copy), line);
    nr = parse_words(copy, words, ARRAY_SIZE(words));
    for (unsigned i = line[0] == '/'; i < nr; i++) {
        char *value = strchr(words[i], '=');

        if (value != NULL) {
            *value = '\0';
        }
        if (!is_cmdline_key(words[i])) {
            refuse_word(words[i]);
        }
    }
}

void startup_vms(const struct boot_info *info)
{
    const struct host_config none = {.have_seed = false};

    check_cmdline(info->cmdline);
    doctor_configure(info->cmdline);
    if (bootinfo_module(info, CONFIG_FILE) == NULL) {
        log_warn("no module " CONFIG_FILE ": no VMs; the shell comes up");
    }
    struct config *config = load_config(info, report);

    if (config == NULL) {
        choose_seed(info, &none);
        start_swap(info, &none, NULL);
        start_telemetry(info, &none);
        sharing_init();
        balance_init();
        return;
    }
    apply_host_options(info, &config->host);
    start_swap(info, &config->host, config);
    start_telemetry(info, &config->host);
    sharing_init();
    balance_init();
    admission_init(config->host.overcommit == OVERCOMMIT_UNBACKED);
    sharing_start();
    balance_start();
    selfaudit_start();
    for (unsigned i = 0; i < config->nr_vms; i++) {
        start_vm(&config->vms[i]);
    }
    kfree(config);
}

static void ignore(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

void startup_for_each_vm(bool (*fn)(const struct vm_config *cfg, void *arg), void *arg)
{
    struct config *config = load_config(main_boot_info(), ignore);

    if (config == NULL) {
        return;
    }
    for (unsigned i = 0; i < config->nr_vms && fn(&config->vms[i], arg); i++) {}
    kfree(config);
}

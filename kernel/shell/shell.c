/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shell's thread and its table of commands.
 *
 * The last line of the console is shared with the log's printing thread: screen_lock guards the line
 * editor, and the log clears the line before it prints and puts it back afterwards.
 */
#include "kernel/shell/shell.h"

#include "kernel/drivers/console.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/shell/commands.h"
#include "kernel/startup.h"
#include "kernel/vm/config.h"
#include "kernel/vm/vm.h"

#define PRINT_MAX 512

const struct shell_command shell_commands[] = {
    {.name = "help",
     .args = "[COMMAND]",
     .help = "list the commands, or explain one",
     .max_args = 1,
     .run = cmd_help},
    {.name = "vms", .help = "all VMs, one line each", .run = cmd_vms},
    {.name = "vm",
     .args = "NAME [start|pause|resume|reset|destroy|drop|swapout SIZE|min SIZE|max SIZE|"
             "shares low|normal|high|N]",
     .help = "one VM in detail, or what to do with it",
     .min_args = 1,
     .max_args = 3,
     .run = cmd_vm,
     .complete = cmd_vm_complete},
    {.name = "console",
     .args = "NAME",
     .help = "attach to a VM's console; Ctrl-] comes back",
     .min_args = 1,
     .max_args = 1,
     .run = cmd_console,
     .complete = cmd_console_complete},
    {.name = "mem",
     .args = "[once] [WIDTH[xHEIGHT]]",
     .help = "machine memory, and every VM's, until a key is pressed; or printed once",
     .max_args = 2,
     .run = cmd_mem,
     .complete = cmd_mem_complete},
    {.name = "map",
     .args = "VM",
     .help = "a VM's memory, a character for 2 MiB",
     .min_args = 1,
     .max_args = 1,
     .run = cmd_map,
     .complete = cmd_vm_complete},
    {.name = "balloon",
     .args = "[VM [SIZE|auto]]",
     .help = "the balloons; what a VM's is to hold, by hand or as the policy wants",
     .max_args = 2,
     .run = cmd_balloon,
     .complete = cmd_balloon_complete},
    {.name = "why",
     .args = "VM [PAGE]",
     .help = "what was decided about a VM's memory, or happened to one of its pages",
     .min_args = 1,
     .max_args = 2,
     .run = cmd_why,
     .complete = cmd_why_complete},
    {.name = "share",
     .args = "[scan VM]",
     .help = "page sharing in numbers; scan all of a VM's pages now",
     .max_args = 2,
     .run = cmd_share,
     .complete = cmd_share_complete},
    {.name = "disks", .help = "all disks, and what is on them", .run = cmd_disks},
    {.name = "swap",
     .args = "[format DISK [CODE] | test [ROUNDS [DISK]]]",
     .help = "the swap area; write its signature to a disk; exercise its disk",
     .max_args = 3,
     .run = cmd_swap,
     .complete = cmd_swap_complete},
    {.name = "set",
     .args = "[OPTION [VALUE]]",
     .help = "the host's options: list them, show one, change one",
     .max_args = 2,
     .run = cmd_set,
     .complete = cmd_set_complete},
    {.name = "audit", .help = "recount every frame and compare", .run = cmd_audit},
    {.name = "digest", .help = "one number for the memory of all VMs at rest", .run = cmd_digest},
    {.name = "log",
     .args = "[previous] [NUMBER] | level [error|warn|info|debug]",
     .help = "the log (of the boot before), its last lines; what is printed",
     .max_args = 2,
     .run = cmd_log,
     .complete = cmd_log_complete},
    {.name = "cpus", .help = "processors and their load", .run = cmd_cpus},
    {.name = "threads", .help = "the hypervisor's threads", .run = cmd_threads},
    {.name = "modules", .help = "boot modules", .run = cmd_modules},
    {.name = "version", .help = "what this is and what it runs on", .run = cmd_version},
    {.name = "poweroff", .help = "switch the machine off", .run = cmd_poweroff},
    {.name = "reboot", .help = "reset the machine", .run = cmd_reboot},
    {.name = NULL},
};

static struct spinlock screen_lock = SPINLOCK_INIT(RANK_CONFIG, "shell screen");
static struct line line; /* screen_lock */
static bool editing;     /* the prompt is on the screen; screen_lock */
static bool attached;    /* screen_lock */

void shell_print(const char *fmt, ...)
{
    char text[PRINT_MAX];
    va_list ap;

    va_start(ap, fmt);
    size_t n = vscnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    console_write(text, n);
}

void shell_error(const char *command, const char *fmt, ...)
{
    char text[PRINT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vscnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    shell_print("%s: %s\n", command, text);
}

/* --- sharing the screen with the log --- */

static void before_log(void)
{
    spin_lock(&screen_lock);
    if (editing) {
        line_hide(&line);
    } else if (attached) {
        console_write("\n", 1);
    }
}

static void after_log(void)
{
    if (editing) {
        line_show(&line);
    }
    spin_unlock(&screen_lock);
}

void shell_set_attached(bool on)
{
    spin_lock(&screen_lock);
    attached = on;
    spin_unlock(&screen_lock);
}

/* --- completion --- */

static bool offer_vm(struct vm *vm, void *arg)
{
    line_offer(arg, vm->config.name);
    return true;
}

static bool offer_configured(const struct vm_config *cfg, void *arg)
{
    if (!cfg->bad) {
        line_offer(arg, cfg->name);
    }
    return true;
}

void shell_offer_vms(struct line_completions *c)
{
    vm_for_each(offer_vm, c);
    startup_for_each_vm(offer_configured, c);
}

void shell_offer_list(struct line_completions *c, const char *const *words, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        line_offer(c, words[i]);
    }
}

static void offer_commands(struct line_completions *c)
{
    for (const struct shell_command *cmd = shell_commands; cmd->name; cmd++) {
        line_offer(c, cmd->name);
    }
}

static const struct shell_command *find_command(const char *name)
{
    for (const struct shell_command *cmd = shell_commands; cmd->name; cmd++) {
        if (str_equal(cmd->name, name)) {
            return cmd;
        }
    }
    return NULL;
}

static void complete(const char *before, struct line_completions *c)
{
    char copy[LINE_BYTES];
    char *words[SHELL_ARGS_MAX];

    str_copy(copy, sizeof(copy), before);
    unsigned nr = parse_words(copy, words, SHELL_ARGS_MAX);

    if (nr == 0 || (nr == 1 && str_equal(words[0], "help"))) {
        offer_commands(c);
        return;
    }
    const struct shell_command *cmd = find_command(words[0]);

    if (cmd && cmd->complete && nr <= cmd->max_args) {
        cmd->complete(nr, c);
    }
}

/* --- the thread --- */

/* Completion walks the list of VMs, which may sleep: not under screen_lock. The editor collects Tab's
 * words first, so the hook must not see the line meanwhile. */
static bool feed(char c)
{
    if (c != '\t') {
        spin_lock(&screen_lock);
        bool done = line_feed(&line, c);

        editing = !done;
        spin_unlock(&screen_lock);
        return done;
    }
    spin_lock(&screen_lock);
    editing = false;
    spin_unlock(&screen_lock);
    (void)line_feed(&line, c);
    spin_lock(&screen_lock);
    editing = true;
    spin_unlock(&screen_lock);
    return false;
}

static char *read_line(void)
{
    spin_lock(&screen_lock);
    line_start(&line);
    editing = true;
    spin_unlock(&screen_lock);
    while (!feed((char)console_getc())) {}
    return line.buf;
}

static void run_line(char *text)
{
    char *words[SHELL_ARGS_MAX];
    unsigned nr = parse_words(text, words, SHELL_ARGS_MAX);

    if (nr == 0) {
        return;
    }
    const struct shell_command *cmd = find_command(words[0]);

    if (!cmd) {
        shell_error(words[0], "unknown command; `help` lists them");
    } else if (nr - 1 < cmd->min_args || nr - 1 > cmd->max_args) {
        shell_print("usage: %s%s%s\n", cmd->name, cmd->args ? " " : "", cmd->args ? cmd->args : "");
    } else {
        cmd->run(nr, words);
    }
}

static char first[32]; /* the command of shell=; before the thread starts */

static void shell_main(void *unused)
{
    (void)unused;
    line_init(&line, "ballast> ", console_write, complete);
    log_set_hooks(before_log, after_log);
    log_wait_printed(); /* a group of lines that began without the hooks */
    if (first[0] != '\0') {
        run_line(first);
    }
    for (;;) {
        run_line(read_line());
    }
}

void shell_start(const char *cmdline)
{
    struct thread *t;

    (void)parse_option(cmdline, "shell", first, sizeof(first));
    if (thread_create("shell", shell_main, NULL, 4 * WEIGHT_NORMAL, 0, &t)) {
        log_error("shell: no memory for its thread");
        return;
    }
    thread_start(t);
}

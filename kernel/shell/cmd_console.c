/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The `console` command: the operator's terminal becomes the guest's until Ctrl-].
 */
#include "kernel/shell/commands.h"

#include "kernel/drivers/console.h"
#include "kernel/drivers/term.h"
#include "kernel/sched/wait.h"
#include "kernel/vm/guestconsole.h"
#include "kernel/vm/vm.h"

#define KEY_DETACH 0x1d /* Ctrl-] */
#define CHUNK 512

/* Show what is new; false if nothing was. */
static bool show_output(struct guestconsole *c, uint64_t *pos)
{
    char data[CHUNK];
    size_t n = guestconsole_copy(c, pos, data, sizeof(data));

    console_write(data, n);
    return n > 0;
}

/* Hand on what was typed: 0 nothing, 1 something, -1 the operator leaves. */
static int pass_input(struct guestconsole *c)
{
    int key = console_poll();

    if (key < 0) {
        return 0;
    }
    if (key == KEY_DETACH) {
        return -1;
    }
    char byte = (char)key;

    (void)guestconsole_type(c, &byte, 1); /* a guest that reads nothing loses what is typed */
    return 1;
}

/* Until Ctrl-] or the VM goes away. Both sides wake this thread, and a wake that comes while it looks
 * is not lost. */
static void watch(struct guestconsole *c, uint64_t pos)
{
    struct waitq *input = console_input_waitq();

    while (!guestconsole_is_closing(c)) {
        waitq_prepare(input);
        bool busy = show_output(c, &pos);
        int typed = pass_input(c);

        if (!busy && typed == 0) {
            thread_block();
        }
        waitq_finish(input);
        if (typed < 0) {
            return;
        }
        sched_yield();
    }
}

void cmd_console(unsigned nr, char **args)
{
    struct vm *vm = vm_find(args[1]);
    uint64_t pos;

    (void)nr;
    if (!vm) {
        shell_error("console", "no VM '%s'; `vms` lists them", args[1]);
        return;
    }
    if (!vm->console || guestconsole_attach(vm->console, &pos)) {
        shell_error("console", "the console of %s is in use", args[1]);
    } else {
        shell_print("[%s: Ctrl-] comes back]\n", args[1]);
        shell_set_attached(true);
        watch(vm->console, pos);
        shell_set_attached(false);
        guestconsole_detach(vm->console);
        shell_print(TERM_SANE "\n[left %s]\n", args[1]);
    }
    vm_put(vm);
}

static bool offer_vm(struct vm *vm, void *arg)
{
    line_offer(arg, vm->config.name);
    return true;
}

void cmd_console_complete(unsigned index, struct line_completions *c)
{
    (void)index;
    vm_for_each(offer_vm, c);
}

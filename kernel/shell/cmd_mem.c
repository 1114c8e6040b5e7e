/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about memory: the screen, which is refreshed in place until a key ends it, and the audit.
 */
#include "kernel/shell/commands.h"

#include "arch/x86_64/clock.h"
#include "kernel/drivers/console.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/string.h"
#include "kernel/shell/mem_screen.h"
#include "kernel/shell/terminal.h"
#include "kernel/vm/vm.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/reclaim/slots.h"
#include "mm/share/share.h"

#define REFRESH_NS 1000000000ull /* as often as there are new rates */
#define ANSWER_NS 500000000ull   /* so long a terminal may take to tell its size */
#define POLL_NS 20000000ull

/* ---- The screen ---- */

/* What comes in within `ns`: a key, a size other than before, or nothing. */
static enum terminal_event wait_event(struct terminal *t, uint64_t ns, int *key)
{
    uint64_t start = clock_now_ns();

    do {
        unsigned columns = t->columns, rows = t->rows;

        while ((*key = console_poll()) >= 0) {
            enum terminal_event e = terminal_feed(t, (char)*key);

            if (e == TERMINAL_KEY ||
                (e == TERMINAL_SIZE && (t->columns != columns || t->rows != rows))) {
                return e;
            }
        }
        thread_sleep_ns(POLL_NS);
    } while (clock_now_ns() - start < ns);
    *key = 0x1b;
    return terminal_idle(t) ? TERMINAL_KEY : TERMINAL_NOTHING;
}

static unsigned clamp(unsigned value, unsigned low, unsigned high)
{
    return MIN(MAX(value, low), high);
}

/* Until a key is pressed. `ask`: the terminal's size may change. */
static void refresh(struct terminal *t, bool ask)
{
    int key;

    shell_set_attached(true);
    shell_print(TERMINAL_HOME TERMINAL_END_SCREEN);
    do {
        mem_screen_draw(clamp(t->columns, MEM_SCREEN_MIN_WIDTH, MEM_SCREEN_MAX_WIDTH),
                        clamp(t->rows, MEM_SCREEN_MIN_HEIGHT, MEM_SCREEN_MAX_HEIGHT));
        if (ask) {
            shell_print(TERMINAL_ASK);
        }
    } while (wait_event(t, REFRESH_NS, &key) != TERMINAL_KEY);
    shell_set_attached(false);
    shell_print("\n");
}

/* A terminal answers when it is asked for its size; a program that only reads does not. */
static bool is_terminal(struct terminal *t)
{
    int key;

    if (console_has_input()) {
        return false;
    }
    shell_print(TERMINAL_ASK);
    switch (wait_event(t, ANSWER_NS, &key)) {
    case TERMINAL_SIZE:
        return true;
    case TERMINAL_KEY:
        console_unget((char)key);
        return false;
    default:
        return false;
    }
}

/* "132" or "132x50". */
static bool parse_geometry(const char *text, struct terminal *t)
{
    char copy[LINE_BYTES];
    uint64_t columns, rows = MEM_SCREEN_HEIGHT;

    str_copy(copy, sizeof(copy), text);
    char *x = strchr(copy, 'x');

    if (x != NULL) {
        *x = '\0';
    }
    if (parse_u64(copy, &columns) != HV_OK || columns < MEM_SCREEN_MIN_WIDTH ||
        columns > MEM_SCREEN_MAX_WIDTH ||
        (x != NULL && (parse_u64(x + 1, &rows) != HV_OK || rows < MEM_SCREEN_MIN_HEIGHT ||
                       rows > MEM_SCREEN_MAX_HEIGHT))) {
        return false;
    }
    *t = (struct terminal){.columns = (unsigned)columns, .rows = (unsigned)rows};
    return true;
}

void cmd_mem(unsigned nr, char **args)
{
    struct terminal t = {.columns = 0};
    bool once = nr > 1 && str_equal(args[1], "once");
    const char *size = nr > 1 && !once ? args[1] : nr > 2 ? args[2] : NULL;

    if (nr > 2 && !once) {
        shell_print("usage: mem [once] [WIDTH[xHEIGHT]]\n");
    } else if (size != NULL && !parse_geometry(size, &t)) {
        shell_error("mem",
                    "'%s' is not a size; accepted: once, a width from %u to %u, a width and a "
                    "height from %u to %u as 132x50",
                    size, MEM_SCREEN_MIN_WIDTH, MEM_SCREEN_MAX_WIDTH, MEM_SCREEN_MIN_HEIGHT,
                    MEM_SCREEN_MAX_HEIGHT);
    } else if (once || (size == NULL && !is_terminal(&t))) {
        mem_screen_print(t.columns != 0 ? t.columns : MEM_SCREEN_WIDTH);
    } else {
        refresh(&t, size == NULL);
    }
}

void cmd_mem_complete(unsigned index, struct line_completions *c)
{
    if (index == 1) {
        line_offer(c, "once");
    }
}

/* ---- The audit ---- */

static bool audit_vm(struct vm *vm, void *arg)
{
    bool *good = arg;
    bool ok = vm_audit(vm);

    shell_print("  %-15s %s\n", vm->config.name,
                ok ? "every page counted" : "DISAGREES; see `log`");
    *good = *good && ok;
    return true;
}

static bool audit_sharing(void)
{
    struct share_recount count;
    bool ok = share_audit(&count);

    if (!ok) {
        shell_print("  %-15s DISAGREES; see `log`\n", "sharing");
    } else if (!count.certain) {
        shell_print("  %-15s too busy to count references\n", "sharing");
    } else {
        shell_print("  %-15s every reference counted: %llu shared frames, %llu of them common to "
                    "several VMs\n",
                    "sharing", (unsigned long long)count.frames, (unsigned long long)count.several);
    }
    return ok;
}

static bool audit_slots(void)
{
    struct slots_stats s;
    bool ok = slots_audit();

    slots_stats(&s);
    if (ok && s.total != 0) {
        shell_print("  %-15s every slot counted: %llu of %llu used, %llu bad\n", "swap",
                    (unsigned long long)s.used, (unsigned long long)s.total,
                    (unsigned long long)s.bad);
    } else if (!ok) {
        shell_print("  %-15s DISAGREES; see `log`\n", "swap");
    }
    return ok;
}

void cmd_audit(unsigned nr, char **args)
{
    bool good = mm_audit();
    struct buddy_stats stats;

    (void)nr;
    (void)args;
    buddy_stats(&stats);
    shell_print("  %-15s %s\n", "machine", good ? "every frame counted" : "DISAGREES; see `log`");
    shell_print("  %-15s %llu frames free of %llu\n", "", (unsigned long long)stats.free,
                (unsigned long long)stats.total);
    vm_for_each(audit_vm, &good);
    good = audit_sharing() && good;
    good = audit_slots() && good;
    shell_print("audit: %s\n", good ? "passed" : "FAILED");
}

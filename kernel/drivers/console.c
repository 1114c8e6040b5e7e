/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host console. Output takes one lock for at most a FIFO's worth of bytes at a time, so that
 * interrupts are not held off while a slow serial line drains; writers take turns by whole texts, so
 * that lines of two processors do not mix. Input of all devices meets in one queue. In a panic output
 * goes on without locks.
 */
#include "kernel/drivers/console.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irq.h"
#include "arch/x86_64/irqflags.h"
#include "boot/bootinfo.h"
#include "kernel/drivers/display.h"
#include "kernel/drivers/i8042.h"
#include "kernel/drivers/pci.h"
#include "kernel/drivers/uart.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/wait.h"

#define CHUNK 16u
#define INPUT_MAX 256u
#define POLL_NS 10000000ULL
#define MMIO_UART_BYTES 64u
#define STALL_NS 10000000000ULL
#define TURN_NS 500000000ULL

static const struct port {
    const char *name;
    uint16_t base;
    unsigned irq;
} ports[] = {
    {"com1", UART_COM1, 4}, {"com2", UART_COM2, 3}, {"com3", UART_COM3, 4}, {"com4", UART_COM4, 3}};

/* What console= may name. */
static const char *const words[] = {"com1", "com2", "com3", "com4", "pci", "display"};

static struct spinlock out_lock = SPINLOCK_INIT(RANK_CONSOLE, "console output"); /* irqsave */
static struct uart uarts[ARRAY_SIZE(ports)];                                     /* out_lock */
static struct uart pci_uart;                                                     /* out_lock */
static bool panicking;                                                           /* atomic */
static bool have_display, have_keyboard;    /* written at boot */
static bool keyboard_polled, serial_polled; /* likewise */
static bool last_was_cr;                    /* out_lock */
static bool in_turn;                        /* atomic: somebody writes a text */

static struct spinlock in_lock = SPINLOCK_INIT(RANK_CONSOLE, "console input"); /* irqsave */
static char in_buf[INPUT_MAX];                                                 /* in_lock */
static unsigned in_head, in_tail;                                              /* in_lock */
static struct waitq in_waitq;
static bool in_ready; /* in_waitq is initialised */

/* --- output --- */

static void write_raw(const char *s, size_t len)
{
    for (unsigned i = 0; i < ARRAY_SIZE(uarts); i++) {
        uart_write(&uarts[i], s, len);
    }
    uart_write(&pci_uart, s, len);
    display_write(s, len);
}

/* At most CHUNK bytes; what became of a bare LF is CR LF. Returns how much of s was taken. */
static size_t write_chunk(const char *s, size_t len)
{
    char out[CHUNK];
    size_t n = 0;
    size_t taken = 0;

    while (taken < len && n + 2 <= CHUNK) {
        if (s[taken] == '\n' && !last_was_cr) {
            out[n++] = '\r';
        }
        last_was_cr = s[taken] == '\r';
        out[n++] = s[taken++];
    }
    write_raw(out, n);
    return taken;
}

/*
 * Wait, with interrupts on, for a terminal that reads slowly (a paused one, a busy program behind an
 * emulator's pipe). One that takes nothing for STALL_NS loses what is written until it reads again.
 * Callers may hold locks, so this gives the processor to nobody.
 */
static void wait_for_ports(void)
{
    uint64_t start = clock_now_ns();

    for (unsigned i = 0; i <= ARRAY_SIZE(uarts); i++) {
        struct uart *u = i < ARRAY_SIZE(uarts) ? &uarts[i] : &pci_uart;

        while (!uart_ready(u)) {
            if (clock_now_ns() - start > STALL_NS) {
                u->stalled = true;
            }
            __builtin_ia32_pause();
        }
    }
}

/* Waits for the turn of a writer that has interrupts on. It may stand still while it has the turn, and
 * callers may hold locks: patience ends, and then lines mix. False: there is no turn to give back. */
static bool take_turn(void)
{
    if (console_in_panic() || !irq_enabled()) {
        return false;
    }
    uint64_t start = clock_now_ns();

    while (__atomic_exchange_n(&in_turn, true, __ATOMIC_ACQUIRE)) {
        if (clock_now_ns() - start > TURN_NS) {
            return false;
        }
        __builtin_ia32_pause();
    }
    return true;
}

void console_write(const char *s, size_t len)
{
    bool turn = take_turn();

    while (len > 0) {
        if (!console_in_panic() && irq_enabled()) {
            wait_for_ports();
        }
        bool locked = !console_in_panic();
        uint64_t flags = locked ? spin_lock_irqsave(&out_lock) : 0;
        size_t taken = write_chunk(s, len);

        if (locked) {
            spin_unlock_irqrestore(&out_lock, flags);
        }
        s += taken;
        len -= taken;
    }
    if (turn) {
        __atomic_store_n(&in_turn, false, __ATOMIC_RELEASE);
    }
    if (console_in_panic() || irq_enabled()) {
        display_draw();
    }
}

void console_panic_mode(void)
{
    __atomic_store_n(&panicking, true, __ATOMIC_SEQ_CST);
}

bool console_in_panic(void)
{
    return __atomic_load_n(&panicking, __ATOMIC_RELAXED);
}

/* --- finding devices --- */

void console_early_init(void)
{
    (void)uart_probe_port(&uarts[0], UART_COM1);
}

/* Is `word` in the comma-separated list? */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, word, n) == 0 && (p[n] == '\0' || p[n] == ',')) {
            return true;
        }
    }
    return false;
}

static bool try_pci_uart(const struct pci_dev *d, void *arg)
{
    uint64_t base;
    bool is_io;

    (void)arg;
    if (d->class_code != PCI_CLASS_COMMUNICATION || d->subclass != PCI_SUBCLASS_SERIAL ||
        !pci_bar(d, 0, &base, &is_io)) {
        return true;
    }
    pci_write32(d, PCI_COMMAND,
                pci_read32(d, PCI_COMMAND) | (is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY));
    if (is_io) {
        return base > UINT16_MAX || !uart_probe_port(&pci_uart, (uint16_t)base);
    }
    void *regs = hostmap_device(HPA(base), MMIO_UART_BYTES, false);

    return !regs || !uart_probe_mmio(&pci_uart, regs, 0);
}

/* Says which words are not ports. False: none is, so the option is of no use. */
static bool check_list(const char *list)
{
    bool any = false;

    for (const char *word = list; word != NULL; word = strchr(word, ',')) {
        word += *word == ',';
        const char *end = strchr(word, ',');
        size_t len = end != NULL ? (size_t)(end - word) : strlen(word);
        bool known = false;

        for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
            known |= strlen(words[i]) == len && memcmp(word, words[i], len) == 0;
        }
        if (!known) {
            log_error("command line: console=%s: accepted: com1, com2, com3, com4, pci, display",
                      word);
        }
        any |= known;
    }
    return any;
}

/* Ports that `console=` names, and only those. */
static void configure_ports(const char *list)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        if (!list_has(list, ports[i].name)) {
            uarts[i].present = false;
        } else if (!uarts[i].present && !uart_probe_port(&uarts[i], ports[i].base)) {
            log_warn("console: no serial port %s at 0x%x", ports[i].name, ports[i].base);
        }
    }
}

bool console_has_port(uint16_t base)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        if (ports[i].base == base) {
            return uarts[i].present;
        }
    }
    return false;
}

/* A line of the log, which ends in LF alone. */
static void replay_line(const char *s, size_t len)
{
    display_write(s, len);
    display_write("\r", 1);
}

void console_init_display(const struct boot_info *info)
{
    char list[64] = "";
    bool chosen = parse_option(info->cmdline, "console", list, sizeof(list)) && check_list(list);

    if (chosen) {
        configure_ports(list);
    }
    if (chosen ? list_has(list, "pci") : !uarts[0].present) {
        pci_for_each(try_pci_uart, NULL);
        if (chosen && !pci_uart.present) {
            log_warn("console: no PCI serial port");
        }
    }
    if (!chosen || list_has(list, "display")) {
        have_display = display_init(info);
        log_replay(replay_line);
    }
}

/* --- input --- */

void console_input(const char *s, size_t len)
{
    if (len == 0) {
        return;
    }
    uint64_t flags = spin_lock_irqsave(&in_lock);

    for (size_t i = 0; i < len && in_head - in_tail < INPUT_MAX; i++) {
        in_buf[in_head++ % INPUT_MAX] = s[i];
    }
    spin_unlock_irqrestore(&in_lock, flags);
    if (in_ready) {
        waitq_wake_all(&in_waitq);
    }
}

/* Empties the receiver: its interrupt is an edge, and the next one only comes after that. */
static void service_uart(struct uart *u)
{
    for (unsigned i = 0; i < INPUT_MAX; i++) {
        int byte = uart_read(u);

        if (byte < 0) {
            return;
        }
        char c = (char)byte;

        console_input(&c, 1);
    }
}

/* Two ports may share an interrupt line. */
static void service_ports(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < ARRAY_SIZE(uarts); i++) {
        if (uarts[i].present) {
            service_uart(&uarts[i]);
        }
    }
}

static void poll_thread(void *unused)
{
    (void)unused;
    for (;;) {
        if (serial_polled) {
            service_ports(NULL);
        }
        if (pci_uart.present) {
            service_uart(&pci_uart);
        }
        if (keyboard_polled) {
            i8042_service(NULL);
        }
        thread_sleep_ns(POLL_NS);
    }
}

static void start_serial_input(void)
{
    uint32_t routed = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        if (!uarts[i].present) {
            continue;
        }
        if (!(routed & (1u << ports[i].irq)) &&
            irq_route_isa(ports[i].irq, service_ports, NULL) != HV_OK) {
            serial_polled = true;
            continue;
        }
        routed |= 1u << ports[i].irq;
        uart_enable_rx_interrupt(&uarts[i]);
    }
}

void console_init_input(void)
{
    waitq_init(&in_waitq);
    in_ready = true;
    start_serial_input();
    have_keyboard = have_display && i8042_init();
    keyboard_polled = have_keyboard && irq_route_isa(1, i8042_service, NULL) != HV_OK;
    /* What was typed before the interrupts were on. */
    uint64_t flags = irq_save();

    service_ports(NULL);
    if (have_keyboard) {
        i8042_service(NULL);
    }
    irq_restore(flags);
    if (serial_polled || keyboard_polled || pci_uart.present) {
        struct thread *t;

        if (thread_create("console poll", poll_thread, NULL, WEIGHT_NORMAL, 0, &t)) {
            log_error("console: no thread to poll for input");
            return;
        }
        thread_start(t);
    }
}

int console_poll(void)
{
    int c = -1;
    uint64_t flags = spin_lock_irqsave(&in_lock);

    if (in_tail != in_head) {
        c = (uint8_t)in_buf[in_tail++ % INPUT_MAX];
    }
    spin_unlock_irqrestore(&in_lock, flags);
    return c;
}

bool console_has_input(void)
{
    uint64_t flags = spin_lock_irqsave(&in_lock);
    bool has = in_tail != in_head;

    spin_unlock_irqrestore(&in_lock, flags);
    return has;
}

void console_unget(char c)
{
    uint64_t flags = spin_lock_irqsave(&in_lock);

    if (in_head - in_tail < INPUT_MAX) {
        in_buf[--in_tail % INPUT_MAX] = c;
    }
    spin_unlock_irqrestore(&in_lock, flags);
}

int console_getc(void)
{
    int c;

    waitq_wait(&in_waitq, (c = console_poll()) >= 0);
    return c;
}

struct waitq *console_input_waitq(void)
{
    return &in_waitq;
}

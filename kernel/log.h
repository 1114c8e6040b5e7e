/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: levels, a ring in RAM that survives a warm reset, and output to the host console.
 * Safe from any context, guest fast path, NMI and panic included; never sleeps.
 *
 * Until log_start_thread lines go to the console at once. Afterwards log_msg only appends to the
 * ring and a thread prints, so that a log line costs its caller no console time; a panic prints at
 * once again.
 */
#pragma once

#include "kernel/lib/types.h"
#include "kernel/logring.h"

struct boot_info;

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_msg(enum log_level level, const char *fmt, ...) __printf_like(2, 3);

#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)

/* Stop everything: all processors, a backtrace, the reason; then halt (or reboot by `panic=`). */
void panic(const char *fmt, ...) __printf_like(1, 2) __noreturn;

/*
 * Where the ring lives once memory is known: machine memory that neither firmware nor loaders write
 * on a warm reset. SeaBIOS clears 0x7000 to 0x90000 before it boots and keeps its own data near
 * 0xa0000; GRUB unpacks itself at 1 MiB and puts modules anywhere above. Nobody else may use it
 * (buddy_reserve_host, the page for starting processors), whether or not log_persist succeeded.
 */
#define LOG_RING_PA 0x90000ULL
#define LOG_RING_BYTES 0x8000ULL

/* Move the ring to LOG_RING_PA if the memory map says that this is RAM; what an earlier boot left
 * there becomes the previous boot's log. Boot processor, once the physmap covers it. */
void log_persist(const struct boot_info *info);
/* From now on a thread prints. After sched_init, irq_install and lapic_enable. */
void log_start_thread(void);

/* Sleep until all that was logged so far, and what comes meanwhile, has been printed. */
void log_wait_printed(void);

/* Much waits to be printed: who can wait should, lest lines be overwritten before that. */
bool log_is_behind(void);

/* Lines above this level are kept in the ring but not printed. Default LOG_INFO. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warn", "info", "debug"; and back: false if name is none of them. */
extern const char *const log_level_names[LOG_DEBUG + 1];
const char *log_level_name(enum log_level level);
bool log_level_find(const char *name, enum log_level *out);

/* Walk this boot's (or the previous boot's) intact records, oldest first; fn returns false to stop.
 * Returns how many were handed over. Thread context. */
unsigned log_for_each(bool previous, bool (*fn)(const struct log_entry *e, void *arg), void *arg);

/* Hand the lines printed so far to `write`, for a console device that has just been found. Boot. */
void log_replay(void (*write)(const char *s, size_t len));

/* Called by the printing thread around each group of lines, so that whoever owns the console's last
 * line (the shell's prompt) can clear and redraw it. Thread context; NULL: none. */
void log_set_hooks(void (*before)(void), void (*after)(void));

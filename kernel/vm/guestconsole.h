/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM's console as the operator sees it: the last 64 KiB of output, kept while nobody watches, and a
 * queue of typed bytes. One producer on each side: the guest's serial device writes output under its own
 * lock, for a virtio console too, and the one that has the input (the key `console`) reads it; one thread
 * at a time, the viewer, does the opposite. Output never waits for the viewer; what he did not read in
 * time is overwritten. A UART does wait for the host's log, if its lines go there.
 */
#pragma once

#include "kernel/lib/err.h"

struct guestconsole;

/* `name` labels log lines and must outlive the console; `to_log` also sends each complete line to the
 * host's log. Charged to `owner`. HV_ENOMEM. */
enum hv_err guestconsole_create(const char *name, bool to_log, uint32_t owner,
                                struct guestconsole **out) __must_check;
/* No device uses it any more. A viewer is told to leave, and waited for. Thread context. NULL: nothing
 * happens. */
void guestconsole_destroy(struct guestconsole *c);

/* --- the device's side: any context, guest fast path included; the device's lock is held --- */

/* The guest wrote `n` bytes. A few instructions per byte; wakes a viewer. */
void guestconsole_output(struct guestconsole *c, const char *data, size_t n);
/* The host's log is behind with printing: the guest's next byte has to wait. */
bool guestconsole_is_full(const struct guestconsole *c);
/* Is there typed input; take up to `n` bytes of it, returning how many. */
bool guestconsole_input_pending(const struct guestconsole *c);
size_t guestconsole_read(struct guestconsole *c, char *data, size_t n);
/* Call fn(arg), from thread context without the device's lock, whenever the operator has typed. Set
 * once, before the guest runs. */
void guestconsole_set_input_ready(struct guestconsole *c, void (*fn)(void *arg), void *arg);

/* --- the viewer's side: thread context --- */

/* Become the viewer: the running thread will be woken (thread_wake) by output. *pos is set to the
 * oldest byte that is kept. HV_EBUSY: somebody watches already. */
enum hv_err guestconsole_attach(struct guestconsole *c, uint64_t *pos) __must_check;
void guestconsole_detach(struct guestconsole *c);
/* Copy output from *pos on, moving it; skips what was overwritten. Returns the number of bytes, 0 if
 * all was seen. Needs no attachment. */
size_t guestconsole_copy(struct guestconsole *c, uint64_t *pos, char *data, size_t n);
/* The VM goes away: the viewer must detach. */
bool guestconsole_is_closing(const struct guestconsole *c);
/* Type `n` bytes; returns how many the queue took. */
size_t guestconsole_type(struct guestconsole *c, const char *data, size_t n);

/* Bytes ever written by the guest. */
uint64_t guestconsole_written(const struct guestconsole *c);

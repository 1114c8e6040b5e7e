/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The entry doctor: before the first entry of each vCPU (after every reset of it), in debug builds
 * before every entry, and after an entry that the processor refused, its state is checked in software
 * against the manual's rules. What is wrong goes to the log by field, value, rule and the manual's
 * section, and the VM stops; others go on. A guest cannot make it fire: whatever it writes is checked
 * before it gets into that state.
 *
 * The rules are the vendors' (backend->check); one rule is one call of doctor_expect, pure but for the
 * reporting callback, so that the host tests can break each once.
 *
 * Experiments: the host command line's `break=VM:FIELD=VALUE` overwrites a field of the hardware state
 * of each of that VM's vCPUs right before its first check; `break=VM:FIELD=VALUE,late` right behind it,
 * so that it is the processor that refuses. FIELD is one of the backend's names. No guest reaches it.
 */
#pragma once

#include "kernel/lib/types.h"

struct vcpu;

/* Called once per violation. `section` is a title of the vendor's manual. */
typedef void (*doctor_report_t)(void *arg, const char *field, uint64_t value, const char *rule,
                                const char *section);

struct doctor {
    doctor_report_t report;
    void *arg;
    unsigned violations;
};

/* `rule` must hold for `field`. */
static inline void doctor_expect(struct doctor *d, bool holds, const char *field, uint64_t value,
                                 const char *rule, const char *section)
{
    if (!holds) {
        d->violations++;
        d->report(d->arg, field, value, rule, section);
    }
}

/* A field that experiments may overwrite: where it is, in the vendor's terms. */
struct doctor_field {
    const char *name;
    uint32_t at, bytes;
};

#ifdef BALLAST_DEBUG
#define DOCTOR_EVERY_ENTRY 1
#else
#define DOCTOR_EVERY_ENTRY 0
#endif

/* Read `break=`; once, after the backend was chosen. */
void doctor_configure(const char *cmdline);
/* v, loaded and outside a section, is about to be entered for the first time since its reset. Stops
 * the VM if it must not be. */
void doctor_first_entry(struct vcpu *v);
/* Nothing is wrong with v's state. Logs nothing; v's own thread, sections included. */
bool doctor_is_sound(struct vcpu *v);
/* All of v's registers to the log. */
void doctor_dump(struct vcpu *v);
/* Log what is wrong with v's state, and its registers; stop the VM. Outside sections. */
void doctor_stop(struct vcpu *v);

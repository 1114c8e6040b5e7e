/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When the vendors' rules are checked, and what happens to a VM that breaks one; see doctor.h.
 */
#include "kernel/vm/doctor.h"

#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/backend.h"
#include "kernel/vm/vm.h"

/* The experiment; written by doctor_configure before any vCPU runs, constant afterwards. */
static struct {
    char vm[sizeof(((struct vm_config *)NULL)->name)]; /* empty: none */
    const struct doctor_field *field;
    uint64_t value;
    bool late;
} damage;

/* ---- Experiments ---- */

static const struct doctor_field *find_field(const char *name)
{
    for (size_t i = 0; i < hv->nr_fields; i++) {
        if (str_equal(hv->fields[i].name, name)) {
            return &hv->fields[i];
        }
    }
    return NULL;
}

static void refuse_option(const char *word)
{
    char names[400];
    size_t used = 0;

    for (size_t i = 0; i < hv->nr_fields; i++) {
        used += scnprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "",
                          hv->fields[i].name);
    }
    log_error("command line: break=%s: accepted: VM:FIELD=VALUE or VM:FIELD=VALUE,late; fields: %s",
              word, names);
}

void doctor_configure(const char *cmdline)
{
    char word[96], text[sizeof(word)];

    if (!parse_option(cmdline, "break", word, sizeof(word))) {
        return;
    }
    (void)str_copy(text, sizeof(text), word);
    char *field = strchr(text, ':');
    char *value = field != NULL ? strchr(field, '=') : NULL;
    char *late = value != NULL ? strchr(value, ',') : NULL;

    if (value == NULL || (late != NULL && !str_equal(late, ",late"))) {
        refuse_option(word);
        return;
    }
    *field++ = *value++ = '\0';
    if (late != NULL) {
        *late = '\0';
    }
    damage.field = find_field(field);
    damage.late = late != NULL;
    if (damage.field == NULL || parse_u64(value, &damage.value) != HV_OK) {
        refuse_option(word);
        return;
    }
    (void)str_copy(damage.vm, sizeof(damage.vm), text);
    log_warn("break=%s: vm %s will not run: its hardware state is broken on purpose", word, text);
}

static void apply_damage(struct vcpu *v, bool late)
{
    if (unlikely(damage.vm[0] != '\0') && damage.late == late &&
        str_equal(damage.vm, v->vm->config.name)) {
        hv->poke(v, damage.field, damage.value);
    }
}

/* ---- Checks ---- */

static void keep_quiet(void *arg, const char *field, uint64_t value, const char *rule,
                       const char *section)
{
    (void)arg;
    (void)field;
    (void)value;
    (void)rule;
    (void)section;
}

static void say(void *arg, const char *field, uint64_t value, const char *rule, const char *section)
{
    const struct vcpu *v = arg;

    log_error("vm %s: vcpu %u: VM entry: %s = %#llx: must hold: %s (manual: \"%s\")",
              v->vm->config.name, v->id, field, (unsigned long long)value, rule, section);
}

bool doctor_is_sound(struct vcpu *v)
{
    return hv->check(v, keep_quiet, v) == 0;
}

void doctor_dump(struct vcpu *v)
{
    hv->dump(v);
    for (unsigned i = 0; i < NR_GPRS; i += 4) {
        log_error("  gpr%-2u %#llx %#llx %#llx %#llx", i, (unsigned long long)v->gpr[i],
                  (unsigned long long)v->gpr[i + 1], (unsigned long long)v->gpr[i + 2],
                  (unsigned long long)v->gpr[i + 3]);
    }
}

void doctor_stop(struct vcpu *v)
{
    if (hv->check(v, say, v) == 0) {
        log_error("vm %s: vcpu %u: no rule that is known here was broken", v->vm->config.name,
                  v->id);
    }
    doctor_dump(v);
    vm_stop_request(v->vm, STOP_ENTRY_FAILED, 0, "VM entry failed");
}

void doctor_first_entry(struct vcpu *v)
{
    apply_damage(v, false);
    if (!doctor_is_sound(v)) {
        log_error("vm %s: vcpu %u: not entered: its state breaks a rule", v->vm->config.name,
                  v->id);
        doctor_stop(v);
    }
    apply_damage(v, true);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Salts. A text of the configuration becomes the number of its place in a list that only grows; 0 is
 * the salt of VMs that have none in common, and a VM that shares with nobody else has one of its own.
 * Called by start.c when a VM's memory is built.
 */
#include "kernel/vm/salt.h"

#include "kernel/lib/spinlock.h"
#include "kernel/lib/string.h"
#include "kernel/options.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define SALT_NONE 0u
#define SALT_OWN 0x80000000u /* and the VM's id */

struct salt {
    struct salt *next;
    uint32_t number;
    char text[CONFIG_SALT_MAX];
};

static struct spinlock lock = SPINLOCK_INIT(RANK_CONFIG, "salts");
static struct salt *salts; /* newest first; lock */

/* Locked. */
static uint32_t find(const char *text)
{
    for (const struct salt *s = salts; s != NULL; s = s->next) {
        if (str_equal(s->text, text)) {
            return s->number;
        }
    }
    return SALT_NONE;
}

/* Find the text, or enter it by the record `fresh`, if that is given; what is not needed of it is
 * returned by *unused. */
static uint32_t find_or_enter(const char *text, struct salt *fresh, struct salt **unused)
{
    uint32_t number;

    *unused = fresh;
    spin_lock(&lock);
    number = find(text);
    if (number == SALT_NONE && fresh != NULL) {
        str_copy(fresh->text, sizeof(fresh->text), text);
        fresh->next = salts;
        fresh->number = salts != NULL ? salts->number + 1 : 1;
        number = fresh->number;
        salts = fresh;
        *unused = NULL;
    }
    spin_unlock(&lock);
    return number;
}

/* SALT_NONE: no memory to remember it. */
static uint32_t number_of(const char *text)
{
    struct salt *unused;
    uint32_t number = find_or_enter(text, NULL, &unused);

    if (number == SALT_NONE) {
        number = find_or_enter(text, kmalloc(sizeof(struct salt), OWNER_HOST), &unused);
        kfree(unused);
    }
    return number;
}

uint32_t salt_of(const struct vm *vm)
{
    uint64_t mode = options_get(OPT_SHARE_FORCE_SALTING);
    uint32_t number = SALT_NONE;

    if (mode != 0 && vm->config.salt[0] != '\0') {
        number = number_of(vm->config.salt);
        if (number == SALT_NONE) {
            return SALT_OWN | vm->id;
        }
    }
    return mode == 2 && number == SALT_NONE ? SALT_OWN | vm->id : number;
}

bool salt_is_common(uint32_t salt)
{
    return !(salt & SALT_OWN);
}

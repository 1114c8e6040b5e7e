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

static uint32_t find(const char *text)
{
    uint32_t number = SALT_NONE;

    spin_lock(&lock);
    for (const struct salt *s = salts; s != NULL && number == SALT_NONE; s = s->next) {
        if (str_equal(s->text, text)) {
            number = s->number;
        }
    }
    spin_unlock(&lock);
    return number;
}

/* SALT_NONE: no memory to remember it. */
static uint32_t number_of(const char *text)
{
    uint32_t number = find(text);
    struct salt *fresh;

    if (number != SALT_NONE) {
        return number;
    }
    fresh = kmalloc(sizeof(*fresh), OWNER_HOST);
    if (fresh == NULL) {
        return SALT_NONE;
    }
    str_copy(fresh->text, sizeof(fresh->text), text);
    spin_lock(&lock);
    fresh->next = salts;
    fresh->number = salts != NULL ? salts->number + 1 : 1;
    number = fresh->number;
    salts = fresh;
    spin_unlock(&lock);
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ballast.conf may say: the tables behind the parser (kernel/vm/config.c). A new key is a line here, a
 * field of config.h and a row of docs/configuration.md.
 */
#pragma once

#include "kernel/lib/types.h"

enum config_key_type {
    KEY_SIZE,
    KEY_U64,
    KEY_UNSIGNED,
    KEY_SHARES,
    KEY_MEM_SHARES,
    KEY_MODULE,
    KEY_MODULES, /* names with arguments, between commas */
    KEY_DISK,    /* a module, or disk:NAME */
    KEY_SWAP,    /* off, auto, disk:NAME, ram:SIZE */
    KEY_TEXT,
    KEY_CHOICE,
    KEY_BOOL
};

struct config_key {
    const char *name;
    enum config_key_type type;
    size_t offset;        /* of the field in its struct */
    size_t given;         /* of the bool that says that it was set; 0: none */
    uint64_t low, high;   /* numbers: range; texts: high is the field's size */
    const char *choices;  /* KEY_CHOICE, KEY_BOOL: words separated by '|', in the enum's order */
    const char *accepted; /* for messages */
    bool required;
};

#define CONFIG_NR_HOST_KEYS 6u
#define CONFIG_NR_VM_KEYS 24u
/* In host_config, before the first section. */
extern const struct config_key config_host_keys[CONFIG_NR_HOST_KEYS];
/* In vm_config, in a section. */
extern const struct config_key config_vm_keys[CONFIG_NR_VM_KEYS];

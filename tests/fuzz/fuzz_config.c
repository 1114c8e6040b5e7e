/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the text of ballast.conf. An error is reported if and only if one is returned, messages are
 * ended lines of text, and what is accepted is within its bounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vm/config.h"

static struct config config;
static unsigned reports;

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void report(void *arg, const char *message)
{
    (void)arg;
    check(strlen(message) > 0 && !strchr(message, '\n'), "a message that is not a line");
    reports++;
}

static bool module_exists(const char *name)
{
    return strcmp(name, "vmlinuz") == 0 || strcmp(name, "disk.img") == 0;
}

static void check_vm(const struct vm_config *c)
{
    check(memchr(c->name, 0, sizeof c->name) && memchr(c->kernel, 0, sizeof c->kernel) &&
              memchr(c->initrd, 0, sizeof c->initrd) && memchr(c->salt, 0, sizeof c->salt) &&
              memchr(c->cmdline, 0, sizeof c->cmdline),
          "an endless string");
    if (!c->bad) {
        check(c->name[0] && c->vcpus >= 1 && c->vcpus <= 16, "a VM out of bounds");
        check(c->memory_bytes > 0 && c->memory_bytes % 4096 == 0, "memory that is no pages");
        check(module_exists(c->kernel), "a kernel that is not there");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size ? size : 1);

    memcpy(text, data, size);
    reports = 0;
    enum hv_err err =
        config_parse("ballast.conf", text, size, module_exists, report, NULL, &config);
    check((err == HV_EINVAL) == (reports > 0), "an error without a report, or the other way");
    check(config.nr_vms <= CONFIG_MAX_VMS, "too many VMs");
    for (unsigned i = 0; i < config.nr_vms; i++) {
        check_vm(&config.vms[i]);
    }
    free(text);
    return 0;
}

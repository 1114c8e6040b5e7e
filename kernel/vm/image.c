/* SPDX-License-Identifier: BSD-2-Clause */
/* See image.h. */
#include "kernel/vm/image.h"

#include "arch/x86_64/hostmap.h"
#include "boot/bootinfo.h"
#include "kernel/log.h"
#include "kernel/main.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/vm.h"

enum hv_err image_find(const struct vm *vm, const char *what, const char *name,
                       struct loader_image *out)
{
    const struct boot_module *m;

    *out = (struct loader_image){.name = name};
    if (name[0] == '\0') {
        return HV_OK;
    }
    m = bootinfo_module(main_boot_info(), name);
    if (m == NULL) {
        log_error("vm %s: %s: no boot module is called '%s'", vm->config.name, what, name);
        return HV_ENOENT;
    }
    out->data = phys_ptr(HPA(m->base));
    out->size = m->size;
    return HV_OK;
}

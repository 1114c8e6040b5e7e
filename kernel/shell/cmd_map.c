/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command that draws a VM's memory.
 */
#include "kernel/shell/commands.h"

#include "kernel/vm/memmap.h"
#include "kernel/vm/vm.h"

#define PER_LINE 64u /* characters: 128 MiB */

static void print_map(struct vm *vm)
{
    struct memmap_part part;
    char text[PER_LINE];
    gpa_t at = GPA(0);
    bool any = false;

    while (memmap_read(vm, &at, text, PER_LINE, &part)) {
        any = true;
        shell_print("0x%010llx |%.*s|\n", (unsigned long long)part.first.a, (int)part.nr, text);
    }
    if (!any) {
        shell_error("map", "%s has no memory that can be shown", vm->config.name);
        return;
    }
    shell_print(
        "a character is 2 MiB: 0-9 a large page, by seconds since it was used; P own pages, S "
        "shared,\nZ zero, B ballooned, C compressed, D on disk, . untouched; capitals: three "
        "quarters or more\n");
}

void cmd_map(unsigned nr, char **args)
{
    struct vm *vm = vm_find(args[1]);

    (void)nr;
    if (vm == NULL) {
        shell_error("map", "no VM '%s'; `vms` lists them", args[1]);
        return;
    }
    print_map(vm);
    vm_put(vm);
}

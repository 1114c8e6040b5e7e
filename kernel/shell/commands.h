/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands' functions, for the table in shell.c. `nr` counts args[0], the command's name.
 */
#pragma once

#include "kernel/shell/shell.h"

/* cmd_host.c */
void cmd_help(unsigned nr, char **args);
void cmd_log(unsigned nr, char **args);
void cmd_log_complete(unsigned index, struct line_completions *c);
void cmd_cpus(unsigned nr, char **args);
void cmd_threads(unsigned nr, char **args);
void cmd_modules(unsigned nr, char **args);
void cmd_version(unsigned nr, char **args);
void cmd_poweroff(unsigned nr, char **args);
void cmd_reboot(unsigned nr, char **args);

/* cmd_vm.c */
void cmd_vms(unsigned nr, char **args);
void cmd_vm(unsigned nr, char **args);
void cmd_vm_complete(unsigned index, struct line_completions *c);

/* cmd_console.c */
void cmd_console(unsigned nr, char **args);
void cmd_console_complete(unsigned index, struct line_completions *c);

/* cmd_disk.c */
void cmd_disks(unsigned nr, char **args);
void cmd_swap(unsigned nr, char **args);
void cmd_swap_complete(unsigned index, struct line_completions *c);

/* cmd_share.c */
void cmd_set(unsigned nr, char **args);
void cmd_set_complete(unsigned index, struct line_completions *c);
void cmd_share(unsigned nr, char **args);
void cmd_share_complete(unsigned index, struct line_completions *c);

/* cmd_why.c */
void cmd_why(unsigned nr, char **args);
void cmd_why_complete(unsigned index, struct line_completions *c);

/* cmd_balloon.c */
void cmd_balloon(unsigned nr, char **args);
void cmd_balloon_complete(unsigned index, struct line_completions *c);

/* cmd_map.c */
void cmd_map(unsigned nr, char **args);

/* cmd_mem.c */
void cmd_mem(unsigned nr, char **args);
void cmd_mem_complete(unsigned index, struct line_completions *c);
void cmd_audit(unsigned nr, char **args);
void cmd_digest(unsigned nr, char **args);

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ballast.conf: an INI file. Host options come first, outside any section; then one section per VM,
 * whose name is the VM's. One table of keys holds name, type, range and default; every error names
 * file, line, key and what is accepted, and spoils only its own VM. Pure: parses text into structs.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/options.h"

#define CONFIG_MAX_VMS 256
#define CONFIG_NAME_MAX 32
#define CONFIG_CMDLINE_MAX 2048
#define CONFIG_MODULE_MAX 64
#define CONFIG_SALT_MAX 64

enum config_identity { IDENTITY_VMWARE, IDENTITY_NONE };
enum config_largepages { LARGEPAGES_AUTO, LARGEPAGES_OFF };
enum config_output { OUTPUT_RING, OUTPUT_LOG }; /* log: guest's lines also go to the host log */
enum config_mmu { MMU_AUTO, MMU_HARDWARE };
enum config_on_reset { ON_RESET_STOP, ON_RESET_RESTART };

struct vm_config {
    char name[CONFIG_NAME_MAX];
    unsigned line;                  /* of the section, for messages */
    uint64_t memory_bytes;          /* `memory = 256M` (K, M, G suffixes; bare number: MiB) */
    unsigned vcpus;                 /* 1 .. 16 */
    char kernel[CONFIG_MODULE_MAX]; /* module names */
    char initrd[CONFIG_MODULE_MAX]; /* empty: none */
    char cmdline[CONFIG_CMDLINE_MAX];
    enum config_identity identity;
    enum config_largepages largepages;
    enum config_mmu mmu;
    enum config_output output;
    enum config_on_reset on_reset;
    char salt[CONFIG_SALT_MAX]; /* VMs of one salt share pages; empty: none was given */
    unsigned cpu_shares;        /* low 500, normal 1000, high 2000, or a number; per vCPU */
    bool autostart;             /* `start = auto|manual` */
    bool bad;                   /* an error was reported for it: not to be started */
};

struct host_config {
    uint64_t seed;      /* `seed = N`; valid with have_seed */
    bool have_seed;     /* it was given */
    unsigned log_level; /* `loglevel = error|warn|info|debug` */
    bool option_given[NR_OPTIONS];
    uint64_t option[NR_OPTIONS]; /* `Mem.ShareScanTime = N`; valid if given */
};

struct config {
    struct host_config host;
    unsigned nr_vms;
    struct vm_config vms[CONFIG_MAX_VMS];
};

/* Called once per problem: "ballast.conf:12: memory: '12Q' is not a size; accepted: ...". */
typedef void (*config_report_t)(void *arg, const char *message);

/*
 * Parse `len` bytes of `text` (not NUL-terminated, hostile). `module_exists` says whether a boot
 * module of that name is there (NULL: do not check). Always fills `out`; HV_EINVAL if anything was
 * reported. VMs with bad == true must not start; the others may.
 */
enum hv_err config_parse(const char *file, const char *text, size_t len,
                         bool (*module_exists)(const char *name), config_report_t report, void *arg,
                         struct config *out);

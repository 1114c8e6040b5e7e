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
#define CONFIG_SHARES_MAX 1000000000u
#define CONFIG_SALT_MAX 64
#define CONFIG_SWAP_MAX 64
#define CONFIG_MODULES_MAX 512
#define CONFIG_NR_MODULES 8u        /* beside kernel and initrd */
#define CONFIG_MODULE_ARGS_MAX 128u /* of one of them */
#define CONFIG_DISK_HOST "disk:"    /* a `disk` that begins so names one of the host's */

enum config_identity { IDENTITY_VMWARE, IDENTITY_NONE };
enum config_largepages { LARGEPAGES_AUTO, LARGEPAGES_OFF };
enum config_output { OUTPUT_RING, OUTPUT_LOG }; /* log: guest's lines also go to the host log */
enum config_mmu { MMU_AUTO, MMU_HARDWARE, MMU_SOFTWARE };
enum config_swap { SWAP_AUTO, SWAP_OFF };
enum config_console { CONSOLE_SERIAL, CONSOLE_VIRTIO };
enum config_balloon { BALLOON_KEY_VMWARE, BALLOON_KEY_VIRTIO, BALLOON_KEY_NONE };
enum config_switch { SWITCH_OFF, SWITCH_ON };
enum config_shares { SHARES_NORMAL, SHARES_LOW, SHARES_HIGH, SHARES_NUMBER };
enum config_overcommit { OVERCOMMIT_BACKED, OVERCOMMIT_UNBACKED };
enum config_on_reset { ON_RESET_STOP, ON_RESET_RESTART };

struct vm_config {
    char name[CONFIG_NAME_MAX];
    unsigned line;                    /* of the section, for messages */
    uint64_t memory_bytes;            /* `memory = 256M` (K, M, G suffixes; bare number: MiB) */
    uint64_t min_bytes;               /* machine memory that it is guaranteed */
    uint64_t max_bytes;               /* that it gets at most; without, all of `memory` */
    bool have_max;                    /* it was given */
    enum config_shares shares_kind;   /* `shares = low|normal|high|N`: of machine memory */
    uint64_t shares;                  /* with SHARES_NUMBER; see config_shares */
    uint64_t maxmemctl_bytes;         /* its balloon's limit beside Mem.CtlMaxPercent */
    bool have_maxmemctl;              /* it was given */
    unsigned vcpus;                   /* 1 .. 16 */
    char kernel[CONFIG_MODULE_MAX];   /* module names */
    char initrd[CONFIG_MODULE_MAX];   /* empty: none */
    char modules[CONFIG_MODULES_MAX]; /* `modules = NAME ARGS, NAME ARGS`; empty: none */
    char cmdline[CONFIG_CMDLINE_MAX];
    enum config_identity identity;
    enum config_largepages largepages;
    enum config_mmu mmu;
    enum config_output output;
    enum config_on_reset on_reset;
    enum config_swap swap;        /* off: its pages are never compressed or swapped */
    char disk[CONFIG_MODULE_MAX]; /* module that holds an image, or disk:NAME; empty: none */
    enum config_switch disk_readonly;
    enum config_console console; /* what `console NAME` types to */
    enum config_balloon balloon; /* the kind of driver that may come */
    enum config_switch rng;      /* a virtio entropy device */
    char salt[CONFIG_SALT_MAX];  /* VMs of one salt share pages; empty: none was given */
    unsigned cpu_shares;         /* low 500, normal 1000, high 2000, or a number; per vCPU */
    bool autostart;              /* `start = auto|manual` */
    bool bad;                    /* an error was reported for it: not to be started */
};

struct host_config {
    uint64_t seed;                     /* `seed = N`; valid with have_seed */
    bool have_seed;                    /* it was given */
    enum config_overcommit overcommit; /* unbacked: VMs may be promised more than memory and swap */
    enum { ENCRYPT_ON, ENCRYPT_OFF } swap_encrypt; /* `swap.encrypt = on|off` */
    char swap[CONFIG_SWAP_MAX]; /* `swap = off|auto|disk:NAME|ram:SIZE`; empty: not given */
    /* `telemetry = ...`: as telemetry_start takes it */
    enum {
        TELEMETRY_AUTO,
        TELEMETRY_OFF,
        TELEMETRY_COM1,
        TELEMETRY_COM2,
        TELEMETRY_COM3,
        TELEMETRY_COM4,
        NR_TELEMETRY
    } telemetry;
    unsigned log_level; /* `loglevel = error|warn|info|debug` */
    bool option_given[NR_OPTIONS];
    uint64_t option[NR_OPTIONS]; /* `Mem.ShareScanTime = N`; valid if given */
};

struct config {
    struct host_config host;
    unsigned nr_vms;
    struct vm_config vms[CONFIG_MAX_VMS];
};

/* Bytes of machine memory that are guaranteed to a VM of these `min` and `max`: all of max where its pages may
 * not be swapped (`swap = off`), for they have no other place. Whoever counts with a min asks here. */
uint64_t config_guaranteed(const struct vm_config *vm, uint64_t min_bytes, uint64_t max_bytes);
/* A VM's shares of machine memory: its number, or by its size. */
uint64_t config_shares(const struct vm_config *vm);
/* The value of `shares = TEXT` for a VM of that memory. HV_EINVAL, HV_ERANGE. */
enum hv_err config_parse_shares(const char *text, uint64_t memory_bytes,
                                uint64_t *shares) __must_check;
#define CONFIG_SHARES_ACCEPTED \
    "low (5 per MB), normal (10), high (20), a number from 0 to 1000000000"
/* Is this a value of the host option `swap`? */
bool config_is_swap(const char *value);
#define CONFIG_TELEMETRY_ACCEPTED "auto, off, com1, com2, com3, com4"
#define CONFIG_SWAP_ACCEPTED "off, auto, disk:NAME, ram:SIZE (from 4M)"

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

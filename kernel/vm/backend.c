/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Choosing the vendor at boot. The only common file that names vendors.
 */
#include "kernel/vm/backend.h"

#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "svm/svm.h"
#include "vmx/vmx.h"

static const struct hv_backend *const vendors[] = {&svm_backend, &vmx_backend};

const struct hv_backend *hv;
struct backend_caps hv_caps;

enum hv_err backend_select(void)
{
    char missing[sizeof(hv_caps.missing)] = "";
    size_t used = 0;
    bool found = false; /* a vendor whose extension is there, but lacks something */

    for (size_t i = 0; i < ARRAY_SIZE(vendors); i++) {
        hv_caps = (struct backend_caps){0};
        if (vendors[i]->probe(&hv_caps) == HV_OK) {
            hv = vendors[i];
            return HV_OK;
        }
        if (hv_caps.present && !found) {
            found = true;
            used = 0;
        }
        if (hv_caps.present || !found) {
            used += scnprintf(missing + used, sizeof(missing) - used, "%s%s", used > 0 ? "; " : "",
                              hv_caps.missing);
        }
    }
    str_copy(hv_caps.missing, sizeof(hv_caps.missing), missing);
    return HV_ENOTSUP;
}

enum hv_err backend_enable_cpu(void)
{
    return hv->cpu_enable();
}

const char *exit_kind_name(enum exit_kind kind)
{
    static const char *const names[NR_EXIT_KINDS] = {
        [EXIT_NONE] = "none",
        [EXIT_INTERRUPT] = "interrupt",
        [EXIT_NMI] = "nmi",
        [EXIT_PORT] = "port",
        [EXIT_STRING_IO] = "string-io",
        [EXIT_MEMORY] = "memory",
        [EXIT_PAGE_FAULT] = "page-fault",
        [EXIT_CPUID] = "cpuid",
        [EXIT_MSR] = "msr",
        [EXIT_CR] = "cr",
        [EXIT_DR] = "dr",
        [EXIT_HLT] = "hlt",
        [EXIT_PAUSE] = "pause",
        [EXIT_RDTSC] = "rdtsc",
        [EXIT_RDPMC] = "rdpmc",
        [EXIT_XSETBV] = "xsetbv",
        [EXIT_WBINVD] = "wbinvd",
        [EXIT_INVLPG] = "invlpg",
        [EXIT_MONITOR] = "monitor",
        [EXIT_MWAIT] = "mwait",
        [EXIT_HYPERCALL] = "hypercall",
        [EXIT_VIRT_INSN] = "virt-insn",
        [EXIT_EXCEPTION] = "exception",
        [EXIT_IRQ_WINDOW] = "irq-window",
        [EXIT_NMI_WINDOW] = "nmi-window",
        [EXIT_TASK_SWITCH] = "task-switch",
        [EXIT_EMULATE] = "emulate",
        [EXIT_SHUTDOWN] = "shutdown",
        [EXIT_INIT] = "init",
        [EXIT_MACHINE_CHECK] = "machine-check",
        [EXIT_ENTRY_FAILED] = "entry-failed",
        [EXIT_UNKNOWN] = "unknown",
    };

    return kind < NR_EXIT_KINDS ? names[kind] : "?";
}

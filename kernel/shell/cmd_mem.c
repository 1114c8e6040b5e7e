/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about memory. The screen follows esxtop's memory screen, its names and definitions.
 */
#include "kernel/shell/commands.h"

#include "kernel/shell/format.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/vm.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/share/share.h"
#include "mm/slab.h"
#include "mm/view.h"

static uint64_t frames_mb(uint64_t frames)
{
    return frames * PAGE_SIZE / MIB(1);
}

/* esxtop's PSHARE line, and what accounting for frames and contents costs. */
static void print_sharing_of_host(const struct buddy_stats *s)
{
    struct share_stats share;

    share_stats(&share);
    uint64_t metadata = s->table_bytes + share.table_bytes;
    uint64_t per_mille100 = s->total != 0 ? metadata * 100000 / (s->total * PAGE_SIZE) : 0;

    shell_print("PSHARE/MB: %6llu shared, %6llu common, %6llu saving\n",
                (unsigned long long)frames_mb(share.pages),
                (unsigned long long)frames_mb(share.common),
                (unsigned long long)frames_mb(share.pages - MIN(share.common, share.pages)));
    shell_print("META  /KB: %llu frame table, %llu content index (at most %llu): %llu.%03llu %% of "
                "memory\n",
                (unsigned long long)(s->table_bytes / KIB(1)),
                (unsigned long long)(share.table_bytes / KIB(1)),
                (unsigned long long)(share.table_max_bytes / KIB(1)),
                (unsigned long long)(per_mille100 / 1000),
                (unsigned long long)(per_mille100 % 1000));
}

static void print_host(void)
{
    struct buddy_stats s;

    buddy_stats(&s);
    uint64_t structures = s.used[FRAME_P2M] + s.used[FRAME_VIEW] + s.used[FRAME_VM];
    uint64_t guest = s.used[FRAME_GUEST] + s.used[FRAME_SHARED];
    uint64_t other = guest + structures;

    shell_print("PMEM  /MB: %6llu total: %6llu vmk, %6llu other, %6llu free\n",
                (unsigned long long)frames_mb(s.total),
                (unsigned long long)frames_mb(s.used[FRAME_HOST]),
                (unsigned long long)frames_mb(other), (unsigned long long)frames_mb(s.free));
    shell_print("VM    /KB: %llu guest memory, %llu overhead\n",
                (unsigned long long)(guest * PAGE_SIZE / KIB(1)),
                (unsigned long long)(structures * PAGE_SIZE / KIB(1)));
    shell_print("VMK   /KB: %llu bytes in small objects; %llu frames retired\n",
                (unsigned long long)kmalloc_bytes(OWNER_HOST),
                (unsigned long long)s.used[FRAME_RETIRED]);
    if (s.total_high > 0) {
        shell_print("HIGH  /MB: %llu total above 4 GiB, %llu of it used\n",
                    (unsigned long long)frames_mb(s.total_high),
                    (unsigned long long)frames_mb(s.total_high - s.free_high));
    }
    print_sharing_of_host(&s);
    shell_print("FREE     :");
    for (unsigned order = 0; order <= BUDDY_MAX_ORDER; order++) {
        if (s.free_blocks[order] > 0) {
            char size[FORMAT_MAX];

            shell_print(" %llux%s", (unsigned long long)s.free_blocks[order],
                        format_size(size, PAGE_SIZE << order));
        }
    }
    shell_print("\n");
}

struct sums {
    struct p2m_counters p;
    uint64_t overhead, saved, hints, under_large;
    struct share_stats share; /* of the host */
    unsigned nr;
};

/* What sharing saves vm: its shared pages but for its part of the frames that they stand on, which
 * all pages on shared frames bear alike. The VMs' savings and the zero frame make the host's. */
static uint64_t saved_by(const struct p2m_counters *p, const struct share_stats *host)
{
    uint64_t pages = host->pages - MIN(host->zero, host->pages);
    uint64_t frames = MIN(host->common, pages);

    return p->zero + p->shared - (pages != 0 ? MIN(p->shared * frames / pages, p->shared) : 0);
}

static void print_row(const char *name, const struct p2m_counters *p, uint64_t overhead,
                      uint64_t saved)
{
    char memsz[FORMAT_MAX], grant[FORMAT_MAX], cnsm[FORMAT_MAX];
    uint64_t large = p->large_2m * 512 + p->large_1g * 262144;

    shell_print("%-15s %9s %9s %9s %8llu %6llu %6llu %9llu\n", name,
                format_mb(memsz, p->ram * PAGE_SIZE), format_mb(grant, p->granted * PAGE_SIZE),
                format_mb(cnsm, (p->granted - MIN(saved, p->granted)) * PAGE_SIZE),
                (unsigned long long)(overhead / KIB(1)), (unsigned long long)p->large_1g,
                (unsigned long long)p->large_2m,
                (unsigned long long)(p->granted > large ? p->granted - large : 0));
}

static bool print_vm(struct vm *vm, void *arg)
{
    struct sums *sum = arg;
    struct p2m_counters p;
    struct view_stats view;

    vm_memory_counters(vm, &p, &view);
    uint64_t overhead = vm_overhead_bytes(vm);
    uint64_t saved = saved_by(&p, &sum->share);

    p.ram = vm->config.memory_bytes / PAGE_SIZE; /* MEMSZ is what was configured */
    print_row(vm->config.name, &p, overhead, saved);
    sum->p.ram += p.ram;
    sum->p.granted += p.granted;
    sum->p.shared += p.shared;
    sum->p.zero += p.zero;
    sum->p.large_1g += p.large_1g;
    sum->p.large_2m += p.large_2m;
    sum->overhead += overhead;
    sum->saved += saved;
    sum->nr++;
    return true;
}

static void print_sharing_row(const char *name, const struct p2m_counters *p,
                              const struct sums *sum)
{
    char shrd[FORMAT_MAX], saved[FORMAT_MAX], zero[FORMAT_MAX], cowh[FORMAT_MAX], large[FORMAT_MAX];

    shell_print(
        "%-15s %9s %10s %9s %9s %9s", name, format_mb(shrd, (p->shared + p->zero) * PAGE_SIZE),
        format_mb(saved, sum->saved * PAGE_SIZE), format_mb(zero, p->zero * PAGE_SIZE),
        format_mb(cowh, sum->hints * PAGE_SIZE), format_mb(large, sum->under_large * PAGE_SIZE));
}

static bool print_vm_sharing(struct vm *vm, void *arg)
{
    struct sums *all = arg;
    struct sums one = {.share = all->share};
    struct scan_stats scan;
    struct view_stats view;
    struct p2m_counters p;

    vm_memory_counters(vm, &p, &view);
    sharing_stats(vm, &scan);
    one.saved = saved_by(&p, &all->share);
    one.hints = scan.hints;
    one.under_large = scan.under_large;
    all->hints += scan.hints;
    all->under_large += scan.under_large;
    print_sharing_row(vm->config.name, &p, &one);
    shell_print(" %7llu\n", (unsigned long long)(sharing_rate(vm) / 1000));
    return true;
}

void cmd_mem(unsigned nr, char **args)
{
    struct sums sum = {0};

    (void)nr;
    (void)args;
    print_host();
    share_stats(&sum.share);
    shell_print("%-15s %9s %9s %9s %8s %6s %6s %9s\n", "NAME", "MEMSZ/MB", "GRANT/MB", "CNSM/MB",
                "OVHD/KB", "1G", "2M", "4K");
    vm_for_each(print_vm, &sum);
    if (sum.nr > 1) {
        print_row("(all)", &sum.p, sum.overhead, sum.saved);
    }
    shell_print("%-15s %9s %10s %9s %9s %9s %7s\n", "SHARING", "SHRD/MB", "SHRDSVD/MB", "ZERO/MB",
                "COWH/MB", "LARGE/MB", "SCAN/s");
    vm_for_each(print_vm_sharing, &sum);
    if (sum.nr > 1) {
        print_sharing_row("(all)", &sum.p, &sum);
        shell_print("\n");
    }
}

static bool audit_vm(struct vm *vm, void *arg)
{
    bool *good = arg;
    bool ok = vm_audit(vm);

    shell_print("  %-15s %s\n", vm->config.name,
                ok ? "every page counted" : "DISAGREES; see `log`");
    *good = *good && ok;
    return true;
}

static bool audit_sharing(void)
{
    bool certain;
    bool ok = share_audit(&certain);

    shell_print("  %-15s %s\n", "sharing",
                !ok       ? "DISAGREES; see `log`"
                : certain ? "every reference counted"
                          : "too busy to count references");
    return ok;
}

void cmd_audit(unsigned nr, char **args)
{
    bool good = mm_audit();
    struct buddy_stats stats;

    (void)nr;
    (void)args;
    buddy_stats(&stats);
    shell_print("  %-15s %s\n", "machine", good ? "every frame counted" : "DISAGREES; see `log`");
    shell_print("  %-15s %llu frames free of %llu\n", "", (unsigned long long)stats.free,
                (unsigned long long)stats.total);
    vm_for_each(audit_vm, &good);
    good = audit_sharing() && good;
    shell_print("audit: %s\n", good ? "passed" : "FAILED");
}

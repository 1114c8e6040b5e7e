/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs bench.elf under KVM: the smallest host that can, so that `make bench-peers` re-measures the
 * peer's figures with the very same guest. A static Linux program; runs inside a Linux guest.
 *
 *   kvm_vmm bench.elf "rows=all present=1" [VCPUS]
 *
 * 512 MiB of RAM. Below 128 MiB it is backed by 4 KiB pages, above by 2 MiB ones; the areas that
 * bench.h calls PRESENT are populated beforehand. The guest starts as Multiboot1 says and sees a
 * COM1, the power-off port, and KVM's own interrupt controllers.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define RAM_BYTES (512 * MIB)
#define SMALL_PAGES_END (128 * MIB)
#define PRESENT_4K_BASE (64 * MIB)
#define PRESENT_4K_BYTES (32 * MIB)
#define PRESENT_2M_BASE (256 * MIB)
#define PRESENT_2M_BYTES (128 * MIB)

#define INFO_ADDR 0x10000
#define CMDLINE_ADDR 0x11000
#define BOOT_MAGIC 0x2badb002
#define INFO_MEMORY (1 << 0)
#define INFO_CMDLINE (1 << 2)
#define TSS_ADDR 0xfffbd000UL

#define PORT_COM1 0x3f8
#define PORT_COM1_LSR 0x3fd
#define LSR_EMPTY 0x60
#define PORT_SLEEP_CONTROL 0x600
#define PORT_DEBUG_EXIT 0xf4

#define MAX_CPUID 200
#define MAX_VCPUS 2

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

struct vcpu {
    int fd;
    struct kvm_run *run;
};

static int kvm, vm;
static uint8_t *ram;
static struct kvm_cpuid2 *supported;
static uint64_t exits[64];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void load_elf(const char *path, uint64_t *entry)
{
    static uint8_t file[2 * MIB];
    FILE *f = fopen(path, "rb");
    size_t size = f ? fread(file, 1, sizeof file, f) : 0;
    const Elf32_Ehdr *e = (const Elf32_Ehdr *)file;
    if (size < sizeof *e || memcmp(e->e_ident, ELFMAG, SELFMAG) != 0 ||
        e->e_ident[EI_CLASS] != ELFCLASS32) {
        fprintf(stderr, "%s: no ELF32 file\n", path);
        exit(1);
    }
    fclose(f);
    for (int i = 0; i < e->e_phnum; i++) {
        const Elf32_Phdr *p = (const Elf32_Phdr *)(file + e->e_phoff) + i;
        if (p->p_type == PT_LOAD) {
            memcpy(ram + p->p_paddr, file + p->p_offset, p->p_filesz);
        }
    }
    *entry = e->e_entry;
}

static void make_vm(void)
{
    kvm = open("/dev/kvm", O_RDWR);
    vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0) {
        die("/dev/kvm");
    }
    if (ioctl(vm, KVM_SET_TSS_ADDR, TSS_ADDR) || ioctl(vm, KVM_CREATE_IRQCHIP, 0)) {
        die("interrupt controllers");
    }
    ram = mmap((void *)0x7f0000000000UL, RAM_BYTES, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (ram == MAP_FAILED) {
        die("memory");
    }
    madvise(ram, SMALL_PAGES_END, MADV_NOHUGEPAGE);
    if (madvise(ram + SMALL_PAGES_END, RAM_BYTES - SMALL_PAGES_END, MADV_HUGEPAGE)) {
        perror("large pages");
    }
    struct kvm_userspace_memory_region region = {
        .memory_size = RAM_BYTES,
        .userspace_addr = (uint64_t)ram,
    };
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) {
        die("memory slot");
    }
    memset(ram, 0, 8 * MIB);
    memset(ram + PRESENT_4K_BASE, 1, PRESENT_4K_BYTES);
    memset(ram + PRESENT_2M_BASE, 1, PRESENT_2M_BYTES);
    supported = calloc(1, sizeof *supported + MAX_CPUID * sizeof supported->entries[0]);
    supported->nent = MAX_CPUID;
    if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, supported)) {
        die("CPUID");
    }
}

static void set_cpuid(int fd, unsigned int id)
{
    for (unsigned int i = 0; i < supported->nent; i++) {
        struct kvm_cpuid_entry2 *e = &supported->entries[i];
        if (e->function == 1) {
            e->ebx = (e->ebx & 0xffffff) | (id << 24);
            e->ecx |= 1 << 21; /* x2APIC: KVM emulates it in any case */
        } else if (e->function == 0xb) {
            e->edx = id;
        }
    }
    if (ioctl(fd, KVM_SET_CPUID2, supported)) {
        die("set CPUID");
    }
}

static struct vcpu make_vcpu(unsigned int id)
{
    struct vcpu v = {.fd = ioctl(vm, KVM_CREATE_VCPU, id)};
    long size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    v.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, v.fd, 0);
    if (v.fd < 0 || v.run == MAP_FAILED) {
        die("vCPU");
    }
    set_cpuid(v.fd, id);
    return v;
}

/* "Machine state" of the Multiboot specification: flat 32-bit protected mode, no paging. */
static void set_boot_state(int fd, uint64_t entry)
{
    struct kvm_sregs s;
    if (ioctl(fd, KVM_GET_SREGS, &s)) {
        die("registers");
    }
    struct kvm_segment code = {
        .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_segment data = code;
    data.selector = 16;
    data.type = 3;
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cr0 = 0x11;
    struct kvm_regs r = {.rip = entry, .rflags = 2, .rax = BOOT_MAGIC, .rbx = INFO_ADDR};
    if (ioctl(fd, KVM_SET_SREGS, &s) || ioctl(fd, KVM_SET_REGS, &r)) {
        die("set registers");
    }
}

/* True when the guest has ended. */
static int port_access(struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    if (run->io.direction == KVM_EXIT_IO_OUT) {
        if (run->io.port == PORT_COM1) {
            putchar(*data);
        }
        return run->io.port == PORT_SLEEP_CONTROL || run->io.port == PORT_DEBUG_EXIT;
    }
    memset(data, run->io.port == PORT_COM1_LSR ? LSR_EMPTY : 0xff, run->io.size * run->io.count);
    return 0;
}

static int loop(struct vcpu v)
{
    for (;;) {
        if (ioctl(v.fd, KVM_RUN, 0)) {
            /* EAGAIN: a processor that was waiting for its start has got it. */
            if (errno != EINTR && errno != EAGAIN) {
                die("run");
            }
            continue;
        }
        exits[v.run->exit_reason & 63]++;
        switch (v.run->exit_reason) {
        case KVM_EXIT_IO:
            if (port_access(v.run)) {
                return 0;
            }
            break;
        case KVM_EXIT_MMIO:
            memset(v.run->mmio.data, 0xff, sizeof v.run->mmio.data);
            break;
        case KVM_EXIT_HLT:
            break;
        default: {
            struct kvm_regs r;
            ioctl(v.fd, KVM_GET_REGS, &r);
            fprintf(stderr, "kvm_vmm: exit %u at rip 0x%llx\n", v.run->exit_reason,
                    (unsigned long long)r.rip);
            return 1;
        }
        }
    }
}

static void *second(void *arg)
{
    loop(*(struct vcpu *)arg);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: kvm_vmm ELF CMDLINE [VCPUS]\n");
        return 1;
    }
    int vcpus = argc > 3 ? atoi(argv[3]) : 1;
    uint64_t entry;
    make_vm();
    load_elf(argv[1], &entry);
    struct multiboot_info info = {
        .flags = INFO_MEMORY | INFO_CMDLINE,
        .mem_lower = 636,
        .mem_upper = (RAM_BYTES - MIB) / 1024,
        .cmdline = CMDLINE_ADDR,
    };
    memcpy(ram + INFO_ADDR, &info, sizeof info);
    strncpy((char *)ram + CMDLINE_ADDR, argv[2], 1023);

    struct vcpu v = make_vcpu(0);
    set_boot_state(v.fd, entry);
    if (vcpus == MAX_VCPUS) {
        /* It exists before the guest's INIT can be sent, and waits for it in the kernel. */
        static struct vcpu other;
        other = make_vcpu(1);
        pthread_t thread;
        if (pthread_create(&thread, NULL, second, &other)) {
            die("thread");
        }
    }
    int rc = loop(v);
    for (int i = 0; i < 64; i++) {
        if (exits[i]) {
            printf("kvm_vmm: exits with reason %d: %lu\n", i, exits[i]);
        }
    }
    fflush(stdout);
    _exit(rc);
}

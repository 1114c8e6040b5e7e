# SPDX-License-Identifier: BSD-2-Clause
# The modules that each host test links (see the Makefile, "Tests").
test_loader_SRCS := kernel/vm/loader.c kernel/vm/loader_linux.c kernel/vm/loader_multiboot1.c kernel/lib/printf.c kernel/lib/string.c
test_bootinfo_SRCS := boot/bootinfo.c boot/bootinfo_mb2.c boot/bootinfo_pvh.c

# SPDX-License-Identifier: BSD-2-Clause
#
# Guests: small test kernels (each $(BUILD)/guests/NAME.elf, a 32-bit ELF container around 64-bit
# code, bootable by Multiboot1 and PVH) and the Linux guest's kernel and initramfs.
# Gives the main Makefile: GUEST_ELFS, LINUX_KERNEL, LINUX_INITRD.

GUEST_NAMES := hello memtouch share balloon badballoon badvirtio badguest smp realmode fair timer bench ipi state wset overwrite paging32 task

guest_lib_srcs := $(sort $(wildcard guests/lib/*.c))
guest_hello_srcs := guests/hello.c
guest_memtouch_srcs := guests/memtouch.c
guest_overwrite_srcs := guests/overwrite.c
guest_share_srcs := guests/share.c
guest_balloon_srcs := guests/balloon.c
guest_badballoon_srcs := guests/badballoon.c
guest_badvirtio_srcs := guests/badvirtio.c
guest_badguest_srcs := guests/badguest.c $(sort $(wildcard guests/bad/*.c))
guest_smp_srcs := guests/smp.c
guest_realmode_srcs := guests/realmode.c guests/real/code.asm
guest_task_srcs := guests/task.c guests/task/code.asm
guest_fair_srcs := guests/fair.c
guest_timer_srcs := guests/timer.c
guest_ipi_srcs := guests/ipi.c
guest_state_srcs := guests/state.c
guest_paging32_srcs := guests/paging32.c $(sort $(wildcard guests/paging32/*.c)) guests/paging32/modes.asm
guest_wset_srcs := guests/wset.c guests/wset/parse.c guests/wset/run.c
guest_bench_srcs := $(sort $(wildcard guests/bench/bench*.c))

# Own flags, not the kernel's: the guests run at 1 MiB with the small code model.
GUEST_CFLAGS := -std=gnu17 -ffreestanding -fno-pic -mcmodel=small -mno-red-zone -mgeneral-regs-only \
  -fno-omit-frame-pointer -fno-strict-aliasing -fno-stack-protector -fcf-protection=none \
  -fno-asynchronous-unwind-tables -O2 -g $(WARNINGS) -I. \
  -ffile-prefix-map=$(CURDIR)=.
GUEST_LDFLAGS := -nostdlib -static -m elf_x86_64 -z max-page-size=4096 -z noexecstack --build-id=none \
  --no-warn-rwx-segments -T guests/lib/guest.ld

guest_objects = $(patsubst %.asm,$(BUILD)/%.o,$(patsubst %.c,$(BUILD)/%.o,$(1)))
guest_lib_objs := $(call guest_objects,$(guest_lib_srcs)) $(BUILD)/guests/lib/entry.o
guest_objs := $(guest_lib_objs) \
  $(foreach g,$(GUEST_NAMES),$(call guest_objects,$(guest_$(g)_srcs)))

GUEST_ELFS := $(patsubst %,$(BUILD)/guests/%.elf,$(GUEST_NAMES))

$(BUILD)/guests/%.o: guests/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/guests/%.o: guests/%.asm
	@mkdir -p $(@D)
	$(call say,NASM,$<)
	$(Q)$(NASM) -f elf64 -I./ -MD $(@:.o=.d) -MP -MT $@ -o $@ $<

# $(1): name. The 64-bit file keeps the symbols for debuggers; the 32-bit container is what boots.
define guest_rules
$(BUILD)/guests/$(1).elf64: $(guest_lib_objs) $(call guest_objects,$(guest_$(1)_srcs)) guests/lib/guest.ld
	$$(call say,LD,$$@)
	$(Q)$(LD) $(GUEST_LDFLAGS) -o $$@ $(guest_lib_objs) $(call guest_objects,$(guest_$(1)_srcs))

$(BUILD)/guests/$(1).elf: $(BUILD)/guests/$(1).elf64
	$(Q)$(OBJCOPY) -g -O elf32-i386 $$< $$@
endef
$(foreach g,$(GUEST_NAMES),$(eval $(call guest_rules,$(g))))

# ---- Linux ---------------------------------------------------------------------------------------

LINUX_DIR := $(BUILD)/guests/linux
LINUX_KERNEL := $(LINUX_DIR)/vmlinuz
LINUX_INITRD := $(LINUX_DIR)/initrd.img
# The same with something to do (guests/linux/work).
LINUX_WORK := $(LINUX_DIR)/work.img

# Downloads and unpacks once; the stamp names the kernel version that was taken.
$(LINUX_DIR)/packages.stamp: guests/linux/fetch
	@mkdir -p $(@D)
	$(call say,FETCH,Debian kernel and busybox)
	$(Q)guests/linux/fetch $(LINUX_DIR)

$(LINUX_KERNEL): $(LINUX_DIR)/packages.stamp
	$(Q)cp $(LINUX_DIR)/root/boot/vmlinuz-* $@

# Programs of ours for it: mmuload is not in the initramfs, benchmarks add it.
# The same compiler gives the same program: no build id, no path, no time in it.
LINUX_WSET := $(LINUX_DIR)/wset
LINUX_MMULOAD := $(LINUX_DIR)/mmuload
$(LINUX_WSET): guests/linux/wset.c guests/wset/parse.c guests/wset/run.c guests/wset/wset.h
$(LINUX_MMULOAD): guests/linux/mmuload.c
$(LINUX_WSET) $(LINUX_MMULOAD): $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) -std=gnu17 -O2 $(WARNINGS) -I. -ffile-prefix-map=$(CURDIR)=. -static -s -Wl,--build-id=none \
	    -o $@ $(filter %.c,$^)

$(LINUX_INITRD): $(LINUX_DIR)/packages.stamp guests/linux/init guests/linux/mkinitrd tools/mkcpio.py $(LINUX_WSET)
	$(call say,INITRD,$@)
	$(Q)$(PYTHON) guests/linux/mkinitrd $(LINUX_DIR)/root guests/linux/init $(LINUX_WSET) $@

$(LINUX_WORK): $(LINUX_DIR)/packages.stamp guests/linux/init guests/linux/work guests/linux/mkinitrd \
    tools/mkcpio.py $(LINUX_WSET)
	$(call say,INITRD,$@)
	$(Q)$(PYTHON) guests/linux/mkinitrd $(LINUX_DIR)/root guests/linux/init $(LINUX_WSET) $@ guests/linux/work

-include $(guest_objs:.o=.d)

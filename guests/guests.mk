# SPDX-License-Identifier: BSD-2-Clause
#
# Guests: small test kernels (each $(BUILD)/guests/NAME.elf, a 32-bit ELF container around 64-bit
# code, bootable by Multiboot1 and PVH) and the Linux guest's kernel and initramfs.
# Gives the main Makefile: GUEST_ELFS, LINUX_KERNEL, LINUX_INITRD.

GUEST_NAMES := hello memtouch badguest smp fair timer bench

guest_lib_srcs := $(sort $(wildcard guests/lib/*.c))
guest_hello_srcs := guests/hello.c
guest_memtouch_srcs := guests/memtouch.c
guest_badguest_srcs := guests/badguest.c $(sort $(wildcard guests/bad/*.c))
guest_smp_srcs := guests/smp.c
guest_fair_srcs := guests/fair.c
guest_timer_srcs := guests/timer.c
guest_bench_srcs := $(sort $(wildcard guests/bench/bench*.c))

# Own flags, not the kernel's: the guests run at 1 MiB with the small code model.
GUEST_CFLAGS := -std=gnu17 -ffreestanding -fno-pic -mcmodel=small -mno-red-zone -mgeneral-regs-only \
  -fno-omit-frame-pointer -fno-strict-aliasing -fno-stack-protector -fcf-protection=none \
  -fno-asynchronous-unwind-tables -O2 -g $(WARNINGS) -I. \
  -ffile-prefix-map=$(CURDIR)=.
GUEST_LDFLAGS := -nostdlib -static -m elf_x86_64 -z max-page-size=4096 -z noexecstack --build-id=none \
  --no-warn-rwx-segments -T guests/lib/guest.ld

guest_objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
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

# Downloads and unpacks once; the stamp names the kernel version that was taken.
$(LINUX_DIR)/packages.stamp: guests/linux/fetch
	@mkdir -p $(@D)
	$(call say,FETCH,Debian kernel and busybox)
	$(Q)guests/linux/fetch $(LINUX_DIR)

$(LINUX_KERNEL): $(LINUX_DIR)/packages.stamp
	$(Q)cp $(LINUX_DIR)/root/boot/vmlinuz-* $@

$(LINUX_INITRD): $(LINUX_DIR)/packages.stamp guests/linux/init guests/linux/mkinitrd tools/mkcpio.py
	$(call say,INITRD,$@)
	$(Q)$(PYTHON) guests/linux/mkinitrd $(LINUX_DIR)/root guests/linux/init $@

-include $(guest_objs:.o=.d)

# SPDX-License-Identifier: BSD-2-Clause
# The UEFI loader, on GNU-EFI: position-independent code, linked as a shared object and converted to
# a PE image.

EFI_LOADER := $(BUILD)/boot/efi/BOOTX64.EFI
EFI_SRCS   := $(sort $(wildcard boot/efi/*.c))
EFI_OBJS   := $(EFI_SRCS:%.c=$(BUILD)/%.o)

EFI_CFLAGS := -std=gnu17 -O2 -g -fpic -ffreestanding -fshort-wchar -mno-red-zone \
              -mgeneral-regs-only -fno-strict-aliasing -fno-stack-protector \
              -fcf-protection=none -fno-asynchronous-unwind-tables $(WARNINGS) \
              -DGNU_EFI_USE_MS_ABI -isystem /usr/include/efi -isystem /usr/include/efi/x86_64 \
              -ffile-prefix-map=$(CURDIR)=. -I.

$(BUILD)/boot/efi/%.o: boot/efi/%.c $(FLAGS_STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(EFI_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/boot/efi/loader.so: $(EFI_OBJS)
	$(call say,LD,$@)
	$(Q)$(LD) -nostdlib -znocombreloc -shared -Bsymbolic --build-id=none -z noexecstack \
	    -T /usr/lib/elf_x86_64_efi.lds /usr/lib/crt0-efi-x86_64.o $^ -L/usr/lib -lefi -lgnuefi -o $@

$(EFI_LOADER): $(BUILD)/boot/efi/loader.so
	$(call say,EFI,$@)
	$(Q)SOURCE_DATE_EPOCH=0 $(OBJCOPY) -D -j .text -j .sdata -j .data -j .rodata -j .dynamic -j .dynsym \
	    -j '.rel*' -j '.rela*' -j .reloc --target efi-app-x86_64 --subsystem=10 $< $@

-include $(EFI_OBJS:.o=.d)

# SPDX-License-Identifier: BSD-2-Clause
# Boot media: a hybrid ISO with GRUB (BIOS and UEFI, CD or USB stick), and a disk image whose EFI
# system partition holds our own UEFI loader.

ISO       := $(BUILD)/ballast.iso
USB_IMAGE := $(BUILD)/ballast.usb.img

ISO_TREE    := $(BUILD)/iso
DEMO_FILES  := $(LINUX_KERNEL) $(LINUX_INITRD)
MEDIA_FILES := $(KERNEL_ELF) $(DEMO_FILES) $(LINUX_WORK) $(GUEST_ELFS)
MEDIA_CONF  := $(wildcard boot/conf/*.conf boot/grub/*.cfg)

# What grub.cfg and grub-mkrescue's own start script use. Without gzio GRUB hands over a compressed
# initrd as it is.
GRUB_MODULES := normal configfile echo multiboot2 serial terminal test regexp all_video iso9660 fat search \
                part_acorn part_amiga part_apple part_bsd part_dfly part_dvh part_gpt part_msdos \
                part_plan part_sun part_sunpc reboot halt

.PHONY: iso usb
iso: $(ISO)

$(ISO): $(MEDIA_FILES) $(MEDIA_CONF) boot/media.mk
	$(call say,ISO,$@)
	$(Q)rm -rf $(ISO_TREE) && mkdir -p $(ISO_TREE)/boot/grub $(ISO_TREE)/ballast
	$(Q)cp $(MEDIA_FILES) boot/conf/*.conf $(ISO_TREE)/ballast/
	$(Q)cp boot/grub/grub.cfg $(ISO_TREE)/boot/grub/
	$(Q)grub-mkrescue -o $@ --locales= --themes= --fonts= --install-modules='$(GRUB_MODULES)' \
	    $(ISO_TREE) -- -volid BALLAST >$(BUILD)/iso.log 2>&1 || { cat $(BUILD)/iso.log; rm -f $@; exit 1; }

USB_MIB     := 96
USB_SECTORS := $(shell expr \( $(USB_MIB) - 2 \) \* 2048)
USB_FS       = $(USB_IMAGE)@@1M

usb: $(USB_IMAGE) $(ISO)
	@echo 'Write one of these to a stick (everything on it is lost), as root:'
	@echo '  dd if=$(ISO) of=/dev/sdX bs=4M conv=fsync       GRUB menu, BIOS and UEFI machines'
	@echo '  dd if=$(USB_IMAGE) of=/dev/sdX bs=4M conv=fsync   our UEFI loader, no menu'
	@echo 'or copy EFI/ and ballast/ of the second onto any FAT partition of a UEFI machine.'

$(USB_IMAGE): $(KERNEL_ELF) $(DEMO_FILES) $(EFI_LOADER) boot/conf/demo.conf boot/media.mk
	$(call say,USB,$@)
	$(Q)rm -f $@ && truncate -s $(USB_MIB)M $@
	$(Q)printf 'label: gpt\nlabel-id: 42414c4c-4153-5400-8000-000000000001\nstart=2048, size=%s, type=U, uuid=42414c4c-4153-5400-8000-000000000002, name=ballast\n' \
	    $(USB_SECTORS) | sfdisk -q $@
	$(Q)mformat -i $(USB_FS) -F -c 1 -N 42414c4c -v BALLAST -T $(USB_SECTORS) ::
	$(Q)mmd -i $(USB_FS) ::EFI ::EFI/BOOT ::ballast
	$(Q)mcopy -i $(USB_FS) $(EFI_LOADER) ::EFI/BOOT/BOOTX64.EFI
	$(Q)mcopy -i $(USB_FS) $(KERNEL_ELF) $(DEMO_FILES) ::ballast/
	$(Q)mcopy -i $(USB_FS) boot/conf/demo.conf ::ballast/ballast.conf

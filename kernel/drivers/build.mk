# SPDX-License-Identifier: BSD-2-Clause
# The console font, from a Debian package.
CONSOLE_FONT := /usr/share/consolefonts/Lat15-VGA16.psf.gz
DEPS += console-setup-linux
KERNEL_GEN_OBJS += $(BUILD)/gen/font.o

$(CONSOLE_FONT):

$(BUILD)/gen/font.asm: tools/gen_font.py $(CONSOLE_FONT)
	$(call say,FONT,$(notdir $(CONSOLE_FONT)))
	@mkdir -p $(@D)
	$(Q)$(PYTHON) $< $(CONSOLE_FONT) >$@

$(BUILD)/gen/font.o: $(BUILD)/gen/font.asm
	$(Q)$(NASM) $(NASMFLAGS) $< -o $@

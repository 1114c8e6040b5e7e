# SPDX-License-Identifier: BSD-2-Clause
# The guest's DSDT: compiled by iasl, linked in as it is (_binary_dsdt_aml_start).
DEPS += acpica-tools
IASL ?= iasl
DSDT_OBJ := $(BUILD)/kernel/devices/dsdt.aml.o
KERNEL_GEN_OBJS += $(DSDT_OBJ)

$(DSDT_OBJ): kernel/devices/dsdt.asl
	$(call say,IASL,$<)
	@mkdir -p $(@D)
	$(Q)$(IASL) -va -p $(@D)/dsdt $< >$(@D)/dsdt.log 2>&1 || { cat $(@D)/dsdt.log >&2; exit 1; }
	$(Q)cd $(@D) && $(OBJCOPY) -I binary -O elf64-x86-64 -B i386:x86-64 \
	    --rename-section .data=.rodata.dsdt,alloc,load,readonly,data,contents dsdt.aml $(@F)

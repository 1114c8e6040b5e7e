# SPDX-License-Identifier: BSD-2-Clause
# Third-party code, built from Debian's source packages; nothing of it is kept in the repository.
#
# Zydis decodes instructions for kernel/emul. Minimal mode (no operand details beyond what the
# emulator reads), no formatter, no encoder, no AVX-512/KNC: about 110 KB of tables and code. The
# shared library in libzydis-dev cannot be linked into a kernel, so the decoder is compiled here,
# twice: freestanding for the image, with sanitizers for the host tests. Zycore's headers come from
# libzycore-dev.

THIRD_PARTY ?= $(BUILD)/third_party

ZYDIS_DIR     := $(THIRD_PARTY)/zydis
ZYDIS_STAMP   := $(ZYDIS_DIR)/.fetched
ZYDIS_LIB     := $(THIRD_PARTY)/zydis-kernel/libzydis.a
ZYDIS_HOSTLIB := $(THIRD_PARTY)/zydis-host/libzydis.a
ZYDIS_DEFS    := -DZYAN_NO_LIBC -DZYDIS_STATIC_BUILD -DZYCORE_STATIC_BUILD \
                 -DZYDIS_DISABLE_FORMATTER -DZYDIS_DISABLE_ENCODER -DZYDIS_MINIMAL_MODE \
                 -DZYDIS_DISABLE_AVX512 -DZYDIS_DISABLE_KNC
ZYDIS_CFLAGS  := -isystem $(ZYDIS_DIR)/include $(ZYDIS_DEFS)
ZYDIS_MODULES := Decoder DecoderData MetaInfo Mnemonic Register SharedData Utils Zydis

$(ZYDIS_STAMP):
	$(call say,FETCH,zydis)
	$(Q)tools/fetch_source.sh zydis $(THIRD_PARTY)
	$(Q)touch $@

ZYDIS_BUILD_FLAGS = -I$(ZYDIS_DIR)/include -I$(ZYDIS_DIR)/src $(ZYDIS_DEFS) \
                    -ffile-prefix-map=$(THIRD_PARTY)=third_party -w

# $(call zydis_library,LIBRARY,COMPILER,FLAGS)
define zydis_library
$(1): $$(ZYDIS_STAMP)
	$$(call say,LIB,$$@)
	$$(Q)mkdir -p $$(@D) && rm -f $$@
	$$(Q)for m in $$(ZYDIS_MODULES); do \
	    $(2) $(3) $$(ZYDIS_BUILD_FLAGS) -c $$(ZYDIS_DIR)/src/$$$$m.c -o $$(@D)/$$$$m.o || exit 1; \
	done
	$$(Q)$$(AR) rcsD $$@ $$(addprefix $$(@D)/,$$(addsuffix .o,$$(ZYDIS_MODULES)))
endef

$(eval $(call zydis_library,$(ZYDIS_LIB),$$(CC),$$(KERNEL_MODEL) -Os -g -ffunction-sections -fdata-sections))
$(eval $(call zydis_library,$(ZYDIS_HOSTLIB),$$(HOSTCC),$$(HOST_CFLAGS)))

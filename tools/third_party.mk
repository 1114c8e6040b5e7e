# SPDX-License-Identifier: BSD-2-Clause
# Third-party code, built from Debian's source packages; nothing of it is kept in the repository.
#
# Zydis decodes instructions for kernel/emul. Minimal mode (no operand details beyond what the
# emulator reads), no formatter, no encoder, no AVX-512/KNC: about 110 KB of tables and code. The
# shared library in libzydis-dev cannot be linked into a kernel, so the decoder is compiled here,
# twice: freestanding for the image, with sanitizers for the host tests. Zycore's headers come from
# libzycore-dev.
#
# LZ4 compresses pages for mm/reclaim, a table of 4 KiB being enough for 4 KiB. Of Mbed TLS only AES in
# XTS mode is built, with the processor's instructions where it has them: it is called between
# env_vector_begin and env_vector_end, so it may use vector registers.

THIRD_PARTY ?= $(BUILD)/third_party
# The host tests' libraries, apart for a build with other sanitizers.
HOSTLIBS ?= $(THIRD_PARTY)

ZYDIS_DIR     := $(THIRD_PARTY)/zydis
ZYDIS_STAMP   := $(ZYDIS_DIR)/.fetched
ZYDIS_LIB     := $(THIRD_PARTY)/zydis-kernel/libzydis.a
ZYDIS_HOSTLIB := $(HOSTLIBS)/zydis-host/libzydis.a
ZYDIS_DEFS    := -DZYAN_NO_LIBC -DZYDIS_STATIC_BUILD -DZYCORE_STATIC_BUILD \
                 -DZYDIS_DISABLE_FORMATTER -DZYDIS_DISABLE_ENCODER -DZYDIS_MINIMAL_MODE \
                 -DZYDIS_DISABLE_AVX512 -DZYDIS_DISABLE_KNC
ZYDIS_CFLAGS  := -isystem $(ZYDIS_DIR)/include $(ZYDIS_DEFS)
ZYDIS_MODULES := Decoder DecoderData MetaInfo Mnemonic Register SharedData Utils Zydis

# The tables without what the emulator never executes.
ZYDIS_TABLES  := $(THIRD_PARTY)/zydis-tables/Generated
ZYDIS_PRUNED  := $(ZYDIS_TABLES)/.pruned

$(ZYDIS_PRUNED): $(ZYDIS_STAMP) tools/zydis_prune.py
	$(call say,GEN,$(ZYDIS_TABLES))
	$(Q)$(PYTHON) tools/zydis_prune.py $(ZYDIS_DIR) $(ZYDIS_TABLES)
	$(Q)touch $@

$(ZYDIS_STAMP):
	$(call say,FETCH,zydis)
	$(Q)tools/fetch_source.sh zydis $(THIRD_PARTY)
	$(Q)touch $@

ZYDIS_BUILD_FLAGS = -I$(THIRD_PARTY)/zydis-tables -I$(ZYDIS_DIR)/include -I$(ZYDIS_DIR)/src $(ZYDIS_DEFS) \
                    -ffile-prefix-map=$(THIRD_PARTY)=third_party -w

# $(call zydis_library,LIBRARY,COMPILER,FLAGS)
define zydis_library
$(1): $$(ZYDIS_STAMP) $$(ZYDIS_PRUNED) tools/third_party.mk
	$$(call say,LIB,$$@)
	$$(Q)mkdir -p $$(@D) && rm -f $$@
	$$(Q)for m in $$(ZYDIS_MODULES); do \
	    $(2) $(3) $$(ZYDIS_BUILD_FLAGS) -c $$(ZYDIS_DIR)/src/$$$$m.c -o $$(@D)/$$$$m.o || exit 1; \
	done
	$$(Q)$$(AR) rcsD $$@ $$(addprefix $$(@D)/,$$(addsuffix .o,$$(ZYDIS_MODULES)))
endef

$(eval $(call zydis_library,$(ZYDIS_LIB),$$(CC),$$(KERNEL_MODEL) -Os -g -ffunction-sections -fdata-sections))
$(eval $(call zydis_library,$(ZYDIS_HOSTLIB),$$(HOSTCC),$$(HOST_CFLAGS)))

# $(call fetched,NAME): its stamp.
fetched = $(THIRD_PARTY)/$(1)/.fetched

LZ4_DIR     := $(THIRD_PARTY)/lz4/lib
LZ4_LIB     := $(THIRD_PARTY)/lz4-kernel/liblz4.a
LZ4_HOSTLIB := $(HOSTLIBS)/lz4-host/liblz4.a
LZ4_CFLAGS  := -isystem $(LZ4_DIR) -DLZ4_MEMORY_USAGE=12
LZ4_BUILD_FLAGS = -I$(LZ4_DIR) -DLZ4_MEMORY_USAGE=12 -DLZ4_FREESTANDING=1 \
    '-DLZ4_memcpy(d,s,n)=__builtin_memcpy(d,s,n)' '-DLZ4_memmove(d,s,n)=__builtin_memmove(d,s,n)' \
    '-DLZ4_memset(d,s,n)=__builtin_memset(d,s,n)' -ffile-prefix-map=$(THIRD_PARTY)=third_party -w

AES_DIR     := $(THIRD_PARTY)/mbedtls
AES_LIB     := $(THIRD_PARTY)/aes-kernel/libaes.a
AES_HOSTLIB := $(HOSTLIBS)/aes-host/libaes.a
AES_CFLAGS  := -isystem $(AES_DIR)/include '-DMBEDTLS_CONFIG_FILE="tools/mbedtls_config.h"'
AES_MODULES := aes aesni platform_util
AES_BUILD_FLAGS = -I. -I$(AES_DIR)/include -I$(AES_DIR)/library \
    '-DMBEDTLS_CONFIG_FILE="tools/mbedtls_config.h"' -ffile-prefix-map=$(THIRD_PARTY)=third_party -w

$(call fetched,lz4) $(call fetched,mbedtls): $(THIRD_PARTY)/%/.fetched:
	$(call say,FETCH,$*)
	$(Q)tools/fetch_source.sh $* $(THIRD_PARTY)
	$(Q)touch $@

# $(call plain_library,LIBRARY,COMPILER AND FLAGS,SOURCES,STAMP)
define plain_library
$(1): $(4) tools/mbedtls_config.h tools/third_party.mk
	$$(call say,LIB,$$@)
	$$(Q)mkdir -p $$(@D) && rm -f $$@
	$$(Q)for m in $(3); do $(2) -c $$$$m -o $$(@D)/$$$$(basename $$$$m .c).o || exit 1; done
	$$(Q)$$(AR) rcsD $$@ $$(patsubst %.c,$$(@D)/%.o,$$(notdir $(3)))
endef

PLAIN_KERNEL = $$(KERNEL_MODEL) -Os -g -ffunction-sections -fdata-sections
$(eval $(call plain_library,$(LZ4_LIB),$$(CC) $(PLAIN_KERNEL) $$(LZ4_BUILD_FLAGS),$(LZ4_DIR)/lz4.c,$(call fetched,lz4)))
$(eval $(call plain_library,$(LZ4_HOSTLIB),$$(HOSTCC) $$(HOST_CFLAGS) $$(LZ4_BUILD_FLAGS),$(LZ4_DIR)/lz4.c,$(call fetched,lz4)))
$(eval $(call plain_library,$(AES_LIB),$$(CC) $$(filter-out -mgeneral-regs-only,$(PLAIN_KERNEL)) $$(AES_BUILD_FLAGS),$(AES_MODULES:%=$(AES_DIR)/library/%.c),$(call fetched,mbedtls)))
$(eval $(call plain_library,$(AES_HOSTLIB),$$(HOSTCC) $$(HOST_CFLAGS) $$(AES_BUILD_FLAGS),$(AES_MODULES:%=$(AES_DIR)/library/%.c),$(call fetched,mbedtls)))

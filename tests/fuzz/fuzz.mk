# SPDX-License-Identifier: BSD-2-Clause
# Fuzz targets: tests/fuzz/fuzz_NAME.c with the modules that fuzz_NAME_SRCS lists. `make fuzz` runs each for
# FUZZ_SECONDS, starting from what earlier runs found (build/fuzz/corpus) and tests/fuzz/seeds.py; an
# input that fails stays in build/fuzz.

FUZZ_SECONDS ?= 20
FUZZ_CC      ?= clang
FUZZ_CFLAGS  := -std=gnu17 -O1 -g -Wall -Wextra -Werror -DBALLAST_HOST=1 -I. \
                -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_DIR     := $(BUILD)/fuzz
FUZZ_ZYDIS   := $(THIRD_PARTY)/zydis-fuzz/libzydis.a
$(eval $(call zydis_library,$(FUZZ_ZYDIS),$$(FUZZ_CC),$$(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link))

fuzz_emul_SRCS := $(EMUL_ENV_SRCS)
fuzz_step_SRCS := tests/host/fakevm.c $(EMUL_SRCS) kernel/lib/printf.c
fuzz_boot_SRCS := $(test_bootinfo_SRCS)
fuzz_vring_SRCS := $(test_vring_SRCS)
fuzz_config_SRCS := $(test_config_SRCS)
fuzz_devices_SRCS := tests/host/fakevm.c $(VLAPIC_SRCS) $(addprefix kernel/devices/,bus.c isa_irq.c platform.c \
                     vfwcfg.c vhpet.c vioapic.c vkbd.c vpic.c vpit.c vpm.c vrtc.c vuart.c) kernel/vm/loader_map.c \
                     kernel/lib/string.c

FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

define fuzz_target
$(FUZZ_DIR)/fuzz_$(1): tests/fuzz/fuzz_$(1).c $(fuzz_$(1)_SRCS) $(if $(filter kernel/emul/%,$(fuzz_$(1)_SRCS)),$(FUZZ_ZYDIS))
	$$(call say,FUZZCC,$(1))
	@mkdir -p $$(@D)
	$$(Q)$$(FUZZ_CC) $$(FUZZ_CFLAGS) $(if $(filter kernel/emul/%,$(fuzz_$(1)_SRCS)),$$(ZYDIS_CFLAGS)) \
	    -fsanitize=fuzzer -MMD -MP $$^ -o $$@
endef
$(foreach t,$(FUZZ_TARGETS),$(eval $(call fuzz_target,$(t))))

.PHONY: fuzz fuzz-run
fuzz: deps
	+$(SUBMAKE) $(addprefix $(FUZZ_DIR)/fuzz_,$(FUZZ_TARGETS))
	+$(Q)$(MAKE) --no-print-directory fuzz-run
fuzz-run:
	$(Q)$(PYTHON) tests/fuzz/seeds.py $(FUZZ_DIR)/seeds
	$(Q)for t in $(FUZZ_TARGETS); do \
	    mkdir -p $(FUZZ_DIR)/corpus/$$t && \
	    $(FUZZ_DIR)/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 \
	        -print_final_stats=1 -artifact_prefix=$(FUZZ_DIR)/$$t- \
	        $(FUZZ_DIR)/corpus/$$t $(FUZZ_DIR)/seeds/$$t 2>$(FUZZ_DIR)/$$t.log || \
	        { tail -40 $(FUZZ_DIR)/$$t.log; echo "fuzz: $$t failed"; exit 1; }; \
	    echo "fuzz: $$t: $$(sed -n 's/stat::number_of_executed_units: *//p' $(FUZZ_DIR)/$$t.log) inputs in" \
	        "$(FUZZ_SECONDS) s, $$(ls $(FUZZ_DIR)/corpus/$$t | wc -l) kept"; \
	done

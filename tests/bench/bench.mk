# SPDX-License-Identifier: BSD-2-Clause
# Benchmarks: instruction counts, in QEMU under -icount and in Bochs, which repeat exactly.

BENCH_DIR := $(BUILD)/tests/bench
ICOUNT_PLUGIN := $(BENCH_DIR)/icount_plugin.so
KVM_VMM := $(BENCH_DIR)/kvm_vmm
BENCH_HOST_CFLAGS := -std=gnu17 -O2 $(WARNINGS)

$(ICOUNT_PLUGIN): tests/bench/icount_plugin.c
	$(call say,HOSTCC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_HOST_CFLAGS) -shared -fPIC $< -o $@

$(KVM_VMM): guests/bench/kvm_vmm.c
	$(call say,HOSTCC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_HOST_CFLAGS) -static -pthread $< -o $@

# mm/ as a user program: optimised, and without the host tests' watchmen.
NATIVE_MM_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c
NATIVE_SHARE := $(BENCH_DIR)/native_share
NATIVE_SWAP := $(BENCH_DIR)/native_swap
NATIVE_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Werror -DBALLAST_HOST=1 -I. $(LZ4_CFLAGS) $(AES_CFLAGS)
native_objects = $(patsubst %.c,$(BENCH_DIR)/native/%.o,$(1))
NATIVE_OBJS := $(call native_objects,tests/bench/native_share.c tests/bench/native_swap.c \
                 tests/host/faultstore.c $(NATIVE_MM_SRCS))

NATIVE_LZ4 := $(THIRD_PARTY)/lz4-native/liblz4.a
NATIVE_AES := $(THIRD_PARTY)/aes-native/libaes.a
$(eval $(call plain_library,$(NATIVE_LZ4),$$(HOSTCC) -O2 $$(LZ4_BUILD_FLAGS),$(LZ4_DIR)/lz4.c,$(call fetched,lz4)))
$(eval $(call plain_library,$(NATIVE_AES),$$(HOSTCC) -O2 $$(AES_BUILD_FLAGS),$(AES_MODULES:%=$(AES_DIR)/library/%.c),$(call fetched,mbedtls)))

$(NATIVE_OBJS): $(BENCH_DIR)/native/%.o: %.c | $(call fetched,lz4) $(call fetched,mbedtls)
	$(call say,HOSTCC,$<)
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(NATIVE_CFLAGS) -MMD -MP -c $< -o $@

$(NATIVE_SHARE): $(call native_objects,tests/bench/native_share.c $(NATIVE_MM_SRCS)) $(NATIVE_LZ4) $(NATIVE_AES)
$(NATIVE_SWAP): $(call native_objects,tests/bench/native_swap.c tests/host/faultstore.c $(NATIVE_MM_SRCS)) \
    $(NATIVE_LZ4) $(NATIVE_AES)
$(NATIVE_SHARE) $(NATIVE_SWAP):
	$(call say,HOSTLD,$@)
	$(Q)$(HOSTCC) $^ -lcmocka -o $@

-include $(NATIVE_OBJS:.o=.d)

bench_run = $(PYTHON) tests/bench/$(1) $(abspath $(BUILD))

.PHONY: bench bench-mmu bench-peers bench-native
# MMU=software measures SVM with the software MMU in QEMU; MMU=both that as well, and compares, the rows first
# and then what Linux does (bench-mmu).
# EMU=bochs measures VMX there, else SVM in QEMU; EMU=shadow and bochs-shadow the software MMU.
# BENCH_ROWS=guest leaves out the Linux boots,
# BENCH_ROWS=linux does only them.
# One part that fails does not hide the next.
bench: deps
	$(Q)case '$(EMU) $(MMU)' in 'qemu '|'bochs '|'shadow '|'bochs-shadow '|'qemu software'|'qemu both') ;; *) \
	    echo "bench: EMU=$(EMU) MMU=$(MMU): accepted: EMU=qemu, bochs, shadow or bochs-shadow;" \
	        "with EMU=qemu also MMU=software or both" >&2; exit 1;; esac
	+$(Q)$(MAKE) --no-print-directory kernel guests $(ICOUNT_PLUGIN) $(NATIVE_SWAP)
	$(Q)failed=0; \
	$(if $(filter software,$(MMU)),,$(call bench_run,bench.py) $(EMU) $(BENCH_ROWS) || failed=1;) \
	$(if $(filter software both,$(MMU)),$(call bench_run,bench.py) shadow || failed=1;) \
	$(if $(filter both,$(MMU)),$(call bench_run,compare_mmu.py)/bench.csv || failed=1; \
	    $(call bench_run,mmu_linux.py) || failed=1;) \
	exit $$failed

# Works of Linux on nested and on shadow tables, for 1, 2 and 4 vCPUs: table, CSV and picture.
bench-mmu: deps
	+$(Q)$(MAKE) --no-print-directory kernel guests
	$(Q)$(call bench_run,mmu_linux.py)

# Page sharing in native time, beside Linux KSM where there is one; as root.
bench-native: deps
	+$(Q)$(MAKE) --no-print-directory kernel guests $(NATIVE_SHARE)
	$(Q)$(PYTHON) tests/bench/native.py $(abspath $(BUILD))

# Runs the same guest under KVM inside a Linux guest of the emulator; minutes, not seconds.
bench-peers: deps
	+$(Q)$(MAKE) --no-print-directory guests $(KVM_VMM)
	$(Q)$(PYTHON) tests/bench/peers.py $(abspath $(BUILD))

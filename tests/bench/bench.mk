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

.PHONY: bench bench-peers
# EMU=bochs measures VMX there, else SVM in QEMU. BENCH_ROWS=guest leaves out the Linux boots,
# BENCH_ROWS=linux does only them.
bench: deps
	+$(Q)$(MAKE) --no-print-directory kernel guests $(ICOUNT_PLUGIN)
	$(Q)$(PYTHON) tests/bench/bench.py $(abspath $(BUILD)) $(EMU) $(BENCH_ROWS)

# Runs the same guest under KVM inside a Linux guest of the emulator; minutes, not seconds.
bench-peers: deps
	+$(Q)$(MAKE) --no-print-directory guests $(KVM_VMM)
	$(Q)$(PYTHON) tests/bench/peers.py $(abspath $(BUILD))

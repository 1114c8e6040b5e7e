# SPDX-License-Identifier: BSD-2-Clause
# Build, run and test Ballast. `make help` lists targets and variables.
#
# The image is linked twice: the first link gives the functions their addresses, the second adds the
# symbol table for backtraces, made from the first. The same sources give the same image, byte for
# byte, in any directory.

BUILD   ?= build
VERSION ?= 0.1.0
V       ?=
DEBUG   ?= 0

ifeq ($(origin CC),default)
CC := gcc
endif
HOSTCC  ?= gcc
NASM    ?= nasm
LD      := ld
NM      := nm
AR      := ar
OBJCOPY := objcopy
PYTHON  := /usr/bin/python3

override V := $(filter-out 0,$(V))

Q   := $(if $(V),,@)
say  = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# ---- Flags -------------------------------------------------------------------------------------

CC_IS_CLANG := $(findstring clang,$(shell $(CC) --version 2>/dev/null | head -1))

# What every object of the image must agree on, third-party code included.
KERNEL_MODEL := -ffreestanding -fno-pic -mcmodel=kernel -mno-red-zone -mgeneral-regs-only \
                -fno-omit-frame-pointer -fno-strict-aliasing -fno-stack-protector \
                -fcf-protection=none -fno-asynchronous-unwind-tables

# gcc's -Wconversion leaves signedness alone in C; clang's is brought to the same meaning.
WARNINGS := -Wall -Wextra -Wconversion -Werror $(if $(CC_IS_CLANG),-Wno-sign-conversion)

CFLAGS := -std=gnu17 $(KERNEL_MODEL) -Oz -fno-jump-tables -g $(WARNINGS) -ffunction-sections -fdata-sections \
          -ffile-prefix-map=$(CURDIR)=. -I. -DBALLAST_VERSION='"$(VERSION)"' \
          $(if $(filter 1,$(DEBUG)),-DBALLAST_DEBUG=1) $(EXTRA_CFLAGS)
NASMFLAGS := -f elf64 -I ./ -Werror
LDFLAGS   := -O2 -nostdlib -static -z max-page-size=4096 -z noexecstack --build-id=none \
             --gc-sections

# Host tests run the same sources with everything gcc can watch.
HOST_SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
HOST_CFLAGS := -std=gnu17 -O1 -g -Wall -Wextra -Werror -DBALLAST_HOST=1 -I. \
               $(HOST_SANITIZE) -fno-omit-frame-pointer \
               -ffile-prefix-map=$(CURDIR)=.

# ---- Debian packages ---------------------------------------------------------------------------

DEPS := gcc libc6-dev binutils nasm python3 dpkg-dev libzycore-dev libxxhash-dev gnu-efi \
        clang clang-format libcmocka-dev python3-pytest python3-pytest-xdist python3-pexpect \
        python3-matplotlib squashfs-tools \
        qemu-system-x86 ovmf bochs bochsbios vgabios \
        grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools fdisk e2fsprogs

# ---- Sources -----------------------------------------------------------------------------------

KERNEL_DIRS := boot arch/x86_64 kernel kernel/* mm mm/* vmx svm
KERNEL_C    := $(sort $(wildcard $(addsuffix /*.c,$(KERNEL_DIRS))))
KERNEL_ASM  := $(sort $(wildcard $(addsuffix /*.asm,$(KERNEL_DIRS))))
KERNEL_OBJS := $(KERNEL_C:%.c=$(BUILD)/%.o) $(KERNEL_ASM:%.asm=$(BUILD)/%.asm.o)

# A folder with generated objects of its own adds them to KERNEL_GEN_OBJS, their rules, and the
# packages they need (DEPS) in a build.mk.
KERNEL_GEN_OBJS :=

# A deliberate defect by name (kernel/lib/mutant.h), for the tests that must notice it.
MUTANT ?=
MUTANT_C := $(shell grep -l '^\#include "kernel/lib/mutant.h"' $(KERNEL_C))
ifneq ($(MUTANT),)
MUTANT_IN := $(shell grep -l 'MUTANT($(MUTANT))' $(MUTANT_C))
$(if $(MUTANT_IN),,$(error no source has MUTANT($(MUTANT))))
endif

include tools/third_party.mk
include boot/efi/efi.mk
include $(sort $(wildcard $(addsuffix /build.mk,$(KERNEL_DIRS))))
-include guests/guests.mk
-include tests/host/tests.mk
-include tests/fuzz/fuzz.mk
-include tests/bench/bench.mk

# ---- Image -------------------------------------------------------------------------------------

KERNEL_ELF   := $(BUILD)/ballast.elf
KERNEL_DEBUG := $(BUILD)/ballast.debug.elf

include boot/media.mk

.PHONY: all kernel guests objects print-flags
all: kernel guests $(EFI_LOADER)
kernel: $(KERNEL_ELF)
# For tests/check: everything compiled, nothing linked; the flags that headers must compile with.
objects: $(KERNEL_OBJS) $(KERNEL_GEN_OBJS) $(EFI_OBJS)
print-flags: | $(ZYDIS_STAMP)
	@echo $(CFLAGS) $(ZYDIS_CFLAGS)
guests: $(GUEST_ELFS) $(LINUX_KERNEL) $(LINUX_INITRD) $(LINUX_WORK) $(LINUX_MMULOAD)

# The image has a bound (tests/check/checks_build.py), so it is compiled for size, but for what a guest
# waits for: the way from an exit back into the guest (entry, exits by frequency, first touch, faults,
# events, emulation, the devices that a guest programs all the time), switching threads, and the loops
# over the content of pages. `make bench` notices what is missing here.
HOT := svm/svm.c svm/svm_exit.c svm/svm_regs.c svm/svm_event.c svm/svm_bitmap.c \
       vmx/vmx.c vmx/vmcs.c vmx/vmx_exit.c vmx/vmx_regs.c vmx/vmx_event.c vmx/vmx_bitmap.c \
       $(addprefix kernel/vm/,run.c exit.c fault.c event.c msr.c cpuid.c flush.c insn.c vcpu.c cr.c tag.c \
         guestmem.c softmmu.c) \
       $(addprefix kernel/emul/,emul.c decode.c operand.c exec_mov.c) \
       $(addprefix kernel/sched/,sched.c runq.c wait.c timerq.c) \
       $(addprefix kernel/devices/,bus.c vlapic%.c vioapic.c vpic.c isa_irq.c) \
       $(addprefix mm/,p2m.c p2m_touch.c nested.c flush.c frame.c buddy.c pt/pt.c gwalk.c) \
       $(addprefix mm/shadow/,fill.c load.c page.c pool.c sync.c) \
       $(addprefix mm/share/,index.c cow.c scan.c hash.c) \
       $(addprefix arch/x86_64/,mm_env.c percpu.c clock.c lapic.c irq.c fpu.c) \
       kernel/lib/string.c kernel/lib/rng.c kernel/lib/random.c
HOT_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(filter $(HOT),$(KERNEL_C)))
# Not aligned, which costs as much again as what it is for.
HOT_CFLAGS := -O2 -fjump-tables -fno-align-functions $(if $(CC_IS_CLANG),,-fno-align-jumps -fno-align-loops)
$(HOT_OBJS): CFLAGS += $(HOT_CFLAGS)

# Objects are rebuilt when the compiler or its flags change.
FLAGS_STAMP := $(BUILD)/flags
FLAGS_NOW   := $(CC) $(CFLAGS) $(NASMFLAGS) $(HOT_CFLAGS) $(HOT)
ifneq ($(FLAGS_NOW),$(file <$(FLAGS_STAMP)))
$(shell mkdir -p $(BUILD))
$(file >$(FLAGS_STAMP),$(FLAGS_NOW))
endif

# So are those that contain the mutant, and those that contained the one before.
# $(1): source, $(2): the mutant, if it is in there.
define mutant_rules
ifneq (mutant:$(2),$$(file <$(BUILD)/mutant.d/$(subst /,.,$(1))))
$$(shell mkdir -p $(BUILD)/mutant.d)
$$(file >$(BUILD)/mutant.d/$(subst /,.,$(1)),mutant:$(2))
endif
$(1:%.c=$(BUILD)/%.o) $(1:%.c=$(BUILD)/hostobj/%.o): $(BUILD)/mutant.d/$(subst /,.,$(1))
$(if $(2),$(1:%.c=$(BUILD)/%.o): CFLAGS += -DBALLAST_MUTANT='"$(2)"')
$(if $(2),$(1:%.c=$(BUILD)/hostobj/%.o): HOST_CFLAGS += -DBALLAST_MUTANT='"$(2)"')
endef
$(foreach c,$(MUTANT_C),$(eval $(call mutant_rules,$(c),$(if $(filter $(c),$(MUTANT_IN)),$(MUTANT)))))

$(BUILD)/%.o: %.c $(FLAGS_STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/%.asm.o: %.asm $(FLAGS_STAMP)
	$(call say,NASM,$<)
	@mkdir -p $(@D)
	$(Q)$(NASM) $(NASMFLAGS) -MD $(@:.o=.d) -MP -MT $@ $< -o $@

EMUL_OBJS := $(filter $(BUILD)/kernel/emul/%.o,$(KERNEL_OBJS))
$(BUILD)/kernel/emul/%.o: CFLAGS += $(ZYDIS_CFLAGS)
$(EMUL_OBJS): | $(ZYDIS_STAMP)
$(BUILD)/mm/reclaim/compress.o: CFLAGS += $(LZ4_CFLAGS)
$(BUILD)/mm/reclaim/compress.o: | $(call fetched,lz4)
$(BUILD)/mm/reclaim/crypt.o: CFLAGS += $(AES_CFLAGS)
$(BUILD)/mm/reclaim/crypt.o: | $(call fetched,mbedtls)

LINK = $(LD) $(LDFLAGS) -T linker.ld $(KERNEL_OBJS) $(KERNEL_GEN_OBJS)
LINK_LIBS := $(if $(EMUL_OBJS),$(ZYDIS_LIB)) $(LZ4_LIB) $(AES_LIB)
LINK_DEPS := linker.ld $(KERNEL_OBJS) $(KERNEL_GEN_OBJS) $(LINK_LIBS)

$(BUILD)/symbols0.asm: tools/gen_symbols.py
	@mkdir -p $(@D)
	$(Q)$(PYTHON) $< >$@

$(BUILD)/ballast.pass1.elf: $(LINK_DEPS) $(BUILD)/symbols0.o
	$(call say,LD,$@)
	$(Q)$(LINK) $(BUILD)/symbols0.o $(LINK_LIBS) -o $@

$(BUILD)/symbols1.asm: $(BUILD)/ballast.pass1.elf tools/gen_symbols.py
	$(Q)NM=$(NM) $(PYTHON) tools/gen_symbols.py $< >$@

$(BUILD)/symbols%.o: $(BUILD)/symbols%.asm
	$(Q)$(NASM) $(NASMFLAGS) $< -o $@

$(KERNEL_DEBUG): $(LINK_DEPS) $(BUILD)/symbols1.o
	$(call say,LD,$@)
	$(Q)$(LINK) $(BUILD)/symbols1.o $(LINK_LIBS) -Map=$(BUILD)/ballast.map -o $@

# GRUB copies every section that an image has into memory: boot without the debug ones.
$(KERNEL_ELF): $(KERNEL_DEBUG)
	$(call say,STRIP,$@)
	$(Q)$(OBJCOPY) --strip-all $< $@

-include $(KERNEL_OBJS:.o=.d)

# Packages are installed before anything is built: hence a second make, with a job per processor.
JOBS    ?= $(shell nproc)
SUBMAKE  = $(Q)$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

# ---- Run ---------------------------------------------------------------------------------------

EMU   ?= qemu
CPU   ?= $(if $(filter bochs,$(EMU)),corei7_skylake_x,$(if $(filter kvm,$(ACCEL)),host,EPYC))
SMP   ?= 2
MEM   ?= $(if $(filter bochs,$(EMU)),2G,1G)
ACCEL ?= tcg

# The emulator's models come without SVM unless told; the host's processor is as it is.
QEMU_CPU = $(CPU)$(if $(findstring svm,$(CPU))$(filter host,$(CPU)),,$(COMMA)+svm)
COMMA   := ,

# A disk for guests' pages: with it the ISO boots the overcommit demo.
SWAP_DISK := $(BUILD)/swap.img

$(SWAP_DISK): tools/mkswap.py
	@mkdir -p $(@D)
	$(Q)$(PYTHON) $< $@ 4G

.PHONY: run
run: deps
	$(Q)case '$(EMU)' in qemu|bochs) ;; *) \
	    echo "run: EMU=$(EMU): accepted: qemu, bochs" >&2; exit 1;; esac
	$(Q)case '$(EMU) $(ACCEL)' in 'qemu tcg'|'qemu kvm'|'bochs tcg') ;; *) \
	    echo "run: ACCEL=$(ACCEL): accepted: tcg, and kvm with EMU=qemu" >&2; exit 1;; esac
	+$(SUBMAKE) iso $(SWAP_DISK)
	@echo '  RUN     $(ISO) on $(EMU) $(CPU) (Ctrl-A x ends the machine)'
ifeq ($(EMU),bochs)
	$(Q)$(PYTHON) tools/bochs_run.py --cpu $(CPU) --smp $(SMP) --mem $(MEM) --dir $(BUILD) $(ISO)
else
	$(Q)[ '$(ACCEL)' != kvm ] || { why="$$($(PYTHON) tests/boot/hardware.py kvm)"; \
	    [ -z "$$why" ] || { echo "run: $$why" >&2; exit 1; }; }
	$(Q)$(EMU:qemu=qemu-system-x86_64) -machine q35 -accel $(ACCEL) -cpu $(QEMU_CPU) -smp $(SMP) \
	    -m $(MEM) -nodefaults -vga std -display none -serial mon:stdio \
	    -serial file:$(BUILD)/telemetry.jsonl -no-reboot -cdrom $(ISO) -boot d \
	    -drive if=virtio,format=raw,file=$(SWAP_DISK) \
	    $(QEMU_EXTRA)
endif

# ---- Tests -------------------------------------------------------------------------------------

HOST_TESTS := $(patsubst tests/host/%.c,$(BUILD)/tests/host/%,$(sort $(wildcard tests/host/test_*.c)))
HOST_OBJ    = $(patsubst %.c,$(BUILD)/hostobj/%.o,$(1))
# A program of each test_NAME.c with the modules that test_NAME_SRCS lists (tests/host/tests.mk).
# Modules of kernel/emul find Zydis as in the image.
$(BUILD)/hostobj/%.o: %.c
	$(call say,HOSTCC,$<)
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(HOST_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/hostobj/kernel/emul/%.o: HOST_CFLAGS += $(ZYDIS_CFLAGS)
$(BUILD)/hostobj/tests/host/test_emul%.o $(BUILD)/hostobj/tests/host/test_realmode.o $(BUILD)/hostobj/tests/host/test_task.o: HOST_CFLAGS += $(ZYDIS_CFLAGS)

$(BUILD)/hostobj/mm/reclaim/compress.o: HOST_CFLAGS += $(LZ4_CFLAGS)
$(BUILD)/hostobj/mm/reclaim/compress.o: | $(call fetched,lz4)
$(BUILD)/hostobj/mm/reclaim/crypt.o: HOST_CFLAGS += $(AES_CFLAGS)
$(BUILD)/hostobj/mm/reclaim/crypt.o: | $(call fetched,mbedtls)

define host_test
$(BUILD)/tests/host/$(1): $(call HOST_OBJ,tests/host/$(1).c $($(1)_SRCS)) \
    $(if $(filter kernel/emul/%,$($(1)_SRCS)),$(ZYDIS_HOSTLIB)) \
    $(if $(filter mm/reclaim/%,$($(1)_SRCS)),$(LZ4_HOSTLIB) $(AES_HOSTLIB))
	$$(call say,HOSTLD,$(1))
	@mkdir -p $$(@D)
	$$(Q)$$(HOSTCC) $$(HOST_CFLAGS) $$^ $$($(1)_LDFLAGS) -lcmocka -o $$@
$(if $(filter kernel/emul/%,$($(1)_SRCS)),$(call HOST_OBJ,tests/host/$(1).c $($(1)_SRCS)): | $(ZYDIS_STAMP))
-include $(patsubst %.o,%.d,$(call HOST_OBJ,tests/host/$(1).c $($(1)_SRCS)))
endef
$(foreach t,$(notdir $(HOST_TESTS)),$(eval $(call host_test,$(t))))

BOOT_TEST_DEPS = all iso usb
# Emulators run side by side, the longest test first; each takes one when it is done with another
# (loadgroup hands them out one by one).
TEST_JOBS ?= $(JOBS)
PYTEST = BALLAST_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 \
         $(PYTHON) -m pytest -p no:cacheprovider -q -rs --durations=10 \
         -n $(TEST_JOBS) --dist loadgroup tests/boot

TESTS_WANTED = $(if $(K),-k '$(K)',-m '$(if $(NAMED),,not named$(if $(ALL),, and ))$(if $(ALL),,not long)')

.PHONY: test test-all check test-host test-boot test-tsan
test: deps
	+$(Q)$(MAKE) --no-print-directory check
	+$(Q)$(MAKE) --no-print-directory test-host
	+$(Q)$(MAKE) --no-print-directory test-tsan
	+$(Q)$(MAKE) --no-print-directory test-boot
	+$(if $(ALL),$(Q)$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=10)
test-all:
	+$(Q)$(MAKE) --no-print-directory test ALL=1

check: deps
	+$(SUBMAKE) kernel
	+$(Q)BUILD=$(BUILD) CC=$(CC) MAKE="$(MAKE)" $(PYTHON) tests/check/run.py $(CHECKS)

test-host: deps
	+$(SUBMAKE) $(HOST_TESTS)
	$(Q)$(PYTHON) tests/check/host_runner.py $(HOST_TESTS)

# Page sharing with real threads, under ThreadSanitizer.
TSAN_BUILD := $(BUILD)/tsan
test-tsan: deps
	+$(Q)$(MAKE) --no-print-directory BUILD=$(TSAN_BUILD) THIRD_PARTY=$(THIRD_PARTY) \
	    HOSTLIBS=$(TSAN_BUILD)/hostlibs HOST_SANITIZE=-fsanitize=thread $(TSAN_BUILD)/tests/host/test_share_threads
	$(Q)TSAN_OPTIONS=suppressions=tests/host/tsan.supp:history_size=7 \
	    $(PYTHON) tests/check/host_runner.py $(TSAN_BUILD)/tests/host/test_share_threads

# K=PATTERN runs the tests whose names match, whatever their marks. Without it, those marked `long` need ALL=1,
# those marked `named` NAMED=1.
test-boot: deps
	+$(SUBMAKE) $(BOOT_TEST_DEPS) >$(BUILD)/boot-test-deps.log || { cat $(BUILD)/boot-test-deps.log; exit 1; }
	$(Q)$(PYTEST) $(TESTS_WANTED)

# The same on the host's own virtualisation, where there is any.
.PHONY: test-hw
test-hw:
	+$(Q)why="$$($(PYTHON) tests/boot/hardware.py '$(ACCEL)')"; \
	if [ -n "$$why" ]; then echo "SKIP test-hw: $$why"; exit 0; fi; \
	$(MAKE) --no-print-directory deps && $(MAKE) --no-print-directory $(BOOT_TEST_DEPS) && \
	PYTHONPATH=tests/boot $(PYTEST) -p hardware $(TESTS_WANTED)

# ---- Experiments ---------------------------------------------------------------------------------

# Published figures in small, under $(BUILD)/experiments; EXPERIMENTS="NAME ..." runs some.
.PHONY: experiments
experiments: deps
	+$(SUBMAKE) kernel guests
	$(Q)BALLAST_BUILD=$(abspath $(BUILD)) EXPERIMENTS='$(EXPERIMENTS)' PYTHONDONTWRITEBYTECODE=1 \
	    $(PYTHON) tests/experiments/run.py

# ---- Everything else ---------------------------------------------------------------------------

.PHONY: deps format clean help compile_commands.json
deps:
	$(Q)tools/deps.sh $(DEPS)

compile_commands.json:
	$(Q)$(PYTHON) tools/compile_commands.py '$(CC) $(CFLAGS)' '$(ZYDIS_CFLAGS) $(LZ4_CFLAGS) $(AES_CFLAGS)' $(KERNEL_C) >$@

format:
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	$(Q)rm -rf $(BUILD) compile_commands.json

help:
	@echo 'Targets:'
	@echo '  all          kernel, guests and UEFI loader, under $$(BUILD)'
	@echo '  run          boot the demo ISO: eight Linux guests on 1 GiB (EMU=bochs: three; CPU=a model)'
	@echo '  test         check + test-host + test-tsan + quick boot tests; test-all adds the long ones and fuzz'
	@echo '  check        warnings (gcc, clang), include directions, headers, format, licences'
	@echo '  test-host    unit and property tests on the host; test-boot K=PATTERN in emulators'
	@echo '  test-tsan    page sharing with threads, under ThreadSanitizer'
	@echo '  fuzz         each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo '  test-hw      ACCEL=kvm: the boot tests on the host'"'"'s own virtualisation, or why not'
	@echo '  bench        instruction counts beside KVM and Xen (EMU=bochs: VMX); bench-peers re-measures KVM'
	@echo '  bench-mmu    Linux on nested and on shadow tables, with a picture (MMU=both: bench and this)'
	@echo '  experiments  published figures in small, with pictures (EXPERIMENTS="NAME ...")'
	@echo '  bench-native page sharing in seconds, beside Linux KSM (as root)'
	@echo '  iso usb      bootable images: $(ISO), $(USB_IMAGE)'
	@echo '  deps         install the Debian packages that are missing'
	@echo '  format clean compile_commands.json help'
	@echo 'Variables: BUILD=$(BUILD) CC=$(CC) V=$(V) (1: show commands) VERSION=$(VERSION)'
	@echo '  DEBUG=$(DEBUG) (1: check lock ranks and flush epochs)  JOBS=$(JOBS)'
	@echo '  run: EMU=$(EMU) CPU=$(CPU) SMP=$(SMP) MEM=$(MEM) ACCEL=$(ACCEL) QEMU_EXTRA='
	@echo '  boot tests: K=PATTERN (of names) ALL=1 (long ones too) TEST_JOBS=$(TEST_JOBS) (emulators at once)'
	@echo '  test-all: NAMED=1 (also those that run only when named)  check: CHECKS="layers headers" (some)'
	@echo '  host tests: HOST_SANITIZE="$(HOST_SANITIZE)"'
	@echo '  bench: BENCH_ROWS=guest (without the Linux boots) or linux (only them)'
	@echo '  MUTANT=NAME  a flush or comparison left out, which tests must notice (kernel/lib/mutant.h)'
	@echo 'Environment: BALLAST_TEST_SLOW=3 (multiplies every bound of boot tests)'
	@echo '  BALLAST_SEED=N (of random tests) BALLAST_CASES=N (of test_emul_diff)'

# SPDX-License-Identifier: BSD-2-Clause
# The modules that each host test links (see the Makefile, "Tests").
test_loader_SRCS := kernel/vm/loader.c kernel/vm/loader_linux.c kernel/vm/loader_multiboot1.c kernel/lib/printf.c kernel/lib/string.c
test_bootinfo_SRCS := boot/bootinfo.c boot/bootinfo_mb2.c boot/bootinfo_pvh.c

# mm/ with its surroundings on the host.
MM_ENV_SRCS := tests/host/env.c kernel/lib/rng.c mm/audit.c mm/frame.c mm/buddy.c mm/buddy_audit.c mm/buddy_init.c mm/buddy_retire.c mm/slab.c
MM_PT_SRCS := tests/host/refmmu.c mm/flush.c mm/pt/pt.c mm/pt/pt_visit.c mm/pt/fmt_x86.c
MM_SHARE_SRCS := $(addprefix mm/share/,hash.c index.c cow.c scan.c share.c)
MM_P2M_SRCS := mm/p2m.c mm/p2m_touch.c mm/p2m_audit.c $(MM_SHARE_SRCS)
test_buddy_SRCS := $(MM_ENV_SRCS)
test_slab_SRCS := $(MM_ENV_SRCS)
test_flush_SRCS := $(MM_ENV_SRCS) mm/flush.c
test_pt_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS)
test_p2m_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS)
test_nested_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c
test_tag_SRCS := $(MM_ENV_SRCS) kernel/vm/tag.c
# The run loop, the flushes and the fault path of the kernel, which the test interrupts where it likes.
test_tlb_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c tests/host/lockstep.c \
                 $(addprefix kernel/vm/,fault.c flush.c run.c tag.c) kernel/lib/err.c
test_tlb_LDFLAGS := -Wl,--wrap=p2m_populate,--wrap=sched_yield
test_share_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c
test_runq_SRCS := kernel/sched/runq.c
test_timerq_SRCS := kernel/sched/timerq.c
test_ept_SRCS := $(MM_ENV_SRCS) mm/flush.c mm/pt/pt.c mm/pt/pt_visit.c mm/pt/fmt_ept.c
test_svm_doctor_SRCS := svm/svm_doctor.c svm/vmcb.c
test_mitigate_SRCS := arch/x86_64/mitigate_plan.c
test_vmx_doctor_SRCS := vmx/vmx_doctor.c vmx/vmx_doctor_guest.c
test_mtrr_SRCS := arch/x86_64/mtrr_type.c
test_cr_rules_SRCS := kernel/vm/cr_rules.c
test_acpi_SRCS := arch/x86_64/acpi_tables.c kernel/lib/rng.c kernel/lib/string.c

# Console, configuration, library.
test_string_SRCS :=
test_printf_SRCS := kernel/lib/string.c
test_rng_SRCS := kernel/lib/random.c kernel/lib/rng.c
test_parse_SRCS := kernel/lib/parse.c kernel/lib/string.c
test_config_SRCS := kernel/options.c kernel/vm/config.c kernel/vm/config_text.c kernel/lib/parse.c kernel/lib/string.c kernel/lib/printf.c kernel/lib/rng.c
test_line_SRCS := kernel/shell/line.c kernel/drivers/term.c kernel/lib/string.c kernel/lib/rng.c
test_logring_SRCS := kernel/logring.c kernel/lib/string.c kernel/lib/rng.c
test_term_SRCS := kernel/drivers/term.c kernel/drivers/keymap.c kernel/lib/string.c kernel/lib/rng.c
test_guestconsole_SRCS := kernel/vm/guestconsole.c kernel/lib/string.c

# The guest page-table walker, devices, the emulator.
test_gwalk_SRCS := mm/gwalk.c kernel/lib/rng.c
VLAPIC_SRCS := kernel/devices/vlapic.c kernel/devices/vlapic_ipi.c kernel/devices/vlapic_regs.c \
               kernel/devices/vlapic_timer.c
test_bus_SRCS := tests/host/fakevm.c kernel/devices/bus.c
test_vlapic_SRCS := tests/host/fakevm.c $(VLAPIC_SRCS) kernel/lib/rng.c
test_vioapic_SRCS := tests/host/fakevm.c kernel/devices/bus.c kernel/devices/vioapic.c kernel/lib/rng.c
test_vuart_SRCS := tests/host/fakevm.c kernel/devices/bus.c kernel/devices/vuart.c kernel/lib/rng.c
test_platform_SRCS := tests/host/fakevm.c $(addprefix kernel/devices/,bus.c platform.c vmware.c vpit.c \
                      vrtc.c acpi_tables.c smbios.c) kernel/lib/random.c kernel/lib/rng.c kernel/lib/printf.c kernel/lib/string.c
test_decode_SRCS := kernel/emul/decode.c kernel/lib/rng.c
EMUL_SRCS := $(addprefix kernel/emul/,alu.c decode.c emul.c exec_alu.c exec_mov.c exec_string.c operand.c)
test_emul_SRCS := tests/host/fakevm.c $(EMUL_SRCS) kernel/lib/rng.c kernel/lib/printf.c

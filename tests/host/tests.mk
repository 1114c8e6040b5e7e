# SPDX-License-Identifier: BSD-2-Clause
# The modules that each host test links (see the Makefile, "Tests").
test_loader_SRCS := kernel/vm/loader.c kernel/vm/loader_map.c kernel/vm/loader_elf.c kernel/vm/loader_linux.c \
                    kernel/vm/loader_multiboot1.c kernel/vm/loader_multiboot2.c kernel/vm/loader_pvh.c kernel/lib/printf.c kernel/lib/string.c
test_bootinfo_SRCS := boot/bootinfo.c boot/bootinfo_mb2.c boot/bootinfo_pvh.c

# mm/ with its surroundings on the host.
MM_ENV_SRCS := tests/host/env.c kernel/lib/rng.c mm/audit.c mm/frame.c mm/buddy.c mm/buddy_audit.c mm/buddy_init.c mm/buddy_isolate.c mm/buddy_retire.c mm/slab.c
MM_PT_SRCS := tests/host/refmmu.c mm/flush.c mm/pt/pt.c mm/pt/pt_visit.c mm/pt/fmt_x86.c
MM_SHARE_SRCS := $(addprefix mm/share/,hash.c index.c cow.c scan.c share.c born.c)
MM_SWAP_SRCS := $(addprefix mm/reclaim/,compress.c crypt.c slots.c swap.c swap_batch.c swap_in.c) kernel/lib/err.c
MM_P2M_SRCS := mm/reclaim/reclaim_note.c mm/p2m.c mm/p2m_touch.c mm/p2m_balloon.c mm/p2m_large.c mm/p2m_audit.c mm/compact.c $(MM_SHARE_SRCS) $(MM_SWAP_SRCS)
test_buddy_SRCS := $(MM_ENV_SRCS)
test_slab_SRCS := $(MM_ENV_SRCS)
test_flush_SRCS := $(MM_ENV_SRCS) mm/flush.c
test_pt_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS)
test_p2m_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS)
test_nested_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c kernel/vm/admission_check.c kernel/lib/printf.c kernel/lib/string.c
SHADOW_SRCS := mm/gwalk.c $(addprefix mm/shadow/,audit.c fill.c load.c page.c pool.c shadow.c sync.c)
test_shadow_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) $(SHADOW_SRCS) $(addprefix tests/host/,refguest.c shadowenv.c)
test_shadow_directed_SRCS := $(test_shadow_SRCS)
test_shadow_directed_LDFLAGS := -Wl,--wrap=p2m_query
test_p2m_balloon_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c
test_cr_SRCS := tests/host/fakevm.c kernel/vm/cr.c kernel/vm/cr_rules.c
test_msr_SRCS := tests/host/fakevm.c kernel/vm/msr.c
test_event_SRCS := kernel/vm/event.c svm/svm_event.c vmx/vmx_event.c
test_softmmu_SRCS := tests/host/fakevm.c kernel/vm/softmmu.c
test_guestmem_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/gwalk.c kernel/vm/guestmem.c
test_memwait_SRCS := tests/host/fakevm.c kernel/vm/memwait.c
TAG_ENV_SRCS := $(MM_ENV_SRCS) tests/host/tagenv.c kernel/vm/tag.c
test_tag_SRCS := $(TAG_ENV_SRCS)
test_entry_flush_SRCS := $(TAG_ENV_SRCS) svm/svm_flush.c vmx/vmx_flush.c
# The run loop, the flushes and the fault path of the kernel, which the test interrupts where it likes.
test_tlb_SRCS := $(TAG_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c tests/host/lockstep.c \
                 $(addprefix kernel/vm/,fault.c flush.c run.c) arch/x86_64/mitigate_plan.c
test_tlb_LDFLAGS := -Wl,--wrap=p2m_populate,--wrap=sched_yield
test_share_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c $(addprefix tests/host/,shareenv.c tlbguest.c)
test_share_breaks_SRCS := $(test_share_SRCS)
test_share_threads_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c
test_victims_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c tests/host/faultstore.c
test_swap_SRCS := $(test_victims_SRCS) $(addprefix tests/host/,swapenv.c tlbguest.c)
test_swap_faults_SRCS := $(test_swap_SRCS)
test_victims_LDFLAGS := -lm
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
test_config_SRCS := kernel/options.c kernel/vm/config.c kernel/vm/config_keys.c kernel/vm/config_text.c kernel/lib/parse.c kernel/lib/string.c kernel/lib/printf.c kernel/lib/rng.c
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
test_vkbd_SRCS := tests/host/fakevm.c kernel/devices/bus.c kernel/devices/vkbd.c kernel/lib/rng.c
test_vpic_SRCS := tests/host/fakevm.c $(addprefix kernel/devices/,bus.c vpic.c isa_irq.c) kernel/lib/rng.c
test_timers_SRCS := tests/host/fakevm.c $(addprefix kernel/devices/,bus.c vpit.c vrtc.c vpm.c vhpet.c) \
                    kernel/lib/rng.c
test_platform_SRCS := tests/host/fakevm.c $(addprefix kernel/devices/,bus.c platform.c vmware.c \
                      acpi_tables.c acpi_virtio.c bios.c mptable.c smbios.c vfwcfg.c) kernel/vm/loader_map.c kernel/lib/random.c kernel/lib/rng.c kernel/lib/printf.c kernel/lib/string.c
test_vring_SRCS := tests/host/ringenv.c kernel/devices/vring.c kernel/lib/printf.c kernel/lib/rng.c
VIRTIO_SRCS := $(addprefix tests/host/,fakevm.c ringenv.c virtioenv.c) kernel/drivers/blkclaim.c $(addprefix kernel/lib/,\
               printf.c random.c rng.c string.c) $(addprefix kernel/devices/,bus.c cowimage.c vballoon.c vblk.c \
               vconsole.c vdisk.c vmmio.c vmmio_regs.c vrandom.c vring.c)
test_vmmio_SRCS := $(VIRTIO_SRCS)
test_vdevices_SRCS := $(VIRTIO_SRCS)
test_decode_SRCS := kernel/emul/decode.c kernel/lib/rng.c
EMUL_SRCS := $(addprefix kernel/emul/,alu.c decode.c emul.c exec_alu.c exec_calc.c exec_flow.c exec_int.c exec_mov.c \
             exec_seg.c exec_stack.c exec_string.c operand.c segment.c step.c task.c)
EMUL_ENV_SRCS := tests/host/fakevm.c tests/host/emulenv.c $(EMUL_SRCS) kernel/lib/rng.c kernel/lib/printf.c
test_emul_SRCS := $(EMUL_ENV_SRCS)
test_realmode_SRCS := $(addprefix tests/host/,fakevm.c flatmem.c) $(addprefix kernel/vm/,dr.c realmode.c) $(EMUL_SRCS) kernel/lib/printf.c kernel/lib/rng.c
test_task_SRCS := $(addprefix tests/host/,fakevm.c flatmem.c) $(EMUL_SRCS) kernel/lib/printf.c kernel/lib/rng.c
test_emul_diff_SRCS := tests/host/nativecpu.c tests/host/emulforms.c $(EMUL_ENV_SRCS)

# Who needs memory, and what each is owed.
test_policy_SRCS := mm/reclaim/policy.c kernel/lib/rng.c
test_tax_SRCS := mm/reclaim/tax.c kernel/lib/rng.c
test_sample_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c mm/pt/fmt_ept.c mm/reclaim/sample.c
test_sample_LDFLAGS := -lm
test_reclaim_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c kernel/lib/string.c \
                     $(addprefix mm/reclaim/,reclaim.c reclaim_carry.c reclaim_record.c reclaim_vms.c policy.c tax.c sample.c)
test_admission_SRCS := kernel/vm/admission_check.c kernel/lib/printf.c kernel/lib/string.c

# The balloon with its device.
test_balloon_SRCS := $(MM_ENV_SRCS) $(MM_PT_SRCS) $(MM_P2M_SRCS) mm/nested.c mm/reclaim/balloon.c \
                     kernel/vm/ballooning.c kernel/devices/vmballoon.c kernel/options.c kernel/lib/parse.c kernel/lib/printf.c kernel/lib/string.c

# Disks.
test_blk_SRCS := $(MM_ENV_SRCS) kernel/drivers/blk_queue.c
LABEL_SRCS := tests/host/partitions.c kernel/drivers/label.c $(addprefix kernel/lib/,crc32.c printf.c string.c)
test_label_SRCS := $(LABEL_SRCS) kernel/lib/rng.c
test_swaparea_SRCS := $(MM_ENV_SRCS) $(LABEL_SRCS) kernel/drivers/swaparea.c kernel/drivers/blkclaim.c \
                      $(addprefix kernel/lib/,err.c parse.c random.c)

test_terminal_SRCS := kernel/shell/terminal.c
test_wset_SRCS := guests/wset/parse.c guests/wset/run.c

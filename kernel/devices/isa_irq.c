/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines without state: both controllers keep their levels. Callers: device models. */
#include "kernel/devices/isa_irq.h"

#include "kernel/devices/devices.h"
#include "kernel/devices/vpic.h"
#include "kernel/vm/vm.h"

void isa_irq_set(struct vm *vm, unsigned irq, bool level)
{
    vpic_set_line(vm, irq, level);
    vioapic_set_line(vm, irq == ISA_IRQ_PIT ? IOAPIC_PIN_PIT : irq, level);
}

void isa_irq_set_timer(struct vm *vm, unsigned irq, bool level)
{
    if (!__atomic_load_n(&vm->hpet_is_legacy, __ATOMIC_RELAXED)) {
        isa_irq_set(vm, irq, level);
    }
}

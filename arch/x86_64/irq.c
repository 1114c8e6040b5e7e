/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host interrupts: a handler per vector, and routing of device lines to vectors. The table is
 * changed under `routing`; the dispatcher reads it without: a handler is published by its function
 * pointer and never removed.
 */
#include "arch/x86_64/irq.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/ioapic.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/pic.h"
#include "arch/x86_64/trap.h"
#include "kernel/log.h"

struct irq_slot {
    irq_handler_t fn; /* atomic; written last */
    void *arg;
};

static struct spinlock routing = SPINLOCK_INIT(RANK_IRQ, "irq routing");
static struct irq_slot slots[256];
static unsigned next_device_vector = VEC_DEVICE_FIRST; /* routing lock */
static uint32_t nr_unexpected;                         /* atomic */

static enum hv_err install_locked(unsigned vector, irq_handler_t fn, void *arg)
{
    if (vector < 32 || vector >= ARRAY_SIZE(slots)) {
        return HV_ERANGE;
    }
    if (slots[vector].fn != NULL) {
        return HV_EBUSY;
    }
    slots[vector].arg = arg;
    __atomic_store_n(&slots[vector].fn, fn, __ATOMIC_RELEASE);
    return HV_OK;
}

enum hv_err irq_install(unsigned vector, irq_handler_t fn, void *arg)
{
    uint64_t flags = spin_lock_irqsave(&routing);
    enum hv_err err = install_locked(vector, fn, arg);

    spin_unlock_irqrestore(&routing, flags);
    return err;
}

/* The next device vector gets the handler. Taken even if routing fails later: the slot then has a
 * handler that nothing will call. */
static enum hv_err take_vector_locked(irq_handler_t fn, void *arg, unsigned *vector)
{
    if (next_device_vector > VEC_DEVICE_LAST) {
        return HV_EBUSY;
    }
    *vector = next_device_vector;
    enum hv_err err = install_locked(*vector, fn, arg);

    next_device_vector += err == HV_OK;
    return err;
}

enum hv_err irq_route_isa(unsigned isa_irq, irq_handler_t fn, void *arg)
{
    struct acpi_override line;
    unsigned vector;

    acpi_isa_line(isa_irq, &line);
    uint64_t flags = spin_lock_irqsave(&routing);
    enum hv_err err = take_vector_locked(fn, arg, &vector);

    if (err == HV_OK) {
        err = ioapic_route(line.gsi, vector, cpu_by_id(0)->apic_id, line.level, line.active_low);
    }
    spin_unlock_irqrestore(&routing, flags);
    return err;
}

/* "Message Address Register Format": FEEH, destination, no redirection hint, physical mode; the data
 * is the vector: fixed, edge. */
enum hv_err irq_alloc_msi(irq_handler_t fn, void *arg, uint32_t *address, uint32_t *data)
{
    uint32_t apic_id = cpu_by_id(0)->apic_id;
    unsigned vector;

    if (apic_id > 0xff) {
        return HV_ENOTSUP;
    }
    uint64_t flags = spin_lock_irqsave(&routing);
    enum hv_err err = take_vector_locked(fn, arg, &vector);

    spin_unlock_irqrestore(&routing, flags);
    if (err == HV_OK) {
        *address = 0xfee00000u | apic_id << 12;
        *data = vector;
    }
    return err;
}

static void unexpected(unsigned vector)
{
    /* A line that storms must not drown the log. */
    if (__atomic_fetch_add(&nr_unexpected, 1, __ATOMIC_RELAXED) < 16) {
        log_warn("cpu %u: unexpected interrupt, vector 0x%x", this_cpu()->id, vector);
    }
}

void irq_dispatch(const struct trap_frame *frame)
{
    struct cpu *cpu = this_cpu();
    unsigned vector = (unsigned)frame->vector;

    cpu->nr_irqs++;
    if (vector == VEC_SPURIOUS || (vector >= PIC_VECTOR_FIRST && vector <= PIC_VECTOR_LAST)) {
        return; /* neither is in service: an EOI would end another interrupt */
    }
    cpu->irq_depth++;
    irq_handler_t fn = __atomic_load_n(&slots[vector].fn, __ATOMIC_ACQUIRE);

    if (vector == VEC_KICK) {
        cpu->nr_kicks++;
    }
    if (fn != NULL) {
        fn(slots[vector].arg);
    } else if (vector != VEC_KICK) {
        unexpected(vector);
    }
    lapic_eoi();
    cpu->irq_depth--;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The ways to misbehave; see badguest.c for the table of names. */
#pragma once

/* Loads an empty IDT and raises #UD: the processor shuts down. Does not return. */
void bad_triple(void);

/* Loops with interrupts off for ever, or halts with them off. Neither returns. */
void bad_cli(void);
void bad_clihlt(void);

/* Jumps to addresses without RAM behind them. Returns when each became an exception. */
void bad_wild(void);

/* Storm of interrupts to itself, then the same with an IDT that is too short: shuts down. */
void bad_idt(void);

/* Reads and writes memory-mapped space and ports that nothing answers to: all ones expected. */
void bad_mmio(void);
void bad_ports(void);

/* Every SVM instruction, with EFER.SVME refused: #UD or #GP expected. */
void bad_vmrun(void);

/* Reads and writes every MSR in the four ranges that exist. */
void bad_msrs(void);

/* Illegal control register and EFER values: #GP expected. */
void bad_cr(void);

/* Leaving parts of long mode while in it: #GP, or the guest's end where the processor is lax. */
void bad_crkill(void);

/* Garbage into every local APIC and IOAPIC register. */
void bad_apic(void);

/* Shortest timer periods, extreme deadlines and time stamps. */
void bad_timer(void);

/* INIT, start-up, NMI and interrupt messages from all of its processors to all (several vCPUs). */
void bad_flood(void);

/* Text without end. Does not return. */
void bad_babble(void);

/* Operands and copies across the end of RAM and of the address space; code there. */
void bad_edge(void);
void bad_exec(void);

/* Device accesses that another processor rewrites meanwhile (two vCPUs). */
void bad_morph(void);

/* Page tables, a stack, where no RAM is. Neither returns. */
void bad_tables(void);
void bad_stack(void);

/* A processor in real mode with wild segments (two vCPUs). */
void bad_real(void);

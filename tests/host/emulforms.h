/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The instructions that test_emul_diff.c puts to the processor and to the emulator: how each is encoded,
 * and what of it may differ; and the data segments that code of the old modes runs with.
 */
#pragma once

#include "kernel/vm/backend.h"

struct emul_form {
    const char *name;
    uint16_t opcode;
    int8_t group;       /* ModRM.reg as opcode extension; -1: a register */
    uint8_t imm;        /* 0: none, 1: byte, 4: up to four bytes by operand size */
    uint8_t mem;        /* bytes of memory; 0: the operand size */
    uint64_t undefined; /* flags that the manual leaves open */
    unsigned special;   /* S_* */
};

#define OPCODE_CMPS 0xa6

#define S_BIT 1u    /* the register's bit number moves the address */
#define S_DIRECT 2u /* moffs, no ModRM */
#define S_STRING 4u /* no ModRM */
#define S_STACK 8u  /* RSP is an operand too */
#define S_PLAIN 16u /* no ModRM, no memory but the stack */
#define S_LOCK 32u  /* LOCK is allowed */
#define S_SEG 64u   /* ModRM.reg is a segment register */
#define S_WIDE 128u /* CMPXCHG16B; without it REX.W is not for this form */
#define S_NARROW 256u
#define S_LONG 512u /* 64-bit mode only */
#define S_FULL (S_STRING | S_STACK)
#define S_MEMORY 1024u      /* its ModRM operand is never a register */
#define S_STEP 2048u        /* emul_step only: no device is accessed so */
#define S_OPREG 4096u       /* no ModRM, a register in the opcode */
#define S_ACC 8192u         /* no ModRM, at most an immediate */
#define S_OLD 16384u        /* not in 64-bit mode */
#define S_CC 32768u         /* a condition in the opcode */
#define S_COUNT 65536u      /* counts beyond the operand's size are undefined */
#define S_NO_64 131072u     /* REX.W is not for this form */
#define S_NO_16 262144u     /* undefined with 16 bits */
#define S_PARTIAL 524288u   /* the processor has done a part when it faults */
#define S_EXIT 1048576u     /* emul_mmio only */
#define S_FRAME 2097152u    /* RBP points to the stack */
#define S_TABLE 4194304u    /* RBX points to memory */
#define S_SELECTOR 8388608u /* pushes a segment register */
#define S_NO_MODRM (S_DIRECT | S_STRING | S_PLAIN | S_OPREG | S_ACC)

extern const struct emul_form emul_forms[];
extern const unsigned nr_emul_forms;
#define MAX_FORMS 256u

/* Attributes: present, DPL 3, writable, expanding up. */
#define DATA 0xf3u
#define BIG 0x400u

#define NR_EMUL_DATA 7u
#define DATA_FLAT 0
#define DATA_SMALL 1
#define NR_WRITABLE_DATA 6u /* of the first ones: fit for SS */
/* Once emulforms_make_segments has made them. */
extern struct segment emul_data[NR_EMUL_DATA];
/* Bases are relative to the code page, a page below the arena; flat: absolute. */
void emulforms_make_segments(uint8_t *code);

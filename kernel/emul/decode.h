/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A decoded instruction as the emulator needs it: prefixes, opcode and raw operand fields, compact
 * enough for a cache. Pure. Between kernel/emul/decode.c and the files that execute.
 */
#pragma once

#include "kernel/emul/emul.h"

#define INSN_MAX_BYTES 15
#define INSN_NO_REG 0xff
#define INSN_BASE_RIP 0xfe
#define INSN_NO_SEG 0xff

struct insn {
    uint8_t length;
    uint8_t mode;          /* enum emul_mode */
    uint16_t opcode;       /* one byte, or 0x0fXX; others 0xffff: nothing we execute */
    uint8_t operand_bytes; /* 2, 4, 8: size of a "v" operand */
    uint8_t address_bytes; /* 2, 4, 8 */
    uint8_t rex;           /* whole prefix byte, 0: none */
    uint8_t rep;           /* 0, 0xf2, 0xf3 */
    uint8_t seg;           /* override: enum seg_reg, or INSN_NO_SEG */
    bool lock;
    bool has_modrm;
    uint8_t mod, reg, rm;       /* reg and rm with their REX bits */
    uint8_t base, index, scale; /* registers or INSN_NO_REG, INSN_BASE_RIP; scale in bits */
    uint8_t imm_bytes;
    uint16_t imm2; /* the selector of a far pointer; ENTER's level */
    int64_t disp;  /* also the address of MOV's direct forms */
    int64_t imm;   /* also the offset of a far pointer, and a jump's distance */
};

/* Decode bytes[0..len); false if there is no whole instruction in them. */
bool decode_insn(const uint8_t *bytes, unsigned len, enum emul_mode mode, struct insn *out);
/* Only if this processor's cache has it: cheap. */
bool decode_cached(const uint8_t *bytes, unsigned len, enum emul_mode mode, struct insn *out);

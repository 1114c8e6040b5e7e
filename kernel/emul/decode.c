/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decoding with Zydis, which knows the length of everything; from its raw fields the parts that the
 * emulator executes are put together. Decoding depends on the bytes and the mode alone, so results may
 * be cached without any invalidation: a small direct-mapped cache per processor, keyed by exactly that
 * (15 bytes, how many of them are valid, mode). Instructions that exit all the time and have one
 * encoding are recognised without it.
 */
#include "kernel/emul/decode.h"

#include <Zydis/Zydis.h>

#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/slab.h"

#define CACHE_ENTRIES 64 /* a power of two; one page */
#define NO_OPCODE 0xffff
#define MAX_CACHES 256

struct cache_entry {
    uint64_t key[2];
    struct insn insn;
};

struct cache {
    struct cache_entry entry[CACHE_ENTRIES]; /* its processor's, outside interrupts */
};

static struct cache *caches[MAX_CACHES]; /* set once (atomic), never freed */

enum hv_err emul_init(void)
{
    for (unsigned i = 0; i < MIN(env_nr_cpus(), (unsigned)MAX_CACHES); i++) {
        struct cache *none = NULL;

        if (__atomic_load_n(&caches[i], __ATOMIC_ACQUIRE)) {
            continue;
        }
        struct cache *c = kmalloc(sizeof *c, OWNER_HOST);
        if (!c) {
            return HV_ENOMEM;
        }
        if (!__atomic_compare_exchange_n(&caches[i], &none, c, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED)) {
            kfree(c);
        }
    }
    return HV_OK;
}

/* --- from Zydis' fields to ours --- */

static uint8_t segment_of(uint8_t prefix)
{
    switch (prefix) {
    case 0x26:
        return SEG_ES;
    case 0x2e:
        return SEG_CS;
    case 0x36:
        return SEG_SS;
    case 0x3e:
        return SEG_DS;
    case 0x64:
        return SEG_FS;
    case 0x65:
        return SEG_GS;
    default:
        return INSN_NO_SEG;
    }
}

static void take_prefixes(const ZydisDecodedInstruction *z, struct insn *out)
{
    bool size_override = false;

    out->seg = INSN_NO_SEG;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        uint8_t p = z->raw.prefixes[i].value, seg = segment_of(p);

        if (seg != INSN_NO_SEG && (out->mode != EMUL_64 || p >= 0x64)) {
            out->seg = seg;
        }
        out->lock |= p == 0xf0;
        size_override |= p == 0x66;
        if (p == 0xf2 || p == 0xf3) {
            out->rep = p;
        }
    }
    if (out->mode == EMUL_64 && z->raw.prefix_count > 0) {
        uint8_t last = z->raw.prefixes[z->raw.prefix_count - 1].value;

        out->rex = (last & 0xf0) == 0x40 ? last : 0;
    }
    bool narrow = size_override != (out->mode == EMUL_16);
    out->operand_bytes = out->rex & 8 ? 8 : narrow ? 2 : 4;
    out->address_bytes = (uint8_t)(z->address_width / 8);
}

static void take_opcode(const ZydisDecodedInstruction *z, struct insn *out)
{
    out->opcode = NO_OPCODE;
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
            out->opcode = z->opcode;
        } else if (z->opcode_map == ZYDIS_OPCODE_MAP_0F) {
            out->opcode = (uint16_t)(0x0f00 | z->opcode);
        }
    }
}

/* Base and index of the 16-bit forms, by rm. Manual: "16-Bit Addressing Forms with the ModR/M Byte". */
static void take_memory16(struct insn *out)
{
    static const uint8_t base[8] = {GPR_RBX, GPR_RBX, GPR_RBP, GPR_RBP,
                                    GPR_RSI, GPR_RDI, GPR_RBP, GPR_RBX};
    static const uint8_t index[8] = {GPR_RSI,     GPR_RDI,     GPR_RSI,     GPR_RDI,
                                     INSN_NO_REG, INSN_NO_REG, INSN_NO_REG, INSN_NO_REG};

    out->base = out->mod == 0 && out->rm == 6 ? INSN_NO_REG : base[out->rm];
    out->index = index[out->rm];
}

static void take_memory(const ZydisDecodedInstruction *z, struct insn *out)
{
    unsigned rex_b = out->rex & 1 ? 8 : 0, rex_x = out->rex & 2 ? 8 : 0;

    if (out->address_bytes == 2) {
        take_memory16(out);
    } else if (z->raw.modrm.rm == 4) {
        unsigned index = z->raw.sib.index | rex_x;
        bool no_base = z->raw.sib.base == 5 && out->mod == 0;

        out->base = no_base ? INSN_NO_REG : (uint8_t)(z->raw.sib.base | rex_b);
        out->index = index == 4 ? INSN_NO_REG : (uint8_t)index;
        out->scale = z->raw.sib.scale;
    } else if (z->raw.modrm.rm == 5 && out->mod == 0) {
        out->base = out->mode == EMUL_64 ? INSN_BASE_RIP : INSN_NO_REG;
    } else {
        out->base = (uint8_t)(z->raw.modrm.rm | rex_b);
    }
}

static void take_operands(const ZydisDecodedInstruction *z, struct insn *out)
{
    out->base = out->index = INSN_NO_REG;
    out->disp = z->raw.disp.value;
    out->imm = z->raw.imm[0].value.s;
    out->imm_bytes = z->raw.imm[0].size / 8;
    out->imm2 = (uint16_t)z->raw.imm[1].value.u;
    if (out->imm_bytes > 0 && out->imm_bytes < 8) {
        unsigned unused = 64 - z->raw.imm[0].size;

        out->imm = (int64_t)((uint64_t)out->imm << unused) >> unused;
    }
    out->has_modrm = z->raw.modrm.offset != 0;
    if (!out->has_modrm) {
        return;
    }
    out->mod = z->raw.modrm.mod;
    out->reg = (uint8_t)(z->raw.modrm.reg | (out->rex & 4 ? 8 : 0));
    out->rm = z->raw.modrm.rm;
    if (out->mod == 3) {
        out->rm |= out->rex & 1 ? 8 : 0;
    } else {
        take_memory(z, out);
    }
}

/* AMD's other name of CR8: a locked move of CR0, which Zydis takes for a mistake. Manual: AMD APM
 * volume 2, "CR8 (Task Priority Register, TPR)". */
static bool is_locked_cr_move(const uint8_t *bytes, unsigned len)
{
    return len >= 4 && bytes[0] == 0xf0 && bytes[1] == 0x0f && (bytes[2] & 0xfd) == 0x20;
}

static bool decode(const uint8_t *bytes, unsigned len, enum emul_mode mode, struct insn *out)
{
    static const struct {
        ZydisMachineMode machine;
        ZydisStackWidth stack;
    } modes[] = {
        [EMUL_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        [EMUL_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        [EMUL_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    unsigned lock = is_locked_cr_move(bytes, len);

    if (!ZYAN_SUCCESS(ZydisDecoderInit(&decoder, modes[mode].machine, modes[mode].stack)) ||
        !ZYAN_SUCCESS(
            ZydisDecoderDecodeInstruction(&decoder, NULL, bytes + lock, len - lock, &z))) {
        return false;
    }
    *out = (struct insn){.length = z.length, .mode = (uint8_t)mode};
    take_prefixes(&z, out);
    take_opcode(&z, out);
    take_operands(&z, out);
    out->lock |= lock;
    out->length = (uint8_t)(out->length + lock);
    return true;
}

/* --- the cache --- */

/* The key's last byte holds mode and length; an empty entry of the cache has the key of no bytes at all
 * (which are no instruction). */
static void make_key(const uint8_t *bytes, unsigned len, enum emul_mode mode, uint64_t key[2])
{
    uint8_t raw[16] = {0};

    if (likely(len == INSN_MAX_BYTES)) {
        memcpy(raw, bytes, INSN_MAX_BYTES); /* a few moves */
    } else {
        memcpy(raw, bytes, len);
    }
    raw[15] = (uint8_t)((unsigned)mode << 4 | len);
    memcpy(key, raw, sizeof raw);
}

static struct cache_entry *cache_slot(const uint64_t key[2])
{
    struct cache *c = caches[env_cpu() % MAX_CACHES];
    uint64_t hash = (key[0] ^ (key[1] << 7)) * 0x9e3779b97f4a7c15ull;

    return c ? &c->entry[hash >> 32 & (CACHE_ENTRIES - 1)] : NULL;
}

static bool cache_hit(const struct cache_entry *e, const uint64_t key[2])
{
    return e && e->key[0] == key[0] && e->key[1] == key[1] && e->insn.length != 0;
}

bool decode_cached(const uint8_t *bytes, unsigned len, enum emul_mode mode, struct insn *out)
{
    uint64_t key[2];

    make_key(bytes, MIN(len, (unsigned)INSN_MAX_BYTES), mode, key);
    const struct cache_entry *e = cache_slot(key);
    if (!cache_hit(e, key)) {
        return false;
    }
    *out = e->insn;
    return true;
}

bool decode_insn(const uint8_t *bytes, unsigned len, enum emul_mode mode, struct insn *out)
{
    uint64_t key[2];

    len = MIN(len, (unsigned)INSN_MAX_BYTES);
    make_key(bytes, len, mode, key);
    struct cache_entry *e = cache_slot(key);
    if (cache_hit(e, key)) {
        *out = e->insn;
        return true;
    }
    if (!decode(bytes, len, mode, out)) {
        return false;
    }
    if (e) {
        e->key[0] = key[0];
        e->key[1] = key[1];
        e->insn = *out;
    }
    return true;
}

/* --- lengths --- */

/* Instructions that exits come from, in their usual encoding and the same in all modes; 0: look
 * closer. bytes[0..2] are valid. */
static unsigned usual_length(const uint8_t *b)
{
    switch (b[0]) {
    case 0x0f:
        switch (b[1]) {
        case 0x06: /* CLTS */
        case 0x08: /* INVD */
        case 0x09: /* WBINVD */
        case 0x30: /* WRMSR */
        case 0x31: /* RDTSC */
        case 0x32: /* RDMSR */
        case 0x33: /* RDPMC */
        case 0xa2: /* CPUID */
            return 2;
        case 0x01: /* VMMCALL, XSETBV, MONITOR, RDTSCP, ... */
            return b[2] >= 0xc0 ? 3 : 0;
        case 0x20 ... 0x23: /* moves to and from control and debug registers */
            return 3;
        default:
            return 0;
        }
    case 0x6c ... 0x6f: /* INS, OUTS */
    case 0xec ... 0xef: /* IN, OUT by DX */
    case 0xf4:          /* HLT */
        return 1;
    case 0xe4 ... 0xe7: /* IN, OUT by number */
        return 2;
    case 0xf3:
        return b[1] == 0x90 || (b[1] >= 0x6c && b[1] <= 0x6f) ? 2 : 0; /* PAUSE, REP INS, OUTS */
    default:
        return 0;
    }
}

unsigned emul_length(const uint8_t *bytes, unsigned len, enum emul_mode mode)
{
    struct insn in;

    if (likely(len >= 3)) {
        unsigned n = usual_length(bytes);

        if (likely(n)) {
            return n;
        }
    }
    return decode_insn(bytes, len, mode, &in) ? in.length : 0;
}

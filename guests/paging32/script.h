/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing scripts, and holding what they found against what a processor must do. One scenario at a
 * time: its address space, its script, its verdict. A wrong step is named by its line of the source.
 */
#pragma once

#include "guests/paging32/run.h"
#include "guests/paging32/space.h"

#define NR_FRAMES 4U
#define CODE_AT 0x800UL /* in each frame: a function that returns code_value() */

#define ERR_P 0x1U
#define ERR_W 0x2U
#define ERR_U 0x4U
#define ERR_RSVD 0x8U
#define ERR_I 0x10U

#define SUPER false
#define USER true

/* The address space and the registers of the next run. */
extern struct space here;
extern struct setting registers;

/* Begins a scenario: fresh frames, `here` made, registers as the mode wants them, with WP and PGE. */
void script_start(const struct mode *mode);

/* Runs the steps since the last run. */
void script_run(void);

/* All steps since the start did as they should. */
bool script_good(void);

/* Adds a step; what it should come to is the caller's to change. NO_FAULT at first. */
struct step *script_add(uint32_t line, enum step_kind kind, bool user, uint64_t addr,
                        uint64_t value);

/* A LOAD or EXEC and its result, which may be one of two. */
void script_expect(uint32_t line, enum step_kind kind, bool user, uint64_t addr, uint64_t want,
                   uint64_t other);

/* An access that faults, with one of two error codes. */
void script_fault(uint32_t line, enum step_kind kind, bool user, uint64_t addr, uint32_t error,
                  uint32_t other);

/* A load of a control register that is refused: #GP(0). */
void script_refused(uint32_t line, enum step_kind kind, uint64_t value);

/* Writes an entry from inside, through the low mapping. */
void script_entry(uint32_t line, uint64_t at, uint64_t value);

#define LOAD(user, addr, want) script_expect(__LINE__, STEP_LOAD, user, addr, want, want)
#define LOAD_EITHER(addr, want, other) script_expect(__LINE__, STEP_LOAD, SUPER, addr, want, other)
#define EXEC(user, addr, want) script_expect(__LINE__, STEP_EXEC, user, addr, want, want)
#define STORE(user, addr, value) (void)script_add(__LINE__, STEP_STORE, user, addr, value)
#define ADD(user, addr, value) (void)script_add(__LINE__, STEP_ADD, user, addr, value)
#define FAULTS(kind, user, addr, error) \
    script_fault(__LINE__, STEP_##kind, user, addr, error, error)
/* The error code may lack these bits. */
#define FAULTS_LESS(kind, user, addr, error, lacks) \
    script_fault(__LINE__, STEP_##kind, user, addr, error, (error) & ~(lacks))
#define INVLPG(addr) (void)script_add(__LINE__, STEP_INVLPG, SUPER, addr, 0)
#define SET_CR(n, value) (void)script_add(__LINE__, STEP_CR##n, SUPER, 0, value)
#define REFUSES_CR(n, value) script_refused(__LINE__, STEP_CR##n, value)
#define STAC() (void)script_add(__LINE__, STEP_STAC, SUPER, 0, 0)
#define CLAC() (void)script_add(__LINE__, STEP_CLAC, SUPER, 0, 0)
#define SET_ENTRY(at, value) script_entry(__LINE__, at, value)
/* The half of an entry that the processor writes to. */
#define ENTRY_IS(at, value) LOAD(SUPER, at, value)

/* What each word of a frame holds but those of its function. */
static inline uint32_t mark(unsigned f)
{
    return 0x11110000U * (f + 1) + 0x5aU;
}

static inline uint32_t code_value(unsigned f)
{
    return 0xc0de0000U + f;
}

uint64_t frame(unsigned f);

/* Address of page i of what is tested, of its entry in the leaf table; and the entry made from outside. */
uint64_t page(unsigned i);
uint64_t leaf(unsigned i);
void map(unsigned i, unsigned f, uint64_t rights);

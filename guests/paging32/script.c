/* SPDX-License-Identifier: BSD-2-Clause */
/* Scripts and their verdict. */
#include "guests/paging32/script.h"

#include "guests/lib/arch.h"
#include "guests/lib/console.h"
#include "guests/lib/string.h"

#define MAX_STEPS 512U
#define EFER_NXE (1UL << 11)
#define GENERAL_PROTECTION 13U
#define PAGE_FAULT 14U

struct space here;
struct setting registers;

static uint8_t frames[NR_FRAMES][PAGE] __attribute__((aligned(4096)));
static struct step script[MAX_STEPS];
static unsigned nr_steps;
static bool good;

/* A function that returns a number: MOV EAX, number; RET. */
static void put_code(uint8_t *at, uint32_t number)
{
    at[0] = 0xb8;
    memcpy(at + 1, &number, sizeof number);
    at[1 + sizeof number] = 0xc3;
}

static void fill_frames(void)
{
    for (unsigned f = 0; f < NR_FRAMES; f++) {
        uint32_t word = mark(f);
        for (size_t at = 0; at < PAGE; at += sizeof word) {
            memcpy(frames[f] + at, &word, sizeof word);
        }
        put_code(frames[f] + CODE_AT, code_value(f));
    }
}

uint64_t frame(unsigned f)
{
    return (uint64_t)frames[f];
}

uint64_t page(unsigned i)
{
    return here.mode->base + i * PAGE;
}

uint64_t leaf(unsigned i)
{
    return entry_at(here.mode, here.table, i);
}

void map(unsigned i, unsigned f, uint64_t rights)
{
    entry_put(here.mode, leaf(i), frame(f) | rights);
}

struct step *script_add(uint32_t line, enum step_kind kind, bool user, uint64_t addr,
                        uint64_t value)
{
    struct step *step = &script[nr_steps];

    if (nr_steps < MAX_STEPS - 1) {
        nr_steps++;
    } else {
        good = false;
        console_printf("line %u: the script is full\n", line);
    }
    *step = (struct step){
        .kind = kind,
        .user = user,
        .addr = addr,
        .value = value,
        .want_fault = NO_FAULT,
        .or_fault = NO_FAULT,
        .line = line,
    };
    return step;
}

void script_expect(uint32_t line, enum step_kind kind, bool user, uint64_t addr, uint64_t want,
                   uint64_t other)
{
    struct step *step = script_add(line, kind, user, addr, 0);

    step->want = (uint32_t)want;
    step->or_want = (uint32_t)other;
}

void script_fault(uint32_t line, enum step_kind kind, bool user, uint64_t addr, uint32_t error,
                  uint32_t other)
{
    struct step *step = script_add(line, kind, user, addr, 0xbad);

    step->want_fault = FAULT(PAGE_FAULT, error);
    step->or_fault = FAULT(PAGE_FAULT, other);
}

void script_refused(uint32_t line, enum step_kind kind, uint64_t value)
{
    struct step *step = script_add(line, kind, SUPER, 0, value);

    step->want_fault = step->or_fault = FAULT(GENERAL_PROTECTION, 0);
}

void script_entry(uint32_t line, uint64_t at, uint64_t value)
{
    if (here.mode->wide) {
        (void)script_add(line, STEP_STORE, SUPER, at + 4, value >> 32);
    }
    (void)script_add(line, STEP_STORE, SUPER, at, (uint32_t)value);
}

static bool step_good(const struct step *step)
{
    if (step->fault != step->want_fault && step->fault != step->or_fault) {
        return false;
    }
    if (step->fault != NO_FAULT) {
        return step->fault >> 16 != PAGE_FAULT ||
               step->cr2 == (here.mode->long_mode ? step->addr : (uint32_t)step->addr);
    }
    return (step->kind != STEP_LOAD && step->kind != STEP_EXEC) ||
           (uint32_t)step->got == step->want || (uint32_t)step->got == step->or_want;
}

void script_run(void)
{
    script[nr_steps].kind = STEP_END;
    run_script(script, &registers, here.mode->long_mode);
    for (unsigned i = 0; i < nr_steps; i++) {
        const struct step *step = &script[i];
        if (!step_good(step)) {
            /* What follows from the first would only hide it. */
            if (good) {
                console_printf("line %u, kind %u at 0x%lx: 0x%x, fault 0x%x, cr2 0x%lx; not 0x%x, "
                               "fault 0x%x\n",
                               step->line, step->kind, step->addr, (uint32_t)step->got, step->fault,
                               step->cr2, step->want, step->want_fault);
            }
            good = false;
        }
    }
    nr_steps = 0;
}

bool script_good(void)
{
    return good;
}

void script_start(const struct mode *mode)
{
    nr_steps = 0;
    good = true;
    fill_frames();
    space_reset();
    space_make(&here, mode);
    registers = (struct setting){
        .cr0 = read_cr0() | CR0_WP,
        .cr3 = here.root,
        .cr4 = mode->cr4 | CR4_PGE,
        .efer = (mode->long_mode ? rdmsr(MSR_EFER) : 0) | (mode->nx ? EFER_NXE : 0),
    };
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reference model; see refguest.h. Intel SDM volume 3, "Paging".
 */
#include "tests/host/refguest.h"

#define PHYS_BITS 40

static bool reserved(const struct ref_paging *p, unsigned level, uint64_t e, bool leaf)
{
    if (p->mode == REF_32) {
        return false;
    }
    if (p->mode == REF_PSE) {
        return leaf && level == 1 && (e >> 21 & 1);
    }
    if ((e & 0x000fffffffffffffull) >> PHYS_BITS) {
        return true;
    }
    if (p->mode == REF_PAE) {
        if (e >> 52 & 0x7ff) {
            return true;
        }
        if (level == 2) {
            return e >> 63 || (e & 0x1e6);
        }
    }
    if (e >> 63 && !p->nxe) {
        return true;
    }
    if (leaf && level == 1) {
        return e >> 13 & 0xff;
    }
    if (level == 2 && (e >> 7 & 1) && !p->page1gb) {
        return true;
    }
    if (leaf && level == 2) {
        return e >> 13 & 0x1ffff;
    }
    return level == 3 && (e >> 7 & 1);
}

static bool denied(const struct ref_paging *p, struct ref_access a, bool w, bool u, bool x)
{
    if (a.user) {
        return !u || (a.write && !w) || (a.exec && !x);
    }
    if (a.exec) {
        return !x || (u && p->smep);
    }
    return (u && p->smap && !a.ac) || (a.write && !w && p->wp);
}

void ref_guest_walk(const struct ref_paging *p, uint64_t gva, struct ref_access a, ref_read_t read,
                    struct ref_result *out)
{
    bool wide = p->mode >= REF_PAE;
    unsigned levels = p->mode == REF_LONG ? 4 : p->mode == REF_PAE ? 3 : 2;
    unsigned bits = wide ? 9 : 10;
    uint64_t table = p->mode == REF_LONG  ? p->cr3 & 0x000ffffffffff000ull
                     : p->mode == REF_PAE ? p->cr3 & 0xffffffe0
                                          : p->cr3 & 0xfffff000;
    bool w = true, u = true, x = true;
    uint32_t code =
        (a.write ? 2u : 0) | (a.user ? 4u : 0) | (a.exec && (p->nxe || p->smep) ? 0x10u : 0);

    *out = (struct ref_result){.fault = true, .error = code};
    if (p->mode == REF_NONE) {
        out->fault = false;
        out->gpa = gva;
        return;
    }
    for (unsigned level = levels; level-- > 0;) {
        unsigned index = (unsigned)(gva >> (12 + bits * level)) & ((1u << bits) - 1);
        bool loaded = p->mode == REF_PAE && level == 2;
        uint64_t e = loaded ? p->pdptr[index & 3] : read(table, index, wide);
        bool leaf =
            level == 0 || ((e >> 7 & 1) && ((level == 1 && p->mode != REF_32) ||
                                            (level == 2 && p->mode == REF_LONG && p->page1gb)));

        out->step[out->nr++] = (struct ref_step){loaded ? ~0ull : table, index, e};
        if (!(e & 1)) {
            return;
        }
        if (reserved(p, level, e, leaf)) {
            out->error |= 9;
            return;
        }
        if (!loaded) {
            w = w && (e >> 1 & 1);
            u = u && (e >> 2 & 1);
            x = x && !(wide && e >> 63);
        }
        if (leaf) {
            uint64_t size = 1ull << (12 + bits * level);
            uint64_t base = e & (wide ? 0x000ffffffffff000ull : 0xfffff000) & ~(size - 1);

            if (p->mode == REF_PSE && level == 1) {
                base |= (e >> 13 & 0xff) << 32;
            }
            out->gpa = base + (gva & (size - 1));
            out->error |= 1;
            out->fault = denied(p, a, w, u, x);
            return;
        }
        table = e & (wide ? 0x000ffffffffff000ull : 0xfffff000);
    }
}

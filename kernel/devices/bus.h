/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Routing of guest port and MMIO accesses to device models. Ranges are registered while the VM is
 * built and constant afterwards, so look-ups take no lock. What nobody claims reads as all ones,
 * is counted, and is logged at a limited rate.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vcpu;
struct bus;

/* `value` is read and written in the low `size` bytes (1, 2, 4; MMIO also 8). Runs on the guest fast
 * path: does not sleep or spin long; HV_EAGAIN asks to be called again off the fast path, with
 * nothing done yet. */
typedef enum hv_err (*bus_access_t)(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                    bool write, uint64_t *value);

/* No ranges yet. HV_ENOMEM. While the VM is built, and when nothing of it runs any more. */
enum hv_err bus_create(struct vm *vm, struct bus **out) __must_check;
void bus_destroy(struct bus *b);
/* HV_EEXIST if any port is taken; HV_ENOMEM; HV_ERANGE: beyond port 0xffff, or too many ranges. */
enum hv_err bus_add_ports(struct bus *b, uint16_t first, uint32_t nr, const char *name,
                          bus_access_t fn, void *dev) __must_check;
/* The same for a device that knows single bytes only: a wider access reaches its handler (and those
 * of the neighbouring ports) byte by byte, as on an 8-bit bus. */
enum hv_err bus_add_byte_ports(struct bus *b, uint16_t first, uint32_t nr, const char *name,
                               bus_access_t fn, void *dev) __must_check;
/* HV_EEXIST if any of it is taken; HV_ERANGE: nothing, beyond the last address, or too many ranges. */
enum hv_err bus_add_mmio(struct bus *b, gpa_t base, uint64_t size, const char *name,
                         bus_access_t fn, void *dev) __must_check;
/* `port` is below 0x10000 (as wide as an offset: the fast path converts nothing). */
enum hv_err bus_port(struct bus *b, struct vcpu *v, uint64_t port, unsigned size, bool write,
                     uint64_t *value) __must_check;
/* The same for an address that is nobody's RAM. */
enum hv_err bus_mmio(struct bus *b, struct vcpu *v, gpa_t gpa, unsigned size, bool write,
                     uint64_t *value) __must_check;
/* Accesses that nobody claimed so far (for `vm NAME`). */
void bus_unclaimed(const struct bus *b, uint64_t *ports, uint64_t *mmio);

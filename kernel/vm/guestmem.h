/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading and writing guest memory from the hypervisor, and walking to it from guest-virtual addresses.
 * Everything is bounds-checked; holes give HV_ENOENT. `fast` forms run on the guest fast path: they
 * never wait or allocate and answer HV_EAGAIN instead.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vcpu;

/* Thread context, off the fast path. HV_EAGAIN, HV_ENOMEM, HV_EIO as p2m_get; a part may be done already. */
enum hv_err guestmem_read(struct vm *vm, gpa_t gpa, void *dst, size_t len) __must_check;
enum hv_err guestmem_write(struct vm *vm, gpa_t gpa, const void *src, size_t len) __must_check;
/* The page around gpa, as p2m_get, access and errors: there until guestmem_unpin, which gets it back. */
enum hv_err guestmem_pin(struct vm *vm, gpa_t gpa, uint32_t access, void **page) __must_check;
void guestmem_unpin(struct vm *vm, gpa_t gpa, void *page);
/* The same for v's own access, which may have to wait for its turn: HV_ENOMEM then too (memwait_or_stop). */
enum hv_err guestmem_read_by(struct vcpu *v, gpa_t gpa, void *dst, size_t len) __must_check;
enum hv_err guestmem_pin_by(struct vcpu *v, gpa_t gpa, bool write, void **page) __must_check;
/* Does the VM share pages with others? Then guestmem_share puts a whole page that was never touched on
 * a frame that it shares with others that have the same contents; errors as born_page. */
bool guestmem_shares(struct vm *vm);
enum hv_err guestmem_share(struct vm *vm, gpa_t gpa, const void *page) __must_check;
/* True if [gpa, gpa+len) is RAM of the VM. */
bool guestmem_is_ram(struct vm *vm, gpa_t gpa, uint64_t len);

#define GVA_READ 0x1u
#define GVA_WRITE 0x2u
#define GVA_EXEC 0x4u
#define GVA_SUPERVISOR 0x8u /* an implicit supervisor access, whatever the CPL */
#define GVA_AWAY 0x10u      /* only the address is wanted: its page may be away */

/* Walk the guest's tables. HV_EFAULT: #PF (error code, CR2) or, for an address that is not canonical,
 * #GP(0) has been queued unless `fast`, where HV_EFAULT only says so. `fast`: HV_EAGAIN if a
 * table is not reachable without waiting. Else HV_EAGAIN, HV_ENOMEM, HV_EIO as guestmem_read_by, and accessed
 * and dirty bits are set. */
enum hv_err guestmem_translate(struct vcpu *v, gva_t gva, uint32_t access, bool fast,
                               gpa_t *out) __must_check;
/* Up to 15 instruction bytes at CS:RIP, the rest of `bytes` zero; *got may be fewer at a page that is
 * not mapped. The processor has fetched them already, so permissions are not checked again. Errors as
 * guestmem_translate's. */
enum hv_err guestmem_fetch(struct vcpu *v, bool fast, uint8_t bytes[15],
                           unsigned *got) __must_check;

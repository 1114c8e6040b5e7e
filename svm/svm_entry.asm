; SPDX-License-Identifier: BSD-2-Clause
;
; The world switch. VMRUN itself swaps RAX, RSP, RIP, RFLAGS, CS-ES, control and descriptor-table
; registers; here the other general registers change hands. Nothing else may happen in between: the
; guest's FS, GS and TR stay loaded (svm.c, section). Offsets are asserted in svm.c.

%include "kernel/vm/gpr.inc"

bits 64
section .text

SVM_VMCB    equ 0x00            ; struct svm_vcpu
SVM_VMCB_PA equ 0x08
VMCB_RIP    equ 0x578
VMCB_RAX    equ 0x5f8

extern svm_exit

; void svm_run(struct vcpu *v, struct vm_exit *exit)
; GIF 0, IF 1. Goes on as svm_exit(v, exit).
global svm_run:function
svm_run:
        push_ours
        mov     rax, [rdi + VCPU_VENDOR]
        mov     rcx, [rax + SVM_VMCB]
        mov     rdx, [rdi + VCPU_RIP]
        mov     [rcx + VMCB_RIP], rdx
        mov     rdx, [rdi + VCPU_RAX]
        mov     [rcx + VMCB_RAX], rdx
        mov     rax, [rax + SVM_VMCB_PA]
        load_guest
        mov     rdi, [rdi + VCPU_RDI]
        vmrun
        ; RAX and RSP are ours again, everything else is the guest's.
        pop     rax
        save_guest
        mov     rdi, rax
        pop_ours
        jmp     svm_exit

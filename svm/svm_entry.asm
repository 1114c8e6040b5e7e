; SPDX-License-Identifier: BSD-2-Clause
;
; The world switch. VMRUN itself swaps RAX, RSP, RIP, RFLAGS, CS-ES, control and descriptor-table
; registers; here the other general registers change hands. Nothing else may happen in between: the
; guest's FS, GS and TR stay loaded (svm.c, section). Offsets are asserted in svm.c.

bits 64
section .text

VCPU_RAX    equ 0x00
VCPU_RCX    equ 0x08
VCPU_RDX    equ 0x10
VCPU_RBX    equ 0x18
VCPU_RBP    equ 0x28
VCPU_RSI    equ 0x30
VCPU_RDI    equ 0x38
VCPU_R8     equ 0x40
VCPU_RIP    equ 0x80
VCPU_VENDOR equ 0x90
SVM_VMCB    equ 0x00            ; struct svm_vcpu
SVM_VMCB_PA equ 0x08
VMCB_RIP    equ 0x578
VMCB_RAX    equ 0x5f8

extern svm_exit

; void svm_run(struct vcpu *v, struct vm_exit *exit)
; GIF 0, IF 1. Goes on as svm_exit(v, exit).
global svm_run:function
svm_run:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        push    rsi
        push    rdi
        mov     rax, [rdi + VCPU_VENDOR]
        mov     rcx, [rax + SVM_VMCB]
        mov     rdx, [rdi + VCPU_RIP]
        mov     [rcx + VMCB_RIP], rdx
        mov     rdx, [rdi + VCPU_RAX]
        mov     [rcx + VMCB_RAX], rdx
        mov     rax, [rax + SVM_VMCB_PA]
        mov     rcx, [rdi + VCPU_RCX]
        mov     rdx, [rdi + VCPU_RDX]
        mov     rbx, [rdi + VCPU_RBX]
        mov     rbp, [rdi + VCPU_RBP]
        mov     rsi, [rdi + VCPU_RSI]
%assign n 0
%rep 8
%assign reg n + 8
        mov     r %+ reg, [rdi + VCPU_R8 + n * 8]
%assign n n + 1
%endrep
        mov     rdi, [rdi + VCPU_RDI]
        vmrun
        ; RAX and RSP are ours again, everything else is the guest's.
        pop     rax
        mov     [rax + VCPU_RCX], rcx
        mov     [rax + VCPU_RDX], rdx
        mov     [rax + VCPU_RBX], rbx
        mov     [rax + VCPU_RBP], rbp
        mov     [rax + VCPU_RSI], rsi
        mov     [rax + VCPU_RDI], rdi
%assign n 0
%rep 8
%assign reg n + 8
        mov     [rax + VCPU_R8 + n * 8], r %+ reg
%assign n n + 1
%endrep
        mov     rdi, rax
        pop     rsi
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        jmp     svm_exit

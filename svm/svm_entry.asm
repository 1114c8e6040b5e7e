; SPDX-License-Identifier: BSD-2-Clause
;
; The world switch. VMRUN itself swaps RAX, RSP, RIP, RFLAGS, CS-ES, control and descriptor-table
; registers; here the other general registers change hands. Nothing else may happen in between: the
; guest's FS, GS and TR stay loaded (svm.c, section).

bits 64
section .text

GPR_RCX equ 1 * 8
GPR_RDX equ 2 * 8
GPR_RBX equ 3 * 8
GPR_RBP equ 5 * 8
GPR_RSI equ 6 * 8
GPR_RDI equ 7 * 8
GPR_R8  equ 8 * 8

; void svm_vmrun(uint64_t gpr[16], uint64_t vmcb_pa)
global svm_vmrun:function
svm_vmrun:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        push    rdi
        mov     rax, rsi
        mov     rcx, [rdi + GPR_RCX]
        mov     rdx, [rdi + GPR_RDX]
        mov     rbx, [rdi + GPR_RBX]
        mov     rbp, [rdi + GPR_RBP]
        mov     rsi, [rdi + GPR_RSI]
%assign n 0
%rep 8
%assign reg n + 8
        mov     r %+ reg, [rdi + GPR_R8 + n * 8]
%assign n n + 1
%endrep
        mov     rdi, [rdi + GPR_RDI]
        vmrun
        ; RAX and RSP are ours again, everything else is the guest's.
        pop     rax
        mov     [rax + GPR_RCX], rcx
        mov     [rax + GPR_RDX], rdx
        mov     [rax + GPR_RBX], rbx
        mov     [rax + GPR_RBP], rbp
        mov     [rax + GPR_RSI], rsi
        mov     [rax + GPR_RDI], rdi
%assign n 0
%rep 8
%assign reg n + 8
        mov     [rax + GPR_R8 + n * 8], r %+ reg
%assign n n + 1
%endrep
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        ret

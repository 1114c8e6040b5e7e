; SPDX-License-Identifier: BSD-2-Clause
;
; The world switch. VMLAUNCH and VMRESUME swap RSP, RIP, RFLAGS, segment, control and
; descriptor-table registers; here the general registers change hands. HOST_RSP is written only when
; the stack stands elsewhere than at the last entry of this VMCS.

bits 64
section .text

HOST_RSP equ 0x6c14

GPR_RAX equ 0 * 8
GPR_RCX equ 1 * 8
GPR_RDX equ 2 * 8
GPR_RBX equ 3 * 8
GPR_RBP equ 5 * 8
GPR_RSI equ 6 * 8
GPR_RDI equ 7 * 8
GPR_R8  equ 8 * 8

; uint32_t vmx_enter(uint64_t gpr[16], uint64_t *host_rsp, uint32_t launched)
; 0: the guest ran and exited. 1: the instruction failed, nothing ran.
global vmx_enter:function
vmx_enter:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        push    rdi
        cmp     rsp, [rsi]
        jne     .new_stack
.enter:
        test    edx, edx
        mov     rax, [rdi + GPR_RAX]
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
        jz      .launch
        vmresume
        jmp     .failed
.launch:
        vmlaunch
.failed:
        pop     rdi
        mov     eax, 1
        jmp     done

.new_stack:
        mov     [rsi], rsp
        mov     eax, HOST_RSP
        vmwrite rax, rsp
        jmp     .enter

; Exits arrive here: RSP as at the entry, everything else is the guest's.
global vmx_host_entry:function
vmx_host_entry:
        cli                             ; off already, but Bochs 2.7 forgets that they are masked
        push    rax
        mov     rax, [rsp + 8]
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
        pop     qword [rax + GPR_RAX]
        pop     rdi
        xor     eax, eax
done:
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        ret

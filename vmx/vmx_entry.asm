; SPDX-License-Identifier: BSD-2-Clause
;
; The world switch. VMLAUNCH and VMRESUME swap RSP, RIP, RFLAGS, segment, control and
; descriptor-table registers; here the other general registers change hands. Of the VMCS only that is
; written which differs from what it holds. Offsets are asserted in vmx.c.

bits 64
section .text

GUEST_RIP equ 0x681e
HOST_RSP  equ 0x6c14

VCPU_RAX     equ 0x00
VCPU_RCX     equ 0x08
VCPU_RDX     equ 0x10
VCPU_RBX     equ 0x18
VCPU_RBP     equ 0x28
VCPU_RSI     equ 0x30
VCPU_RDI     equ 0x38
VCPU_R8      equ 0x40
VCPU_RIP     equ 0x80
VCPU_VENDOR  equ 0x90
VMX_DIRTY    equ 0x00            ; struct vmx_vcpu
VMX_RIP      equ 0x08
VMX_HOST_RSP equ 0x10
VMX_LAUNCHED equ 0x18

extern vmx_exit
extern vmx_prepare
extern vmx_refused

%macro pop_ours 0
        pop     rdi
        pop     rsi
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
%endmacro

; RDI: the vCPU, RAX: struct vmx_vcpu. Clobbers RCX, RDX.
%macro write_rip 0
        mov     rcx, [rdi + VCPU_RIP]
        cmp     rcx, [rax + VMX_RIP]
        je      %%same
        mov     edx, GUEST_RIP
        vmwrite rdx, rcx
%%same:
%endmacro

; RDI: the vCPU. All but RAX and RDI; leaves the flags alone.
%macro load_guest 0
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
%endmacro

; void vmx_run(struct vcpu *v, struct vm_exit *exit)
; Interrupts off. Goes on as vmx_exit(v, exit), or as vmx_refused(v, exit).
global vmx_run:function
vmx_run:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        push    rsi
        push    rdi
        mov     rax, [rdi + VCPU_VENDOR]
        cmp     qword [rax + VMX_DIRTY], 0
        jne     .prepare
        write_rip
        load_guest
        mov     rax, [rdi + VCPU_RAX]
        mov     rdi, [rdi + VCPU_RDI]
        vmresume
.refused:
        pop_ours
        jmp     vmx_refused

; A section's first entry, or something to write first.
.prepare:
        sub     rsp, 8                  ; aligned for the call
        call    vmx_prepare
        add     rsp, 8
        mov     rdi, [rsp]
        test    al, al
        mov     rax, [rdi + VCPU_VENDOR]
        jz      .not_entered
        write_rip
        cmp     rsp, [rax + VMX_HOST_RSP]
        je      .same_stack
        mov     [rax + VMX_HOST_RSP], rsp
        mov     edx, HOST_RSP
        vmwrite rdx, rsp
.same_stack:
        cmp     byte [rax + VMX_LAUNCHED], 0
        mov     byte [rax + VMX_LAUNCHED], 1
        load_guest
        mov     rax, [rdi + VCPU_RAX]
        mov     rdi, [rdi + VCPU_RDI]
        je      .launch
        vmresume
        jmp     .refused
.launch:
        vmlaunch
        jmp     .refused
.not_entered:
        pop_ours
        ret

; Exits arrive here: RSP as at the entry, everything else is the guest's.
global vmx_host_entry:function
vmx_host_entry:
        cli                             ; off already, but Bochs 2.7 forgets that they are masked
        push    rax
        mov     rax, [rsp + 8]
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
        pop     qword [rax + VCPU_RAX]
        pop_ours
        jmp     vmx_exit

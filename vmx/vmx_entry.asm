; SPDX-License-Identifier: BSD-2-Clause
;
; The world switch. VMLAUNCH and VMRESUME swap RSP, RIP, RFLAGS, segment, control and
; descriptor-table registers; here the other general registers change hands. Of the VMCS only that is
; written which differs from what it holds. Offsets are asserted in vmx.c.

%include "kernel/vm/gpr.inc"

bits 64
section .text

GUEST_RIP equ 0x681e
HOST_RSP  equ 0x6c14

VMX_DIRTY    equ 0x00            ; struct vmx_vcpu
VMX_RIP      equ 0x08
VMX_HOST_RSP equ 0x10
VMX_LAUNCHED equ 0x18

extern vmx_exit
extern vmx_prepare
extern vmx_refused

; RDI: the vCPU, RAX: struct vmx_vcpu. Clobbers RCX, RDX.
%macro write_rip 0
        mov     rcx, [rdi + VCPU_RIP]
        cmp     rcx, [rax + VMX_RIP]
        je      %%same
        mov     edx, GUEST_RIP
        vmwrite rdx, rcx
%%same:
%endmacro

; void vmx_run(struct vcpu *v, struct vm_exit *exit)
; Interrupts off. Goes on as vmx_exit(v, exit), or as vmx_refused(v, exit).
global vmx_run:function
vmx_run:
        push_ours
        mov     rax, [rdi + VCPU_VENDOR]
        cmp     qword [rax + VMX_DIRTY], 0
        jne     .prepare
        write_rip
        load_guest
        mov     rax, [rdi + VCPU_RAX]
        mov     rdi, [rdi + VCPU_RDI]
        vmresume
.refused:
        pop     rdi
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
        pop     rdi
        pop_ours
        ret

; Exits arrive here: RSP as at the entry, everything else is the guest's.
global vmx_host_entry:function
vmx_host_entry:
        cli                             ; off already, but Bochs 2.7 forgets that they are masked
        push    rax
        mov     rax, [rsp + 8]
        save_guest
        pop     qword [rax + VCPU_RAX]
        pop     rdi
        pop_ours
        jmp     vmx_exit

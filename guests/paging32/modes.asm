; SPDX-License-Identifier: BSD-2-Clause
;
; Runs a script of memory accesses (struct step of run.h) in one paging mode, with 32-bit code or in
; long mode, and comes back to the address space of the library. Everything here, the tables of the
; processor included, must be mapped one to one for the supervisor in the mode's tables, and once more for
; the user, USER_ALIAS behind.

%define SEL_CODE64    0x08              ; these three as in guests/lib/entry.asm
%define SEL_DATA      0x10
%define SEL_CODE32    0x18
%define SEL_USER32    0x23
%define SEL_USER_DATA 0x2b
%define SEL_USER64    0x33
%define SEL_TSS32     0x38
%define SEL_TSS64     0x40

%define USER_ALIAS (16 << 20)           ; LOW_BYTES of space.c
%define CR0_WP   (1 << 16)
%define CR0_PG   (1 << 31)
%define MSR_EFER 0xc0000080
%define TSS_BUSY 2

; struct step, struct setting (run.h)
%define STEP_KIND  0
%define STEP_USER  4
%define STEP_ADDR  8
%define STEP_VALUE 16
%define STEP_GOT   24
%define STEP_CR2   32
%define STEP_FAULT 40
%define STEP_BYTES 64
%define NO_FAULT   0xffffffff
%define SET_CR0    0
%define SET_CR3    8
%define SET_CR4    16
%define SET_EFER   24

extern paging_gdt, paging_idt32, paging_idt64, paging_sp

%define WIDTH 32
%include "guests/paging32/steps.inc"
%define WIDTH 64
%include "guests/paging32/steps.inc"

bits 64
section .text

; void paging_run32(struct step *script, const struct setting *set)
global paging_run32
paging_run32:
    call enter
    lea rax, [.compatibility]
    push SEL_CODE32
    push rax
    o64 retf
bits 32
.compatibility:
    mov ax, SEL_DATA
    mov ss, ax
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov ecx, MSR_EFER
    mov eax, [esi + SET_EFER]
    xor edx, edx
    wrmsr
    mov eax, [esi + SET_CR4]
    mov cr4, eax
    mov eax, [esi + SET_CR3]
    mov cr3, eax
    lidt [idtr32]
    and byte [paging_gdt + SEL_TSS32 + 5], ~TSS_BUSY
    mov ax, SEL_TSS32
    ltr ax
    mov eax, [esi + SET_CR0]
    mov cr0, eax
    jmp script_start32
script_end32:
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov eax, [old_cr4]
    mov cr4, eax
    mov eax, [old_cr3]
    mov cr3, eax
    mov ecx, MSR_EFER
    mov eax, [old_efer]
    xor edx, edx
    wrmsr
    mov eax, [old_cr0]
    mov cr0, eax
    jmp SEL_CODE64:leave64

bits 64
; void paging_run64(struct step *script, const struct setting *set)
global paging_run64
paging_run64:
    call enter
    mov ecx, MSR_EFER
    mov eax, [rsi + SET_EFER]
    xor edx, edx
    wrmsr
    mov rax, [rsi + SET_CR3]
    mov cr3, rax
    mov rax, [rsi + SET_CR4]
    mov cr4, rax
    mov rax, [rsi + SET_CR0]
    mov cr0, rax
    lidt [idtr64]
    and byte [paging_gdt + SEL_TSS64 + 5], ~TSS_BUSY
    mov ax, SEL_TSS64
    ltr ax
    jmp script_start64
script_end64:
    mov rax, [old_cr4]
    mov cr4, rax
    mov rax, [old_cr3]
    mov cr3, rax
    mov ecx, MSR_EFER
    mov eax, [old_efer]
    xor edx, edx
    wrmsr
    mov rax, [old_cr0]
    mov cr0, rax
    jmp leave64

; Keeps what the library has, in RBX the script. The caller's return address is on the stack twice.
enter:
    pop rax
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [old_sp], rsp
    push rax
    mov rax, cr0
    mov [old_cr0], rax
    mov rax, cr3
    mov [old_cr3], rax
    mov rax, cr4
    mov [old_cr4], rax
    mov ecx, MSR_EFER
    rdmsr
    mov [old_efer], eax
    mov rbx, rdi
    lgdt [gdtr]
    mov ax, SEL_USER_DATA
    mov ds, ax
    mov es, ax
    ret

leave64:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov rsp, [old_sp]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

section .rodata
gdtr:
    dw 10 * 8 - 1
    dq paging_gdt
idtr32:
    dw 0x81 * 8 - 1
    dd paging_idt32
idtr64:
    dw 0x81 * 16 - 1
    dq paging_idt64

section .bss
alignb 8
old_sp: resq 1
old_cr0: resq 1
old_cr3: resq 1
old_cr4: resq 1
old_efer: resd 1
alignb 16
    resb 4096
paging_user_stack:

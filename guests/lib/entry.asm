; SPDX-License-Identifier: BSD-2-Clause
;
; First instructions of every small guest. Three boot protocols end here, all in 32-bit protected
; mode with paging off: Multiboot1 (EAX = 0x2badb002, EBX = information block), Multiboot2 (EAX =
; 0x36d76289) and PVH (EBX = start info block, told apart by its magic, see boot.c). The code builds an identity map of the
; first 4 GiB with 2 MiB pages, enters long mode and calls boot_main.
;
; Also here: the 256 trap stubs that trap.c installs and the real-mode trampoline that smp.c copies
; below 1 MiB.

%define MULTIBOOT_MAGIC 0x1badb002
%define MULTIBOOT_FLAGS 3               ; page-aligned modules, memory information
%define MULTIBOOT2_MAGIC 0xe85250d6

%define CR0_PE   (1 << 0)
%define CR0_MP   (1 << 1)
%define CR0_ET   (1 << 4)
%define CR0_NE   (1 << 5)
%define CR0_WP   (1 << 16)
%define CR0_PG   (1 << 31)
%define CR4_PAE  (1 << 5)
%define MSR_EFER 0xc0000080
%define EFER_LME (1 << 8)
%define PTE_TABLE 0x7                   ; present, writable, user
%define PTE_LARGE 0x87                  ; the same, 2 MiB leaf

%define SEL_CODE64 0x08
%define SEL_DATA   0x10
%define SEL_CODE32 0x18

%define STACK_SIZE 16384
%define ENTRY_MAX_APS 31

extern boot_main
extern smp_ap_main
extern trap_dispatch

extern guest_load_end
extern guest_image_end

; The addresses count only with flag 16, which tests set to have the same guest loaded as a flat file.
section .multiboot alloc noexec nowrite align=8
mb1_header:
    dd MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)
    dd mb1_header, mb1_header, guest_load_end, guest_image_end, entry_start

align 8
mb2_header:
    dd MULTIBOOT2_MAGIC, 0, mb2_end - mb2_header
    dd -(MULTIBOOT2_MAGIC + (mb2_end - mb2_header))
    dw 1, 0                             ; information: command line, modules, memory map
    dd 20, 1, 3, 6
    align 8
    dw 0, 0
    dd 8
mb2_end:

section .note.pvh note alloc noexec nowrite align=4
    dd 4, 4, 18                         ; XEN_ELFNOTE_PHYS32_ENTRY
    db "Xen", 0
    dd entry_start

section .text
bits 32
global entry_start
entry_start:
    cli
    cld
    mov [entry_magic], eax
    mov [entry_info], ebx
    mov esp, entry_stack_top

    mov dword [entry_pml4], entry_pdpt + PTE_TABLE
    mov edi, entry_pdpt
    mov eax, entry_pd + PTE_TABLE
    mov ecx, 4
.pdpt:
    mov [edi], eax
    add eax, 4096
    add edi, 8
    loop .pdpt
    mov edi, entry_pd
    mov eax, PTE_LARGE
    mov ecx, 4 * 512
.pd:
    mov [edi], eax
    add eax, 2 << 20
    add edi, 8
    loop .pd

    call enter_long_mode
    jmp SEL_CODE64:.long

bits 64
.long:
    xor ebp, ebp
    mov edi, [entry_magic]
    mov esi, [entry_info]
    call boot_main
.halt:
    cli
    hlt
    jmp .halt

; Turns on long mode with entry_pml4 and loads the descriptor table. Returns in compatibility mode.
bits 32
enter_long_mode:
    mov eax, entry_pml4
    mov cr3, eax
    mov eax, CR4_PAE
    mov cr4, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LME
    wrmsr
    mov eax, CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG
    mov cr0, eax
    lgdt [entry_gdtr]
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    ret

; ---- application processors ------------------------------------------------------------------

bits 16
global entry_trampoline, entry_trampoline_end
entry_trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    o32 lgdt [trampoline_gdtr - entry_trampoline]
    mov eax, CR0_PE | CR0_ET
    mov cr0, eax
    jmp dword SEL_CODE32:ap_start32
trampoline_gdtr:
    dw entry_gdt_end - entry_gdt - 1
    dd entry_gdt
entry_trampoline_end:

bits 32
ap_start32:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    ; Take the next stack: index * 4 KiB below the top of the AP stacks.
    mov eax, 1
    lock xadd [entry_ap_next], eax
    mov ebx, eax
    cmp ebx, ENTRY_MAX_APS
    jae .park
    shl eax, 12
    mov esp, entry_ap_stacks + 4096
    add esp, eax
    call enter_long_mode
    jmp SEL_CODE64:.long
.park:
    hlt
    jmp .park
bits 64
.long:
    xor ebp, ebp
    mov edi, ebx
    call smp_ap_main
.halt:
    hlt
    jmp .halt

; ---- traps -----------------------------------------------------------------------------------

%macro STUB 1
    align 16
%if %1 != 8 && (%1 < 10 || %1 > 14) && %1 != 17 && %1 != 21 && %1 != 29 && %1 != 30
    push qword 0                        ; keep the frame alike where there is no error code
%endif
    push qword %1
    jmp trap_common
%endmacro

align 16
global entry_trap_stubs
entry_trap_stubs:
%assign vector 0
%rep 256
    STUB vector
%assign vector vector + 1
%endrep

trap_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call trap_dispatch
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

section .rodata
align 8
entry_gdt:
    dq 0
    dq 0x00af9b000000ffff               ; 64-bit code
    dq 0x00cf93000000ffff               ; data
    dq 0x00cf9b000000ffff               ; 32-bit code
entry_gdt_end:
entry_gdtr:
    dw entry_gdt_end - entry_gdt - 1
    dd entry_gdt
    dd 0

section .data
align 4
global entry_ap_next
entry_ap_next: dd 0
entry_magic: dd 0
entry_info: dd 0


section .bss
alignb 4096
global entry_pml4
entry_pml4: resb 4096
entry_pdpt: resb 4096
entry_pd: resb 4 * 4096
entry_stack: resb STACK_SIZE
entry_stack_top:
entry_ap_stacks: resb ENTRY_MAX_APS * 4096

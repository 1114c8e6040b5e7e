; SPDX-License-Identifier: BSD-2-Clause
;
; Where an application processor starts. smp.c copies this to a page below 1 MiB and fills in the
; mailbox (struct mailbox there); the startup IPI enters at its first byte in real mode, with CS:IP =
; page << 8 : 0. The page tables in the mailbox map the page at its own address and everything that
; the boot processor sees, so long mode is entered in one step.

section .rodata

global trampoline_start, trampoline_mailbox, trampoline_end

%define OFFSET(label) ((label) - trampoline_start)

%define CR0_PE_ET_PG    0x80000011
%define CR4_PAE         0x20
%define MSR_EFER        0xc0000080
%define EFER_LME_NXE    0x900

%define STATE_ARMED     1               ; smp.c has the same
%define STATE_TAKEN     2

align 16
bits 16
trampoline_start:
        cli
        cld
        mov     ax, cs
        mov     ds, ax

        ; One that comes late finds the mailbox withdrawn, or made out to another: it never runs.
        mov     eax, STATE_ARMED
        mov     ecx, STATE_TAKEN
        lock cmpxchg [OFFSET(mailbox_state)], ecx
        jne     .park

        o32 lgdt [OFFSET(mailbox_gdt)]
        mov     eax, cr4
        or      eax, CR4_PAE
        mov     cr4, eax
        mov     eax, [OFFSET(mailbox_cr3)]
        mov     cr3, eax
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_LME_NXE
        wrmsr
        mov     eax, CR0_PE_ET_PG
        mov     cr0, eax
        jmp     dword far [OFFSET(mailbox_far)]

.park:
        hlt
        jmp     .park

bits 64
long_mode:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     rsp, [rel mailbox_stack]
        mov     rdi, [rel mailbox_arg]
        mov     rax, [rel mailbox_entry]
        xor     ebp, ebp                ; backtraces end here
        call    rax
        ud2

align 8
gdt:
        dq      0
        dq      0x00af9b000000ffff      ; 08H: 64-bit code
        dq      0x00cf93000000ffff      ; 10H: data
gdt_end:

align 8
trampoline_mailbox:
mailbox_entry:  dq      0
mailbox_stack:  dq      0
mailbox_arg:    dq      0
mailbox_cr3:    dd      0
mailbox_state:  dd      0
mailbox_far:    dd      OFFSET(long_mode)       ; smp.c adds the page's address
                dw      0x08
mailbox_gdt:    dw      gdt_end - gdt - 1
                dd      OFFSET(gdt)             ; likewise
trampoline_end:

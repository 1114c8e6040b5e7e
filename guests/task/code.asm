; SPDX-License-Identifier: BSD-2-Clause
;
; The tasks that task.c has set up, in 32-bit protected mode: task_run leaves long mode, runs as the task
; TSS_MAIN, switches to others in every way there is, and comes back. Each step calls `record`, which
; writes down what a task can see of itself: struct record of task.c.

%define SEL_CODE64 0x08
%define SEL_DATA   0x10
%define SEL_CODE32 0x18                 ; known to task.c, as are the next ones
%define TSS_MAIN   0x20
%define TSS_OTHER  0x28
%define TSS_NARROW 0x48
%define TSS_GP     0x50
%define TSS_V86    0x58
%define GATE_OTHER 0x60
%define TSS_BAD    0x40
%define TSS_AWAY   0x70
%define TSS_TRAP   0x78
%define INT_OTHER  0x40
%define MAIN_STACK 512

%define CR0_PG   (1 << 31)
%define MSR_EFER 0xc0000080
%define EFER_LME (1 << 8)
%define DR6_NONE 0xffff0ff0
%define GATE_THERE 0x85                 ; a present task gate

extern task_gdt, task_idt, task_gdtr, task_idtr
extern task_main_tss, task_bad_tss, task_gp_tss, task_v86_tss
extern task_next, task_limit, task_window, task_cr3, task_cr4, task_paging, task_exact, task_int, task_v86, task_away
extern task_main_stack

%define LINK 0                          ; in a TSS
%define EIP  0x20
%define CS_  0x4c
%define DS_  0x54

section .text
bits 64
global task_run
task_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [saved_rsp], rsp
    sgdt [saved_gdtr]
    sidt [saved_idtr]
    mov rax, cr0
    mov [saved_cr0], eax
    mov rax, cr3
    mov [saved_cr3], eax
    mov rax, cr4
    mov [saved_cr4], eax
    lgdt [task_gdtr]
    push SEL_CODE32
    push task_code
    retfq

bits 32
global task_code                        ; where the code segment of TSS_NARROW begins, too
task_code:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, task_main_stack + MAIN_STACK - 16
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov ecx, MSR_EFER
    rdmsr
    and eax, ~EFER_LME
    wrmsr
    mov eax, [task_cr4]
    mov cr4, eax
    mov eax, [task_cr3]
    mov cr3, eax
    mov eax, cr0
    or eax, [task_paging]
    mov cr0, eax
    lidt [task_idtr]
    mov ax, TSS_MAIN
    ltr ax
    xor eax, eax
    lldt ax
    clts
    mov ebx, 0x11111111

    call record
    jmp TSS_OTHER:0
    call record
    call TSS_OTHER:0
    call record
    call GATE_OTHER:0
    call record
    cmp dword [task_int], 0
    je no_int
    int INT_OTHER
    call record
no_int:

    ; A general-protection fault whose gate is not there: a double fault, and that is a task
    mov eax, 0xfff8
global task_faulting
task_faulting:
    mov gs, ax
after_double:
    call record
    mov byte [task_idt + 13 * 8 + 5], GATE_THERE

    cmp dword [task_exact], 0
    je no_bad
    call TSS_BAD:0
    call record
no_bad:
    call TSS_NARROW:0
    call record
    cmp dword [task_v86], 0
    je no_v86
    call TSS_V86:0
    call record
no_v86:

    cmp dword [task_away], 0
    je no_away
    call TSS_AWAY:0
after_away:
    call record
no_away:
    cmp dword [task_exact], 0
    je leave_tasks
    mov eax, DR6_NONE
    mov dr6, eax
    call TSS_TRAP:0
    call record

; Back to where task_run came from, from whatever task.
leave_tasks:
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov eax, [saved_cr4]
    mov cr4, eax
    mov eax, [saved_cr3]
    mov cr3, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LME
    wrmsr
    mov eax, [saved_cr0]
    mov cr0, eax
    jmp SEL_CODE64:.long
bits 64
.long:
    lgdt [saved_gdtr]
    lidt [saved_idtr]
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    xor eax, eax
    lldt ax
    mov rsp, [saved_rsp]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

bits 32

; ---- the other tasks: each goes on behind its last switch when it is entered again ----

global task_other
task_other:
    mov ebx, [fs:0]                     ; by its own table of descriptors
    xor ebx, esi
    call record
    jmp TSS_MAIN:0
.again:
    call record
    iretd
    jmp .again

global task_double
task_double:
    mov ebx, [task_main_tss + EIP]
    call record
    add esp, 4                          ; the error code
    mov dword [task_main_tss + EIP], after_double
    iretd

; TSS_BAD's DS was no segment. It is in the middle of its switch.
global task_invalid
task_invalid:
    mov ebx, [task_bad_tss + EIP]
    call record
    add esp, 4
    mov dword [task_bad_tss + DS_], SEL_DATA
    iretd
    jmp task_invalid

global task_bad
task_bad:
    call record
    iretd
    jmp task_bad

global task_narrow
task_narrow:
    mov ebx, fs
    shl ebx, 16
    mov bx, gs
    call record
    iretd
    jmp task_narrow

; Virtual-8086 mode did what it may not: its task ends here.
global task_protection
task_protection:
    mov ebx, [task_v86_tss + CS_]
    shl ebx, 16
    mov bx, [task_v86_tss + EIP]
    call record
    add esp, 4
    mov word [task_gp_tss + LINK], TSS_MAIN
    iretd
    jmp task_protection

global task_trapped
task_trapped:
    call record
    iretd
    jmp task_trapped

; ---- handlers within a task ----

global task_on_debug
task_on_debug:
    mov ebx, dr6
    and ebx, 0x8000
    call record
    iretd

global task_on_page_fault
task_on_page_fault:
    mov ebx, cr2                        ; anywhere in the TSS
    and ebx, ~0xfff
    and dword [esp], ~2                 ; whether it is read or written first is the processor's choice
    call record
    add esp, 4
    mov dword [esp], after_away
    iretd

; ---- what the caller sees; changes nothing but TS, which it clears ----

record:
    push eax
    push ecx
    push edx
    mov edx, [task_next]
    cmp edx, [task_limit]
    jae leave_tasks
    str cx
    movzx ecx, cx
    xor eax, eax
    sldt ax
    shl eax, 16
    or eax, ecx
    mov [edx], eax
    mov eax, cr3
    mov [edx + 4], eax
    pushfd
    pop eax
    mov [edx + 8], eax
    mov eax, cr0
    mov [edx + 12], eax
    mov eax, [task_gdt + ecx + 4]       ; its own type and that of TSS_MAIN, and the link
    mov al, [task_gdt + TSS_MAIN + 5]
    and eax, 0xffff
    mov ecx, [task_gdt + ecx + 2]
    and ecx, 0xffffff
    movzx ecx, word [ecx + LINK]
    shl ecx, 16
    or eax, ecx
    mov [edx + 16], eax
    mov ecx, [task_window]
    mov eax, [ecx]
    mov [edx + 20], eax
    mov eax, [esp + 16]                 ; on top of the caller's stack
    mov [edx + 24], eax
    mov [edx + 28], ebx
    add edx, 32
    mov [task_next], edx
    clts
    pop edx
    pop ecx
    pop eax
    ret

section .rodata
global task_v86_code, task_v86_code_end
task_v86_code:                          ; at a paragraph of its own below 1 MiB
bits 16
    mov ax, 0x1234
    hlt
task_v86_code_end:

section .bss
alignb 8
saved_rsp: resq 1
saved_gdtr: resb 16
saved_idtr: resb 16
saved_cr0: resd 1
saved_cr3: resd 1
saved_cr4: resd 1

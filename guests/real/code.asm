; SPDX-License-Identifier: BSD-2-Clause
;
; What the second processor does in real mode: realmode.c copies this to REAL_BASE, starts a processor
; there and looks at the results, which it leaves at REAL_RESULTS. One 32-bit word each, in the order
; in which realmode.c checks them; a last word says that it has come to the end.

%define REAL_BASE    0x9000             ; known to realmode.c, as are the next four
%define REAL_RESULTS 0xa000
%define REAL_BIG     0x280000           ; a page above 1 MiB
%define REAL_IRQ     0x61
%define REAL_TAKEN   0xa800             ; how many interrupts were taken, while they come
%define APIC_SVR     0xfee000f0
%define APIC_EOI     0xfee000b0

%define CR0_PE 1
%define COM1_SCRATCH 0x3ff
%define at(label) (REAL_BASE + (label) - real_code)

section .rodata
bits 16

%macro result 1                         ; the next word of results, kept by EBP
    mov dword [ebp], %1
    add ebp, 4
%endmacro

global real_code, real_code_end
real_code:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, REAL_BASE
    mov ebp, REAL_RESULTS

    ; 1: a software interrupt through the table
    mov word [4 * 0x60], at(on_soft)
    mov word [4 * 0x60 + 2], 0
    xor eax, eax
    int 0x60
    result eax

    ; 2: a fault: #DE, its handler steps over the division
    mov word [4 * 0], at(on_divide)
    mov word [4 * 0 + 2], 0
    xor cx, cx
    mov ax, 7
    div cl
    movzx eax, dx
    result eax

    ; 3: an undefined instruction
    mov word [4 * 6], at(on_undefined)
    mov word [4 * 6 + 2], 0
    xor edx, edx
    ud2
    result edx

    ; 4: a segment limit: the access is beyond 64 KiB
    mov word [4 * 13], at(on_limit)
    mov word [4 * 13 + 2], 0
    xor edx, edx
    mov ebx, REAL_BIG
    mov eax, [ebx]
    result edx

    ; 5: strings, with a sum over what was moved
    mov ax, 0x2000
    mov es, ax
    xor di, di
    mov cx, 0x400
    mov ax, 0x1234
    rep stosw
    push ds
    push es
    pop ds
    xor si, si
    mov di, 0x800
    mov cx, 0x200
    rep movsd
    mov si, 0x800
    mov cx, 0x400
    xor edx, edx
.sum:
    lodsw
    movzx eax, ax
    add edx, eax
    loop .sum
    pop ds
    result edx

    ; 6: far calls, far returns, pushes and pops of segments
    mov word [at(pointer)], 0x10
    mov word [at(pointer) + 2], (at(far_code) - 0x10) >> 4
    mov eax, 5
    call 0:at(far_near)
    call far [at(far_pointer)]
    result eax

    ; 7: ports, CPUID, an MSR (the bits of APICBASE that every processor has)
    mov dx, COM1_SCRATCH
    mov al, 0x5a
    out dx, al
    xor eax, eax
    in al, dx
    push ax
    xor eax, eax
    cpuid
    mov ecx, 0x1b
    rdmsr
    shr eax, 12
    pop dx
    shl edx, 24
    xor edx, eax
    result edx

    ; 8: big real mode: FS reaches all memory once protected mode was on
    o32 lgdt [at(gdtr)]
    mov eax, cr0
    or al, CR0_PE
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    and al, ~CR0_PE
    mov cr0, eax
    xor bx, bx
    mov fs, bx
    mov ebx, REAL_BIG
    mov dword [fs:ebx], 0x600df00d
    mov eax, [fs:ebx]
    result eax

    ; 9: protected mode with 32-bit code, and back
    mov eax, cr0
    or al, CR0_PE
    mov cr0, eax
    jmp dword 0x10:at(protected)
.back:
    mov eax, cr0
    and al, ~CR0_PE
    mov cr0, eax
    jmp 0:at(.real)
.real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    result edx

    ; 10: interrupts of the local APIC, three of them, each waking HLT
    mov word [4 * REAL_IRQ], at(on_irq)
    mov word [4 * REAL_IRQ + 2], 0
    mov ebx, APIC_SVR
    mov dword [fs:ebx], 0x1ff
    xor edx, edx
    mov [REAL_TAKEN], edx
    result 0x1e1e1e1e                   ; the other processor sends them now
    sub ebp, 4
.wait:
    sti
    hlt
    cli
    cmp edx, 3
    jb .wait
    result edx

    ; 11: arithmetic: rotates, multiplication, division, BCD
    mov eax, 0x12345678
    rol eax, 12
    mov ecx, 0x10001
    mul ecx
    mov ecx, 0x12345
    div ecx
    xor eax, edx
    mov bl, al
    mov al, 0x79
    add al, 0x35
    daa
    aam
    xor al, bl
    bsr ecx, eax
    shld eax, ecx, 7
    result eax

    result 0x454e440a                   ; "\nDNE"
.halt:
    cli
    hlt
    jmp .halt

on_soft:
    mov ax, 0xbeef
    iret
on_divide:
    mov dx, ax
    push bp
    mov bp, sp
    add word [bp + 2], 2
    pop bp
    iret
on_undefined:
    mov edx, 0x0d0e
    push bp
    mov bp, sp
    add word [bp + 2], 2
    pop bp
    iret
on_limit:
    mov edx, 0x6b
    push bp
    mov bp, sp
    add word [bp + 2], 4                ; mov eax, [ebx] with both prefixes
    pop bp
    iret
on_irq:
    inc edx
    mov [REAL_TAKEN], edx
    push ebx
    mov ebx, APIC_EOI
    mov dword [fs:ebx], 0
    pop ebx
    iret
far_near:
    add eax, 0x100
    retf

align 16
far_code:
    add eax, 0x3000
    retf
far_pointer:
pointer:
    dw 0, 0

align 8
gdt:
    dq 0
    dq 0x00cf93000000ffff               ; 0x08: flat data
    dq 0x00cf9b000000ffff               ; 0x10: 32-bit code
    dq 0x00009b000000ffff               ; 0x18: 16-bit code
    dq 0x000093000000ffff               ; 0x20: 16-bit data
gdt_end:
gdtr:
    dw gdt_end - gdt - 1
    dd at(gdt)

bits 32
protected:
    mov ax, 8
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, [REAL_BIG]
    not eax
    mov edx, eax
    mov ax, 0x20
    mov ds, ax
    mov es, ax
    mov ss, ax
    jmp 0x18:at(real_code.back)
real_code_end:

; SPDX-License-Identifier: BSD-2-Clause
;
; Entry from the boot loader: the Multiboot2 header, the PVH note and our own 64-bit entry note, the
; check for the processor features that nothing works without, the early page tables, long mode, and
; the jump to kernel_main.
;
; Three ways in, all with interrupts off and memory identity-mapped or unpaged:
;   entry32_multiboot2  GRUB: EAX = 0x36d76289, EBX = information block
;   entry32_pvh         QEMU -kernel: EBX = start_info
;   entry64             our UEFI loader: RDI = magic, RSI = information block, 64-bit mode
; entry64 drops to unpaged 32-bit mode so that the rest exists once.
;
; The image may lie at any 2 MiB aligned physical address below 4 GiB. Until paging is on, EBP holds
; that address and every symbol is reached as EBP plus its distance from entry_base.

bits 32

extern kernel_main
extern __image_end
extern entry32_pvh_pa           ; linker.ld: physical addresses at the preferred load address
extern entry64_pa

MB2_MAGIC       equ 0xe85250d6
MB2_LOADED      equ 0x36d76289
PVH_MAGIC       equ 0x336ec578

STACK_SIZE      equ 16384
TABLE_PRESENT   equ 0x003       ; present, writable
LARGE_PAGE      equ 0x083       ; present, writable, 2 MiB

MSR_EFER        equ 0xc0000080
EFER_LME        equ 1 << 8
EFER_NXE        equ 1 << 11
CR0_PG          equ 1 << 31
CR0_BOOT        equ (1 << 31) | (1 << 16) | (1 << 5) | (1 << 4) | (1 << 1) | 1 ; PG WP NE ET MP PE
CR4_PAE         equ 1 << 5

CODE64          equ 0x08
DATA            equ 0x10
CODE32          equ 0x18

section .text.boot progbits alloc exec nowrite align=4096

entry_base:

; ---- Multiboot2 header (Multiboot2 Specification, "The layout of Multiboot2 header") -------------

align 8
mb2_header:
        dd MB2_MAGIC, 0, mb2_header_end - mb2_header
        dd 0x100000000 - (MB2_MAGIC + mb2_header_end - mb2_header)
align 8                         ; optional information: mmap, framebuffer, both kinds of RSDP
        dw 1, 1
        dd 8 + 4 * 4
        dd 6, 8, 14, 15
align 8                         ; framebuffer, optional: 1024x768x32
        dw 5, 1
        dd 20
        dd 1024, 768, 32
align 8                         ; modules on page boundaries
        dw 6, 0
        dd 8
align 8                         ; relocatable: 2 MiB to 4 GiB, 2 MiB aligned, lowest fit
        dw 10, 0
        dd 24
        dd 0x200000, 0xffffffff, 0x200000, 1
align 8
        dw 0, 0
        dd 8
mb2_header_end:

; Distances to other sections, each relative to its own place.
to_tables:    dd boot_tables - $
to_stack:     dd boot_stack - $
to_image_end: dd __image_end - $

%macro locate 2                 ; register = physical address of what a to_ word points to
        mov     %1, [ebp + (%2 - entry_base)]
        lea     %1, [%1 + ebp + (%2 - entry_base)]
%endmacro

; ---- 64-bit entry, from our UEFI loader ----------------------------------------------------------

bits 64
global entry64
entry64:
        cli
        cld
        mov     eax, edi
        mov     ebx, esi
        lea     rbp, [rel entry_base]
        lea     rcx, [rel gdt]
        sub     rsp, 16
        mov     word [rsp], gdt_end - gdt - 1
        mov     [rsp + 2], rcx
        lgdt    [rsp]
        lea     rcx, [rel .unpaged]
        push    CODE32
        push    rcx
        retfq
bits 32
.unpaged:
        mov     ecx, DATA
        mov     ss, ecx
        mov     ds, ecx
        mov     es, ecx
        mov     edx, cr0
        and     edx, ~CR0_PG
        mov     cr0, edx
        mov     esi, eax
        mov     ecx, MSR_EFER
        rdmsr
        and     eax, ~EFER_LME
        wrmsr
        mov     eax, esi
        jmp     start32

; ---- 32-bit entries ------------------------------------------------------------------------------

global entry32_pvh
entry32_pvh:
        mov     eax, PVH_MAGIC

global entry32_multiboot2
entry32_multiboot2:
        cli
        cld
        ; There is no stack yet: borrow the information block's first word to learn where we are.
        mov     ecx, [ebx]
        lea     esp, [ebx + 4]
        call    .here
.here:  pop     ebp
        mov     [ebx], ecx
        sub     ebp, .here - entry_base

; ---- Common path: EAX = magic, EBX = information block, EBP = load address -----------------------

start32:
        locate  esp, to_stack
        add     esp, STACK_SIZE
        push    ebx
        push    eax

        call    check_processor
        call    build_tables

        sub     esp, 8
        mov     word [esp], gdt_end - gdt - 1
        lea     eax, [ebp + (gdt - entry_base)]
        mov     [esp + 2], eax
        lgdt    [esp]
        add     esp, 8

        mov     eax, CR4_PAE
        mov     cr4, eax
        locate  eax, to_tables
        mov     cr3, eax
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_LME | EFER_NXE
        wrmsr
        pop     edi             ; magic
        pop     esi             ; information block
        mov     eax, CR0_BOOT
        mov     cr0, eax

        push    CODE64
        lea     eax, [ebp + (low64 - entry_base)]
        push    eax
        retf

; Halts with a message if the processor lacks CPUID, long mode or NX, or the image is misplaced.
check_processor:
        test    ebp, 0x1fffff
        lea     esi, [ebp + (msg_align - entry_base)]
        jnz     die
        pushfd                  ; CPUID exists where the ID flag can be toggled
        pop     eax
        mov     ecx, eax
        xor     eax, 1 << 21
        push    eax
        popfd
        pushfd
        pop     eax
        cmp     eax, ecx
        lea     esi, [ebp + (msg_long - entry_base)]
        je      die
        mov     eax, 0x80000000
        cpuid
        cmp     eax, 0x80000001
        jb      die
        mov     eax, 0x80000001
        cpuid
        test    edx, 1 << 29
        jz      die
        lea     esi, [ebp + (msg_nx - entry_base)]
        test    edx, 1 << 20
        jz      die
        ret

; One page-directory-pointer table and four directories map the first 4 GiB, at 0 and at the
; physmap; another pair maps the image at its linked address.
PDPT_LOW        equ 0x1000
PD_LOW          equ 0x2000      ; four pages
PDPT_IMAGE      equ 0x6000
PD_IMAGE        equ 0x7000
TABLES_SIZE     equ 0x8000

build_tables:
        locate  edi, to_tables
        mov     ebx, edi
        xor     eax, eax
        mov     ecx, TABLES_SIZE / 4
        rep     stosd

        lea     eax, [ebx + PDPT_LOW + TABLE_PRESENT]
        mov     [ebx], eax
        mov     [ebx + 256 * 8], eax            ; PHYSMAP_BASE, 0xffff800000000000
        lea     eax, [ebx + PDPT_IMAGE + TABLE_PRESENT]
        mov     [ebx + 511 * 8], eax
        lea     eax, [ebx + PD_IMAGE + TABLE_PRESENT]
        mov     [ebx + PDPT_IMAGE + 510 * 8], eax

        lea     eax, [ebx + PD_LOW + TABLE_PRESENT]
        xor     ecx, ecx
.pdpt:  mov     [ebx + PDPT_LOW + ecx * 8], eax
        add     eax, 0x1000
        inc     ecx
        cmp     ecx, 4
        jb      .pdpt

        mov     eax, LARGE_PAGE
        xor     ecx, ecx
.low:   mov     [ebx + PD_LOW + ecx * 8], eax
        add     eax, 0x200000
        inc     ecx
        cmp     ecx, 2048
        jb      .low

        locate  edx, to_image_end
        lea     eax, [ebp + LARGE_PAGE]
        mov     ecx, 1                          ; linked 2 MiB above the directory's start
.image: mov     [ebx + PD_IMAGE + ecx * 8], eax
        add     eax, 0x200000
        inc     ecx
        cmp     eax, edx
        jb      .image
        ret

; ESI = message: to COM1 (115200 8N1) and to the VGA text screen, then halt.
die:
        lea     ebx, [ebp + (uart_setup - entry_base)]
.setup: movzx   edx, byte [ebx]
        mov     al, [ebx + 1]
        add     ebx, 2
        add     edx, 0x3f8
        out     dx, al
        cmp     edx, 0x3f8 + 4
        jne     .setup
        mov     edi, 0xb8000
.next:  lodsb
        test    al, al
        jz      .halt
        mov     ah, 0x4f
        stosw
        mov     bl, al
        mov     ecx, 100000
        mov     dx, 0x3f8 + 5
.wait:  in      al, dx
        test    al, 0x20
        jnz     .send
        loop    .wait
.send:  mov     al, bl
        mov     dx, 0x3f8
        out     dx, al
        jmp     .next
.halt:  cli
        hlt
        jmp     .halt

; Register offset, value; modem control comes last.
uart_setup:     db 1, 0, 3, 0x80, 0, 1, 1, 0, 3, 3, 2, 7, 4, 3
msg_align:      db "Ballast: the boot loader put the image at an address that is not a "
                db "multiple of 2 MiB.", 13, 10, 0
msg_long:       db "Ballast: this processor has no 64-bit mode (long mode).", 13, 10, 0
msg_nx:         db "Ballast: this processor lacks NX (execute disable), or the firmware hides it: "
                db "enable it in the set-up.", 13, 10, 0

align 8
gdt:            dq 0
                dq 0x00af9b000000ffff           ; 64-bit code
                dq 0x00cf93000000ffff           ; data
                dq 0x00cf9b000000ffff           ; 32-bit code
gdt_end:

bits 64
low64:
        mov     rax, qword high64
        jmp     rax

; On the linked addresses. RDI, RSI are kernel_main's arguments; their upper halves are undefined
; after the mode switch.
section .text

high64:
        mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        xor     eax, eax
        mov     fs, eax
        mov     gs, eax
        mov     edi, edi
        mov     esi, esi
        mov     ebp, ebp
        mov     rsp, boot_stack + STACK_SIZE
        mov     [rel kernel_phys_base], rbp
        sub     rsp, 16
        mov     word [rsp], gdt_end - gdt - 1
        mov     qword [rsp + 2], gdt
        lgdt    [rsp]
        add     rsp, 16
        xor     ebp, ebp                        ; backtraces end here
        call    kernel_main
.halt:  cli
        hlt
        jmp     .halt

section .data

global kernel_phys_base
align 8
kernel_phys_base: dq 0

section .bss.boot nobits alloc noexec write align=16384

global boot_stack
boot_stack:     resb STACK_SIZE
alignb 4096
boot_tables:    resb TABLES_SIZE

section .note.boot note alloc noexec nowrite align=4

        dd 4, 8, 18                             ; XEN_ELFNOTE_PHYS32_ENTRY
        db "Xen", 0
        dq entry32_pvh_pa

        dd 8, 8, 1                              ; ours, read by boot/efi
        db "Ballast", 0
        dq entry64_pa

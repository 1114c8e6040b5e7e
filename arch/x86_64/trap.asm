; SPDX-License-Identifier: BSD-2-Clause
;
; Trap and interrupt entry: one stub per vector brings the stack to the shape of struct trap_frame
; (arch/x86_64/irq.h) and calls trap_dispatch(frame). GS is not touched: the current processor is
; found from the stack pointer. Interrupted code's frame pointer stays in RBP for the backtrace.
; Also the change of stacks at boot.

bits 64
default rel

extern trap_dispatch

section .text

; Vectors whose exception pushes an error code ("Exceptions", error codes): 8 10-14 17 21 29 30.
%macro stub 1
trap_stub_%1:
%if %1 != 8 && (%1 < 10 || %1 > 14) && %1 != 17 && %1 != 21 && %1 != 29 && %1 != 30
        push    0
%endif
        push    %1
        jmp     trap_common
%endmacro

%assign v 0
%rep 256
        stub    v
%assign v v+1
%endrep

global trap_common
trap_common:
        cld
        push    rax
        push    rcx
        push    rdx
        push    rbx
        push    rbp
        push    rsi
        push    rdi
        push    r8
        push    r9
        push    r10
        push    r11
        push    r12
        push    r13
        push    r14
        push    r15
        mov     rdi, rsp                ; 16-byte aligned: the processor aligned it, we pushed 22
        call    trap_dispatch
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rbp
        pop     rbx
        pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 16                 ; vector, error code
        iretq

; void stack_switch(uint64_t top, void (*fn)(void *), void *arg): run fn(arg) on the stack that ends
; at `top`; fn never returns. The new stack's anchor has been written.
global stack_switch
stack_switch:
        mov     rsp, rdi
        mov     rdi, rdx
        xor     ebp, ebp                ; backtraces end here
        call    rsi
        ud2

section .rodata

global trap_stubs
align 8
trap_stubs:
%assign v 0
%rep 256
        dq      trap_stub_%+v
%assign v v+1
%endrep

; SPDX-License-Identifier: BSD-2-Clause
;
; The change of stacks between threads. Interrupts are off. Called by kernel/sched/sched.c only.

bits 64
default rel

%define STACK_SIZE 0x4000               ; arch/x86_64/percpu.h

extern sched_thread_main

section .text

; void sched_switch(uint64_t *save_sp, uint64_t load_sp, struct cpu *cpu)
; The new stack's anchor is written before RSP changes: an NMI in between finds its processor.
global sched_switch
sched_switch:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        mov     [rdi], rsp
        mov     rax, rsi
        and     rax, -STACK_SIZE
        mov     [rax], rdx
        mov     rsp, rsi
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        ret

; A new thread's first return comes here; RBP is zero, where backtraces end.
global sched_thread_entry
sched_thread_entry:
        call    sched_thread_main
        ud2

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 8259A initialisation words ("Programming the 8259A"). Boot processor, once.
 */
#include "arch/x86_64/pic.h"

#include "arch/x86_64/io.h"

#define MASTER 0x20
#define SLAVE 0xa0
#define ICW1_INIT_ICW4 0x11
#define ICW4_8086 0x01

void pic_disable(void)
{
    outb(MASTER, ICW1_INIT_ICW4);
    outb(SLAVE, ICW1_INIT_ICW4);
    outb(MASTER + 1, PIC_VECTOR_FIRST);
    outb(SLAVE + 1, PIC_VECTOR_FIRST + 8);
    outb(MASTER + 1, 1u << 2); /* the slave hangs on line 2 */
    outb(SLAVE + 1, 2);
    outb(MASTER + 1, ICW4_8086);
    outb(SLAVE + 1, ICW4_8086);
    outb(MASTER + 1, 0xff);
    outb(SLAVE + 1, 0xff);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What iasl would make of
 *
 *     Scope (\_SB) {
 *         Device (VIO0) {
 *             Name (_HID, "LNRO0005") Name (_UID, 0)
 *             Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xFEB00000, 0x200)
 *                 Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) {16} }) }
 *         Device (VIO1) ... }
 *
 * for the devices that there are: every device's code is the same but for three numbers.
 * Manual: ACPI 6.3, "ACPI Machine Language (AML) Specification", "Resource Data Types for ACPI".
 */
#include "kernel/devices/acpi_virtio.h"

#include "kernel/devices/vmmio.h"
#include "kernel/lib/string.h"
#include "kernel/vm/vm.h"

#define BIG_LENGTH(n) \
    (uint8_t)(0x40 | ((n)&0xf)), (uint8_t)((n) >> 4) /* two bytes, itself counted */

struct code {
    uint8_t device[2], length[2]; /* DeviceOp; PkgLength: from itself to the end */
    char name[4];
    uint8_t hid_op;
    char hid_name[4];
    uint8_t hid_string;
    char hid[9];
    uint8_t uid_op;
    char uid_name[4];
    uint8_t uid_byte, uid;
    uint8_t crs_op;
    char crs_name[4];
    uint8_t buffer, buffer_length, buffer_byte, size;
    struct {
        uint8_t tag, length[2], writable;
        uint32_t base, bytes;
    } __packed memory;
    struct {
        uint8_t tag, length[2], flags, nr;
        uint32_t gsi;
    } __packed interrupt;
    uint8_t end[2];
} __packed;

#define RESOURCE_BYTES (sizeof(struct code) - offsetof(struct code, memory))

static const struct code template = {
    .device = {0x5b, 0x82},
    .length = {BIG_LENGTH(sizeof(struct code) - 2)},
    .name = "VIO",
    .hid_op = 0x08,
    .hid_name = "_HID",
    .hid_string = 0x0d,
    .hid = "LNRO0005",
    .uid_op = 0x08,
    .uid_name = "_UID",
    .uid_byte = 0x0a,
    .crs_op = 0x08,
    .crs_name = "_CRS",
    .buffer = 0x11,
    .buffer_length = RESOURCE_BYTES + 3,
    .buffer_byte = 0x0a,
    .size = RESOURCE_BYTES,
    .memory = {.tag = 0x86, .length = {9, 0}, .writable = 1, .bytes = VMMIO_SIZE},
    .interrupt = {.tag = 0x89, .length = {6, 0}, .flags = 0x01, .nr = 1}, /* level, active high */
    .end = {0x79, 0},
};
_Static_assert(RESOURCE_BYTES + 3 < 0x40, "a length of one byte");

struct scope {
    uint8_t op, length[2];
    char name[5];
    struct code device[VMMIO_MAX];
} __packed;
_Static_assert(sizeof(struct scope) <= ACPI_VIRTIO_MAX && sizeof(struct scope) < 0x1000, "fits");

size_t acpi_virtio_body(const struct vm *vm, uint8_t *out)
{
    struct scope s = {.op = 0x10, .name = "\\_SB_"};
    unsigned nr = vm->nr_virtio;
    size_t bytes = offsetof(struct scope, device) + nr * sizeof(s.device[0]);
    const uint8_t length[] = {BIG_LENGTH(bytes - 1)};

    if (nr == 0) {
        return 0;
    }
    memcpy(s.length, length, sizeof(length));
    for (unsigned i = 0; i < nr; i++) {
        s.device[i] = template;
        s.device[i].name[3] = (char)('0' + i);
        s.device[i].uid = (uint8_t)i;
        s.device[i].memory.base = (uint32_t)(VMMIO_BASE + i * VMMIO_STRIDE);
        s.device[i].interrupt.gsi = VMMIO_GSI + i;
    }
    memcpy(out, &s, bytes);
    return bytes;
}

// SPDX-License-Identifier: BSD-2-Clause
// What the guest cannot find by itself: how to sleep for ever, and the serial port.
DefinitionBlock ("dsdt.aml", "DSDT", 2, "BALAST", "BALLAST", 1)
{
    Name (\_S5, Package (4) { 5, 0, 0, 0 })
    Device (\_SB.COM1)
    {
        Name (_HID, EisaId ("PNP0501"))
        Name (_UID, 1)
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x3F8, 0x3F8, 1, 8)
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 4 }
        })
    }
}

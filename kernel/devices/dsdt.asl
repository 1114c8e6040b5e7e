// SPDX-License-Identifier: BSD-2-Clause
// What the guest cannot find by itself: how to sleep for ever, the serial port, the legacy timers.
DefinitionBlock ("dsdt.aml", "DSDT", 2, "BALAST", "BALLAST", 1)
{
    Name (\_S5, Package (4) { 0, 0, 0, 0 })
    Device (\_SB.COM1)
    {
        Name (_HID, EisaId ("PNP0501"))
        Name (_UID, 1)
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x3F8, 0x3F8, 1, 8)
            IRQNoFlags () { 4 }
        })
    }
    Device (\_SB.PIT)
    {
        Name (_HID, EisaId ("PNP0100"))
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x40, 0x40, 1, 4)
            IRQNoFlags () { 0 }
        })
    }
    Device (\_SB.RTC)
    {
        Name (_HID, EisaId ("PNP0B00"))
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x70, 0x70, 1, 2)
            IRQNoFlags () { 8 }
        })
    }
    Device (\_SB.HPET)
    {
        Name (_HID, EisaId ("PNP0103"))
        Name (_CRS, ResourceTemplate ()
        {
            Memory32Fixed (ReadOnly, 0xFED00000, 0x400)
        })
    }
}

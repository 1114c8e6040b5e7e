/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scan code set 1 with the US layout.
 */
#include "kernel/drivers/keymap.h"

#include "kernel/lib/string.h"

#define CODE_CTRL 0x1d
#define CODE_LEFT_SHIFT 0x2a
#define CODE_RIGHT_SHIFT 0x36
#define CODE_CAPS 0x3a
#define CODE_EXTENDED 0xe0
#define CODE_RELEASE 0x80

/* Indexed by scan code; 0x37 and 0x47 .. 0x53 are the numeric pad. */
static const char plain[] = "\0\x1b"
                            "1234567890-=\x7f\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 "
                            "\0\0\0\0\0\0\0\0\0\0\0\0\0"
                            "789-456+1230.";
static const char shifted[] = "\0\x1b"
                              "!@#$%^&*()_+\x7f\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 "
                              "\0\0\0\0\0\0\0\0\0\0\0\0\0"
                              "789-456+1230.";
_Static_assert(sizeof(plain) == 0x54 + 1 && sizeof(shifted) == sizeof(plain), "keypad dot is 0x53");

static const char *extended_sequence(uint8_t code)
{
    switch (code) {
    case 0x1c:
        return "\r"; /* keypad Enter */
    case 0x35:
        return "/";
    case 0x47:
        return "\x1b[H";
    case 0x48:
        return "\x1b[A";
    case 0x49:
        return "\x1b[5~";
    case 0x4b:
        return "\x1b[D";
    case 0x4d:
        return "\x1b[C";
    case 0x4f:
        return "\x1b[F";
    case 0x50:
        return "\x1b[B";
    case 0x51:
        return "\x1b[6~";
    case 0x52:
        return "\x1b[2~";
    case 0x53:
        return "\x1b[3~";
    default:
        return "";
    }
}

/* True if the code was a modifier's. */
static bool modifier(struct keymap *k, uint8_t code, bool pressed, bool extended)
{
    switch (code) {
    case CODE_CTRL:
        k->ctrl = pressed;
        return true;
    case CODE_LEFT_SHIFT:
    case CODE_RIGHT_SHIFT:
        if (!extended) { /* 0xe0 0x2a is noise around Print Screen and the cursor keys */
            k->shift = pressed;
        }
        return true;
    case CODE_CAPS:
        k->caps ^= pressed;
        return true;
    default:
        return false;
    }
}

size_t keymap_scancode(struct keymap *k, uint8_t code, char out[KEYMAP_MAX_BYTES])
{
    bool extended = k->extended;

    k->extended = code == CODE_EXTENDED;
    if (k->extended) {
        return 0;
    }
    bool pressed = !(code & CODE_RELEASE);

    code &= (uint8_t)~CODE_RELEASE;
    if (modifier(k, code, pressed, extended) || !pressed) {
        return 0;
    }
    if (extended) {
        const char *s = extended_sequence(code);
        size_t n = strlen(s);

        memcpy(out, s, n);
        return n;
    }
    char c = code < sizeof(plain) - 1 ? plain[code] : '\0';

    if (c == '\0') {
        return 0;
    }
    bool letter = c >= 'a' && c <= 'z';

    if (k->shift != (k->caps && letter)) {
        c = shifted[code];
    }
    if (k->ctrl && ((c >= '@' && c <= '_') || letter)) {
        c &= 0x1f;
    }
    out[0] = c;
    return 1;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers, sizes and `key=value` words out of text.
 */
#include "kernel/lib/parse.h"

#include "kernel/lib/string.h"

static unsigned digit_value(char c)
{
    if (char_is_digit(c)) {
        return (unsigned)(c - '0');
    }
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
        return (unsigned)((c | 0x20) - 'a') + 10;
    }
    return UINT32_MAX;
}

/* The number at the start of text; *end receives where it stops. */
static enum hv_err parse_prefix(const char *text, const char **end, uint64_t *out)
{
    unsigned base = 10;
    uint64_t v = 0;

    if (text[0] == '0' && (text[1] | 0x20) == 'x') {
        base = 16;
        text += 2;
    }
    const char *p = text;

    for (; digit_value(*p) < base; p++) {
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)digit_value(*p), &v)) {
            return HV_ERANGE;
        }
    }
    *end = p;
    *out = v;
    return p == text ? HV_EINVAL : HV_OK;
}

enum hv_err parse_u64(const char *text, uint64_t *out)
{
    const char *end;
    uint64_t v;
    enum hv_err err = parse_prefix(text, &end, &v);

    if (err) {
        return err;
    }
    if (*end) {
        return HV_EINVAL;
    }
    *out = v;
    return HV_OK;
}

/* Shift of a suffix letter, or 0. */
static unsigned suffix_shift(char c)
{
    switch (c | 0x20) {
    case 'k':
        return 10;
    case 'm':
        return 20;
    case 'g':
        return 30;
    case 't':
        return 40;
    default:
        return 0;
    }
}

enum hv_err parse_size(const char *text, uint64_t unit, uint64_t *out)
{
    const char *end;
    uint64_t v;
    enum hv_err err = parse_prefix(text, &end, &v);

    if (err) {
        return err;
    }
    if (suffix_shift(*end)) {
        unit = 1ULL << suffix_shift(*end++);
        if (str_equal(end, "iB") || str_equal(end, "B")) {
            end += strlen(end);
        }
    }
    if (*end) {
        return HV_EINVAL;
    }
    return __builtin_mul_overflow(v, unit, out) ? HV_ERANGE : HV_OK;
}

bool parse_option(const char *line, const char *key, char *out, size_t size)
{
    size_t key_len = strlen(key);
    bool found = false;

    while (*line) {
        if (char_is_space(*line)) {
            line++;
            continue;
        }
        size_t len = 0;

        while (line[len] && !char_is_space(line[len])) {
            len++;
        }
        if (len >= key_len && memcmp(line, key, key_len) == 0) {
            if (len == key_len) {
                str_copy_n(out, size, "", 0);
                found = true;
            } else if (line[key_len] == '=') {
                str_copy_n(out, size, line + key_len + 1, len - key_len - 1);
                found = true;
            }
        }
        line += len;
    }
    return found;
}

unsigned parse_words(char *line, char **words, unsigned max)
{
    unsigned n = 0;

    while (n < max) {
        while (char_is_space(*line)) {
            line++;
        }
        if (!*line) {
            break;
        }
        bool quoted = *line == '"';

        line += quoted;
        words[n++] = line;
        while (*line && (quoted ? *line != '"' : !char_is_space(*line))) {
            line++;
        }
        if (*line) {
            *line++ = '\0';
        }
    }
    return n;
}

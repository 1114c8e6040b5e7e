/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text of ballast.conf, which is hostile: any byte may stand anywhere, and no line is too long to
 * be read over.
 *
 *   # comment        ; comment        (also behind a blank, outside quotes)
 *   key = value      key = "value with # and ; and \" in it"
 *   [name]           a backslash at the end of a line joins the next one
 */
#include "kernel/vm/config_text.h"

#include "kernel/lib/string.h"

void config_text_init(struct config_text *t, const char *text, size_t len)
{
    t->next = text;
    t->end = text + len;
    t->next_line = 1;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        t->next += 3; /* a byte order mark */
    }
}

/* Append the physical line at t->next to buf; *joined says that it ends in a backslash. */
static enum config_line read_physical(struct config_text *t, size_t *used, bool *joined)
{
    enum config_line status = CONFIG_LINE_OK;
    size_t n = *used;

    while (t->next < t->end && *t->next != '\n') {
        char c = *t->next++;

        if (c == '\0') {
            status = CONFIG_LINE_NUL;
        } else if (n + 1 < sizeof(t->buf)) {
            t->buf[n++] = c;
        } else if (status == CONFIG_LINE_OK) {
            status = CONFIG_LINE_TOO_LONG;
        }
    }
    if (t->next < t->end) {
        t->next++;
    }
    t->next_line++;
    if (n > *used && t->buf[n - 1] == '\r') {
        n--;
    }
    *joined = n > *used && t->buf[n - 1] == '\\';
    *used = n - *joined;
    return status;
}

enum config_line config_text_read(struct config_text *t)
{
    enum config_line status = CONFIG_LINE_OK;
    size_t used = 0;
    bool joined = true;

    if (t->next == t->end) {
        return CONFIG_LINE_END;
    }
    t->line = t->next_line;
    while (joined && t->next < t->end) {
        enum config_line part = read_physical(t, &used, &joined);

        status = status == CONFIG_LINE_OK ? part : status;
    }
    t->buf[used] = '\0';
    return status;
}

bool config_is_comment(char c)
{
    return c == '#' || c == ';';
}

char *config_trim(char *s)
{
    while (char_is_space(*s)) {
        s++;
    }
    char *end = s + strlen(s);

    while (end > s && char_is_space(end[-1])) {
        end--;
    }
    *end = '\0';
    return s;
}

void config_cut_comment(char *s)
{
    for (char *c = s; *c; c++) {
        if (config_is_comment(*c) && (c == s || char_is_space(c[-1]))) {
            *c = '\0';
            return;
        }
    }
}

bool config_unquote(char *s)
{
    char *from = s + 1;
    char *to = s;

    while (*from && *from != '"') {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\')) {
            from++;
        }
        *to++ = *from++;
    }
    if (*from != '"') {
        return false;
    }
    from++;
    while (char_is_space(*from)) {
        from++;
    }
    bool clean = *from == '\0' || config_is_comment(*from);

    *to = '\0';
    return clean;
}

char *config_next_item(char **list, char **args)
{
    while (*list != NULL) {
        char *name = *list;

        *list = strchr(name, ',');
        if (*list != NULL) {
            *(*list)++ = '\0';
        }
        name = config_trim(name);
        if (*name != '\0') {
            *args = strchr(name, ' ');
            if (*args == NULL) {
                *args = name + strlen(name);
            } else {
                *(*args)++ = '\0';
                *args = config_trim(*args);
            }
            return name;
        }
    }
    return NULL;
}

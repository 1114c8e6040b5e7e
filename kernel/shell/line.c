/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The line editor. What is on the screen always equals prompt + buf with the cursor at `cursor`; each
 * edit prints the changed tail and steps back by backspaces.
 */
#include "kernel/shell/line.h"

#include "kernel/lib/string.h"

#define CTRL(c) ((c)&0x1f)
#define KEY_ESC 0x1b
#define KEY_DEL 0x7f
#define SCREEN_COLUMNS 78u

static void put(struct line *l, const char *s, size_t n)
{
    if (n > 0) {
        l->write(s, n);
    }
}

static void put_text(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

static void put_repeated(struct line *l, char c, unsigned n)
{
    while (n-- > 0) {
        put(l, &c, 1);
    }
}

static void bell(struct line *l)
{
    put_text(l, "\a");
}

static void move_to(struct line *l, unsigned to)
{
    if (to < l->cursor) {
        put_repeated(l, '\b', l->cursor - to);
    } else {
        put(l, l->buf + l->cursor, to - l->cursor);
    }
    l->cursor = to;
}

/* Replace bytes [from, to) by n bytes of s and leave the cursor behind them. */
static void replace(struct line *l, unsigned from, unsigned to, const char *s, unsigned n)
{
    unsigned old_len = l->len;

    if (old_len - (to - from) + n >= LINE_BYTES) {
        bell(l);
        return;
    }
    move_to(l, from);
    memmove(l->buf + from + n, l->buf + to, old_len - to);
    memcpy(l->buf + from, s, n);
    l->len = old_len - (to - from) + n;
    l->buf[l->len] = '\0';
    put(l, l->buf + from, l->len - from);
    unsigned blanks = old_len > l->len ? old_len - l->len : 0;

    put_repeated(l, ' ', blanks);
    put_repeated(l, '\b', blanks + l->len - (from + n));
    l->cursor = from + n;
}

static void erase(struct line *l, unsigned from, unsigned to)
{
    if (from == to) {
        bell(l);
        return;
    }
    replace(l, from, to, "", 0);
}

static void erase_word(struct line *l)
{
    unsigned from = l->cursor;

    while (from > 0 && l->buf[from - 1] == ' ') {
        from--;
    }
    while (from > 0 && l->buf[from - 1] != ' ') {
        from--;
    }
    erase(l, from, l->cursor);
}

/* --- history --- */

static void add_history(struct line *l)
{
    if (l->len == 0) {
        return;
    }
    const char *last = l->history[(l->nr_history + LINE_HISTORY - 1) % LINE_HISTORY];

    if (l->nr_history == 0 || !str_equal(last, l->buf)) {
        str_copy(l->history[l->nr_history++ % LINE_HISTORY], LINE_BYTES, l->buf);
    }
}

static void browse(struct line *l, int step)
{
    unsigned depth = MIN(l->nr_history, LINE_HISTORY);

    if ((step > 0 && l->browse == depth) || (step < 0 && l->browse == 0)) {
        bell(l);
        return;
    }
    if (l->browse == 0) {
        str_copy(l->saved, sizeof(l->saved), l->buf);
    }
    l->browse = step > 0 ? l->browse + 1 : l->browse - 1;
    const char *text =
        l->browse ? l->history[(l->nr_history - l->browse) % LINE_HISTORY] : l->saved;

    replace(l, 0, l->len, text, (unsigned)strlen(text));
}

/* --- completion --- */

void line_offer(struct line_completions *c, const char *word)
{
    if (!str_starts(word, c->prefix) || strlen(word) >= LINE_WORD_BYTES) {
        return;
    }
    for (unsigned i = 0; i < c->nr; i++) {
        if (str_equal(c->words[i], word)) {
            return;
        }
    }
    if (c->nr < LINE_COMPLETIONS) {
        str_copy(c->words[c->nr++], LINE_WORD_BYTES, word);
    }
}

static unsigned common_length(const struct line_completions *c)
{
    unsigned n = 0;

    for (;; n++) {
        for (unsigned i = 0; i < c->nr; i++) {
            if (c->words[i][n] == '\0' || c->words[i][n] != c->words[0][n]) {
                return n;
            }
        }
    }
}

static void list_completions(struct line *l)
{
    const struct line_completions *c = &l->completions;
    size_t width = 0;
    size_t column = 0;

    for (unsigned i = 0; i < c->nr; i++) {
        width = MAX(width, strlen(c->words[i]) + 2);
    }
    put_text(l, "\n");
    for (unsigned i = 0; i < c->nr; i++) {
        size_t len = strlen(c->words[i]);

        put(l, c->words[i], len);
        column += width;
        if (i + 1 == c->nr || column + width > SCREEN_COLUMNS) {
            put_text(l, "\n");
            column = 0;
        } else {
            put_repeated(l, ' ', (unsigned)(width - len));
        }
    }
    line_show(l);
}

static void complete(struct line *l)
{
    struct line_completions *c = &l->completions;
    char before[LINE_BYTES];
    char prefix[LINE_BYTES];
    unsigned word = l->cursor;

    if (!l->complete) {
        bell(l);
        return;
    }
    while (word > 0 && l->buf[word - 1] != ' ') {
        word--;
    }
    str_copy_n(before, sizeof(before), l->buf, word);
    str_copy_n(prefix, sizeof(prefix), l->buf + word, l->cursor - word);
    c->nr = 0;
    c->prefix = prefix;
    l->complete(before, c);
    if (c->nr == 0) {
        bell(l);
        return;
    }
    unsigned common = common_length(c);

    if (c->nr == 1) {
        char text[LINE_WORD_BYTES + 1];

        str_copy(text, sizeof(text), c->words[0]);
        text[common] = ' ';
        replace(l, word, l->cursor, text, common + 1);
    } else if (common > l->cursor - word) {
        replace(l, word, l->cursor, c->words[0], common);
    } else {
        list_completions(l);
    }
}

/* --- keys --- */

static void escape_final(struct line *l, char c)
{
    switch (c) {
    case 'A':
        browse(l, 1);
        break;
    case 'B':
        browse(l, -1);
        break;
    case 'C':
        move_to(l, MIN(l->cursor + 1, l->len));
        break;
    case 'D':
        move_to(l, l->cursor - (l->cursor > 0));
        break;
    case 'H':
        move_to(l, 0);
        break;
    case 'F':
        move_to(l, l->len);
        break;
    case '~':
        if (l->escape_param == 1 || l->escape_param == 7) {
            move_to(l, 0);
        } else if (l->escape_param == 4 || l->escape_param == 8) {
            move_to(l, l->len);
        } else if (l->escape_param == 3) {
            erase(l, l->cursor, MIN(l->cursor + 1, l->len));
        }
        break;
    default:
        break;
    }
}

/* A byte inside an escape sequence. */
static void escape_byte(struct line *l, char c)
{
    if (l->escape == LINE_ESC_SEEN) {
        l->escape = c == '[' || c == 'O' ? LINE_ESC_CSI : LINE_ESC_NONE;
        l->escape_param = 0;
    } else if (char_is_digit(c)) {
        l->escape_param = (l->escape_param * 10 + (unsigned)(c - '0')) % 1000;
    } else if (c != ';') {
        l->escape = LINE_ESC_NONE;
        escape_final(l, c);
    }
}

static void control_byte(struct line *l, char c)
{
    switch (c) {
    case '\b':
    case KEY_DEL:
        erase(l, l->cursor - (l->cursor > 0), l->cursor);
        break;
    case '\t':
        complete(l);
        break;
    case CTRL('B'):
        move_to(l, l->cursor - (l->cursor > 0));
        break;
    case CTRL('C'):
        put_text(l, "^C\n");
        line_start(l);
        break;
    case CTRL('D'):
        erase(l, l->cursor, MIN(l->cursor + 1, l->len));
        break;
    case CTRL('E'):
        move_to(l, l->len);
        break;
    case CTRL('F'):
        move_to(l, MIN(l->cursor + 1, l->len));
        break;
    case CTRL('K'):
        erase(l, l->cursor, l->len);
        break;
    case CTRL('L'):
        put_text(l, "\x1b[H\x1b[2J");
        line_show(l);
        break;
    case CTRL('N'):
        browse(l, -1);
        break;
    case CTRL('P'):
        browse(l, 1);
        break;
    case CTRL('U'):
        erase(l, 0, l->len);
        break;
    case CTRL('W'):
        erase_word(l);
        break;
    case KEY_ESC:
        l->escape = LINE_ESC_SEEN;
        break;
    default:
        break;
    }
}

static bool enter(struct line *l)
{
    move_to(l, l->len);
    put_text(l, "\n");
    l->visible = false;
    add_history(l);
    return true;
}

bool line_feed(struct line *l, char c)
{
    bool after_cr = l->last_was_cr;

    l->last_was_cr = c == '\r';
    if (l->escape != LINE_ESC_NONE) {
        escape_byte(l, c);
        return false;
    }
    if (c == '\r' || (c == '\n' && !after_cr)) {
        return enter(l);
    }
    if (char_is_print(c)) {
        replace(l, l->cursor, l->cursor, &c, 1);
    } else {
        control_byte(l, c);
    }
    return false;
}

void line_init(struct line *l, const char *prompt, void (*write)(const char *s, size_t len),
               line_completer_t completer)
{
    memset(l, 0, sizeof(*l));
    l->prompt = prompt;
    l->write = write;
    l->complete = completer;
}

void line_start(struct line *l)
{
    l->len = 0;
    l->cursor = 0;
    l->buf[0] = '\0';
    l->browse = 0;
    l->visible = false;
    line_show(l);
}

void line_hide(struct line *l)
{
    if (l->visible) {
        unsigned columns = (unsigned)strlen(l->prompt) + l->len;

        put_text(l, "\r");
        put_repeated(l, ' ', columns);
        put_text(l, "\r");
        l->visible = false;
    }
}

void line_show(struct line *l)
{
    l->visible = true;
    put_text(l, "\r");
    put_text(l, l->prompt);
    put(l, l->buf, l->len);
    put_repeated(l, '\b', l->len - l->cursor);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intrusive circular doubly linked lists. A node that is in no list points to itself (list_init),
 * so list_del may be called twice. Pure; the owner of a list names its lock.
 */
#pragma once

#include "kernel/lib/types.h"

struct list {
    struct list *next;
    struct list *prev;
};

#define LIST_INIT(name)  \
    {                    \
        &(name), &(name) \
    }
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each(pos, head) for (pos = (head)->next; pos != (head); pos = pos->next)
#define list_for_each_safe(pos, tmp, head) \
    for (pos = (head)->next, tmp = pos->next; pos != (head); pos = tmp, tmp = pos->next)

static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Insert `node` behind `pos`; with the list head this is the front. */
static inline void list_add(struct list *pos, struct list *node)
{
    node->next = pos->next;
    node->prev = pos;
    pos->next->prev = node;
    pos->next = node;
}

/* Insert `node` before `pos`; with the list head this is the tail. */
static inline void list_add_tail(struct list *pos, struct list *node)
{
    list_add(pos->prev, node);
}

static inline void list_del(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* First node of a non-empty list, or NULL. */
static inline struct list *list_first(const struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}

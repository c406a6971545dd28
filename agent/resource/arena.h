/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Memory that is freed all at once: the nodes of a document, the strings of a registry's entries.
 * 100,000 ServiceEntries are some four million of them, and have no owner but their text.
 * One thread at a time.
 */
#include <stddef.h>

struct arena_block;

/* All zero is an empty arena. */
struct arena {
	struct arena_block *blocks; /* newest first */
	char *next;
	size_t left;
};

/* Zeroed memory, aligned for any object, valid until arena_reset() or arena_done(). NULL: none
 * left.
 */
void *arena_alloc(struct arena *arena, size_t size);

/* As arena_alloc for `n` objects; NULL also when n * size overflows. */
void *arena_array(struct arena *arena, size_t n, size_t size);

/* A copy with a NUL behind it. */
char *arena_dup(struct arena *arena, const char *text, size_t len);
char *arena_print(struct arena *arena, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

void arena_reset(struct arena *arena); /* everything in it is gone; keeps a block for reuse */
void arena_done(struct arena *arena);

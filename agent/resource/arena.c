/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 * 1024)
#define ALIGN       _Alignof(max_align_t)

struct arena_block {
	struct arena_block *older;
	size_t size;
	_Alignas(max_align_t) char bytes[];
};

static struct arena_block *grow(struct arena *arena, size_t size)
{
	struct arena_block *block;

	if (size > SIZE_MAX - sizeof(*block))
		return NULL;
	block = malloc(sizeof(*block) + size);
	if (!block)
		return NULL;
	block->size = size;
	block->older = arena->blocks;
	arena->blocks = block;
	return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	void *p;

	if (size > SIZE_MAX - ALIGN)
		return NULL;
	/* Nothing is something, too: NULL means that there is no memory. */
	size = ((size ?: 1) + ALIGN - 1) / ALIGN * ALIGN;
	if (size > arena->left) {
		struct arena_block *block = grow(arena, size > BLOCK_BYTES ? size : BLOCK_BYTES);

		if (!block)
			return NULL;
		arena->next = block->bytes;
		arena->left = block->size;
	}
	p = arena->next;
	arena->next += size;
	arena->left -= size;
	return memset(p, 0, size);
}

void *arena_array(struct arena *arena, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return arena_alloc(arena, bytes);
}

char *arena_dup(struct arena *arena, const char *text, size_t len)
{
	char *copy = len < SIZE_MAX ? arena_alloc(arena, len + 1) : NULL;

	if (copy && len > 0)
		memcpy(copy, text, len);
	return copy;
}

char *arena_print(struct arena *arena, const char *format, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	text = n < 0 ? NULL : arena_alloc(arena, (size_t)n + 1);
	if (!text)
		return NULL;
	va_start(args, format);
	vsnprintf(text, (size_t)n + 1, format, args);
	va_end(args);
	return text;
}

void arena_reset(struct arena *arena)
{
	struct arena_block *keep = NULL;

	while (arena->blocks) {
		struct arena_block *older = arena->blocks->older;

		if (!keep && arena->blocks->size == BLOCK_BYTES)
			keep = arena->blocks;
		else
			free(arena->blocks);
		arena->blocks = older;
	}
	*arena = (struct arena){.blocks = keep};
	if (keep) {
		keep->older = NULL;
		arena->next = keep->bytes;
		arena->left = keep->size;
	}
}

void arena_done(struct arena *arena)
{
	while (arena->blocks) {
		struct arena_block *older = arena->blocks->older;

		free(arena->blocks);
		arena->blocks = older;
	}
	*arena = (struct arena){0};
}

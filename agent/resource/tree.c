/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/tree.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *tree_kind_str(enum tree_kind kind)
{
	static const char *const names[] = {
		[TREE_NULL] = "null",       [TREE_BOOL] = "a boolean",  [TREE_INT] = "a number",
		[TREE_NUMBER] = "a number", [TREE_STRING] = "a string", [TREE_MAP] = "a map",
		[TREE_LIST] = "a list",
	};
	_Static_assert(sizeof(names) / sizeof(names[0]) == TREE_N_, "one name a kind");

	return names[kind];
}

const struct tree *tree_get(const struct tree *node, const char *key)
{
	if (!node || node->kind != TREE_MAP)
		return NULL;
	for (const struct tree *child = node->child; child; child = child->next) {
		/* Most differ in the first letter, and this is asked some million times. */
		if (child->key[0] == key[0] && strcmp(child->key, key) == 0)
			return child;
	}
	return NULL;
}

const struct tree *tree_at(const struct tree *node, size_t i)
{
	const struct tree *child = node ? node->child : NULL;

	while (child && i-- > 0)
		child = child->next;
	return child;
}

void tree_begin(struct tree_builder *b, struct arena *mem)
{
	*b = (struct tree_builder){.mem = mem};
}

int tree_refuse(struct tree_builder *b, unsigned line, unsigned column, const char *format, ...)
{
	va_list args;

	b->error.line = line;
	b->error.column = column;
	va_start(args, format);
	vsnprintf(b->error.text, sizeof(b->error.text), format, args);
	va_end(args);
	return -EINVAL;
}

int tree_key(struct tree_builder *b, const char *key, size_t len, unsigned line, unsigned column)
{
	const struct tree *map = b->open[b->depth - 1].node;

	if (memchr(key, '\0', len))
		return tree_refuse(b, line, column, "a key holds a NUL byte");
	if (map->n >= TREE_KEYS_MAX)
		return tree_refuse(b, line, column, "more than %u keys in one map", TREE_KEYS_MAX);
	b->key = arena_dup(b->mem, key, len);
	if (!b->key)
		return -ENOMEM;
	b->key_line = line;
	for (const struct tree *child = map->child; child; child = child->next) {
		if (child->key[0] == b->key[0] && strcmp(child->key, b->key) == 0)
			return tree_refuse(b, line, column,
					   "key '%.60s' appears twice, first in line %u", b->key,
					   child->key_line);
	}
	return 0;
}

/* Hangs `node` into what is open. Its children, if any, are there already. */
static int attach(struct tree_builder *b, struct tree *node)
{
	struct tree *parent = b->depth > 0 ? b->open[b->depth - 1].node : NULL;

	if (b->depth + node->height > TREE_DEPTH_MAX)
		return tree_refuse(b, node->line, node->column, "nested more than %d levels deep",
				   TREE_DEPTH_MAX);
	b->nodes += node->nodes;
	if (b->nodes > TREE_NODES_MAX)
		return tree_refuse(b, node->line, node->column,
				   "more than %u values in one document", TREE_NODES_MAX);
	if (!parent) {
		b->root = node;
		return 0;
	}

	if (parent->kind == TREE_MAP) {
		node->key = b->key;
		node->key_line = b->key_line;
		b->key = NULL;
	}
	if (b->open[b->depth - 1].last)
		b->open[b->depth - 1].last->next = node;
	else
		parent->child = node;
	b->open[b->depth - 1].last = node;
	parent->n++;
	return 0;
}

static struct tree *new_node(struct tree_builder *b, enum tree_kind kind, unsigned line,
			     unsigned column)
{
	struct tree *node = arena_alloc(b->mem, sizeof(*node));

	if (node)
		*node = (struct tree){.kind = (uint8_t)kind,
				      .line = line,
				      .column = column,
				      .nodes = 1,
				      .height = 1};
	return node;
}

int tree_scalar(struct tree_builder *b, enum tree_kind kind, const char *text, size_t len,
		unsigned line, unsigned column)
{
	struct tree *node = new_node(b, kind, line, column);

	if (!node)
		return -ENOMEM;
	if (len > 0 && memchr(text, '\0', len))
		return tree_refuse(b, line, column, "a string holds a NUL byte");
	node->text = arena_dup(b->mem, text, len);
	return node->text ? attach(b, node) : -ENOMEM;
}

int tree_open(struct tree_builder *b, enum tree_kind kind, unsigned line, unsigned column)
{
	struct tree *node = new_node(b, kind, line, column);
	int r;

	if (!node)
		return -ENOMEM;
	r = attach(b, node);
	if (r < 0)
		return r;
	b->open[b->depth].node = node;
	b->open[b->depth].last = NULL;
	b->depth++;
	return 0;
}

const struct tree *tree_close(struct tree_builder *b)
{
	struct tree *node = b->open[--b->depth].node;

	/* b->nodes is bounded, so these sums are; what is inside has been counted there already. */
	for (const struct tree *child = node->child; child; child = child->next) {
		node->nodes += child->nodes;
		if (child->height >= node->height)
			node->height = (uint8_t)(child->height + 1);
	}
	return node;
}

int tree_again(struct tree_builder *b, const struct tree *target, unsigned line, unsigned column)
{
	struct tree *node = new_node(b, target->kind, line, column);

	if (!node)
		return -ENOMEM;
	node->text = target->text;
	node->child = target->child; /* shared: trees never change */
	node->n = target->n;
	node->nodes = target->nodes;
	node->height = target->height;
	return attach(b, node);
}

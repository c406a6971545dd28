/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/tree.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* jansson reads and judges the text but forgets where each value stood. A cursor that goes over the
 * same text beside its values finds the places again; since the text is known to be good JSON, all
 * it has to tell apart are strings, other scalars, brackets and white space.
 */
struct cursor {
	const char *p, *end;
	const char *line_start;
	unsigned line;
};

static void skip_space(struct cursor *c)
{
	for (; c->p < c->end && strchr(" \t\r\n", *c->p); c->p++) {
		if (*c->p == '\n') {
			c->line++;
			c->line_start = c->p + 1;
		}
	}
}

/* Over one byte of punctuation, and the white space on both sides. */
static void skip_mark(struct cursor *c)
{
	skip_space(c);
	if (c->p < c->end)
		c->p++;
	skip_space(c);
}

static void skip_string(struct cursor *c)
{
	for (c->p++; c->p < c->end && *c->p != '"'; c->p++) {
		if (*c->p == '\\')
			c->p++;
	}
	if (c->p < c->end)
		c->p++;
}

static void skip_scalar(struct cursor *c)
{
	if (c->p < c->end && *c->p == '"') {
		skip_string(c);
		return;
	}
	while (c->p < c->end && !strchr(",]} \t\r\n", *c->p))
		c->p++;
}

static unsigned column(const struct cursor *c)
{
	return (unsigned)(c->p - c->line_start) + 1;
}

static int add_scalar(struct tree_builder *b, const json_t *value, struct cursor *c)
{
	unsigned line = c->line, col = column(c);
	const char *start = c->p;
	size_t len;

	skip_scalar(c);
	len = (size_t)(c->p - start);
	switch (json_typeof(value)) {
	case JSON_STRING:
		return tree_scalar(b, TREE_STRING, json_string_value(value),
				   json_string_length(value), line, col);
	case JSON_INTEGER:
		return tree_scalar(b, TREE_INT, start, len, line, col);
	case JSON_REAL:
		return tree_scalar(b, TREE_NUMBER, start, len, line, col);
	case JSON_TRUE:
	case JSON_FALSE:
		return tree_scalar(b, TREE_BOOL, start, len, line, col);
	case JSON_NULL:
		return tree_scalar(b, TREE_NULL, start, len, line, col);
	case JSON_OBJECT:
	case JSON_ARRAY:
		break;
	}
	return -EINVAL; /* cannot be: add_value() handles these */
}

static int add_value(struct tree_builder *b, json_t *value, struct cursor *c);

/* jansson keeps the keys in the order of the text. */
static int add_object(struct tree_builder *b, json_t *object, struct cursor *c)
{
	const char *key;
	json_t *value;
	int r = tree_open(b, TREE_MAP, c->line, column(c));

	if (r < 0)
		return r;
	skip_mark(c);
	json_object_foreach(object, key, value)
	{
		r = tree_key(b, key, strlen(key), c->line, column(c));
		if (r < 0)
			return r;
		skip_string(c);
		skip_mark(c); /* : */
		r = add_value(b, value, c);
		if (r < 0)
			return r;
		skip_mark(c); /* , or } */
	}
	if (json_object_size(object) == 0)
		skip_mark(c);
	tree_close(b);
	return 0;
}

static int add_array(struct tree_builder *b, json_t *array, struct cursor *c)
{
	json_t *value;
	size_t i;
	int r = tree_open(b, TREE_LIST, c->line, column(c));

	if (r < 0)
		return r;
	skip_mark(c);
	json_array_foreach(array, i, value)
	{
		r = add_value(b, value, c);
		if (r < 0)
			return r;
		skip_mark(c); /* , or ] */
	}
	if (json_array_size(array) == 0)
		skip_mark(c);
	tree_close(b);
	return 0;
}

/* Recursion ends at TREE_DEPTH_MAX, where tree_open() refuses. */
static int add_value(struct tree_builder *b, json_t *value, struct cursor *c)
{
	if (json_is_object(value))
		return add_object(b, value, c);
	if (json_is_array(value))
		return add_array(b, value, c);
	return add_scalar(b, value, c);
}

int tree_json_read(struct span text, struct arena *mem, const struct tree **ret,
		   struct tree_error *ret_error)
{
	const char *start = text.len > 0 ? (const char *)text.p : "";
	struct cursor c = {.p = start, .end = start + text.len, .line_start = start, .line = 1};
	struct tree_builder b;
	json_error_t problem;
	json_t *value;
	int r;

	tree_begin(&b, mem);
	value = json_loadb(start, text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
	if (!value && json_error_code(&problem) == json_error_out_of_memory)
		return -ENOMEM;
	if (!value) {
		r = tree_refuse(&b, problem.line > 0 ? (unsigned)problem.line : 1,
				problem.column > 0 ? (unsigned)problem.column : 1,
				"not valid JSON: %s", problem.text);
	} else {
		skip_space(&c);
		r = add_value(&b, value, &c);
		json_decref(value);
	}
	if (r == -EINVAL)
		*ret_error = b.error;
	if (r == 0)
		*ret = b.root;
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A document as a tree that remembers where in the file each piece stood. What made it, YAML, JSON
 * or jansson values, no longer shows. Trees live in an arena and never change once made. Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "resource/arena.h"

#define TREE_DEPTH_MAX 64
#define TREE_NODES_MAX 8000000U /* of one document, aliases counted as if written out */
#define TREE_KEYS_MAX  512U     /* of one map: finding a double key compares each with each */

/* Plain YAML scalars are typed as Kubernetes does it (YAML 1.1), but with the doubtful ones set
 * apart: `yes` is a boolean, 0443 (octal there, decimal elsewhere), 1_000 and 1.5 are NUMBER.
 */
enum tree_kind {
	TREE_NULL,
	TREE_BOOL, /* text is "true" or "false", however it was written */
	TREE_INT,  /* decimal, without leading zeros, `+` or `_` */
	TREE_NUMBER,
	TREE_STRING,
	TREE_MAP,
	TREE_LIST,
	TREE_N_,
};

struct tree {
	const char *key;  /* in a map; otherwise NULL */
	const char *text; /* of a scalar, never NULL for one; holds no NUL */
	const struct tree *child, *next;
	uint32_t n;            /* children */
	uint32_t nodes;        /* in all, itself included */
	uint32_t line, column; /* from 1; 0: unknown */
	uint32_t key_line;     /* in a map */
	uint8_t kind;          /* enum tree_kind */
	uint8_t height;        /* 1: no children */
};

struct tree_error {
	unsigned line, column; /* from 1; 0: unknown */
	char text[200];
};

const char *tree_kind_str(enum tree_kind kind); /* "a string", "a list", ... */

/* The child of a map; NULL when there is none, or `node` is NULL or no map. */
const struct tree *tree_get(const struct tree *node, const char *key);

/* The child of a list or map by position; NULL when there is none. */
const struct tree *tree_at(const struct tree *node, size_t i);

/* ---- building: for whoever brings values from elsewhere ---- */

struct tree_builder {
	struct arena *mem;
	struct tree_error error;
	size_t nodes;
	unsigned depth;
	struct {
		struct tree *node, *last;
	} open[TREE_DEPTH_MAX];
	char *key; /* for the next value, where a map is open */
	uint32_t key_line;
	struct tree *root;
};

/* Nodes and texts go to `mem`, which must outlive the tree. */
void tree_begin(struct tree_builder *b, struct arena *mem);

/* The key of what comes next. -EINVAL (b->error) when the map has it already, -ENOMEM. */
int tree_key(struct tree_builder *b, const char *key, size_t len, unsigned line, unsigned column);
int tree_scalar(struct tree_builder *b, enum tree_kind kind, const char *text, size_t len,
		unsigned line, unsigned column);
int tree_open(struct tree_builder *b, enum tree_kind kind, unsigned line, unsigned column);
const struct tree *tree_close(struct tree_builder *b); /* returns what was closed */

/* Adds `target` once more, as if it had been written out here. */
int tree_again(struct tree_builder *b, const struct tree *target, unsigned line, unsigned column);

/* Writes b->error; returns -EINVAL. */
int tree_refuse(struct tree_builder *b, unsigned line, unsigned column, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- reading texts ---- */

struct tree_yaml;

/* Reads `text` (borrowed until closed) document by document; its first line is number
 * `first_line`. -ENOMEM.
 */
int tree_yaml_open(struct tree_yaml **ret, struct span text, unsigned first_line);
void tree_yaml_close(struct tree_yaml *yaml); /* NULL is fine */

/* 1: *ret is the next document (a TREE_NULL for an empty one). 0: no more. -EINVAL with *ret_error,
 * and nothing more can be read; -ENOMEM.
 */
int tree_yaml_next(struct tree_yaml *yaml, struct arena *mem, const struct tree **ret,
		   struct tree_error *ret_error);

/* One strict JSON value and nothing behind it. -EINVAL with *ret_error, -ENOMEM. */
int tree_json_read(struct span text, struct arena *mem, const struct tree **ret,
		   struct tree_error *ret_error);

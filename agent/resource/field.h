/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reading the fields of a tree by tables, each complaint with file, line, object and field path:
 * "hosts.yaml:7: ServiceEntry default/x: spec.ports[1].number: must be ...". Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "resource/arena.h"
#include "resource/report.h"
#include "resource/tree.h"

/* What all fields of one object have in common. */
struct where {
	struct report *report;
	struct arena *keep; /* what is read lives here; not in the tree, which goes away */
	const char *file;
	const char *object; /* "ServiceEntry default/x" */
};

/* One place in a tree. Lives on the stack of whoever reads it. */
struct field {
	const struct where *where;
	const struct field *parent; /* NULL: the root, which has no name */
	const char *name;           /* NULL in a list */
	size_t index;               /* in a list */
	const struct tree *node;    /* NULL: not there, and complaints point at the parent */
};

/* Reads what stands at `f` (never absent or null) into `out`. Complains in the report. */
typedef void field_read_fn(const struct field *f, void *out);

struct field_rule {
	const char *name;
	field_read_fn *read; /* NULL: known, and not looked at */
	size_t offset;       /* `out` of read is `out` of field_map plus this */
};

void field_error(const struct field *f, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void field_warn(const struct field *f, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The place of a key or list item below `f`, whether it is there or not. */
struct field field_get(const struct field *f, const char *name);
struct field field_at(const struct field *f, size_t i);
bool field_is_set(const struct field *f); /* there, and not null */

/* Goes through the children of a list or map: item.node is NULL behind the last. */
struct field field_first(const struct field *f);
void field_next(struct field *item);

/* Complains unless `f` is of that kind. */
bool field_is(const struct field *f, enum tree_kind kind);

/* Reads a map by `rules`, in their order, into `out`. A key without rule is an error; null counts
 * as absent, as in Kubernetes.
 */
void field_map(const struct field *f, const struct field_rule *rules, size_t n, void *out);

/* Reads a list: *ret receives an array of *ret_n items of `size` bytes, zeroed, each read by
 * `read`. An empty array and 0 when it is no list.
 */
void field_list(const struct field *f, field_read_fn *read, size_t size, void **ret, size_t *ret_n);

/* For use in rules and lists: const char * (a copy), never empty for _text; bool. */
void field_string(const struct field *f, void *out);
void field_text(const struct field *f, void *out);
void field_bool(const struct field *f, void *out);

/* A map of strings, looked at and not kept. */
void field_string_map(const struct field *f, void *out);

/* A decimal number from `min` to `max`. False after a complaint. */
bool field_number(const struct field *f, uint64_t min, uint64_t max, uint64_t *ret);

/* One of `n` words; *ret is its position. False after a complaint. */
bool field_enum(const struct field *f, const char *const *words, size_t n, unsigned *ret);

/* Memory of f->where->keep; NULL is noted in the report. */
void *field_alloc(const struct field *f, size_t n, size_t size);
const char *field_keep(const struct field *f, const char *text);

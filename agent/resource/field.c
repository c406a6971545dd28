/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/field.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

#define PATH_TEXT 240

/* ---- complaining ---- */

static size_t put_path(const struct field *f, char buf[static PATH_TEXT])
{
	size_t n;
	int len;

	if (!f->parent) {
		buf[0] = '\0';
		return 0;
	}
	n = put_path(f->parent, buf);
	if (f->name)
		len = snprintf(buf + n, PATH_TEXT - n, n > 0 ? ".%.60s" : "%.60s", f->name);
	else
		len = snprintf(buf + n, PATH_TEXT - n, "[%zu]", f->index);
	n += len > 0 ? (size_t)len : 0;
	return n < PATH_TEXT ? n : PATH_TEXT - 1;
}

static unsigned line_of(const struct field *f)
{
	while (!f->node && f->parent)
		f = f->parent;
	if (!f->node)
		return 0;
	/* A scalar stands on its own line; a map or list is best found by its key. */
	if (f->node->child && f->node->key_line > 0)
		return f->node->key_line;
	return f->node->line;
}

__attribute__((format(printf, 3, 0))) static void
complain(const struct field *f, struct report_list *list, const char *format, va_list args)
{
	char path[PATH_TEXT], text[REPORT_TEXT / 2];

	if (list->n >= REPORT_KEPT) { /* counted only: spare the work, there may be millions */
		list->n++;
		return;
	}
	put_path(f, path);
	vsnprintf(text, sizeof(text), format, args);
	if (list == &f->where->report->errors)
		report_error(f->where->report, "%.200s:%u: %.200s: %s%s%s", f->where->file,
			     line_of(f), f->where->object, path, path[0] ? ": " : "", text);
	else
		report_warn(f->where->report, "%.200s:%u: %.200s: %s%s%s", f->where->file,
			    line_of(f), f->where->object, path, path[0] ? ": " : "", text);
}

void field_error(const struct field *f, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(f, &f->where->report->errors, format, args);
	va_end(args);
}

void field_warn(const struct field *f, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(f, &f->where->report->warnings, format, args);
	va_end(args);
}

/* ---- places ---- */

struct field field_get(const struct field *f, const char *name)
{
	return (struct field){
		.where = f->where, .parent = f, .name = name, .node = tree_get(f->node, name)};
}

struct field field_at(const struct field *f, size_t i)
{
	return (struct field){
		.where = f->where, .parent = f, .index = i, .node = tree_at(f->node, i)};
}

static void name_item(struct field *item)
{
	item->name = item->node ? item->node->key : NULL;
}

struct field field_first(const struct field *f)
{
	struct field item = {
		.where = f->where, .parent = f, .node = f->node ? f->node->child : NULL};

	name_item(&item);
	return item;
}

void field_next(struct field *item)
{
	item->node = item->node->next;
	item->index++;
	name_item(item);
}

bool field_is_set(const struct field *f)
{
	return f->node && f->node->kind != TREE_NULL;
}

bool field_is(const struct field *f, enum tree_kind kind)
{
	if (f->node->kind == kind)
		return true;
	if (f->node->text && f->node->kind != TREE_NULL && kind == TREE_STRING)
		field_error(f, "must be %s, not %s: put it in quotes", tree_kind_str(kind),
			    tree_kind_str(f->node->kind));
	else
		field_error(f, "must be %s, not %s", tree_kind_str(kind),
			    tree_kind_str(f->node->kind));
	return false;
}

void *field_alloc(const struct field *f, size_t n, size_t size)
{
	void *p = arena_array(f->where->keep, n, size);

	if (!p)
		report_fail(f->where->report, -ENOMEM);
	return p;
}

const char *field_keep(const struct field *f, const char *text)
{
	const char *copy = arena_dup(f->where->keep, text, strlen(text));

	if (!copy)
		report_fail(f->where->report, -ENOMEM);
	return copy;
}

/* ---- reading ---- */

static void refuse_unknown(const struct field *f, const struct field_rule *rules, size_t n)
{
	for (struct field child = field_first(f); child.node; field_next(&child)) {
		char known[256] = "";
		size_t used = 0, i;

		for (i = 0; i < n && strcmp(rules[i].name, child.name) != 0; i++) {
			int len = snprintf(known + used, sizeof(known) - used, "%s%s",
					   i > 0 ? ", " : "", rules[i].name);

			used += len > 0 ? (size_t)len : 0;
			used = used < sizeof(known) ? used : sizeof(known) - 1;
		}
		if (i == n)
			field_error(&child, "no such field; there are: %s", known);
	}
}

void field_map(const struct field *f, const struct field_rule *rules, size_t n, void *out)
{
	uint32_t found = 0;

	if (!field_is(f, TREE_MAP))
		return;
	for (size_t i = 0; i < n; i++) {
		struct field child = field_get(f, rules[i].name);

		found += child.node ? 1 : 0;
		if (field_is_set(&child) && rules[i].read)
			rules[i].read(&child, (char *)out + rules[i].offset);
	}
	if (found < f->node->n)
		refuse_unknown(f, rules, n);
}

void field_list(const struct field *f, field_read_fn *read, size_t size, void **ret, size_t *ret_n)
{
	char *items;

	if (!field_is(f, TREE_LIST))
		return;
	items = field_alloc(f, f->node->n, size);
	if (!items)
		return;
	*ret = items;
	*ret_n = f->node->n;
	for (struct field item = field_first(f); item.node; field_next(&item))
		read(&item, items + item.index * size);
}

void field_string(const struct field *f, void *out)
{
	const char **ret = out;

	*ret = field_is(f, TREE_STRING) ? field_keep(f, f->node->text) : "";
	if (!*ret)
		*ret = "";
}

void field_text(const struct field *f, void *out)
{
	if (f->node->kind == TREE_STRING && f->node->text[0] == '\0')
		field_error(f, "must not be empty");
	field_string(f, out);
}

void field_bool(const struct field *f, void *out)
{
	if (field_is(f, TREE_BOOL))
		*(bool *)out = strcmp(f->node->text, "true") == 0;
}

void field_string_map(const struct field *f, void *out)
{
	(void)out;
	if (!field_is(f, TREE_MAP))
		return;
	for (struct field value = field_first(f); value.node; field_next(&value))
		field_is(&value, TREE_STRING);
}

bool field_number(const struct field *f, uint64_t min, uint64_t max, uint64_t *ret)
{
	enum tree_kind kind = f->node->kind;

	if (kind == TREE_INT && num_parse_u64(f->node->text, min, max, ret) == 0)
		return true;
	if (kind == TREE_INT)
		field_error(f, "must be %" PRIu64 " to %" PRIu64 ", not %.80s", min, max,
			    f->node->text);
	else if (kind == TREE_NUMBER)
		field_error(f, "must be a whole decimal number, not %.80s", f->node->text);
	else
		field_error(f, "must be a number from %" PRIu64 " to %" PRIu64 ", not %s", min, max,
			    tree_kind_str(kind));
	return false;
}

bool field_enum(const struct field *f, const char *const *words, size_t n, unsigned *ret)
{
	char known[160] = "";
	size_t used = 0;

	if (!field_is(f, TREE_STRING))
		return false;
	for (size_t i = 0; i < n; i++) {
		int len = snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "",
				   words[i]);

		if (strcmp(f->node->text, words[i]) == 0) {
			*ret = (unsigned)i;
			return true;
		}
		used += len > 0 ? (size_t)len : 0;
		used = used < sizeof(known) ? used : sizeof(known) - 1;
	}
	field_error(f, "'%.80s' is none of %s", f->node->text, known);
	return false;
}

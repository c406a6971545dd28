/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/entries_read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"
#include "kube/kube_json.h"
#include "resource/tree.h"

const char entry_source[] = "kubernetes";

/* ---- jansson's values as a tree: there is no text, and so there are no lines ---- */

static int add_text(struct tree_builder *b, enum tree_kind kind, const char *text, size_t len)
{
	return tree_scalar(b, kind, text, len, 0, 0);
}

static int add_scalar(struct tree_builder *b, const json_t *value)
{
	char number[64];

	switch (json_typeof(value)) {
	case JSON_STRING:
		return add_text(b, TREE_STRING, json_string_value(value),
				json_string_length(value));
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
			 json_integer_value(value));
		return add_text(b, TREE_INT, number, strlen(number));
	case JSON_REAL:
		snprintf(number, sizeof(number), "%.17g", json_real_value(value));
		return add_text(b, TREE_NUMBER, number, strlen(number));
	case JSON_TRUE:
		return add_text(b, TREE_BOOL, "true", 4);
	case JSON_FALSE:
		return add_text(b, TREE_BOOL, "false", 5);
	case JSON_NULL:
		return add_text(b, TREE_NULL, "null", 4);
	case JSON_OBJECT:
	case JSON_ARRAY:
		break;
	}
	return -EINVAL; /* cannot be: add_value() handles these */
}

static int add_value(struct tree_builder *b, json_t *value);

static int add_member(struct tree_builder *b, const char *key, json_t *value)
{
	int r = tree_key(b, key, strlen(key), 0, 0);

	return r < 0 ? r : add_value(b, value);
}

static int add_object(struct tree_builder *b, json_t *object)
{
	const char *key;
	json_t *value;
	int r = tree_open(b, TREE_MAP, 0, 0);

	if (r < 0)
		return r;
	json_object_foreach(object, key, value)
	{
		r = add_member(b, key, value);
		if (r < 0)
			return r;
	}
	tree_close(b);
	return 0;
}

static int add_array(struct tree_builder *b, json_t *array)
{
	json_t *value;
	size_t i;
	int r = tree_open(b, TREE_LIST, 0, 0);

	if (r < 0)
		return r;
	json_array_foreach(array, i, value)
	{
		r = add_value(b, value);
		if (r < 0)
			return r;
	}
	tree_close(b);
	return 0;
}

/* Recursion ends at TREE_DEPTH_MAX, where tree_open() refuses. */
static int add_value(struct tree_builder *b, json_t *value)
{
	if (json_is_object(value))
		return add_object(b, value);
	if (json_is_array(value))
		return add_array(b, value);
	return add_scalar(b, value);
}

/* ---- what of an object is looked at ---- */

static int add_string(struct tree_builder *b, const char *key, const char *text)
{
	int r = tree_key(b, key, strlen(key), 0, 0);

	return r < 0 ? r : add_text(b, TREE_STRING, text, strlen(text));
}

/* Labels, annotations and managedFields are Kubernetes' own, and often most of the object. */
static int add_meta(struct tree_builder *b, const json_t *meta)
{
	static const char *const keys[] = {"name", "namespace", "creationTimestamp"};
	int r = tree_key(b, "metadata", 8, 0, 0);

	if (r == 0)
		r = tree_open(b, TREE_MAP, 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(keys) && r == 0; i++) {
		json_t *value = json_object_get(meta, keys[i]);

		if (value)
			r = add_member(b, keys[i], value);
	}
	if (r == 0)
		tree_close(b);
	return r;
}

static int build_tree(struct tree_builder *b, const json_t *object)
{
	json_t *spec = json_object_get(object, "spec");
	int r = tree_open(b, TREE_MAP, 0, 0);

	/* Which kind was asked for is known; items of a list do not always say it. */
	if (r == 0)
		r = add_string(b, "apiVersion", "networking.istio.io/v1");
	if (r == 0)
		r = add_string(b, "kind", "ServiceEntry");
	if (r == 0)
		r = add_meta(b, kube_json_meta(object));
	if (r == 0 && spec)
		r = add_member(b, "spec", spec);
	if (r == 0)
		tree_close(b);
	return r;
}

/* ---- judging ---- */

static void first_error(const struct report *report, char ret[static ENTRY_ERROR_MAX])
{
	const char *text = report->errors.text[0] ?: "out of memory";
	const char *object = strstr(text, ": "); /* behind the place, which says nothing here */

	if (report->errors.n > 1)
		snprintf(ret, ENTRY_ERROR_MAX, "%.980s (and %zu more)", object ? object + 2 : text,
			 report->errors.n - 1);
	else
		snprintf(ret, ENTRY_ERROR_MAX, "%s", object ? object + 2 : text);
}

static void reset(struct entry_reader *reader)
{
	struct decoded *d = &reader->decoded;

	arena_reset(&reader->tree);
	arena_reset(&d->keep);
	report_done(&d->report);
	d->n = 0;
}

int entry_read(struct entry_reader *reader, json_t *object, const struct service_entry **ret,
	       char ret_error[static ENTRY_ERROR_MAX])
{
	struct decoded *d = &reader->decoded;
	struct tree_builder b;
	int r;

	reset(reader);
	tree_begin(&b, &reader->tree);
	r = build_tree(&b, object);
	if (r < 0) {
		if (r == -EINVAL)
			snprintf(ret_error, ENTRY_ERROR_MAX, "ServiceEntry %.63s/%.253s: %s",
				 kube_json_ns(object), kube_json_name(object), b.error.text);
		return r;
	}
	decode_tree(d, entry_source, b.root);
	r = report_result(&d->report);
	if (r == -EINVAL)
		first_error(&d->report, ret_error);
	if (r < 0)
		return r;
	d->entries[0].source = entry_source;
	*ret = &d->entries[0];
	return 0;
}

void entry_reader_done(struct entry_reader *reader)
{
	arena_done(&reader->tree);
	decoded_done(&reader->decoded);
}

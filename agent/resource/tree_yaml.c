/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/owned.h"

#define ANCHORS_MAX 256

struct anchor {
	char *name;
	const struct tree *node;
};

struct tree_yaml {
	yaml_parser_t parser;
	struct span text;
	unsigned first_line;
	bool ended;
};

/* Of the document being read. */
struct document {
	const struct tree_yaml *yaml;
	struct tree_builder b;
	struct anchor anchors[ANCHORS_MAX];
	size_t n_anchors;
	char *pending[TREE_DEPTH_MAX]; /* anchor of each open list or map, or NULL */
};

/* ---- what a plain scalar means ---- */

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++) {
		if (text[0] == (*words)[0] && strcmp(text, *words) == 0)
			return true;
	}
	return false;
}

static bool is_null(const char *text)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};

	return is_one_of(text, nulls);
}

/* The words of goyaml v2, which Kubernetes' YAML goes through. */
static enum tree_kind word_kind(const char *text, const char **ret_text)
{
	static const char *const trues[] = {"true", "True", "TRUE", "yes", "Yes", "YES",
					    "on",   "On",   "ON",   "y",   "Y",   NULL};
	static const char *const falses[] = {"false", "False", "FALSE", "no", "No", "NO",
					     "off",   "Off",   "OFF",   "n",  "N",  NULL};

	if (strlen(text) > 5)
		return TREE_STRING;
	if (is_null(text))
		return TREE_NULL;
	if (is_one_of(text, trues)) {
		*ret_text = "true";
		return TREE_BOOL;
	}
	if (is_one_of(text, falses)) {
		*ret_text = "false";
		return TREE_BOOL;
	}
	return TREE_STRING;
}

static bool is_decimal(const char *text)
{
	if (*text == '-')
		text++;
	if (*text == '0')
		return text[1] == '\0';
	return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* Digits with at most one point, then an exponent: what some reader takes for a number. */
static bool is_float(const char *text)
{
	size_t digits, more = 0;

	digits = strspn(text, "0123456789_");
	text += digits;
	if (*text == '.') {
		more = strspn(text + 1, "0123456789_");
		text += 1 + more;
	}
	if (digits + more == 0)
		return false;
	if (*text == 'e' || *text == 'E') {
		text++;
		text += *text == '+' || *text == '-';
		digits = strspn(text, "0123456789");
		if (digits == 0)
			return false;
		text += digits;
	}
	return *text == '\0';
}

static bool is_based(const char *text, const char *prefix, const char *digits)
{
	size_t n = strlen(prefix);

	return strncasecmp(text, prefix, n) == 0 && text[n] != '\0' &&
	       text[n + strspn(text + n, digits)] == '\0';
}

static bool is_number(const char *text)
{
	text += *text == '-' || *text == '+';
	return is_float(text) || is_based(text, "0x", "0123456789abcdefABCDEF_") ||
	       is_based(text, "0o", "01234567_") || is_based(text, "0b", "01_") ||
	       strcasecmp(text, ".inf") == 0 || strcasecmp(text, ".nan") == 0;
}

static enum tree_kind plain_kind(const char *text, const char **ret_text)
{
	if (strchr("+-.0123456789", text[0]) && text[0] != '\0') {
		if (is_decimal(text))
			return TREE_INT;
		return is_number(text) ? TREE_NUMBER : TREE_STRING;
	}
	return word_kind(text, ret_text);
}

/* ---- events to nodes ---- */

static unsigned line_of(const struct document *doc, const yaml_event_t *event)
{
	return doc->yaml->first_line + (unsigned)event->start_mark.line;
}

static unsigned column_of(const yaml_event_t *event)
{
	return (unsigned)event->start_mark.column + 1;
}

static int refuse(struct document *doc, const yaml_event_t *event, const char *text)
{
	return tree_refuse(&doc->b, line_of(doc, event), column_of(event), "%s", text);
}

static bool expects_key(const struct document *doc)
{
	const struct tree_builder *b = &doc->b;

	return b->depth > 0 && b->open[b->depth - 1].node->kind == TREE_MAP && !b->key;
}

/* Aliases may name it from now on: not before it is complete, so nothing can hold itself. */
static int remember(struct document *doc, char *name, const struct tree *node)
{
	for (size_t i = 0; i < doc->n_anchors; i++) {
		if (strcmp(doc->anchors[i].name, name) == 0) {
			doc->anchors[i].node = node;
			return 0;
		}
	}
	if (doc->n_anchors == ANCHORS_MAX)
		return tree_refuse(&doc->b, node->line, node->column,
				   "more than %d anchors in one document", ANCHORS_MAX);
	doc->anchors[doc->n_anchors++] = (struct anchor){.name = name, .node = node};
	return 0;
}

static int dup_anchor(struct document *doc, const yaml_char_t *anchor, char **ret)
{
	const char *name = (const char *)anchor;

	*ret = NULL;
	if (!name)
		return 0;
	*ret = arena_dup(doc->b.mem, name, strlen(name));
	return *ret ? 0 : -ENOMEM;
}

static bool tag_is(const yaml_char_t *tag, const char *name)
{
	return !tag || strcmp((const char *)tag, "!") == 0 || strcmp((const char *)tag, name) == 0;
}

static int on_key(struct document *doc, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;

	if (event->data.scalar.anchor || !tag_is(event->data.scalar.tag, YAML_STR_TAG))
		return refuse(doc, event, "a key with an anchor or a tag: write it plainly");
	if (event->data.scalar.plain_implicit) {
		if (strcmp(text, "<<") == 0)
			return refuse(doc, event, "merge keys are not supported: write it out");
		if (is_null(text))
			return refuse(doc, event, "a key must not be null");
	}
	return tree_key(&doc->b, text, len, line_of(doc, event), column_of(event));
}

static int on_scalar(struct document *doc, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;
	enum tree_kind kind = TREE_STRING;
	char *anchor;
	int r;

	if (expects_key(doc))
		return on_key(doc, event);
	if (!tag_is(event->data.scalar.tag, YAML_STR_TAG))
		return refuse(doc, event, "tags are not supported");
	if (event->data.scalar.plain_implicit && !event->data.scalar.tag) {
		kind = plain_kind(text, &text);
		len = kind == TREE_BOOL ? strlen(text) : len;
	}

	r = dup_anchor(doc, event->data.scalar.anchor, &anchor);
	if (r < 0)
		return r;
	r = tree_scalar(&doc->b, kind, text, len, line_of(doc, event), column_of(event));
	if (r < 0 || !anchor)
		return r;
	return remember(doc, anchor,
			doc->b.depth > 0 ? doc->b.open[doc->b.depth - 1].last : doc->b.root);
}

static int on_open(struct document *doc, const yaml_event_t *event, enum tree_kind kind,
		   const yaml_char_t *tag, const yaml_char_t *anchor)
{
	char *name;
	int r;

	if (expects_key(doc))
		return refuse(doc, event, "a key must be a string");
	if (!tag_is(tag, kind == TREE_MAP ? YAML_MAP_TAG : YAML_SEQ_TAG))
		return refuse(doc, event, "tags are not supported");
	r = dup_anchor(doc, anchor, &name);
	if (r < 0)
		return r;
	r = tree_open(&doc->b, kind, line_of(doc, event), column_of(event));
	if (r < 0)
		return r;
	doc->pending[doc->b.depth - 1] = name;
	return 0;
}

static int on_close(struct document *doc)
{
	const struct tree *node = tree_close(&doc->b);
	char *name = doc->pending[doc->b.depth];

	return name ? remember(doc, name, node) : 0;
}

static int on_alias(struct document *doc, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;

	if (expects_key(doc))
		return refuse(doc, event, "a key must not be an alias");
	for (size_t i = 0; i < doc->n_anchors; i++) {
		if (strcmp(doc->anchors[i].name, name) == 0)
			return tree_again(&doc->b, doc->anchors[i].node, line_of(doc, event),
					  column_of(event));
	}
	return tree_refuse(&doc->b, line_of(doc, event), column_of(event),
			   "alias '*%.60s' names no anchor that is complete before it", name);
}

/* 1: the document is complete. */
static int on_event(struct document *doc, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return on_scalar(doc, event);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(doc, event, TREE_LIST, event->data.sequence_start.tag,
			       event->data.sequence_start.anchor);
	case YAML_MAPPING_START_EVENT:
		return on_open(doc, event, TREE_MAP, event->data.mapping_start.tag,
			       event->data.mapping_start.anchor);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return on_close(doc);
	case YAML_ALIAS_EVENT:
		return on_alias(doc, event);
	case YAML_DOCUMENT_END_EVENT:
		return 1;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_START_EVENT:
		break;
	}
	return 0;
}

/* Of what cannot be decoded libyaml knows the offset only. */
static yaml_mark_t mark_at(struct span text, size_t offset)
{
	yaml_mark_t mark = {0};

	for (size_t i = 0; i < offset && i < text.len; i++) {
		mark.column++;
		if (text.p[i] == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return mark;
}

/* libyaml's convention ends here. */
static int next_event(struct tree_yaml *yaml, struct tree_builder *b, yaml_event_t *ret)
{
	const yaml_parser_t *p = &yaml->parser;
	yaml_mark_t mark;

	if (yaml_parser_parse(&yaml->parser, ret))
		return 0;
	if (p->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	mark = p->error == YAML_READER_ERROR ? mark_at(yaml->text, p->problem_offset)
					     : p->problem_mark;
	return tree_refuse(b, yaml->first_line + (unsigned)mark.line, (unsigned)mark.column + 1,
			   "not valid YAML: %s%s%s", p->context ? p->context : "",
			   p->context ? ", " : "", p->problem ? p->problem : "unreadable");
}

/* Up to the next document. 0: there is none. */
static int next_document(struct tree_yaml *yaml, struct document *doc)
{
	while (!yaml->ended) {
		yaml_event_t event;
		yaml_event_type_t type;
		int r;

		r = next_event(yaml, &doc->b, &event);
		if (r < 0)
			return r;
		type = event.type;
		yaml_event_delete(&event);
		if (type == YAML_DOCUMENT_START_EVENT)
			return 1;
		yaml->ended = type == YAML_STREAM_END_EVENT;
	}
	return 0;
}

static int read_document(struct tree_yaml *yaml, struct document *doc)
{
	yaml_event_t event;
	int r = 0;

	while (r == 0) {
		r = next_event(yaml, &doc->b, &event);
		if (r < 0)
			return r;
		r = on_event(doc, &event);
		yaml_event_delete(&event);
	}
	return r;
}

int tree_yaml_next(struct tree_yaml *yaml, struct arena *mem, const struct tree **ret,
		   struct tree_error *ret_error)
{
	/* Not all zeroed: some 6 KiB of it are arrays, and documents are many and small. */
	struct document doc;
	int r;

	doc.yaml = yaml;
	doc.n_anchors = 0;
	tree_begin(&doc.b, mem);
	r = next_document(yaml, &doc);
	if (r > 0)
		r = read_document(yaml, &doc);
	if (r < 0)
		yaml->ended = true;
	if (r == -EINVAL)
		*ret_error = doc.b.error;
	if (r == 1)
		*ret = doc.b.root;
	return r;
}

int tree_yaml_open(struct tree_yaml **ret, struct span text, unsigned first_line)
{
	OWNED_MEM struct tree_yaml *yaml = calloc(1, sizeof(*yaml));

	if (!yaml || !yaml_parser_initialize(&yaml->parser))
		return -ENOMEM;
	yaml_parser_set_encoding(&yaml->parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&yaml->parser, text.len > 0 ? text.p : (const uint8_t *)"",
				     text.len);
	yaml->text = text;
	yaml->first_line = first_line;
	*ret = TAKE_PTR(yaml);
	return 0;
}

void tree_yaml_close(struct tree_yaml *yaml)
{
	if (!yaml)
		return;
	yaml_parser_delete(&yaml->parser);
	free(yaml);
}

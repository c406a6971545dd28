/* SPDX-License-Identifier: Apache-2.0 */
#include "install/json_text.h"

static bool is_one_of(uint8_t c, const char *set)
{
	return c != '\0' && strchr(set, c);
}

static void skip_space(struct span *in)
{
	struct span byte;

	while (in->len > 0 && is_one_of(in->p[0], " \t\r\n"))
		span_cut(in, 1, &byte);
}

/* Cuts one byte if it is one of `set`. */
static bool cut_mark(struct span *in, const char *set)
{
	struct span byte;

	skip_space(in);
	return in->len > 0 && is_one_of(in->p[0], set) && span_cut(in, 1, &byte);
}

/* With its quotes. */
static bool cut_string(struct span *in, struct span *ret)
{
	size_t n = 1;

	if (in->len == 0 || in->p[0] != '"')
		return false;
	while (n < in->len && in->p[n] != '"')
		n += in->p[n] == '\\' ? 2 : 1;
	return span_cut(in, n + 1, ret);
}

/* An object or an array, by its brackets. */
static bool cut_nested(struct span *in, struct span *ret)
{
	struct span rest = *in, piece;
	size_t depth = 0;

	do {
		if (rest.len == 0)
			return false;
		if (is_one_of(rest.p[0], "{["))
			depth++;
		if (is_one_of(rest.p[0], "}]"))
			depth--;
		if (rest.p[0] == '"' ? !cut_string(&rest, &piece) : !span_cut(&rest, 1, &piece))
			return false;
	} while (depth > 0);
	return span_cut(in, in->len - rest.len, ret);
}

static bool cut_value(struct span *in, struct span *ret)
{
	size_t n = 0;

	skip_space(in);
	if (in->len > 0 && in->p[0] == '"')
		return cut_string(in, ret);
	if (in->len > 0 && is_one_of(in->p[0], "{["))
		return cut_nested(in, ret);
	while (n < in->len && !is_one_of(in->p[n], ",]} \t\r\n"))
		n++;
	return n > 0 && span_cut(in, n, ret);
}

bool json_text_item(struct span *rest, struct span *ret)
{
	return cut_mark(rest, "[,") && cut_value(rest, ret);
}

static bool is_named(struct span key, const char *name)
{
	size_t n = strlen(name);

	return key.len == n + 2 && memcmp(key.p + 1, name, n) == 0;
}

bool json_text_member(struct span object, const char *name, struct span *ret)
{
	struct span key, value;
	bool found = false;

	while (cut_mark(&object, "{,")) {
		skip_space(&object);
		if (!cut_string(&object, &key) || !cut_mark(&object, ":") ||
		    !cut_value(&object, &value))
			break;
		if (!is_named(key, name))
			continue;
		*ret = value;
		found = true;
	}
	return found;
}

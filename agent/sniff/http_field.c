/* SPDX-License-Identifier: Apache-2.0 */
#include "sniff/http_field.h"

#define ALL (HTTP_TOKEN | HTTP_TEXT | HTTP_TARGET)
#define VIS (HTTP_TEXT | HTTP_TARGET)

const uint8_t http_class[256] = {
	['\t'] = HTTP_TEXT,
	[' '] = HTTP_TEXT,
	['!'] = ALL,
	['"'] = VIS,
	['#'] = HTTP_TOKEN | HTTP_TEXT,
	['$' ... '\''] = ALL,
	['(' ... ')'] = VIS,
	['*' ... '+'] = ALL,
	[','] = VIS,
	['-' ... '.'] = ALL,
	['/'] = VIS,
	['0' ... '9'] = ALL,
	[':' ... '@'] = VIS,
	['A' ... 'Z'] = ALL,
	['[' ... ']'] = VIS,
	['^' ... 'z'] = ALL,
	['{'] = VIS,
	['|'] = ALL,
	['}'] = VIS,
	['~'] = ALL,
	[0x80 ... 0xff] = HTTP_TEXT,
};

size_t http_span(struct span in, uint8_t class)
{
	size_t n = 0;

	while (n < in.len && http_class[in.p[n]] & class)
		n++;
	return n;
}

enum sniff http_line_cut(struct span *in, struct span *ret_line)
{
	const uint8_t *lf = in->len > 0 ? memchr(in->p, '\n', in->len) : NULL;
	struct span crlf;

	if (!lf)
		return SNIFF_NEED_MORE;
	if (lf == in->p || lf[-1] != '\r')
		return SNIFF_BAD;
	span_cut(in, (size_t)(lf - in->p) - 1, ret_line);
	span_cut(in, 2, &crlf);
	return SNIFF_FOUND;
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\t';
}

static struct span trim(struct span text)
{
	struct span blank;

	while (text.len > 0 && is_blank(text.p[0]))
		span_cut(&text, 1, &blank);
	while (text.len > 0 && is_blank(text.p[text.len - 1]))
		text.len--;
	return text;
}

const char *http_field_parse(struct span line, struct http_field *ret)
{
	struct http_field field;
	struct span rest = line, colon;

	if (line.len > 0 && is_blank(line.p[0]))
		return "folded header line";
	span_cut(&rest, http_span(rest, HTTP_TOKEN), &field.name);
	if (!span_cut(&rest, 1, &colon))
		return "header line without colon";
	if (is_blank(colon.p[0]))
		return "space in or after a header name";
	if (colon.p[0] != ':' || field.name.len == 0)
		return "header name is no token";
	if (http_span(rest, HTTP_TEXT) != rest.len)
		return "control character in a header";
	field.value = trim(rest);
	*ret = field;
	return NULL;
}

bool http_list_next(struct span *list, struct span *ret)
{
	while (list->len > 0) {
		const uint8_t *comma = memchr(list->p, ',', list->len);
		struct span element, skipped;

		span_cut(list, comma ? (size_t)(comma - list->p) : list->len, &element);
		if (comma)
			span_cut(list, 1, &skipped);
		element = trim(element);
		if (element.len > 0) {
			*ret = element;
			return true;
		}
	}
	return false;
}

bool http_number(struct span text, uint64_t *ret)
{
	uint64_t n = 0;

	if (text.len == 0)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return false;
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, text.p[i] - '0', &n) || n > INT64_MAX)
			return false;
	}
	*ret = n;
	return true;
}

static const char *add_length(struct http_framing *f, struct span value)
{
	if (f->has_length)
		return "Content-Length twice";
	if (!http_number(value, &f->length))
		return "Content-Length is no number";
	f->has_length = true;
	return NULL;
}

static bool mentions_chunked(struct span value)
{
	static const char word[] = "chunked";

	for (; value.len >= sizeof(word) - 1; value.p++, value.len--) {
		if (span_equal_nocase((struct span){value.p, sizeof(word) - 1}, word))
			return true;
	}
	return false;
}

static const char *add_coding(struct http_framing *f, struct span value)
{
	if (f->coding != HTTP_CODING_NONE)
		return "Transfer-Encoding twice";
	if (http_is(value, "chunked"))
		f->coding = HTTP_CODING_CHUNKED;
	else if (value.len == 0 || mentions_chunked(value)) /* each server reads it its own way */
		return "Transfer-Encoding other than chunked";
	else
		f->coding = HTTP_CODING_OTHER;
	return NULL;
}

static const char *add_connection(struct http_framing *f, struct span value)
{
	struct span option;

	while (http_list_next(&value, &option)) {
		if (http_is(option, "close"))
			f->close = true;
		else if (http_is(option, "keep-alive"))
			f->keep_alive = true;
		else if (http_is(option, "upgrade"))
			f->upgrade = true;
		else if (http_is(option, "host") || http_is(option, "content-length") ||
			 http_is(option, "transfer-encoding"))
			return "Connection names a header that must stay"; /* RFC 9110 7.6.1 */
	}
	return NULL;
}

const char *http_framing_add(struct http_framing *f, const struct http_field *field)
{
	if (http_is(field->name, "content-length"))
		return add_length(f, field->value);
	if (http_is(field->name, "transfer-encoding"))
		return add_coding(f, field->value);
	if (http_is(field->name, "connection"))
		return add_connection(f, field->value);
	return NULL;
}

const char *http_framing_check(const struct http_framing *f, int minor)
{
	if (f->coding != HTTP_CODING_NONE && f->has_length)
		return "Content-Length with Transfer-Encoding";
	if (f->coding != HTTP_CODING_NONE && minor == 0)
		return "Transfer-Encoding in HTTP/1.0"; /* RFC 9112 6.1: framing is faulty */
	return NULL;
}

bool http_framing_keep_alive(const struct http_framing *f, int minor)
{
	return !f->close && (minor > 0 || f->keep_alive);
}

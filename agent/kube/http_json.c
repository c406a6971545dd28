/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/http_json.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "admin/utf8.h"

#define DIGITS_MAX 18 /* any number of so many digits fits into 64 bits */

/* -1: it is no "\uXXXX". */
static int code_unit(const char *p, const char *end)
{
	int n = 0;

	if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++) {
		int c = tolower((unsigned char)p[i]);

		if (!isxdigit(c))
			return -1;
		n = n * 16 + (isdigit(c) ? c - '0' : c - 'a' + 10);
	}
	return n;
}

/* From the backslash to behind the escape, or to the end. */
static char *blunt_escape(char *p, const char *end)
{
	int unit = code_unit(p, end), next = unit < 0 ? -1 : code_unit(p + 6, end);

	if (unit < 0)
		return end - p < 2 ? p + 1 : p + 2;
	if (unit >= 0xd800 && unit < 0xdc00 && next >= 0xdc00 && next < 0xe000)
		return p + 12;
	if (unit == 0 || (unit >= 0xd800 && unit < 0xe000))
		memcpy(p + 2, "fffd", 4);
	return p + 6;
}

/* From the opening quote to behind the closing one, or to the end. */
static char *blunt_string(char *p, const char *end)
{
	for (p++; p < end && *p != '"';) {
		size_t step = utf8_step((const uint8_t *)p, (size_t)(end - p));

		if (step == 0)
			*p = '?';
		p = *p == '\\' ? blunt_escape(p, end) : p + (step > 0 ? step : 1);
	}
	return p < end ? p + 1 : p;
}

static char *skip_digits(char *p, const char *end)
{
	while (p < end && isdigit((unsigned char)*p))
		p++;
	return p;
}

/* Behind fraction and exponent, where there are any. */
static char *skip_real(char *p, const char *end)
{
	if (p < end && *p == '.')
		p = skip_digits(p + 1, end);
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = skip_digits(p, end);
	}
	return p;
}

/* From a digit or sign to behind the number. One that is too large, or an integer too long to be
 * sure of, becomes " 9e99": not grown together with what stands before it.
 */
static char *blunt_number(char *p, const char *end)
{
	char *start = p, *after;
	bool fits;

	p = skip_digits(p + 1, end);
	fits = p - start <= DIGITS_MAX;
	after = skip_real(p, end);
	if (after > p)
		fits = !isinf(strtod(start, NULL));
	if (!fits) { /* so it has room for that */
		memset(start, ' ', (size_t)(after - start));
		memcpy(start, " 9e99", 5);
	}
	return after;
}

/* From an opening bracket to behind its closing one, or to the end. */
static char *blunt_nest(char *p, const char *end)
{
	char *start = p;
	size_t depth = 0;

	while (p < end) {
		char c = *p;

		if (c == '"') {
			p = blunt_string(p, end);
			continue;
		}
		p++;
		if (c == '{' || c == '[')
			depth++;
		if ((c == '}' || c == ']') && --depth == 0)
			break;
	}
	memset(start, ' ', (size_t)(p - start));
	*start = '0';
	return p;
}

static void blunt(char *p, const char *end)
{
	size_t depth = 0;

	while (p < end) {
		char c = *p;

		if (c == '"') {
			p = blunt_string(p, end);
		} else if (isdigit((unsigned char)c) || c == '-') {
			p = blunt_number(p, end);
		} else if ((c == '{' || c == '[') && depth == HTTP_JSON_DEPTH) {
			p = blunt_nest(p, end);
		} else {
			depth += c == '{' || c == '[' ? 1 : 0;
			depth -= (c == '}' || c == ']') && depth > 0 ? 1 : 0;
			p++;
		}
	}
}

json_t *http_json_read(char *text, size_t len, json_error_t *ret_error)
{
	json_t *json = json_loadb(text, len, 0, ret_error);

	if (json)
		return json;
	switch (json_error_code(ret_error)) {
	case json_error_numeric_overflow:
	case json_error_null_character:
	case json_error_null_byte_in_key:
	case json_error_stack_overflow:
	case json_error_invalid_utf8:
	case json_error_invalid_syntax: /* half a surrogate pair is among it */
		blunt(text, text + len);
		return json_loadb(text, len, 0, ret_error);
	default:
		return NULL;
	}
}

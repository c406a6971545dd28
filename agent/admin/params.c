/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/params.h"

#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* In place, form encoding ('+' is a space). False for a bad escape, and for a NUL, which would hide
 * what follows it.
 */
static bool percent_decode(char *text)
{
	char *to = text;

	for (const char *p = text; *p; p++) {
		int high, low;

		if (*p != '%') {
			*to++ = *p == '+' ? ' ' : *p;
			continue;
		}
		high = hex_digit(p[1]);
		low = high >= 0 ? hex_digit(p[2]) : -1;
		if (low < 0 || (high == 0 && low == 0))
			return false;
		*to++ = (char)(high << 4 | low);
		p += 2;
	}
	*to = '\0';
	return true;
}

bool params_parse(char *query, struct params *ret)
{
	char *rest = query, *pair;

	ret->n = 0;
	while ((pair = strsep(&rest, "&"))) {
		char *value = pair, *name = strsep(&value, "=");

		if (*name == '\0' && !value)
			continue;
		if (ret->n == PARAMS_MAX)
			return false;
		if (!percent_decode(name) || (value && !percent_decode(value)))
			return false;
		ret->list[ret->n++] = (struct param){name, value ?: ""};
	}
	return true;
}

const char *params_find(const struct params *params, const char *name)
{
	for (size_t i = 0; i < params->n; i++) {
		if (strcmp(params->list[i].name, name) == 0)
			return params->list[i].value;
	}
	return NULL;
}

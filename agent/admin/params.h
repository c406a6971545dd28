/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The query of a URL: "target=a.io%3A443&pod=ns/x". Pure. */
#include <stdbool.h>
#include <stddef.h>

#define PARAMS_MAX 16

struct param {
	const char *name, *value; /* value is "" when there is no '=' */
};

struct params {
	size_t n;
	struct param list[PARAMS_MAX];
};

/* Cuts and decodes `query` in place; *ret points into it. False for a bad escape, an escaped NUL or
 * more than PARAMS_MAX of them.
 */
bool params_parse(char *query, struct params *ret);

/* The first of that name; NULL when there is none. */
const char *params_find(const struct params *params, const char *name);

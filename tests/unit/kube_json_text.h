/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Objects of the API as text in the tests: with ' for ". Aborts when it is no JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline json_t *json_of(const char *text)
{
	char *copy = strdup(text);
	json_error_t error;
	json_t *json;

	for (char *p = copy; p && *p; p++) {
		if (*p == '\'')
			*p = '"';
	}
	json = copy ? json_loads(copy, 0, &error) : NULL;
	if (!json) {
		fprintf(stderr, "bad JSON in the test: '%s'\n", text);
		abort();
	}
	free(copy);
	return json;
}

static inline void free_json(json_t **json)
{
	json_decref(*json);
}

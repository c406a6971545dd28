/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as the answer of an API server, into whose objects others write: what jansson reads is
 * read as it is, and what it does not read is not because of something in one object.
 */
#include <string.h>

#include "base/owned.h"
#include "fuzz.h"
#include "kube/http_json.h"
#include "kube/http_text.h"

static void free_json(json_t **json)
{
	json_decref(*json);
}

static bool is_of_one_object(const json_error_t *error)
{
	enum json_error_code code = json_error_code(error);

	return code == json_error_numeric_overflow || code == json_error_null_character ||
	       code == json_error_null_byte_in_key || code == json_error_stack_overflow ||
	       (code == json_error_invalid_syntax &&
		strncmp(error->text, "invalid Unicode", 15) == 0);
}

static void read_json(const char *line, size_t len)
{
	OWNED(free_json) json_t *plain = NULL, *json = NULL;
	OWNED_MEM char *text = malloc(len + 1);
	json_error_t error;

	REQUIRE(text);
	memcpy(text, line, len);
	text[len] = '\0';
	plain = json_loadb(line, len, 0, &error);
	json = http_json_read(text, len, &error);
	if (plain) {
		REQUIRE(json && json_equal(plain, json));
		REQUIRE(memcmp(text, line, len) == 0);
	} else if (!json) {
		REQUIRE(!is_of_one_object(&error));
	}
}

/* The first byte says into which pieces the rest is cut: the lines are the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OWNED(http_text_done) struct http_text text = {0};
	const char *p = (const char *)data + 1, *end = (const char *)data + size, *next = p;
	size_t step = size > 0 ? data[0] + 1U : 1, len;
	char *line;

	while (size > 0 && p < end) {
		size_t n = (size_t)(end - p) < step ? (size_t)(end - p) : step;

		REQUIRE(http_text_add(&text, p, n, size) == 0);
		p += n;
		while (http_text_line(&text, &line, &len)) {
			REQUIRE(memcmp(line, next, len) == 0 && next[len] == '\n');
			next += len + 1;
			read_json(line, len);
		}
	}
	line = http_text_rest(&text, &len);
	REQUIRE(size == 0 || next + len == end);
	if (len > 0)
		read_json(line, len);
	return 0;
}

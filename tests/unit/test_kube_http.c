/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/owned.h"
#include "kube/http_json.h"
#include "kube/http_text.h"

/* ---- lines ---- */

/* What has come out so far, lines in brackets. */
static void take_lines(struct http_text *text, char *out)
{
	size_t len;
	char *line;

	while (http_text_line(text, &line, &len)) {
		assert_int_equal(strlen(line), len);
		sprintf(out + strlen(out), "[%s]", line);
	}
}

static void test_lines(void **state)
{
	static const char *const cases[][3] = {
		{"", "", ""},
		{"a", "", "a"},
		{"a\n", "[a]", ""},
		{"\n\na", "[][]", "a"},
		{"a\nbc\ndef\ngh", "[a][bc][def]", "gh"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* However it is cut. */
		for (size_t step = 1; step <= strlen(cases[i][0]) + 1; step++) {
			OWNED(http_text_done) struct http_text text = {0};
			const char *p = cases[i][0];
			char out[100] = "";
			size_t left = strlen(p), len;

			while (left > 0) {
				size_t n = left < step ? left : step;

				assert_int_equal(http_text_add(&text, p, n, 100), 0);
				take_lines(&text, out);
				p += n;
				left -= n;
			}
			assert_string_equal(out, cases[i][1]);
			assert_string_equal(http_text_rest(&text, &len) ?: "", cases[i][2]);
			assert_int_equal(len, strlen(cases[i][2]));
		}
	}
}

static void test_what_is_unread_has_a_limit(void **state)
{
	OWNED(http_text_done) struct http_text text = {0};
	char *line;
	size_t len;

	(void)state;
	assert_int_equal(http_text_add(&text, "0123456789", 10, 9), -EMSGSIZE);
	assert_int_equal(http_text_add(&text, "0123\n56", 7, 9), 0);
	assert_int_equal(http_text_add(&text, "abc", 3, 9), -EMSGSIZE);
	assert_true(http_text_line(&text, &line, &len));
	assert_int_equal(http_text_add(&text, "abcdefg", 7, 9), 0);
	assert_int_equal(http_text_add(&text, "h", 1, 9), -EMSGSIZE);
	assert_string_equal(http_text_rest(&text, &len), "56abcdefg");
}

static void test_memory_is_given_back(void **state)
{
	OWNED(http_text_done) struct http_text text = {0};
	OWNED_MEM char *big = malloc(1000000);
	char *line;
	size_t len;

	(void)state;
	memset(big, 'x', 1000000);
	big[999999] = '\n';
	assert_int_equal(http_text_add(&text, big, 1000000, 2000000), 0);
	assert_true(http_text_line(&text, &line, &len));
	assert_int_equal(len, 999999);
	assert_int_equal(http_text_add(&text, "a", 1, 2000000), 0);
	assert_true(text.room < 10000);
}

/* ---- JSON ---- */

static void check_json(const char *in, const char *want)
{
	OWNED_MEM char *text = strdup(in), *out = NULL;
	json_error_t error;
	json_t *json = http_json_read(text, strlen(text), &error);

	out = json ? json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII) : strdup("none");
	if (strcmp(out, want) != 0)
		print_error("%.200s\n", in);
	assert_string_equal(out, want);
	json_decref(json);
}

static void test_json(void **state)
{
	static const char *const cases[][2] = {
		{"{}", "{}"},
		{"", "none"},
		{"{", "none"},
		{"{}}", "none"},
		{"5", "none"},
		/* Numbers: those that fit stay as they are beside one that does not. */
		{"[9223372036854775807,-9223372036854775808]",
		 "[9223372036854775807,-9223372036854775808]"},
		{"[99999999999999999999,443,-5,1.5,1.25e10]", "[8.9999999999999999e99,443,-5,1.5,"
							      "12500000000.0]"},
		{"[-99999999999999999999]", "[8.9999999999999999e99]"},
		{"[99999999999999999999,\"99999999999999999999\"]",
		 "[8.9999999999999999e99,\"99999999999999999999\"]"},
		{"[99999999999999999999,0.50000000000000000000]", "[8.9999999999999999e99,0.5]"},
		{"[99999999999999999999", "none"},
		{"[1e309,-2.5E+999,1e308]", "[8.9999999999999999e99,8.9999999999999999e99,1e308]"},
		/* NUL: neither what only looks like one, nor what ends early. */
		{"[\"a\\u0000b\"]", "[\"a\\uFFFDb\"]"},
		{"{\"\\u0000\":1}", "{\"\\uFFFD\":1}"},
		{"[\"\\u0000\",\"\\\\u0000\",\"\\\\\\u0000\"]",
		 "[\"\\uFFFD\",\"\\\\u0000\",\"\\\\\\uFFFD\"]"},
		{"[\"\\u0000\",\"\\\"\",\"[[[\"]", "[\"\\uFFFD\",\"\\\"\",\"[[[\"]"},
		{"[\"\\ud800\"]", "[\"\\uFFFD\"]"},
		{"{\"\\uD83d\\uDe00\\udE00\":\"\\uDBFFx\\ud800\\n\"}",
		 "{\"\\uD83D\\uDE00\\uFFFD\":\"\\uFFFDx\\uFFFD\\n\"}"},
		{"[\"a\xff\xc3\xa9\xed\xa0\x80\"]", "[\"a?\\u00E9???\"]"},
		{"[\"\\ud800\\", "none"},
		{"[\"\\ud8", "none"},
		{"[\"\\u0000", "none"},
		{"[\"\\u0000\\", "none"},
		{"[99999999999999999999,\"\\u00", "none"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_json(cases[i][0], cases[i][1]);
}

/* "[[[...]]]", `depth` of them, with `inside` in the middle. */
static char *nest(char *p, size_t depth, const char *inside)
{
	memset(p, '[', depth);
	p += depth;
	p = stpcpy(p, inside);
	memset(p, ']', depth);
	p[depth] = '\0';
	return p + depth;
}

static void test_depth(void **state)
{
	static char text[100000], want[10000];
	char *p = stpcpy(text, "[1,");

	(void)state;
	/* As deep as jansson takes it: left alone. */
	p = nest(p, 2000, "7");
	strcpy(p, "]");
	check_json(text, text);

	/* Too deep: the innermost ones are gone, what stands beside them is not. */
	p = stpcpy(text, "[1,");
	p = nest(p, 5000, "\"]]]\"");
	strcpy(p, ",2]");
	p = stpcpy(want, "[1,");
	p = nest(p, HTTP_JSON_DEPTH - 1, "0");
	strcpy(p, ",2]");
	check_json(text, want);

	/* Never closed. */
	memset(text, '[', 50000);
	text[50000] = '\0';
	check_json(text, "none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_what_is_unread_has_a_limit),
		cmocka_unit_test(test_memory_is_given_back),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

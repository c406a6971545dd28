/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/owned.h"
#include "resource/tree.h"

/* Prints a tree like "{a:[i1 s:x]}" so that one string says all of its shape. */
static void print_tree(const struct tree *node, FILE *out)
{
	static const char kinds[] = {[TREE_NULL] = 'n',
				     [TREE_BOOL] = 'b',
				     [TREE_INT] = 'i',
				     [TREE_NUMBER] = 'f',
				     [TREE_STRING] = 's'};

	if (node->kind != TREE_MAP && node->kind != TREE_LIST) {
		fprintf(out, "%c:%s", kinds[node->kind], node->text);
		return;
	}
	fputc(node->kind == TREE_MAP ? '{' : '[', out);
	for (const struct tree *child = node->child; child; child = child->next) {
		if (child != node->child)
			fputc(' ', out);
		if (child->key)
			fprintf(out, "%s=", child->key);
		print_tree(child, out);
	}
	fputc(node->kind == TREE_MAP ? '}' : ']', out);
}

static void print_result(int r, const struct tree *root, const struct tree_error *error, FILE *out)
{
	if (r == -EINVAL)
		fprintf(out, "ERROR %u:%u %s", error->line, error->column, error->text);
	else if (r < 0)
		fprintf(out, "r=%d", r);
	else
		print_tree(root, out);
}

static void print_yaml(const char *text, size_t len, FILE *out)
{
	OWNED(arena_done) struct arena mem = {0};
	struct tree_yaml *yaml;
	struct tree_error error;
	const struct tree *root;
	int r;

	assert_int_equal(tree_yaml_open(&yaml, (struct span){(const uint8_t *)text, len}, 1), 0);
	for (int n = 0;; n++) {
		r = tree_yaml_next(yaml, &mem, &root, &error);
		if (r == 0)
			break;
		if (n > 0)
			fputs(" | ", out);
		print_result(r, root, &error, out);
		if (r < 0)
			break;
	}
	tree_yaml_close(yaml);
}

static void print_json(const char *text, size_t len, FILE *out)
{
	OWNED(arena_done) struct arena mem = {0};
	struct tree_error error;
	const struct tree *root = NULL;
	int r;

	r = tree_json_read((struct span){(const uint8_t *)text, len}, &mem, &root, &error);
	print_result(r, root, &error, out);
}

struct text_case {
	const char *text, *want; /* "ERROR ..." by its beginning */
};

static void check_text(const struct text_case *c, void (*print)(const char *, size_t, FILE *))
{
	char got[4096] = "";
	FILE *out = fmemopen(got, sizeof(got), "w");

	print(c->text, strlen(c->text), out);
	fclose(out);
	if (strstr(c->want, "ERROR") ? strncmp(got, c->want, strlen(c->want)) != 0
				     : strcmp(got, c->want) != 0)
		fail_msg("'%s':\n got  %s\n want %s", c->text, got, c->want);
}

static void test_yaml(void **state)
{
	static const struct text_case cases[] = {
		{"", ""},
		{"a: 1", "{a=i:1}"},
		{"[a, 'b', \"c\"]", "[s:a s:b s:c]"},
		{"a:\n- b\n- c: d\n", "{a=[s:b {c=s:d}]}"},
		{"--- a\n--- b\n", "s:a | s:b"},
		{"---\n---\na: b\n", "n: | {a=s:b}"},
		{"a: 1\n...\n---\nb: 2\n", "{a=i:1} | {b=i:2}"},
		/* scalars, as goyaml v2 takes them */
		{"[true, True, yes, on, y]", "[b:true b:true b:true b:true b:true]"},
		{"[false, FALSE, no, Off, N]", "[b:false b:false b:false b:false b:false]"},
		{"[null, ~, Null, ]", "[n:null n:~ n:Null]"},
		{"['true', \"on\", '1', '']", "[s:true s:on s:1 s:]"},
		{"[0, 7, -3, 443, 99999999999999999999]",
		 "[i:0 i:7 i:-3 i:443 i:99999999999999999999]"},
		{"[0443, 0x1bb, 0o17, 0b11, 1_000, +1]",
		 "[f:0443 f:0x1bb f:0o17 f:0b11 f:1_000 f:+1]"},
		{"[1.5, .5, 1., 1e3, -.inf, .NaN, 1.5e-3]",
		 "[f:1.5 f:.5 f:1. f:1e3 f:-.inf f:.NaN f:1.5e-3]"},
		{"[1.2.3.4, 10.0.0.0/8, 1e, 0x, '-', 12ab, 2024-05-01T10:00:00Z]",
		 "[s:1.2.3.4 s:10.0.0.0/8 s:1e s:0x s:- s:12ab s:2024-05-01T10:00:00Z]"},
		{"[.example, +a, -a, ., 5s]", "[s:.example s:+a s:-a s:. s:5s]"},
		{"!!str 123", "s:123"},
		{"[!!str true, ! 5]", "[s:true s:5]"},
		{"a: |\n  x\n  y\n", "{a=s:x\ny\n}"},
		{"on: 1\n7777: 2", "{on=i:1 7777=i:2}"},
		/* aliases */
		{"a: &x [1]\nb: *x", "{a=[i:1] b=[i:1]}"},
		{"- &x a\n- &x b\n- *x", "[s:a s:b s:b]"},
		{"&x {a: 1}", "{a=i:1}"},
		{"a: &x [*x]", "ERROR 1:8 alias '*x' names no anchor"},
		{"a: *x", "ERROR 1:4 alias '*x' names no anchor"},
		{"--- &x a\n--- *x\n", "s:a | ERROR 2:5 alias"},
		/* refusals */
		{"a: 1\nb: 2\na: 3", "ERROR 3:1 key 'a' appears twice, first in line 1"},
		{"a: {b: 1, b: 2}", "ERROR 1:11 key 'b' appears twice"},
		{"'a': 1\n\"a\": 3", "ERROR 2:1 key 'a' appears twice"},
		{"? [a]\n: b", "ERROR 1:3 a key must be a string"},
		{"~: b", "ERROR 1:1 a key must not be null"},
		{"a: &x {b: 1}\nc: {<<: *x}", "ERROR 2:5 merge keys are not supported"},
		{"&k a: 1", "ERROR 1:1 a key with an anchor"},
		{"a: !!binary aGk=", "ERROR 1:4 tags are not supported"},
		{"a: !foo {}", "ERROR 1:4 tags are not supported"},
		{"a: \"x\\0y\"", "ERROR 1:4 a string holds a NUL byte"},
		{"\"x\\0y\": 1", "ERROR 1:1 a key holds a NUL byte"},
		{"a: [1", "ERROR 2:1 not valid YAML: while parsing a flow sequence"},
		{"a: b: c", "ERROR 1:5 not valid YAML: mapping values are not allowed"},
		{"a:\n\t- b", "ERROR 2:1 not valid YAML"},
		{"a: \x80", "ERROR 1:4 not valid YAML"},
		{"a: \x01", "ERROR 1:4 not valid YAML"},
		{"\xff\xfe"
		 "a",
		 "ERROR 1:1 not valid YAML"},
		{"%YAML 3.0\n---\na", "ERROR 1:1 not valid YAML"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_text(&cases[i], print_yaml);
}

static void test_json(void **state)
{
	static const struct text_case cases[] = {
		{"{}", "{}"},
		{"[]", "[]"},
		{" {\"a\" : [ 1 , true,false ,null,-2.5e3,\"x\" , { } , [ ] ] } ",
		 "{a=[i:1 b:true b:false n:null f:-2.5e3 s:x {} []]}"},
		{"\"on\"", "s:on"},
		{"\"a\\\"b\\\\\"", "s:a\"b\\"},
		{"\"\\ud83d\\ude00\"", "s:\xf0\x9f\x98\x80"},
		{"{\"b\":{\"c\":1},\"a\":2}", "{b={c=i:1} a=i:2}"},
		{"", "ERROR 1:1 not valid JSON"},
		{"{\"a\":1,}", "ERROR 1:8 not valid JSON"},
		{"{a:1}", "ERROR 1:2 not valid JSON"},
		{"{\"a\":1} x", "ERROR 1:9 not valid JSON"},
		{"{\"a\":1,\n \"a\":2}", "ERROR 2:4 not valid JSON: duplicate object key"},
		{"[1, # no\n2]", "ERROR 1:5 not valid JSON"},
		{"\"\\u0000\"", "ERROR 1:8 not valid JSON"},
		{"01", "ERROR 1:1 not valid JSON"},
		{"\"\xff\"", "ERROR 1:1 not valid JSON"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_text(&cases[i], print_json);
}

/* Where each piece stood: line, column and line of the key. */
static void check_place(const struct tree *node, unsigned line, unsigned column, unsigned key_line)
{
	assert_non_null(node);
	assert_int_equal(node->line, line);
	assert_int_equal(node->column, column);
	assert_int_equal(node->key_line, key_line);
}

static void check_places(const struct tree *root)
{
	const struct tree *a = tree_get(root, "a");

	check_place(root, 1, 1, 0);
	check_place(a, 2, 7, 2);
	check_place(tree_at(a, 0), 2, 8, 0);
	check_place(tree_at(a, 1), 3, 2, 0);
	check_place(tree_get(tree_at(a, 1), "b"), 4, 5, 3);
	check_place(tree_get(root, "c"), 5, 10, 5);
	assert_null(tree_get(root, "d"));
	assert_null(tree_get(a, "a"));
	assert_null(tree_at(a, 2));
	assert_null(tree_get(NULL, "a"));
}

static void test_places(void **state)
{
	/* Good JSON, and as YAML the same. */
	static const char text[] = "{\n \"a\": [\"x\\\"y\",\n {\"b\":\n    7}],\n    \"c\": 1}\n";
	struct span span = {(const uint8_t *)text, sizeof(text) - 1};
	OWNED(arena_done) struct arena mem = {0};
	struct tree_yaml *yaml;
	struct tree_error error;
	const struct tree *root;

	(void)state;
	assert_int_equal(tree_json_read(span, &mem, &root, &error), 0);
	check_places(root);
	assert_int_equal(tree_yaml_open(&yaml, span, 1), 0);
	assert_int_equal(tree_yaml_next(yaml, &mem, &root, &error), 1);
	check_places(root);
	tree_yaml_close(yaml);

	assert_int_equal(tree_yaml_open(&yaml, span_of("x: 1"), 100), 0);
	assert_int_equal(tree_yaml_next(yaml, &mem, &root, &error), 1);
	check_place(tree_get(root, "x"), 100, 4, 100);
	tree_yaml_close(yaml);
}

/* ---- limits ---- */

static void check_error(const char *text, size_t len, void (*print)(const char *, size_t, FILE *),
			const char *want)
{
	char got[512] = "";
	FILE *out = fmemopen(got, sizeof(got), "w");

	print(text, len, out);
	fclose(out);
	if (!strstr(got, want))
		fail_msg("got '%s', want '%s'", got, want);
}

static void test_depth(void **state)
{
	char text[2 * TREE_DEPTH_MAX + 2];

	(void)state;
	memset(text, '[', TREE_DEPTH_MAX);
	memset(text + TREE_DEPTH_MAX, ']', TREE_DEPTH_MAX);
	check_error(text, 2 * TREE_DEPTH_MAX, print_yaml, "[[[[");
	check_error(text, 2 * TREE_DEPTH_MAX, print_json, "[[[[");

	memset(text, '[', TREE_DEPTH_MAX + 1);
	memset(text + TREE_DEPTH_MAX + 1, ']', TREE_DEPTH_MAX + 1);
	check_error(text, sizeof(text), print_yaml, "ERROR 1:65 nested more than 64 levels deep");
	check_error(text, sizeof(text), print_json, "ERROR 1:65 nested more than 64 levels deep");
}

/* An alias is as deep as what it stands for. */
static void test_alias_depth(void **state)
{
	char text[4096];
	size_t n = (size_t)snprintf(text, sizeof(text), "- &a0 []\n");

	(void)state;
	for (int i = 1; i < TREE_DEPTH_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "- &a%d [*a%d]\n", i, i - 1);
	check_error(text, n, print_yaml, "ERROR 64:9 nested more than 64 levels deep");
}

static void test_billion_laughs(void **state)
{
	char text[4096];
	size_t n = (size_t)snprintf(text, sizeof(text), "- &a0 [x,x,x,x,x,x,x,x,x,x]\n");

	(void)state;
	for (int i = 1; i < 10; i++) {
		n += (size_t)snprintf(text + n, sizeof(text) - n, "- &a%d [", i);
		for (int k = 0; k < 10; k++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s*a%d",
					      k > 0 ? "," : "", i - 1);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "]\n");
	}
	check_error(text, n, print_yaml, "more than 8000000 values in one document");
}

static void test_many_keys(void **state)
{
	char text[16384];
	size_t n = 0;

	(void)state;
	for (unsigned i = 0; i <= TREE_KEYS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "k%u: 1\n", i);
	check_error(text, n, print_yaml, "ERROR 513:1 more than 512 keys in one map");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_yaml),        cmocka_unit_test(test_json),
		cmocka_unit_test(test_places),      cmocka_unit_test(test_depth),
		cmocka_unit_test(test_alias_depth), cmocka_unit_test(test_billion_laughs),
		cmocka_unit_test(test_many_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

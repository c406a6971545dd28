/* SPDX-License-Identifier: Apache-2.0 */

/* What sluice-init says and would do (--dry-run), against init_*.golden. After a change on purpose:
 * SLUICE_GOLDEN_WRITE=1 build/tests/golden/test_init writes them anew, for git diff to show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "init/advice.h"
#include "init/options.h"
#include "init/rules.h"

static void say(void *ctx, enum log_level level, const char *text)
{
	fprintf(ctx, "%s: %s\n", level == LOG_LEVEL_WARNING ? "warning" : "info", text);
}

static char *print(int argc, char *const *argv, bool with_rules)
{
	char *const no_environment[] = {NULL};
	char error[INIT_ERROR_MAX], *text = NULL;
	struct init_options o;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	if (init_options_parse(argc, argv, no_environment, &o, error) < 0)
		fail_msg("%s", error);
	init_advise(&o, say, out);
	if (with_rules) {
		fputc('\n', out);
		assert_int_equal(rules_print(&o, out), 0);
	}
	assert_int_equal(fclose(out), 0);
	return text;
}

static char *read_golden(const char *path)
{
	FILE *in = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;

	if (!in)
		fail_msg("%s: %s (see the top of this file)", path, strerror(errno));
	if (getdelim(&text, &size, '\0', in) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	fclose(in);
	return text;
}

static void write_golden(const char *path, const char *text)
{
	FILE *out = fopen(path, "we");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static void check(const char *path, int argc, char *const *argv, bool with_rules)
{
	char *got = print(argc, argv, with_rules), *want;

	if (getenv("SLUICE_GOLDEN_WRITE"))
		write_golden(path, got);
	want = read_golden(path);
	assert_string_equal(got, want);
	free(want);
	free(got);
}

/* What Istio's injected init container is started with. */
static void test_istio(void **state)
{
	char *argv[] = {"sluice-init",
			"-p",
			"15001",
			"-z",
			"15006",
			"-u",
			"1337",
			"-m",
			"REDIRECT",
			"-i",
			"*",
			"-x",
			"",
			"-b",
			"*",
			"-d",
			"15090,15021,15020",
			"--log_output_level=default:info",
			"--dry-run"};

	(void)state;
	check("tests/golden/init_istio.golden", ARRAY_SIZE(argv), argv, true);
}

static void test_cluster(void **state)
{
	char *argv[] = {"sluice-init", "-n", "--cluster-cidrs", "10.244.0.0/16,fd00:10:244::/56"};
	char *text = print(ARRAY_SIZE(argv), argv, true);

	(void)state;
	assert_non_null(strstr(text, "10.244.0.0-10.244.255.255\n"));
	assert_non_null(strstr(text, "fd00:10:244::-fd00:10:244:ff:ffff:ffff:ffff:ffff\n"));
	free(text);
}

/* Everything that would make a hole, and what is said to it. */
static void test_holes(void **state)
{
	char *argv[] = {"sluice-init",
			"-n",
			"-p15101",
			"-u1337",
			"-g1337",
			"-ceth1",
			"-i10.0.0.0/8",
			"-x198.51.100.0/24",
			"-q80",
			"-o443",
			"-keth2",
			"--redirect-dns",
			"--capture-all-dns",
			"--skip-rule-apply"};

	(void)state;
	check("tests/golden/init_holes.golden", ARRAY_SIZE(argv), argv, false);
}

/* No flag of Istio's changes a rule. */
static void test_rules_are_the_same(void **state)
{
	char *plain[] = {"sluice-init", "-n"};
	char *holes[] = {"sluice-init", "-n",        "-u0", "-g0",   "-ceth0", "-i",       "",
			 "-x",          "0.0.0.0/0", "-q1", "-o443", "-p1",    "-mTPROXY", "-b*"};
	char *a = print(ARRAY_SIZE(plain), plain, true);
	char *b = print(ARRAY_SIZE(holes), holes, true);

	(void)state;
	assert_int_equal(a[0], '\n'); /* nothing is said without flags */
	assert_non_null(strstr(b, "\n\nport 15001\n"));
	assert_string_equal(a + 1, strstr(b, "port 15001\n"));
	free(a);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_istio),
		cmocka_unit_test(test_cluster),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_rules_are_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

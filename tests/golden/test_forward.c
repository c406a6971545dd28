/* SPDX-License-Identifier: Apache-2.0 */

/* What the node's second guard would tell nf_tables, against forward_*.golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/owned.h"
#include "golden.h"
#include "guard/forward.h"

static char *print(const char *nets, const char *pods)
{
	struct addr addrs[GOLDEN_LIST_MAX];
	size_t n = golden_addrs(pods, addrs), size;
	struct plan plan;
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	golden_plan(nets, &plan);
	assert_int_equal(forward_print(&plan, addrs, n, out), 0);
	plan_done(&plan);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void check(const char *name, const char *nets, const char *pods)
{
	char *got = print(nets, pods);

	golden_check(name, got);
	free(got);
}

static void test_golden(void **state)
{
	(void)state;
	check("forward_dual_stack", "10.244.0.0/16 10.96.0.0/12 fd00:10:244::/56",
	      "10.244.1.11 fd00:10:244:1::b 10.244.1.12");
	check("forward_nothing", "", "");
}

/* The last rule of a chain, behind its number. */
static const char *last_rule(const char *text, const char *chain)
{
	const char *last = NULL;
	char head[64];

	snprintf(head, sizeof(head), "rule %s ", chain);
	for (const char *line = strstr(text, head); line; line = strstr(line + 1, head))
		last = line + strlen(head);
	assert_non_null(last);
	last = strchr(last, ' ');
	assert_non_null(last);
	return last;
}

/* What pods send and nothing else settles is refused, without condition: reported, then dropped. */
static void test_drops_by_default(void **state)
{
	static const char refuse[] = " [ immediate reg 0 goto -> refuse ]\n";
	static const char drop[] = " [ counter ] [ immediate reg 0 drop ]\n";
	char *got = print("10.244.0.0/16", "10.244.1.11");

	(void)state;
	assert_int_equal(strncmp(last_rule(got, "from-pod"), refuse, strlen(refuse)), 0);
	assert_int_equal(strncmp(last_rule(got, "refuse"), drop, strlen(drop)), 0);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_drops_by_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

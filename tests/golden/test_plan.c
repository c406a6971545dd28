/* SPDX-License-Identifier: Apache-2.0 */

/* What a plan says and what nf_tables would be told, against *.golden. After a change on purpose:
 * SLUICE_GOLDEN_WRITE=1 build/tests/golden/test_plan writes them anew, for git diff to show.
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
#include "redirect/plan.h"
#include "redirect/redirector.h"

#define NETS_MAX 16

static void make(const char *nets, struct plan *ret)
{
	struct plan_input input = {.capture_port = PLAN_CAPTURE_PORT};
	struct cidr cidrs[NETS_MAX];
	char *text = strdup(nets), *save = NULL;

	assert_non_null(text);
	input.cluster_cidrs = cidrs;
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save))
		assert_int_equal(cidr_parse(t, &cidrs[input.n_cluster_cidrs++]), 0);
	assert_int_equal(plan_make(&input, ret), 0);
	free(text);
}

static char *print(const struct plan *plan)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	plan_print(plan, out);
	fputs("\nnf_tables:\n", out);
	assert_int_equal(redirect_nft_print(plan, out), 0);
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

static void check_golden(const char *name, const char *nets)
{
	struct plan plan;
	char path[128], *got, *want;

	snprintf(path, sizeof(path), "tests/golden/%s.golden", name);
	make(nets, &plan);
	got = print(&plan);
	plan_done(&plan);
	if (getenv("SLUICE_GOLDEN_WRITE"))
		write_golden(path, got);
	want = read_golden(path);
	assert_string_equal(got, want);
	free(want);
	free(got);
}

static void test_golden(void **state)
{
	(void)state;
	check_golden("plan_dual_stack", "10.244.0.0/16 10.96.0.0/12 fd00:10:244::/56");
	check_golden("plan_v4", "10.244.0.0/16");
	check_golden("plan_v6", "fd00:10:244::/56");
	check_golden("plan_no_cluster", "");
	check_golden("plan_everything", "0.0.0.0/0 ::/0");
}

/* The ranges of a plan in one line. */
static void test_ranges(void **state)
{
	static const struct {
		const char *nets, *want;
	} cases[] = {
		{"", ""},
		{"10.0.0.0/8", "10.0.0.0-10.255.255.255"},
		{"10.0.0.1", "10.0.0.1-10.0.0.1"},
		{"10.1.0.0/16 10.0.0.0/16", "10.0.0.0-10.1.255.255"},
		{"10.0.0.0/8 10.1.0.0/16 10.0.0.0/8", "10.0.0.0-10.255.255.255"},
		{"10.1.0.0/16 10.3.0.0/16", "10.1.0.0-10.1.255.255 10.3.0.0-10.3.255.255"},
		{"255.255.255.255/32 255.0.0.0/8", "255.0.0.0-255.255.255.255"},
		{"169.254.169.254/32", ""},
		{"169.254.169.254/31", "169.254.169.255-169.254.169.255"},
		{"169.254.169.252/31 169.254.169.254/32", "169.254.169.252-169.254.169.253"},
		{"169.254.169.252/30",
		 "169.254.169.252-169.254.169.253 169.254.169.255-169.254.169.255"},
		{"0.0.0.0/0", "0.0.0.0-100.100.100.199 100.100.100.201-169.254.169.253 "
			      "169.254.169.255-255.255.255.255"},
		{"fd00:ec2::254", ""},
		{"fd00:ec2::/64",
		 "fd00:ec2::-fd00:ec2::253 fd00:ec2::255-fd00:ec2::ffff:ffff:ffff:ffff"},
		{"2001:db8::/32 10.0.0.0/8",
		 "10.0.0.0-10.255.255.255 2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"ffff::/16", "ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char got[512] = "", *text, *save = NULL;
		struct plan plan;

		make(cases[i].nets, &plan);
		text = print(&plan);
		for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
			if (strncmp(l, "cluster", 7) != 0)
				continue;
			if (*got)
				strcat(got, " ");
			strcat(got, strchr(l, ' ') + 1);
		}
		assert_string_equal(got, cases[i].want);
		free(text);
		plan_done(&plan);
	}
}

static void test_too_many(void **state)
{
	struct cidr *cidrs = calloc(PLAN_MAX_RANGES + 1, sizeof(*cidrs));
	struct plan_input input = {cidrs, PLAN_MAX_RANGES + 1, PLAN_CAPTURE_PORT};
	struct plan plan;

	(void)state;
	assert_non_null(cidrs);
	assert_int_equal(plan_make(&input, &plan), -E2BIG);
	input.n_cluster_cidrs--;
	assert_int_equal(plan_make(&input, &plan), 0);
	plan_done(&plan);
	free(cidrs);
}

/* No rule lets something new out without looking at where it comes from or goes to. */
static void test_refuses_by_default(void **state)
{
	struct plan plan;

	(void)state;
	make("10.0.0.0/8", &plan);
	for (enum plan_chain c = 0; c < PLAN_CHAIN_N_; c++) {
		const struct plan_rule *last = NULL;

		for (size_t i = 0; i < plan.n_rules; i++) {
			if (plan.rules[i].chain == c)
				last = &plan.rules[i];
			if (plan.rules[i].action == PLAN_ACTION_ACCEPT)
				assert_true(plan.rules[i].match != 0);
		}
		assert_non_null(last);
		if (c != PLAN_CHAIN_OUTGOING && c != PLAN_CHAIN_FORWARDED)
			continue;
		assert_int_equal(last->match, 0);
		assert_int_equal(last->family, PLAN_FAMILY_ANY);
		assert_int_equal(last->action, PLAN_ACTION_PROHIBIT);
	}
	plan_done(&plan);
}

static bool is_report(const struct plan_rule *rule)
{
	return rule->action == PLAN_ACTION_REPORT_REFUSED ||
	       rule->action == PLAN_ACTION_REPORT_BYPASS;
}

static bool is_refusal(const struct plan_rule *rule)
{
	return rule->action == PLAN_ACTION_RESET || rule->action == PLAN_ACTION_PROHIBIT ||
	       rule->action == PLAN_ACTION_DROP;
}

/* Whatever the one matches, the other does. */
static bool covers(const struct plan_rule *wide, const struct plan_rule *narrow)
{
	return (wide->match & ~narrow->match) == 0 &&
	       (wide->family == PLAN_FAMILY_ANY || wide->family == narrow->family);
}

/* What is reported is refused: nothing accepts it between the report and the rule that refuses all
 * of it.
 */
static void test_reports_what_is_refused(void **state)
{
	struct plan plan;
	size_t reports = 0;

	(void)state;
	make("10.0.0.0/8 fd00::/8", &plan);
	for (size_t i = 0; i < plan.n_rules; i++) {
		const struct plan_rule *report = &plan.rules[i], *end = plan.rules + plan.n_rules;
		const struct plan_rule *rule = report + 1;

		if (!is_report(report))
			continue;
		reports++;
		for (; rule < end && rule->chain == report->chain; rule++) {
			if (is_refusal(rule) && covers(rule, report))
				break;
			assert_true(is_refusal(rule) || is_report(rule));
		}
		assert_true(rule < end && rule->chain == report->chain);
	}
	assert_true(reports > 0);
	plan_done(&plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_refuses_by_default),
		cmocka_unit_test(test_reports_what_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

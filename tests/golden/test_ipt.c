/* SPDX-License-Identifier: Apache-2.0 */

/* What iptables-restore and ip6tables-restore would be told, against ipt_*.golden (see golden.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/owned.h"
#include "golden.h"
#include "redirect/ipt_text.h"

static char *make(enum ipt_family family, const char *nets)
{
	struct plan plan;
	char *text = NULL;

	golden_plan(nets, &plan);
	assert_int_equal(ipt_text_make(&plan, family, &text), 0);
	plan_done(&plan);
	return text;
}

static void check(const char *name, const char *nets)
{
	static const char *const families[] = {[IPT_V4] = "v4", [IPT_V6] = "v6"};

	_Static_assert(ARRAY_SIZE(families) == IPT_FAMILY_N_, "every family has its file");
	for (enum ipt_family f = 0; f < IPT_FAMILY_N_; f++) {
		char *text = make(f, nets), file[64];

		snprintf(file, sizeof(file), "ipt_%s.%s", name, families[f]);
		golden_check(file, text);
		free(text);
	}
}

static void test_golden(void **state)
{
	(void)state;
	check("dual_stack", "10.244.0.0/16 10.96.0.0/12 fd00:10:244::/56");
	check("v4", "10.244.0.0/16");
	check("v6", "fd00:10:244::/56");
	check("no_cluster", "");
	check("everything", "0.0.0.0/0 ::/0"); /* in groups: all but the metadata addresses */
}

/* Others may be behind the jump, never before; whoever is jumped over was refused before. */
static void test_what_passes_goes_back(void **state)
{
	char *text, *save = NULL;

	(void)state;
	text = make(IPT_V4, "10.0.0.0/8");
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		assert_null(strstr(l, "-j ACCEPT"));
	free(text);
}

/* ---- from what is there to what should be ---- */

#define OURS                                   \
	"*filter\n:SLUICE-OUTGOING - [0:0]\n"  \
	"-A OUTPUT -j SLUICE-OUTGOING\n"       \
	"-A SLUICE-OUTGOING -o lo -j RETURN\n" \
	"-A SLUICE-OUTGOING -j DROP\nCOMMIT\n"
#define HEAD     "# by somebody\n*filter\n:INPUT ACCEPT [1:2]\n:OUTPUT ACCEPT [3:4]\n"
#define CHAIN    ":SLUICE-OUTGOING - [0:0]\n"
#define RULES    "-A SLUICE-OUTGOING -o lo -j RETURN\n-A SLUICE-OUTGOING -j DROP\n"
#define JUMP     "-A OUTPUT -j SLUICE-OUTGOING\n"
#define END      "COMMIT\n# done\n"
#define DECLARED "*filter\n:SLUICE-OUTGOING - [0:0]\n"
#define FILLED   "-A SLUICE-OUTGOING -o lo -j RETURN\n-A SLUICE-OUTGOING -j DROP\n"
#define INSERTED "-I OUTPUT -j SLUICE-OUTGOING\n"
#define DELETED  "-D OUTPUT -j SLUICE-OUTGOING\n"

static const struct {
	const char *have;
	bool same;
	const char *change, *removal; /* NULL: it is not to be believed */
} cases[] = {
	{"", false, DECLARED FILLED INSERTED "COMMIT\n", ""},
	{HEAD END, false, DECLARED FILLED INSERTED "COMMIT\n", ""},
	{HEAD CHAIN JUMP RULES END, true, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* rules of others, behind ours and elsewhere */
	{HEAD CHAIN "-A INPUT -j DROP\n" JUMP "-A OUTPUT -j LOG\n" RULES END, true,
	 DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* in front of ours */
	{HEAD CHAIN "-A OUTPUT -j ACCEPT\n" JUMP RULES END, false,
	 DECLARED DELETED FILLED INSERTED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* no jump, two jumps, one that asks for more */
	{HEAD CHAIN RULES END, false, DECLARED FILLED INSERTED "COMMIT\n",
	 "*filter\n-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	{HEAD CHAIN JUMP JUMP RULES END, false, DECLARED DELETED DELETED FILLED INSERTED "COMMIT\n",
	 "*filter\n" DELETED DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	{HEAD CHAIN "-A OUTPUT -p udp -j SLUICE-OUTGOING\n" RULES END, false,
	 DECLARED "-D OUTPUT -p udp -j SLUICE-OUTGOING\n" FILLED INSERTED "COMMIT\n",
	 "*filter\n-D OUTPUT -p udp -j SLUICE-OUTGOING\n"
	 "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* a rule missing, out of order, too many */
	{HEAD CHAIN JUMP "-A SLUICE-OUTGOING -j DROP\n" END, false, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	{HEAD CHAIN JUMP "-A SLUICE-OUTGOING -j DROP\n-A SLUICE-OUTGOING -o lo -j RETURN\n" END,
	 false, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	{HEAD CHAIN JUMP RULES "-A SLUICE-OUTGOING -j ACCEPT\n" END, false,
	 DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* a chain too many */
	{HEAD CHAIN ":SLUICE-OLD - [0:0]\n" JUMP RULES "-A SLUICE-OLD -j SLUICE-OUTGOING\n" END,
	 false, DECLARED "-F SLUICE-OLD\n-X SLUICE-OLD\n" FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-F SLUICE-OLD\n"
	 "-X SLUICE-OUTGOING\n-X SLUICE-OLD\nCOMMIT\n"},
	/* a chain of that name, but no hook */
	{"*filter\n:OUTPUT - [0:0]\n" CHAIN JUMP RULES END, false, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* words in a comment are no jump, and a newline in it no line */
	{HEAD CHAIN JUMP
	 "-A OUTPUT -m comment --comment \"x -j SLUICE-OUTGOING\" -j LOG\n" RULES END,
	 true, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	{HEAD CHAIN JUMP
	 "-A OUTPUT -m comment --comment \"a\n-A SLUICE-OUTGOING -j DROP\" -j LOG\n" RULES END,
	 true, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* tables that are not for us */
	{"*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j NOTRACK\nCOMMIT\n" HEAD CHAIN JUMP RULES END,
	 true, DECLARED FILLED "COMMIT\n",
	 "*filter\n" DELETED "-F SLUICE-OUTGOING\n-X SLUICE-OUTGOING\nCOMMIT\n"},
	/* what iptables-save would not say */
	{HEAD CHAIN JUMP RULES END HEAD END, false, NULL, NULL},
	{HEAD CHAIN JUMP RULES "rules of mine\n" END, false, NULL, NULL},
	{HEAD CHAIN JUMP RULES, false, NULL, NULL},
	{JUMP, false, NULL, NULL},
};

static void check_change(size_t i)
{
	struct ipt_listing want, have;
	char *change, *removal;

	assert_int_equal(ipt_listing_parse(OURS, &want), 0);
	assert_int_equal(ipt_listing_parse(cases[i].have, &have), 0);
	/* iptables-save names the built-in chains, which say nothing here. */
	assert_int_equal(ipt_listing_compare(&want, &have), cases[i].same ? 0 : -ESTALE);
	assert_int_equal(have.is_strange, cases[i].change == NULL);
	if (cases[i].change) {
		assert_int_equal(ipt_change_to(&want, &have, &change), 0);
		assert_string_equal(change, cases[i].change);
		assert_int_equal(ipt_change_to_nothing(&have, &removal), 0);
		assert_string_equal(removal, cases[i].removal);
		free(change);
		free(removal);
	}
	ipt_listing_done(&want);
	ipt_listing_done(&have);
}

static void test_changes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_change(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_what_passes_goes_back),
		cmocka_unit_test(test_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

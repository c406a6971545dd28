/* SPDX-License-Identifier: Apache-2.0 */

/* What the guard by nf_tables would tell the kernel, against guard_netdev_*.golden, and the words
 * by which it finds its counters again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/owned.h"
#include "golden.h"
#include "guard/netdev_nft.h"

static char *print(const char *nets, const char *addrs, struct netdev_pod pod)
{
	struct addr own[GOLDEN_LIST_MAX];
	struct plan plan;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	golden_plan(nets, &plan);
	pod.addrs = own;
	pod.n_addrs = golden_addrs(addrs, own);
	assert_int_equal(netdev_print(&plan, &pod, out), 0);
	plan_done(&plan);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void test_golden(void **state)
{
	static const struct {
		const char *name, *nets, *addrs;
		struct netdev_pod pod;
	} cases[] = {
		{"guard_netdev_dual_stack",
		 "10.244.0.0/16 10.96.0.0/12 fd00:10:244::/56",
		 "10.244.1.11 fd00:10:244:1::b fe80::1",
		 {.ifindex = 17,
		  .device = "veth17",
		  .mac = {2, 0, 0, 0, 0x11, 0xfe},
		  .egress = true,
		  .flows = 2048}},
		{"guard_netdev_dhcp",
		 "10.244.0.0/16",
		 "10.244.1.11",
		 {.ifindex = 1, .device = "lo", .dhcp = true, .egress = true, .flows = 1}},
		/* Before Linux 5.16. */
		{"guard_netdev_no_egress",
		 "",
		 "",
		 {.ifindex = 4294967295, .device = "fifteen-letters", .flows = 4096}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *got = print(cases[i].nets, cases[i].addrs, cases[i].pod);

		golden_check(cases[i].name, got);
		free(got);
	}
}

static void test_names(void **state)
{
	static const struct {
		const char *name;
		uint32_t want;
	} cases[] = {
		{"in-17", 17},
		{"brief-4294967295", 4294967295},
		{"in-4294967296", 0},
		{"in-99999999999999999999", 0},
		{"cluster4", 0},
		{"in-", 0},
		{"in-0", 0},
		{"in-017", 0},
		{"in-1x", 0},
		{"in--1", 1},
		{"", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(netdev_ifindex(cases[i].name), cases[i].want);
}

static void test_comments(void **state)
{
	static const struct {
		const char *proto;
		uint8_t want;
	} protos[] = {
		{"tcp", 6},
		{"arp", GUARD_PROTO_ARP},
		{"ethernet", GUARD_PROTO_ETHER},
		{"other", GUARD_PROTO_OTHER},
	};
	static const char *const wrong[] = {"",
					    " ",
					    "tcp",
					    "outside",
					    "outside ",
					    " tcp",
					    "outside tcp ",
					    "out tcp",
					    "outsider tcp",
					    "outside sctp"};
	struct guard_count_key key;

	(void)state;
	for (unsigned why = 0; why < GUARD_WHY_N_; why++) {
		for (size_t i = 0; i < ARRAY_SIZE(protos); i++) {
			char text[64];

			snprintf(text, sizeof(text), "%s %s", guard_why_str(why), protos[i].proto);
			key = (struct guard_count_key){0};
			assert_true(netdev_read_comment(text, &key));
			assert_int_equal(key.why, why);
			assert_int_equal(key.proto, protos[i].want);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_false(netdev_read_comment(wrong[i], &key));
}

/* Whatever no rule settles is dropped, and each family's last rule drops without asking. */
static void test_drops_by_default(void **state)
{
	struct netdev_pod pod = {.ifindex = 7, .device = "v", .egress = true, .flows = 8};
	char *got = print("10.0.0.0/8", "10.0.0.1", pod), *line, *last = NULL;

	(void)state;
	assert_non_null(strstr(got, "chain in-7 type filter hook 0 priority -500 policy drop"));
	for (line = strstr(got, "rule in-7 "); line; line = strstr(line + 1, "rule in-7 "))
		last = line;
	assert_non_null(last);
	last = strchr(last + strlen("rule in-7 "), ' ');
	assert_non_null(last);
	assert_int_equal(strncmp(last, " [ counter ] [ immediate reg 0 drop ]\n", 38), 0);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_comments),
		cmocka_unit_test(test_drops_by_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

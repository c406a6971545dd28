/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/owned.h"
#include "gateway/dial.h"

static const struct {
	const char *ip;
	bool private;
} plain[] = {
	{"0.0.0.0", true},
	{"0.1.2.3", true},
	{"1.0.0.0", false},
	{"9.255.255.255", false},
	{"10.0.0.0", true},
	{"10.255.255.255", true},
	{"11.0.0.0", false},
	{"93.184.216.34", false},
	{"100.63.255.255", false},
	{"100.64.0.0", true},
	{"100.100.100.200", true},
	{"100.127.255.255", true},
	{"100.128.0.0", false},
	{"126.255.255.255", false},
	{"127.0.0.1", true},
	{"127.255.255.255", true},
	{"128.0.0.0", false},
	{"168.63.129.15", false},
	{"168.63.129.16", true},
	{"169.253.255.255", false},
	{"169.254.0.0", true},
	{"169.254.169.254", true},
	{"169.255.0.0", false},
	{"172.15.255.255", false},
	{"172.16.0.0", true},
	{"172.31.255.255", true},
	{"172.32.0.0", false},
	{"192.0.0.192", true},
	{"192.0.1.0", false},
	{"192.0.2.1", false}, /* documentation */
	{"192.88.99.1", true},
	{"192.167.255.255", false},
	{"192.168.0.0", true},
	{"192.168.255.255", true},
	{"192.169.0.0", false},
	{"198.17.255.255", false},
	{"198.18.0.0", true},
	{"198.19.255.255", true},
	{"198.20.0.0", false},
	{"198.51.100.1", false}, /* documentation */
	{"203.0.113.10", false}, /* documentation */
	{"223.255.255.255", false},
	{"224.0.0.1", true},
	{"239.255.255.255", true},
	{"240.0.0.1", true},
	{"255.255.255.255", true},
	/* IPv4 in its mapped form is IPv4. */
	{"::ffff:10.0.0.1", true},
	{"::ffff:127.0.0.1", true},
	{"::ffff:93.184.216.34", false},
	/* IPv6 */
	{"::", true},
	{"::1", true},
	{"::2", true},
	{"::10.0.0.1", true},        /* IPv4-compatible */
	{"::93.184.216.34", true},   /* and deprecated altogether */
	{"::ffff:0:10.0.0.1", true}, /* IPv4-translated */
	{"64:ff9a::1", true},
	{"64:ff9b::10.0.0.1", true}, /* NAT64 */
	{"64:ff9b::169.254.169.254", true},
	{"64:ff9b::93.184.216.34", false},
	{"64:ff9b:1::93.184.216.34", true}, /* NAT64 for local use */
	{"100::1", true},                   /* discard */
	{"2000::", false},
	{"2001:0:5db8:d822::a2a3:273d", false}, /* Teredo: 93.184.216.34, 93.92.216.194 */
	{"2001:0:a00:1::a2a3:273d", true},      /* server 10.0.0.1 */
	{"2001:0:5db8:d822::f5ff:fffe", true},  /* client 10.0.0.1 */
	{"2001:0:5db8:d822::5601:5601", true},  /* client 169.254.169.254 */
	{"2001:2::1", true},
	{"2001:2:1::1", false},
	{"2001:10::1", true},
	{"2001:2f::1", true},
	{"2001:30::1", false},
	{"2001:db8::1", false},       /* documentation */
	{"2002:5db8:d822::1", false}, /* 6to4 */
	{"2002:a00:1::1", true},
	{"2002:7f00:1::1", true},
	{"2002:c0a8:101::1", true},
	{"2606:2800:220:1:248:1893:25c8:1946", false},
	{"3fff:ffff::1", false},
	{"4000::1", true},
	{"5f00::1", true},
	{"8000::1", true},
	{"fc00::1", true},
	{"fd00:ec2::254", true},
	{"fdff::1", true},
	{"fe80::1", true},
	{"febf::1", true},
	{"fec0::1", true},
	{"ff02::1", true},
};

static void test_ranges(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		struct addr a;

		assert_int_equal(addr_parse_ip(plain[i].ip, &a), 0);
		if (dial_is_private(&a) != plain[i].private)
			fail_msg("%s: private %d", plain[i].ip, !plain[i].private);
	}
}

/* "" is an empty list; lists are separated by spaces. */
static const struct {
	const char *cluster, *allowed, *registered, *ip;
	bool refused;
} rules[] = {
	/* nothing lifted */
	{"", "", "", "93.184.216.34", false},
	{"", "", "", "10.0.0.1", true},
	{"93.184.0.0/16", "", "", "93.184.216.34", true},
	{"93.184.0.0/16", "", "", "93.185.216.34", false},
	{"2001:db8:1::/48", "", "", "2001:db8:1::1", true},
	{"93.184.0.0/16", "", "", "64:ff9b::93.184.216.34", true},
	/* allowedPrivateCIDRs lift private ranges, and cluster ranges from inside */
	{"", "10.0.0.0/8", "", "10.0.0.1", false},
	{"", "10.0.0.0/8", "", "192.168.0.1", true},
	{"", "10.0.0.1", "", "10.0.0.2", true},
	{"", "192.168.0.0/16 10.0.0.0/8", "", "10.0.0.1", false},
	{"10.244.0.0/16", "10.0.0.0/8", "", "10.244.1.1", true}, /* the pods in the midst of it */
	{"10.244.0.0/16", "10.244.1.0/24", "", "10.244.1.1", false},
	{"10.244.0.0/16", "10.0.0.0/16", "", "10.244.1.1", true},
	{"", "0.0.0.0/0", "", "10.0.0.1", false},
	{"", "::/0", "", "10.0.0.1", true},
	{"", "::/0", "", "fd00::1", false},
	{"", "10.0.0.0/8", "", "64:ff9b::10.0.0.1", false},
	{"", "10.0.0.0/8", "", "2002:a00:1::1", false},
	{"", "fc00::/7", "", "fd00::1", false},
	/* ... but what is guarded only from inside its range */
	{"", "0.0.0.0/0", "", "127.0.0.1", true},
	{"", "126.0.0.0/7", "", "127.0.0.1", true},
	{"", "127.0.0.0/8", "", "127.0.0.1", false},
	{"", "127.0.0.2", "", "127.0.0.2", false},
	{"", "127.0.0.2", "", "127.0.0.1", true},
	{"", "0.0.0.0/0", "", "0.0.0.0", true},
	{"", "0.0.0.0/0", "", "169.254.169.254", true},
	{"", "169.254.169.254", "", "169.254.169.254", false},
	{"", "100.64.0.0/10", "", "100.100.100.200", true},
	{"", "100.64.0.0/10", "", "100.100.100.201", false},
	{"", "0.0.0.0/0", "", "168.63.129.16", true},
	{"", "::/0", "", "::1", true},
	{"", "::/0", "", "fe80::1", true},
	{"", "fc00::/7", "", "fd00:ec2::254", true},
	{"", "fd00:ec2::254", "", "fd00:ec2::254", false},
	{"", "::1", "", "::1", false},
	{"", "0.0.0.0/0", "", "64:ff9b::127.0.0.1", true},
	/* registered addresses lift their own range, never all at once */
	{"", "", "10.0.0.1", "10.0.0.1", false},
	{"", "", "10.0.0.1", "10.0.0.2", true},
	{"", "", "10.0.0.0/8", "10.0.0.2", false},
	{"", "", "8.0.0.0/5", "10.0.0.2", true},
	{"", "", "0.0.0.0/0", "10.0.0.2", true},
	{"", "", "0.0.0.0/0", "93.184.216.34", false},
	{"", "", "::/0", "fd00::1", true},
	{"", "", "::/0", "10.0.0.1", true},
	{"", "", "8000::/1", "fd00::1", true},
	{"", "", "fd00::/8", "fd00::1", false},
	{"10.244.0.0/16", "", "10.0.0.0/8", "10.244.1.1", true},
	{"10.244.0.0/16", "", "10.0.0.0/8", "10.245.1.1", false},
	{"10.244.0.0/16", "", "10.244.1.1", "10.244.1.1", false},
	{"", "", "127.0.0.1", "127.0.0.1", false},
	{"", "", "64:ff9b::10.0.0.1", "64:ff9b::10.0.0.1", false},
	{"", "", "64:ff9b::/96", "64:ff9b::10.0.0.1", true},
};

static size_t parse_list(const char *text, struct cidr ret[4])
{
	char copy[128], *save = NULL;
	size_t n = 0;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		assert_int_equal(cidr_parse(t, &ret[n++]), 0);
	return n;
}

static void test_rules(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct cidr cluster[4], allowed[4], registered[4];
		struct private_rules r = {.cluster = cluster, .allowed = allowed};
		size_t n = parse_list(rules[i].registered, registered);
		struct addr a;

		r.n_cluster = parse_list(rules[i].cluster, cluster);
		r.n_allowed = parse_list(rules[i].allowed, allowed);
		assert_int_equal(addr_parse_ip(rules[i].ip, &a), 0);
		if (private_refused(&r, registered, n, &a) != rules[i].refused)
			fail_msg("%s with cluster '%s', allowed '%s', registered '%s': refused %d",
				 rules[i].ip, rules[i].cluster, rules[i].allowed,
				 rules[i].registered, !rules[i].refused);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/prefix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/owned.h"
#include "redirect/plan.h"

static const struct {
	const char *from, *to, *want;
} cases[] = {
	{"10.0.0.0", "10.255.255.255", "10.0.0.0/8"},
	{"10.0.0.1", "10.0.0.1", "10.0.0.1/32"},
	{"10.0.0.0", "10.0.0.2", "10.0.0.0/31 10.0.0.2/32"},
	{"10.0.0.1", "10.0.0.2", "10.0.0.1/32 10.0.0.2/32"},
	{"10.0.0.1", "10.0.0.6", "10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32"},
	{"0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
	{"255.255.255.254", "255.255.255.255", "255.255.255.254/31"},
	{"10.0.0.255", "10.0.1.0", "10.0.0.255/32 10.0.1.0/32"},
	{"169.254.0.0", "169.254.169.253",
	 "169.254.0.0/17 169.254.128.0/19 169.254.160.0/21 169.254.168.0/24 169.254.169.0/25 "
	 "169.254.169.128/26 169.254.169.192/27 169.254.169.224/28 169.254.169.240/29 "
	 "169.254.169.248/30 169.254.169.252/31"},
	{"fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00::/8"},
	{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
	{"::1", "::1", "::1/128"},
	{"::1", "::4", "::1/128 ::2/127 ::4/128"},
	{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
};

static struct addr ip(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse_ip(text, &a), 0);
	return a;
}

static void print(const struct cidr *nets, size_t n, char *buf, size_t size)
{
	size_t at = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		char text[ADDR_TEXT];

		at += (size_t)snprintf(buf + at, size - at, "%s%s", i ? " " : "",
				       cidr_print(&nets[i], text));
	}
}

static void test_fewest_prefixes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr from = ip(cases[i].from), to = ip(cases[i].to);
		struct cidr nets[PREFIX_MAX];
		char got[2048];

		print(nets, prefix_split(from.ip, to.ip, nets), got, sizeof(got));
		assert_string_equal(got, cases[i].want);
	}
}

static void last_of(const struct cidr *net, uint8_t ret[16])
{
	memcpy(ret, net->ip, 16);
	for (unsigned i = net->bits; i < 128; i++)
		ret[i / 8] |= (uint8_t)(0x80 >> i % 8);
}

static void increment(uint8_t a[16])
{
	for (int i = 15; i >= 0 && ++a[i] == 0; i--)
		;
}

/* Whatever the range: they begin where it begins, each where the one before ended, and end with it;
 * none has bits set beyond its length; no two neighbours would make one.
 */
static void check(const uint8_t from[16], const uint8_t to[16])
{
	struct cidr nets[PREFIX_MAX];
	size_t n = prefix_split(from, to, nets);
	uint8_t at[16], last[16];

	assert_in_range(n, 1, PREFIX_MAX);
	memcpy(at, from, 16);
	for (size_t i = 0; i < n; i++) {
		struct cidr wider = nets[i];

		assert_memory_equal(nets[i].ip, at, 16);
		for (unsigned b = nets[i].bits; b < 128; b++)
			assert_false(nets[i].ip[b / 8] & 0x80 >> b % 8);
		last_of(&nets[i], last);
		assert_true(memcmp(last, to, 16) <= 0);
		if (wider.bits > 0) { /* the next larger one begins, or ends, outside */
			uint8_t wide_last[16];
			unsigned b = --wider.bits;

			wider.ip[b / 8] &= (uint8_t) ~(0x80 >> b % 8);
			last_of(&wider, wide_last);
			assert_true(memcmp(wider.ip, from, 16) < 0 ||
				    memcmp(wide_last, to, 16) > 0);
		}
		memcpy(at, last, 16);
		increment(at);
	}
	assert_memory_equal(last, to, 16);
}

static void test_exactly_the_range(void **state)
{
	unsigned seed = 1;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		uint8_t a[16], b[16];
		int same = rand_r(&seed) % 17; /* bytes in common: ranges of every size */

		for (int k = 0; k < 16; k++) {
			a[k] = (uint8_t)rand_r(&seed);
			b[k] = k < same ? a[k] : (uint8_t)rand_r(&seed);
		}
		check(memcmp(a, b, 16) <= 0 ? a : b, memcmp(a, b, 16) <= 0 ? b : a);
	}
}

static void test_most_there_can_be(void **state)
{
	uint8_t from[16] = {[15] = 1}, to[16];
	struct cidr nets[PREFIX_MAX];

	(void)state;
	memset(to, 0xff, sizeof(to));
	to[15] = 0xfe;
	assert_int_equal(prefix_split(from, to, nets), PREFIX_MAX);
	check(from, to);
}

static void test_lists(void **state)
{
	struct plan_range ranges[2];
	struct cidr *nets = NULL;
	char got[256];
	size_t n;

	(void)state;
	memcpy(ranges[0].from, ip("10.0.0.0").ip, 16);
	memcpy(ranges[0].to, ip("10.0.0.2").ip, 16);
	memcpy(ranges[1].from, ip("10.0.1.0").ip, 16);
	memcpy(ranges[1].to, ip("10.0.1.255").ip, 16);
	assert_int_equal(prefix_list(ranges, 2, &nets, &n), 0);
	print(nets, n, got, sizeof(got));
	assert_string_equal(got, "10.0.0.0/31 10.0.0.2/32 10.0.1.0/24");
	free(nets);
	assert_int_equal(prefix_list(NULL, 0, &nets, &n), 0);
	assert_int_equal(n, 0);
	free(nets);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fewest_prefixes),
		cmocka_unit_test(test_exactly_the_range),
		cmocka_unit_test(test_most_there_can_be),
		cmocka_unit_test(test_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

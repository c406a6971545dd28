/* SPDX-License-Identifier: Apache-2.0 */

/* Ranges of addresses as networks, and the memory of what was found to be as planned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "redirect/ipt_known.h"
#include "redirect/ipt_nets.h"

#define TEXT_MAX  1024
#define RANGE_MAX 32

/* "from-to from-to", as plan_make() gives them: ascending, no two touch. */
static size_t parse(const char *words, struct plan_range ret[static RANGE_MAX])
{
	char *text = strdup(words), *save = NULL;
	size_t n = 0;

	assert_non_null(text);
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		char *to = strchr(t, '-');
		struct addr a, b;

		assert_non_null(to);
		*to = '\0';
		assert_int_equal(addr_parse_ip(t, &a), 0);
		assert_int_equal(addr_parse_ip(to + 1, &b), 0);
		memcpy(ret[n].from, a.ip, 16);
		memcpy(ret[n++].to, b.ip, 16);
	}
	free(text);
	return n;
}

static void append(char *text, const char *before, const struct cidr *net)
{
	char word[ADDR_TEXT];
	size_t n = strlen(text);

	snprintf(text + n, TEXT_MAX - n, "%s%s%s", n ? " " : "", before, cidr_print(net, word));
}

static void test_networks(void **state)
{
	static const struct {
		const char *ranges, *want; /* holes with a ! in front */
	} cases[] = {
		{"", ""},
		{"10.0.0.0-10.255.255.255", "10.0.0.0/8"},
		{"10.0.0.1-10.0.0.1", "10.0.0.1/32"},
		{"10.0.0.1-10.0.0.4", "10.0.0.1/32 10.0.0.2/31 10.0.0.4/32"},
		{"0.0.0.0-255.255.255.255", "0.0.0.0/0"},
		{"255.255.255.255-255.255.255.255", "255.255.255.255/32"},
		{"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
		{"fd00::-fd00::ffff fd00::2:0-fd00::2:ffff", "fd00::/112 fd00::2:0/112"},
		{"169.254.0.0-169.254.169.253 169.254.169.255-169.254.255.255",
		 "!169.254.169.254/32 169.254.0.0/16"},
		{"0.0.0.0-100.100.100.199 100.100.100.201-169.254.169.253 "
		 "169.254.169.255-255.255.255.255",
		 "!100.100.100.200/32 !169.254.169.254/32 0.0.0.0/0"},
		/* at an end, or two addresses: no hole */
		{"10.0.0.1-10.0.0.3", "10.0.0.1/32 10.0.0.2/31"},
		{"10.0.0.0-10.0.0.1 10.0.0.4-10.0.0.7", "10.0.0.0/31 10.0.0.4/30"},
		/* eight holes, and one more */
		{"10.0.0.0-10.0.0.0 10.0.0.2-10.0.0.2 10.0.0.4-10.0.0.4 10.0.0.6-10.0.0.6 "
		 "10.0.0.8-10.0.0.8 10.0.0.10-10.0.0.10 10.0.0.12-10.0.0.12 "
		 "10.0.0.14-10.0.0.14 10.0.0.16-10.0.0.31",
		 "!10.0.0.1/32 !10.0.0.3/32 !10.0.0.5/32 !10.0.0.7/32 !10.0.0.9/32 "
		 "!10.0.0.11/32 !10.0.0.13/32 !10.0.0.15/32 10.0.0.0/27"},
		{"10.0.0.0-10.0.0.0 10.0.0.2-10.0.0.2 10.0.0.4-10.0.0.4 10.0.0.6-10.0.0.6 "
		 "10.0.0.8-10.0.0.8 10.0.0.10-10.0.0.10 10.0.0.12-10.0.0.12 "
		 "10.0.0.14-10.0.0.14 10.0.0.16-10.0.0.16 10.0.0.18-10.0.0.18",
		 "10.0.0.0/32 10.0.0.2/32 10.0.0.4/32 10.0.0.6/32 10.0.0.8/32 10.0.0.10/32 "
		 "10.0.0.12/32 10.0.0.14/32 10.0.0.16/32 10.0.0.18/32"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct plan_range ranges[RANGE_MAX];
		char got[TEXT_MAX] = "";
		struct ipt_nets nets;

		assert_int_equal(ipt_nets_make(ranges, parse(cases[i].ranges, ranges), &nets), 0);
		for (size_t h = 0; h < nets.n_holes; h++)
			append(got, "!", &nets.holes[h]);
		for (size_t n = 0; n < nets.n; n++)
			append(got, "", &nets.v[n]);
		assert_string_equal(got, cases[i].want);
		ipt_nets_done(&nets);
	}
}

static bool contains(const struct cidr *wide, const struct cidr *narrow)
{
	for (unsigned bit = 0; bit < wide->bits; bit++) {
		if ((wide->ip[bit / 8] ^ narrow->ip[bit / 8]) & 0x80 >> bit % 8)
			return false;
	}
	return wide->bits <= narrow->bits;
}

/* Each network is in one group, of no more than that many, and in no other group's cover. */
static void check_groups(const struct ipt_nets *nets, size_t max)
{
	struct ipt_group *groups;
	int n = ipt_nets_group(nets, max, &groups);
	size_t next = 0;

	assert_true(n > 0);
	for (int g = 0; g < n; g++) {
		assert_int_equal(groups[g].first, next);
		assert_true(groups[g].n > 0 && groups[g].n <= max);
		next += groups[g].n;
		for (size_t i = 0; i < nets->n; i++)
			assert_int_equal(contains(&groups[g].cover, &nets->v[i]),
					 i >= groups[g].first && i < next);
	}
	assert_int_equal(next, nets->n);
	free(groups);
}

static void test_groups(void **state)
{
	struct plan_range ranges[200];
	struct ipt_nets nets;

	(void)state;
	memset(ranges, 0, sizeof(ranges));
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		ranges[i].from[0] = ranges[i].to[0] = 0xfd;
		ranges[i].from[6] = ranges[i].to[6] = (uint8_t)(i * i / 256);
		ranges[i].from[7] = ranges[i].to[7] = (uint8_t)(i * i);
		memset(&ranges[i].to[9], 0xff, 7);
	}
	assert_int_equal(ipt_nets_make(ranges, ARRAY_SIZE(ranges), &nets), 0);
	assert_int_equal(nets.n, ARRAY_SIZE(ranges));
	for (size_t max = 1; max <= 256; max *= 2)
		check_groups(&nets, max);
	ipt_nets_done(&nets);
}

/* ---- what is known ---- */

static void test_known(void **state)
{
	char bytes[] = "0 of iptables";
	size_t n = sizeof(bytes);

	(void)state;
	assert_false(ipt_known(bytes, n));
	for (; bytes[0] < '8'; bytes[0]++)
		ipt_known_add(bytes, n);
	bytes[0] = '0';
	assert_true(ipt_known(bytes, n)); /* and so the one asked for last */
	assert_false(ipt_known(bytes, n - 1));
	bytes[0] = '8';
	ipt_known_add(bytes, n);
	ipt_known_add(bytes, n); /* the same */
	assert_true(ipt_known(bytes, n));
	bytes[0] = '0';
	assert_true(ipt_known(bytes, n));
	bytes[0] = '1';
	assert_false(ipt_known(bytes, n)); /* the oldest had to go */
	bytes[0] = '2';
	assert_true(ipt_known(bytes, n));
}

static void test_large_ones_are_few(void **state)
{
	const size_t n = 6U << 20;
	char *bytes = calloc(3, n);

	(void)state;
	assert_non_null(bytes);
	for (bytes[0] = 1; bytes[0] <= 3; bytes[0]++)
		ipt_known_add(bytes, n);
	bytes[0] = 1;
	assert_false(ipt_known(bytes, n));
	bytes[0] = 3;
	assert_true(ipt_known(bytes, n));
	ipt_known_add(bytes, 3 * n); /* more than there is room for */
	assert_false(ipt_known(bytes, 3 * n));
	assert_true(ipt_known(bytes, n));
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_large_ones_are_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

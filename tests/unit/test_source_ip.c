/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/source_ip.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/owned.h"

static struct addr ip(const char *text)
{
	struct addr a = {0};

	assert_int_equal(addr_parse_ip(text, &a), 0);
	return a;
}

static void test_present_and_missing(void **state)
{
	static const struct {
		const char *ips[3];
		size_t n;
		int missing; /* index, -1: none */
	} cases[] = {
		{{NULL}, 0, -1},
		{{"127.0.0.1"}, 1, -1},
		{{"::ffff:127.0.0.1"}, 1, -1},
		{{"192.0.2.77"}, 1, 0},
		{{"127.0.0.1", "192.0.2.77"}, 2, 1},
		{{"192.0.2.77", "127.0.0.1", "192.0.2.78"}, 3, 0},
		{{"127.0.0.1", "127.0.0.1", "2001:db8::77"}, 3, 2},
		{{"127.0.0.2"}, 1, 0}, /* within lo's network, but no address of lo */
		{{"0.0.0.0"}, 1, 0},
		{{"::"}, 1, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct addr *missing = NULL;
		struct addr ips[3];
		int r;

		for (size_t k = 0; k < cases[i].n; k++)
			ips[k] = ip(cases[i].ips[k]);
		r = source_ip_check(ips, cases[i].n, &missing);
		if (cases[i].missing < 0) {
			assert_int_equal(r, 0);
			assert_null(missing);
		} else {
			assert_int_equal(r, -EADDRNOTAVAIL);
			assert_ptr_equal(missing, &ips[cases[i].missing]);
		}
	}
}

/* Whatever the C library says is on this machine, of both families. The port plays no part. */
static void test_agrees_with_the_system(void **state)
{
	struct ifaddrs *list, *i;
	size_t n = 0;

	(void)state;
	assert_int_equal(getifaddrs(&list), 0);
	for (i = list; i; i = i->ifa_next) {
		struct sockaddr_storage sa = {0};
		const struct addr *missing = NULL;
		struct addr a;

		if (!i->ifa_addr ||
		    (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
			continue;
		memcpy(&sa, i->ifa_addr,
		       i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
							 : sizeof(struct sockaddr_in6));
		assert_int_equal(addr_from_sockaddr(&sa, &a), 0);
		a.port = 4711;
		assert_int_equal(source_ip_check(&a, 1, &missing), 0);
		n++;
	}
	freeifaddrs(list);
	assert_true(n > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_present_and_missing),
		cmocka_unit_test(test_agrees_with_the_system),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/peers.h"

static struct addr ip(const char *text)
{
	struct addr a = {0};

	assert_int_equal(addr_parse_ip(text, &a), 0);
	a.port = 40000;
	return a;
}

static void test_may(void **state)
{
	struct addr nodes[3], v4 = ip("192.0.2.2"), v6 = ip("2001:db8::2");
	struct addr other = ip("192.0.2.4"), mapped = ip("::ffff:192.0.2.3"), none = {0};
	struct peers *p;

	(void)state;
	nodes[0] = ip("192.0.2.3");
	nodes[1] = ip("2001:db8::2");
	nodes[2] = ip("192.0.2.2");
	assert_int_equal(peers_new(&p, nodes, 3), 0);
	assert_true(peers_may(p, &v4) && peers_may(p, &v6) && peers_may(p, &mapped));
	assert_false(peers_may(p, &other));
	assert_false(peers_may(p, &none));
	assert_true(peers_may(NULL, &other)); /* nobody asks */
	assert_ptr_equal(peers_ref(p), p);
	peers_unref(p);
	assert_true(peers_may(p, &v4));
	peers_unref(p);
}

/* Before any node is known. */
static void test_nobody(void **state)
{
	struct addr v4 = ip("192.0.2.2");
	struct peers *p;

	(void)state;
	assert_int_equal(peers_new(&p, NULL, 0), 0);
	assert_false(peers_may(p, &v4));
	peers_unref(p);
	peers_unref(NULL);
	assert_null(peers_ref(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_may),
					   cmocka_unit_test(test_nobody)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tunnel/gateways.h"

static struct gateways *three(const struct gateways *old)
{
	struct gateways *gws;
	struct addr addrs[3];

	for (int i = 0; i < 3; i++) {
		char text[] = "192.0.2.0:15443";

		text[8] = (char)('1' + i);
		assert_int_equal(addr_parse(text, &addrs[i]), 0);
	}
	assert_int_equal(gateways_new(&gws, 1), 0);
	assert_int_equal(gateways_set(gws, 0, "egress", addrs, 3, old), 0);
	return gws;
}

static long index_of(const struct gateway *gw, const struct gateway_endpoint *e)
{
	return e ? (long)(e - gw->endpoints) : -1;
}

static void test_round_robin_over_the_healthy(void **state)
{
	static const struct {
		bool healthy[3];
		unsigned turn;
		long want[4]; /* by attempt; -1: none left */
	} cases[] = {
		{{true, true, true}, 0, {0, 1, 2, -1}},
		{{true, true, true}, 1, {1, 2, 0, -1}},
		{{true, true, true}, 5, {2, 0, 1, -1}},
		{{false, true, true}, 0, {1, 2, 0, -1}}, /* the sick one last */
		{{true, false, true}, 1, {2, 0, 1, -1}},
		{{false, false, true}, 0, {2, 0, 1, -1}},
		{{false, false, false}, 2, {2, 0, 1, -1}}, /* a stale mark keeps nobody out */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gateways *gws = three(NULL);
		struct gateway *gw = &gws->list[0];
		uint64_t tried = 0;
		size_t healthy = 0;

		for (int j = 0; j < 3; j++) {
			atomic_store(&gw->endpoints[j].healthy, cases[i].healthy[j]);
			healthy += cases[i].healthy[j];
		}
		assert_int_equal(gateway_n_healthy(gw), healthy);
		for (unsigned a = 0; a < 4; a++)
			assert_int_equal(index_of(gw, gateway_pick(gw, cases[i].turn, &tried)),
					 cases[i].want[a]);
		gateways_unref(gws);
	}
}

/* An endpoint that fails is marked while the connection goes on looking: none comes twice. */
static void test_health_that_changes_between_attempts(void **state)
{
	struct gateways *gws = three(NULL);
	struct gateway *gw = &gws->list[0];
	uint64_t tried = 0;

	(void)state;
	for (long i = 0; i < 3; i++) {
		struct gateway_endpoint *e = gateway_pick(gw, 0, &tried);

		assert_int_equal(index_of(gw, e), i);
		atomic_store(&e->healthy, false);
	}
	assert_null(gateway_pick(gw, 0, &tried));
	gateways_unref(gws);
}

static void test_turns_rise(void **state)
{
	struct gateways *gws = three(NULL);
	unsigned first = gateway_turn(&gws->list[0]);

	(void)state;
	assert_int_equal(gateway_turn(&gws->list[0]), first + 1);
	gateways_unref(gws);
}

static void test_health_survives_a_reload(void **state)
{
	struct gateways *old = three(NULL), *new;

	(void)state;
	atomic_store(&old->list[0].endpoints[1].healthy, false);
	new = three(old);
	assert_true(atomic_load(&new->list[0].endpoints[0].healthy));
	assert_false(atomic_load(&new->list[0].endpoints[1].healthy));
	gateways_unref(old);
	gateways_unref(new);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_robin_over_the_healthy),
		cmocka_unit_test(test_health_that_changes_between_attempts),
		cmocka_unit_test(test_turns_rise),
		cmocka_unit_test(test_health_survives_a_reload),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/identity.h"

static void test_workload_of_a_pod(void **state)
{
	static const struct {
		const char *pod, *workload;
	} cases[] = {
		{"web-7d4b9c6f5d-x2x7k", "web"},
		{"my-web-app-5f6d8-zz24b",
		 "my-web-app-5f6d8"}, /* too short for a ReplicaSet's hash */
		{"my-web-app-5f6d86c9-zz24b", "my-web-app"},
		{"node-agent-x2x7k", "node-agent"},
		{"db-0", "db"},
		{"db-12", "db"},
		{"web", "web"},
		{"web-server", "web-server"},
		{"web-aeiou", "web-aeiou"}, /* vowels are not drawn */
		{"-x2x7k", "-x2x7k"},
		{"web-", "web-"},
		{"-", "-"},
		{"", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct identity *id;

		assert_int_equal(identity_new(&id, "ns", cases[i].pod, "sa", NULL), 0);
		assert_string_equal(id->pod, cases[i].pod);
		assert_string_equal(id->workload, cases[i].workload);
		assert_string_equal(id->principal, "");
		identity_unref(id);
	}
}

static void test_spiffe(void **state)
{
	struct identity *id;

	(void)state;
	assert_int_equal(identity_new_spiffe(&id, "cluster.local", "shop", "web-0", ""), 0);
	assert_string_equal(id->principal, "spiffe://cluster.local/ns/shop/sa/default");
	assert_string_equal(id->service_account, "default");
	identity_unref(identity_ref(id));
	identity_unref(id);
	identity_unref(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_workload_of_a_pod),
		cmocka_unit_test(test_spiffe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

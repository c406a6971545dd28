/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "base/owned.h"
#include "kube/gateways.h"
#include "kube/kube_addrs.h"
#include "kube/nodes.h"
#include "kube_json_text.h"

static void test_names(void **state)
{
	static const struct {
		const char *text, *service, *ns; /* NULL: refused */
	} cases[] = {
		{"egress.sluice-system", "egress", "sluice-system"},
		{"egress.sluice-system.svc", "egress", "sluice-system"},
		{"egress.sluice-system.svc.cluster.local", "egress", "sluice-system"},
		{"egress.sluice-system.svc.example.com", "egress", "sluice-system"},
		{"egress", NULL, NULL},
		{"", NULL, NULL},
		{".sluice-system", NULL, NULL},
		{"egress.", NULL, NULL},
		{"egress..svc", NULL, NULL},
		{"egress.ns.pod.cluster.local", NULL, NULL},
		{"egress.ns.svcx", NULL, NULL},
		{"Egress.ns", NULL, NULL},
		{"egress-.ns", NULL, NULL},
		{"-egress.ns", NULL, NULL},
		{"egress.ns/x", NULL, NULL},
		{"egress.ns?watch=1", NULL, NULL},
	};
	struct gateway_name name;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		print_message("'%s'\n", cases[i].text);
		assert_int_equal(gateway_name_parse(cases[i].text, &name),
				 cases[i].service ? 0 : -EINVAL);
		if (!cases[i].service)
			continue;
		assert_string_equal(name.service, cases[i].service);
		assert_string_equal(name.ns, cases[i].ns);
	}
}

static void assert_addrs(const struct addr *addrs, size_t n, const char *want)
{
	char got[2048] = "", text[ADDR_TEXT];

	for (size_t i = 0; i < n; i++) {
		strcat(got, i > 0 ? " " : "");
		strcat(got, addr_print(&addrs[i], text));
	}
	assert_string_equal(got, want);
}

#define PORTS "'ports':[{'name':'','port':15443,'protocol':'TCP'}]"

static void test_slices(void **state)
{
	static const struct {
		const char *object, *want;
	} cases[] = {
		{"{}", ""},
		{"{'endpoints':null," PORTS "}", ""},
		{"{'endpoints':[{'addresses':['192.0.2.1'],'conditions':{'ready':true}}]," PORTS
		 "}",
		 "192.0.2.1:15443"},
		{"{'endpoints':[{'addresses':['2001:db8::1']}]," PORTS "}", "[2001:db8::1]:15443"},
		/* ready is optional, and counts as true */
		{"{'endpoints':[{'addresses':['192.0.2.1'],'conditions':{}}]," PORTS "}",
		 "192.0.2.1:15443"},
		{"{'endpoints':[{'addresses':['192.0.2.1'],'conditions':{'ready':null}}]," PORTS
		 "}",
		 "192.0.2.1:15443"},
		{"{'endpoints':[{'addresses':['192.0.2.1'],'conditions':{'ready':false}}," /* -- */
		 "{'addresses':['192.0.2.2']}]," PORTS "}",
		 "192.0.2.2:15443"},
		{"{'endpoints':[{'addresses':['192.0.2.1'],'conditions':{'ready':true,"
		 "'serving':true,'terminating':true}}]," PORTS "}",
		 ""},
		/* one pod, several addresses */
		{"{'endpoints':[{'addresses':['192.0.2.1','192.0.2.2']}]," PORTS "}",
		 "192.0.2.1:15443"},
		{"{'endpoints':[{'addresses':[]}]," PORTS "}", ""},
		{"{'addressType':'FQDN','endpoints':[{'addresses':['gw.example.com']}]," PORTS "}",
		 ""},
		/* which port */
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'name':'x','port':7}]}",
		 "192.0.2.1:7"},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'name':'metrics',"
		 "'port':15020},{'name':'tunnel','port':15443}]}",
		 "192.0.2.1:15443"},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'name':'a','port':1},"
		 "{'name':'b','port':2}]}",
		 ""},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'name':'tunnel','port':1,"
		 "'protocol':'UDP'}]}",
		 ""},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'name':'tunnel'}]}", ""},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'port':65536}]}", ""},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[{'port':'15443'}]}", ""},
		{"{'endpoints':[{'addresses':['192.0.2.1']}],'ports':[]}", ""},
		{"{'endpoints':[{'addresses':['192.0.2.1']}]}", ""},
		/* what is nobody's address */
		{"{'endpoints':[{'addresses':['127.0.0.1']},{'addresses':['0.0.0.0']},"
		 "{'addresses':['169.254.169.254']},{'addresses':['224.0.0.1']},"
		 "{'addresses':['::1']},{'addresses':['::']},{'addresses':['fe80::1']},"
		 "{'addresses':['ff02::1']},{'addresses':['x']},{'addresses':[7]}]," PORTS "}",
		 ""},
	};
	struct addr addrs[GATEWAY_SLICE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(free_json) json_t *json = json_of(cases[i].object);

		print_message("%s\n", cases[i].object);
		assert_addrs(addrs, gateway_slice_read(json, addrs), cases[i].want);
	}
}

static void test_endpoints(void **state)
{
	static const struct {
		const char *object, *want;
	} cases[] = {
		{"{}", ""},
		{"{'subsets':[{'addresses':[{'ip':'192.0.2.1'},{'ip':'192.0.2.2'}]," PORTS "}]}",
		 "192.0.2.1:15443 192.0.2.2:15443"},
		{"{'subsets':[{'notReadyAddresses':[{'ip':'192.0.2.1'}]," PORTS "}]}", ""},
		{"{'subsets':[{'addresses':[{'ip':'192.0.2.1'}]," PORTS "},{'addresses':[{'ip':"
		 "'2001:db8::1'}],'ports':[{'name':'tunnel','port':9},{'name':'m','port':8}]}]}",
		 "192.0.2.1:15443 [2001:db8::1]:9"},
		{"{'subsets':[{'addresses':[{'ip':'192.0.2.1'}]}]}", ""},
		{"{'subsets':[7,{'addresses':[7,{'ip':7}]," PORTS "}]}", ""},
	};
	struct addr addrs[GATEWAY_SLICE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(free_json) json_t *json = json_of(cases[i].object);

		print_message("%s\n", cases[i].object);
		assert_addrs(addrs, gateway_endpoints_read(json, addrs), cases[i].want);
	}
}

static void test_a_slice_has_a_limit(void **state)
{
	OWNED(free_json) json_t *slice = json_of("{" PORTS "}");
	struct addr addrs[GATEWAY_SLICE_MAX];
	json_t *list = json_array();
	char text[32];

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(text, sizeof(text), "10.0.%u.%u", i / 250, i % 250 + 1);
		json_array_append_new(list, json_pack("{s:[s]}", "addresses", text));
	}
	json_object_set_new(slice, "endpoints", list);
	assert_int_equal(gateway_slice_read(slice, addrs), GATEWAY_SLICE_MAX);
}

/* ---- sets ---- */

static size_t addrs_of(const char *list, struct addr *ret)
{
	char copy[512], *save = NULL;
	size_t n = 0;

	snprintf(copy, sizeof(copy), "%s", list);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		assert_int_equal(addr_parse(w, &ret[n++]), 0);
	return n;
}

static void test_sets(void **state)
{
	static const struct {
		const char *row, *addrs; /* NULL: the row goes */
		int r;
		const char *told;
	} steps[] = {
		{"a", "192.0.2.2:1 192.0.2.1:1", 1, "192.0.2.1:1 192.0.2.2:1"},
		{"a", "192.0.2.1:1 192.0.2.2:1 192.0.2.1:1", 0, "192.0.2.1:1 192.0.2.2:1"},
		{"b", "192.0.2.2:1 192.0.2.3:1", 1, "192.0.2.1:1 192.0.2.2:1 192.0.2.3:1"},
		{"c", "192.0.2.4:1 192.0.2.5:1", 1,
		 "192.0.2.1:1 192.0.2.2:1 192.0.2.3:1 192.0.2.4:1"},
		{"a", NULL, 1, "192.0.2.2:1 192.0.2.3:1 192.0.2.4:1 192.0.2.5:1"},
		{"b", "192.0.2.3:1", 1, "192.0.2.3:1 192.0.2.4:1 192.0.2.5:1"},
		{"b", "192.0.2.3:2", 1, "192.0.2.3:2 192.0.2.4:1 192.0.2.5:1"},
		{"c", "", 1, "192.0.2.3:2"},
		{"none", NULL, 0, "192.0.2.3:2"},
		{"b", NULL, 1, ""},
	};
	OWNED(addr_store_done) struct addr_store store;
	struct addr addrs[16];

	(void)state;
	assert_int_equal(addr_store_init(&store), 0);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		print_message("%zu\n", i);
		if (steps[i].addrs)
			assert_int_equal(addr_store_put(&store, steps[i].row, addrs,
							addrs_of(steps[i].addrs, addrs)),
					 0);
		else
			addr_store_remove(&store, steps[i].row);
		assert_int_equal(addr_store_settle(&store, 4), steps[i].r);
		assert_addrs(store.told, store.n_told, steps[i].told);
	}
	assert_int_equal(addr_store_put(&store, "", addrs, 1), -EINVAL);
}

/* None is an answer, too, where nothing was known; and the cache's is no news twice. */
static void test_first_answers(void **state)
{
	struct addr addrs[4];
	size_t n = addrs_of("192.0.2.2:1 192.0.2.1:1", addrs);

	(void)state;
	for (int cached = 0; cached < 2; cached++) {
		OWNED(addr_store_done) struct addr_store store;

		assert_int_equal(addr_store_init(&store), 0);
		if (cached)
			assert_int_equal(addr_store_restore(&store, addrs, n, 64), 0);
		assert_int_equal(store.is_told, cached);
		assert_addrs(store.told, store.n_told, cached ? "192.0.2.1:1 192.0.2.2:1" : "");
		assert_int_equal(addr_store_settle(&store, 64), 1);
		assert_int_equal(addr_store_settle(&store, 64), 0);
		assert_int_equal(addr_store_put(&store, "a", addrs, n), 0);
		assert_int_equal(addr_store_settle(&store, 64), 1);
	}
}

static void test_nodes(void **state)
{
	static const struct {
		const char *object, *want;
	} cases[] = {
		{"{}", ""},
		{"{'status':{'addresses':[{'type':'InternalIP','address':'192.0.2.1'},"
		 "{'type':'Hostname','address':'192.0.2.9'},{'type':'ExternalIP','address':"
		 "'2001:db8::1'},{'type':'InternalIP','address':'node-1'},7]}}",
		 "192.0.2.1:0 [2001:db8::1]:0"},
	};
	struct addr addrs[NODE_ADDRS_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(free_json) json_t *json = json_of(cases[i].object);

		assert_addrs(addrs, node_read(json, addrs), cases[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),     cmocka_unit_test(test_slices),
		cmocka_unit_test(test_endpoints), cmocka_unit_test(test_a_slice_has_a_limit),
		cmocka_unit_test(test_sets),      cmocka_unit_test(test_first_answers),
		cmocka_unit_test(test_nodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

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
#include "kube/namespaces.h"
#include "kube/pods.h"
#include "kube_json_text.h"

/* ---- namespaces ---- */

static const char *const excluded[] = {"kube-system", "sluice-system"};

static int put_ns(struct namespace_store *store, const char *ns, const char *labels)
{
	OWNED_MEM char *text = NULL;
	OWNED(free_json) json_t *json = NULL;

	assert_true(asprintf(&text, "{'metadata':{'name':'%s'%s%s}}", ns,
			     labels ? ",'labels':" : "", labels ?: "") > 0);
	json = json_of(text);
	return namespace_store_put(store, json);
}

static void test_who_is_enforced(void **state)
{
	static const struct {
		enum enrol_mode mode;
		const char *ns;
		const char *labels; /* NULL: none */
		bool known;
		int enforced;
	} cases[] = {
		{ENROL_LABELLED, "shop", "{'sluice.io/egress':'enforced'}", true, 1},
		{ENROL_LABELLED, "shop", "{'sluice.io/egress':'Enforced'}", true, 0},
		{ENROL_LABELLED, "shop", "{'sluice.io/egress':''}", true, 0},
		{ENROL_LABELLED, "shop", "{'sluice.io/egress':true}", true, 0},
		{ENROL_LABELLED, "shop", "{'egress':'enforced'}", true, 0},
		{ENROL_LABELLED, "shop", "{}", true, 0},
		{ENROL_LABELLED, "shop", "null", true, 0},
		{ENROL_LABELLED, "shop", NULL, true, 0},
		{ENROL_LABELLED, "shop", NULL, false, -EAGAIN},
		{ENROL_LABELLED, "", NULL, false, -EAGAIN},
		{ENROL_LABELLED, "kube-system", "{'sluice.io/egress':'enforced'}", true, 0},
		{ENROL_LABELLED, "kube-system", NULL, false, 0},
		{ENROL_ALL, "shop", NULL, true, 1},
		{ENROL_ALL, "shop", "{'sluice.io/egress':'off'}", true, 1},
		{ENROL_ALL, "shop", NULL, false, 1},
		{ENROL_ALL, "kube-system", NULL, true, 0},
		{ENROL_ALL, "kube-system", NULL, false, 0},
		{ENROL_ALL, "sluice-system", NULL, false, 0},
		{ENROL_ALL, "kube-system2", NULL, false, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(namespace_store_done) struct namespace_store store;

		print_message("%zu: %s\n", i, cases[i].ns);
		assert_int_equal(namespace_store_init(&store, cases[i].mode, excluded, 2), 0);
		assert_int_equal(put_ns(&store, "another", "{'sluice.io/egress':'enforced'}"), 1);
		if (cases[i].known)
			assert_int_equal(put_ns(&store, cases[i].ns, cases[i].labels), 1);
		assert_int_equal(namespace_is_enforced(&store, cases[i].ns), cases[i].enforced);
	}
}

static void test_labels_change(void **state)
{
	OWNED(namespace_store_done) struct namespace_store store;

	(void)state;
	assert_int_equal(namespace_store_init(&store, ENROL_LABELLED, NULL, 0), 0);
	assert_int_equal(put_ns(&store, "shop", NULL), 1);
	assert_int_equal(put_ns(&store, "shop", "{'a':'b'}"), 0);
	assert_int_equal(put_ns(&store, "shop", "{'sluice.io/egress':'enforced'}"), 1);
	assert_int_equal(put_ns(&store, "shop", "{'sluice.io/egress':'enforced','c':'d'}"), 0);
	assert_int_equal(namespace_is_enforced(&store, "shop"), 1);
	namespace_store_remove(&store, "shop");
	namespace_store_remove(&store, "shop");
	assert_int_equal(namespace_is_enforced(&store, "shop"), -EAGAIN);
	assert_int_equal(put_ns(&store, "", NULL), -EINVAL);
}

static void test_namespaces_of_the_cache(void **state)
{
	OWNED(namespace_store_done) struct namespace_store store, again;
	OWNED(free_json) json_t *json = NULL;
	json_t *labelled;
	const char *ns;

	(void)state;
	assert_int_equal(namespace_store_init(&store, ENROL_LABELLED, NULL, 0), 0);
	assert_int_equal(namespace_store_init(&again, ENROL_LABELLED, NULL, 0), 0);
	put_ns(&store, "gone", "{'sluice.io/egress':'enforced'}");
	put_ns(&store, "flipped", "{'sluice.io/egress':'enforced'}");
	put_ns(&store, "same", NULL);
	json = namespace_store_json(&store);
	json_object_foreach(json, ns, labelled)
	{
		assert_int_equal(namespace_store_restore(&again, ns, json_is_true(labelled)), 1);
	}
	assert_int_equal(namespace_is_enforced(&again, "gone"), 1);
	assert_int_equal(namespace_is_enforced(&again, "flipped"), 1);
	assert_int_equal(namespace_is_enforced(&again, "same"), -EAGAIN); /* it was not, then */

	assert_int_equal(put_ns(&again, "flipped", NULL), 1);
	assert_int_equal(put_ns(&again, "same", NULL), 1);
	assert_int_equal(put_ns(&again, "same", NULL), 0);
	namespace_store_remove_unconfirmed(&again);
	assert_int_equal(namespace_is_enforced(&again, "gone"), -EAGAIN);
	assert_int_equal(namespace_is_enforced(&again, "flipped"), 0);
	assert_int_equal(namespace_is_enforced(&again, "same"), 0);
}

/* ---- pods ---- */

#define POD(spec, status)                                                                        \
	"{'metadata':{'namespace':'n','name':'p','uid':'u'},'spec':{" spec "},'status':{" status \
	"}}"

static struct pod_row *put_pod(struct pod_store *store, const char *text)
{
	OWNED(free_json) json_t *json = json_of(text);
	struct pod_row *row = NULL;

	assert_int_equal(pod_store_put(store, json, &row), 0);
	return row;
}

static void test_what_a_pod_says(void **state)
{
	static const struct {
		const char *object;
		bool host_network, ended, ready_to_find;
		const char *service_account;
	} cases[] = {
		{POD("", ""), false, false, false, ""},
		{POD("'serviceAccountName':'web'", "'phase':'Pending'"), false, false, false,
		 "web"},
		{POD("'hostNetwork':true", "'phase':'Running'"), true, false, false, ""},
		{POD("'hostNetwork':'true'", "'phase':'Running'"), false, false, false, ""},
		{POD("", "'phase':'Succeeded'"), false, true, false, ""},
		{POD("", "'phase':'Failed'"), false, true, false, ""},
		{POD("", "'phase':'Unknown'"), false, false, false, ""},
		{POD("", "'phase':'Failed','containerStatuses':[{'state':{'running':{}}}]"), false,
		 false, true, ""},
		{POD("", "'phase':'Failed','containerStatuses':[{'state':{'terminated':{}}}]"),
		 false, true, true, ""},
		{POD("", "'containerStatuses':[{'state':{'waiting':{}}}]"), false, false, false,
		 ""},
		{POD("", "'containerStatuses':[{'state':{'waiting':{}}},{'state':{'running':{}}}]"),
		 false, false, true, ""},
		{POD("", "'containerStatuses':[{'state':{'waiting':{}},"
			 "'lastState':{'terminated':{}}}]"),
		 false, false, true, ""},
		{POD("", "'initContainerStatuses':[{'state':{'terminated':{}}}]"), false, false,
		 true, ""},
		{POD("", "'ephemeralContainerStatuses':[{'state':{'running':{}}}]"), false, false,
		 true, ""},
		{POD("", "'conditions':[{'type':'PodReadyToStartContainers','status':'True'}]"),
		 false, false, true, ""},
		{POD("", "'conditions':[{'type':'PodReadyToStartContainers','status':'False'}]"),
		 false, false, false, ""},
		{POD("", "'conditions':[{'type':'PodScheduled','status':'True'}]"), false, false,
		 false, ""},
		{POD("", "'containerStatuses':{},'conditions':7"), false, false, false, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(pod_store_done) struct pod_store store;
		struct kube_pod pod;

		print_message("%s\n", cases[i].object);
		assert_int_equal(pod_store_init(&store), 0);
		assert_true(pod_row_tell(put_pod(&store, cases[i].object), 1, &pod));
		assert_string_equal(pod.ns, "n");
		assert_string_equal(pod.name, "p");
		assert_string_equal(pod.uid, "u");
		assert_string_equal(pod.service_account, cases[i].service_account);
		assert_int_equal(pod.host_network, cases[i].host_network);
		assert_int_equal(pod.ended, cases[i].ended);
		assert_int_equal(pod.ready_to_find, cases[i].ready_to_find);
		assert_true(pod.enforced);
	}
}

/* What is told, step by step: "enforced,ended,ready" or "" for nothing. */
static void test_what_is_told(void **state)
{
	static const char pending[] = POD("", "'phase':'Pending'");
	static const char running[] = POD("", "'containerStatuses':[{'state':{'running':{}}}]");
	static const char done[] = POD("", "'phase':'Succeeded'");
	static const struct {
		const char *name;
		struct {
			const char *object; /* NULL: gone */
			int enforced;
			const char *told;
		} steps[6];
	} cases[] = {
		{"a life",
		 {{pending, 1, "1,0,0"},
		  {pending, 1, ""},
		  {running, 1, "1,0,1"},
		  {done, 1, "1,1,0"},
		  {NULL, 1, ""}}},
		{"the label comes and goes",
		 {{pending, 0, "0,0,0"}, {pending, 1, "1,0,0"}, {pending, 0, "0,0,0"}}},
		{"nothing is said before its namespace is known",
		 {{pending, -EAGAIN, ""}, {running, -EAGAIN, ""}, {running, 1, "1,0,1"}}},
		{"a namespace that is forgotten changes nothing",
		 {{pending, 1, "1,0,0"}, {pending, -EAGAIN, ""}, {NULL, -EAGAIN, "1,1,0"}}},
		{"deleted, and never told of", {{pending, -EAGAIN, ""}, {NULL, -EAGAIN, "0,1,0"}}},
		{"an end is final",
		 {{done, 0, "0,1,0"}, {done, 1, ""}, {running, 1, ""}, {NULL, 1, ""}}},
		{"an end needs no namespace", {{done, -EAGAIN, "0,1,0"}, {done, 1, ""}}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(pod_store_done) struct pod_store store;
		struct pod_row *row = NULL;

		assert_int_equal(pod_store_init(&store), 0);
		for (size_t k = 0; k < 6 && cases[i].steps[k].told; k++) {
			const char *object = cases[i].steps[k].object;
			int enforced = cases[i].steps[k].enforced;
			struct kube_pod pod;
			char told[16] = "";
			bool is;

			print_message("%s: %zu\n", cases[i].name, k + 1);
			if (object)
				row = put_pod(&store, object);
			is = object ? pod_row_tell(row, enforced, &pod)
				    : pod_row_tell_end(row, enforced, &pod);
			if (is)
				snprintf(told, sizeof(told), "%d,%d,%d", pod.enforced, pod.ended,
					 pod.ready_to_find);
			assert_string_equal(told, cases[i].steps[k].told);
		}
	}
}

static void test_pods_are_found(void **state)
{
	OWNED(pod_store_done) struct pod_store store;
	OWNED(free_json) json_t *nameless = json_of("{'metadata':{'namespace':'n'}}");
	struct pod_row *row;
	unsigned n = 0;

	(void)state;
	assert_int_equal(pod_store_init(&store), 0);
	assert_int_equal(pod_store_put(&store, nameless, &row), -EINVAL);
	for (unsigned i = 0; i < 300; i++) {
		char text[128];

		snprintf(text, sizeof(text),
			 "{'metadata':{'namespace':'n%u','name':'p'},'spec':{'serviceAccountName':"
			 "'a%u'}}",
			 i, i);
		put_pod(&store, text);
	}
	row = pod_store_find(&store, "n77", "p");
	assert_non_null(row);
	assert_string_equal(pod_row_service_account(row), "a77");
	assert_string_equal(pod_row_uid(row), "");
	pod_store_remove(&store, row);
	assert_null(pod_store_find(&store, "n77", "p"));
	assert_null(pod_store_find(&store, "n7", "7p"));
	for (row = pod_store_next(&store, NULL); row; row = pod_store_next(&store, row))
		n++;
	assert_int_equal(n, 299);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_enforced),
		cmocka_unit_test(test_labels_change),
		cmocka_unit_test(test_namespaces_of_the_cache),
		cmocka_unit_test(test_what_a_pod_says),
		cmocka_unit_test(test_what_is_told),
		cmocka_unit_test(test_pods_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

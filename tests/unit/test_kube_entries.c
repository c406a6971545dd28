/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/owned.h"
#include "kube/entries.h"
#include "kube/entries_pack.h"
#include "kube_json_text.h"

#define META(ns, name, version)                                                          \
	"'metadata':{'namespace':'" ns "','name':'" name "','resourceVersion':'" version \
	"','uid':'u-" name "','creationTimestamp':'2024-05-01T10:00:00Z',"               \
	"'managedFields':[{'manager':'kubectl'}],'labels':{'a':'b'}}"
#define GOOD_SPEC "'spec':{'hosts':['a.io'],'ports':[{'number':443,'name':'tls','protocol':'TLS'}]}"
#define OTHER_SPEC \
	"'spec':{'hosts':['b.io'],'ports':[{'number':443,'name':'tls','protocol':'TLS'}]}"
#define BAD_SPEC "'spec':{'hosts':['-.io'],'ports':[{'number':443,'name':'tls','protocol':'TLS'}]}"

static struct entry_store store;

static int set_up(void **state)
{
	(void)state;
	return entry_store_init(&store);
}

static int tear_down(void **state)
{
	(void)state;
	entry_store_done(&store);
	return 0;
}

static int put(const char *text)
{
	OWNED(free_json) json_t *json = json_of(text);

	return entry_store_put(&store, json);
}

static const struct service_entry *find(const char *name)
{
	for (size_t i = 0; i < store.n; i++) {
		if (strcmp(store.list[i].name, name) == 0)
			return &store.list[i];
	}
	return NULL;
}

/* ---- one object after the other ---- */

enum step_do { PUT, RESTORE, DELETE, SYNC };

/* What each step answers, and what is there afterwards: names of entries with their host. */
static const struct step {
	const char *name;
	struct {
		enum step_do what;
		const char *object; /* or "namespace/name" */
		int flags;
		const char *there;
		size_t refused;
	} steps[6];
} cases[] = {
	{"add, change, delete",
	 {
		 {PUT, "{" META("n", "x", "1") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io", 0},
		 {PUT, "{" META("n", "x", "2") "," OTHER_SPEC "}", ENTRY_F_CHANGED, "x=b.io", 0},
		 {PUT, "{" META("n", "y", "3") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=b.io y=a.io",
		  0},
		 {DELETE, "n/x", ENTRY_F_CHANGED, "y=a.io", 0},
		 {DELETE, "n/x", 0, "y=a.io", 0},
		 {DELETE, "n/y", ENTRY_F_CHANGED, "", 0},
	 }},
	{"what the registry does not see is no change",
	 {
		 {PUT, "{" META("n", "x", "1") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io", 0},
		 {PUT, "{" META("n", "x", "2") "," GOOD_SPEC ",'status':{'conditions':[]}}", 0,
		  "x=a.io", 0},
	 }},
	{"the same name in two namespaces",
	 {
		 {PUT, "{" META("n", "x", "1") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io", 0},
		 {PUT, "{" META("m", "x", "1") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io x=a.io",
		  0},
		 {DELETE, "n/x", ENTRY_F_CHANGED, "x=a.io", 0},
	 }},
	{"a bad one is refused alone, and told once a version",
	 {
		 {PUT, "{" META("n", "x", "1") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io", 0},
		 {PUT, "{" META("n", "y", "2") "," BAD_SPEC "}", ENTRY_F_REFUSED, "x=a.io", 1},
		 {PUT, "{" META("n", "y", "2") "," BAD_SPEC "}", 0, "x=a.io", 1},
		 {PUT, "{" META("n", "y", "3") "," BAD_SPEC "}", ENTRY_F_REFUSED, "x=a.io", 1},
		 {DELETE, "n/y", 0, "x=a.io", 0},
	 }},
	{"what becomes bad is not served as it was before, until it is mended",
	 {
		 {PUT, "{" META("n", "x", "1") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io", 0},
		 {PUT, "{" META("n", "x", "2") "," BAD_SPEC "}", ENTRY_F_CHANGED | ENTRY_F_REFUSED,
		  "", 1},
		 {PUT, "{" META("n", "x", "3") "," OTHER_SPEC "}", ENTRY_F_CHANGED, "x=b.io", 0},
	 }},
	{"of the cache stays what the API confirms",
	 {
		 {RESTORE, "{" META("n", "x", "") "," GOOD_SPEC "}", ENTRY_F_CHANGED, "x=a.io", 0},
		 {RESTORE, "{" META("n", "y", "") "," GOOD_SPEC "}", ENTRY_F_CHANGED,
		  "x=a.io y=a.io", 0},
		 {RESTORE, "{" META("n", "z", "") "," GOOD_SPEC "}", ENTRY_F_CHANGED,
		  "x=a.io y=a.io z=a.io", 0},
		 {PUT, "{" META("n", "x", "7") "," GOOD_SPEC "}", 0, "x=a.io y=a.io z=a.io", 0},
		 {PUT, "{" META("n", "y", "8") "," OTHER_SPEC "}", ENTRY_F_CHANGED,
		  "x=a.io y=b.io z=a.io", 0},
		 {SYNC, "", ENTRY_F_CHANGED, "x=a.io y=b.io", 0},
	 }},
	{"no name",
	 {
		 {PUT, "{'metadata':{'namespace':'n'}," GOOD_SPEC "}", -22, "", 0},
		 {PUT, "{}", -22, "", 0},
		 {PUT, "[]", -22, "", 0},
	 }},
};

static int compare_words(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void assert_there(const char *want)
{
	char got[256] = "", words[8][40], *sorted[8];

	assert_true(store.n <= 8);
	for (size_t i = 0; i < store.n; i++) {
		snprintf(words[i], sizeof(words[i]), "%.15s=%.15s", store.list[i].name,
			 store.list[i].hosts[0]);
		sorted[i] = words[i];
	}
	qsort(sorted, store.n, sizeof(sorted[0]), compare_words);
	for (size_t i = 0; i < store.n; i++) {
		strcat(got, i > 0 ? " " : "");
		strcat(got, sorted[i]);
	}
	assert_string_equal(got, want);
}

static int do_step(enum step_do what, const char *object)
{
	char ns[64] = "", name[64] = "";

	if (what == SYNC)
		return entry_store_remove_unconfirmed(&store);
	if (what == DELETE) {
		assert_int_equal(sscanf(object, "%63[^/]/%63s", ns, name), 2);
		return entry_store_remove(&store, ns, name);
	}
	if (what == PUT)
		return put(object);
	OWNED(free_json) json_t *json = json_of(object);

	return entry_store_restore(&store, json);
}

static void test_steps(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t k = 0; k < 6 && cases[i].steps[k].object; k++) {
			int flags = do_step(cases[i].steps[k].what, cases[i].steps[k].object);

			print_message("%s: %zu\n", cases[i].name, k + 1);
			assert_int_equal(flags, cases[i].steps[k].flags);
			assert_there(cases[i].steps[k].there);
			assert_int_equal(store.n_refused, cases[i].steps[k].refused);
		}
		tear_down(state);
		assert_int_equal(set_up(state), 0);
	}
}

/* ---- what is wrong ---- */

static void test_says_what_is_wrong(void **state)
{
	static const struct {
		const char *spec, *error;
	} bad[] = {
		{"'spec':{'hosts':['-.io']}", "ServiceEntry n/x: spec.hosts[0]: '-.io'"},
		{"'spec':{'hosts':'a.io'}",
		 "ServiceEntry n/x: spec.hosts: must be a list, not a string"},
		{"'spec':{'hosts':['a.io'],'ports':[{'number':1.5,'name':'a'}]}",
		 "ServiceEntry n/x: spec.ports[0].number: must be a whole decimal number, not 1.5"},
		{"'spec':{'hosts':['a.io'],'ports':[{'number':70000,'name':'a'}]}",
		 "ServiceEntry n/x: spec.ports[0].number: must be 1 to 65535, not 70000"},
		{"'spec':{'hosts':['a.io'],'resolution':true}",
		 "ServiceEntry n/x: spec.resolution: must be a string, not a boolean"},
		{"'spec':{'hosts':['a.io'],'colour':null}",
		 "ServiceEntry n/x: spec.colour: no such field"},
		{"'status':{}", "ServiceEntry n/x: spec: is missing"},
		{"'spec':[]", "ServiceEntry n/x: spec: must be a map, not a list"},
	};
	struct entry_refusal what;

	(void)state;
	assert_false(entry_store_refusal(&store, &what));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		OWNED_MEM char *text = NULL;

		assert_true(asprintf(&text,
				     "{'metadata':{'namespace':'n','name':'x','uid':'u',"
				     "'resourceVersion':'%zu'},%s}",
				     i, bad[i].spec) > 0);
		assert_int_equal(put(text), ENTRY_F_REFUSED);
		assert_true(entry_store_refusal(&store, &what));
		print_message("%s\n", what.error);
		assert_memory_equal(what.error, bad[i].error, strlen(bad[i].error));
		assert_string_equal(what.ns, "n");
		assert_string_equal(what.name, "x");
		assert_string_equal(what.uid, "u");
		assert_int_equal(store.n_refused, 1);
	}
}

static void test_nests_only_so_deep(void **state)
{
	struct entry_refusal what;
	char text[2048] = "{'metadata':{'namespace':'n','name':'x'},'spec':";

	(void)state;
	for (int i = 0; i < 200; i++)
		strcat(text, "[");
	for (int i = 0; i < 200; i++)
		strcat(text, "]");
	strcat(text, "}");
	assert_int_equal(put(text), ENTRY_F_REFUSED);
	assert_true(entry_store_refusal(&store, &what));
	assert_non_null(strstr(what.error, "ServiceEntry n/x: nested more than 64 levels deep"));
}

static void test_newest_refusal_is_said(void **state)
{
	struct entry_refusal what;

	(void)state;
	put("{" META("n", "x", "1") "," BAD_SPEC "}");
	put("{" META("n", "y", "2") "," BAD_SPEC "}");
	put("{" META("n", "z", "3") "," BAD_SPEC "}");
	assert_true(entry_store_refusal(&store, &what));
	assert_string_equal(what.name, "z");
	entry_store_remove(&store, "n", "y"); /* out of the middle */
	entry_store_remove(&store, "n", "z");
	assert_true(entry_store_refusal(&store, &what));
	assert_string_equal(what.name, "x");
	assert_string_equal(what.version, "1");
	entry_store_remove(&store, "n", "x");
	assert_false(entry_store_refusal(&store, &what));
}

/* ---- all that an entry says ---- */

static const char *const rich[] = {
	"'spec':{'hosts':['A.io.','*.b.io'],'ports':[{'number':80,'name':'http','protocol':'HTTP'},"
	"{'number':443,'name':'tls','protocol':'TLS'}],'exportTo':['.','other']}",
	"'spec':{'hosts':['db.io'],'addresses':['192.0.2.1','198.51.100.0/24','2001:db8::/32'],"
	"'ports':[{'number':5432,'name':'pg','protocol':'TCP','targetPort':6432}],"
	"'resolution':'STATIC','endpoints':[{'address':'192.0.2.9','ports':{'pg':7},'weight':3},"
	"{'address':'2001:db8::9'}]}",
	"'spec':{'hosts':['one.io'],'addresses':['192.0.2.1'],'ports':[{'number':1,'name':'a'}],"
	"'resolution':'DNS','endpoints':[{'address':'real.one.io'}],'exportTo':['~']}",
	"'spec':{'hosts':['*.w.io'],'ports':[{'number':443,'name':'a','protocol':'TLS'}],"
	"'resolution':'DYNAMIC_DNS','exportTo':['*']}",
	/* no way to anywhere, which stays so */
	"'spec':{'hosts':['a.io','b.io'],'ports':[{'number':5,'name':'a','protocol':'TCP'}],"
	"'workloadSelector':{'labels':{'app':'x'}}}",
	"'spec':{'hosts':['a.io'],'addresses':['10.0.0.0/8'],'ports':[{'number':5,'name':'a',"
	"'protocol':'TCP'}],'resolution':'STATIC'}",
	"'spec':{'hosts':['none.io']}",
};

/* What is written to the cache is read back as the same entry. */
static void test_json_and_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rich); i++) {
		OWNED(free_json) json_t *json = NULL;
		OWNED_MEM char *text = NULL;

		assert_true(asprintf(&text, "{" META("n", "x", "1") ",%s}", rich[i]) > 0);
		print_message("%s\n", text);
		assert_int_equal(put(text), ENTRY_F_CHANGED);
		json = entry_json(&store.list[0]);
		assert_non_null(json);
		assert_int_equal(entry_store_restore(&store, json), 0);
		entry_store_remove(&store, "n", "x");
	}
}

static void test_reads_all_fields(void **state)
{
	const struct service_entry *e;

	(void)state;
	put("{" META(
		"shop", "x",
		"1") ","
		     "'spec':{'hosts':['A.io.','*.b.io'],'ports':[{'number':80,'name':'http','"
		     "protocol':"
		     "'HTTP'},{'number':443,'name':'tls','protocol':'TLS','targetPort':8443}],"
		     "'addresses':['192.0.2.1'],'exportTo':['.','other'],'resolution':'STATIC',"
		     "'endpoints':[{'address':'192.0.2.9','ports':{'tls':9443},'weight':3}]}}");
	assert_int_equal(store.n, 1);
	e = &store.list[0];
	assert_string_equal(e->ns, "shop");
	assert_string_equal(e->name, "x");
	assert_int_equal(e->created, 1714557600);
	assert_string_equal(e->source, "kubernetes");
	assert_int_equal(e->n_hosts, 2);
	assert_string_equal(e->hosts[0], "a.io");
	assert_string_equal(e->hosts[1], "*.b.io");
	assert_int_equal(e->n_ports, 2);
	assert_int_equal(e->ports[1].number, 443);
	assert_int_equal(e->ports[1].target_port, 8443);
	assert_int_equal(e->ports[1].protocol, PROTOCOL_TLS);
	assert_string_equal(e->ports[1].name, "tls");
	assert_int_equal(e->n_addresses, 1);
	assert_int_equal(e->addresses[0].bits, 128);
	assert_int_equal(e->n_endpoints, 1);
	assert_string_equal(e->endpoints[0].address, "192.0.2.9");
	assert_int_equal(e->endpoints[0].ports[0], 0);
	assert_int_equal(e->endpoints[0].ports[1], 9443);
	assert_int_equal(e->endpoints[0].weight, 3);
	assert_int_equal(e->n_export_to, 2);
	assert_string_equal(e->export_to[0], "shop");
	assert_string_equal(e->export_to[1], "other");
	assert_int_equal(e->resolution, RESOLUTION_STATIC);
}

/* Each field that differs makes a difference. */
static void test_sees_each_difference(void **state)
{
	static const char *const specs[] = {
		"'hosts':['a.io'],'ports':[{'number':443,'name':'a','protocol':'TLS'}]",
		"'hosts':['b.io'],'ports':[{'number':443,'name':'a','protocol':'TLS'}]",
		"'hosts':['b.io','c.io'],'ports':[{'number':443,'name':'a','protocol':'TLS'}]",
		"'hosts':['b.io'],'ports':[{'number':444,'name':'a','protocol':'TLS'}]",
		"'hosts':['b.io'],'ports':[{'number':444,'name':'b','protocol':'TLS'}]",
		"'hosts':['b.io'],'ports':[{'number':444,'name':'b','protocol':'HTTPS'}]",
		"'hosts':['b.io'],'ports':[]",
		"'hosts':['b.io'],'addresses':['192.0.2.1']",
		"'hosts':['b.io'],'addresses':['192.0.2.2']",
		"'hosts':['b.io'],'addresses':['192.0.2.0/24']",
		"'hosts':['b.io'],'exportTo':['.']",
		"'hosts':['b.io'],'exportTo':['m']",
		"'hosts':['b.io'],'resolution':'DNS'",
		"'hosts':['b.io'],'resolution':'STATIC'",
		"'hosts':['b.io'],'resolution':'STATIC','endpoints':[{'address':'192.0.2.1'}]",
		"'hosts':['b.io'],'resolution':'STATIC','endpoints':[{'address':'192.0.2.2'}]",
		"'hosts':['b.io'],'resolution':'STATIC','endpoints':[{'address':'192.0.2.2',"
		"'weight':2}]",
		"'hosts':['b.io'],'resolution':'STATIC','ports':[{'number':1,'name':'a',"
		"'targetPort':2}],'endpoints':[{'address':'192.0.2.2'}]",
		"'hosts':['b.io'],'resolution':'STATIC','ports':[{'number':1,'name':'a',"
		"'targetPort':3}],'endpoints':[{'address':'192.0.2.2'}]",
		"'hosts':['b.io'],'resolution':'STATIC','ports':[{'number':1,'name':'a',"
		"'targetPort':3}],'endpoints':[{'address':'192.0.2.2','ports':{'a':9}}]",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		OWNED_MEM char *text = NULL;

		assert_true(asprintf(&text, "{" META("n", "x", "1") ",'spec':{%s}}", specs[i]) > 0);
		print_message("%s\n", specs[i]);
		assert_int_equal(put(text), ENTRY_F_CHANGED);
		assert_int_equal(put(text), 0);
	}
}

/* ---- many ---- */

#define MANY 5000

static void put_many(unsigned i, const char *host, int flags)
{
	char text[400];

	snprintf(text, sizeof(text),
		 "{'metadata':{'namespace':'n%u','name':'e%u'},'spec':{'hosts':['%s']}}", i % 7, i,
		 host);
	assert_int_equal(put(text), flags);
}

static void test_many(void **state)
{
	char ns[16], name[16];

	(void)state;
	for (unsigned i = 0; i < MANY; i++)
		put_many(i, "a.io", ENTRY_F_CHANGED);
	for (unsigned i = 0; i < MANY; i += 3) {
		snprintf(ns, sizeof(ns), "n%u", i % 7);
		snprintf(name, sizeof(name), "e%u", i);
		assert_int_equal(entry_store_remove(&store, ns, name), ENTRY_F_CHANGED);
	}
	for (unsigned i = 1; i < MANY; i += 3)
		put_many(i, "b.io", ENTRY_F_CHANGED);
	assert_int_equal(store.n, MANY - (MANY + 2) / 3);
	for (unsigned i = 0; i < MANY; i += 501) {
		const struct service_entry *e;

		snprintf(name, sizeof(name), "e%u", i);
		e = find(name);
		assert_int_equal(e != NULL, i % 3 != 0);
		if (e)
			assert_string_equal(e->hosts[0], i % 3 == 1 ? "b.io" : "a.io");
	}
}

/* What another thread reads stays as it was. */
static void test_snapshot(void **state)
{
	struct entry_snapshot snapshot;

	(void)state;
	put("{" META("n", "x", "1") "," GOOD_SPEC "}");
	put("{" META("n", "y", "1") "," GOOD_SPEC "}");
	assert_int_equal(entry_store_snapshot(&store, &snapshot), 0);
	put("{" META("n", "x", "2") "," OTHER_SPEC "}");
	entry_store_remove(&store, "n", "y");
	entry_store_done(&store);
	assert_int_equal(snapshot.n, 2);
	for (size_t i = 0; i < snapshot.n; i++)
		assert_string_equal(snapshot.list[i].hosts[0], "a.io");
	entry_snapshot_done(&snapshot);
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_STORE(test_steps),
		WITH_STORE(test_says_what_is_wrong),
		WITH_STORE(test_nests_only_so_deep),
		WITH_STORE(test_newest_refusal_is_said),
		WITH_STORE(test_json_and_back),
		WITH_STORE(test_reads_all_fields),
		WITH_STORE(test_sees_each_difference),
		WITH_STORE(test_many),
		WITH_STORE(test_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

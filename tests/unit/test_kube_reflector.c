/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/owned.h"
#include "kube/kube_json.h"
#include "kube/reflector_backoff.h"
#include "kube/reflector_known.h"
#include "kube/reflector_path.h"
#include "kube/reflector_served.h"
#include "kube/reflector_trouble.h"

/* ---- paths ---- */

static void check_path(char *path, const char *want)
{
	if (want)
		assert_string_equal(path, want);
	else
		assert_null(path);
	free(path);
}

static void test_paths(void **state)
{
	static const char *const versions[] = {"v1", NULL};
	const struct reflector_config core = {.group = "",
					      .versions = versions,
					      .resource = "pods",
					      .field_selector = "spec.nodeName=n&1"};
	const struct reflector_config crd = {.group = "networking.istio.io",
					     .versions = versions,
					     .resource = "serviceentries",
					     .ns = "shop",
					     .label_selector = "a in (b,c)"};

	(void)state;
	check_path(path_group(&core), NULL);
	check_path(path_group(&crd), "/apis/networking.istio.io");
	check_path(path_kinds(&core, "v1"), "/api/v1");
	check_path(path_kinds(&crd, "v1beta1"), "/apis/networking.istio.io/v1beta1");
	check_path(path_list(&core, "v1", 500, NULL),
		   "/api/v1/pods?limit=500&fieldSelector=spec.nodeName%3Dn%261");
	check_path(path_list(&crd, "v1", 1, "a+/="),
		   "/apis/networking.istio.io/v1/namespaces/shop/serviceentries"
		   "?limit=1&continue=a%2B%2F%3D&labelSelector=a%20in%20%28b%2Cc%29");
	check_path(path_watch(&core, "v1", "12 3", 400),
		   "/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=400"
		   "&resourceVersion=12%203&fieldSelector=spec.nodeName%3Dn%261");
	check_path(path_watch(&crd, "v1", NULL, 300),
		   "/apis/networking.istio.io/v1/namespaces/shop/serviceentries"
		   "?watch=1&allowWatchBookmarks=true&timeoutSeconds=300&sendInitialEvents=true"
		   "&resourceVersionMatch=NotOlderThan&labelSelector=a%20in%20%28b%2Cc%29");
}

/* ---- waiting ---- */

static void test_backoff(void **state)
{
	static const unsigned base[] = {800, 1600, 3200, 6400, 12800, 25600};
	static const uint32_t randoms[] = {0, 1, 399, 400, 401, 123456789, UINT32_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(randoms); i++) {
		struct backoff b = {.min_ms = 800, .max_ms = 30000};

		for (size_t n = 0; n < 100; n++) {
			unsigned ms = backoff_next(&b, randoms[i]);
			unsigned low = n < ARRAY_SIZE(base) ? base[n] : 30000;

			assert_true(ms <= 30000 && ms <= low * 3 / 2);
			assert_true(ms >= (low < 22500 ? low : 22500));
		}
		backoff_reset(&b);
		assert_true(backoff_next(&b, randoms[i]) <= 1200);
	}
}

static void test_backoff_first_free(void **state)
{
	struct backoff b = {.min_ms = 800, .max_ms = 30000};

	(void)state;
	assert_int_equal(backoff_first_free(&b, 0), 0);
	assert_int_equal(backoff_first_free(&b, 0), 800);
	assert_int_equal(backoff_first_free(&b, 0), 1600);
	backoff_reset(&b);
	assert_int_equal(backoff_first_free(&b, 7), 0);
}

/* ---- versions ---- */

static void test_which_version(void **state)
{
	static const struct {
		const char *group, *want;
	} cases[] = {
		{"{\"versions\":[{\"version\":\"v1\"},{\"version\":\"v1beta1\"}],"
		 "\"preferredVersion\":{\"version\":\"v1\"}}",
		 "v1 v1beta1 "},
		{"{\"versions\":[{\"version\":\"v1\"},{\"version\":\"v1beta1\"}],"
		 "\"preferredVersion\":{\"version\":\"v1beta1\"}}",
		 "v1beta1 v1 "},
		{"{\"versions\":[{\"version\":\"v1alpha1\"},{\"version\":\"v2\"},"
		 "{\"version\":\"v1\"}],\"preferredVersion\":{\"version\":\"v2\"}}",
		 "v1 v1alpha1 "},
		{"{\"preferredVersion\":{\"version\":\"v2\"},\"versions\":[{\"version\":\"v2\"}]}",
		 ""},
		{"{\"preferredVersion\":[],\"versions\":[1,{},{\"version\":3},null,"
		 "{\"version\":\"v1\"}]}",
		 "v1 "},
		{"{\"versions\":{\"version\":\"v1\"}}", ""},
		{"{}", ""},
		{"[]", ""},
	};
	static const char *const versions[] = {"v1", "v1beta1", "v1alpha1", NULL};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *group = json_loads(cases[i].group, 0, NULL);
		const char *found[SERVED_VERSIONS_MAX];
		char text[100] = "";
		size_t n;

		assert_non_null(group);
		n = served_order(group, versions, found);
		for (size_t k = 0; k < n; k++)
			sprintf(text + strlen(text), "%s ", found[k]);
		assert_string_equal(text, cases[i].want);
		json_decref(group);
	}
}

static void test_which_kinds(void **state)
{
	static const struct {
		const char *kinds;
		bool want;
	} cases[] = {
		{"{\"resources\":[{\"name\":\"pods/log\"},{\"name\":\"pods\"}]}", true},
		{"{\"resources\":[{\"name\":\"pods/log\"}]}", false},
		{"{\"resources\":[null,7,{\"name\":{}}]}", false},
		{"{\"resources\":\"pods\"}", false},
		{"[]", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *kinds = json_loads(cases[i].kinds, 0, NULL);

		assert_non_null(kinds);
		assert_int_equal(served_has(kinds, "pods"), cases[i].want);
		json_decref(kinds);
	}
}

/* ---- what is known ---- */

static char told[10000];

static void on_object(void *ctx, json_t *object)
{
	(void)ctx;
	sprintf(told + strlen(told), "+%s/%s ", kube_json_ns(object), kube_json_name(object));
}

static void on_deleted(void *ctx, const char *ns, const char *name)
{
	(void)ctx;
	sprintf(told + strlen(told), "-%s/%s ", ns, name);
}

static const struct reflector_hooks hooks = {.on_object = on_object, .on_deleted = on_deleted};

static int act(struct known *known, char way, const char *ns, const char *name, const char *version)
{
	json_t *object = json_pack("{s{ssssss}}", "metadata", "namespace", ns, "name", name,
				   "resourceVersion", version);
	int r = way == '+' ? known_take(known, object) : known_drop(known, object);

	assert_non_null(object);
	json_decref(object);
	return r;
}

static void expect(const char *want)
{
	assert_string_equal(told, want);
	told[0] = '\0';
}

static void test_known(void **state)
{
	struct known known = {0};

	(void)state;
	assert_int_equal(known_init(&known, &hooks), 0);
	known_begin(&known);
	assert_int_equal(act(&known, '+', "x", "a", "1"), 0);
	assert_int_equal(act(&known, '+', "y", "a", "1"), 0);
	assert_int_equal(act(&known, '+', "", "a", "1"), 0);
	known_end(&known);
	expect("+x/a +y/a +/a ");

	/* Only what differs; a version may be anything. */
	assert_int_equal(act(&known, '+', "x", "a", "1"), 0);
	assert_int_equal(act(&known, '+', "x", "a", "0"), 0);
	assert_int_equal(act(&known, '+', "x", "a", "1"), 0);
	assert_int_equal(act(&known, '-', "x", "b", "5"), 0);
	assert_int_equal(act(&known, '-', "y", "a", "5"), 0);
	assert_int_equal(act(&known, '-', "y", "a", "5"), 0);
	expect("+x/a +x/a -y/a ");
	assert_int_equal(known.table.n, 2);

	/* A list that did not come to its end, and one that did. */
	known_begin(&known);
	assert_int_equal(act(&known, '+', "", "a", "1"), 0);
	known_begin(&known);
	assert_int_equal(act(&known, '+', "x", "a", "1"), 0);
	assert_int_equal(act(&known, '+', "z", "n", "1"), 0);
	expect("+z/n ");
	known_end(&known);
	expect("-/a ");
	known_end(&known);
	expect("");

	assert_int_equal(act(&known, '+', "x", "", "1"), -EBADMSG);
	assert_int_equal(act(&known, '+', "x", "c", ""), -EBADMSG);
	assert_int_equal(act(&known, '-', "x", "", "1"), -EBADMSG);
	expect("");
	known_done(&known);
}

static void test_many_known(void **state)
{
	struct known known = {0};
	char name[20];

	(void)state;
	assert_int_equal(known_init(&known, &(struct reflector_hooks){0}), 0);
	known_done(&known);
	assert_int_equal(known_init(&known, &hooks), 0);
	for (int i = 0; i < 100000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(act(&known, '+', "x", name, "1"), 0);
		told[0] = '\0';
	}
	assert_int_equal(known.table.n, 100000);
	known_begin(&known);
	for (int i = 0; i < 100000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		if (i != 777)
			assert_int_equal(act(&known, '+', "x", name, "1"), 0);
	}
	known_end(&known);
	expect("-x/n777 ");
	known_done(&known);
}

/* ---- trouble ---- */

static void test_trouble_is_told_once(void **state)
{
	static const struct {
		char what; /* the server, rights, nonsense; "+" it works again */
		unsigned at_s;
		bool told;
	} cases[] = {
		{'s', 1, true},     {'s', 2, false},    {'s', 7200, false}, /* for hours */
		{'r', 7200, false}, {'r', 7201, true},  {'r', 7202, false}, /* another one */
		{'+', 7203, false}, {'s', 7204, true},  {'+', 7205, false}, /* new */
		{'s', 7206, false}, {'+', 7207, false}, {'s', 7208, false}, /* comes and goes */
		{'+', 7209, false}, {'n', 7210, true},  {'+', 7211, false}, {'s', 7264, true},
		{'r', 7300, false}, {'+', 7301, false}, {'r', 7302, false}, /* has been started */
		{'s', 7400, true},  {'r', 7401, false}, {'s', 7402, false}, {'r', 7403, false},
		{'r', 7404, true},
	};
	const struct kube_answer server = {.r = -ECONNREFUSED, .text = "refused"};
	const struct kube_answer rights = {.status = 403, .text = "forbidden"};
	const struct kube_answer nonsense = {.r = -EBADMSG, .text = "no JSON"};
	struct trouble t = {.what = "pods", .server = "https://k:443"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t now = cases[i].at_s * (uint64_t)1000, before = 0, after = 0;

		for (int k = 0; k < TROUBLE_N_; k++)
			before += t.told_ms[k];
		if (cases[i].what == '+')
			trouble_over(&t);
		else
			trouble_note(&t,
				     cases[i].what == 's'   ? &server
				     : cases[i].what == 'r' ? &rights
							    : &nonsense,
				     now);
		for (int k = 0; k < TROUBLE_N_; k++)
			after += t.told_ms[k];
		assert_int_equal(after != before, cases[i].told);
		assert_int_equal(t.times > 0, cases[i].what != '+');
	}
}

static void test_kinds_of_trouble(void **state)
{
	static const struct {
		int r;
		long status;
		enum trouble_kind want;
	} cases[] = {
		{-ECONNREFUSED, 0, TROUBLE_SERVER}, {-ETIMEDOUT, 200, TROUBLE_SERVER},
		{-EKEYREJECTED, 0, TROUBLE_SERVER}, {0, 500, TROUBLE_SERVER},
		{0, 503, TROUBLE_SERVER},           {0, 429, TROUBLE_SERVER},
		{0, 401, TROUBLE_RIGHTS},           {0, 403, TROUBLE_RIGHTS},
		{0, 400, TROUBLE_ANSWER},           {0, 302, TROUBLE_ANSWER},
		{-EBADMSG, 200, TROUBLE_ANSWER},    {-EMSGSIZE, 200, TROUBLE_ANSWER},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct kube_answer answer = {.r = cases[i].r, .status = cases[i].status};

		assert_int_equal(trouble_kind(&answer), cases[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_backoff_first_free),
		cmocka_unit_test(test_which_version),
		cmocka_unit_test(test_which_kinds),
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_many_known),
		cmocka_unit_test(test_trouble_is_told_once),
		cmocka_unit_test(test_kinds_of_trouble),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

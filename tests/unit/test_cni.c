/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "plugin/cni.h"

static void free_json(json_t **j)
{
	json_decref(*j);
}

/* ---- environment ---- */

static const char *const *current; /* "NAME=value", NULL at the end */

static const char *get(const char *name)
{
	size_t n = strlen(name);

	for (const char *const *p = current; *p; p++) {
		if (strncmp(*p, name, n) == 0 && (*p)[n] == '=')
			return *p + n + 1;
	}
	return NULL;
}

#define ID    "CNI_CONTAINERID=4c7f-a_b.c"
#define NETNS "CNI_NETNS=/run/netns/a"
#define IF    "CNI_IFNAME=eth0"
#define PATH  "CNI_PATH=/opt/cni/bin"
#define ID129                                                              \
	"CNI_CONTAINERID="                                                 \
	"0123456789012345678901234567890123456789012345678901234567890123" \
	"01234567890123456789012345678901234567890123456789012345678901234"

static void test_environment(void **state)
{
	static const struct {
		const char *set[6];
		int r;
		enum cni_code code;
		const char *msg; /* part of it */
		enum cni_command command;
	} cases[] = {
		{{"CNI_COMMAND=ADD", ID, NETNS, IF, PATH}, 0, 0, NULL, CNI_ADD},
		{{"CNI_COMMAND=CHECK", ID, NETNS, IF, PATH}, 0, 0, NULL, CNI_CHECK},
		{{"CNI_COMMAND=DEL", ID, NETNS, IF, PATH}, 0, 0, NULL, CNI_DEL},
		{{"CNI_COMMAND=DEL", ID, "CNI_NETNS=", IF, PATH}, 0, 0, NULL, CNI_DEL},
		{{"CNI_COMMAND=DEL", ID, IF, PATH}, 0, 0, NULL, CNI_DEL},
		{{"CNI_COMMAND=GC", PATH}, 0, 0, NULL, CNI_GC},
		{{"CNI_COMMAND=STATUS", PATH}, 0, 0, NULL, CNI_STATUS},
		{{"CNI_COMMAND=VERSION"}, 0, 0, NULL, CNI_VERSION},
		{{"CNI_COMMAND=ADD", "CNI_CONTAINERID=A", NETNS, "CNI_IFNAME=a12345678901234",
		  PATH},
		 0,
		 0,
		 NULL,
		 CNI_ADD},

		{{NULL}, -ENOENT, 0, NULL, 0},
		{{ID, NETNS, IF, PATH}, -ENOENT, 0, NULL, 0},
		{{"CNI_COMMAND="}, -ENOENT, 0, NULL, 0},
		{{"CNI_COMMAND=add", ID, NETNS, IF, PATH},
		 -EINVAL,
		 4,
		 "unknown CNI_COMMAND: add",
		 0},
		{{"CNI_COMMAND=ADD"},
		 -EINVAL,
		 4,
		 "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing",
		 0},
		{{"CNI_COMMAND=ADD", ID, "CNI_NETNS=", IF, PATH},
		 -EINVAL,
		 4,
		 "required env variables [CNI_NETNS] missing",
		 0},
		{{"CNI_COMMAND=CHECK", ID, IF, PATH}, -EINVAL, 4, "[CNI_NETNS]", 0},
		{{"CNI_COMMAND=DEL", NETNS},
		 -EINVAL,
		 4,
		 "[CNI_CONTAINERID,CNI_IFNAME,CNI_PATH]",
		 0},
		{{"CNI_COMMAND=GC"}, -EINVAL, 4, "[CNI_PATH]", 0},
		{{"CNI_COMMAND=STATUS"}, -EINVAL, 4, "[CNI_PATH]", 0},
		{{"CNI_COMMAND=ADD", "CNI_CONTAINERID=-a", NETNS, IF, PATH},
		 -EINVAL,
		 4,
		 "CNI_CONTAINERID",
		 0},
		{{"CNI_COMMAND=DEL", "CNI_CONTAINERID=a/b", IF, PATH},
		 -EINVAL,
		 4,
		 "CNI_CONTAINERID",
		 0},
		{{"CNI_COMMAND=ADD", ID129, NETNS, IF, PATH}, -EINVAL, 4, "CNI_CONTAINERID", 0},
		{{"CNI_COMMAND=ADD", ID, NETNS, "CNI_IFNAME=a123456789012345", PATH},
		 -EINVAL,
		 4,
		 "CNI_IFNAME",
		 0},
		{{"CNI_COMMAND=ADD", ID, NETNS, "CNI_IFNAME=..", PATH},
		 -EINVAL,
		 4,
		 "CNI_IFNAME",
		 0},
		{{"CNI_COMMAND=ADD", ID, NETNS, "CNI_IFNAME=a:b", PATH},
		 -EINVAL,
		 4,
		 "CNI_IFNAME",
		 0},
		{{"CNI_COMMAND=ADD", ID, NETNS, "CNI_IFNAME=a b", PATH},
		 -EINVAL,
		 4,
		 "CNI_IFNAME",
		 0},
		{{"CNI_COMMAND=ADD", ID, NETNS, "CNI_IFNAME=a/b", PATH},
		 -EINVAL,
		 4,
		 "CNI_IFNAME",
		 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cni_error error = {0};
		struct cni_env env;

		current = cases[i].set;
		assert_int_equal(cni_read_env(get, &env, &error), cases[i].r);
		if (cases[i].r == 0)
			assert_int_equal(env.command, cases[i].command);
		assert_int_equal(error.code, cases[i].code);
		if (cases[i].msg)
			assert_non_null(strstr(error.msg, cases[i].msg));
	}
}

static void test_args(void **state)
{
	static const struct {
		const char *args;
		int r;
		const char *value;
	} cases[] = {
		{"", 0, NULL},
		{"IgnoreUnknown=1;K8S_POD_NAME=web-0;X=y", 1, "web-0"},
		{"K8S_POD_NAME=web", 1, "web"},
		{"K8S_POD_NAME=a=b", 1, "a=b"},
		{";;K8S_POD_NAME=web;", 1, "web"},
		{"K8S_POD_NAME=", 0, NULL},
		{"K8S_POD_NAME=;X=1", 0, NULL},
		{"K8S_POD_NAME", 0, NULL},
		{"XK8S_POD_NAME=web", 0, NULL},
		{"K8S_POD_NAMESPACE=shop", 0, NULL},
		{"K8S_POD_NAME=a;K8S_POD_NAME=b", 1, "b"}, /* as libcni reads it */
		{"K8S_POD_NAME=1234567", 1, "1234567"},
		{"K8S_POD_NAME=12345678", -EINVAL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char got[8] = "-";

		assert_int_equal(cni_arg(cases[i].args, "K8S_POD_NAME", got, sizeof(got)),
				 cases[i].r);
		assert_string_equal(got, cases[i].value ?: "-");
	}
}

/* ---- configuration ---- */

#define CONF(version, more) \
	"{\"cniVersion\":\"" version "\",\"name\":\"net\",\"type\":\"sluice-cni\"" more "}"
#define SOCKET "/run/sluice/agent.sock"

static void test_configuration(void **state)
{
	static const struct {
		const char *text;
		enum cni_command command;
		enum cni_code code; /* 0: fine */
		const char *socket;
		unsigned timeout_ms;
	} cases[] = {
		{CONF("0.3.0", ""), CNI_ADD, 0, SOCKET, 5000},
		{CONF("0.3.1", ""), CNI_ADD, 0, SOCKET, 5000},
		{CONF("0.4.0", ""), CNI_ADD, 0, SOCKET, 5000},
		{CONF("1.0.0", ""), CNI_ADD, 0, SOCKET, 5000},
		{CONF("1.1.0", ""), CNI_ADD, 0, SOCKET, 5000},
		{CONF("1.0.0", ",\"agentSocket\":\"/a\",\"timeout\":\"250ms\",\"x\":{}"), CNI_ADD,
		 0, "/a", 250},
		{CONF("1.0.0", ",\"timeout\":\"60s\",\"prevResult\":null"), CNI_ADD, 0, SOCKET,
		 60000},

		{"", CNI_ADD, 6, NULL, 0},
		{"[]", CNI_ADD, 6, NULL, 0},
		{"{\"cniVersion\":", CNI_ADD, 6, NULL, 0},
		{"{\"cniVersion\":\"1.0.0\",\"name\":\"\xff\"}", CNI_ADD, 6, NULL, 0},
		{"{\"cniVersion\":1,\"name\":\"net\"}", CNI_ADD, 6, NULL, 0},
		{"{\"cniVersion\":\"1.0.0\",\"name\":1}", CNI_ADD, 6, NULL, 0},
		{CONF("1.0.0", ",\"prevResult\":[]"), CNI_ADD, 6, NULL, 0},
		{"{\"name\":\"net\"}", CNI_ADD, 1, NULL, 0}, /* which means 0.1.0 */
		{CONF("0.2.0", ""), CNI_ADD, 1, NULL, 0},
		{CONF("1.2.0", ""), CNI_ADD, 1, NULL, 0},
		{CONF("", ""), CNI_ADD, 1, NULL, 0},
		{"{\"cniVersion\":\"1.0.0\"}", CNI_ADD, 7, NULL, 0},
		{"{\"cniVersion\":\"1.0.0\",\"name\":\"\"}", CNI_ADD, 7, NULL, 0},
		{"{\"cniVersion\":\"1.0.0\",\"name\":\"a/b\"}", CNI_ADD, 7, NULL, 0},
		{CONF("1.0.0", ",\"agentSocket\":\"a\""), CNI_ADD, 7, NULL, 0},
		{CONF("1.0.0", ",\"agentSocket\":1"), CNI_ADD, 7, NULL, 0},
		{CONF("1.0.0", ",\"timeout\":\"0s\""), CNI_ADD, 7, NULL, 0},
		{CONF("1.0.0", ",\"timeout\":\"61s\""), CNI_ADD, 7, NULL, 0},
		{CONF("1.0.0", ",\"timeout\":\"soon\""), CNI_ADD, 7, NULL, 0},
		{CONF("1.0.0", ",\"timeout\":5"), CNI_ADD, 7, NULL, 0},

		{CONF("0.3.1", ""), CNI_CHECK, 1, NULL, 0},
		{CONF("0.4.0", ""), CNI_CHECK, 0, SOCKET, 5000},
		{CONF("1.0.0", ""), CNI_GC, 1, NULL, 0},
		{CONF("1.1.0", ""), CNI_GC, 0, SOCKET, 5000},
		{CONF("1.0.0", ""), CNI_STATUS, 1, NULL, 0},
		{CONF("1.1.0", ""), CNI_STATUS, 0, SOCKET, 5000},

		/* A pod has to go whatever is wrong with what it was made by. */
		{"{}", CNI_DEL, 0, SOCKET, 5000},
		{CONF("9.9.9", ",\"agentSocket\":\"/a\""), CNI_DEL, 0, "/a", 5000},
		{CONF("1.0.0", ",\"agentSocket\":\"/a\",\"timeout\":\"x\",\"prevResult\":1"),
		 CNI_DEL, 0, "/a", 5000},
		{CONF("1.0.0", ",\"agentSocket\":7"), CNI_DEL, 0, SOCKET, 5000},
		{"{", CNI_DEL, 6, NULL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cni_error error = {0};
		struct cni_config config;
		int r = cni_read_config(cases[i].text, strlen(cases[i].text), cases[i].command,
					&config, &error);

		assert_int_equal(r, cases[i].code ? -EINVAL : 0);
		assert_non_null(config.version);
		if (r == 0) {
			assert_string_equal(config.agent_socket, cases[i].socket);
			assert_int_equal(config.timeout_ms, cases[i].timeout_ms);
		} else {
			assert_int_equal(error.code, cases[i].code);
			assert_true(error.msg[0] != '\0');
		}
		cni_config_done(&config);
	}
}

static void read_good(const char *text, struct cni_config *ret)
{
	struct cni_error error;

	assert_int_equal(cni_read_config(text, strlen(text), CNI_ADD, ret, &error), 0);
}

static void test_valid_containers(void **state)
{
	static const struct {
		const char *field;
		int r;
		size_t n;
	} cases[] = {
		{"", -ENOENT, 0},
		{",\"cni.dev/valid-attachments\":null", -ENOENT, 0},
		{",\"cni.dev/valid-attachments\":[]", 0, 0},
		{",\"cni.dev/valid-attachments\":[{\"containerID\":\"a\",\"ifname\":\"eth0\"},"
		 "{\"containerID\":\"b\",\"ifname\":\"eth0\"}]",
		 0, 2},
		{",\"cni.dev/valid-attachments\":{}", -EINVAL, 0},
		{",\"cni.dev/valid-attachments\":\"a\"", -EINVAL, 0},
		{",\"cni.dev/valid-attachments\":[{\"containerID\":\"a\"},{\"ifname\":\"eth0\"}]",
		 -EINVAL, 0},
		{",\"cni.dev/valid-attachments\":[\"a\"]", -EINVAL, 0},
		{",\"cni.dev/valid-attachments\":[{\"containerID\":1}]", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(cni_config_done) struct cni_config config = {0};
		OWNED(free_json) json_t *ids = NULL;
		struct cni_error error = {0};
		char text[512];

		snprintf(text, sizeof(text), CONF("1.1.0", "%s"), cases[i].field);
		read_good(text, &config);
		assert_int_equal(cni_valid_containers(&config, &ids, &error), cases[i].r);
		assert_int_equal(json_array_size(ids), cases[i].n);
		assert_int_equal(error.code, cases[i].r == -EINVAL ? CNI_CODE_CONFIG : 0);
	}
}

/* ---- answers ---- */

/* As the version before had it: a plugin that changes nothing passes it on as it is. */
static void test_result_is_passed_on(void **state)
{
	static const struct {
		const char *version, *prev;
	} cases[] = {
		{"0.3.1",
		 "{\"cniVersion\":\"0.3.1\",\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":"
		 "\"/n\"}],\"ips\":[{\"version\":\"4\",\"address\":\"10.1.2.3/24\","
		 "\"interface\":0}],\"dns\":{}}"},
		{"0.4.0",
		 "{\"ips\":[{\"version\":\"6\",\"address\":\"fd00::1/64\"}],\"routes\":[]}"},
		{"1.0.0", "{\"cniVersion\":\"0.4.0\",\"ips\":[],\"x\":{\"y\":[1,2.5,null,true]}}"},
		{"1.1.0",
		 "{\"cniVersion\":\"1.1.0\",\"interfaces\":[{\"name\":\"eth0\",\"mtu\":1500}],"
		 "\"routes\":[{\"dst\":\"0.0.0.0/0\",\"advmss\":1400,\"table\":4294967295}]}"},
		{"1.1.0", "{}"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(cni_config_done) struct cni_config config = {0};
		OWNED(free_json) json_t *want = NULL, *got = NULL;
		OWNED_MEM char *text = NULL;
		char input[1024];

		snprintf(input, sizeof(input),
			 "{\"cniVersion\":\"%s\",\"name\":\"n\",\"prevResult\":%s}",
			 cases[i].version, cases[i].prev);
		read_good(input, &config);
		text = cni_print_result(&config);
		assert_non_null(text);
		got = json_loads(text, 0, NULL);
		want = json_loads(cases[i].prev, 0, NULL);
		json_object_set_new(want, "cniVersion", json_string(cases[i].version));
		assert_true(json_equal(got, want));
	}
}

static void test_version(void **state)
{
	static const struct {
		const char *input, *version;
	} cases[] = {
		{"{\"cniVersion\":\"0.4.0\"}", "0.4.0"},
		{"{\"cniVersion\":\"1.1.0\"}", "1.1.0"},
		{"{}", "1.1.0"},
		{"", "1.1.0"},
		{"garbage", "1.1.0"},
		{"{\"cniVersion\":7}", "1.1.0"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED_MEM char *text = cni_print_version(cases[i].input, strlen(cases[i].input));
		char want[256];

		snprintf(want, sizeof(want),
			 "{\"cniVersion\":\"%s\",\"supportedVersions\":"
			 "[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}",
			 cases[i].version);
		assert_string_equal(text, want);
	}
}

/* Whatever went wrong with whatever input: there is an answer, and it is JSON. */
static void test_error(void **state)
{
	struct cni_error error = {0};
	char long_text[2 * CNI_TEXT_MAX];
	json_t *json;
	char *text;

	(void)state;
	assert_int_equal(cni_fail(&error, CNI_CODE_CONFIG, NULL, "bad '%s'", "\xc3\xa4\xff\""),
			 -EINVAL);
	text = cni_print_error("0.4.0", &error);
	json = json_loads(text, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json, "cniVersion")), "0.4.0");
	assert_int_equal(json_integer_value(json_object_get(json, "code")), 7);
	assert_string_equal(json_string_value(json_object_get(json, "msg")), "bad '???\"'");
	assert_null(json_object_get(json, "details"));
	json_decref(json);
	free(text);

	memset(long_text, 'a', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	cni_fail(&error, CNI_CODE_RETRY, long_text, "%s", long_text);
	text = cni_print_error(NULL, &error);
	json = json_loads(text, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json, "cniVersion")), "1.1.0");
	assert_int_equal(json_string_length(json_object_get(json, "msg")), CNI_TEXT_MAX - 1);
	assert_int_equal(json_string_length(json_object_get(json, "details")), CNI_TEXT_MAX - 1);
	json_decref(json);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_args),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_valid_containers),
		cmocka_unit_test(test_result_is_passed_on),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

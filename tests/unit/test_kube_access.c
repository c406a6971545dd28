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
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"
#include "kube/access.h"

static char folder[] = "/tmp/kube_access.XXXXXX";

static const char *path_of(const char *name)
{
	static char path[200];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(path_of(name), "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* ---- servers ---- */

static void test_servers(void **state)
{
	static const struct {
		const char *url, *name, *server, *base, *connect_to; /* server NULL: refused */
	} cases[] = {
		{"https://k", NULL, "https://k:443", "https://k:443", NULL},
		{"https://k/", NULL, "https://k:443", "https://k:443", NULL},
		{"https://192.0.2.1:6443", NULL, "https://192.0.2.1:6443", "https://192.0.2.1:6443",
		 NULL},
		{"https://[2001:db8::1]:6443/", NULL, "https://[2001:db8::1]:6443",
		 "https://[2001:db8::1]:6443", NULL},
		{"https://k:8443/clusters/c-1//", NULL, "https://k:8443",
		 "https://k:8443/clusters/c-1", NULL},
		{"https://192.0.2.1", "kubernetes", "https://192.0.2.1:443",
		 "https://kubernetes:443", "::192.0.2.1:443"},
		{"https://[::1]:6443/x", "kubernetes", "https://[::1]:6443",
		 "https://kubernetes:6443/x", "::[::1]:6443"},
		{"http://k", NULL, NULL, NULL, NULL},
		{"ftp://k", NULL, NULL, NULL, NULL},
		{"k:6443", NULL, NULL, NULL, NULL},
		{"", NULL, NULL, NULL, NULL},
		{"https://", NULL, NULL, NULL, NULL},
		{"https://a:b@k", NULL, NULL, NULL, NULL},
		{"https://k?a=b", NULL, NULL, NULL, NULL},
		{"https://k:99999", NULL, NULL, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct access a = {0};
		const char *why = access_set_server(&a, cases[i].url, cases[i].name);

		assert_int_equal(why == NULL, cases[i].server != NULL);
		if (!why) {
			assert_string_equal(a.server, cases[i].server);
			assert_string_equal(a.base, cases[i].base);
			assert_string_equal(a.connect_to ?: "", cases[i].connect_to ?: "");
		}
		arena_done(&a.mem);
	}
}

/* ---- kubeconfigs ---- */

static struct access *open_config(const char *text)
{
	struct access *a = NULL;

	write_file("config", text);
	assert_int_equal(access_open(&a, &(struct kube_config){.kubeconfig = path_of("config")}),
			 0);
	return a;
}

#define HEAD                                                   \
	"apiVersion: v1\nkind: Config\ncurrent-context: two\n" \
	"preferences: {}\n"                                    \
	"contexts:\n"                                          \
	"- {name: one, context: {cluster: c1, user: u1}}\n"    \
	"- name: two\n  context: {cluster: c2, user: u2, namespace: x, extensions: []}\n"

static void test_a_kubeconfig(void **state)
{
	struct access *a;

	(void)state;
	write_file("ca.crt", "x");
	a = open_config(HEAD "clusters:\n- {name: c1}\n- name: c2\n  cluster:\n"
			     "    server: https://192.0.2.7:6443\n"
			     "    certificate-authority: ca.crt\n"
			     "    insecure-skip-tls-verify: false\n"
			     "    proxy-url: socks5://p:1080\n"
			     "    disable-compression: true\n"
			     "users:\n- {name: u1, user: {exec: {}}}\n"
			     "- {name: u2, user: {token: abc, exec: null}}\n");
	assert_string_equal(a->server, "https://192.0.2.7:6443");
	assert_string_equal(a->ca.file, path_of("ca.crt"));
	assert_null(a->ca.text);
	assert_string_equal(a->proxy, "socks5://p:1080");
	assert_string_equal(access_token(a, 0), "abc");
	assert_false(access_renew(a, 0));
	access_close(a);
}

static void test_data_in_a_kubeconfig(void **state)
{
	/* "a", "ab", "abc", with line breaks, and in front of a file */
	static const struct {
		const char *base64, *want;
	} cases[] = {{"YQ==", "a"}, {"YWI=", "ab"}, {"YWJj", "abc"}, {"\"YW\\nJj\\n\"", "abc"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[1000];
		struct access *a;

		snprintf(text, sizeof(text),
			 HEAD "clusters: [{name: c2, cluster: {server: https://k, "
			      "certificate-authority: /nowhere, "
			      "certificate-authority-data: %s}}]\n"
			      "users: [{name: u2, user: {client-certificate-data: %s, "
			      "client-key-data: %s}}]\n",
			 cases[i].base64, cases[i].base64, cases[i].base64);
		a = open_config(text);
		assert_int_equal(a->ca.len, strlen(cases[i].want));
		assert_memory_equal(a->ca.text, cases[i].want, a->ca.len);
		assert_int_equal(a->key.len, strlen(cases[i].want));
		assert_memory_equal(a->cert.text, cases[i].want, a->cert.len);
		assert_null(a->ca.file);
		assert_null(access_token(a, 0));
		access_close(a);
	}
}

/* ---- tokens ---- */

static void test_a_token_is_read_again_after_a_minute(void **state)
{
	struct access *a;

	(void)state;
	write_file("token", "\n one \n");
	a = open_config(HEAD "clusters: [{name: c2, cluster: {server: https://k}}]\n"
			     "users: [{name: u2, user: {token: old, tokenFile: token}}]\n");
	assert_string_equal(access_token(a, 1000), "one");
	write_file("token", "two");
	assert_string_equal(access_token(a, 59999), "one");
	assert_string_equal(access_token(a, 60000), "two");
	write_file("token", "three");
	assert_string_equal(access_token(a, 119999), "two");
	assert_string_equal(access_token(a, 120000), "three");

	/* At once where it is asked for; and it says whether there is another one. */
	assert_false(access_renew(a, 120001));
	write_file("token", "four");
	assert_true(access_renew(a, 120002));
	assert_string_equal(access_token(a, 120003), "four");
	access_close(a);
}

static void test_the_old_token_stays(void **state)
{
	static const char *const broken[] = {"", " \n", "a b", "a\nb", "a\001", "\303\244"};
	struct access *a;

	(void)state;
	write_file("token", "good");
	a = open_config(HEAD "clusters: [{name: c2, cluster: {server: https://k}}]\n"
			     "users: [{name: u2, user: {tokenFile: token}}]\n");
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		write_file("token", broken[i]);
		assert_false(access_renew(a, 1));
		assert_string_equal(access_token(a, 70000 * (i + 1)), "good");
	}
	assert_int_equal(unlink(path_of("token")), 0);
	assert_false(access_renew(a, 1));
	assert_int_equal(mkdir(path_of("token"), 0700), 0);
	assert_false(access_renew(a, 1));
	assert_string_equal(access_token(a, 1), "good");
	assert_int_equal(rmdir(path_of("token")), 0);
	write_file("token", "better");
	assert_true(access_renew(a, 1));
	assert_string_equal(access_token(a, 1), "better");
	access_close(a);
}

static void test_a_service_account(void **state)
{
	struct kube_config config = {0};
	struct access *a = NULL;

	(void)state;
	write_file("token", "t");
	write_file("ca.crt", "x");
	config.token_file = strdup(path_of("token"));
	config.ca_file = strdup(path_of("ca.crt"));
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	assert_int_equal(access_open(&a, &config), 0);
	assert_string_equal(a->base, "https://[fd00::1]:443");
	assert_string_equal(access_token(a, 0), "t");
	access_close(a);

	setenv("KUBERNETES_SERVICE_PORT", "x", 1);
	assert_int_equal(access_open(&a, &config), -EINVAL);
	unsetenv("KUBERNETES_SERVICE_PORT");
	assert_int_equal(access_open(&a, &config), -EINVAL);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	unlink(config.ca_file);
	assert_int_equal(access_open(&a, &config), -ENOENT); /* never without knowing whom */
	free((char *)config.token_file);
	free((char *)config.ca_file);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	static const char *const names[] = {"config", "token", "ca.crt"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(path_of(names[i]));
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_servers),
		cmocka_unit_test(test_a_kubeconfig),
		cmocka_unit_test(test_data_in_a_kubeconfig),
		cmocka_unit_test(test_a_token_is_read_again_after_a_minute),
		cmocka_unit_test(test_the_old_token_stays),
		cmocka_unit_test(test_a_service_account),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

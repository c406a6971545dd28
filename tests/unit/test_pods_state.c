/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"
#include "pod/pod_name.h"
#include "pod/state.h"

#define PATHS_MAX 8

struct fixture {
	char dir[64];
	char paths[PATHS_MAX][512]; /* what list() has seen */
	size_t n;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	snprintf(f->dir, sizeof(f->dir), "/tmp/sluice-state-XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static void remove_file(void *ctx, const char *path)
{
	(void)ctx;
	unlink(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r;

	state_list(f->dir, remove_file, NULL);
	r = rmdir(f->dir);
	free(f);
	return r;
}

static void remember(void *ctx, const char *path)
{
	struct fixture *f = ctx;

	assert_true(f->n < PATHS_MAX);
	snprintf(f->paths[f->n++], sizeof(f->paths[0]), "%s", path);
}

static void list(struct fixture *f)
{
	f->n = 0;
	assert_int_equal(state_list(f->dir, remember, f), 0);
}

static char path_buf[] = "/run/netns/a\"b\\\u00e4";

static struct pod_state sample(const char *pod)
{
	struct pod_state s = {.netns = path_buf,
			      .service_account = "cart.v1",
			      .dev = 4,
			      .ino = 4026532281,
			      .cookie = 1ULL << 40,
			      .boot_id = "d7d4a2f6-0000-4000-8000-000000000000",
			      .enrolled_at = 1767225600};

	assert_int_equal(pod_name_parse(pod, &s.pod), 0);
	return s;
}

static void put(const struct fixture *f, const char *name, const void *text, size_t n)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static void test_what_is_written_is_read(void **state)
{
	struct fixture *f = *state;
	struct pod_state s = sample("shop/web-0.a"), got = {0};
	const char *why;
	struct stat st;

	assert_int_equal(state_write(f->dir, &s), 0);
	s.enrolled_at++;
	s.backend = REDIRECT_IPTABLES;
	s.node_cookie = 7;
	strcpy(s.container, "0123abcd");
	strcpy(s.network, "pods");
	s.links.n_links = 2;
	s.links.links[0] = (struct host_link){
		.name = "eth0", .ifindex = 12, .kind = "veth", .mac = {2, 0, 0xab, 0, 0, 0xff}};
	s.links.links[1] = (struct host_link){
		.name = "net1", .ifindex = 0, .kind = "macvlan", .open_until_ms = 1ULL << 40};
	s.links.n_addrs = 2;
	assert_int_equal(addr_parse_ip("10.244.1.5", &s.links.addrs[0]), 0);
	assert_int_equal(addr_parse_ip("fd00::5", &s.links.addrs[1]), 0);
	assert_int_equal(state_write(f->dir, &s), 0); /* replaces */
	list(f);
	assert_int_equal(f->n, 1);
	assert_string_equal(strrchr(f->paths[0], '/'), "/shop_web-0.a.json");
	assert_int_equal(stat(f->paths[0], &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	assert_int_equal(state_read(f->paths[0], &got, &why), 0);
	assert_string_equal(got.pod.ns, "shop");
	assert_string_equal(got.pod.name, "web-0.a");
	assert_string_equal(got.service_account, s.service_account);
	assert_string_equal(got.netns, s.netns);
	assert_string_equal(got.boot_id, s.boot_id);
	assert_true(got.dev == s.dev && got.ino == s.ino && got.cookie == s.cookie);
	assert_true(got.node_cookie == s.node_cookie && got.node_cookie != 0);
	assert_int_equal(got.enrolled_at, s.enrolled_at);
	assert_int_equal(got.backend, REDIRECT_IPTABLES);
	assert_string_equal(got.container, "0123abcd");
	assert_string_equal(got.network, "pods");
	assert_false(got.by_cgroup);
	assert_int_equal(got.links.n_links, 2);
	assert_string_equal(got.links.links[1].name, "net1");
	assert_string_equal(got.links.links[1].kind, "macvlan");
	assert_int_equal(got.links.links[0].ifindex, 12);
	assert_int_equal(got.links.links[0].open_until_ms, 0);
	assert_int_equal(got.links.links[1].open_until_ms, 1ULL << 40);
	assert_memory_equal(got.links.links[0].mac, s.links.links[0].mac, 6);
	assert_int_equal(got.links.n_addrs, 2);
	assert_memory_equal(got.links.addrs, s.links.addrs, 2 * sizeof(s.links.addrs[0]));
	pod_state_done(&got);

	assert_int_equal(state_remove(f->dir, &s.pod), 0);
	assert_int_equal(state_remove(f->dir, &s.pod), 0);
	list(f);
	assert_int_equal(f->n, 0);
}

/* Two of the longest names that differ at the end only. */
static void test_long_names(void **state)
{
	struct fixture *f = *state;
	struct pod_state a, b, got = {0};
	char name[POD_LABEL_MAX + POD_NAME_MAX + 2];
	const char *why;

	memset(name, 'a', sizeof(name));
	name[POD_LABEL_MAX] = '/';
	name[sizeof(name) - 1] = '\0';
	a = sample(name);
	name[sizeof(name) - 2] = 'b';
	b = sample(name);
	assert_int_equal(state_write(f->dir, &a), 0);
	assert_int_equal(state_write(f->dir, &b), 0);
	list(f);
	assert_int_equal(f->n, 2);

	assert_int_equal(state_remove(f->dir, &a.pod), 0);
	list(f);
	assert_int_equal(f->n, 1);
	assert_int_equal(state_read(f->paths[0], &got, &why), 0);
	assert_string_equal(got.pod.name, b.pod.name);
	pod_state_done(&got);
}

/* However short it was cut, it is refused; and so is what has been put behind it. */
static void test_truncated(void **state)
{
	struct fixture *f = *state;
	struct pod_state s = sample("shop/web"), got = {0};
	const char *why = NULL;
	char text[2048], path[512];
	ssize_t n;
	int fd;

	assert_int_equal(state_write(f->dir, &s), 0);
	snprintf(path, sizeof(path), "%s/shop_web.json", f->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	assert_true(n > 100);

	for (ssize_t i = 0; i < n; i++) {
		put(f, "shop_web.json", text, (size_t)i);
		why = NULL;
		assert_int_equal(state_read(path, &got, &why), -EBADMSG);
		assert_non_null(why);
	}
	text[n] = 'x';
	put(f, "shop_web.json", text, (size_t)n + 1);
	assert_int_equal(state_read(path, &got, &why), -EBADMSG);
	put(f, "shop_web.json", text, (size_t)n);
	assert_int_equal(state_read(path, &got, &why), 0);
	pod_state_done(&got);
}

#define REST                                                                           \
	"\"service_account\":\"\",\"dev\":4,\"ino\":5,\"cookie\":0,\"boot_id\":\"b\"," \
	"\"enrolled_at\":1"

#define TWO(MORE) \
	"{\"version\":2,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":\"/n\"," MORE "," REST "}"

static void test_corrupt(void **state)
{
	static const struct {
		const char *text;
		int want;
	} cases[] = {
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":\"/n\"," REST "}", 0},
		{"{\"version\":3,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":\"/n\"," REST "}",
		 -EBADMSG},
		{TWO("\"backend\":\"ebpf\",\"links\":[],\"addresses\":[\"10.0.0.1\"]"), 0},
		{TWO("\"backend\":\"tproxy\""), -EBADMSG},
		{TWO("\"links\":[{\"name\":\"eth0\",\"ifindex\":7,\"kind\":\"veth\"}]"), 0},
		{TWO("\"links\":[{\"name\":\"eth0\",\"ifindex\":-7,\"kind\":\"veth\"}]"), -EBADMSG},
		{TWO("\"links\":[{\"name\":\"a-name-of-sixteen\",\"ifindex\":7,\"kind\":\"veth\"}"
		     "]"),
		 -EBADMSG},
		{TWO("\"links\":[{\"name\":\"eth0\",\"ifindex\":7,\"kind\":\"veth\","
		     "\"mac\":\"02:00:00:00:00:0f\"}]"),
		 0},
		{TWO("\"links\":[{\"name\":\"eth0\",\"ifindex\":7,\"kind\":\"veth\","
		     "\"mac\":\"02:00:00:00:00\"}]"),
		 -EBADMSG},
		{TWO("\"links\":[{\"name\":\"eth0\",\"ifindex\":7,\"kind\":\"veth\","
		     "\"mac\":\"02:00:00:00:00:0f:1\"}]"),
		 -EBADMSG},
		{TWO("\"links\":[{\"name\":\"eth0\"}]"), -EBADMSG},
		{TWO("\"links\":[{\"name\":\"eth0\",\"ifindex\":7,\"kind\":\"veth\","
		     "\"open_until_ms\":-1}]"),
		 -EBADMSG},
		{TWO("\"addresses\":[\"10.0.0.256\"]"), -EBADMSG},
		{TWO("\"addresses\":[5]"), -EBADMSG},
		{TWO("\"by_cgroup\":true"), 0},
		{TWO("\"by_cgroup\":1"), -EBADMSG},
		{"{\"version\":1,\"namespace\":\"A\",\"pod\":\"b\",\"netns\":\"/n\"," REST "}",
		 -EBADMSG},
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"../b\",\"netns\":\"/n\"," REST "}",
		 -EBADMSG},
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":\"n\"," REST "}",
		 -EBADMSG},
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":\"/n\",\"x\":1," REST
		 "}",
		 -EBADMSG},
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"b\",\"pod\":\"c\","
		 "\"netns\":\"/n\"," REST "}",
		 -EBADMSG},
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":5," REST "}",
		 -EBADMSG},
		{"{\"version\":1,\"namespace\":\"a\",\"pod\":\"b\",\"netns\":\"/n\"}", -EBADMSG},
		{"[]", -EBADMSG},
		{"null", -EBADMSG},
		{"\xff\xfe", -EBADMSG},
	};
	struct fixture *f = *state;
	char path[512];

	snprintf(path, sizeof(path), "%s/x.json", f->dir);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pod_state got = {0};
		const char *why = NULL;

		put(f, "x.json", cases[i].text, strlen(cases[i].text));
		assert_int_equal(state_read(path, &got, &why), cases[i].want);
		assert_true((why == NULL) == (cases[i].want == 0));
		pod_state_done(&got);
	}
}

static void test_other_files(void **state)
{
	struct fixture *f = *state;
	struct pod_state got = {0};
	char path[512], *big = calloc(1, STATE_MAX_BYTES + 1);
	const char *why;

	assert_non_null(big);
	memset(big, ' ', STATE_MAX_BYTES + 1);
	put(f, "big.json", big, STATE_MAX_BYTES + 1);
	free(big);
	snprintf(path, sizeof(path), "%s/big.json", f->dir);
	assert_int_equal(state_read(path, &got, &why), -EBADMSG);
	unlink(path);

	/* A link is not followed, a pipe is not waited for. */
	snprintf(path, sizeof(path), "%s/link.json", f->dir);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(state_read(path, &got, &why), -ELOOP);
	snprintf(path, sizeof(path), "%s/pipe.json", f->dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(state_read(path, &got, &why), -EBADMSG);

	/* What a crash left is removed; what is none of ours is not even looked at. */
	put(f, "shop_web.json.tmp", "{", 1);
	put(f, "README", "", 0);
	list(f);
	assert_int_equal(f->n, 2);
	snprintf(path, sizeof(path), "%s/shop_web.json.tmp", f->dir);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/README", f->dir);
	assert_int_equal(unlink(path), 0);
}

static void test_folders(void **state)
{
	struct fixture *f = *state, none = {.dir = "/nonexistent/pods"};
	struct pod_state s = sample("shop/web");
	char path[512];

	list(&none);
	assert_int_equal(none.n, 0);
	assert_int_equal(state_remove(none.dir, &s.pod), 0);
	assert_int_equal(state_write(none.dir, &s), -ENOENT);

	snprintf(path, sizeof(path), "%s/a/b", f->dir);
	assert_int_equal(state_make_dir(path), 0);
	assert_int_equal(state_make_dir(path), 0);
	assert_int_equal(rmdir(path), 0);
	*strrchr(path, '/') = '\0';
	assert_int_equal(rmdir(path), 0);
}

static void test_names(void **state)
{
	static const struct {
		const char *text;
		int want;
	} cases[] = {
		{"shop/web", 0},     {"a/b", 0},         {"0/0", 0},         {"a-b/c-d.e-f", 0},
		{"", -EINVAL},       {"/", -EINVAL},     {"a/", -EINVAL},    {"/b", -EINVAL},
		{"a/b/c", -EINVAL},  {"A/b", -EINVAL},   {"a/B", -EINVAL},   {"a.b/c", -EINVAL},
		{"-a/b", -EINVAL},   {"a-/b", -EINVAL},  {"a/-b", -EINVAL},  {"a/b-", -EINVAL},
		{"a/b..c", -EINVAL}, {"a/.b", -EINVAL},  {"a/b.", -EINVAL},  {"a/b_c", -EINVAL},
		{"a/b.-c", -EINVAL}, {"a b/c", -EINVAL}, {"a/b\n", -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pod_name got;

		assert_int_equal(pod_name_parse(cases[i].text, &got), cases[i].want);
	}
}

static void test_name_lengths(void **state)
{
	char text[POD_NAME_MAX + 2];

	(void)state;
	memset(text, 'a', sizeof(text));
	text[POD_NAME_MAX + 1] = '\0';
	assert_false(pod_subdomain_is_valid(text));
	text[POD_NAME_MAX] = '\0';
	assert_true(pod_subdomain_is_valid(text));
	text[POD_LABEL_MAX + 1] = '\0';
	assert_false(pod_label_is_valid(text));
	text[POD_LABEL_MAX] = '\0';
	assert_true(pod_label_is_valid(text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_written_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_corrupt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_folders, setup, teardown),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_name_lengths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

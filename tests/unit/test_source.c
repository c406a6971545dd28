/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "base/owned.h"
#include "resource/source.h"

#define RELOAD_MS 1000 /* the promise */
#define LONG_MS   5000 /* where polling has to find out */

/* ---- a folder for each test ---- */

static char folder[64];

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/sluice-unit-source-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	(void)state;
	return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Its path, in a buffer that the next eight calls leave alone. */
static const char *in_folder(const char *name)
{
	static char paths[8][256];
	static unsigned n;
	char *path = paths[n++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(in_folder(name), "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void replace_file(const char *name, const char *text)
{
	write_file("tmp", text);
	assert_int_equal(rename(in_folder("tmp"), in_folder(name)), 0);
}

static void make_folder(const char *name)
{
	assert_int_equal(mkdir(in_folder(name), 0755), 0);
}

static void link_to(const char *target, const char *name)
{
	assert_int_equal(symlink(target, in_folder("tmp")), 0);
	assert_int_equal(rename(in_folder("tmp"), in_folder(name)), 0);
}

#define ENTRY(name, host)                                                                     \
	"---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: " name \
	"}\nspec: {hosts: [" host                                                             \
	"], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}\n"
#define A ENTRY("a", "a.example.com")
#define B ENTRY("b", "b.example.com")

static bool has(const struct registry *reg, const char *host)
{
	enum reason reason;

	return registry_find_name(reg, span_of(host), 443, "default", &reason) != NULL;
}

/* ---- source_load ---- */

static int load(const char *path, struct registry **ret, char error[1024])
{
	*ret = NULL;
	error[0] = '\0';
	return source_load(&path, 1, ret, error);
}

static void test_load_folder(void **state)
{
	struct registry *reg;
	char error[1024];

	(void)state;
	write_file("1.yaml", A);
	write_file("2.yml", B);
	write_file("3.json",
		   "{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": "
		   "\"ServiceEntry\", \"metadata\": {\"name\": \"c\"}, \"spec\": "
		   "{\"hosts\": [\"c.example.com\"], \"ports\": [{\"number\": 443, "
		   "\"name\": \"tls\", \"protocol\": \"TLS\"}], \"resolution\": \"DNS\"}}");
	write_file(".hidden.yaml", "no: resource");
	write_file("README", "no resource");
	write_file(".yaml", "no: resource");
	make_folder("sub.yaml");
	assert_int_equal(load(folder, &reg, error), 0);
	assert_int_equal(registry_n_hosts(reg), 3);
	assert_true(has(reg, "a.example.com") && has(reg, "b.example.com") &&
		    has(reg, "c.example.com"));
	registry_unref(reg);
}

static void test_load_errors(void **state)
{
	struct registry *reg;
	char error[1024];

	(void)state;
	assert_int_equal(load(in_folder("none"), &reg, error), -ENOENT);
	assert_non_null(strstr(error, "/none: cannot be read: No such file"));
	assert_null(reg);

	/* A name may be there once, in whatever files. */
	write_file("1.yaml", A B);
	write_file("2.yaml", "\n" A);
	assert_int_equal(load(folder, &reg, error), -EINVAL);
	assert_non_null(strstr(error, "/2.yaml:3: ServiceEntry default/a is there already, in "));
	assert_non_null(strstr(error, "/1.yaml:2: give it another name"));
	assert_null(reg);

	/* The whole load is refused for one document; all errors are counted. */
	write_file("2.yaml", "---\nx: [\n");
	write_file("3.yaml", "---\nkind: 1\n");
	assert_int_equal(load(folder, &reg, error), -EINVAL);
	assert_non_null(strstr(error, "/2.yaml:3: not valid YAML"));
	assert_non_null(strstr(error, "(and 1 more)"));
	assert_null(reg);

	assert_int_equal(unlink(in_folder("2.yaml")), 0);
	assert_int_equal(unlink(in_folder("3.yaml")), 0);
	assert_int_equal(symlink("nowhere", in_folder("2.yaml")), 0);
	assert_int_equal(load(folder, &reg, error), -ENOENT);
	assert_int_equal(unlink(in_folder("2.yaml")), 0);
	assert_int_equal(mkfifo(in_folder("2.yaml"), 0600), 0);
	assert_int_equal(load(folder, &reg, error), -EBADF);
	assert_non_null(strstr(error, "2.yaml: cannot be read: is no regular file"));
	assert_int_equal(unlink(in_folder("2.yaml")), 0);
	write_file("2.yaml", "");
	assert_int_equal(truncate(in_folder("2.yaml"), 64 * 1024 * 1024 + 1), 0);
	assert_int_equal(load(folder, &reg, error), -EFBIG);
	assert_null(reg);
}

/* Large enough to be read in pieces; lines and doubles are found across them all the same. */
static void test_load_large(void **state)
{
	const unsigned n = 8000;
	struct registry *reg;
	char error[1024];
	FILE *f = fopen(in_folder("large.yaml"), "we");

	(void)state;
	assert_non_null(f);
	for (unsigned i = 0; i < n; i++)
		fprintf(f,
			"---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
			"metadata:\n  name: e%u\n  annotations: {note: \"x --- y\"}\nspec:\n"
			"  hosts: [h%u.example.com]\n  resolution: DNS\n"
			"  ports: [{number: 443, name: tls, protocol: TLS}]\n",
			i, i);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(load(folder, &reg, error), 0);
	assert_int_equal(registry_n_hosts(reg), n);
	registry_unref(reg);

	f = fopen(in_folder("large.yaml"), "ae");
	assert_non_null(f);
	fputs("---\nkind: Nothing\n", f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(load(folder, &reg, error), -EINVAL);
	assert_non_null(strstr(error, "/large.yaml:80002: apiVersion is missing"));
}

/* ---- the thread ---- */

static struct {
	pthread_mutex_t lock;
	struct registry *reg; /* the newest */
	unsigned n;           /* how often */
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_publish(void *ctx, struct registry *reg)
{
	assert_ptr_equal(ctx, &seen);
	pthread_mutex_lock(&seen.lock);
	registry_unref(seen.reg);
	seen.reg = registry_ref(reg);
	seen.n++;
	pthread_mutex_unlock(&seen.lock);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool tick(uint64_t deadline)
{
	nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	return now_ms() < deadline;
}

static bool published(const char *host, bool want, size_t n_hosts)
{
	bool yes;

	pthread_mutex_lock(&seen.lock);
	yes = seen.reg && has(seen.reg, host) == want && registry_n_hosts(seen.reg) == n_hosts;
	pthread_mutex_unlock(&seen.lock);
	return yes;
}

static unsigned n_published(void)
{
	unsigned n;

	pthread_mutex_lock(&seen.lock);
	n = seen.n;
	pthread_mutex_unlock(&seen.lock);
	return n;
}

static void await_hosts(const char *host, bool want, size_t n_hosts, uint64_t ms)
{
	uint64_t deadline = now_ms() + ms;

	while (!published(host, want, n_hosts)) {
		if (!tick(deadline))
			fail_msg("%s%s and %zu hosts: not within %u ms", want ? "" : "no ", host,
				 n_hosts, (unsigned)ms);
	}
}

static void await_rejected(struct source *source, uint64_t n, const char *error, uint64_t ms)
{
	uint64_t deadline = now_ms() + ms;
	struct source_status status;

	do {
		source_status(source, &status);
		if (status.rejected >= n && strstr(status.last_error, error))
			return;
	} while (tick(deadline));
	fail_msg("%u loads rejected, '%s', not '%s'", (unsigned)status.rejected, status.last_error,
		 error);
}

static void await_accepted(struct source *source, uint64_t n)
{
	uint64_t deadline = now_ms() + RELOAD_MS;
	struct source_status status;

	do {
		source_status(source, &status);
		if (status.accepted >= n)
			return;
	} while (tick(deadline));
	fail_msg("%u loads accepted", (unsigned)status.accepted);
}

static struct source *start_fed(const char *path, const struct source_feed *feed)
{
	struct source *source;

	pthread_mutex_lock(&seen.lock);
	registry_unref(seen.reg);
	seen.reg = NULL;
	seen.n = 0;
	pthread_mutex_unlock(&seen.lock);
	assert_int_equal(source_start(&source, &path, 1, feed, on_publish, &seen), 0);
	return source;
}

static struct source *start(const char *path)
{
	return start_fed(path, NULL);
}

static void stop(struct source *source)
{
	source_stop(source);
	registry_unref(seen.reg);
	seen.reg = NULL;
}

static void test_changes(void **state)
{
	struct source_status status;
	struct source *source;

	(void)state;
	write_file("a.yaml", A);
	source = start(folder);
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	await_accepted(source, 1);
	source_status(source, &status);
	assert_int_equal(status.rejected, 0);
	assert_true(status.loaded_at > 0);
	assert_string_equal(status.last_error, "");

	write_file("b.yaml", B); /* a new file */
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	write_file("b.yaml", ENTRY("b", "c.example.com")); /* written over */
	await_hosts("c.example.com", true, 2, RELOAD_MS);
	replace_file("b.yaml", B); /* replaced by rename */
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	assert_int_equal(rename(in_folder("b.yaml"), in_folder("b.off")), 0);
	await_hosts("b.example.com", false, 1, RELOAD_MS);
	assert_int_equal(link(in_folder("b.off"), in_folder("b.yaml")), 0);
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	assert_int_equal(unlink(in_folder("b.yaml")), 0);
	await_hosts("b.example.com", false, 1, RELOAD_MS);
	assert_int_equal(unlink(in_folder("a.yaml")), 0);
	await_hosts("a.example.com", false, 0, RELOAD_MS);
	stop(source);
}

/* ---- entries that are in no file ---- */

static const char *const fed_host[] = {"fed.example.com"};
static const struct entry_port fed_port[] = {{.number = 443, .protocol = PROTOCOL_TLS, .name = ""}};
static const struct service_entry fed_entry = {
	.ns = "fed",
	.name = "fed",
	.created = 1,
	.hosts = fed_host,
	.n_hosts = 1,
	.ports = fed_port,
	.n_ports = 1,
	.source = "fed",
};

/* Of the source's thread, but for what start and end hand over. */
static struct {
	struct loop *loop;
	struct source *source;
	bool known;
	size_t n;
	int opened, closed;
	struct message change;
} fed;

static int feed_open(void *ctx, struct loop *loop, struct source *source)
{
	(void)ctx;
	fed.loop = loop;
	fed.source = source;
	fed.opened++;
	return 0;
}

static bool feed_entries(void *ctx, const struct service_entry **ret, size_t *ret_n)
{
	(void)ctx;
	*ret = &fed_entry;
	*ret_n = fed.n;
	return fed.known;
}

static void feed_close(void *ctx)
{
	(void)ctx;
	fed.closed++;
}

static void feed_change(struct message *m)
{
	(void)m;
	fed.known = true;
	fed.n = !fed.n;
	source_changed(fed.source);
	source_changed(fed.source); /* many are one */
}

static void change_feed(void)
{
	fed.change.run = feed_change;
	loop_post(fed.loop, &fed.change);
}

static void test_a_feed(void **state)
{
	const struct source_feed feed = {
		.open = feed_open, .entries = feed_entries, .close = feed_close};
	struct source_status status;
	struct source *source;

	(void)state;
	fed.n = 1; /* not known yet */
	write_file("a.yaml", A);
	source = start_fed(folder, &feed);
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	await_accepted(source, 1);
	fed.n = 0;
	change_feed();
	await_hosts("fed.example.com", true, 2, RELOAD_MS);
	await_accepted(source, 2);
	source_status(source, &status);
	assert_int_equal(status.accepted, 2);
	write_file("b.yaml", B); /* files, beside what is fed */
	await_hosts("fed.example.com", true, 3, RELOAD_MS);
	replace_file("b.yaml", "kind: [");
	await_rejected(source, 1, "b.yaml", RELOAD_MS);
	change_feed(); /* beside the last good files */
	await_hosts("fed.example.com", false, 2, RELOAD_MS);
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	stop(source);
	assert_int_equal(fed.opened, 1);
	assert_int_equal(fed.closed, 1);
}

static void test_bad_keeps_last_good(void **state)
{
	struct source_status status;
	struct source *source;

	(void)state;
	write_file("a.yaml", A);
	source = start(folder);
	await_accepted(source, 1);
	write_file("b.yaml", "kind: [");
	await_rejected(source, 1, "/b.yaml:2: not valid YAML", RELOAD_MS);
	assert_true(published("a.example.com", true, 1));
	assert_int_equal(n_published(), 1);

	write_file("b.yaml", B);
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	await_accepted(source, 2);
	source_status(source, &status);
	assert_int_equal(status.rejected, 1);
	assert_string_equal(status.last_error, "");
	stop(source);
}

/* The first load is refused: an empty registry, so that nothing may pass. */
static void test_bad_from_the_start(void **state)
{
	struct source *source;

	(void)state;
	write_file("a.yaml", "kind: Nothing\n");
	source = start(folder);
	await_rejected(source, 1, "/a.yaml:1: apiVersion is missing", RELOAD_MS);
	assert_true(published("a.example.com", false, 0));
	write_file("a.yaml", A);
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	stop(source);
}

static void test_missing_file(void **state)
{
	struct source *source = start(in_folder("later.yaml"));

	(void)state;
	await_rejected(source, 1, "later.yaml: cannot be read", RELOAD_MS);
	assert_true(published("a.example.com", false, 0));
	write_file("unrelated.yaml", B);
	write_file("later.yaml", A);
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	assert_int_equal(unlink(in_folder("later.yaml")), 0);
	await_rejected(source, 2, "later.yaml: cannot be read", RELOAD_MS);
	assert_true(published("a.example.com", true, 1)); /* the last good one */
	stop(source);
}

/* Neither the folder nor the one it will be in is there: polling finds it. */
static void test_missing_folder(void **state)
{
	struct source *source = start(in_folder("x/y"));

	(void)state;
	await_rejected(source, 1, "x/y: cannot be read", RELOAD_MS);
	make_folder("x");
	make_folder("x/y");
	write_file("x/y/a.yaml", A);
	await_hosts("a.example.com", true, 1, LONG_MS);
	write_file("x/y/b.yaml", B);
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	stop(source);
}

/* As kubelet does it: files are links through ..data, which is swapped by rename. */
static void test_config_map(void **state)
{
	struct source *source;

	(void)state;
	make_folder("cm");
	make_folder("cm/..1");
	write_file("cm/..1/hosts.yaml", A);
	link_to("..1", "cm/..data");
	link_to("..data/hosts.yaml", "cm/hosts.yaml");
	source = start(in_folder("cm"));
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	for (int i = 0; i < 2; i++) {
		make_folder("cm/..2");
		write_file("cm/..2/hosts.yaml", B);
		link_to("..2", "cm/..data");
		await_hosts("b.example.com", true, 1, RELOAD_MS);
		assert_int_equal(unlink(in_folder("cm/..1/hosts.yaml")), 0);
		assert_int_equal(rmdir(in_folder("cm/..1")), 0);
		make_folder("cm/..1");
		write_file("cm/..1/hosts.yaml", A);
		link_to("..1", "cm/..data");
		await_hosts("a.example.com", true, 1, RELOAD_MS);
		assert_int_equal(unlink(in_folder("cm/..2/hosts.yaml")), 0);
		assert_int_equal(rmdir(in_folder("cm/..2")), 0);
	}
	stop(source);

	/* The same with the file, not the folder, configured. */
	source = start(in_folder("cm/hosts.yaml"));
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	make_folder("cm/..2");
	write_file("cm/..2/hosts.yaml", B);
	link_to("..2", "cm/..data");
	await_hosts("b.example.com", true, 1, RELOAD_MS);
	stop(source);
}

/* The configured folder itself is replaced, by a link and by another folder. */
static void test_folder_swap(void **state)
{
	struct source *source;

	(void)state;
	make_folder("one");
	write_file("one/a.yaml", A);
	make_folder("two");
	write_file("two/b.yaml", B);
	link_to("one", "current");
	source = start(in_folder("current"));
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	link_to("two", "current");
	await_hosts("b.example.com", true, 1, RELOAD_MS);
	write_file("two/a.yaml", A); /* the new one is watched now */
	await_hosts("a.example.com", true, 2, RELOAD_MS);
	stop(source);

	source = start(in_folder("one"));
	await_hosts("a.example.com", true, 1, RELOAD_MS);
	assert_int_equal(rename(in_folder("one"), in_folder("old")), 0);
	assert_int_equal(rename(in_folder("two"), in_folder("one")), 0);
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	write_file("one/c.yaml", ENTRY("c", "c.example.com"));
	await_hosts("c.example.com", true, 3, RELOAD_MS);
	stop(source);
}

/* Many changes at once are one load, or few. */
static void test_burst(void **state)
{
	struct source *source;
	char name[32], text[512];

	(void)state;
	write_file("a.yaml", A);
	source = start(folder);
	await_accepted(source, 1);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "n%d.yaml", i);
		snprintf(text, sizeof(text),
			 "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
			 "metadata: {name: n%d}\nspec: {hosts: [n%d.com], ports: [{number: 443, "
			 "name: tls, protocol: TLS}], resolution: DNS}\n",
			 i, i);
		write_file(name, text);
	}
	await_hosts("n99.com", true, 101, RELOAD_MS);
	assert_in_range(n_published(), 2, 20);
	stop(source);
}

static void test_orders(void **state)
{
	const char *paths[2];
	struct source_status status;
	struct source *source;

	(void)state;
	make_folder("one");
	write_file("one/a.yaml", A);
	make_folder("two");
	write_file("two/b.yaml", B);
	source = start(in_folder("one"));
	await_accepted(source, 1);
	source_reload(source);
	await_accepted(source, 2);

	paths[0] = in_folder("one");
	paths[1] = in_folder("two/b.yaml");
	source_set_paths(source, paths, 2);
	await_hosts("b.example.com", true, 2, RELOAD_MS);
	source_set_paths(source, &paths[1], 1);
	await_hosts("a.example.com", false, 1, RELOAD_MS);
	source_set_paths(source, NULL, 0);
	await_hosts("b.example.com", false, 0, RELOAD_MS);
	source_status(source, &status);
	assert_int_equal(status.rejected, 0);

	for (int i = 0; i < 20; i++)
		source_reload(source); /* may still be under way when it ends */
	stop(source);
	source_stop(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_load_folder),
		TEST(test_load_errors),
		TEST(test_load_large),
		TEST(test_changes),
		TEST(test_a_feed),
		TEST(test_bad_keeps_last_good),
		TEST(test_bad_from_the_start),
		TEST(test_missing_file),
		TEST(test_missing_folder),
		TEST(test_config_map),
		TEST(test_folder_swap),
		TEST(test_burst),
		TEST(test_orders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

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
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"
#include "kube/cache.h"
#include "kube/entries.h"
#include "kube/kube_save.h"
#include "kube_json_text.h"

#define SERVER "https://10.96.0.1:443"

static char folder[64], dir[80], path[160];
static struct entry_store store;

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/sluice-unit-cache-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(dir, sizeof(dir), "%s/kube", folder);
	snprintf(path, sizeof(path), "%s/" CACHE_FILE, dir);
	return entry_store_init(&store);
}

static int remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(name);
}

static int tear_down(void **state)
{
	(void)state;
	entry_store_done(&store);
	return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(unsigned i)
{
	OWNED(free_json) json_t *json = NULL;
	char text[256];

	snprintf(text, sizeof(text),
		 "{'metadata':{'namespace':'n','name':'e%u','creationTimestamp':"
		 "'2024-05-01T10:00:00Z'},'spec':{'hosts':['h%u.example'],'exportTo':['.'],"
		 "'ports':[{'number':443,'name':'tls','protocol':'TLS'}]}}",
		 i, i);
	json = json_of(text);
	assert_int_equal(entry_store_put(&store, json), ENTRY_F_CHANGED);
}

static int write_cache(const char *parts)
{
	OWNED(free_json) json_t *json = json_of(parts);
	const struct cache_view view = {SERVER, json, store.list, store.n};
	atomic_bool stop = false;

	return cache_write(dir, &view, &stop);
}

static void on_entry(void *ctx, json_t *object)
{
	assert_int_equal(entry_store_restore(ctx, object), ENTRY_F_CHANGED);
}

/* 0: read; what is in `ret` counts then. */
static int read_cache(const char *server, struct entry_store *ret, json_t **ret_parts,
		      const char **ret_why)
{
	return cache_read(dir, server, ret_parts, on_entry, ret, ret_why);
}

static void test_there_and_back(void **state)
{
	static const size_t counts[] = {0, 1, 300};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(counts); k++) {
		OWNED(entry_store_done) struct entry_store again;
		OWNED(free_json) json_t *parts = NULL, *want = json_of("{'namespaces':{'a':true}}");
		const char *why = NULL;
		struct stat st;

		while (store.n < counts[k])
			put((unsigned)store.n);
		assert_int_equal(write_cache("{'namespaces':{'a':true}}"), 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		assert_int_equal(entry_store_init(&again), 0);
		assert_int_equal(read_cache(SERVER, &again, &parts, &why), 0);
		assert_int_equal(again.n, counts[k]);
		assert_true(json_equal(parts, want));
		for (size_t i = 0; i < again.n; i++) {
			assert_string_equal(again.list[i].name, store.list[i].name);
			assert_string_equal(again.list[i].hosts[0], store.list[i].hosts[0]);
			assert_int_equal(again.list[i].created, store.list[i].created);
		}
	}
}

static size_t load(char **ret)
{
	FILE *f = fopen(path, "re");
	char *text = malloc(1 << 20);
	size_t n;

	assert_non_null(f);
	assert_non_null(text);
	n = fread(text, 1, 1 << 20, f);
	fclose(f);
	*ret = text;
	return n;
}

static void save(const char *text, size_t n)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	fclose(f);
}

static const char *why_not(const char *server)
{
	OWNED(entry_store_done) struct entry_store again;
	OWNED(free_json) json_t *parts = NULL;
	const char *why = "";

	assert_int_equal(entry_store_init(&again), 0);
	if (read_cache(server, &again, &parts, &why) == -EBADMSG)
		assert_null(parts);
	return why;
}

/* No damage goes unseen: each byte is changed, and the file is cut after each byte. */
static void test_damage(void **state)
{
	OWNED_MEM char *text = NULL;
	size_t n;

	(void)state;
	put(1);
	put(2);
	assert_int_equal(write_cache("{}"), 0);
	n = load(&text);
	for (size_t i = 0; i < n; i++) {
		text[i] ^= 1;
		save(text, n);
		assert_string_equal(why_not(SERVER), "its sum is wrong");
		text[i] ^= 1;
		save(text, i);
		assert_string_equal(why_not(SERVER), "its sum is wrong");
	}
	save(text, n);
	assert_string_equal(why_not(SERVER), "");
	assert_string_equal(why_not("https://10.96.0.2:443"), "it is of another API server");
}

static void test_not_there(void **state)
{
	json_t *parts = NULL;
	const char *why;

	(void)state;
	assert_int_equal(read_cache(SERVER, &store, &parts, &why), -ENOENT);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(read_cache(SERVER, &store, &parts, &why), -ENOENT);
	/* Nobody's link is followed, and nobody's pipe waited for. */
	assert_int_equal(symlink("/dev/zero", path), 0);
	assert_int_equal(read_cache(SERVER, &store, &parts, &why), -ELOOP);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(read_cache(SERVER, &store, &parts, &why), -EFBIG);
}

static void test_is_removed(void **state)
{
	FILE *f;

	(void)state;
	assert_int_equal(cache_remove(dir), 0); /* there is none */
	assert_int_equal(mkdir(dir, 0700), 0);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(cache_remove(dir), 0);
	assert_int_equal(access(dir, F_OK), -1);
	assert_int_equal(cache_remove("/dev/null"), -ENOTDIR);
}

static void test_is_replaced_as_a_whole(void **state)
{
	OWNED(free_json) json_t *parts = json_of("{}");
	const struct cache_view view = {SERVER, parts, store.list, store.n};
	atomic_bool stop = true;
	char tmp[200];

	(void)state;
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	put(1);
	assert_int_equal(write_cache("{}"), 0);
	put(2);
	assert_int_equal(
		cache_write(dir, &(struct cache_view){SERVER, parts, store.list, store.n}, &stop),
		-ECANCELED);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_string_equal(why_not(SERVER), ""); /* what was there before */
	assert_int_equal(rmdir(dir), -1);

	/* A folder that cannot be made is said, not survived in silence. */
	assert_int_equal(cache_write("/proc/nowhere", &view, &stop), -ENOENT);
}

/* ---- the saver ---- */

static unsigned n_taken;
static bool is_known;
static struct loop *loop;

static bool take(void *ctx, struct entry_snapshot *ret, json_t **ret_parts)
{
	(void)ctx;
	if (!is_known)
		return false;
	n_taken++;
	*ret_parts = json_object();
	return entry_store_snapshot(&store, ret) == 0;
}

static struct kube_saver *new_saver(unsigned after_ms)
{
	struct kube_saver *saver;

	assert_int_equal(kube_saver_new(&saver, loop,
					&(struct kube_save_config){.dir = dir,
								   .server = SERVER,
								   .after_ms = after_ms,
								   .take = take}),
			 0);
	return saver;
}

static size_t n_in_cache(void)
{
	OWNED(entry_store_done) struct entry_store again;
	OWNED(free_json) json_t *parts = NULL;
	const char *why;

	assert_int_equal(entry_store_init(&again), 0);
	if (read_cache(SERVER, &again, &parts, &why) < 0)
		return SIZE_MAX;
	return again.n;
}

static int set_up_loop(void **state)
{
	n_taken = 0;
	is_known = true;
	return set_up(state) == 0 ? loop_new(&loop) : -1;
}

static int tear_down_loop(void **state)
{
	loop_free(loop); /* brings what is left of a saver's messages */
	return tear_down(state);
}

static void test_saves_at_the_end(void **state)
{
	struct kube_saver *saver = new_saver(60000);

	(void)state;
	kube_saver_free(saver); /* nothing has changed */
	assert_int_equal(n_in_cache(), SIZE_MAX);

	saver = new_saver(60000);
	put(1);
	kube_saver_touch(saver);
	is_known = false;
	kube_saver_free(saver); /* and here nothing is known */
	assert_int_equal(n_in_cache(), SIZE_MAX);

	is_known = true;
	saver = new_saver(60000);
	kube_saver_touch(saver);
	kube_saver_free(saver);
	assert_int_equal(n_in_cache(), 1);
}

static void on_look(struct timer *t)
{
	if (access(path, F_OK) == 0)
		loop_stop(loop);
	else
		timer_start(loop, t, 5);
}

static void run_until_saved(void)
{
	struct timer look = {.on_expire = on_look};

	timer_start(loop, &look, 5);
	assert_int_equal(loop_run(loop), 0);
}

/* Changes are folded: one writing for all of them, some time after the first. */
static void test_saves_after_a_while(void **state)
{
	struct kube_saver *saver = new_saver(100);

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		put(i);
		kube_saver_touch(saver);
	}
	assert_int_equal(n_taken, 0);
	run_until_saved();
	assert_int_equal(n_taken, 1);
	assert_int_equal(n_in_cache(), 50);
	kube_saver_free(saver);
	assert_int_equal(n_taken, 1);
}

static void on_taken(struct timer *t)
{
	if (n_taken > 0)
		loop_stop(loop);
	else
		timer_start(loop, t, 1);
}

/* The end does not wait for what is being written: it writes all of it itself, and what is new. */
static void test_ends_while_saving(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		put(i);
	for (unsigned more = 0; more < 2; more++) {
		struct timer taken = {.on_expire = on_taken};
		struct kube_saver *saver = new_saver(1);

		n_taken = 0;
		kube_saver_touch(saver);
		timer_start(loop, &taken, 1);
		assert_int_equal(loop_run(loop), 0);
		if (more) {
			put(5000);
			kube_saver_touch(saver);
		}
		kube_saver_free(saver);
		assert_int_equal(n_in_cache(), 5000 + more);
		assert_int_equal(remove(path), 0);
	}
}

static int set_up_proc(void **state)
{
	int r = set_up_loop(state);

	strcpy(dir, "/proc/nowhere");
	return r;
}

static void on_stop(struct timer *t)
{
	(void)t;
	loop_stop(loop);
}

/* A folder that cannot be written is survived. */
static void test_cannot_save(void **state)
{
	struct timer stop = {.on_expire = on_stop};
	struct kube_saver *saver = new_saver(1);

	(void)state;
	put(1);
	kube_saver_touch(saver);
	timer_start(loop, &stop, 50);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(n_taken, 1);
	kube_saver_touch(saver);
	kube_saver_free(saver);
	assert_int_equal(n_taken, 2);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define WITH_LOOP(test)   cmocka_unit_test_setup_teardown(test, set_up_loop, tear_down_loop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_there_and_back),
		WITH_FOLDER(test_damage),
		WITH_FOLDER(test_not_there),
		WITH_FOLDER(test_is_removed),
		WITH_FOLDER(test_is_replaced_as_a_whole),
		WITH_LOOP(test_saves_at_the_end),
		WITH_LOOP(test_saves_after_a_while),
		WITH_LOOP(test_ends_while_saving),
		cmocka_unit_test_setup_teardown(test_cannot_save, set_up_proc, tear_down_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

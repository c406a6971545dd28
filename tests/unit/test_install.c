/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "install/binary.h"
#include "install/conf.h"
#include "install/disk.h"
#include "install/folder.h"
#include "install/json_text.h"
#include "install/options.h"

#define OURS "{\"type\":\"sluice-cni\",\"agentSocket\":\"/a\",\"timeout\":\"5s\"}"

/* ---- places in a text ---- */

static void assert_span(struct span got, const char *want)
{
	assert_true(span_equal(got, span_of(want)));
}

static void test_members(void **state)
{
	static const struct {
		const char *object, *value; /* of "a"; NULL: not found */
	} cases[] = {
		{"{\"a\":1}", "1"},
		{" { \"b\" : [1, {\"a\":2}] ,\n\t\"a\" : \"x,}\\\"\" } ", "\"x,}\\\"\""},
		{"{\"a\":{\"a\":[\"]\",\"\\\\\"]},\"c\":3}", "{\"a\":[\"]\",\"\\\\\"]}"},
		{"{\"a\":1,\"a\":2}", "2"},
		{"{\"ab\":1,\"\\u0061\":2}", NULL},
		{"{}", NULL},
		{"[\"a\",1]", NULL},
		{"", NULL},
		{"{\"a\"", NULL},
		{"{\"a\":", NULL},
		{"{\"a\":[1,2", NULL},
		{"{\"a\":\"x\\", NULL},
		{"{\"a\":\"x\\\"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct span got;
		bool found = json_text_member(span_of(cases[i].object), "a", &got);

		assert_int_equal(found, cases[i].value != NULL);
		if (found)
			assert_span(got, cases[i].value);
	}
}

static void test_items(void **state)
{
	struct span rest = span_of("[ 1 ,\"],\" , {\"x\":[3]},\n[]\t]"), got;
	const char *const want[] = {"1", "\"],\"", "{\"x\":[3]}", "[]"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		assert_true(json_text_item(&rest, &got));
		assert_span(got, want[i]);
	}
	assert_false(json_text_item(&rest, &got));
	rest = span_of("[]");
	assert_false(json_text_item(&rest, &got));
}

/* ---- judging ---- */

#define LIST(more) "{\"cniVersion\":\"1.0.0\",\"name\":\"n\"" more "}"

static void test_judging(void **state)
{
	static const struct {
		const char *name, *text;
		enum conf_kind kind;
	} cases[] = {
		{"a.conflist", LIST(",\"plugins\":[{\"type\":\"bridge\"}]"), CONF_LIST},
		{".conflist", LIST(",\"plugins\":[{\"type\":\"bridge\"}]"), CONF_LIST},
		{"a.conflist", LIST(",\"plugins\":[{\"type\":\"bridge\"}," OURS "]"), CONF_LIST},
		{"a.conflist", LIST(",\"disableCheck\":\"TRUE\",\"plugins\":[{\"type\":\"b\"}]"),
		 CONF_LIST},
		{"a.conflist",
		 "{\"name\":\"n\",\"cniVersion\":\"0.1.0\",\"cniVersions\":[\"1.1.0\"],"
		 "\"plugins\":[{\"type\":\"b\"}]}",
		 CONF_LIST},
		{"a.conflist",
		 LIST(",\"plugins\":[{\"type\":\"b\",\"n\":123456789012345678901234567890,"
		      "\"s\":\"\\u0000\"}]"),
		 CONF_LIST},
		{"a.conf", "{\"name\":\"n\",\"type\":\"bridge\"}", CONF_SINGLE},
		{"a.json", "{\"name\":\"n\",\"type\":\"bridge\",\"cniVersion\":\"0.2.0\"}",
		 CONF_SINGLE},

		{"a.conflist", "", CONF_UNUSABLE},
		{"a.conflist", "[]", CONF_UNUSABLE},
		{"a.conflist", LIST("") "x", CONF_UNUSABLE},
		{"a.conflist", "{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"b\"}]}",
		 CONF_UNUSABLE},
		{"a.conflist", "{\"cniVersion\":1,\"name\":\"n\",\"plugins\":[{\"type\":\"b\"}]}",
		 CONF_UNUSABLE},
		{"a.conflist", LIST(",\"plugins\":[]"), CONF_UNUSABLE},
		{"a.conflist", LIST(",\"plugins\":{}"), CONF_UNUSABLE},
		{"a.conflist", LIST(",\"plugins\":[{\"type\":\"\"}]"), CONF_UNUSABLE},
		{"a.conflist", LIST(",\"plugins\":[{\"type\":\"b\"},{}]"), CONF_UNUSABLE},
		{"a.conflist", LIST(",\"plugins\":[" OURS "]"), CONF_UNUSABLE},
		{"a.conflist", LIST(",\"disableGC\":3,\"plugins\":[{\"type\":\"b\"}]"),
		 CONF_UNUSABLE},
		{"a.conflist", "{\"name\":\"n\",\"type\":\"bridge\"}", CONF_UNCHAINED},
		{"a.conf", LIST(",\"plugins\":[{\"type\":\"b\"}]"), CONF_UNUSABLE},
		{"a.conf", "{\"type\":\"b\"}", CONF_UNUSABLE},
		{"a.conf", "{\"name\":\"n\",\"type\":\"sluice-cni\"}", CONF_UNUSABLE},
		{"a.conf", "{\"name\":\"n\",\"type\":\"b\",\"cniVersion\":[]}", CONF_UNUSABLE},

		{"a.conflist", LIST(""), CONF_UNCHAINED},
		{"a.conflist",
		 "{\"name\":\"n\",\"cniVersion\":\"0.2.0\",\"plugins\":[{\"type\":\"b\"}]}",
		 CONF_UNCHAINED},
		{"a.conflist", "{\"name\":\"n\",\"plugins\":[{\"type\":\"b\"}]}", CONF_UNCHAINED},

		{"a.conflist.sluice-tmp", LIST(""), CONF_OTHER},
		{"a.conf.sluice-saved", "{}", CONF_OTHER},
		{"a.conf~", "{}", CONF_OTHER},
		{"conf", "{}", CONF_OTHER},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *why = NULL;

		assert_int_equal(conf_judge(cases[i].name, span_of(cases[i].text), &why),
				 cases[i].kind);
		assert_int_equal(why != NULL,
				 cases[i].kind == CONF_UNUSABLE || cases[i].kind == CONF_UNCHAINED);
	}
}

/* ---- changing ---- */

#define P1 "{ \"type\":\"bridge\", \"mtu\":1.50, \"plugins\":[{\"type\":\"sluice-cni\"}] }"
#define P2 "{\"type\":\"portmap\",\n\t\t\t\"big\":123456789012345678901}"

static void test_entry(void **state)
{
	static const struct {
		const char *before, *with, *without; /* NULL: as before */
	} cases[] = {
		{LIST(",\"plugins\":[" P1 "]"), LIST(",\"plugins\":[" P1 "," OURS "]"), NULL},
		{"{\n  \"plugins\": [\n    " P1 ",\n    " P2 "\n  ],\n  \"name\": \"n\"\n}\n",
		 "{\n  \"plugins\": [\n    " P1 ",\n    " P2 ",\n    " OURS
		 "\n  ],\n  \"name\": \"n\"\n}\n",
		 NULL},
		/* what is there already is as it has to be */
		{LIST(",\"plugins\":[" P1 "," OURS "]"), LIST(",\"plugins\":[" P1 "," OURS "]"),
		 LIST(",\"plugins\":[" P1 "]")},
		/* another one of ours, in another place, twice */
		{LIST(",\"plugins\":[{\"type\":\"sluice-cni\"} , " P1 "]"),
		 LIST(",\"plugins\":[" P1 "," OURS "]"), LIST(",\"plugins\":[" P1 "]")},
		{LIST(",\"plugins\":[" P1 ", {\"type\":\"sluice-cni\",\"timeout\":\"1s\"}, " P2
		      "]"),
		 LIST(",\"plugins\":[" P1 ", " P2 ", " OURS "]"),
		 LIST(",\"plugins\":[" P1 ", " P2 "]")},
		{LIST(",\"plugins\":[" OURS "," OURS "," P2 "," OURS "]"),
		 LIST(",\"plugins\":[" P2 "," OURS "]"), LIST(",\"plugins\":[" P2 "]")},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct span before = span_of(cases[i].before);
		OWNED_MEM char *with = NULL, *again = NULL, *without = NULL, *back = NULL;

		assert_int_equal(conf_with(before, OURS, &with), 0);
		assert_string_equal(with, cases[i].with);
		assert_true(conf_has_entry(span_of(with)));
		assert_int_equal(conf_with(span_of(with), OURS, &again), 0);
		assert_string_equal(again, with);
		assert_int_equal(conf_without(span_of(with), &without), 0);
		assert_string_equal(without, cases[i].without ?: cases[i].before);
		assert_int_equal(conf_without(before, &back), 0);
		assert_string_equal(back, without);
		assert_false(conf_has_entry(span_of(without)));
	}
}

/* Better no change than one that is not what it should be. */
static void test_unclear_texts_are_left_alone(void **state)
{
	static const char *const cases[] = {
		"{\"name\":\"n\",\"plug\\u0069ns\":[{\"type\":\"b\"}]}",
		"{\"name\":\"n\",\"plugins\":[]}",
		"{\"name\":\"n\",\"plugins\":{}}",
		"{\"name\":\"n\"}",
		"{",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = NULL;

		assert_int_equal(conf_with(span_of(cases[i]), OURS, &text), -EBADMSG);
		assert_null(text);
	}
}

static void test_single_becomes_list(void **state)
{
	static const struct {
		const char *single, *version;
	} cases[] = {
		{" {\"cniVersion\":\"0.4.0\",\"name\":\"my\\\"net\",\"type\":\"b\",\"n\":1.50}\n",
		 "0.4.0"},
		{"{\"name\":\"n\",\"type\":\"b\"}", "0.3.1"},
		{"{\"cniVersion\":\"0.2.0\",\"name\":\"n\",\"type\":\"b\"}", "0.3.1"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED_MEM char *list = NULL, *with = NULL;
		char version[64];
		const char *why;

		assert_int_equal(conf_to_list(span_of(cases[i].single), OURS, &list), 0);
		assert_int_equal(conf_judge("a.conflist", span_of(list), &why), CONF_LIST);
		snprintf(version, sizeof(version), "\"cniVersion\": \"%s\",\n", cases[i].version);
		assert_non_null(strstr(list, version));
		assert_int_equal(conf_with(span_of(list), OURS, &with), 0);
		assert_string_equal(with, list);
	}
}

static void test_entry_text(void **state)
{
	OWNED_MEM char *entry = conf_entry("/a", "5s"), *bad = conf_entry("/\xff", "5s");

	(void)state;
	assert_string_equal(entry, OURS);
	assert_null(bad);
}

/* ---- a folder ---- */

struct fixture {
	char dir[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(f->dir, sizeof(f->dir), "/tmp/sluice-install-XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char *paths[] = {f->dir, NULL};
	FTS *tree = fts_open(paths, FTS_PHYSICAL, NULL);
	const FTSENT *e;

	while ((e = fts_read(tree))) {
		if (e->fts_info == FTS_DP)
			rmdir(e->fts_path);
		else if (e->fts_info != FTS_D)
			unlink(e->fts_path);
	}
	fts_close(tree);
	free(f);
	return 0;
}

static void path_in(const struct fixture *f, const char *name, char ret[static 256])
{
	snprintf(ret, 256, "%s/%s", f->dir, name);
}

static void put(const struct fixture *f, const char *name, const char *text)
{
	char path[256];
	FILE *out;

	path_in(f, name, path);
	out = fopen(path, "we");
	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

/* NULL: no such file. For the caller to free. */
static char *take_text(const struct fixture *f, const char *name)
{
	char path[256], *text = calloc(1, 65536);
	FILE *in;

	path_in(f, name, path);
	in = fopen(path, "re");
	if (!in) {
		free(text);
		return NULL;
	}
	assert_true(fread(text, 1, 65535, in) < 65535);
	fclose(in);
	return text;
}

static void assert_text(const struct fixture *f, const char *name, const char *want)
{
	OWNED_MEM char *text = take_text(f, name);

	if (!want)
		assert_null(text);
	else
		assert_string_equal(text, want);
}

static void assert_ours(const struct fixture *f, const char *name, bool want)
{
	OWNED_MEM char *text = take_text(f, name);

	assert_non_null(text);
	assert_int_equal(conf_has_entry(span_of(text)), want);
}

static enum folder_state install(const struct fixture *f, char why[static DISK_WHY_MAX])
{
	return folder_install(f->dir, OURS, why);
}

#define GOOD   LIST(",\"plugins\":[" P1 ",\n " P2 "]")
#define SINGLE "{\"name\":\"n\", \"type\":\"b\"}\n"

static void test_first_valid_one(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX];

	assert_int_equal(install(f, why), FOLDER_EMPTY);
	assert_non_null(strstr(why, "no configuration"));

	put(f, "00-not.conflist.bak", GOOD);
	put(f, "05-broken.conflist", "{");
	assert_int_equal(install(f, why), FOLDER_EMPTY);
	assert_non_null(strstr(why, "05-broken.conflist"));

	put(f, "30-last.conflist", GOOD);
	put(f, "20-second.conflist", GOOD);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	assert_non_null(strstr(why, "05-broken.conflist"));
	assert_ours(f, "20-second.conflist", true);
	assert_text(f, "30-last.conflist", GOOD);
	assert_text(f, "05-broken.conflist", "{");
	assert_int_equal(install(f, why), FOLDER_DONE);

	/* A new one comes before it: that is the one that counts from now on. */
	put(f, "10-first.conflist", GOOD);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	assert_ours(f, "10-first.conflist", true);
	assert_ours(f, "20-second.conflist", true);

	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, "10-first.conflist", GOOD);
	assert_text(f, "20-second.conflist", GOOD);
	assert_text(f, "05-broken.conflist", "{");
	assert_int_equal(folder_remove(f->dir), 0);
}

static void test_mode_is_kept(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX], path[256];
	struct stat st;

	put(f, "10-a.conflist", GOOD);
	path_in(f, "10-a.conflist", path);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
}

static void test_conf_and_back(void **state)
{
	static const char *const names[] = {"10-a.conf", "10-a.json"};
	struct fixture *f = *state;
	char why[DISK_WHY_MAX], saved[64], path[256];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(saved, sizeof(saved), "%s.sluice-saved", names[i]);
		put(f, names[i], SINGLE);
		path_in(f, names[i], path);
		assert_int_equal(install(f, why), FOLDER_CHANGED);
		assert_text(f, names[i], NULL);
		assert_text(f, saved, SINGLE);
		assert_ours(f, "10-a.conflist", true);
		assert_int_equal(install(f, why), FOLDER_DONE);

		assert_int_equal(folder_remove(f->dir), 0);
		assert_text(f, names[i], SINGLE);
		assert_text(f, saved, NULL);
		assert_text(f, "10-a.conflist", NULL);
		assert_int_equal(unlink(path), 0);
	}
}

/* The primary plugin writes its .conf anew. */
static void test_conf_comes_again(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX];

	put(f, "10-a.conf", SINGLE);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	put(f, "10-a.conf", "{\"name\":\"n\",\"type\":\"new\"}");
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	assert_text(f, "10-a.conf", NULL);
	assert_text(f, "10-a.conf.sluice-saved", "{\"name\":\"n\",\"type\":\"new\"}");
	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, "10-a.conf", "{\"name\":\"n\",\"type\":\"new\"}");
	assert_text(f, "10-a.conflist", NULL);

	/* And once more, just before everything is taken away. */
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	put(f, "10-a.conf", SINGLE);
	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, "10-a.conf", SINGLE);
	assert_text(f, "10-a.conflist", NULL);
	assert_text(f, "10-a.conf.sluice-saved", NULL);
}

/* ---- while somebody else writes ---- */

static void by_rename(const struct fixture *f, const char *name, const char *text)
{
	char from[256], to[256];

	put(f, "new", text);
	path_in(f, "new", from);
	path_in(f, name, to);
	assert_int_equal(rename(from, to), 0);
}

static void be_removed(const struct fixture *f, const char *name, const char *text)
{
	char path[256];

	assert_null(text);
	path_in(f, name, path);
	assert_int_equal(unlink(path), 0);
}

static void test_what_was_written_since_stays(void **state)
{
	static const struct {
		void (*write)(const struct fixture *f, const char *name, const char *text);
		const char *text;
	} cases[] = {{put, "newer"}, {by_rename, "newer"}, {put, "ol"}, {put, "older"},
		     {put, ""},      {be_removed, NULL}};
	struct fixture *f = *state;
	int dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(disk_file_done) struct disk_file was = {0};

		put(f, "x", "old");
		assert_int_equal(disk_read(dirfd, "x", 100, &was), 0);
		cases[i].write(f, "x", cases[i].text);
		assert_int_equal(disk_rewrite(&was, "ours", 4), -ESTALE);
		assert_text(f, "x", cases[i].text);
		assert_text(f, ".x" DISK_SUFFIX_TMP, NULL);
	}
	put(f, "x", "old");
	OWNED(disk_file_done) struct disk_file was = {0};
	assert_int_equal(disk_read(dirfd, "x", 100, &was), 0);
	by_rename(f, "x", "old"); /* the same again */
	assert_int_equal(disk_rewrite(&was, "ours", 4), 0);
	assert_text(f, "x", "ours");
	assert_text(f, ".x" DISK_SUFFIX_TMP, NULL);
	close(dirfd);
}

struct installing {
	const struct fixture *f;
	atomic_bool stop;
};

static void *install_all_the_time(void *arg)
{
	struct installing *in = arg;
	char why[DISK_WHY_MAX];

	while (!in->stop)
		install(in->f, why);
	return NULL;
}

static bool is_installed(const struct fixture *f, const char *list, const char *text)
{
	OWNED_MEM char *got = take_text(f, list);

	return got && strstr(got, text) && conf_has_entry(span_of(got));
}

static void wait_installed(const struct fixture *f, const char *list, const char *text)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (int i = 0; !is_installed(f, list, text); i++) {
		assert_true(i < 60000); /* else it is lost: no disk is that slow */
		nanosleep(&moment, NULL);
	}
}

/* Three in a row, at another moment of what is made of the one before each time. */
static void test_nothing_newer_is_lost(void **state)
{
	static const struct {
		const char *name, *list, *format;
	} cases[] = {
		{"20-a.conflist", "20-a.conflist", LIST(",\"x\":\"n%d\",\"plugins\":[" P1 "]")},
		{"10-a.conf", "10-a.conflist", "{\"name\":\"n\",\"type\":\"n%d\"}"},
	};
	struct installing in = {.f = *state};
	char text[256], number[32];
	pthread_t thread;

	log_set_level(LOG_LEVEL_ERROR);
	assert_int_equal(pthread_create(&thread, NULL, install_all_the_time, &in), 0);
	for (int i = 0; i < 300; i++) {
		const struct timespec moments[] = {
			{.tv_nsec = i * 37 % 1000 * 1000}, {.tv_nsec = i * 7 % 100 * 1000}, {0}};
		size_t c = i < 150 ? 0 : 1;

		for (size_t k = 0; k < ARRAY_SIZE(moments); k++) {
			snprintf(text, sizeof(text), cases[c].format, 3 * i + (int)k);
			by_rename(in.f, cases[c].name, text);
			nanosleep(&moments[k], NULL);
		}
		snprintf(number, sizeof(number), "\"n%d\"", 3 * i + 2);
		wait_installed(in.f, cases[c].list, number);
	}
	in.stop = true;
	pthread_join(thread, NULL);
	log_set_level(LOG_LEVEL_INFO);
}

/* Killed between the two steps, and started with other options. */
static void test_half_converted(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX], *half;

	assert_int_equal(conf_to_list(span_of(SINGLE),
				      "{\"type\":\"sluice-cni\",\"timeout\":\"1s\"}", &half),
			 0);
	put(f, "10-a.conf", SINGLE);
	put(f, "10-a.conflist", half);
	free(half);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	assert_text(f, "10-a.conf", NULL);
	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, "10-a.conf", SINGLE);
	assert_text(f, "10-a.conflist", NULL);
}

static void test_somebody_elses_list_in_the_way(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX];

	put(f, "10-a.conf", SINGLE);
	put(f, "10-a.conflist", GOOD);
	assert_int_equal(install(f, why), FOLDER_FAILED);
	assert_non_null(strstr(why, "remove one of them"));
	assert_text(f, "10-a.conf", SINGLE);
	assert_text(f, "10-a.conflist", GOOD);
}

/* A list that was made of a .conf and changed by hand keeps the change. */
static void test_changed_list_is_kept(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX];

	put(f, "10-a.conf", SINGLE);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	put(f, "10-a.conflist", LIST(",\"plugins\":[" P1 "," OURS "]"));
	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, "10-a.conflist", LIST(",\"plugins\":[" P1 "]"));
	assert_text(f, "10-a.conf.sluice-saved", SINGLE);
}

static void test_what_cannot_be_joined_is_said(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX];

	put(f, "10-a.conflist", LIST(""));
	put(f, "20-b.conflist", GOOD);
	assert_int_equal(install(f, why), FOLDER_FAILED);
	assert_non_null(strstr(why, "10-a.conflist"));
	assert_text(f, "20-b.conflist", GOOD);
}

static void test_links(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX], path[256];
	struct stat st;

	put(f, "real.txt", GOOD);
	path_in(f, "10-a.conflist", path);
	assert_int_equal(symlink("real.txt", path), 0);
	assert_int_equal(install(f, why), FOLDER_CHANGED);
	assert_ours(f, "real.txt", true);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, "real.txt", GOOD);

	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/etc/hostname", path), 0);
	assert_int_equal(install(f, why), FOLDER_FAILED);
	assert_non_null(strstr(why, "leads out of the folder"));

	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("nowhere", path), 0);
	assert_int_equal(install(f, why), FOLDER_EMPTY);
}

static void test_leftovers(void **state)
{
	struct fixture *f = *state;

	put(f, ".10-a.conflist.sluice-tmp", "half");
	put(f, "x.sluice-tmp", "not ours");
	put(f, "notes.sluice-saved", "not ours");
	assert_int_equal(folder_remove(f->dir), 0);
	assert_text(f, ".10-a.conflist.sluice-tmp", NULL);
	assert_text(f, "x.sluice-tmp", "not ours");
	assert_text(f, "notes.sluice-saved", "not ours");
}

static void test_no_folder(void **state)
{
	char why[DISK_WHY_MAX];

	(void)state;
	assert_int_equal(folder_install("/tmp/sluice-install-none/x", OURS, why), FOLDER_EMPTY);
	assert_int_equal(folder_remove("/tmp/sluice-install-none/x"), 0);
}

/* ---- the binary ---- */

static void test_binary(void **state)
{
	struct fixture *f = *state;
	char why[DISK_WHY_MAX], source[256], bin[256], path[256];
	struct stat before, after;

	path_in(f, "image", source);
	path_in(f, "bin", bin);
	path_in(f, "bin/sluice-cni", path);
	put(f, "image", "version 1");
	assert_int_equal(binary_install(source, bin, why), -ENOENT);
	assert_int_equal(mkdir(bin, 0755), 0);

	assert_int_equal(binary_install(source, bin, why), 1);
	assert_text(f, "bin/sluice-cni", "version 1");
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(before.st_mode & 07777, 0755);
	assert_int_equal(binary_install(source, bin, why), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_true(after.st_ino == before.st_ino);

	put(f, "image", "version 2");
	assert_int_equal(binary_install(source, bin, why), 1);
	assert_text(f, "bin/sluice-cni", "version 2");
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(binary_install(source, bin, why), 1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/bin/true", path), 0);
	assert_int_equal(binary_install(source, bin, why), 1);
	assert_text(f, "bin/sluice-cni", "version 2");

	put(f, "bin/.sluice-cni.sluice-tmp", "half");
	assert_int_equal(binary_remove(bin), 0);
	assert_int_equal(binary_remove(bin), 0);
	assert_int_equal(rmdir(bin), 0);
	assert_int_equal(binary_remove(bin), 0);
	assert_int_equal(unlink(source), 0);
	assert_int_equal(mkdir(bin, 0755), 0);
	assert_int_equal(binary_install(source, bin, why), -ENOENT);
	assert_non_null(strstr(why, "image"));
}

/* ---- options ---- */

static void test_options(void **state)
{
	static const struct {
		const char *args[8];
		int r;
		enum install_mode mode;
	} cases[] = {
		{{NULL}, 0, INSTALL_ONCE},
		{{"--once"}, 0, INSTALL_ONCE},
		{{"--watch", "--timeout", "10s"}, 0, INSTALL_WATCH},
		{{"--remove"}, 0, INSTALL_REMOVE},
		{{"-h"}, 0, INSTALL_HELP},
		{{"--source", "/s", "--bin-dir=/b", "--conf-dir=/c", "--socket=/k"},
		 0,
		 INSTALL_ONCE},
		{{"--once", "--wait"}, 0, INSTALL_ONCE},
		{{"--wait"}, 0, INSTALL_ONCE},
		{{"--remove", "--stay"}, 0, INSTALL_REMOVE},
		{{"--watch", "--wait"}, -EINVAL, 0},
		{{"--once", "--stay"}, -EINVAL, 0},
		{{"--once", "--remove"}, -EINVAL, 0},
		{{"--socket", "relative"}, -EINVAL, 0},
		{{"--timeout", "0s"}, -EINVAL, 0},
		{{"--timeout", "61s"}, -EINVAL, 0},
		{{"--timeout", "5"}, -EINVAL, 0},
		{{"--timeout"}, -EINVAL, 0},
		{{"--unknown"}, -EINVAL, 0},
		{{"more"}, -EINVAL, 0},
		{{"--bin-dir="}, -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char error[OPTIONS_ERROR_MAX] = "",
		     *argv[10] = {(char *)(uintptr_t) "sluice-install"};
		struct install_options o;
		int argc = 1;

		for (; cases[i].args[argc - 1]; argc++)
			argv[argc] = (char *)(uintptr_t)cases[i].args[argc - 1];
		assert_int_equal(install_options_parse(argc, argv, &o, error), cases[i].r);
		if (cases[i].r == 0)
			assert_int_equal(o.mode, cases[i].mode);
		else
			assert_true(error[0] != '\0');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_judging),
		cmocka_unit_test(test_entry),
		cmocka_unit_test(test_unclear_texts_are_left_alone),
		cmocka_unit_test(test_single_becomes_list),
		cmocka_unit_test(test_entry_text),
		cmocka_unit_test_setup_teardown(test_first_valid_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mode_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conf_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conf_comes_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_written_since_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_newer_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_half_converted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_somebody_elses_list_in_the_way, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_changed_list_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_cannot_be_joined_is_said, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_links, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leftovers, setup, teardown),
		cmocka_unit_test(test_no_folder),
		cmocka_unit_test_setup_teardown(test_binary, setup, teardown),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

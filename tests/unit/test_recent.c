/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/recent.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/owned.h"

#define FOR_MS 60000

static struct recent *make(size_t max)
{
	struct recent *r = NULL;

	assert_int_equal(recent_new(&r, max, FOR_MS), 0);
	assert_non_null(r);
	return r;
}

static bool ask(struct recent *r, const char *key, uint64_t now_ms, uint64_t *ret_times)
{
	return recent_is_new(r, key, strlen(key), now_ms, ret_times);
}

static void test_story(void **state)
{
	static const struct {
		const char *key;
		uint64_t now_ms;
		bool is_new;
		uint64_t times;
	} story[] = {
		{"a", 1000, true, 0},
		{"a", 1000, false, 1},
		{"b", 1001, true, 0},
		{"a", 60999, false, 2},
		{"b", 60999, false, 1},
		{"a", 61000, true, 2}, /* a minute after it was said */
		{"a", 61000, false, 1},
		{"b", 61001, true, 1},
		{"c", 61001, true, 0},
		{"a", 120999, false, 2}, /* the minute begins when it is said, not when asked */
		{"a", 121000, true, 2},
		{"a", 999999, true, 0},
		{"aa", 999999, true, 0}, /* one key may begin with another */
		{"aa", 999999, false, 1},
		{"a", 999999, false, 1},
	};
	struct recent *r = make(4);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(story); i++) {
		uint64_t times = 77;

		assert_int_equal(ask(r, story[i].key, story[i].now_ms, &times), story[i].is_new);
		assert_int_equal(times, story[i].times);
	}
	recent_free(r);
}

/* What was said longest ago goes, however often it was asked for since. */
static void test_eviction(void **state)
{
	struct recent *r = make(3);
	uint64_t times;

	(void)state;
	assert_true(ask(r, "a", 1, &times));
	assert_true(ask(r, "b", 2, &times));
	assert_true(ask(r, "c", 3, &times));
	assert_false(ask(r, "a", 4, &times));
	assert_true(ask(r, "d", 5, &times)); /* a goes */
	assert_false(ask(r, "b", 6, &times));
	assert_false(ask(r, "c", 6, &times));
	assert_false(ask(r, "d", 6, &times));
	assert_true(ask(r, "a", 7, &times));          /* b goes */
	assert_int_equal(times, 0);                   /* what was not said of it is forgotten too */
	assert_true(ask(r, "c", FOR_MS + 3, &times)); /* said again: the newest now */
	assert_true(ask(r, "e", FOR_MS + 4, &times)); /* d goes */
	assert_false(ask(r, "a", FOR_MS + 5, &times));
	assert_false(ask(r, "c", FOR_MS + 5, &times));
	assert_true(ask(r, "d", FOR_MS + 5, &times));
	recent_free(r);
}

static void test_one_place(void **state)
{
	struct recent *r = make(1);
	uint64_t times;

	(void)state;
	assert_true(ask(r, "a", 1, &times));
	assert_false(ask(r, "a", 1, &times));
	assert_true(ask(r, "b", 1, &times));
	assert_false(ask(r, "b", 1, &times));
	assert_true(ask(r, "a", 1, &times));
	recent_free(r);
}

static void test_clock(void **state)
{
	struct recent *r = make(4);
	uint64_t times;

	(void)state;
	assert_true(ask(r, "wraps", UINT64_MAX - 10, &times));
	assert_false(ask(r, "wraps", 5, &times));
	assert_true(ask(r, "wraps", FOR_MS, &times));
	assert_int_equal(times, 1);
	assert_true(ask(r, "zero", 0, &times));
	assert_false(ask(r, "zero", FOR_MS - 1, &times));
	assert_true(ask(r, "back", 5000, &times));
	assert_true(ask(r, "back", 4999, &times)); /* rather twice than never */
	recent_free(r);
}

static void test_bad_sizes(void **state)
{
	struct recent *r = NULL;

	(void)state;
	assert_int_equal(recent_new(&r, 0, FOR_MS), -EINVAL);
	assert_int_equal(recent_new(&r, 65536, FOR_MS), -EINVAL);
	assert_null(r);
	assert_int_equal(recent_new(&r, 65535, FOR_MS), 0);
	recent_free(r);
	recent_free(NULL);
}

static void test_long_keys(void **state)
{
	struct recent *r = make(100);
	char key[RECENT_KEY_MAX] = "";
	uint64_t times;

	(void)state;
	for (size_t len = 1; len <= sizeof(key); len++)
		assert_true(recent_is_new(r, key, len, 1, &times));
	key[63] = 1;
	assert_true(recent_is_new(r, key, 64, 1, &times));
	key[63] = 0;
	for (size_t len = 1; len <= sizeof(key); len++)
		assert_false(recent_is_new(r, key, len, 1, &times));
	recent_free(r);
}

/* ---- against what it should be, slowly: a list ---- */

#define KEYS 40
#define MAX  16

struct slow {
	unsigned key;
	uint64_t at_ms, times;
};

static bool slow_is_new(struct slow v[MAX], size_t *n, unsigned key, uint64_t now, uint64_t *times)
{
	struct slow found = {.key = key, .at_ms = now};
	size_t i = 0;

	while (i < *n && v[i].key != key)
		i++;
	*times = 0;
	if (i < *n && now - v[i].at_ms < FOR_MS) {
		*times = ++v[i].times;
		return false;
	}
	if (i < *n)
		*times = v[i].times;
	else if (*n == MAX)
		i = 0;
	else
		i = (*n)++;
	memmove(&v[i], &v[i + 1], (*n - i - 1) * sizeof(*v));
	v[*n - 1] = found;
	return true;
}

static void test_against_list(void **state)
{
	struct slow v[MAX + 1];
	struct recent *r = make(MAX);
	unsigned seed = 1;
	uint64_t now = 0;
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		unsigned key = (unsigned)rand_r(&seed) % KEYS;
		uint64_t want_times, times;
		bool want;

		now += (unsigned)rand_r(&seed) % 4000;
		want = slow_is_new(v, &n, key, now, &want_times);
		assert_int_equal(recent_is_new(r, &key, sizeof(key), now, &times), want);
		assert_int_equal(times, want_times);
	}
	recent_free(r);
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The worst that a peer can do, each new key smaller than all others: it costs a few times what
 * kind ones do, not hundreds of times, and nothing grows.
 */
static void test_hostile_order(void **state)
{
	enum { N = 4096, ROUNDS = 20 };
	struct recent *r = make(N);
	uint64_t times, start = cpu_ns(), per_key;

	(void)state;
	for (uint64_t i = 0; i < (uint64_t)N * ROUNDS; i++) {
		uint8_t key[RECENT_KEY_MAX];

		memset(key, 0, sizeof(key));
		for (int b = 0; b < 8; b++)
			key[56 + b] = (uint8_t)((UINT64_MAX - i) >> (56 - 8 * b));
		assert_true(recent_is_new(r, key, sizeof(key), 1, &times));
		assert_false(recent_is_new(r, key, sizeof(key), 1, &times));
	}
	per_key = (cpu_ns() - start) / (N * ROUNDS);
	print_message("%llu ns for a new key and an old one\n", (unsigned long long)per_key);
	assert_true(per_key < 100000); /* a sanitizer's build on a busy machine, with room */
	recent_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_story),        cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_one_place),    cmocka_unit_test(test_clock),
		cmocka_unit_test(test_bad_sizes),    cmocka_unit_test(test_long_keys),
		cmocka_unit_test(test_against_list), cmocka_unit_test(test_hostile_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

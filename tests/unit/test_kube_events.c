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
#include "kube/events.h"
#include "kube_json_text.h"

#define WALL 1714557600 /* 2024-05-01T10:00:00Z */

static struct event_store store;

static int set_up(void **state)
{
	(void)state;
	return event_store_init(&store);
}

static int tear_down(void **state)
{
	(void)state;
	event_store_done(&store);
	return 0;
}

static struct event_text *text_of(const char *pod, const char *message)
{
	const struct kube_event event = {
		.kind = "Pod",
		.api_version = "v1",
		.ns = "shop",
		.name = pod,
		.uid = "u",
		.type = "Warning",
		.reason = "EgressDenied",
		.message = message,
		.action = "Connecting",
	};

	return event_text_new(&event);
}

static void add(const char *pod, const char *message, uint64_t now_ms)
{
	struct event_text *text = text_of(pod, message);

	assert_non_null(text);
	event_store_add(&store, text, now_ms, WALL + (int64_t)(now_ms / 1000));
}

static struct event_series *next(uint64_t now_ms)
{
	uint64_t wait;

	return event_store_next(&store, now_ms, &wait);
}

static uint64_t wait_of(uint64_t now_ms)
{
	uint64_t wait = 0;

	assert_null(event_store_next(&store, now_ms, &wait));
	return wait;
}

static void answer(struct event_series *s, long status, uint64_t now_ms)
{
	event_store_answered(&store, s, 0, status, 0, now_ms);
}

/* Sends all that may be sent now; how many. */
static unsigned send_all(uint64_t now_ms)
{
	struct event_series *s;
	unsigned n = 0;

	while ((s = next(now_ms))) {
		answer(s, s->posted ? 200 : 201, now_ms);
		n++;
	}
	return n;
}

/* ---- texts ---- */

static void test_texts_are_cleaned(void **state)
{
	static const struct {
		const char *in;
		size_t size;
		const char *out;
	} cases[] = {
		{"", 8, ""},
		{"plain", 8, "plain"},
		{"plain", 6, "plain"},
		{"plain", 5, "plai"},
		{"plain", 1, ""},
		{"a\x80z", 16, "a\xef\xbf\xbdz"},
		{"a\xffz", 4, "a"},
		{"\xc3\xa9", 3, "\xc3\xa9"},
		{"\xc3\xa9", 2, ""},
		{"\xc3", 8, "\xef\xbf\xbd"},
		{"\xed\xa0\x80", 16, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
		{"a\nb\tc\x1b[31m\x7f", 16, "a b c [31m "},
		{"a\xc2\x85\x62", 8, "a b"}, /* C1 */
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		event_text_clean(buf, cases[i].size, cases[i].in);
		assert_string_equal(buf, cases[i].out);
	}
}

static void test_only_what_can_be_named(void **state)
{
	static const struct {
		const char *ns, *name;
		bool good;
	} cases[] = {
		{"shop", "web-1", true}, {"shop", "web.1", true},  {"", "web", false},
		{"shop", "", false},     {"shop/x", "web", false}, {"shop", "a/../b", false},
		{"shop", "Web", false},  {"shop.x", "web", false}, {"shop", "a b", false},
		{NULL, "web", false},    {"shop", NULL, false},    {"shop", "a?b", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct kube_event event = {.ns = cases[i].ns, .name = cases[i].name};
		struct event_text *text = event_text_new(&event);

		assert_int_equal(text != NULL, cases[i].good);
		free(text);
	}
}

static void test_messages_are_cut(void **state)
{
	char message[5000];
	struct event_text *text;

	(void)state;
	memset(message, 'x', sizeof(message));
	message[sizeof(message) - 1] = '\0';
	text = text_of("web", message);
	assert_int_equal(strlen(text->message), EVENT_MESSAGE_MAX);
	assert_string_equal(text->action, "Connecting");
	free(text);
}

static void test_as_the_api_has_it(void **state)
{
	struct event_series *s;
	OWNED(free_json) json_t *create = NULL, *want = NULL, *patch = NULL, *want_patch = NULL;
	char name[300];

	(void)state;
	add("web", "host \"a.io\"", 0);
	s = next(0);
	create = event_json(s, "node-1");
	want = json_of("{'apiVersion':'v1','kind':'Event','metadata':{'namespace':'shop'},"
		       "'involvedObject':{'kind':'Pod','apiVersion':'v1','namespace':'shop',"
		       "'name':'web','uid':'u'},'type':'Warning','reason':'EgressDenied',"
		       "'message':'-','action':'Connecting','count':1,"
		       "'firstTimestamp':'2024-05-01T10:00:00Z',"
		       "'lastTimestamp':'2024-05-01T10:00:00Z',"
		       "'source':{'component':'sluice','host':'node-1'},"
		       "'reportingComponent':'sluice.io/agent','reportingInstance':'node-1'}");
	json_object_set_new(want, "message", json_string("host \"a.io\""));
	json_object_set_new(json_object_get(want, "metadata"), "name", json_string(s->name));
	assert_true(json_equal(create, want));
	assert_int_equal(sscanf(s->name, "web.%16[0-9a-f]", name), 1);
	assert_int_equal(strlen(s->name), 4 + 16);

	answer(s, 201, 0);
	add("web", "host \"a.io\"", 65000);
	s = next(65000);
	patch = event_json(s, "node-1");
	want_patch = json_of("{'count':2,'lastTimestamp':'2024-05-01T10:01:05Z'}");
	assert_true(json_equal(patch, want_patch));
}

static void test_names_of_events(void **state)
{
	struct kube_event event = {
		.kind = "ServiceEntry", .ns = "n", .name = "x", .message = "bad", .uid = "u"};
	struct event_store other;
	struct event_series *mine, *theirs;
	char pod[254];

	(void)state;
	assert_int_equal(event_store_init(&other), 0);
	event_store_add(&store, event_text_new(&event), 0, WALL);
	event_store_add(&other, event_text_new(&event), 0, WALL);
	mine = store.series[0];
	theirs = other.series[0];
	assert_string_equal(mine->name, theirs->name); /* one object, however many agents */

	event.kind = "Pod";
	event_store_add(&store, event_text_new(&event), 0, WALL);
	event_store_add(&other, event_text_new(&event), 0, WALL);
	assert_string_not_equal(store.series[1]->name, other.series[1]->name);
	event_store_done(&other);

	/* A long name is cut, and not where no name may end. */
	memset(pod, 'a', sizeof(pod));
	for (size_t i = 59; i < 253; i += 44)
		pod[i] = '.';
	pod[253] = '\0';
	assert_int_equal(pod[235], '.');
	add(pod, "x", 0);
	assert_int_equal(strlen(store.series[2]->name), 235 + 1 + 16);
	assert_memory_equal(store.series[2]->name, pod, 236);
}

/* ---- budgets ---- */

static void test_bucket(void **state)
{
	const struct event_rate rate = {3, 1000};
	struct event_bucket bucket = {0};
	uint64_t now = 500000;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(event_bucket_take(&bucket, rate, now));
	assert_false(event_bucket_take(&bucket, rate, now));
	assert_int_equal(event_bucket_wait(&bucket, rate, now), 1000);
	assert_int_equal(event_bucket_wait(&bucket, rate, now + 400), 600);
	assert_false(event_bucket_take(&bucket, rate, now + 999));
	assert_true(event_bucket_take(&bucket, rate, now + 1000));
	assert_false(event_bucket_take(&bucket, rate, now + 1000));
	/* A long rest fills it, and no more than that. */
	for (int i = 0; i < 3; i++)
		assert_true(event_bucket_take(&bucket, rate, now + 100000));
	assert_false(event_bucket_take(&bucket, rate, now + 100000));
}

/* A thousand different denials of one pod in a second are 25 requests. */
static void test_scanner(void **state)
{
	char message[32];
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(message, sizeof(message), "host-%u.example", i);
		add("web", message, i);
		n += send_all(i);
	}
	assert_int_equal(n, EVENT_OBJECT_BURST);
	assert_int_equal(store.dropped, 1000 - EVENT_OBJECT_BURST);
	assert_int_equal(store.sent, EVENT_OBJECT_BURST);

	/* Five minutes later there is room for one. */
	add("web", "new", EVENT_OBJECT_REFILL_MS - 1);
	assert_int_equal(send_all(EVENT_OBJECT_REFILL_MS - 1), 0);
	add("web", "new", EVENT_OBJECT_REFILL_MS);
	add("web", "newer", EVENT_OBJECT_REFILL_MS);
	assert_int_equal(send_all(EVENT_OBJECT_REFILL_MS), 1);
	/* Another pod has its own. */
	add("db", "new", EVENT_OBJECT_REFILL_MS);
	assert_int_equal(send_all(EVENT_OBJECT_REFILL_MS), 1);
}

/* Many pods share what the agent may ask of the server: what is too much waits. */
static void test_agent_has_a_budget(void **state)
{
	unsigned n;
	char pod[16];

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		snprintf(pod, sizeof(pod), "pod-%u", i);
		add(pod, "x", 0);
	}
	assert_int_equal(send_all(0), EVENT_AGENT_BURST);
	assert_int_equal(wait_of(0), EVENT_AGENT_REFILL_MS);
	assert_int_equal(send_all(1000), 5);
	n = EVENT_AGENT_BURST + 5;
	for (uint64_t now = 2000; n < 200; now += 1000)
		n += send_all(now);
	assert_int_equal(n, 200);
	assert_int_equal(store.dropped, 0);
}

/* One pod that knocks at one door each second, for an hour. */
static void test_series(void **state)
{
	unsigned n = 0;

	(void)state;
	for (uint64_t now = 0; now < 3600 * 1000; now += 1000) {
		add("web", "same", now);
		n += send_all(now);
	}
	assert_in_range(n, 10, 25);
	assert_int_equal(store.n, 1);
	assert_int_equal(store.series[0]->count, 3600);
	assert_in_range(store.series[0]->sent_count, 3600 - 301, 3600);
	assert_int_equal(store.dropped, 0);
	/* And there was something left for what is new. */
	add("web", "new", 3600 * 1000);
	assert_int_equal(send_all(3600 * 1000), 1);
}

static void test_a_series_has_a_pace(void **state)
{
	(void)state;
	add("web", "same", 1000);
	assert_int_equal(send_all(1000), 1);
	add("web", "same", 1001);
	assert_int_equal(wait_of(1001), EVENT_GAP_MS - 1);
	add("web", "same", 2000);
	assert_int_equal(send_all(1000 + EVENT_GAP_MS), 1); /* both of them */
	assert_int_equal(store.series[0]->sent_count, 3);
	assert_int_equal(wait_of(1000 + EVENT_GAP_MS), UINT64_MAX);
	add("web", "same", 11500);
	assert_int_equal(wait_of(11500), 11000 + 2 * EVENT_GAP_MS - 11500);
}

/* What happens while a request is on its way is not lost. */
static void test_counts_while_sending(void **state)
{
	struct event_series *s;

	(void)state;
	add("web", "same", 0);
	s = next(0);
	assert_non_null(s);
	add("web", "same", 1);
	assert_int_equal(wait_of(1), UINT64_MAX); /* its answer decides */
	answer(s, 201, 2);
	assert_int_equal(s->sent_count, 1);
	assert_int_equal(s->count, 2);
	assert_int_equal(send_all(2 + EVENT_GAP_MS), 1);
}

static void test_places_are_limited(void **state)
{
	char pod[16];

	(void)state;
	for (unsigned i = 0; i < 3 * EVENT_SERIES_MAX; i++) {
		snprintf(pod, sizeof(pod), "pod-%u", i);
		add(pod, "x", 0);
	}
	/* All wait to be sent: nothing is thrown out for what is new. */
	assert_int_equal(store.n, EVENT_SERIES_MAX);
	assert_int_equal(store.dropped, 2 * EVENT_SERIES_MAX);
	assert_string_equal(store.series[0]->text->name, "pod-0");
	/* What is told makes room, the quietest first. */
	assert_int_equal(send_all(0), EVENT_AGENT_BURST);
	add("pod-0", "x", 1);
	add("late", "x", 1);
	assert_int_equal(store.n, EVENT_SERIES_MAX);
	assert_string_equal(store.series[0]->text->name, "pod-0");
	assert_string_equal(store.series[1]->text->name, "pod-2");
	assert_string_equal(store.series[EVENT_SERIES_MAX - 1]->text->name, "late");
}

/* ---- answers ---- */

static void test_answers(void **state)
{
	static const struct {
		const char *name;
		bool posted; /* before */
		int r;
		long status;
		size_t left;   /* series */
		uint64_t wait; /* until the next try; UINT64_MAX: all is told */
		bool posted_after, told;
	} cases[] = {
		{"created", false, 0, 201, 1, UINT64_MAX, true, false},
		{"patched", true, 0, 200, 1, UINT64_MAX, true, false},
		{"another agent was first", false, 0, 409, 1, UINT64_MAX, true, false},
		{"no connection", false, -ECONNREFUSED, 0, 1, EVENT_PAUSE_MS, false, false},
		{"the server is busy", false, 0, 429, 1, EVENT_PAUSE_MS, false, false},
		{"the server is ill", true, 0, 503, 1, EVENT_PAUSE_MS, true, false},
		{"forbidden", false, 0, 403, 0, UINT64_MAX, false, true},
		{"invalid", false, 0, 422, 0, UINT64_MAX, false, true},
		{"the namespace is gone", false, 0, 404, 0, UINT64_MAX, false, false},
		{"the server forgot it", true, 0, 404, 1, 0, false, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct event_series *s;
		uint64_t now = 100000;

		print_message("%s\n", cases[i].name);
		assert_int_equal(set_up(state), 0);
		add("web", "x", 0);
		if (cases[i].posted) {
			assert_int_equal(send_all(0), 1);
			add("web", "x", now);
		}
		s = next(now);
		assert_non_null(s);
		assert_int_equal(
			event_store_answered(&store, s, cases[i].r, cases[i].status, 0, now),
			cases[i].told);
		assert_int_equal(store.n, cases[i].left);
		if (cases[i].left > 0)
			assert_int_equal(store.series[0]->posted, cases[i].posted_after);
		if (cases[i].wait == 0)
			assert_non_null(next(now));
		else
			assert_int_equal(wait_of(now), cases[i].wait);
		tear_down(state);
	}
}

static void test_the_server_says_when(void **state)
{
	(void)state;
	add("web", "x", 0);
	event_store_answered(&store, next(0), 0, 429, 17, 0);
	assert_int_equal(wait_of(0), 17000);
	event_store_answered(&store, next(17000), 0, 429, 100000, 17000);
	assert_int_equal(wait_of(17000), EVENT_PAUSE_MAX_MS);
}

/* A server that is away is asked less and less, and what is too old is let go. */
static void test_gives_up(void **state)
{
	uint64_t now = 0, waits[EVENT_TRIES_MAX];

	(void)state;
	add("web", "x", 0);
	for (unsigned i = 0; i < EVENT_TRIES_MAX; i++) {
		event_store_answered(&store, next(now), -ECONNREFUSED, 0, 0, now);
		waits[i] = store.paused_until_ms - now;
		now = store.paused_until_ms;
	}
	assert_int_equal(waits[0], EVENT_PAUSE_MS);
	assert_int_equal(waits[1], 2 * EVENT_PAUSE_MS);
	assert_int_equal(waits[4], 16 * EVENT_PAUSE_MS);
	assert_int_equal(store.n, 0);
	assert_int_equal(store.dropped, 1);
	/* The next that works makes up for it. */
	add("web", "y", now);
	assert_int_equal(send_all(now), 1);
	assert_int_equal(store.pause_ms, EVENT_PAUSE_MS);
}

/* Trying again costs its object nothing. */
static void test_tries_are_free(void **state)
{
	char message[16];

	(void)state;
	for (unsigned i = 0; i < EVENT_OBJECT_BURST; i++) {
		snprintf(message, sizeof(message), "m%u", i);
		add("web", message, 0);
	}
	event_store_answered(&store, next(0), 0, 500, 0, 0);
	assert_int_equal(send_all(EVENT_PAUSE_MS), EVENT_OBJECT_BURST);
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts_are_cleaned),
		cmocka_unit_test(test_only_what_can_be_named),
		cmocka_unit_test(test_messages_are_cut),
		WITH_STORE(test_as_the_api_has_it),
		WITH_STORE(test_names_of_events),
		cmocka_unit_test(test_bucket),
		WITH_STORE(test_scanner),
		WITH_STORE(test_agent_has_a_budget),
		WITH_STORE(test_series),
		WITH_STORE(test_a_series_has_a_pace),
		WITH_STORE(test_counts_while_sending),
		WITH_STORE(test_places_are_limited),
		cmocka_unit_test(test_answers),
		WITH_STORE(test_the_server_says_when),
		WITH_STORE(test_gives_up),
		WITH_STORE(test_tries_are_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

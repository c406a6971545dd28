/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <cmocka.h>

#include "base/addr.h"
#include "base/num.h"
#include "base/owned.h"
#include "base/span.h"
#include "net/loop.h"

/* ---- addr ---- */

static const struct {
	const char *text;
	int r;
	const char *printed;
} addrs[] = {
	{"192.0.2.1:443", 0, "192.0.2.1:443"},
	{"[2001:db8::1]:65535", 0, "[2001:db8::1]:65535"},
	{"[::ffff:192.0.2.1]:1", 0, "192.0.2.1:1"},
	{"[::]:80", 0, "[::]:80"},
	{"192.0.2.1", -EINVAL, NULL},
	{"192.0.2.1:", -EINVAL, NULL},
	{"192.0.2.1:0", -EINVAL, NULL},
	{"192.0.2.1:65536", -EINVAL, NULL},
	{"192.0.2.1:+1", -EINVAL, NULL},
	{"192.0.2.1:1x", -EINVAL, NULL},
	{"192.0.2.256:1", -EINVAL, NULL},
	{"192.0.2:1", -EINVAL, NULL},
	{"2001:db8::1:443", -EINVAL, NULL},
	{"[192.0.2.1]:443", -EINVAL, NULL},
	{"[::1:443", -EINVAL, NULL},
	{"::1]:443", -EINVAL, NULL},
	{"[fe80::1%eth0]:443", -EINVAL, NULL},
	{"[]:443", -EINVAL, NULL},
	{":443", -EINVAL, NULL},
	{"a.test:443", -EINVAL, NULL},
	{"", -EINVAL, NULL},
	{"1111111111111111111111111111111111111111111111111111111111:1", -EINVAL, NULL},
};

static void test_addr_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		struct addr a = {.port = 7}, back;
		struct sockaddr_storage sa;
		char buf[ADDR_TEXT];

		if (addr_parse(addrs[i].text, &a) != addrs[i].r)
			fail_msg("'%s'", addrs[i].text);
		if (addrs[i].r < 0) {
			assert_int_equal(a.port, 7);
			continue;
		}
		assert_string_equal(addr_print(&a, buf), addrs[i].printed);
		assert_int_equal(addr_to_sockaddr(&a, &sa), addr_is_v4(&a)
								    ? sizeof(struct sockaddr_in)
								    : sizeof(struct sockaddr_in6));
		assert_int_equal(addr_from_sockaddr(&sa, &back), 0);
		assert_true(addr_equal(&a, &back));
	}
}

static void test_addr_others(void **state)
{
	struct sockaddr_storage sa = {.ss_family = AF_UNIX};
	struct addr a, b;
	char buf[ADDR_TEXT];

	(void)state;
	assert_int_equal(addr_from_sockaddr(&sa, &a), -EAFNOSUPPORT);
	assert_int_equal(addr_parse_listen(":443", &a), 0);
	assert_string_equal(addr_print(&a, buf), "[::]:443");
	assert_int_equal(addr_parse_listen("192.0.2.1:443", &a), 0);
	assert_int_equal(addr_parse_listen(":", &a), -EINVAL);
	assert_int_equal(addr_parse_ip("192.0.2.1", &b), 0);
	assert_int_equal(b.port, 0);
	assert_true(addr_ip_equal(&a, &b));
	assert_false(addr_equal(&a, &b));
	assert_string_equal(addr_print_ip(&b, buf), "192.0.2.1");
	assert_int_equal(addr_parse_ip("[::1]", &b), -EINVAL);
}

static const struct {
	const char *net, *in, *out, *printed;
} nets[] = {
	{"10.0.0.0/8", "10.255.0.1", "11.0.0.0", "10.0.0.0/8"},
	{"10.1.2.3/8", "10.0.0.1", "::10.0.0.1", "10.0.0.0/8"},
	{"0.0.0.0/0", "203.0.113.1", "2001:db8::1", "0.0.0.0/0"},
	{"192.0.2.128/25", "192.0.2.128", "192.0.2.127", "192.0.2.128/25"},
	{"192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1/32"},
	{"192.0.2.2/31", "192.0.2.3", "192.0.2.4", "192.0.2.2/31"},
	{"fd00::/8", "fdff::1", "fe00::", "fd00::/8"},
	{"2001:db8:ffff::/33", "2001:db8:8000::", "2001:db8::", "2001:db8:8000::/33"},
	{"::1", "::1", "::2", "::1/128"},
};

static void test_cidr(void **state)
{
	static const char *const wrong[] = {"10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1",
					    "10.0.0.0/8 ", "/8",     "",          "a.test/8"};
	struct addr everything = {0};
	struct cidr c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(nets); i++) {
		struct addr in, out;
		char buf[ADDR_TEXT];

		assert_int_equal(cidr_parse(nets[i].net, &c), 0);
		assert_int_equal(addr_parse_ip(nets[i].in, &in), 0);
		assert_int_equal(addr_parse_ip(nets[i].out, &out), 0);
		if (!cidr_contains(&c, &in) || cidr_contains(&c, &out))
			fail_msg("'%s'", nets[i].net);
		assert_string_equal(cidr_print(&c, buf), nets[i].printed);
		assert_int_equal(cidr_is_v4(&c), addr_is_v4(&in));
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (cidr_parse(wrong[i], &c) != -EINVAL)
			fail_msg("'%s'", wrong[i]);
	}
	assert_int_equal(cidr_parse("::/0", &c), 0);
	assert_true(cidr_contains(&c, &everything));
}

/* ---- num ---- */

static void test_num_u64(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t n;
	} cases[] = {
		{"5", 0, 5},        {"10", 0, 10},      {"007", 0, 7},
		{"4", -ERANGE, 0},  {"11", -ERANGE, 0}, {"18446744073709551616", -ERANGE, 0},
		{"", -EINVAL, 0},   {" 5", -EINVAL, 0}, {"5 ", -EINVAL, 0},
		{"+5", -EINVAL, 0}, {"-5", -EINVAL, 0}, {"0x5", -EINVAL, 0},
	};
	uint64_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		n = 99;
		if (num_parse_u64(cases[i].text, 5, 10, &n) != cases[i].r)
			fail_msg("'%s'", cases[i].text);
		assert_int_equal(n, cases[i].r < 0 ? 99 : cases[i].n);
	}
	assert_int_equal(num_parse_u64("18446744073709551615", 0, UINT64_MAX, &n), 0);
	assert_true(n == UINT64_MAX);
}

static void test_num_duration(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t ms;
	} cases[] = {
		{"5s", 0, 5000},
		{"500ms", 0, 500},
		{"1h", 0, 3600000},
		{"1m30s", 0, 90000},
		{"0s", 0, 0},
		{"1h1m1s1ms", 0, 3661001},
		{"87600h", 0, 315360000000},
		{"87600h1ms", -ERANGE, 0},
		{"99999999999999999999s", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"5", -EINVAL, 0},
		{"s", -EINVAL, 0},
		{"5x", -EINVAL, 0},
		{"5s ", -EINVAL, 0},
		{"1.5s", -EINVAL, 0},
		{"-5s", -EINVAL, 0},
		{"5s3", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t ms = 99;

		if (num_parse_duration_ms(cases[i].text, &ms) != cases[i].r)
			fail_msg("'%s'", cases[i].text);
		assert_true(ms == (cases[i].r < 0 ? 99 : cases[i].ms));
	}
}

static void test_num_port(void **state)
{
	uint16_t port;

	(void)state;
	assert_int_equal(num_parse_port("65535", &port), 0);
	assert_int_equal(port, 65535);
	assert_int_equal(num_parse_port("0", &port), -ERANGE);
	assert_int_equal(num_parse_port("65536", &port), -ERANGE);
	assert_int_equal(num_parse_port("http", &port), -EINVAL);
}

/* ---- span ---- */

static void test_span_cut(void **state)
{
	static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
	struct span in = {bytes, sizeof(bytes)}, got = {0}, empty = {0};
	uint64_t n = 0;

	(void)state;
	assert_false(span_cut(&in, 10, &got));
	assert_null(got.p);
	assert_int_equal(in.len, 9);
	assert_true(span_cut_num(&in, 8, &n));
	assert_true(n == 0x0102030405060708);
	assert_false(span_cut_num(&in, 2, &n));
	assert_true(span_cut(&in, 1, &got));
	assert_int_equal(got.p[0], 9);
	assert_true(span_cut(&in, 0, &got));
	assert_true(span_cut(&empty, 0, &got));
	assert_false(span_cut(&empty, 1, &got));
}

static void test_span_vec(void **state)
{
	static const uint8_t bytes[] = {0, 2, 'a', 'b', 0, 2, 'c'};
	struct span in = {bytes, sizeof(bytes)}, got;

	(void)state;
	assert_true(span_cut_vec(&in, 2, &got));
	assert_true(span_equal(got, span_of("ab")));
	assert_false(span_cut_vec(&in, 2, &got)); /* claims more than there is: nothing moves */
	assert_int_equal(in.len, 3);
	assert_false(span_cut_vec(&in, 4, &got));
	assert_int_equal(in.len, 3);
}

static void test_span_equal(void **state)
{
	struct span nothing = {0};

	(void)state;
	assert_true(span_equal(nothing, span_of("")));
	assert_false(span_equal(span_of("a"), span_of("A")));
	assert_true(span_equal_nocase(span_of("hOsT"), "host"));
	assert_false(span_equal_nocase(span_of("hos"), "host"));
	assert_false(span_equal_nocase(span_of("hosts"), "host"));
	assert_true(span_equal_nocase(nothing, ""));
}

/* ---- timers ---- */

#define N_TIMERS 2000 /* even */

static struct loop *loop;

static struct probe {
	struct timer timer;
	unsigned fired;
} probes[N_TIMERS];

static size_t n_live;
static uint64_t latest_deadline;

static void start_loop(void)
{
	assert_int_equal(loop_new(&loop), 0);
}

static void end_loop(void)
{
	loop_free(loop);
	loop = NULL;
}

static unsigned dice(void)
{
	static uint32_t x = 123456789; /* xorshift: the same run every time */

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

static void stop_when_all_fired(struct probe *p)
{
	p->fired++;
	if (--n_live == 0)
		loop_stop(loop);
}

static void on_expire(struct timer *t)
{
	assert_false(timer_is_armed(t));
	assert_true(t->deadline_ms >= latest_deadline);
	assert_true(t->deadline_ms <= loop_now_ms(loop));
	latest_deadline = t->deadline_ms;
	stop_when_all_fired(CONTAINER_OF(t, struct probe, timer));
}

/* Started, restarted and stopped at random: what is armed in the end fires once, in order. */
static void test_timers_in_order(void **state)
{
	(void)state;
	start_loop();
	memset(probes, 0, sizeof(probes));
	latest_deadline = 0;
	for (size_t i = 0; i < N_TIMERS; i++)
		probes[i].timer.on_expire = on_expire;
	for (size_t i = 0; i < 5 * N_TIMERS; i++) {
		struct timer *t = &probes[dice() % N_TIMERS].timer;

		if (dice() % 3 == 0)
			timer_stop(loop, t);
		else
			timer_start(loop, t, dice() % 40);
	}
	n_live = 0;
	for (size_t i = 0; i < N_TIMERS; i++)
		n_live += timer_is_armed(&probes[i].timer);
	assert_in_range(n_live, 1, N_TIMERS - 1);
	for (size_t i = 0; i < N_TIMERS; i++)
		probes[i].fired = timer_is_armed(&probes[i].timer) ? 0 : 1; /* once in the end */

	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(n_live, 0);
	for (size_t i = 0; i < N_TIMERS; i++)
		assert_int_equal(probes[i].fired, 1);
	end_loop();
}

/* Each that fires stops its neighbour and starts the one after: the heap changes under the run. */
static void on_expire_meddle(struct timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, timer);
	size_t i = (size_t)(p - probes);

	p->fired++;
	timer_stop(loop, &probes[i + 1].timer);
	if (i + 2 < N_TIMERS)
		timer_start(loop, &probes[i + 2].timer, 0);
	else
		loop_stop(loop);
}

static void test_timers_change_while_running(void **state)
{
	(void)state;
	start_loop();
	memset(probes, 0, sizeof(probes));
	for (size_t i = 0; i < N_TIMERS; i++) {
		probes[i].timer.on_expire = on_expire_meddle;
		timer_start(loop, &probes[i].timer, i == 0 ? 0 : 3600000 + dice() % 1000);
	}
	assert_int_equal(loop_run(loop), 0);
	for (size_t i = 0; i < N_TIMERS; i++)
		assert_int_equal(probes[i].fired, i % 2 == 0);
	for (size_t i = 0; i < N_TIMERS; i++)
		assert_false(timer_is_armed(&probes[i].timer));
	end_loop();
}

static void test_timer_idle(void **state)
{
	struct timer t = {0};

	(void)state;
	start_loop();
	assert_false(timer_is_armed(&t));
	timer_stop(loop, &t);
	timer_start(loop, &t, 1000);
	assert_true(timer_is_armed(&t));
	timer_stop(loop, &t);
	assert_false(timer_is_armed(&t));
	end_loop();
}

/* ---- messages ---- */

#define N_SENDERS  4
#define N_MESSAGES 5000

struct note {
	struct message message;
	unsigned sender, number;
};

static struct note notes[N_SENDERS][N_MESSAGES];
static unsigned next_number[N_SENDERS];
static size_t n_received;

static void on_note(struct message *m)
{
	struct note *n = CONTAINER_OF(m, struct note, message);

	assert_int_equal(n->number, next_number[n->sender]++);
	if (++n_received == (size_t)N_SENDERS * N_MESSAGES)
		loop_stop(loop);
}

static void *send_notes(void *arg)
{
	struct note *mine = arg;

	for (unsigned i = 0; i < N_MESSAGES; i++)
		loop_post(loop, &mine[i].message);
	return NULL;
}

/* None is lost, none wakes too late, and those of one sender keep their order. */
static void test_messages_in_order(void **state)
{
	pthread_t threads[N_SENDERS];

	(void)state;
	start_loop();
	n_received = 0;
	for (unsigned s = 0; s < N_SENDERS; s++) {
		next_number[s] = 0;
		for (unsigned i = 0; i < N_MESSAGES; i++)
			notes[s][i] =
				(struct note){.message.run = on_note, .sender = s, .number = i};
		assert_int_equal(pthread_create(&threads[s], NULL, send_notes, notes[s]), 0);
	}
	assert_int_equal(loop_run(loop), 0);
	for (unsigned s = 0; s < N_SENDERS; s++) {
		assert_int_equal(pthread_join(threads[s], NULL), 0);
		assert_int_equal(next_number[s], N_MESSAGES);
	}
	end_loop();
}

static void count_note(struct message *m)
{
	(void)m;
	n_received++;
}

static void test_messages_run_at_free(void **state)
{
	struct message m = {.run = count_note};

	(void)state;
	start_loop();
	n_received = 0;
	loop_post(loop, &m);
	end_loop();
	assert_int_equal(n_received, 1);
}

/* ---- later, and watches closed by an earlier event of the same batch ---- */

static unsigned n_later, n_events;
static struct later again;
static struct watch pair[2];

static void run_later_once(struct later *l)
{
	n_later++;
	if (n_later < 3)
		loop_later(loop, l); /* waits for the next round */
	else
		loop_stop(loop);
}

static void test_later(void **state)
{
	(void)state;
	start_loop();
	n_later = 0;
	again = (struct later){.run = run_later_once};
	loop_later(loop, &again);
	loop_later(loop, &again); /* is queued: nothing happens */
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(n_later, 3);
	assert_false(again.queued);
	end_loop();
}

static void on_readable(struct watch *w, uint32_t events)
{
	assert_true(events & EPOLLIN);
	assert_true(w->fd >= 0);
	n_events++;
	watch_close(&pair[0]);
	watch_close(&pair[1]);
	again = (struct later){.run = run_later_once};
	n_later = 2;
	loop_later(loop, &again);
}

static void test_closed_watch_is_dropped(void **state)
{
	(void)state;
	start_loop();
	n_events = 0;
	for (int i = 0; i < 2; i++) {
		pair[i] = (struct watch){.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK),
					 .on_event = on_readable};
		assert_true(pair[i].fd >= 0);
		assert_int_equal(watch_add(loop, &pair[i], EPOLLIN), 0);
	}
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(n_events, 1);
	assert_int_equal(pair[0].fd, -1);
	watch_close(&pair[0]); /* fine when closed */
	end_loop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addr_parse),
		cmocka_unit_test(test_addr_others),
		cmocka_unit_test(test_cidr),
		cmocka_unit_test(test_num_u64),
		cmocka_unit_test(test_num_duration),
		cmocka_unit_test(test_num_port),
		cmocka_unit_test(test_span_cut),
		cmocka_unit_test(test_span_vec),
		cmocka_unit_test(test_span_equal),
		cmocka_unit_test(test_timers_in_order),
		cmocka_unit_test(test_timers_change_while_running),
		cmocka_unit_test(test_timer_idle),
		cmocka_unit_test(test_messages_in_order),
		cmocka_unit_test(test_messages_run_at_free),
		cmocka_unit_test(test_later),
		cmocka_unit_test(test_closed_watch_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

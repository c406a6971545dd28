/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "fake_dns.h"
#include "base/owned.h"

#define GUARD_MS 30000

static const struct fake_rr zone[] = {
	{"one.test", AF_INET, FAKE_OK, 60, "192.0.2.1"},
	{"one.test", AF_INET6, FAKE_OK, 60, "2001:db8::1"},
	{"two.test", AF_INET, FAKE_OK, 60, "192.0.2.2 192.0.2.1"},
	{"v4only.test", AF_INET, FAKE_OK, 60, "192.0.2.3"},
	{"mapped.test", AF_INET6, FAKE_OK, 60, "::ffff:10.0.0.1"},
	{"nx.test", AF_INET, FAKE_NX, 60, NULL},
	{"servfail.test", AF_INET, FAKE_SERVFAIL, 60, NULL},
	{"refused.test", AF_INET, FAKE_REFUSED, 60, NULL},
	{"silent.test", AF_INET, FAKE_SILENT, 60, NULL},
	{"*.silent.test", AF_INET, FAKE_SILENT, 60, NULL},
	{"lost.test", AF_INET, FAKE_LOST, 60, "192.0.2.4"},
	{"tc.test", AF_INET, FAKE_TRUNCATED, 60, "192.0.2.5"},
	{"many.test", AF_INET, FAKE_MANY, 60, "17"},
	{"huge.test", AF_INET, FAKE_MANY, 60, "3500"},
	{"wrongid.test", AF_INET, FAKE_WRONG_ID, 60, "192.0.2.6"},
	{"wrongq.test", AF_INET, FAKE_WRONG_QUESTION, 60, "192.0.2.7"},
	{"garbage.test", AF_INET, FAKE_GARBAGE, 60, "192.0.2.8"},
	{"broken.test", AF_INET, FAKE_BROKEN, 60, "192.0.2.9"},
	{"alias.test", AF_INET, FAKE_CNAME, 60, "far.example 192.0.2.10 192.0.2.11"},
	{"alias.test", AF_INET6, FAKE_CNAME, 60, "far.example 2001:db8::10"},
	{"dangling.test", AF_INET, FAKE_CNAME, 60, "far.example "},
	{"ttl0.test", AF_INET, FAKE_OK, 0, "192.0.2.12"},
	{"ttl1.test", AF_INET, FAKE_OK, 1, "192.0.2.13"},
	{"ttlmax.test", AF_INET, FAKE_OK, 0xffffffff, "192.0.2.14"},
	{"*.cached.test", AF_INET, FAKE_OK, 60, "192.0.2.15"},
};

/* A loop with a resolver; stops when `left` answers have come. */
struct world {
	struct loop *loop;
	struct resolver *resolver;
	struct timer guard;
	bool late;
	unsigned left;
};

/* A question, and what came of it. */
struct ask {
	struct lookup lookup;
	struct world *world;
	unsigned told;
	int r;
	size_t n;
	struct addr addrs[RESOLVE_MAX_ADDRS];
	void (*then)(struct ask *a);
	struct ask *other;
};

static void on_guard(struct timer *t)
{
	struct world *w = CONTAINER_OF(t, struct world, guard);

	w->late = true;
	loop_stop(w->loop);
}

static void world_open(struct world *w, const struct addr *servers, size_t n)
{
	*w = (struct world){.guard.on_expire = on_guard};
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(resolver_new(&w->resolver, w->loop, servers, n), 0);
}

static void world_close(struct world *w)
{
	resolver_free(w->resolver);
	loop_free(w->loop);
}

static void world_run(struct world *w, unsigned answers)
{
	w->left = answers;
	timer_start(w->loop, &w->guard, GUARD_MS);
	assert_int_equal(loop_run(w->loop), 0);
	timer_stop(w->loop, &w->guard);
	assert_false(w->late);
}

static void on_done(struct lookup *l, int r, const struct addr *addrs, size_t n)
{
	struct ask *a = CONTAINER_OF(l, struct ask, lookup);
	struct world *w = a->world;

	assert_null(l->resolver);
	assert_true(n <= RESOLVE_MAX_ADDRS);
	a->told++;
	a->r = r;
	a->n = n;
	if (n > 0)
		memcpy(a->addrs, addrs, n * sizeof(addrs[0]));
	if (a->then)
		a->then(a);
	if (--w->left == 0)
		loop_stop(w->loop);
}

static int ask_start(struct ask *a, struct world *w, const char *name, int family)
{
	a->lookup.done = on_done;
	a->world = w;
	return lookup_start(w->resolver, &a->lookup, name, family);
}

/* Asks and waits. */
static struct ask ask(struct world *w, const char *name, int family)
{
	struct ask a = {0};

	assert_int_equal(ask_start(&a, w, name, family), 0);
	assert_int_equal(a.told, 0); /* never from within lookup_start() */
	world_run(w, 1);
	assert_int_equal(a.told, 1);
	return a;
}

static void print_addrs(const struct ask *a, char *buf, size_t size)
{
	char one[ADDR_TEXT];
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < a->n; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s", i > 0 ? " " : "",
					addr_print_ip(&a->addrs[i], one));
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void test_answers(void **state)
{
	static const struct {
		const char *name;
		int family, r;
		const char *addrs;
	} cases[] = {
		{"one.test", AF_INET, 0, "192.0.2.1"},
		{"one.test", AF_INET6, 0, "2001:db8::1"},
		{"two.test", AF_INET, 0, "192.0.2.2 192.0.2.1"}, /* the server's order */
		{"v4only.test", AF_INET6, -ENOENT, ""},
		{"mapped.test", AF_INET6, 0, "10.0.0.1"}, /* is IPv4, and judged as such */
		{"unknown.test", AF_INET, -ENOENT, ""},
		{"nx.test", AF_INET, -ENOENT, ""},
		{"servfail.test", AF_INET, -ECONNREFUSED, ""},
		{"refused.test", AF_INET, -ECONNREFUSED, ""},
		{"tc.test", AF_INET, 0, "192.0.2.5"},
		{"wrongid.test", AF_INET, 0, "192.0.2.6"},
		{"wrongq.test", AF_INET, 0, "192.0.2.7"},
		{"garbage.test", AF_INET, 0, "192.0.2.8"},
		{"broken.test", AF_INET, -EIO, ""},
		{"alias.test", AF_INET, 0, "192.0.2.10 192.0.2.11"},
		{"alias.test", AF_INET6, 0, "2001:db8::10"},
		{"dangling.test", AF_INET, -ENOENT, ""},
		{"lost.test", AF_INET, 0, "192.0.2.4"},
		{"one.test.", AF_INET, 0, "192.0.2.1"},
		{"localhost", AF_INET, -ENOENT, ""}, /* the hosts file plays no part */
		/* no such names can be asked for */
		{"a..test", AF_INET, -ENOENT, ""},
		{"a23456789012345678901234567890123456789012345678901234567890abcd.test", AF_INET,
		 -ENOENT, ""},
	};
	struct fake_dns dns;
	struct world w;
	char got[512];

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ask a = ask(&w, cases[i].name, cases[i].family);

		print_addrs(&a, got, sizeof(got));
		if (a.r != cases[i].r || strcmp(got, cases[i].addrs) != 0)
			fail_msg("%s: %d, '%s'", cases[i].name, a.r, got);
	}
	world_close(&w);
	fake_stop(&dns);
}

static void test_refuses_what_is_no_question(void **state)
{
	char longest[256] = "";
	struct ask a = {0};
	struct world w;
	struct addr nobody;

	(void)state;
	assert_int_equal(addr_parse("127.0.0.1:9", &nobody), 0);
	world_open(&w, &nobody, 1);
	memset(longest, 'a', 254);
	assert_int_equal(ask_start(&a, &w, longest, AF_INET), -EINVAL);
	assert_int_equal(ask_start(&a, &w, "", AF_INET), -EINVAL);
	assert_int_equal(ask_start(&a, &w, "a.test", AF_UNIX), -EINVAL);
	assert_null(a.lookup.resolver);
	lookup_cancel(&a.lookup);
	world_close(&w);
}

static void test_takes_no_more_than_16(void **state)
{
	static const char *const names[] = {"many.test", "huge.test"};
	struct fake_dns dns;
	struct world w;

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct ask a = ask(&w, names[i], AF_INET);
		struct addr last;

		assert_int_equal(a.r, 0);
		assert_int_equal(a.n, RESOLVE_MAX_ADDRS);
		assert_int_equal(addr_parse_ip("127.1.0.15", &last), 0);
		assert_true(addr_equal(&a.addrs[15], &last));
	}
	world_close(&w);
	fake_stop(&dns);
}

static void test_how_long_it_is_kept(void **state)
{
	static const struct {
		int r;
		int64_t ttl_s;
		uint64_t ms;
	} cases[] = {
		{0, INT32_MIN, 1000}, /* RFC 2181, 8: the highest bit set means nothing */
		{0, -1, 1000},         {0, 0, 1000},           {0, 1, 1000},
		{0, 2, 2000},          {0, 299, 299000},       {0, 300, 300000},
		{0, 301, 300000},      {0, INT32_MAX, 300000}, {-ENOENT, 0, 5000},
		{-ENOENT, 3600, 5000}, {-ETIMEDOUT, 0, 1000},  {-ECONNREFUSED, 0, 1000},
		{-EIO, 60, 1000},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(resolve_keep_ms(cases[i].r, cases[i].ttl_s), cases[i].ms);
}

/* When the server hears of a question again. */
static void test_cache_forgets_in_time(void **state)
{
	static const struct {
		const char *name;
		uint64_t ms; /* kept */
	} cases[] = {
		{"ttl0.test", 1000},     {"ttl1.test", 1000}, {"ttlmax.test", 1000},
		{"alias.test", 1000}, /* the TTL of the alias counts, not the address' 60 s */
		{"servfail.test", 1000}, {"nx.test", 5000},   {"one.test", 60000},
	};
	unsigned first[ARRAY_SIZE(cases)];
	uint64_t start = now_ms(), kept[ARRAY_SIZE(cases)] = {0};
	struct fake_dns dns;
	struct world w;

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ask(&w, cases[i].name, AF_INET);
		first[i] = fake_asked(&dns, cases[i].name, AF_INET);
	}
	assert_in_range(fake_asked(&dns, "servfail.test", AF_INET), 1, 2); /* once per try */
	while (kept[5] == 0) {
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			ask(&w, cases[i].name, AF_INET);
			if (!kept[i] && fake_asked(&dns, cases[i].name, AF_INET) > first[i])
				kept[i] = now_ms() - start;
		}
		poll(NULL, 0, 10);
	}
	for (size_t i = 0; i < 6; i++)
		assert_in_range(kept[i], cases[i].ms - 10, cases[i].ms + 3000);
	assert_int_equal(kept[6], 0);
	world_close(&w);
	fake_stop(&dns);
}

static void test_questions_are_shared(void **state)
{
	static struct ask asks[1000];
	struct fake_dns dns;
	struct world w;

	(void)state;
	memset(asks, 0, sizeof(asks));
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	for (size_t i = 0; i < ARRAY_SIZE(asks); i++)
		assert_int_equal(ask_start(&asks[i], &w, "one.test", i % 2 ? AF_INET : AF_INET6),
				 0);
	world_run(&w, ARRAY_SIZE(asks));
	for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
		assert_int_equal(asks[i].told, 1);
		assert_int_equal(asks[i].r, 0);
		assert_int_equal(addr_is_v4(&asks[i].addrs[0]), i % 2);
	}
	assert_int_equal(fake_asked(&dns, "one.test", AF_INET), 1);
	assert_int_equal(fake_asked(&dns, "one.test", AF_INET6), 1);
	world_close(&w);
	fake_stop(&dns);
}

/* Answers that are at hand are told in the order of the questions. */
static unsigned order;

static void note_order(struct ask *a)
{
	a->n = order++;
}

static void test_cached_answers_keep_order(void **state)
{
	struct fake_dns dns;
	struct world w;
	struct ask a = {.then = note_order}, b = {.then = note_order};

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	ask(&w, "one.test", AF_INET);
	ask(&w, "one.test", AF_INET6);
	order = 0;
	ask_start(&a, &w, "one.test", AF_INET6);
	ask_start(&b, &w, "one.test", AF_INET);
	world_run(&w, 2);
	assert_int_equal(a.n, 0);
	assert_int_equal(b.n, 1);
	world_close(&w);
	fake_stop(&dns);
}

static void test_silence_times_out(void **state)
{
	struct fake_dns dns;
	struct world w;
	struct ask a;
	uint64_t start = now_ms();

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	a = ask(&w, "silent.test", AF_INET);
	assert_int_equal(a.r, -ETIMEDOUT);
	assert_in_range(now_ms() - start, 2500, 8000); /* tries of 1 and 2 s */
	assert_int_equal(fake_asked(&dns, "silent.test", AF_INET), 2);
	world_close(&w);
	fake_stop(&dns);
}

static void test_the_next_server_is_asked(void **state)
{
	static const struct fake_rr silent[] = {{"*.test", AF_INET, FAKE_SILENT, 0, NULL}};
	static const struct fake_rr failing[] = {{"*.test", AF_INET, FAKE_SERVFAIL, 0, NULL}};
	struct fake_dns good, mute, bad, gone;
	struct ask a;
	struct world w;

	(void)state;
	fake_start(&good, zone, ARRAY_SIZE(zone));
	fake_start(&mute, silent, 1);
	fake_start(&bad, failing, 1);
	fake_start(&gone, zone, ARRAY_SIZE(zone));
	fake_stop(&gone); /* nobody listens there now */

	world_open(&w, (struct addr[]){mute.addr, good.addr}, 2);
	a = ask(&w, "one.test", AF_INET);
	assert_int_equal(a.r, 0);
	world_close(&w);

	world_open(&w, (struct addr[]){bad.addr, good.addr}, 2);
	a = ask(&w, "one.test", AF_INET);
	assert_int_equal(a.r, 0);
	world_close(&w);

	world_open(&w, (struct addr[]){gone.addr, good.addr}, 2);
	a = ask(&w, "one.test", AF_INET);
	assert_int_equal(a.r, 0);
	world_close(&w);

	world_open(&w, &gone.addr, 1);
	a = ask(&w, "one.test", AF_INET);
	assert_int_equal(a.r, -ECONNREFUSED);
	world_close(&w);

	fake_stop(&good);
	fake_stop(&mute);
	fake_stop(&bad);
}

static struct ask *survivor;

static void cancel_and_free_other(struct ask *a)
{
	lookup_cancel(&a->other->lookup);
	free(a->other);
	survivor = a;
}

/* Two that are told together: whichever is told first ends the other. */
static void cancel_within_done(struct world *w, const char *name)
{
	struct ask *one = calloc(1, sizeof(*one)), *two = calloc(1, sizeof(*two));

	*one = (struct ask){.then = cancel_and_free_other, .other = two};
	*two = (struct ask){.then = cancel_and_free_other, .other = one};
	assert_int_equal(ask_start(one, w, name, AF_INET), 0);
	assert_int_equal(ask_start(two, w, name, AF_INET), 0);
	world_run(w, 1);
	assert_int_equal(survivor->told, 1);
	free(survivor);
	ask(w, name, AF_INET); /* a further round: nothing is left of the other */
}

static void cancel_itself(struct ask *a)
{
	lookup_cancel(&a->lookup);
}

static void start_again(struct ask *a)
{
	if (a->told == 1)
		assert_int_equal(ask_start(a, a->world, "one.test", AF_INET), 0);
}

static void test_cancel(void **state)
{
	struct fake_dns dns;
	struct world w;
	struct ask *victim = calloc(1, sizeof(*victim));
	struct ask itself = {.then = cancel_itself}, again = {.then = start_again};

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);

	/* In flight, and freed at once; the answer is kept nevertheless. */
	assert_int_equal(ask_start(victim, &w, "one.test", AF_INET), 0);
	lookup_cancel(&victim->lookup);
	lookup_cancel(&victim->lookup);
	free(victim);
	ask(&w, "one.test", AF_INET);
	assert_int_equal(fake_asked(&dns, "one.test", AF_INET), 1);

	/* Answered, but not told yet. */
	victim = calloc(1, sizeof(*victim));
	assert_int_equal(ask_start(victim, &w, "one.test", AF_INET), 0);
	lookup_cancel(&victim->lookup);
	free(victim);
	ask(&w, "one.test", AF_INET);

	cancel_within_done(&w, "one.test"); /* cached */
	cancel_within_done(&w, "two.test"); /* new */

	/* In its own done() it is idle already. */
	assert_int_equal(ask_start(&itself, &w, "one.test", AF_INET), 0);
	world_run(&w, 1);
	assert_int_equal(itself.told, 1);
	assert_int_equal(ask_start(&again, &w, "one.test", AF_INET), 0);
	world_run(&w, 2);
	assert_int_equal(again.told, 2);

	world_close(&w);
	fake_stop(&dns);
}

static void test_free_with_lookups_under_way(void **state)
{
	struct ask flying = {0}, answered = {0};
	struct fake_dns dns;
	struct world w;

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	ask(&w, "one.test", AF_INET);
	assert_int_equal(ask_start(&flying, &w, "silent.test", AF_INET), 0);
	assert_int_equal(ask_start(&answered, &w, "one.test", AF_INET), 0);
	world_close(&w);
	assert_int_equal(flying.told + answered.told, 0);
	assert_null(flying.lookup.resolver);
	assert_null(answered.lookup.resolver);
	fake_stop(&dns);
}

static void test_questions_in_flight_are_limited(void **state)
{
	struct ask *asks = calloc(RESOLVE_MAX_IN_FLIGHT + 1, sizeof(*asks));
	struct fake_dns dns;
	struct world w;
	char name[64];

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	ask(&w, "one.test", AF_INET);
	for (int i = 0; i < RESOLVE_MAX_IN_FLIGHT; i++) {
		snprintf(name, sizeof(name), "n%d.silent.test", i);
		assert_int_equal(ask_start(&asks[i], &w, name, AF_INET), 0);
	}
	assert_int_equal(ask_start(&asks[RESOLVE_MAX_IN_FLIGHT], &w, "more.silent.test", AF_INET),
			 -EAGAIN);
	assert_int_equal(ask_start(&asks[RESOLVE_MAX_IN_FLIGHT], &w, "n0.silent.test", AF_INET),
			 0);          /* shares */
	ask(&w, "one.test", AF_INET); /* what is known is told */
	world_close(&w);
	fake_stop(&dns);
	free(asks);
}

static void test_cache_is_bounded(void **state)
{
	enum { TOGETHER = 100, ROUNDS = RESOLVE_MAX_CACHED / TOGETHER + 1 };
	static struct ask asks[TOGETHER];
	struct fake_dns dns;
	struct world w;
	char name[64];
	unsigned before;

	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	world_open(&w, &dns.addr, 1);
	ask(&w, "one.test", AF_INET);
	ask(&w, "two.test", AF_INET);
	for (int i = 0; i < ROUNDS; i++) {
		memset(asks, 0, sizeof(asks));
		for (int k = 0; k < TOGETHER; k++) {
			snprintf(name, sizeof(name), "n%d.cached.test", i * TOGETHER + k);
			assert_int_equal(ask_start(&asks[k], &w, name, AF_INET), 0);
		}
		world_run(&w, TOGETHER);
		ask(&w, "two.test", AF_INET); /* in use all the time */
	}
	/* What was not used for longest had to go, what was used last is there. */
	before = fake_asked(&dns, "*.cached.test", AF_INET);
	ask(&w, "two.test", AF_INET);
	ask(&w, name, AF_INET);
	assert_int_equal(fake_asked(&dns, "two.test", AF_INET), 1);
	assert_int_equal(fake_asked(&dns, "*.cached.test", AF_INET), before);
	ask(&w, "one.test", AF_INET);
	ask(&w, "n0.cached.test", AF_INET);
	assert_int_equal(fake_asked(&dns, "one.test", AF_INET), 2);
	assert_int_equal(fake_asked(&dns, "*.cached.test", AF_INET), before + 1);
	world_close(&w);
	fake_stop(&dns);
}

static void test_the_systems_servers(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, NULL, 0);
	world_close(&w);
}

/* ---- a real server ---- */

/* A port that is free for UDP and TCP, until somebody else takes it. */
static uint16_t free_port(void)
{
	struct fake_dns s;

	fake_bind(&s);
	close(s.udp);
	close(s.tcp);
	return s.addr.port;
}

static void exec_dnsmasq(uint16_t port, int err)
{
	char port_arg[32], big[200][48];
	char *argv[256] = {"dnsmasq",
			   "--no-daemon", /* and so as the user we are */
			   "--conf-file=/dev/null",
			   "--listen-address=127.0.0.1",
			   "--bind-interfaces",
			   "--no-resolv",
			   "--no-hosts",
			   "--local=/test/",
			   "--address=/wild.test/192.0.2.30",
			   "--host-record=both.test,192.0.2.31,2001:db8::31,1",
			   "--host-record=real.test,192.0.2.32",
			   "--cname=alias.test,real.test",
			   port_arg};
	int n = 13;

	snprintf(port_arg, sizeof(port_arg), "--port=%u", port);
	for (int i = 0; i < 200; i++) {
		snprintf(big[i], sizeof(big[i]), "--host-record=big.test,192.0.2.%d", i + 1);
		argv[n++] = big[i];
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(err, STDERR_FILENO);
	execvp("dnsmasq", argv);
	execv("/usr/sbin/dnsmasq", argv);
	_exit(127);
}

/* Reads what it says until it says that it runs. False when it ends before that. */
static bool wait_until_started(int err)
{
	char text[4096] = "";
	size_t len = 0;
	ssize_t n;

	while ((n = read(err, text + len, sizeof(text) - 1 - len)) > 0) {
		len += (size_t)n;
		text[len] = '\0';
		if (strstr(text, "started"))
			return true;
		if (len == sizeof(text) - 1)
			len = 0;
	}
	return false;
}

static pid_t start_dnsmasq(struct addr *ret_addr, int *ret_err)
{
	/* Somebody may take the port before dnsmasq does. */
	for (int i = 0; i < 5; i++) {
		uint16_t port = free_port();
		int err[2];
		pid_t pid;

		assert_int_equal(pipe2(err, O_CLOEXEC), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			exec_dnsmasq(port, err[1]);
		close(err[1]);
		if (wait_until_started(err[0])) {
			assert_int_equal(addr_parse_ip("127.0.0.1", ret_addr), 0);
			ret_addr->port = port;
			*ret_err = err[0];
			return pid;
		}
		close(err[0]);
		waitpid(pid, NULL, 0);
	}
	fail_msg("dnsmasq does not start");
	return -1;
}

static void test_dnsmasq(void **state)
{
	static const struct {
		const char *name;
		int family, r;
		size_t n;
		const char *first;
	} cases[] = {
		{"wild.test", AF_INET, 0, 1, "192.0.2.30"},
		{"a.b.wild.test", AF_INET, 0, 1, "192.0.2.30"},
		{"wild.test", AF_INET6, -ENOENT, 0, ""},
		{"both.test", AF_INET, 0, 1, "192.0.2.31"},
		{"both.test", AF_INET6, 0, 1, "2001:db8::31"},
		{"alias.test", AF_INET, 0, 1, "192.0.2.32"},
		{"alias.test", AF_INET6, -ENOENT, 0, ""},
		{"none.test", AF_INET, -ENOENT, 0, ""},
		{"elsewhere.example", AF_INET, -ECONNREFUSED, 0, ""}, /* REFUSED: no upstream */
		{"big.test", AF_INET, 0, RESOLVE_MAX_ADDRS, NULL},    /* 3 KiB: by TCP */
	};
	struct addr server = {0};
	struct world w;
	char got[ADDR_TEXT];
	int err = -1;
	pid_t pid = start_dnsmasq(&server, &err);

	(void)state;
	world_open(&w, &server, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ask a = ask(&w, cases[i].name, cases[i].family);

		if (a.r != cases[i].r || a.n != cases[i].n)
			fail_msg("%s: %d, %zu addresses", cases[i].name, a.r, a.n);
		if (a.n > 0 && cases[i].first)
			assert_string_equal(addr_print_ip(&a.addrs[0], got), cases[i].first);
	}
	world_close(&w);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	close(err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_refuses_what_is_no_question),
		cmocka_unit_test(test_takes_no_more_than_16),
		cmocka_unit_test(test_how_long_it_is_kept),
		cmocka_unit_test(test_cache_forgets_in_time),
		cmocka_unit_test(test_questions_are_shared),
		cmocka_unit_test(test_cached_answers_keep_order),
		cmocka_unit_test(test_silence_times_out),
		cmocka_unit_test(test_the_next_server_is_asked),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_free_with_lookups_under_way),
		cmocka_unit_test(test_questions_in_flight_are_limited),
		cmocka_unit_test(test_cache_is_bounded),
		cmocka_unit_test(test_the_systems_servers),
		cmocka_unit_test(test_dnsmasq),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

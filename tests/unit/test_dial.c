/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>

#include "fake_dns.h"
#include "base/owned.h"
#include "gateway/target.h"

#define GUARD_MS 30000
#define LONG_MS  20000 /* a time-out that is not meant to come */

/* Which address does what, all on one port: .1 and .2 answer, .3 lets one wait for ever, .4 and up
 * refuse.
 */
static const struct fake_rr zone[] = {
	{"one.test", AF_INET, FAKE_OK, 60, "127.0.0.1"},
	{"second.test", AF_INET, FAKE_OK, 60, "127.0.0.4 127.0.0.5 127.0.0.2"},
	{"slow.test", AF_INET, FAKE_OK, 60, "127.0.0.3 127.0.0.2"},
	{"dead.test", AF_INET, FAKE_OK, 60, "127.0.0.4 127.0.0.5"},
	{"hole.test", AF_INET, FAKE_OK, 60, "127.0.0.3"},
	{"mixed.test", AF_INET, FAKE_OK, 60, "10.0.0.1 127.0.0.1 169.254.169.254 127.0.0.2"},
	{"private.test", AF_INET, FAKE_OK, 60, "10.0.0.1 192.168.0.1"},
	{"private.test", AF_INET6, FAKE_OK, 60, "::1 fe80::1 fd00::1 ::ffff:10.0.0.1"},
	{"round.test", AF_INET, FAKE_OK, 60, "127.0.0.1 127.0.0.2"},
	{"many.test", AF_INET, FAKE_MANY, 60, "20"}, /* 127.1.0.0 and on: refuse */
	{"both.test", AF_INET, FAKE_OK, 60, "127.0.0.1"},
	{"both.test", AF_INET6, FAKE_OK, 60, "::1"},
	{"six.test", AF_INET6, FAKE_OK, 60, "::1"},
	{"four-slow.test", AF_INET, FAKE_OK, 60, "127.0.0.3"},
	{"four-slow.test", AF_INET6, FAKE_OK, 60, "::1"},
	{"four-mute.test", AF_INET, FAKE_SILENT, 0, NULL},
	{"four-mute.test", AF_INET6, FAKE_OK, 60, "::1"},
	{"six-mute.test", AF_INET, FAKE_OK, 60, "127.0.0.1"},
	{"six-mute.test", AF_INET6, FAKE_SILENT, 0, NULL},
	{"six-dead.test", AF_INET, FAKE_OK, 60, "127.0.0.1"},
	{"six-dead.test", AF_INET6, FAKE_OK, 60, "::ffff:127.0.0.4"},
	{"mute.test", AF_INET, FAKE_SILENT, 0, NULL},
	{"mute.test", AF_INET6, FAKE_SILENT, 0, NULL},
	{"a.wild.test", AF_INET, FAKE_OK, 60, "127.0.0.1"},
};

/* One world for all tests: a DNS server and what listens on `port`. */
static struct fake_dns dns;
static int listeners[3]; /* 127.0.0.1, 127.0.0.2, [::1] (-1 without IPv6) */
static int hole, hole_filler;
static uint16_t port;

struct world {
	struct loop *loop;
	struct dialer *dialer;
	struct timer guard;
	bool late;
	unsigned left;
};

/* A connection to be made, and what came of it. */
struct call {
	struct dial dial;
	struct world *world;
	unsigned told;
	int fd, r;
	enum reason reason;
	struct addr dst, src;
	uint64_t took_ms;
};

static struct addr at(const char *text, uint16_t number)
{
	struct addr a = {0};

	assert_int_equal(addr_parse_ip(text, &a), 0);
	a.port = number;
	return a;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* -1 where the address does not exist; -2 when the port is taken. */
static int listen_on(const char *text, uint16_t number, int backlog)
{
	struct addr a = at(text, number);
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(&a, &sa);
	int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&sa, len) == 0 && listen(fd, backlog) == 0)
		return fd;
	close(fd);
	return errno == EADDRINUSE ? -2 : -1;
}

static struct addr name_of(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct addr a = {0};

	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(addr_from_sockaddr(&sa, &a), 0);
	return a;
}

/* One connection fills a backlog of zero; from then on Linux drops every SYN. */
static void open_hole(void)
{
	struct sockaddr_storage sa;
	struct addr a = at("127.0.0.3", port);
	socklen_t len = addr_to_sockaddr(&a, &sa);

	hole = listen_on("127.0.0.3", port, 0);
	assert_true(hole >= 0);
	hole_filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(hole_filler, (struct sockaddr *)&sa, len), 0);
}

static int set_up(void **state)
{
	(void)state;
	fake_start(&dns, zone, ARRAY_SIZE(zone));
	for (int i = 0; i < 100; i++) {
		listeners[0] = listen_on("127.0.0.1", 0, 512);
		port = name_of(listeners[0]).port;
		listeners[1] = listen_on("127.0.0.2", port, 512);
		listeners[2] = listen_on("::1", port, 512);
		if (listeners[1] >= 0 && listeners[2] != -2)
			break;
		close(listeners[0]);
	}
	assert_true(listeners[1] >= 0);
	open_hole();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	fake_stop(&dns);
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++)
		owned_close(&listeners[i]);
	close(hole);
	close(hole_filler);
	return 0;
}

static void need_v6(void)
{
	if (listeners[2] < 0) {
		print_message("skipped: this machine has no ::1\n");
		skip();
	}
}

static void on_guard(struct timer *t)
{
	struct world *w = CONTAINER_OF(t, struct world, guard);

	w->late = true;
	loop_stop(w->loop);
}

struct options {
	const char *sources[3];
	const char *allowed; /* NULL: loopback, IPv4 and IPv6 */
	const char *cluster;
	uint64_t timeout_ms; /* 0: long */
};

static void world_open(struct world *w, const struct options *o)
{
	struct cidr allowed[2], cluster;
	struct addr sources[3];
	struct dialer_config config = {
		.resolvers = &dns.addr,
		.n_resolvers = 1,
		.source_ips = sources,
		.cluster_cidrs = &cluster,
		.allowed_private_cidrs = allowed,
		.connect_timeout_ms = o->timeout_ms ? o->timeout_ms : LONG_MS,
	};

	while (config.n_source_ips < 3 && o->sources[config.n_source_ips]) {
		sources[config.n_source_ips] = at(o->sources[config.n_source_ips], 0);
		config.n_source_ips++;
	}
	assert_int_equal(
		cidr_parse(o->allowed && o->allowed[0] ? o->allowed : "127.0.0.0/8", &allowed[0]),
		0);
	assert_int_equal(cidr_parse("::1", &allowed[1]), 0);
	config.n_allowed_private_cidrs = !o->allowed ? 2 : o->allowed[0] ? 1 : 0;
	if (o->cluster) {
		assert_int_equal(cidr_parse(o->cluster, &cluster), 0);
		config.n_cluster_cidrs = 1;
	}

	*w = (struct world){.guard.on_expire = on_guard};
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(dialer_new(&w->dialer, w->loop, &config), 0);
}

static void world_close(struct world *w)
{
	dialer_free(w->dialer);
	loop_free(w->loop);
}

static void world_run(struct world *w, unsigned calls)
{
	w->left = calls;
	timer_start(w->loop, &w->guard, GUARD_MS);
	assert_int_equal(loop_run(w->loop), 0);
	timer_stop(w->loop, &w->guard);
	assert_false(w->late);
}

static void on_done(struct dial *d, int fd, enum reason reason, int r, const struct addr *dst,
		    const struct addr *src)
{
	struct call *c = CONTAINER_OF(d, struct call, dial);

	assert_null(d->priv);
	c->told++;
	c->fd = fd;
	c->reason = reason;
	c->r = r;
	c->dst = *dst;
	c->src = *src;
	if (--c->world->left == 0)
		loop_stop(c->world->loop);
}

static int call_start(struct call *c, struct world *w, const struct service *s, const char *name,
		      const struct addr *dst)
{
	struct dial_target target = {.service = s, .name = name, .dst = dst};

	*c = (struct call){.dial.done = on_done, .world = w, .fd = -1};
	return dial_start(w->dialer, &c->dial, &target);
}

/* Dials and waits. */
static struct call call(struct world *w, const struct service *s, const char *name,
			const struct addr *dst)
{
	struct call c;
	uint64_t start = loop_now_ms(w->loop); /* by which time-outs are counted */

	assert_int_equal(call_start(&c, w, s, name, dst), 0);
	assert_int_equal(c.told, 0); /* never from within dial_start() */
	world_run(w, 1);
	assert_int_equal(c.told, 1);
	c.took_ms = now_ms() - start;
	return c;
}

static struct call call_name(struct world *w, const char *name)
{
	struct addr dst = at("198.51.100.1", port); /* never dialled: the name counts */

	return call(w, NULL, name, &dst);
}

/* The server's end of the newest connection to 127.0.0.1, .2 or [::1]. */
static struct addr server_saw(int listener)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct addr a = {0};
	int fd;

	assert_int_equal(poll(&p, 1, GUARD_MS), 1);
	fd = accept4(listener, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(addr_from_sockaddr(&sa, &a), 0);
	return a;
}

static bool server_saw_nobody(int listener)
{
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC) < 0 && errno == EAGAIN;
}

/* Connected to `text`, and the server knows. Closes. */
static void assert_reached(struct call *c, const char *text)
{
	struct addr dst = at(text, port), seen;
	int listener = listeners[strcmp(text, "::1") == 0 ? 2 : text[8] - '1'];

	assert_int_equal(c->reason, REASON_NONE);
	assert_int_equal(c->r, 0);
	assert_true(c->fd >= 0);
	assert_true(addr_equal(&c->dst, &dst));
	do
		seen = server_saw(listener);
	while (!addr_equal(&seen, &c->src)); /* losers of former races may come first */
	close(c->fd);
}

static void assert_failed(const struct call *c, enum reason reason, int r)
{
	static const struct addr none;

	assert_int_equal(c->fd, -1);
	assert_string_equal(reason_str(c->reason), reason_str(reason));
	assert_int_equal(c->r, r);
	assert_true(addr_equal(&c->src, &none));
}

/* ---- what is tried: pure ---- */

static const struct endpoint some_endpoints[] = {
	{NULL, {.port = 1}, 1},
	{"host.test", {.port = 2}, 3},
	{NULL, {.port = 3}, 1},
};
static const struct cidr net10 = {.ip = {[10] = 0xff, 0xff, 10}, .bits = 104};

static void test_plan(void **state)
{
	static const struct {
		const char *host;
		enum resolution resolution;
		bool endpoints, addresses;
		const char *name;   /* in the target */
		const char *expect; /* hops */
	} cases[] = {
		/* ALLOW_ANY */
		{NULL, 0, false, false, "a.test", "a.test:443"},
		{NULL, 0, false, false, "", "10.0.0.9:443"},
		/* the name, on the target port; or the registered address */
		{"a.test", RESOLUTION_NONE, false, false, "a.test", "a.test:8443"},
		{"*.test", RESOLUTION_NONE, false, true, "b.test", "b.test:8443"},
		{"a.test", RESOLUTION_NONE, false, true, "", "10.0.0.9:8443"},
		{"a.test", RESOLUTION_NONE, false, false, "", "-"},
		/* names that are resolved */
		{"a.test", RESOLUTION_DNS, false, false, "a.test", "a.test:8443"},
		{"a.test", RESOLUTION_DNS, false, true, "", "a.test:8443"},
		{"a.test", RESOLUTION_DNS_ROUND_ROBIN, false, true, "", "a.test:8443"},
		{"*.test", RESOLUTION_DYNAMIC_DNS, false, false, "b.test", "b.test:8443"},
		{"*.test", RESOLUTION_DYNAMIC_DNS, false, true, "", "-"},
		/* endpoints have the word where there are some; the draw is 2 */
		{"a.test", RESOLUTION_DNS, true, false, "a.test", "host.test:2 *:3 *:1"},
		{"a.test", RESOLUTION_STATIC, true, false, "a.test", "host.test:2 *:3 *:1"},
		{"a.test", RESOLUTION_STATIC, true, true, "", "host.test:2 *:3 *:1"},
		{"a.test", RESOLUTION_STATIC, false, false, "a.test", "-"},
		{"a.test", RESOLUTION_N_, false, false, "a.test", "-"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct service s = {.host = cases[i].host,
				    .resolution = cases[i].resolution,
				    .port = 443,
				    .target_port = 8443,
				    .endpoints = some_endpoints,
				    .n_endpoints = cases[i].endpoints ? 3 : 0,
				    .addresses = &net10,
				    .n_addresses = cases[i].addresses};
		struct addr dst = at("10.0.0.9", 443);
		struct dial_target t = {cases[i].host ? &s : NULL, cases[i].name, &dst};
		struct hop hops[TARGET_MAX_HOPS];
		char got[256] = "-", ip[ADDR_TEXT];
		int n = target_plan(&t, 2, hops);
		size_t len = 0;

		for (int k = 0; k < n; k++)
			len += (size_t)snprintf(
				got + len, sizeof(got) - len, "%s%s:%u", k ? " " : "",
				hops[k].host       ? hops[k].host
				: hops[k].endpoint ? "*"
						   : addr_print_ip(&hops[k].addr, ip),
				hops[k].addr.port);
		if (strcmp(got, cases[i].expect) != 0)
			fail_msg("case %zu: %s, not %s", i, got, cases[i].expect);
	}
}

static void test_plan_weighs_endpoints(void **state)
{
	struct service s = {
		.resolution = RESOLUTION_STATIC, .endpoints = some_endpoints, .n_endpoints = 3};
	struct addr dst = at("10.0.0.9", 443);
	struct dial_target t = {&s, "", &dst};
	struct hop hops[TARGET_MAX_HOPS];
	unsigned first[4] = {0};

	(void)state;
	for (uint64_t draw = 0; draw < 500; draw++) {
		assert_int_equal(target_plan(&t, draw, hops), 3);
		first[hops[0].addr.port]++;
	}
	assert_int_equal(first[1], 100);
	assert_int_equal(first[2], 300);
	assert_int_equal(first[3], 100);
}

/* ---- what comes of it ---- */

static void test_socket_is_ready_for_use(void **state)
{
	struct addr dst = at("127.0.0.1", port), self;
	struct world w;
	struct call c;
	int value;

	(void)state;
	world_open(&w, &(struct options){0});
	c = call(&w, NULL, "", &dst);
	assert_true(c.fd >= 0);
	self = name_of(c.fd);
	assert_true(addr_equal(&self, &c.src));
	assert_true(fcntl(c.fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(c.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(
		getsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &value, &(socklen_t){sizeof(value)}), 0);
	assert_int_equal(value, 1);
	assert_reached(&c, "127.0.0.1");
	world_close(&w);
}

/* No service, by name: which address is reached, or why none. */
static void test_names(void **state)
{
	static const struct {
		const char *name, *allowed, *reached;
		enum reason reason;
		int r;
	} cases[] = {
		{"one.test", NULL, "127.0.0.1", 0, 0},
		{"second.test", NULL, "127.0.0.2", 0, 0}, /* the first two refuse */
		{"slow.test", NULL, "127.0.0.2", 0, 0},   /* the first lets us wait */
		{"dead.test", NULL, NULL, REASON_UPSTREAM_FAILED, -ECONNREFUSED},
		{"many.test", NULL, NULL, REASON_UPSTREAM_FAILED, -ECONNREFUSED},
		{"six-dead.test", NULL, "127.0.0.1", 0, 0},
		{"nowhere.test", NULL, NULL, REASON_RESOLVE_FAILED, -ENOENT},
		{"mute.test", NULL, NULL, REASON_RESOLVE_FAILED, -ETIMEDOUT},
		/* private ones are left out */
		{"one.test", "", NULL, REASON_PRIVATE_DESTINATION, -EACCES},
		{"one.test", "0.0.0.0/0", NULL, REASON_PRIVATE_DESTINATION, -EACCES},
		{"private.test", "127.0.0.0/8", NULL, REASON_PRIVATE_DESTINATION, -EACCES},
		{"mixed.test", "127.0.0.2", "127.0.0.2", 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world w;
		struct call c;

		world_open(&w, &(struct options){.allowed = cases[i].allowed});
		c = call_name(&w, cases[i].name);
		if (c.reason != cases[i].reason || c.r != cases[i].r)
			fail_msg("%s: '%s' %d", cases[i].name, reason_str(c.reason), c.r);
		if (cases[i].reached)
			assert_reached(&c, cases[i].reached);
		else
			assert_failed(&c, cases[i].reason, cases[i].r);
		world_close(&w);
	}
	assert_true(server_saw_nobody(listeners[0])); /* nor who was left out */
}

static void test_slow_address_costs_250_ms(void **state)
{
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){0});
	c = call_name(&w, "slow.test");
	assert_in_range(c.took_ms, 240, LONG_MS / 2);
	assert_reached(&c, "127.0.0.2");
	world_close(&w);
}

static void test_families(void **state)
{
	static const struct {
		const char *name, *meant, *reached;
		uint64_t least_ms;
	} cases[] = {
		{"both.test", "2001:db8::1", "::1", 0},
		{"both.test", "2001:db8::1", "::1", 0}, /* from the cache */
		{"both.test", "198.51.100.1", "127.0.0.1", 0},
		{"six.test", "198.51.100.1", "::1", 0},
		{"four-slow.test", "2001:db8::1", "::1", 0},
		{"four-mute.test", "2001:db8::1", "::1", 0},
		/* the wanted family gets a moment, not its time-out */
		{"four-mute.test", "198.51.100.1", "::1", 49},
		{"six-mute.test", "2001:db8::1", "127.0.0.1", 49},
		{"six-mute.test", "198.51.100.1", "127.0.0.1", 0},
	};
	struct world w;

	(void)state;
	need_v6();
	world_open(&w, &(struct options){0});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr meant = at(cases[i].meant, port);
		struct call c = call(&w, NULL, cases[i].name, &meant);

		/* A name server's silence takes 3 s. */
		assert_in_range(c.took_ms, cases[i].least_ms, 2500);
		assert_reached(&c, cases[i].reached);
	}
	world_close(&w);
}

static void test_dst_itself(void **state)
{
	struct cidr loopback, elsewhere;
	struct service s = {.host = "x.test",
			    .resolution = RESOLUTION_NONE,
			    .addresses = &loopback,
			    .n_addresses = 1};
	struct addr dst = at("127.0.0.2", port), other = at("198.51.100.1", port);
	struct world w;
	struct call c;

	(void)state;
	assert_int_equal(cidr_parse("127.0.0.0/30", &loopback), 0);
	assert_int_equal(cidr_parse("0.0.0.0/0", &elsewhere), 0);
	world_open(&w, &(struct options){.allowed = ""});

	c = call(&w, NULL, "", &dst);
	assert_failed(&c, REASON_PRIVATE_DESTINATION, -EACCES);
	c = call(&w, &s, "", &dst); /* registered */
	assert_reached(&c, "127.0.0.2");
	s.target_port = port;
	dst.port = 1;
	c = call(&w, &s, "", &dst);
	assert_reached(&c, "127.0.0.2");
	s.addresses = &elsewhere; /* everything is registered: that names no private host */
	c = call(&w, &s, "", &dst);
	assert_failed(&c, REASON_PRIVATE_DESTINATION, -EACCES);
	s.addresses = &loopback;
	assert_int_equal(call_start(&c, &w, &s, "", &other), -EINVAL);
	assert_null(c.dial.priv);
	world_close(&w);
}

static void test_cluster_is_refused(void **state)
{
	struct addr dst = at("198.51.100.7", port);
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){.cluster = "198.51.100.0/24"});
	c = call(&w, NULL, "", &dst);
	assert_failed(&c, REASON_PRIVATE_DESTINATION, -EACCES);
	world_close(&w);
}

static void test_services(void **state)
{
	struct cidr self;
	struct endpoint endpoints[] = {{NULL, at("127.0.0.4", port), 1000000},
				       {NULL, at("127.0.0.1", port), 1}};
	struct endpoint named[] = {{"dead.test", {.port = port}, 1000000},
				   {"one.test", {.port = port}, 1}};
	struct endpoint missing[] = {{"nowhere.test", {.port = port}, 1000000},
				     {NULL, at("127.0.0.2", port), 1}};
	struct endpoint held[] = {{NULL, at("127.0.0.3", port), 1000000},
				  {"one.test", {.port = port}, 1}};
	struct service s = {.host = "one.test", .target_port = port};
	struct addr dst = at("198.51.100.1", 443);
	struct world closed, open;
	struct call c;

	(void)state;
	world_open(&closed, &(struct options){.allowed = ""});
	world_open(&open, &(struct options){0});

	/* The host's address is private, unless it is a registered one. */
	s.resolution = RESOLUTION_DNS;
	c = call(&closed, &s, "", &dst);
	assert_failed(&c, REASON_PRIVATE_DESTINATION, -EACCES);
	assert_int_equal(cidr_parse("127.0.0.1", &self), 0);
	s.addresses = &self;
	s.n_addresses = 1;
	c = call(&closed, &s, "", &dst);
	assert_reached(&c, "127.0.0.1");
	c = call(&closed, &s, "second.test", &dst);
	assert_failed(&c, REASON_PRIVATE_DESTINATION, -EACCES);
	s.n_addresses = 0;

	/* The name that was checked, not the host it matched. */
	s.host = "*.wild.test";
	s.resolution = RESOLUTION_DYNAMIC_DNS;
	c = call(&open, &s, "a.wild.test", &dst);
	assert_reached(&c, "127.0.0.1");
	c = call(&open, &s, "b.wild.test", &dst);
	assert_failed(&c, REASON_RESOLVE_FAILED, -ENOENT);
	assert_int_equal(call_start(&c, &open, &s, "", &dst), -EINVAL);

	/* Literal endpoints are registered; the heavy one refuses, the other takes over. */
	s.resolution = RESOLUTION_STATIC;
	s.endpoints = endpoints;
	s.n_endpoints = 2;
	c = call(&closed, &s, "a.wild.test", &dst);
	assert_reached(&c, "127.0.0.1");

	/* Names of endpoints are not. */
	s.resolution = RESOLUTION_DNS;
	s.endpoints = named;
	c = call(&closed, &s, "a.wild.test", &dst);
	assert_failed(&c, REASON_PRIVATE_DESTINATION, -EACCES);
	c = call(&open, &s, "a.wild.test", &dst);
	assert_reached(&c, "127.0.0.1");
	s.endpoints = missing;
	c = call(&closed, &s, "a.wild.test", &dst);
	assert_reached(&c, "127.0.0.2");
	s.endpoints = held;
	c = call(&open, &s, "a.wild.test", &dst);
	assert_reached(&c, "127.0.0.1");
	assert_in_range(c.took_ms, 240, LONG_MS / 2);

	world_close(&closed);
	world_close(&open);
}

static void test_endless_endpoints(void **state)
{
	struct endpoint endpoints[100];
	struct service s = {.resolution = RESOLUTION_STATIC,
			    .endpoints = endpoints,
			    .n_endpoints = ARRAY_SIZE(endpoints)};
	struct addr dst = at("198.51.100.1", 443);
	struct world w;
	struct call c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
		endpoints[i] = (struct endpoint){NULL, at("127.0.0.4", port), 1};
	world_open(&w, &(struct options){0});
	c = call(&w, &s, "", &dst);
	assert_failed(&c, REASON_UPSTREAM_FAILED, -ECONNREFUSED);
	world_close(&w);
}

static void test_round_robin(void **state)
{
	struct service s = {.host = "round.test",
			    .target_port = port,
			    .resolution = RESOLUTION_DNS_ROUND_ROBIN};
	struct addr dst = at("198.51.100.1", 443);
	char last[ADDR_TEXT] = "", this[ADDR_TEXT];
	struct call both[2];
	struct world w;

	(void)state;
	world_open(&w, &(struct options){0});
	for (int i = 0; i < 6; i++) {
		struct call c = call(&w, &s, "round.test", &dst);

		addr_print_ip(&c.dst, this);
		assert_string_not_equal(this, last);
		strcpy(last, this);
		assert_reached(&c, this);
	}
	/* Those under way at the same time take different turns, too. */
	assert_int_equal(call_start(&both[0], &w, &s, "round.test", &dst), 0);
	assert_int_equal(call_start(&both[1], &w, &s, "round.test", &dst), 0);
	world_run(&w, 2);
	assert_false(addr_ip_equal(&both[0].dst, &both[1].dst));
	for (int i = 0; i < 2; i++)
		assert_reached(&both[i], addr_print_ip(&both[i].dst, this));
	s.resolution = RESOLUTION_DNS; /* keeps the server's order */
	for (int i = 0; i < 4; i++) {
		struct call c = call(&w, &s, "round.test", &dst);

		assert_reached(&c, "127.0.0.1");
	}
	world_close(&w);
}

static void test_source_addresses(void **state)
{
	struct addr dst = at("127.0.0.1", port);
	struct world w;
	struct call c[4];

	(void)state;
	world_open(&w, &(struct options){.sources = {"127.0.0.8", "127.0.0.9"}});
	for (int i = 0; i < 4; i++) {
		char ip[ADDR_TEXT];

		c[i] = call(&w, NULL, "", &dst);
		addr_print_ip(&c[i].src, ip);
		assert_true(strcmp(ip, "127.0.0.8") == 0 || strcmp(ip, "127.0.0.9") == 0);
		if (i > 0)
			assert_false(addr_ip_equal(&c[i].src, &c[i - 1].src));
		assert_reached(&c[i], "127.0.0.1"); /* the server saw it come from there */
	}
	assert_int_equal(dialer_ports_in_use(w.dialer, 0), 2);
	assert_int_equal(dialer_ports_in_use(w.dialer, 1), 2);
	for (int i = 0; i < 3; i++)
		dial_release(w.dialer, &c[i].src);
	assert_int_equal(dialer_ports_in_use(w.dialer, 0) + dialer_ports_in_use(w.dialer, 1), 1);
	dial_release(w.dialer, &dst); /* not one of ours */
	dial_release(w.dialer, &c[3].src);
	assert_int_equal(dialer_ports_in_use(w.dialer, 0) + dialer_ports_in_use(w.dialer, 1), 0);
	world_close(&w);
}

static void test_missing_source_address(void **state)
{
	struct addr dst = at("127.0.0.1", port);
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){.sources = {"192.0.2.77", "127.0.0.8"}});
	for (int i = 0; i < 4; i++) {
		c = call(&w, NULL, "", &dst);
		assert_reached(&c, "127.0.0.1");
	}
	assert_int_equal(dialer_ports_in_use(w.dialer, 0), 0);
	assert_int_equal(dialer_ports_in_use(w.dialer, 1), 4);
	world_close(&w);

	world_open(&w, &(struct options){.sources = {"192.0.2.77", "192.0.2.78"}});
	c = call(&w, NULL, "", &dst);
	assert_failed(&c, REASON_UPSTREAM_FAILED, -EADDRNOTAVAIL);
	assert_int_equal(dialer_ports_in_use(w.dialer, 0) + dialer_ports_in_use(w.dialer, 1), 0);
	world_close(&w);
}

/* Without a source address of its own, a family would leave by another. */
static void test_source_family(void **state)
{
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){.sources = {"127.0.0.8"}});
	c = call_name(&w, "six.test");
	assert_failed(&c, REASON_UPSTREAM_FAILED, -EAFNOSUPPORT);
	c = call_name(&w, "both.test");
	assert_reached(&c, "127.0.0.1");
	c = call_name(&w, "six-mute.test");
	assert_in_range(c.took_ms, 0, 2500);
	assert_reached(&c, "127.0.0.1");
	world_close(&w);

	need_v6();
	world_open(&w, &(struct options){.sources = {"::1"}});
	c = call_name(&w, "one.test");
	assert_failed(&c, REASON_UPSTREAM_FAILED, -EAFNOSUPPORT);
	c = call_name(&w, "both.test");
	assert_reached(&c, "::1");
	world_close(&w);
}

static void test_time_out(void **state)
{
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){.timeout_ms = 300});
	c = call_name(&w, "hole.test");
	assert_failed(&c, REASON_UPSTREAM_FAILED, -ETIMEDOUT);
	assert_in_range(c.took_ms, 290, LONG_MS);
	assert_string_equal(addr_print_ip(&c.dst, (char[ADDR_TEXT]){""}), "127.0.0.3");
	c = call_name(&w, "mute.test");
	assert_failed(&c, REASON_RESOLVE_FAILED, -ETIMEDOUT);
	assert_in_range(c.took_ms, 290, 2500);
	world_close(&w);
}

static void test_watch_is_kept_on_request(void **state)
{
	struct addr dst = at("127.0.0.1", port);
	struct watch mine = {0};
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){0});
	c = call(&w, NULL, "", &dst);
	mine.fd = c.fd;
	assert_int_equal(watch_change(w.loop, &mine, EPOLLIN), -ENOENT);
	assert_reached(&c, "127.0.0.1");

	assert_int_equal(call_start(&c, &w, NULL, "", &dst), 0);
	c.dial.keep_watch = true;
	world_run(&w, 1);
	mine.fd = c.fd;
	assert_int_equal(watch_change(w.loop, &mine, EPOLLIN), 0);
	assert_reached(&c, "127.0.0.1");
	world_close(&w);
}

/* Fires once, at a moment when the victim is in the stage in question. */
struct canceller {
	struct timer timer;
	struct call *victim;
};

static void on_cancel(struct timer *t)
{
	struct canceller *k = CONTAINER_OF(t, struct canceller, timer);
	struct world *w = k->victim->world;

	assert_int_equal(k->victim->told, 0);
	assert_non_null(k->victim->dial.priv);
	dial_cancel(&k->victim->dial);
	dial_cancel(&k->victim->dial);
	free(k->victim);
	loop_stop(w->loop);
}

static void test_cancel(void **state)
{
	static const struct {
		const char *name;
		uint64_t after_ms; /* 0: at once */
	} cases[] = {
		{"", 0},                /* before the first step */
		{"one.test", 0},        /* while asking */
		{"one.test", 0},        /* when the answer is there, but not told */
		{"mute.test", 20},      /* while waiting for the name server */
		{"four-mute.test", 20}, /* in the moment that A gets */
		{"hole.test", 20},      /* while connecting */
		{"slow.test", 20},      /* before the second attempt */
	};
	struct addr dst = at("127.0.0.1", port);
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, &(struct options){0});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct call *victim = malloc(sizeof(*victim));
		struct canceller k = {.timer.on_expire = on_cancel, .victim = victim};

		assert_int_equal(call_start(victim, &w, NULL, cases[i].name, &dst), 0);
		if (cases[i].after_ms == 0) {
			dial_cancel(&victim->dial);
			free(victim);
		} else {
			timer_start(w.loop, &k.timer, cases[i].after_ms);
			world_run(&w, 1);
			assert_false(timer_is_armed(&k.timer)); /* it came before the dial's end */
		}
		/* A whole further dial: nothing of the cancelled one comes late. */
		c = call(&w, NULL, "one.test", &dst);
		assert_reached(&c, "127.0.0.1");
	}
	world_close(&w);
}

static void test_free_with_dials_under_way(void **state)
{
	static const char *const names[] = {"", "mute.test", "hole.test", "one.test", ""};
	struct call calls[ARRAY_SIZE(names)], c;
	struct addr dst = at("127.0.0.3", port);
	struct world w;

	(void)state;
	world_open(&w, &(struct options){0});
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (i == 3) { /* the last two do not even get a first step */
			c = call_name(&w, "round.test");
			assert_reached(&c, "127.0.0.1");
		}
		assert_int_equal(call_start(&calls[i], &w, NULL, names[i], &dst), 0);
	}
	world_close(&w);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(calls[i].told, 0);
		assert_null(calls[i].dial.priv);
	}
}

static void test_many_at_once(void **state)
{
	enum { N = 200 };
	struct call *calls = calloc(N, sizeof(*calls));
	struct addr dst = at("127.0.0.2", port);
	struct world w;

	(void)state;
	world_open(&w, &(struct options){0});
	for (int i = 0; i < N; i++)
		assert_int_equal(
			call_start(&calls[i], &w, NULL, i % 2 ? "second.test" : "dead.test", &dst),
			0);
	world_run(&w, N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(calls[i].told, 1);
		if (i % 2 == 0) {
			assert_failed(&calls[i], REASON_UPSTREAM_FAILED, -ECONNREFUSED);
			continue;
		}
		assert_true(addr_equal(&calls[i].dst, &dst));
		close(calls[i].fd);
		server_saw(listeners[1]);
	}
	world_close(&w);
	free(calls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_plan_weighs_endpoints),
		cmocka_unit_test(test_socket_is_ready_for_use),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_slow_address_costs_250_ms),
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_dst_itself),
		cmocka_unit_test(test_cluster_is_refused),
		cmocka_unit_test(test_services),
		cmocka_unit_test(test_endless_endpoints),
		cmocka_unit_test(test_round_robin),
		cmocka_unit_test(test_source_addresses),
		cmocka_unit_test(test_missing_source_address),
		cmocka_unit_test(test_source_family),
		cmocka_unit_test(test_time_out),
		cmocka_unit_test(test_watch_is_kept_on_request),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_free_with_dials_under_way),
		cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

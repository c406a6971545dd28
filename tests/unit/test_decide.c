/* SPDX-License-Identifier: Apache-2.0 */

/* The verdict on a connection: every kind of first words against every kind of port, by name and by
 * address, in both modes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "entry_text.h"
#include "registry/decide.h"

static const struct entry_text entries[] = {
	{.id = "team/tls",
	 .hosts = "tls.example.com *.wild.example.com",
	 .ports = "443:TLS 8443:HTTPS"},
	{.id = "team/web",
	 .hosts = "web.example.com",
	 .ports = "80:HTTP 81:HTTP2 82:GRPC 83:GRPC-Web"},
	{.id = "team/tcp",
	 .hosts = "tcp.example.com",
	 .ports = "5432:TCP 3306:MySQL 6379:Redis 27017:Mongo"},
	{.id = "team/any", .hosts = "any.example.com", .ports = "9000:"},
	{.id = "team/own",
	 .hosts = "own.example.com",
	 .ports = "443:TLS 5432:TCP",
	 .export_to = ".",
	 .addresses = "198.51.100.0/24"},
	{.id = "team/db",
	 .hosts = "db.example.com",
	 .ports = "5432:TCP 443:TLS 80:HTTP 9000:",
	 .addresses = "203.0.113.0/24"},
	{.id = "team/tcp443",
	 .hosts = "tcp443.example.com",
	 .ports = "443:TCP",
	 .addresses = "2001:db8::/32"},
};

struct decide_case {
	enum spoken spoken;
	const char *name; /* "" for none */
	const char *dst;
	const char *ns;
	enum reason reason;
	const char *host; /* of the service; NULL: none */
	bool allow_any;   /* is it let through in that mode? */
};

#define TLS     SPOKEN_TLS
#define HTTP    SPOKEN_HTTP
#define OTHER   SPOKEN_OTHER
#define NOTHING SPOKEN_NOTHING
#define AWAY    "192.0.2.9" /* registered by nobody */

static const struct decide_case cases[] = {
	/* By name: TLS. */
	{TLS, "tls.example.com", AWAY ":443", "a", REASON_NONE, "tls.example.com", true},
	{TLS, "tls.example.com", AWAY ":8443", "a", REASON_NONE, "tls.example.com", true},
	{TLS, "x.y.wild.example.com", AWAY ":443", "a", REASON_NONE, "*.wild.example.com", true},
	{TLS, "wild.example.com", AWAY ":443", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	{TLS, "tls.example.com", AWAY ":444", "a", REASON_PORT_NOT_REGISTERED, NULL, true},
	{TLS, "evil.example.org", AWAY ":443", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	{TLS, "own.example.com", AWAY ":443", "team", REASON_NONE, "own.example.com", true},
	{TLS, "own.example.com", AWAY ":443", "a", REASON_NOT_EXPORTED, NULL, true},
	{TLS, "own.example.com", AWAY ":443", "", REASON_NOT_EXPORTED, NULL, true},
	{TLS, "web.example.com", AWAY ":80", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{TLS, "web.example.com", AWAY ":81", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{TLS, "web.example.com", AWAY ":82", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{TLS, "web.example.com", AWAY ":83", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{TLS, "tcp.example.com", AWAY ":5432", "a", REASON_NONE, "tcp.example.com", true},
	{TLS, "tcp.example.com", AWAY ":27017", "a", REASON_NONE, "tcp.example.com", true},
	{TLS, "any.example.com", AWAY ":9000", "a", REASON_NONE, "any.example.com", true},
	/* A name that is not registered is not saved by the address it is sent to. */
	{TLS, "evil.example.org", "203.0.113.5:443", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	{HTTP, "evil.example.org", "203.0.113.5:80", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	/* By name: HTTP. */
	{HTTP, "web.example.com", AWAY ":80", "a", REASON_NONE, "web.example.com", true},
	{HTTP, "web.example.com", AWAY ":81", "a", REASON_NONE, "web.example.com", true},
	{HTTP, "web.example.com", AWAY ":82", "a", REASON_NONE, "web.example.com", true},
	{HTTP, "web.example.com", AWAY ":83", "a", REASON_NONE, "web.example.com", true},
	{HTTP, "any.example.com", AWAY ":9000", "a", REASON_NONE, "any.example.com", true},
	{HTTP, "tcp.example.com", AWAY ":6379", "a", REASON_NONE, "tcp.example.com", true},
	{HTTP, "tls.example.com", AWAY ":443", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{HTTP, "tls.example.com", AWAY ":8443", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{HTTP, "web.example.com", AWAY ":8080", "a", REASON_PORT_NOT_REGISTERED, NULL, true},
	/* Without a name, by address. */
	{TLS, "", "203.0.113.5:443", "a", REASON_NONE, "db.example.com", true},
	{TLS, "", "203.0.113.5:9000", "a", REASON_NONE, "db.example.com", true},
	{TLS, "", "203.0.113.5:5432", "a", REASON_NONE, "db.example.com", true},
	{TLS, "", "203.0.113.5:80", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{TLS, "", "203.0.113.5:444", "a", REASON_NO_SERVER_NAME, NULL, true},
	{TLS, "", AWAY ":443", "a", REASON_NO_SERVER_NAME, NULL, true},
	{TLS, "", "198.51.100.1:443", "a", REASON_NOT_EXPORTED, NULL, true},
	{TLS, "", "198.51.100.1:443", "team", REASON_NONE, "own.example.com", true},
	{TLS, "", "[2001:db8::7]:443", "a", REASON_NONE, "tcp443.example.com", true},
	{HTTP, "", "203.0.113.5:80", "a", REASON_NONE, "db.example.com", true},
	{HTTP, "", "203.0.113.5:5432", "a", REASON_NONE, "db.example.com", true},
	{HTTP, "", "203.0.113.5:443", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{HTTP, "", AWAY ":80", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	{HTTP, "", "203.0.113.5:8080", "a", REASON_PORT_NOT_REGISTERED, NULL, true},
	{OTHER, "", "203.0.113.5:5432", "a", REASON_NONE, "db.example.com", true},
	{OTHER, "", "203.0.113.5:9000", "a", REASON_NONE, "db.example.com", true},
	{OTHER, "", "203.0.113.5:443", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{OTHER, "", "203.0.113.5:80", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{OTHER, "", AWAY ":5432", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	{OTHER, "", "198.51.100.1:5432", "a", REASON_NOT_EXPORTED, NULL, true},
	{NOTHING, "", "203.0.113.5:5432", "a", REASON_NONE, "db.example.com", true},
	{NOTHING, "", "203.0.113.5:9000", "a", REASON_NONE, "db.example.com", true},
	{NOTHING, "", "203.0.113.5:443", "a", REASON_PROTOCOL_MISMATCH, NULL, false},
	{NOTHING, "", "[2001:db9::7]:443", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
	/* What is no TLS and no HTTP has no name, even where a caller passes one. */
	{OTHER, "tcp.example.com", AWAY ":5432", "a", REASON_HOST_NOT_REGISTERED, NULL, true},
};

struct early_case {
	const char *dst, *ns;
	const char *host; /* NULL: read on */
};

static const struct early_case early[] = {
	{"203.0.113.5:5432", "a", "db.example.com"},
	{"[2001:db8::7]:443", "a", "tcp443.example.com"},
	{"198.51.100.1:5432", "team", "own.example.com"},
	{"198.51.100.1:5432", "a", NULL},
	{"198.51.100.1:5432", "", NULL},
	{"203.0.113.5:443", "a", NULL},  /* TLS */
	{"203.0.113.5:80", "a", NULL},   /* HTTP */
	{"203.0.113.5:9000", "a", NULL}, /* no protocol: the client says it */
	{"203.0.113.5:5433", "a", NULL},
	{"192.0.2.9:5432", "a", NULL}, /* a TCP port alone captures no address */
};

static int make_registry(void **state)
{
	struct registry *reg = NULL;
	int r = entry_registry(&reg, entries, ARRAY_SIZE(entries), NULL, NULL);

	*state = reg;
	return r;
}

static int free_registry(void **state)
{
	registry_unref(*state);
	return 0;
}

static struct addr address(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

#define TEXT 256

/* One line for what was asked and what came of it: a mismatch shows all of it. */
static void write_line(char line[static TEXT], const struct decide_case *c, bool allow,
		       enum reason reason, const char *host, bool by_name)
{
	snprintf(line, TEXT, "spoken %d '%s' to %s from '%s': %s, reason '%s', service %s, by %s",
		 (int)c->spoken, c->name, c->dst, c->ns, allow ? "allow" : "deny",
		 reason_str(reason), host ?: "none", by_name ? "name" : "address");
}

static void check(const struct registry *reg, enum outbound_mode mode, const struct decide_case *c,
		  bool allow, enum reason reason)
{
	bool by_name = *c->name && (c->spoken == TLS || c->spoken == HTTP);
	struct addr dst = address(c->dst);
	struct query q = {&dst, c->ns, c->spoken, span_of(c->name)};
	char wanted[TEXT], got[TEXT];
	struct verdict v;

	decide(reg, mode, &q, &v);
	write_line(wanted, c, allow, reason, c->host, by_name);
	write_line(got, c, v.allow, v.reason, v.service ? v.service->host : NULL, v.by_name);
	assert_string_equal(got, wanted);
}

static void test_registry_only(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check(*state, OUTBOUND_REGISTRY_ONLY, &cases[i], cases[i].reason == REASON_NONE,
		      cases[i].reason);
}

/* What is registered keeps its verdict; the rest passes, but for the wrong protocol. */
static void test_allow_any(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct decide_case *c = &cases[i];
		bool passes = c->allow_any && c->reason != REASON_NONE;

		check(*state, OUTBOUND_ALLOW_ANY, c, c->allow_any,
		      passes ? REASON_NOT_REGISTERED : c->reason);
	}
}

static void test_early(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(early); i++) {
		const struct early_case *c = &early[i];
		struct addr dst = address(c->dst);
		struct verdict v = {.reason = REASON_N_};

		if (decide_early(*state, &dst, c->ns, &v) != (c->host != NULL))
			fail_msg("%s from '%s' is wrong", c->dst, c->ns);
		if (!c->host) {
			assert_int_equal(v.reason, REASON_N_); /* untouched */
			continue;
		}
		assert_true(v.allow && !v.by_name);
		assert_int_equal(v.reason, REASON_NONE);
		assert_string_equal(v.service->host, c->host);
	}
}

struct told_case {
	const char *name, *dst, *ns;
	enum reason reason;
	const char *host; /* NULL: none */
};

/* The protocol was looked at where the connection was captured; the name is judged again. */
static void test_told(void **state)
{
	static const struct told_case told[] = {
		{"tls.example.com", AWAY ":443", "a", REASON_NONE, "tls.example.com"},
		{"x.wild.example.com", AWAY ":443", "a", REASON_NONE, "*.wild.example.com"},
		{"web.example.com", AWAY ":80", "a", REASON_NONE, "web.example.com"},
		{"own.example.com", AWAY ":443", "a", REASON_NOT_EXPORTED, NULL},
		{"own.example.com", AWAY ":443", "", REASON_NOT_EXPORTED, NULL},
		{"tls.example.com", AWAY ":444", "a", REASON_PORT_NOT_REGISTERED, NULL},
		{"evil.example.org", "203.0.113.5:443", "a", REASON_HOST_NOT_REGISTERED, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
		const struct told_case *c = &told[i];
		struct addr dst = address(c->dst);
		struct query q = {&dst, c->ns, NOTHING, span_of(c->name)};
		struct verdict v;

		decide_told(*state, OUTBOUND_REGISTRY_ONLY, &q, &v);
		assert_string_equal(reason_str(v.reason), reason_str(c->reason));
		assert_int_equal(v.allow, c->host != NULL);
		assert_string_equal(v.service ? v.service->host : "none", c->host ?: "none");
		assert_true(v.by_name);

		decide_told(*state, OUTBOUND_ALLOW_ANY, &q, &v);
		assert_true(v.allow && v.by_name);
		assert_int_equal(v.reason, c->host ? REASON_NONE : REASON_NOT_REGISTERED);
		assert_string_equal(v.service ? v.service->host : "none", c->host ?: "none");
	}
}

/* An empty registry, as after a first load that was refused: nothing passes. */
static void test_empty(void **state)
{
	struct registry *reg = NULL;
	struct addr dst = address("203.0.113.5:443");
	struct query q = {&dst, "team", SPOKEN_TLS, span_of("tls.example.com")};
	struct verdict v;

	(void)state;
	assert_int_equal(registry_new(&reg, NULL, 0, NULL, NULL), 0);
	assert_false(decide_early(reg, &dst, "team", &v));
	decide(reg, OUTBOUND_REGISTRY_ONLY, &q, &v);
	assert_false(v.allow);
	assert_int_equal(v.reason, REASON_HOST_NOT_REGISTERED);
	registry_unref(reg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registry_only), cmocka_unit_test(test_allow_any),
		cmocka_unit_test(test_early),         cmocka_unit_test(test_told),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, make_registry, free_registry);
}

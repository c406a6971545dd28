/* SPDX-License-Identifier: Apache-2.0 */

/* The table of registered hosts: who is found by which name and address, from which namespace, and
 * what becomes of entries that claim the same.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <cmocka.h>

#include "entry_text.h"
#include "registry/siphash.h"

#define TEXT 512

/* ---- asking, in text ---- */

/* Who is asked for what, and who answers: "namespace/entry host", or a reason. */
struct ask {
	const char *what; /* "name:port", or "@address:port" */
	const char *ns;
	const char *answer;
};

static const struct service *find(const struct registry *reg, const struct ask *ask,
				  enum reason *ret_reason)
{
	const char *colon = strrchr(ask->what, ':');
	struct addr a;

	if (ask->what[0] != '@') {
		struct span name = {(const uint8_t *)ask->what, (size_t)(colon - ask->what)};

		return registry_find_name(reg, name, (uint16_t)atoi(colon + 1), ask->ns,
					  ret_reason);
	}
	assert_int_equal(addr_parse(ask->what + 1, &a), 0);
	return registry_find_addr(reg, &a, ask->ns, ret_reason);
}

static void check_ask(const struct registry *reg, const struct ask *ask)
{
	enum reason reason = REASON_N_;
	const struct service *s = find(reg, ask, &reason);
	char got[TEXT], wanted[TEXT];

	snprintf(wanted, TEXT, "%s from '%s': %s", ask->what, ask->ns, ask->answer);
	if (s)
		snprintf(got, TEXT, "%s from '%s': %s/%s %s", ask->what, ask->ns, s->ns, s->entry,
			 s->host);
	else
		snprintf(got, TEXT, "%s from '%s': %s", ask->what, ask->ns, reason_str(reason));
	assert_string_equal(got, wanted);
	if (s)
		assert_int_equal(reason, REASON_NONE);
}

/* What was warned of, one line each. */
struct heard {
	unsigned n;
	char text[4096];
};

static void hear(void *ctx, const char *text)
{
	struct heard *h = ctx;
	size_t used = strlen(h->text);

	h->n++;
	snprintf(h->text + used, sizeof(h->text) - used, "%s\n", text);
}

static struct registry *make(const struct entry_text *texts, size_t n, struct heard *heard)
{
	struct registry *reg = NULL;

	assert_int_equal(entry_registry(&reg, texts, n, heard ? hear : NULL, heard), 0);
	return reg;
}

/* In order, and none twice: that would be one host and port of one entry. */
static void check_services(const struct registry *reg)
{
	for (size_t i = 1; i < registry_n_services(reg); i++) {
		const struct service *a = registry_service(reg, i - 1);
		const struct service *b = registry_service(reg, i);
		int r = strcmp(a->host, b->host);

		assert_true(r < 0 || (r == 0 && a->port <= b->port));
		if (r == 0 && a->port == b->port)
			assert_false(strcmp(a->ns, b->ns) == 0 && strcmp(a->entry, b->entry) == 0);
	}
}

static void check_all(const struct entry_text *texts, size_t n, const struct ask *asks,
		      size_t n_asks, const char *const *warnings, size_t n_warnings)
{
	struct heard heard = {0};
	struct registry *reg = make(texts, n, &heard);

	for (size_t i = 0; i < n_asks; i++)
		check_ask(reg, &asks[i]);
	check_services(reg);
	for (size_t i = 0; i < n_warnings; i++) {
		if (!strstr(heard.text, warnings[i]))
			fail_msg("not warned of \"%s\" but of:\n%s", warnings[i], heard.text);
	}
	if (heard.n != n_warnings)
		fail_msg("%u warnings instead of %zu:\n%s", heard.n, n_warnings, heard.text);
	registry_unref(reg);
}

#define CHECK_ALL(texts, asks, warnings) \
	check_all(texts, ARRAY_SIZE(texts), asks, ARRAY_SIZE(asks), warnings, ARRAY_SIZE(warnings))
#define CHECK_QUIET(texts, asks) \
	check_all(texts, ARRAY_SIZE(texts), asks, ARRAY_SIZE(asks), NULL, 0)

#define HOST_NO "host_not_registered"
#define PORT_NO "port_not_registered"
#define NS_NO   "not_exported"

/* ---- names ---- */

static void test_names(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "t/exact",
		 .hosts = "example.com api.a.example.com",
		 .ports = "443:TLS 80:HTTP"},
		{.id = "t/wild", .hosts = "*.example.com", .ports = "443:TLS"},
		{.id = "t/deep", .hosts = "*.a.example.com", .ports = "443:TLS 8443:TLS"},
		{.id = "t/top", .hosts = "*.org", .ports = "443:TLS"},
		{.id = "t/flat", .hosts = "intranet _srv.x-y.example.net", .ports = "443:TLS"},
		{.id = "t/long", .hosts = "*.b.c.d.e.f.example.net", .ports = "443:TLS"},
	};
	static const struct ask asks[] = {
		{"example.com:443", "n", "t/exact example.com"},
		{"example.com:80", "n", "t/exact example.com"},
		{"www.example.com:443", "n", "t/wild *.example.com"},
		{"x.y.z.example.com:443", "n", "t/wild *.example.com"},
		{"a.example.com:443", "n",
		 "t/wild *.example.com"}, /* not itself in *.a.example.com */
		{"api.a.example.com:443", "n", "t/exact api.a.example.com"},
		{"b.a.example.com:443", "n", "t/deep *.a.example.com"},
		{"c.b.a.example.com:443", "n", "t/deep *.a.example.com"},
		{"debian.org:443", "n", "t/top *.org"},
		{"org:443", "n", HOST_NO},
		{"intranet:443", "n", "t/flat intranet"},
		{"_srv.x-y.example.net:443", "n", "t/flat _srv.x-y.example.net"},
		{"a.b.c.d.e.f.example.net:443", "n", "t/long *.b.c.d.e.f.example.net"},
		{"b.c.d.e.f.example.net:443", "n", HOST_NO},
		/* Most specific of those on the port. */
		{"api.a.example.com:8443", "n", "t/deep *.a.example.com"},
		{"www.example.com:80", "n", PORT_NO},
		{"example.com:8443", "n", PORT_NO},
		{"b.a.example.com:80", "n", PORT_NO},
		{"example.com:0", "n", PORT_NO},
		/* Look-alikes. */
		{"evilexample.com:443", "n", HOST_NO},
		{"example.com.evil.net:443", "n", HOST_NO},
		{"www.example.co:443", "n", HOST_NO},
		{"ww.example.comm:443", "n", HOST_NO},
		{"example:443", "n", HOST_NO},
		{"com:443", "n", HOST_NO},
		{"example.net:443", "n", HOST_NO},
		{"intranet.example.net:443", "n", HOST_NO},
		/* No names at all. */
		{":443", "n", HOST_NO},
		{".:443", "n", HOST_NO},
		{".example.com:443", "n", HOST_NO}, /* the key of *.example.com */
		{"..:443", "n", HOST_NO},
		{"example.com.:443", "n", HOST_NO}, /* callers drop the dot */
		{"Example.com:443", "n", HOST_NO},  /* and fold case */
	};

	(void)state;
	CHECK_QUIET(texts, asks);
}

/* Names of any bytes and lengths are answered, and never with a service they do not belong to. */
static void test_hostile_names(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "t/w", .hosts = "*.a.a.a *.a example.com", .ports = "443:TLS"},
	};
	static const char nul[] = "example.com\0.evil.net";
	struct registry *reg = make(texts, ARRAY_SIZE(texts), NULL);
	enum reason reason;
	char name[70000];

	(void)state;
	for (size_t i = 0; i < sizeof(name); i++)
		name[i] = i % 2 == 0 ? 'a' : '.';
	for (size_t len = 0; len < 300; len++) { /* "a.a.a": longer than a name can be, too */
		struct span s = {(const uint8_t *)name, len};
		const struct service *found = registry_find_name(reg, s, 443, "", &reason);
		const char *wanted = len % 2 == 0 || len < 3 || len > 253 ? NULL
				     : len < 7                            ? "*.a"
									  : "*.a.a.a";

		if (wanted)
			assert_string_equal(found ? found->host : "(none)", wanted);
		else
			assert_null(found);
	}

	memset(name, '.', sizeof(name));
	for (size_t len = 0; len < 300; len++)
		assert_null(registry_find_name(reg, (struct span){(const uint8_t *)name, len}, 443,
					       "", &reason));
	assert_null(registry_find_name(reg, (struct span){(const uint8_t *)name, sizeof(name)}, 443,
				       "", &reason));
	assert_null(registry_find_name(reg, (struct span){NULL, 0}, 443, "", &reason));
	assert_int_equal(reason, REASON_HOST_NOT_REGISTERED);
	assert_null(registry_find_name(reg, (struct span){(const uint8_t *)nul, sizeof(nul) - 1},
				       443, "", &reason));
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0'; /* a namespace of 69,999 bytes */
	assert_non_null(registry_find_name(reg, span_of("example.com"), 443, name, &reason));
	registry_unref(reg);
}

/* ---- exportTo ---- */

static void test_export_to(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "a/all", .hosts = "all.example.com", .ports = "443:TLS", .export_to = "*"},
		{.id = "a/own", .hosts = "own.example.com", .ports = "443:TLS", .export_to = "."},
		{.id = "a/list",
		 .hosts = "list.example.com",
		 .ports = "443:TLS",
		 .export_to = "d b . c b"},
		{.id = "a/none", .hosts = "none.example.com", .ports = "443:TLS", .export_to = "~"},
		{.id = "a/gone", .hosts = "none.example.com", .ports = "443:TLS", .export_to = "~"},
		/* The same host and port for others is no conflict. */
		{.id = "a/mine", .hosts = "db.example.com", .ports = "443:TLS", .export_to = "."},
		{.id = "b/mine", .hosts = "db.example.com", .ports = "443:TLS", .export_to = "."},
		{.id = "c/mine",
		 .hosts = "db.example.com",
		 .ports = "443:TLS 80:HTTP",
		 .export_to = "c d"},
		/* What one cannot see does not hide what one can. */
		{.id = "a/wide", .hosts = "*.wide.example.com", .ports = "443:TLS"},
		{.id = "b/narrow",
		 .hosts = "x.wide.example.com",
		 .ports = "443:TLS",
		 .export_to = "."},
		{.id = "/nowhere",
		 .hosts = "nowhere.example.com",
		 .ports = "443:TLS",
		 .export_to = "."},
	};
	static const struct ask asks[] = {
		{"all.example.com:443", "a", "a/all all.example.com"},
		{"all.example.com:443", "zzz", "a/all all.example.com"},
		{"all.example.com:443", "", "a/all all.example.com"},
		{"own.example.com:443", "a", "a/own own.example.com"},
		{"own.example.com:443", "b", NS_NO},
		{"own.example.com:443", "zzz", NS_NO},
		{"own.example.com:443", "", NS_NO},
		{"own.example.com:443", ".", NS_NO},
		{"own.example.com:443", "*", NS_NO},
		{"own.example.com:444", "b", PORT_NO},
		{"list.example.com:443", "a", "a/list list.example.com"},
		{"list.example.com:443", "b", "a/list list.example.com"},
		{"list.example.com:443", "c", "a/list list.example.com"},
		{"list.example.com:443", "d", "a/list list.example.com"},
		{"list.example.com:443", "e", NS_NO},
		{"list.example.com:443", "", NS_NO},
		{"none.example.com:443", "a", NS_NO},
		{"none.example.com:443", "~", NS_NO},
		{"none.example.com:443", "", NS_NO},
		{"db.example.com:443", "a", "a/mine db.example.com"},
		{"db.example.com:443", "b", "b/mine db.example.com"},
		{"db.example.com:443", "c", "c/mine db.example.com"},
		{"db.example.com:443", "d", "c/mine db.example.com"},
		{"db.example.com:443", "e", NS_NO},
		{"db.example.com:80", "d", "c/mine db.example.com"},
		{"db.example.com:80", "a", NS_NO},
		{"x.wide.example.com:443", "b", "b/narrow x.wide.example.com"},
		{"x.wide.example.com:443", "c", "a/wide *.wide.example.com"},
		{"nowhere.example.com:443", "", NS_NO},
		{"nowhere.example.com:443", "a", NS_NO},
	};

	(void)state;
	CHECK_QUIET(texts, asks);
}

/* ---- several entries for one host ---- */

static void test_merge(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "b/second",
		 .hosts = "m.example.com",
		 .ports = "443:TLS 80:HTTP",
		 .created = 20},
		{.id = "b/first",
		 .hosts = "m.example.com",
		 .ports = "443:TLS 8443:TLS",
		 .created = 10},
		/* Unknown age is the youngest, however small its name. */
		{.id = "a/unknown", .hosts = "m.example.com", .ports = "8443:TLS 9000:TCP"},
		/* The same age: by namespace, then by name. */
		{.id = "b/x", .hosts = "tie.example.com", .ports = "443:TLS", .created = 5},
		{.id = "a/y", .hosts = "tie.example.com", .ports = "443:TLS", .created = 5},
		{.id = "a/z", .hosts = "tie.example.com", .ports = "443:TLS", .created = 5},
		/* Twice in one entry is once. */
		{.id = "c/twice",
		 .hosts = "t.example.com t.example.com",
		 .ports = "443:TLS",
		 .addresses = "192.0.2.1 192.0.2.1"},
		{.id = "d/third",
		 .hosts = "t.example.com",
		 .ports = "443:TLS",
		 .addresses = "192.0.2.2"},
	};
	static const struct ask asks[] = {
		{"@192.0.2.2:443", "n", "d/third t.example.com"},
		{"m.example.com:443", "n", "b/first m.example.com"},
		{"m.example.com:80", "n", "b/second m.example.com"},
		{"m.example.com:8443", "n", "b/first m.example.com"},
		{"m.example.com:9000", "n", "a/unknown m.example.com"},
		{"m.example.com:9001", "n", PORT_NO},
		{"tie.example.com:443", "n", "a/y tie.example.com"},
		{"t.example.com:443", "n", "c/twice t.example.com"},
		{"@192.0.2.1:443", "n", "c/twice t.example.com"},
	};
	static const char *const warnings[] = {
		"b/second (test:1): 'm.example.com' port 443 belongs to the older b/first",
		"a/unknown (test:1): 'm.example.com' port 8443 belongs to the older b/first",
		"a/z (test:1): 'tie.example.com' port 443 belongs to the older a/y",
		"b/x (test:1): 'tie.example.com' port 443 belongs to the older a/y",
		"d/third (test:1): 't.example.com' port 443 belongs to the older c/twice",
	};

	(void)state;
	CHECK_ALL(texts, asks, warnings);
}

/* Conflicts are judged for each namespace by itself. */
static void test_merge_by_namespace(void **state)
{
	static const struct entry_text texts[] = {
		/* An old one for some, a younger one for all. */
		{.id = "a/some",
		 .hosts = "*.p.com",
		 .ports = "443:TLS",
		 .created = 1,
		 .export_to = "n m"},
		{.id = "b/all", .hosts = "*.p.com", .ports = "443:TLS", .created = 2},
		/* An old one for all, younger ones for some. */
		{.id = "b/all2", .hosts = "q.com", .ports = "443:TLS", .created = 1},
		{.id = "a/some2",
		 .hosts = "q.com",
		 .ports = "443:TLS",
		 .created = 2,
		 .export_to = "n m"},
		{.id = "a/some3",
		 .hosts = "q.com",
		 .ports = "443:TLS",
		 .created = 3,
		 .export_to = "n"},
		/* Lists that overlap. */
		{.id = "a/left",
		 .hosts = "r.com",
		 .ports = "443:TLS",
		 .created = 1,
		 .export_to = "n m"},
		{.id = "a/right",
		 .hosts = "r.com",
		 .ports = "443:TLS",
		 .created = 2,
		 .export_to = "m o"},
		{.id = "a/nobody",
		 .hosts = "r.com",
		 .ports = "443:TLS",
		 .created = 0,
		 .export_to = "~"},
	};
	static const struct ask asks[] = {
		{"x.p.com:443", "n", "a/some *.p.com"},
		{"x.p.com:443", "m", "a/some *.p.com"},
		{"x.p.com:443", "o", "b/all *.p.com"},
		{"x.p.com:443", "", "b/all *.p.com"},
		{"q.com:443", "n", "b/all2 q.com"},
		{"q.com:443", "m", "b/all2 q.com"},
		{"q.com:443", "o", "b/all2 q.com"},
		{"r.com:443", "n", "a/left r.com"},
		{"r.com:443", "m", "a/left r.com"},
		{"r.com:443", "o", "a/right r.com"},
		{"r.com:443", "p", NS_NO},
		{"r.com:443", "", NS_NO},
	};
	static const char *const warnings[] = {
		"b/all (test:1): '*.p.com' port 443 belongs to the older a/some",
		"a/some2 (test:1): 'q.com' port 443 belongs to the older b/all2",
		"a/some3 (test:1): 'q.com' port 443 belongs to the older b/all2",
		"a/right (test:1): 'r.com' port 443 belongs to the older a/left",
	};

	(void)state;
	CHECK_ALL(texts, asks, warnings);
}

/* ---- addresses ---- */

static void test_addresses(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "t/eight",
		 .hosts = "eight.com other.com",
		 .ports = "5432:TCP",
		 .addresses = "10.0.0.0/8"},
		{.id = "t/sixteen",
		 .hosts = "sixteen.com",
		 .ports = "5432:TCP 443:TLS",
		 .addresses = "10.1.0.0/16 192.0.2.7"},
		{.id = "t/odd",
		 .hosts = "odd.com",
		 .ports = "5432:TCP",
		 .addresses = "10.1.128.0/19"},
		{.id = "t/one",
		 .hosts = "one.com",
		 .ports = "5432:TCP",
		 .addresses = "10.1.2.3",
		 .export_to = "."},
		{.id = "t/six",
		 .hosts = "six.com",
		 .ports = "5432:TCP",
		 .addresses = "2001:db8::/32 2001:db8:0:8000::/49 fd00::1"},
		{.id = "t/none", .hosts = "none.com", .ports = "6000:TCP"},
	};
	static const struct ask asks[] = {
		{"@10.200.0.1:5432", "n", "t/eight eight.com"},
		{"@10.1.0.1:5432", "n", "t/sixteen sixteen.com"},
		{"@10.1.127.255:5432", "n", "t/sixteen sixteen.com"},
		{"@10.1.128.0:5432", "n", "t/odd odd.com"},
		{"@10.1.159.255:5432", "n", "t/odd odd.com"},
		{"@10.1.160.0:5432", "n", "t/sixteen sixteen.com"},
		{"@10.1.2.3:5432", "t", "t/one one.com"},
		{"@10.1.2.3:5432", "n", "t/sixteen sixteen.com"}, /* the longest that one may see */
		{"@192.0.2.7:443", "n", "t/sixteen sixteen.com"},
		{"@192.0.2.8:443", "n", HOST_NO},
		{"@10.2.0.1:443", "n", PORT_NO},
		{"@11.0.0.0:5432", "n", HOST_NO},
		{"@9.255.255.255:5432", "n", HOST_NO},
		{"@[2001:db8::1]:5432", "n", "t/six six.com"},
		{"@[2001:db8:0:ffff::1]:5432", "n", "t/six six.com"},
		{"@[2001:db9::1]:5432", "n", HOST_NO},
		{"@[fd00::1]:5432", "n", "t/six six.com"},
		{"@[fd00::2]:5432", "n", HOST_NO},
		{"@192.0.2.1:6000", "n", HOST_NO}, /* a port alone captures no address */
		{"none.com:6000", "n", "t/none none.com"},
		/* Bytes of an address are no name. */
		{"10.1.2.3:5432", "t", HOST_NO},
	};

	(void)state;
	CHECK_QUIET(texts, asks);
}

/* All of IPv6 is not IPv4, nor the other way round. */
static void test_all_addresses(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "t/six", .hosts = "six.com", .ports = "9000:TCP", .addresses = "::/0"},
		{.id = "t/four",
		 .hosts = "four.com",
		 .ports = "9001:TCP",
		 .addresses = "0.0.0.0/0"},
	};
	static const struct ask asks[] = {
		{"@[2a00::1]:9000", "n", "t/six six.com"},
		{"@[2a00::1]:9001", "n", PORT_NO},
		{"@192.0.2.1:9001", "n", "t/four four.com"},
		{"@192.0.2.1:9000", "n", PORT_NO},
		{"@[::]:9000", "n", "t/six six.com"},
		{"@0.0.0.0:9001", "n", "t/four four.com"},
	};

	(void)state;
	CHECK_QUIET(texts, asks);
}

static void test_addresses_in_conflict(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "a/young",
		 .hosts = "young.com",
		 .ports = "443:TCP 80:TCP",
		 .created = 2,
		 .addresses = "192.0.2.0/24"},
		{.id = "a/old",
		 .hosts = "old.com",
		 .ports = "443:TCP",
		 .created = 1,
		 .addresses = "192.0.2.0/24"},
		{.id = "b/mine",
		 .hosts = "b.com",
		 .ports = "443:TCP",
		 .export_to = ".",
		 .addresses = "2001:db8::/64"},
		{.id = "c/mine",
		 .hosts = "c.com",
		 .ports = "443:TCP",
		 .export_to = ".",
		 .addresses = "2001:db8::/64"},
		/* Its name belongs to an older one; its address is still its own. */
		{.id = "c/name",
		 .hosts = "old.com",
		 .ports = "443:TCP",
		 .addresses = "198.51.100.1"},
		/* Everything belongs to an older one: it is not there. */
		{.id = "c/lost",
		 .hosts = "old.com",
		 .ports = "443:TCP",
		 .addresses = "192.0.2.0/24"},
	};
	static const struct ask asks[] = {
		{"@192.0.2.1:443", "n", "a/old old.com"},
		{"@192.0.2.1:80", "n", "a/young young.com"},
		{"young.com:443", "n", "a/young young.com"},
		{"@[2001:db8::1]:443", "b", "b/mine b.com"},
		{"@[2001:db8::1]:443", "c", "c/mine c.com"},
		{"@[2001:db8::1]:443", "d", NS_NO},
		{"@198.51.100.1:443", "n", "c/name old.com"},
		{"old.com:443", "n", "a/old old.com"},
	};
	static const char *const warnings[] = {
		"a/young (test:1): '192.0.2.0/24' port 443 belongs to the older a/old",
		"c/lost (test:1): '192.0.2.0/24' port 443 belongs to the older a/old",
		"c/lost (test:1): 'old.com' port 443 belongs to the older a/old",
		"c/name (test:1): 'old.com' port 443 belongs to the older a/old",
	};
	struct registry *reg = make(texts, ARRAY_SIZE(texts), NULL);

	(void)state;
	for (size_t i = 0; i < registry_n_services(reg); i++)
		assert_string_not_equal(registry_service(reg, i)->entry, "lost");
	registry_unref(reg);
	CHECK_ALL(texts, asks, warnings);
}

/* ---- what a service says ---- */

static void test_services(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "z/static",
		 .hosts = "s.com",
		 .ports = "443>8443:TLS 80:HTTP",
		 .endpoints = "192.0.2.1=9443*5 2001:db8::1 DB.Example.NET.*3",
		 .export_to = "z .",
		 .addresses = "203.0.113.0/24",
		 .resolution = RESOLUTION_STATIC},
		{.id = "a/order", .hosts = "b.com *.c.com a.com", .ports = "80:HTTP 9:TCP"},
		{.id = "a/nobody", .hosts = "d.com", .ports = "80:HTTP", .export_to = "~"},
	};
	static const char *const order[] = {"*.c.com 9", "*.c.com 80", "a.com 9",
					    "a.com 80",  "b.com 9",    "b.com 80",
					    "d.com 80",  "s.com 80",   "s.com 443"};
	struct registry *reg = make(texts, ARRAY_SIZE(texts), NULL);
	enum reason reason;
	const struct service *s = registry_find_name(reg, span_of("s.com"), 443, "z", &reason);
	char text[ADDR_TEXT];

	(void)state;
	assert_non_null(s);
	assert_int_equal(s->port, 443);
	assert_int_equal(s->target_port, 8443);
	assert_int_equal(s->protocol, PROTOCOL_TLS);
	assert_int_equal(s->resolution, RESOLUTION_STATIC);
	assert_int_equal(s->n_addresses, 1);
	assert_string_equal(cidr_print(&s->addresses[0], text), "203.0.113.0/24");
	assert_int_equal(s->n_export_to, 1);
	assert_string_equal(s->export_to[0], "z");
	assert_int_equal(s->n_endpoints, 3);
	assert_string_equal(addr_print(&s->endpoints[0].addr, text), "192.0.2.1:9443");
	assert_null(s->endpoints[0].host);
	assert_int_equal(s->endpoints[0].weight, 5);
	assert_string_equal(addr_print(&s->endpoints[1].addr, text), "[2001:db8::1]:8443");
	assert_int_equal(s->endpoints[1].weight, 1);
	assert_string_equal(s->endpoints[2].host, "db.example.net");
	assert_int_equal(s->endpoints[2].addr.port, 8443);
	assert_int_equal(s->endpoints[2].weight, 3);

	s = registry_find_name(reg, span_of("s.com"), 80, "z", &reason);
	assert_int_equal(s->target_port, 80);
	assert_int_equal(s->endpoints[0].addr.port, 80);
	assert_string_equal(s->endpoints[2].host, "db.example.net");

	assert_int_equal(registry_n_hosts(reg), 5);
	assert_int_equal(registry_n_services(reg), ARRAY_SIZE(order));
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		s = registry_service(reg, i);
		snprintf(text, sizeof(text), "%s %u", s->host, s->port);
		assert_string_equal(text, order[i]);
		if (strcmp(s->host, "d.com") == 0)
			assert_string_equal(s->export_to[0], "~");
	}
	registry_unref(reg);
}

static void test_udp(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "t/quic", .hosts = "q.com", .ports = "443:UDP 80:HTTP", .created = 1},
		{.id = "t/tls", .hosts = "q.com", .ports = "443:TLS", .created = 2},
		{.id = "t/dns", .hosts = "dns.com", .ports = "53:UDP", .addresses = "192.0.2.53"},
	};
	static const struct ask asks[] = {
		{"q.com:443", "n", "t/tls q.com"},
		{"q.com:80", "n", "t/quic q.com"},
		{"dns.com:53", "n", HOST_NO},
		{"@192.0.2.53:53", "n", HOST_NO},
	};
	static const char *const warnings[] = {
		"t/quic (test:1): UDP port 443",
		"t/dns (test:1): UDP port 53",
	};

	(void)state;
	CHECK_ALL(texts, asks, warnings);
}

static void test_refused(void **state)
{
	static const char *const hosts[] = {"", ".example.com"};
	static const struct entry_port port = {.number = 443, .name = ""};
	struct cidr net = {.bits = 129};
	const char *good = "example.com";
	struct registry *reg = NULL;
	struct service_entry e = {.ns = "n",
				  .name = "e",
				  .n_hosts = 1,
				  .ports = &port,
				  .n_ports = 1,
				  .source = "test:1"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		e.hosts = &hosts[i];
		assert_int_equal(registry_new(&reg, &e, 1, NULL, NULL), -EINVAL);
	}
	e.hosts = &good;
	e.addresses = &net;
	e.n_addresses = 1;
	assert_int_equal(registry_new(&reg, &e, 1, NULL, NULL), -EINVAL);
	assert_null(reg);

	/* Nothing, and an entry that names nothing, are fine, and let nothing through. */
	e = (struct service_entry){.ns = "n", .name = "e", .source = "test:1"};
	assert_int_equal(registry_new(&reg, &e, 1, NULL, NULL), 0);
	assert_int_equal(registry_n_hosts(reg), 0);
	assert_int_equal(registry_n_services(reg), 0);
	check_ask(reg, &(struct ask){"example.com:443", "n", HOST_NO});
	check_ask(reg, &(struct ask){"@192.0.2.1:443", "n", HOST_NO});
	registry_unref(reg);
	registry_unref(NULL);
}

/* ---- against a model that just looks at everything ---- */

#define MODEL_ENTRIES 8
#define MODEL_ROUNDS  300

static const char *const model_hosts[] = {"b",     "a.b",       "*.b",  "x.a.b",
					  "*.a.b", "a.b x.a.b", "*.b b"};
static const char *const model_names[] = {"b", "a.b", "x.b", "x.a.b", "y.a.b", "z.y.a.b", "c"};
static const char *const model_nets[] = {NULL, "10.0.0.0/8", "10.1.0.0/16 10.2.0.0/16", "10.1.1.1"};
static const char *const model_addrs[] = {"10.1.1.1", "10.1.1.2", "10.2.0.1", "10.3.0.1",
					  "11.0.0.1"};
static const char *const model_ports[] = {"1:TCP", "2:TCP", "1:TCP 2:TCP"};
static const char *const model_exports[] = {NULL, "*", ".", "n0", "n0 n1", "n1 n2", "~"};
static const char *const model_ids[] = {"n0/a", "n1/b", "n2/c", "n0/d"};
static const char *const model_ns[] = {"", "n0", "n1", "n2", "n3"};

static const char *pick(const char *const *v, size_t n, uint64_t *random)
{
	*random = *random * 6364136223846793005U + 1442695040888963407U;
	return v[(*random >> 33) % n];
}
#define PICK(v, random) pick(v, ARRAY_SIZE(v), random)

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = list; at && (at = strstr(at, word)); at += n) {
		if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
			return true;
	}
	return false;
}

static bool model_sees(const struct entry_text *t, const char *ns)
{
	if (!t->export_to || strcmp(t->export_to, "*") == 0)
		return true;
	if (*ns == '\0')
		return false;
	return has_word(t->export_to, ns) ||
	       (strcmp(t->export_to, ".") == 0 && strncmp(t->id, ns, 2) == 0);
}

/* How well the best host fits the name: 0 not at all, longer is better, exact is best. */
static int model_name(const struct entry_text *t, const char *name)
{
	int best = has_word(t->hosts, name) ? 1000 : 0;

	for (const char *dot = strchr(name, '.'); dot && best == 0; dot = strchr(dot + 1, '.')) {
		char wildcard[16];

		snprintf(wildcard, sizeof(wildcard), "*%s", dot);
		if (has_word(t->hosts, wildcard))
			best = (int)strlen(dot);
	}
	return best;
}

static int model_addr(const struct entry_text *t, const char *text)
{
	OWNED_MEM struct entry_parts *parts = calloc(1, sizeof(*parts));
	struct service_entry e;
	struct addr a;
	int best = 0;

	assert_non_null(parts);
	assert_int_equal(addr_parse_ip(text, &a), 0);
	entry_of(t, parts, &e);
	for (size_t i = 0; i < e.n_addresses; i++) {
		if (cidr_contains(&e.addresses[i], &a) && e.addresses[i].bits > best)
			best = e.addresses[i].bits;
	}
	return best;
}

/* The answer, "namespace/entry" or a reason, by looking at every entry. Entries are given oldest
 * first.
 */
static const char *model_find(const struct entry_text *texts, const char *what, bool is_name,
			      char port, const char *ns)
{
	const char *answer = HOST_NO;
	char prefix[3] = {port, ':', '\0'};
	int best = 0;

	for (size_t i = 0; i < MODEL_ENTRIES; i++) {
		int fit = is_name ? model_name(&texts[i], what) : model_addr(&texts[i], what);

		if (fit == 0)
			continue;
		if (!strstr(texts[i].ports, prefix))
			answer = strcmp(answer, HOST_NO) == 0 ? PORT_NO : answer;
		else if (!model_sees(&texts[i], ns))
			answer = best == 0 ? NS_NO : answer;
		else if (fit > best) {
			best = fit;
			answer = texts[i].id;
		}
	}
	return answer;
}

static void check_model(const struct registry *reg, const struct entry_text *texts,
			const char *what, bool is_name, char port, const char *ns)
{
	const char *wanted = model_find(texts, what, is_name, port, ns);
	const struct service *s;
	char asked[64], got[64];
	enum reason reason;

	snprintf(asked, sizeof(asked), "%s%s:%c", is_name ? "" : "@", what, port);
	s = find(reg, &(struct ask){asked, ns, NULL}, &reason);
	snprintf(got, sizeof(got), "%s%s%s", s ? s->ns : "", s ? "/" : "",
		 s ? s->entry : reason_str(reason));
	if (strcmp(got, wanted) == 0)
		return;
	for (size_t i = 0; i < MODEL_ENTRIES; i++)
		print_error("%s hosts '%s' ports '%s' addresses '%s' to '%s'\n", texts[i].id,
			    texts[i].hosts, texts[i].ports, texts[i].addresses ?: "",
			    texts[i].export_to ?: "");
	fail_msg("%s from '%s': %s instead of %s", asked, ns, got, wanted);
}

static void check_model_ns(const struct registry *reg, const struct entry_text *texts,
			   const char *ns)
{
	for (char port = '1'; port <= '3'; port++) {
		for (size_t i = 0; i < ARRAY_SIZE(model_names); i++)
			check_model(reg, texts, model_names[i], true, port, ns);
		for (size_t i = 0; i < ARRAY_SIZE(model_addrs); i++)
			check_model(reg, texts, model_addrs[i], false, port, ns);
	}
}

static void test_model(void **state)
{
	uint64_t random = 1;

	(void)state;
	for (unsigned round = 0; round < MODEL_ROUNDS; round++) {
		struct entry_text texts[MODEL_ENTRIES];
		struct registry *reg;

		for (size_t i = 0; i < MODEL_ENTRIES; i++)
			texts[i] = (struct entry_text){
				.id = PICK(model_ids, &random),
				.hosts = PICK(model_hosts, &random),
				.ports = PICK(model_ports, &random),
				.export_to = PICK(model_exports, &random),
				.addresses = PICK(model_nets, &random),
				.created = (int64_t)i + 1,
			};
		reg = make(texts, MODEL_ENTRIES, NULL);
		for (size_t i = 0; i < ARRAY_SIZE(model_ns); i++)
			check_model_ns(reg, texts, model_ns[i]);
		registry_unref(reg);
	}
}

/* ---- protocols, hash ---- */

static void test_protocols(void **state)
{
	static const char kinds[] = "-oTThhhhooo-"; /* opaque, TLS, http, by enum protocol */
	enum protocol p;

	(void)state;
	assert_int_equal(sizeof(kinds) - 1, PROTOCOL_N_);
	for (unsigned i = 0; i < PROTOCOL_N_; i++) {
		assert_int_equal(protocol_parse(protocol_str((enum protocol)i), &p), 0);
		assert_int_equal(p, i);
		assert_int_equal(protocol_is_opaque(p), kinds[i] == 'o');
		assert_int_equal(protocol_is_tls(p), kinds[i] == 'T');
		assert_int_equal(protocol_is_http(p), kinds[i] == 'h');
	}
	assert_int_equal(protocol_parse("grpc-web", &p), 0);
	assert_int_equal(p, PROTOCOL_GRPC_WEB);
	assert_int_equal(protocol_parse("QUIC", &p), -EINVAL);
	assert_int_equal(protocol_parse("TCP ", &p), -EINVAL);
	assert_string_equal(resolution_str(RESOLUTION_DYNAMIC_DNS), "DYNAMIC_DNS");
}

/* As CPython computes hash(bytes), which is SipHash-1-3, with PYTHONHASHSEED=0 (a key of zeros). */
static void test_siphash(void **state)
{
	static const struct {
		const char *in;
		uint64_t out;
	} cases[] = {
		{"a", 0x407448d2b89b1813},
		{"example", 0xcf5a8cd89871f5e5},
		{"examples", 0xb688d06bea1307b6},
		{"example.com", 0x7e0432aaedb1758c},
		{".sub.example.com", 0x0b51425ce3bedf36},
		{"api.service.eu.example.com", 0x1ffe21d22de8ce2e},
	};
	static const struct siphash_key zero;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(siphash13(&zero, span_of(cases[i].in)), cases[i].out);
}

/* ---- many ---- */

#define MANY 100000

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_many(char (*names)[40], const char **hosts, struct service_entry *entries)
{
	static const struct entry_port port = {
		.number = 443, .protocol = PROTOCOL_TLS, .name = "tls"};

	for (size_t i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "%s%zu.example%zu.com", i % 4 ? "h" : "*.w", i,
			 i % 100);
		hosts[i] = names[i];
		entries[i] = (struct service_entry){.ns = "n",
						    .name = "e",
						    .created = (int64_t)(i * 7919 % MANY),
						    .hosts = &hosts[i],
						    .n_hosts = 1,
						    .ports = &port,
						    .n_ports = 1,
						    .source = "test:1"};
	}
}

static void test_many(void **state)
{
	OWNED_MEM struct service_entry *entries = calloc(MANY, sizeof(*entries));
	OWNED_MEM const char **hosts = calloc(MANY, sizeof(*hosts));
	OWNED_MEM char(*names)[40] = calloc(MANY, sizeof(*names));
	struct registry *reg = NULL;
	enum reason reason;
	double start;

	(void)state;
	assert_true(entries && hosts && names);
	make_many(names, hosts, entries);
	start = seconds(CLOCK_THREAD_CPUTIME_ID);
	assert_int_equal(registry_new(&reg, entries, MANY, NULL, NULL), 0);
	/* It takes a tenth of that; sanitizers and slow machines may take the rest. */
	assert_true(seconds(CLOCK_THREAD_CPUTIME_ID) - start < 5);
	assert_int_equal(registry_n_hosts(reg), MANY);
	assert_int_equal(registry_n_services(reg), MANY);

	for (size_t i = 0; i < MANY; i++) {
		const struct service *s;
		char name[48];

		snprintf(name, sizeof(name), "%s%s", i % 4 ? "" : "a.b",
			 names[i] + (i % 4 ? 0 : 1));
		s = registry_find_name(reg, span_of(name), 443, "x", &reason);
		assert_non_null(s);
		assert_string_equal(s->host, names[i]);
		snprintf(name, sizeof(name), "x%s", names[i]); /* xh1.example1.com, x*.w4... */
		if (i % 4)
			assert_null(registry_find_name(reg, span_of(name), 443, "x", &reason));
	}
	registry_unref(reg);
}

/* One host in very many namespaces: each finds its own, and the last as fast as the first. */
static void test_many_namespaces(void **state)
{
	static const struct entry_port port = {.number = 443, .name = ""};
	static const char *const own[] = {"."}, *const hosts[] = {"db.example.com"};
	enum { N = 5000 };
	OWNED_MEM struct service_entry *entries = calloc(N, sizeof(*entries));
	OWNED_MEM char(*names)[16] = calloc(N, sizeof(*names));
	struct registry *reg = NULL;
	struct heard heard = {0};
	enum reason reason;

	(void)state;
	assert_true(entries && names);
	for (size_t i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "ns-%zu", i);
		entries[i] = (struct service_entry){.ns = names[i],
						    .name = "db",
						    .hosts = hosts,
						    .n_hosts = 1,
						    .ports = &port,
						    .n_ports = 1,
						    .export_to = own,
						    .n_export_to = 1,
						    .source = "test:1"};
	}
	assert_int_equal(registry_new(&reg, entries, N, hear, &heard), 0);
	assert_int_equal(heard.n, 0);
	assert_int_equal(registry_n_hosts(reg), 1);
	assert_int_equal(registry_n_services(reg), N);
	for (size_t i = 0; i < N; i++) {
		const struct service *s =
			registry_find_name(reg, span_of(hosts[0]), 443, names[i], &reason);

		assert_non_null(s);
		assert_string_equal(s->ns, names[i]);
	}
	assert_null(registry_find_name(reg, span_of(hosts[0]), 443, "ns-5000", &reason));
	assert_int_equal(reason, REASON_NOT_EXPORTED);
	registry_unref(reg);
}

/* ---- threads ---- */

#define READERS 4
#define SWAPS   200

/* As the workers do it: a pointer that is swapped under a lock, references taken from it. */
struct shared {
	pthread_mutex_t lock;
	struct registry *reg;
	atomic_bool stop;
	atomic_uint wrong, turns;
};

static struct registry *take(struct shared *shared)
{
	struct registry *reg;

	pthread_mutex_lock(&shared->lock);
	reg = registry_ref(shared->reg);
	pthread_mutex_unlock(&shared->lock);
	return reg;
}

static void *read_on(void *arg)
{
	struct shared *shared = arg;

	while (!atomic_load(&shared->stop)) {
		struct registry *reg = take(shared);
		enum reason reason;
		const struct service *s =
			registry_find_name(reg, span_of("www.example.com"), 443, "n", &reason);

		if (!s || strcmp(s->host, "*.example.com") != 0)
			atomic_fetch_add(&shared->wrong, 1);
		registry_unref(reg);
		atomic_fetch_add(&shared->turns, 1);
	}
	return NULL;
}

static void test_threads(void **state)
{
	static const struct entry_text texts[] = {
		{.id = "t/w", .hosts = "*.example.com", .ports = "443:TLS", .export_to = "n m"},
	};
	struct shared shared = {.lock = PTHREAD_MUTEX_INITIALIZER, .reg = make(texts, 1, NULL)};
	uint64_t generation = registry_generation(shared.reg);
	pthread_t readers[READERS];

	(void)state;
	for (size_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, &shared), 0);
	for (unsigned i = 0; i < SWAPS || atomic_load(&shared.turns) < SWAPS; i++) {
		struct registry *new = make(texts, 1, NULL), *old;

		assert_true(registry_generation(new) > generation);
		generation = registry_generation(new);
		pthread_mutex_lock(&shared.lock);
		old = shared.reg;
		shared.reg = new;
		pthread_mutex_unlock(&shared.lock);
		registry_unref(old);
	}
	atomic_store(&shared.stop, true);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(atomic_load(&shared.wrong), 0);
	registry_unref(shared.reg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_hostile_names),
		cmocka_unit_test(test_export_to),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_merge_by_namespace),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_all_addresses),
		cmocka_unit_test(test_addresses_in_conflict),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_services),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_protocols),
		cmocka_unit_test(test_siphash),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_many_namespaces),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

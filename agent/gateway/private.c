/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/private.h"

#include <string.h>

#include "base/owned.h"
#include "gateway/dial.h"

struct range {
	struct cidr net;
	bool guarded; /* lifted only by a network inside it */
};

struct networks {
	const struct cidr *nets;
	size_t n;
};

#define V4(a, b, c, d, n)                                                    \
	{                                                                    \
		.ip = {[10] = 0xff, [11] = 0xff, a, b, c, d}, .bits = 96 + n \
	}

/* IANA's special-purpose registry for IPv4. The documentation networks are left out: examples and
 * tests live there, and nobody routes them.
 */
static const struct range v4_ranges[] = {
	{V4(0, 0, 0, 0, 8), true}, /* "this host": connecting to it is connecting to oneself */
	{V4(10, 0, 0, 0, 8), false},
	{V4(100, 64, 0, 0, 10), false},     /* carrier NAT, RFC 6598 */
	{V4(100, 100, 100, 200, 32), true}, /* Alibaba's metadata */
	{V4(127, 0, 0, 0, 8), true},        /* loopback */
	{V4(168, 63, 129, 16, 32), true},   /* Azure's platform address */
	{V4(169, 254, 0, 0, 16), true},     /* link-local, and nearly everybody's metadata */
	{V4(172, 16, 0, 0, 12), false},
	{V4(192, 0, 0, 0, 24), false},   /* IETF protocol assignments, RFC 6890 */
	{V4(192, 0, 0, 192, 32), true},  /* Oracle's older metadata */
	{V4(192, 88, 99, 0, 24), false}, /* 6to4 relays, RFC 7526 */
	{V4(192, 168, 0, 0, 16), false},
	{V4(198, 18, 0, 0, 15), false}, /* benchmarks, RFC 2544 */
	{V4(224, 0, 0, 0, 4), false},   /* multicast */
	{V4(240, 0, 0, 0, 4), false},   /* reserved, and broadcast */
};

/* Only 2000::/3 is global unicast (RFC 4291, 2.4). All else is refused, whatever it will be one day
 * (but see nat64), and some of it is guarded.
 */
static const struct range v6_ranges[] = {
	{{.bits = 3}, false},
	{{.ip = {0x40}, .bits = 2}, false},
	{{.ip = {0x80}, .bits = 1}, false},
	{{.bits = 128}, true},                                                 /* :: */
	{{.ip = {[15] = 1}, .bits = 128}, true},                               /* ::1 */
	{{.ip = {0xfc, 0x00}, .bits = 7}, false},                              /* unique local */
	{{.ip = {0xfd, 0x00, 0x0e, 0xc2, [14] = 2, 0x54}, .bits = 128}, true}, /* AWS metadata */
	{{.ip = {0xfd, 0x20, 0x00, 0xce, [14] = 2, 0x54}, .bits = 128}, true}, /* Google's */
	{{.ip = {0xfe, 0x80}, .bits = 10}, true},                              /* link-local */
	{{.ip = {0xfe, 0xc0}, .bits = 10}, false},                             /* site-local */
	{{.ip = {0xff, 0x00}, .bits = 8}, false},                              /* multicast */
	{{.ip = {0x20, 0x01, 0x00, 0x02}, .bits = 48}, false}, /* benchmarks, RFC 5180 */
	{{.ip = {0x20, 0x01, 0x00, 0x10}, .bits = 28}, false}, /* ORCHID, RFC 4843 */
	{{.ip = {0x20, 0x01, 0x00, 0x20}, .bits = 28}, false}, /* ORCHIDv2, RFC 7343 */
};

static const struct cidr nat64 = {.ip = {0x00, 0x64, 0xff, 0x9b}, .bits = 96}; /* RFC 6052 */
static const struct cidr sixto4 = {.ip = {0x20, 0x02}, .bits = 16};            /* RFC 3056 */
static const struct cidr teredo = {.ip = {0x20, 0x01}, .bits = 32};            /* RFC 4380 */

static bool lies_inside(const struct cidr *inner, const struct cidr *outer)
{
	struct addr a = {0};

	memcpy(a.ip, inner->ip, sizeof(a.ip));
	return inner->bits >= outer->bits && cidr_contains(outer, &a);
}

/* `within` NULL: any network that holds `a` will do, but ::/0 is IPv6 only, though it also holds
 * the form in which we keep IPv4.
 */
static bool holds(struct networks list, const struct addr *a, const struct cidr *within)
{
	for (size_t i = 0; i < list.n; i++)
		if (cidr_contains(&list.nets[i], a) && cidr_is_v4(&list.nets[i]) == addr_is_v4(a) &&
		    (!within || lies_inside(&list.nets[i], within)))
			return true;
	return false;
}

static bool is_lifted(const struct range *range, struct networks allowed,
		      struct networks registered, const struct addr *a)
{
	return holds(allowed, a, range->guarded ? &range->net : NULL) ||
	       holds(registered, a, &range->net);
}

/* Judges one address as it stands, without looking for another inside. */
static bool form_refused(const struct private_rules *rules, struct networks registered,
			 const struct addr *a)
{
	struct networks allowed = {rules->allowed, rules->n_allowed};
	bool v4 = addr_is_v4(a);
	const struct range *ranges = v4 ? v4_ranges : v6_ranges;
	size_t n = v4 ? ARRAY_SIZE(v4_ranges) : ARRAY_SIZE(v6_ranges);

	if (!v4 && cidr_contains(&nat64, a))
		n = 0; /* as good as what it carries inside, which the caller judges */
	/* Every range that holds it has to be lifted, not just one of them. */
	for (size_t i = 0; i < n; i++)
		if (cidr_contains(&ranges[i].net, a) &&
		    !is_lifted(&ranges[i], allowed, registered, a))
			return true;
	for (size_t i = 0; i < rules->n_cluster; i++) {
		/* Allowing 10.0.0.0/8 does not open the pods in the midst of it. */
		struct range cluster = {.net = rules->cluster[i], .guarded = true};

		if (cidr_contains(&cluster.net, a) && !is_lifted(&cluster, allowed, registered, a))
			return true;
	}
	return false;
}

static struct addr v4_of(const uint8_t ip[4], uint8_t flip)
{
	struct addr a = {.ip = {[10] = 0xff, [11] = 0xff}};

	for (size_t i = 0; i < 4; i++)
		a.ip[12 + i] = ip[i] ^ flip;
	return a;
}

/* The IPv4 addresses that packets to `a` would end up at. */
static size_t embedded(const struct addr *a, struct addr ret[2])
{
	if (cidr_contains(&nat64, a)) {
		ret[0] = v4_of(&a->ip[12], 0);
		return 1;
	}
	if (cidr_contains(&sixto4, a)) {
		ret[0] = v4_of(&a->ip[2], 0);
		return 1;
	}
	if (cidr_contains(&teredo, a)) {
		ret[0] = v4_of(&a->ip[4], 0);     /* the server */
		ret[1] = v4_of(&a->ip[12], 0xff); /* the client, which is written inverted */
		return 2;
	}
	return 0;
}

static bool names_exactly(struct networks list, const struct addr *a)
{
	for (size_t i = 0; i < list.n; i++)
		if (list.nets[i].bits == 128 && cidr_contains(&list.nets[i], a))
			return true;
	return false;
}

bool private_refused(const struct private_rules *rules, const struct cidr *registered,
		     size_t n_registered, const struct addr *a)
{
	struct networks nets = {registered, n_registered};
	struct addr inner[2];
	size_t n = addr_is_v4(a) ? 0 : embedded(a, inner);
	bool refused = form_refused(rules, nets, a);

	for (size_t i = 0; i < n && !refused; i++)
		refused = form_refused(rules, nets, &inner[i]);
	/* Registering the whole address says what is meant, whatever it carries inside. */
	return refused && !names_exactly(nets, a);
}

bool dial_is_private(const struct addr *a)
{
	static const struct private_rules nothing_lifted;

	return private_refused(&nothing_lifted, NULL, 0, a);
}

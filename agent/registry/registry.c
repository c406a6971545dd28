/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/registry.h"

#include <stdlib.h>
#include <string.h>

#include "registry/layout.h"

#define NAME_LONGEST 253 /* RFC 1035 2.3.4, without the trailing dot */

struct registry *registry_ref(struct registry *reg)
{
	atomic_fetch_add_explicit(&reg->refs, 1, memory_order_relaxed);
	return reg;
}

void registry_unref(struct registry *reg)
{
	if (reg && atomic_fetch_sub_explicit(&reg->refs, 1, memory_order_acq_rel) == 1)
		registry_free(reg);
}

void registry_free(struct registry *reg)
{
	if (!reg)
		return;
	index_done(&reg->names);
	index_done(&reg->nets);
	index_done(&reg->namespaces);
	free(reg->services);
	free(reg->endpoints);
	free(reg->addresses);
	free(reg->export_to);
	free(reg->text);
	free(reg);
}

size_t registry_n_hosts(const struct registry *reg)
{
	return reg->names.n;
}

size_t registry_n_services(const struct registry *reg)
{
	return reg->n_services;
}

uint64_t registry_generation(const struct registry *reg)
{
	return reg->generation;
}

const struct service *registry_service(const struct registry *reg, size_t i)
{
	return &reg->services[i];
}

/* ---- one question, asked of several keys ---- */

struct search {
	const struct registry *reg;
	const struct index *ix;
	const char *ns;
	uint32_t ns_id; /* NS_ALL when no entry mentions it */
	uint16_t port;
	enum reason reason; /* why nothing was found so far: how far the best candidate came */
};

static struct search search_of(const struct registry *reg, const struct index *ix, uint16_t port,
			       const char *ns)
{
	const struct record *r = *ns ? index_find(&reg->namespaces, span_of(ns)) : NULL;

	return (struct search){
		.reg = reg,
		.ix = ix,
		.ns = ns,
		.ns_id = r ? index_id(&reg->namespaces, r) : NS_ALL,
		.port = port,
		.reason = REASON_HOST_NOT_REGISTERED,
	};
}
_Static_assert(REASON_HOST_NOT_REGISTERED < REASON_PORT_NOT_REGISTERED &&
		       REASON_PORT_NOT_REGISTERED < REASON_NOT_EXPORTED,
	       "reasons rise with how far a candidate came");

static const struct service *no_service(struct search *s, enum reason reason)
{
	if (reason > s->reason)
		s->reason = reason;
	return NULL;
}

/* The first grant that is not before (port, ns), or `end`. */
static const struct grant *lower_bound(const struct grant *g, const struct grant *end,
				       uint16_t port, uint32_t ns)
{
	while (g < end) {
		const struct grant *mid = g + (end - g) / 2;

		if (mid->port < port || (mid->port == port && mid->ns < ns))
			g = mid + 1;
		else
			end = mid;
	}
	return g;
}

static bool is_listed(const struct search *s, const struct service *service)
{
	size_t low = 0, high = s->ns_id == NS_ALL ? 0 : service->n_export_to;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int r = strcmp(service->export_to[mid], s->ns);

		if (r == 0)
			return true;
		if (r < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

static const struct service *search_key(struct search *s, struct span key)
{
	const struct record *r = index_find(s->ix, key);
	const struct grant *g, *own, *end;

	if (!r)
		return NULL;
	end = r->grants + r->n_grants;
	g = lower_bound(r->grants, end, s->port, NS_ALL);
	if (g == end || g->port != s->port)
		return no_service(s, REASON_PORT_NOT_REGISTERED);

	own = lower_bound(g, end, s->port, s->ns_id);
	if (own != end && own->port == s->port && own->ns == s->ns_id)
		return &s->reg->services[own->service];
	if (g->ns == NS_ALL)
		return &s->reg->services[g->service];
	if (g->ns == NS_LISTED && is_listed(s, &s->reg->services[g->service]))
		return &s->reg->services[g->service];
	return no_service(s, REASON_NOT_EXPORTED);
}

static bool has_wildcard_of(const struct registry *reg, size_t labels)
{
	return reg->wildcard_depths[labels / 64] >> (labels % 64) & 1;
}

/* Tries the suffixes of `name` from the longest on, and of them only those with as many labels as
 * some registered wildcard has: what an outsider's name costs is bounded by what is registered.
 */
static const struct service *search_wildcards(struct search *s, struct span name)
{
	const struct service *found = NULL;
	size_t labels = 0;

	for (size_t i = 1; i < name.len; i++)
		labels += name.p[i] == '.';
	for (size_t i = 1; i < name.len && !found; i++) {
		if (name.p[i] != '.')
			continue;
		if (has_wildcard_of(s->reg, labels--))
			found = search_key(s, (struct span){name.p + i, name.len - i});
	}
	return found;
}

const struct service *registry_find_name(const struct registry *reg, struct span name,
					 uint16_t port, const char *ns, enum reason *ret_reason)
{
	struct search s = search_of(reg, &reg->names, port, ns);
	const struct service *found = NULL;

	/* A leading dot is no name, and would meet the key of a wildcard. */
	if (name.len > 0 && name.len <= NAME_LONGEST && name.p[0] != '.') {
		found = search_key(&s, name);
		if (!found)
			found = search_wildcards(&s, name);
	}
	*ret_reason = found ? REASON_NONE : s.reason;
	return found;
}

static struct cidr network_of(const struct addr *a, uint8_t bits)
{
	struct cidr net = {.bits = bits};

	memcpy(net.ip, a->ip, bits / 8);
	if (bits % 8)
		net.ip[bits / 8] = a->ip[bits / 8] & (uint8_t)(0xff00 >> bits % 8);
	return net;
}

const struct service *registry_find_addr(const struct registry *reg, const struct addr *dst,
					 const char *ns, enum reason *ret_reason)
{
	struct search s = search_of(reg, &reg->nets, dst->port, ns);
	uint8_t least = addr_is_v4(dst) ? 96 : 0; /* ::/0 means IPv6, not the mapped IPv4 in it */
	const struct service *found = NULL;

	for (size_t i = 0; i < reg->n_prefix_bits && reg->prefix_bits[i] >= least && !found; i++) {
		struct cidr net = network_of(dst, reg->prefix_bits[i]);

		found = search_key(&s, (struct span){(const uint8_t *)&net, sizeof(net)});
	}
	*ret_reason = found ? REASON_NONE : s.reason;
	return found;
}

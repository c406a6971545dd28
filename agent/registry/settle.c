/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/build.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_spans(struct span a, struct span b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int r = n > 0 ? memcmp(a.p, b.p, n) : 0;

	if (r == 0 && a.len != b.len)
		r = a.len < b.len ? -1 : 1;
	return r;
}

/* By key, then port, then age. */
static int compare_claims(const void *pa, const void *pb)
{
	const struct claim *a = pa, *b = pb;
	int r = compare_spans(a->key, b->key);

	if (r == 0 && a->port != b->port)
		r = a->port < b->port ? -1 : 1;
	if (r == 0 && a->slot != b->slot)
		r = a->slot < b->slot ? -1 : 1;
	if (r == 0)
		r = (int)b->first_host - (int)a->first_host;
	return r;
}

static uint32_t namespace_id(const struct builder *b, const char *ns)
{
	const struct index *ix = &b->reg->namespaces;

	return index_id(ix, index_find(ix, span_of(ns)));
}

static uint32_t audience(const struct builder *b, const struct service *as)
{
	if (as->n_export_to == 0)
		return NS_ALL;
	if (as->export_to[0] == build_nobody)
		return NS_NOBODY;
	return as->n_export_to == 1 ? namespace_id(b, as->export_to[0]) : NS_LISTED;
}

static int push_grant(struct builder *b, struct grant grant)
{
	if (b->n_grants == b->max_grants) {
		size_t n = b->max_grants ? b->max_grants * 2 : 64;
		struct grant *grants;

		if (n > PARTS_MAX)
			return -E2BIG;
		grants = reallocarray(b->grants, n, sizeof(*grants));
		if (!grants)
			return -ENOMEM;
		b->grants = grants;
		b->max_grants = n;
	}
	b->grants[b->n_grants++] = grant;
	return 0;
}

static void lose(struct builder *b, const struct index *ix, struct claim *loser,
		 const struct claim *winner)
{
	const struct service_entry *young = b->slots[loser->slot].in;
	const struct service_entry *old = b->slots[winner->slot].in;
	char key[300];

	if (loser->lost)
		return;
	loser->lost = true;
	if (ix == &b->reg->nets)
		cidr_print((const void *)loser->key.p, key);
	else
		snprintf(key, sizeof(key), "%s%.*s", loser->key.p[0] == '.' ? "*" : "",
			 (int)loser->key.len, (const char *)loser->key.p);
	build_warn(b,
		   "ServiceEntry %s/%s (%s): '%s' port %u belongs to the older %s/%s (%s) where "
		   "both are exported to, ignoring it there",
		   young->ns, young->name, young->source ?: "?", key, loser->port, old->ns,
		   old->name, old->source ?: "?");
}

/* One grant for each namespace that the claim is for: where several claims meet, each namespace
 * gets its own answer.
 */
static int push_each(struct builder *b, const struct claim *c, uint32_t at)
{
	const struct service *as = &b->slots[c->slot].as;
	struct grant grant = {.ns = audience(b, as), .service = at, .port = c->port};
	int r = 0;

	if (grant.ns != NS_LISTED)
		return push_grant(b, grant);
	for (size_t i = 0; i < as->n_export_to && r == 0; i++) {
		grant.ns = namespace_id(b, as->export_to[i]);
		r = push_grant(b, grant);
	}
	return r;
}

/* By namespace, then age. */
static int compare_grants(const void *pa, const void *pb)
{
	const struct grant *a = pa, *b = pb;

	if (a->ns != b->ns)
		return a->ns < b->ns ? -1 : 1;
	return a->service < b->service ? -1 : a->service > b->service;
}

/* Leaves one answer per namespace of those pushed since `start`, which are all for one key and
 * port: the oldest claim on it. A younger claim for one namespace gives way to an older one for
 * everybody; an older one stands beside it.
 */
static void settle(struct builder *b, const struct index *ix, struct claim *claims, size_t start)
{
	struct grant *g = b->grants + start, prev;
	size_t n = b->n_grants - start, kept = 0;
	uint32_t all = UINT32_MAX; /* the oldest claim for everybody */

	qsort(g, n, sizeof(*g), compare_grants);
	if (g[0].ns == NS_ALL)
		all = g[0].service;
	prev = (struct grant){.ns = NS_NOBODY};
	for (size_t i = 0; i < n; i++) {
		struct grant now = g[i];

		if (now.ns != NS_NOBODY && now.service > all) {
			lose(b, ix, &claims[now.service], &claims[all]);
			continue;
		}
		if (now.ns != NS_NOBODY && now.ns == prev.ns) {
			lose(b, ix, &claims[now.service], &claims[prev.service]);
			continue;
		}
		prev = now;
		if (now.ns != NS_NOBODY && now.ns != NS_ALL && all != UINT32_MAX)
			lose(b, ix, &claims[all], &claims[now.service]);
		claims[now.service].live = true;
		g[kept++] = now;
	}
	b->n_grants = start + kept;
}

/* Drops what one entry says twice. Returns how many of the n claims on one key and port are left.
 */
static size_t drop_repeats(const struct builder *b, struct claim *c, size_t n)
{
	size_t kept = 1;

	for (size_t i = 1; i < n; i++) {
		if (b->slots[c[i].slot].in != b->slots[c[kept - 1].slot].in)
			c[kept++] = c[i];
	}
	for (size_t i = kept; i < n; i++)
		c[i].first_host = false; /* what is left behind claims nothing */
	return kept;
}

/* Grants for the claims i to end - 1, all on one key and port. */
static int grant_port(struct builder *b, const struct index *ix, struct claim *claims, size_t i,
		      size_t end)
{
	size_t start = b->n_grants, n = drop_repeats(b, claims + i, end - i);
	int r = 0;

	if (n == 1) { /* the usual case: long export lists need not be unrolled */
		claims[i].live = true;
		return push_grant(b, (struct grant){.ns = audience(b, &b->slots[claims[i].slot].as),
						    .service = (uint32_t)i,
						    .port = claims[i].port});
	}
	for (size_t k = i; k < i + n && r == 0; k++)
		r = push_each(b, &claims[k], (uint32_t)k);
	if (r == 0)
		settle(b, ix, claims, start);
	return r;
}

static size_t end_of_key(const struct claims *claims, size_t i)
{
	struct span key = claims->v[i].key;

	while (i < claims->n && span_equal(claims->v[i].key, key))
		i++;
	return i;
}

static size_t end_of_port(const struct claims *claims, size_t i, size_t end)
{
	uint16_t port = claims->v[i].port;

	while (i < end && claims->v[i].port == port)
		i++;
	return i;
}

static int grant_key(struct builder *b, struct index *ix, struct claims *claims, size_t i,
		     size_t end)
{
	struct span key = claims->v[i].key;
	int r = 0;

	b->n_grants = 0;
	for (size_t next; i < end && r == 0; i = next) {
		next = end_of_port(claims, i, end);
		r = grant_port(b, ix, claims->v, i, next);
	}
	return r < 0 ? r : index_add(ix, key, b->grants, b->n_grants);
}

int build_index(struct builder *b, struct index *ix, struct claims *claims)
{
	int r = 0;

	qsort(claims->v, claims->n, sizeof(*claims->v), compare_claims);
	for (size_t i = 0, end; i < claims->n && r == 0; i = end) {
		end = end_of_key(claims, i);
		r = grant_key(b, ix, claims, i, end);
	}
	return r;
}
